//! Logging for a whole process: set up once by a binary, never by a library.
//!
//! The filter comes from `FAIRLEAD_LOG` (the syntax of `tracing-subscriber`'s `EnvFilter`: `info`,
//! `warn,fairlead_xds=debug`), lines go to standard error, so that standard output stays for results and access
//! logs.

use std::fmt;
use std::str::FromStr;
use tracing_subscriber::EnvFilter;

/// The variable that holds the filter.
pub const FILTER_VARIABLE: &str = "FAIRLEAD_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug)]
pub enum LoggingError {
    /// `FAIRLEAD_LOG` does not parse.
    Filter(String),
    /// Something has set up logging before.
    AlreadyInstalled(String),
}

/// Installs the process's logger. `default_filter` holds where `FAIRLEAD_LOG` is unset or empty.
///
/// # Errors
/// [`LoggingError`]; the process has no logger of ours then.
pub fn init(format: Format, default_filter: &str) -> Result<(), LoggingError> {
    let filter = filter(std::env::var(FILTER_VARIABLE).ok(), default_filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match format {
        Format::Text => builder.with_ansi(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|e| LoggingError::AlreadyInstalled(e.to_string()))
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            other => Err(format!("unknown log format {other:?}: use text or json")),
        }
    }
}

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoggingError::Filter(why) => {
                write!(f, "{FILTER_VARIABLE}: {why}; use for example info or warn,fairlead_xds=debug")
            }
            LoggingError::AlreadyInstalled(why) => write!(f, "logging is set up already: {why}"),
        }
    }
}

impl std::error::Error for LoggingError {}

fn filter(variable: Option<String>, default_filter: &str) -> Result<EnvFilter, LoggingError> {
    let text = variable.filter(|v| !v.trim().is_empty()).unwrap_or_else(|| default_filter.to_owned());
    EnvFilter::try_new(&text).map_err(|e| LoggingError::Filter(format!("{text:?}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_beats_the_default_and_must_parse() {
        assert_eq!(filter(None, "warn").unwrap().to_string(), "warn");
        assert_eq!(filter(Some(" ".into()), "warn").unwrap().to_string(), "warn");
        assert_eq!(filter(Some("debug".into()), "warn").unwrap().to_string(), "debug");
        let error = filter(Some("a=b=c".into()), "warn").unwrap_err().to_string();
        assert!(error.starts_with("FAIRLEAD_LOG"), "{error}");
        assert!("xml".parse::<Format>().is_err());
    }
}
