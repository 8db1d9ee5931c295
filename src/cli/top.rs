//! `scorefront top`: what a running front end does now, from two looks at its metrics, again and again.

mod exposition;
mod figures;
mod histogram;
mod sample;

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use self::figures::Figures;
use self::sample::Look;
use super::admin::{Admin, Ask, Client};
use super::output::{self, Format};

/// The shortest interval: each look is work for the front end.
const SHORTEST: Duration = Duration::from_millis(100);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is begun anew where the front end is started again in between.
const ATTEMPTS: u32 = 5;

/// Shows what a running front end does now: calls, times, queues and replicas of each service, and how busy it is
///
/// Until Ctrl-C on a terminal, else once. Times are of the calls that ended in the interval, by the buckets of its metrics.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  scorefront top --env my-cluster
  scorefront top --admin http://127.0.0.1:8900 --once --interval 10s -o json")]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: Admin,
    /// From one look to the next
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// Ends after the first
    #[arg(long)]
    once: bool,
    /// What is printed: text for people, json, which is printed once, for programs
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if interval >= SHORTEST => Ok(interval),
        Ok(_) => Err(format!("expected {SHORTEST:?} or more")),
        Err(_) => Err("expected a duration such as 500ms or 2s".to_owned()),
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.admin.client()?;
    let is_once = arguments.once || arguments.output == Format::Json || !output::is_drawn_on();
    let first = look(&client)?;
    if !is_once {
        watch(&client, first, arguments.interval);
    }
    let figures = once(&client, first, arguments.interval)?;
    match arguments.output {
        Format::Json => output::json(&figures)?,
        Format::Text => output::out(&figures.to_text()),
    }
    Ok(ExitCode::SUCCESS)
}

/// What its metrics say now.
fn look(client: &Client) -> anyhow::Result<Look> {
    let answer = client.ask_within(PATIENCE, Ask::get("/metrics"))?.accepted()?;
    let text = str::from_utf8(&answer.body).ok();
    text.and_then(|text| Look::read(text, Instant::now())).context("not the metrics of a front end")
}

fn once(client: &Client, mut before: Look, interval: Duration) -> anyhow::Result<Figures> {
    for _ in 0..ATTEMPTS {
        sleep(interval);
        let now = look(client)?;
        if !now.is_restarted_since(&before) {
            return Ok(Figures::between(&before, &now));
        }
        before = now;
    }
    bail!("it was started again in each of {ATTEMPTS} intervals; its log says why")
}

/// Draws until somebody ends it. A front end that is away for a while may come back.
fn watch(client: &Client, first: Look, interval: Duration) -> ! {
    let mut before = Some(first);
    output::draw("the first figures are there after one interval\n");
    loop {
        sleep(interval);
        before = match (look(client), before) {
            (Ok(now), Some(before)) if !now.is_restarted_since(&before) => {
                output::draw(&Figures::between(&before, &now).to_text());
                Some(now)
            }
            (Ok(now), _) => {
                output::draw("it was started again: figures are there after one interval\n");
                Some(now)
            }
            (Err(error), _) => {
                output::draw(&format!("{error:#}\n"));
                None
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_not_too_short() {
        assert_eq!(interval("100ms"), Ok(SHORTEST));
        assert!(interval("99ms").is_err() && interval("soon").is_err() && interval("0s").is_err());
    }
}
