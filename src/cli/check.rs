//! `scorefront check`: everything that is wrong, before it is served.

mod names;
mod replicas;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use super::Configuration;
use crate::environment;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  scorefront check --env my-cluster
  scorefront check --config /etc/scorefront/scorefront.toml --strict")]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
    /// Takes warnings for errors
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let file = arguments.configuration.file();
    let (diagnostics, summary) = match environment::open(&file) {
        Ok((environment, mut diagnostics)) => {
            let config = environment.config();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                names::resolve_all(config, &mut diagnostics).await;
                replicas::reach_all(config, &mut diagnostics).await;
            });
            // A name server that does not answer is not waited for.
            runtime.shutdown_background();
            let (cnames, services) = (config.cnames.len(), config.services.len());
            (diagnostics, format!("valid: {cnames} [[cname]] and {services} [[service]] tables"))
        }
        Err(diagnostics) => (diagnostics, String::new()),
    };
    let mut said = String::new();
    for diagnostic in &diagnostics {
        writeln!(said, "{diagnostic}")?;
    }
    let invalid = diagnostics.has_errors() || (arguments.strict && !diagnostics.is_empty());
    let (verdict, code) = match (invalid, diagnostics.has_errors()) {
        (false, _) => (&*summary, ExitCode::SUCCESS),
        (true, true) => ("invalid", ExitCode::FAILURE),
        (true, false) => ("invalid, because --strict takes warnings for errors", ExitCode::FAILURE),
    };
    writeln!(said, "{}: {verdict}", file.display())?;
    // Whoever reads may stop when they have seen enough (`| head`); the exit code says the rest.
    let _ = io::stdout().write_all(said.as_bytes());
    Ok(code)
}
