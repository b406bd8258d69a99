//! Logs: text or JSON on standard error, with a filter that can be replaced at run time.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

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
pub struct LogControl {
    handle: reload::Handle<EnvFilter, Registry>,
    /// The filter that the process was started with.
    launch: Arc<str>,
    current: Arc<Mutex<LevelFilter>>,
}

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
        self.handle.reload(parse(filter)?)?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = level_in(filter);
        Ok(())
    }

    /// Applies the filter that the process was started with.
    ///
    /// # Errors
    /// When the subscriber is gone.
    pub fn reset(&self) -> Result<(), LogError> {
        self.set(&self.launch)
    }

    /// The level of all modules for which the filter in force names no other.
    #[must_use]
    pub fn level(&self) -> LevelFilter {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same of the filter that the process was started with.
    #[must_use]
    pub fn launch_level(&self) -> LevelFilter {
        level_in(&self.launch)
    }

    fn new(handle: reload::Handle<EnvFilter, Registry>, filter: &str) -> Self {
        Self {
            handle,
            launch: filter.into(),
            current: Arc::new(Mutex::new(level_in(filter))),
        }
    }

    /// A control whose logs have ended.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        Self::new(reload::Layer::new(EnvFilter::default()).1, "error")
    }
}

/// Starts logging with the filter `text`.
///
/// # Errors
/// When it does not parse.
pub fn start(text: &str, format: LogFormat) -> Result<LogControl, LogError> {
    let (filter, handle) = reload::Layer::new(parse(text)?);
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
    Ok(LogControl::new(handle, text))
}

/// The last bare level in `filter`; errors alone are logged where there is none.
fn level_in(filter: &str) -> LevelFilter {
    let words = filter.split(',').map(str::trim);
    let mut levels = words.filter_map(|word| word.parse().ok());
    levels.next_back().unwrap_or(LevelFilter::ERROR)
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

    #[test]
    fn the_bare_level_is_that_of_all_modules() {
        for (filter, level) in [
            ("info", LevelFilter::INFO),
            ("DEBUG", LevelFilter::DEBUG),
            ("off", LevelFilter::OFF),
            ("warn,kube=debug", LevelFilter::WARN),
            ("kube=debug, info", LevelFilter::INFO),
            ("kube=debug", LevelFilter::ERROR),
        ] {
            assert_eq!(level_in(filter), level, "{filter}");
        }
    }
}
