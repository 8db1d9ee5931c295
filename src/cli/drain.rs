//! `scorefront drain`: has a running front end stop in good order, and watches it to its end.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde::Serialize;

use super::admin::{Admin, Ask, Client};
use super::output::{self, Format};
use crate::admin::drain::{Drain, DrainPhase};

/// How often it is asked how far it is; often enough for it to wait with its last word.
const INTERVAL: Duration = Duration::from_millis(100);

/// How often a line is written where nobody watches.
const LINES: Duration = Duration::from_secs(1);

/// How long somebody may be there who does not answer.
const SILENCE: Duration = Duration::from_secs(30);

/// How long an answer may take. It has other things to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// Has a running front end stop in good order, as SIGTERM does: not ready at once, calls in flight finished, then it ends
///
/// Exit status: 0 when it has ended and answered every call, 1 if calls were cut, or it went without saying so.
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
    /// Calls that were cut: at the end of `drain_timeout`, or because somebody was in a hurry.
    requests_cut: u64,
    seconds: f64,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.admin.client()?;
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
    let ended = watch(&client, first, |drain| progress.tell(drain));
    progress.end();
    let outcome = Outcome { requests_cut: ended?, seconds: began.elapsed().as_secs_f64() };
    match arguments.output {
        Format::Json => output::json(&outcome)?,
        Format::Text => output::out(&outcome.to_text()),
    }
    Ok(if outcome.requests_cut > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Asks how far it is until it has ended, and returns how many calls were cut. `tell` hears of what is new.
fn watch(client: &Client, first: Drain, mut tell: impl FnMut(&Drain)) -> anyhow::Result<u64> {
    tell(&first);
    let mut last = first;
    let mut answered = Instant::now();
    loop {
        sleep(INTERVAL);
        let now: Drain = match client.ask_within(PATIENCE, Ask::get("/v1/drain")) {
            Ok(answer) => answer.accepted()?.json()?,
            Err(_) if !client.is_answering() => bail!(gone(&last, "")),
            Err(_) if answered.elapsed() < SILENCE => continue,
            Err(error) => return Err(error),
        };
        match now.phase {
            DrainPhase::Running => bail!(gone(&last, "; another one answers in its place")),
            DrainPhase::Ended => return Ok(now.requests_cut.unwrap_or_default()),
            DrainPhase::Draining | DrainPhase::Closing => {}
        }
        answered = Instant::now();
        tell(&now);
        last = now;
    }
}

/// What to say of one that has gone without a last word.
fn gone(last: &Drain, besides: &str) -> String {
    let calls = last.requests_in_flight;
    format!(
        "it is gone and has not said how it ended: was it killed? {calls} calls were in flight just before{besides}"
    )
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
            output::redraw(line.trim_end());
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
        DrainPhase::Ended => "ended".to_owned(),
    };
    format!("{state}: {calls} in flight, {connections} connections\n")
}

impl Outcome {
    fn to_text(&self) -> String {
        let seconds = self.seconds;
        match self.requests_cut {
            0 => format!("ended after {seconds:.1} s: every call was answered\n"),
            cut => format!("ended after {seconds:.1} s: {cut} calls were cut\n"),
        }
    }
}
