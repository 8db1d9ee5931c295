//! Log events (tracing): text on a terminal, JSON otherwise, on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::writer::LineWriter;
use crate::config::LogFormat;

/// What libraries have to say of each datagram; what follows from it is said by us, once. A level that names them wins.
const QUIET: &str = "hickory_net=error,hickory_proto=error,hickory_resolver=error,kube_client=error";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    #[error("the process has a log already: {0}")]
    Twice(Box<dyn std::error::Error + Send + Sync>),
}

/// Sends the process's log events to `writer`.
///
/// # Errors
///
/// See [`LogError`].
pub fn start(format: LogFormat, level: &str, writer: LineWriter) -> Result<(), LogError> {
    let filter = EnvFilter::builder().parse(format!("{QUIET},{level}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let started = if is_text(format, io::stderr().is_terminal()) {
        builder.with_ansi(io::stderr().is_terminal()).with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    started.map_err(LogError::Twice)
}

/// Whether lines for an output are text: asked for, or fitting for a terminal.
pub fn is_text(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => terminal,
        LogFormat::Json => false,
        LogFormat::Text => true,
    }
}
