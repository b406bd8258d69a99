//! Logs: text or JSON on standard error, with a filter that can be replaced at run time.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;
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
    /// A word that is no level. As a filter it would name a module, and silence all others.
    #[error(
        "{word:?} is no log level; write off, error, warn, info, debug or trace, or \
             module=level pairs"
    )]
    Level {
        /// The word.
        word: String,
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
        Ok(self.0.reload(parse(filter)?)?)
    }

    /// A control whose logs have ended.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        Self(reload::Layer::new(EnvFilter::default()).1)
    }
}

/// Starts logging with `filter`.
///
/// # Errors
/// When `filter` does not parse.
pub fn start(filter: &str, format: LogFormat) -> Result<LogControl, LogError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = match format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Text => fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    Ok(LogControl(handle))
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    // The parser takes an empty word for `error`, and any other word that is no level for a module.
    let is_bare = |word: &&str| !word.contains(['=', '[']);
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let mut bare = filter.split(',').map(str::trim).filter(is_bare);
    if let Some(word) = bare.find(|word| !is_level(word)) {
        return Err(LogError::Level { word: word.into() });
    }
    Ok(EnvFilter::try_new(filter)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_levels_and_pairs() {
        for filter in [
            "info",
            "DEBUG",
            "off",
            "warn,kube=debug",
            "kube=debug, info",
        ] {
            assert!(parse(filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn refuses_what_would_silence_everything() {
        for filter in ["", "verbose", "info,kube", "kube=loud", "="] {
            assert!(parse(filter).is_err(), "{filter}");
        }
    }
}
