//! `scorefront check`: everything that is wrong, before it is served.

mod names;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Configuration;
use crate::config::{Config, Diagnostics, Location, ReplicaAddress};
use crate::environment;

/// How long a replica may take to accept a connection.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);

/// Replicas tried at a time.
const AT_ONCE: usize = 128;

#[derive(Debug, clap::Args)]
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
                reach_replicas(config, &mut diagnostics).await;
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

/// A replica that does not answer now may do so later, so it is a warning.
async fn reach_replicas(config: &Config, diagnostics: &mut Diagnostics) {
    let deployments = config.services.iter().flat_map(|service| &service.deployments);
    let mut replicas = deployments.flat_map(|deployment| deployment.source.listed());
    let mut trying = JoinSet::new();
    loop {
        for replica in replicas.by_ref().take(AT_ONCE - trying.len()) {
            trying.spawn(reach(replica.address.clone(), replica.at.clone()));
        }
        match trying.join_next().await {
            Some(Ok(Some((at, problem)))) => diagnostics.warning(at, problem),
            Some(_) => {}
            None => return,
        }
    }
}

async fn reach(address: ReplicaAddress, at: Location) -> Option<(Location, String)> {
    let problem = match timeout(REACH_TIMEOUT, TcpStream::connect((address.host(), address.port()))).await {
        Ok(Ok(_)) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no connection within {} s", REACH_TIMEOUT.as_secs()),
    };
    let problem = format!("replica http://{address} cannot be reached: {problem}; start it, or correct the address");
    Some((at, problem))
}
