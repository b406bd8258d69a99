//! Logs: text or JSON on standard error, with a filter that can be replaced at run time.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Replaces the log filter of the running process.
#[derive(Clone)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

/// Why a log filter was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Not a filter.
    #[error("no log filter; write a level such as debug, or module=level pairs")]
    Filter {
        /// What the parser said.
        #[from]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The subscriber is gone.
    #[error("the log filter cannot be replaced")]
    Replace {
        /// Why.
        #[from]
        source: reload::Error,
    },
}

impl LogControl {
    /// Applies `filter`, for instance `debug` or `spiffe_operator=trace,kube=warn`.
    ///
    /// # Errors
    /// When `filter` does not parse; the old one stays in force.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        Ok(self.0.reload(EnvFilter::try_new(filter)?)?)
    }
}

/// Starts logging with `filter`.
///
/// # Errors
/// When `filter` does not parse.
pub fn start(filter: &str, format: LogFormat) -> Result<LogControl, LogError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(filter)?);
    let lines = match format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Text => fmt::layer().with_writer(std::io::stderr).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    Ok(LogControl(handle))
}
