//! `scorefront drain`: has a running front end stop in good order, and watches it to its end.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::admin::{Admin, Ask, Client};
use super::output::{self, Format};
use crate::admin::drain::{Drain, DrainPhase};

/// How often it is asked how far it is. What was in flight when it was asked last is what may have been cut.
const INTERVAL: Duration = Duration::from_millis(100);

/// How often a line is written where nobody watches.
const LINES: Duration = Duration::from_secs(1);

/// How long somebody may be there who does not answer.
const SILENCE: Duration = Duration::from_secs(30);

/// How long an answer may take. It has other things to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// Has a running front end stop in good order, as SIGTERM does: not ready at once, calls in flight finished, then it ends
///
/// Exit status: 0 when it has ended and answered every call, 1 if calls were cut because they took too long.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  scorefront drain --env my-cluster
  scorefront drain --admin http://127.0.0.1:8900 --no-wait")]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: Admin,
    /// Ends when it has begun
    #[arg(long)]
    no_wait: bool,
    /// What is printed: text for people, json for programs
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// How it went, for programs.
#[derive(Serialize)]
struct Outcome {
    ended: bool,
    /// Calls that were cut at the end of `drain_timeout`.
    requests_cut: u64,
    /// Whether a new one answers in its place.
    started_again: bool,
    seconds: f64,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.admin.client()?;
    let before: Drain = client.get("/v1/drain")?;
    let began = Instant::now();
    let first: Drain = client.accepted(Ask::post("/v1/drain"))?.json()?;
    if arguments.no_wait {
        match arguments.output {
            Format::Json => output::json(&first)?,
            Format::Text => output::out(&line(&first)),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut progress = Progress::new(arguments.output);
    let (last, started_again) = watch(&client, first, |drain| progress.tell(drain))?;
    progress.end();
    let limit = Duration::from_millis(last.drain_grace_ms.saturating_add(last.drain_timeout_ms));
    // What it had when it was asked last was finished in the moment since, if there was time left for it.
    let is_at_limit = before.phase != DrainPhase::Running || began.elapsed() + INTERVAL >= limit;
    let is_cut = last.requests_in_flight > 0 && is_at_limit;
    let outcome = Outcome {
        ended: true,
        requests_cut: if is_cut { last.requests_in_flight } else { 0 },
        started_again,
        seconds: began.elapsed().as_secs_f64(),
    };
    match arguments.output {
        Format::Json => output::json(&outcome)?,
        Format::Text => output::out(&outcome.to_text()),
    }
    Ok(if is_cut { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Asks how far it is until nobody answers, or one that is not on its way out. `tell` hears of what is new.
fn watch(client: &Client, first: Drain, mut tell: impl FnMut(&Drain)) -> anyhow::Result<(Drain, bool)> {
    tell(&first);
    let mut last = first;
    let mut answered = Instant::now();
    loop {
        sleep(INTERVAL);
        let now: Drain = match client.ask_within(PATIENCE, Ask::get("/v1/drain")) {
            Ok(answer) => answer.accepted()?.json()?,
            Err(_) if !client.is_answering() => return Ok((last, false)),
            // It may have ended between the question and the answer.
            Err(_) if answered.elapsed() < SILENCE => continue,
            Err(error) => return Err(error),
        };
        if now.phase == DrainPhase::Running {
            return Ok((last, true));
        }
        answered = Instant::now();
        tell(&now);
        last = now;
    }
}

/// What people see meanwhile: on a terminal one line that changes, else a line now and then.
struct Progress {
    is_told: bool,
    is_watched: bool,
    said: Option<(DrainPhase, u64, Instant)>,
}

impl Progress {
    fn new(format: Format) -> Self {
        Self { is_told: format == Format::Text, is_watched: output::is_watched(), said: None }
    }

    fn tell(&mut self, drain: &Drain) {
        let (phase, calls) = (drain.phase, drain.requests_in_flight);
        let is_due = self.said.is_none_or(|(before, had, when)| {
            before != phase || (had != calls && (self.is_watched || when.elapsed() >= LINES))
        });
        if !self.is_told || !is_due {
            return;
        }
        let line = line(drain);
        if self.is_watched {
            output::out(&format!("\r{}\x1b[K", line.trim_end()));
        } else {
            output::out(&line);
        }
        self.said = Some((phase, calls, Instant::now()));
    }

    fn end(&self) {
        if self.is_told && self.is_watched {
            output::out("\n");
        }
    }
}

fn line(drain: &Drain) -> String {
    let Drain { requests_in_flight: calls, connections_open: connections, .. } = drain;
    let millis = Duration::from_millis;
    let state = match drain.phase {
        DrainPhase::Running | DrainPhase::Draining => {
            format!("not ready; connections are taken for {:?}", millis(drain.drain_grace_ms))
        }
        DrainPhase::Closing => {
            format!("no connections are taken; calls may take {:?}", millis(drain.drain_timeout_ms))
        }
    };
    format!("{state}: {calls} in flight, {connections} connections\n")
}

impl Outcome {
    fn to_text(&self) -> String {
        let seconds = self.seconds;
        let again = if self.started_again { "; one that was started since answers in its place" } else { "" };
        match self.requests_cut {
            0 => format!("ended after {seconds:.1} s{again}\n"),
            cut => format!("ended after {seconds:.1} s, at drain_timeout: {cut} calls were cut{again}\n"),
        }
    }
}
