//! `scorefront serve`: runs the front end until it is told to stop.

mod service_manager;

use std::convert::Infallible;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use self::service_manager::ServiceManager;
use super::Configuration;
use crate::config::{Diagnostics, Log, Severity};
use crate::environment::report::Report;
use crate::environment::{self, Environment, commit};
use crate::front_end::{AccessOutput, FrontEnd, threads};
use crate::reload::ReloadError;
use crate::shutdown::DrainTimes;
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::writer::LineWriter;

/// Who asks for a stop, if it is no signal.
const DRAIN: &str = "POST /v1/drain";

/// How long the last log lines may take to write when the process ends.
const LAST_LINES: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  scorefront serve --env my-cluster
  scorefront serve --config /etc/scorefront/scorefront.toml")]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let file = arguments.configuration.file();
    // A change that somebody made and was killed over is part of what the files say.
    commit::recover(file.parent().unwrap_or(Path::new(""))).context("a change that is not finished")?;
    let (environment, findings) = match environment::open(&file) {
        Ok(opened) => opened,
        Err(diagnostics) => {
            eprintln!("{diagnostics}");
            eprintln!("{} cannot be served", file.display());
            return Ok(ExitCode::FAILURE);
        }
    };
    let output = Output::start(&environment.config().log)?;
    log_findings(&findings);
    raise_descriptor_limit(environment.config().limits.max_connections);
    let served = serve(environment, &output, &file);
    output.finish();
    served
}

fn serve(environment: Environment, output: &Output, file: &Path) -> anyhow::Result<ExitCode> {
    let config = Arc::clone(environment.config());
    let metrics = output.metrics(threads(config.frontend.threads));
    let manager = ServiceManager::of_environment();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before anything is served: a stop asked for at once must not be missed.
        let mut signals = Signals::new().context("signals")?;
        let front_end = FrontEnd::start(environment, Arc::clone(&metrics), output.access.clone())?;
        let bound = front_end.bound();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            config = %file.display(),
            https = %bound.https,
            http = bound.http.map(tracing::field::display),
            admin = bound.admin.url(config.admin.tls.is_some()),
            threads = metrics.threads.len(),
            services = config.services.len(),
            cnames = config.cnames.len(),
            "serving"
        );
        manager.tell_ready();
        let asked_by = serve_until_stopped(&front_end, &mut signals, &manager).await?;
        manager.tell_stopping();
        let DrainTimes { grace, timeout: limit } = front_end.drain_times();
        tracing::info!(asked_by, ?grace, ?limit, "stopping: not ready, still taking connections for the grace time");
        let hurry = Hurry { signals, is_told: asked_by != DRAIN };
        Ok(stop(front_end, hurry, grace, limit).await)
    })
}

/// Reloads whenever SIGHUP asks for it, until another signal, or somebody over the admin API, asks for a stop.
async fn serve_until_stopped(
    front_end: &FrontEnd,
    signals: &mut Signals,
    manager: &ServiceManager,
) -> anyhow::Result<&'static str> {
    let hangups = signal(SignalKind::hangup()).context("signals")?;
    tokio::select! {
        signal = signals.next() => Ok(signal),
        () = front_end.asked_to_drain() => Ok(DRAIN),
        never = reload_at_hangups(front_end, hangups, manager) => match never {},
        never = manager.keep_watchdog(front_end) => match never {},
    }
}

async fn reload_at_hangups(front_end: &FrontEnd, mut hangups: Signal, manager: &ServiceManager) -> Infallible {
    loop {
        hangups.recv().await;
        manager.tell_reloading();
        if let Some(reload) = front_end.reload() {
            log_reload(reload.reload().await);
        }
        manager.tell_ready();
    }
}

/// What is taken is logged where it is taken.
fn log_reload(outcome: Result<Report, ReloadError>) {
    match outcome {
        Ok(report) => tracing::info!(all_taken = report.is_all_taken(), "SIGHUP: every file was read"),
        Err(error) => tracing::error!("SIGHUP: {error}"),
    }
}

/// Stops in steps; a second signal skips what is left of them.
async fn stop(front_end: FrontEnd, mut hurry: Hurry, grace: Duration, limit: Duration) -> ExitCode {
    front_end.begin_drain();
    let patient = tokio::select! {
        () = sleep(grace) => true,
        signal = hurry.next() => {
            tracing::warn!(signal, "second signal: stopping at once");
            false
        }
    };
    if !patient {
        drop(front_end);
        return ExitCode::FAILURE;
    }
    tracing::info!("taking no more connections; finishing what is in flight");
    tokio::select! {
        cut = front_end.stop(limit) => {
            if cut == 0 {
                tracing::info!("stopped; nothing was cut");
                ExitCode::SUCCESS
            } else {
                tracing::warn!(?limit, requests = cut, "stopped at drain_timeout; what was still in flight was cut");
                ExitCode::FAILURE
            }
        }
        signal = hurry.next() => {
            tracing::warn!(signal, "second signal: stopped at once");
            ExitCode::FAILURE
        }
    }
}

/// A stop asked for a second time. After one over the admin API the first signal is not that: whoever manages the process
/// sends it when they have drained it.
struct Hurry {
    signals: Signals,
    is_told: bool,
}

impl Hurry {
    async fn next(&mut self) -> &'static str {
        loop {
            let signal = self.signals.next().await;
            if std::mem::replace(&mut self.is_told, true) {
                return signal;
            }
            tracing::info!(signal, "stopping already");
        }
    }
}

/// The signals that ask for a stop.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// The process's two outputs: access log lines on standard output, everything else on standard error.
pub(super) struct Output {
    pub(super) access: AccessOutput,
    events: LineWriter,
    dropped: Arc<AtomicU64>,
}

impl Output {
    pub(super) fn start(config: &Log) -> anyhow::Result<Self> {
        let dropped = Arc::<AtomicU64>::default();
        let events = LineWriter::start("log", io::stderr(), Arc::clone(&dropped))?;
        log::start(config.format, &config.level, events.clone())?;
        let mut access = AccessOutput::default();
        if config.access {
            access.writer = Some(LineWriter::start("access-log", io::stdout(), Arc::clone(&dropped))?);
            access.text = log::is_text(config.format, io::stdout().is_terminal());
        }
        Ok(Self { access, events, dropped })
    }

    pub(super) fn metrics(&self, threads: usize) -> Arc<Metrics> {
        Arc::new(Metrics::new(threads, Arc::clone(&self.dropped)))
    }

    /// Waits for what is still to be written.
    pub(super) fn finish(self) {
        for writer in self.access.writer.iter().chain([&self.events]) {
            writer.flush(LAST_LINES);
        }
    }
}

/// What is wrong and no reason not to start.
fn log_findings(findings: &Diagnostics) {
    for finding in findings {
        match finding.severity {
            Severity::Error => tracing::error!("{finding}"),
            Severity::Warning => tracing::warn!("{finding}"),
        }
    }
}

/// Each caller's connection may need one to a replica beside it.
fn raise_descriptor_limit(max_connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let wanted = u64::try_from(max_connections).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(100);
    if let Some(available) = getrlimit(Resource::Nofile).current
        && available < wanted
    {
        tracing::warn!(available, wanted, "too few open files for max_connections; raise ulimit -n");
    }
}
