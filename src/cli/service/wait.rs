//! Waits for a service that was made or changed to have a replica that answers. Whether it does changes nothing about what
//! was done.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::quantity::duration;
use crate::admin::model::{Service, State};
use crate::cli::admin::{Client, segment};
use crate::cli::output;

/// The first pause between two looks; they grow to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Nobody is told of a wait as short as this.
const UNTOLD: Duration = Duration::from_secs(2);

/// How long is waited.
#[derive(Debug, clap::Args)]
pub struct Waiting {
    /// How long a replica is waited for that answers
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    wait: Duration,
    /// Does not wait for a replica that answers
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
}

impl Waiting {
    /// The service as it is in the end; says why, if that is not `Succeeded`.
    pub fn wait(&self, client: &Client, service: Service) -> Service {
        if self.no_wait {
            return service;
        }
        let found = self.look(client, service);
        if found.state != State::Succeeded {
            let why = found.error.as_ref().map_or("no replica has answered yet", |error| &error.message);
            output::err(&format!(
                "warning: {} is not {:?} yet: {why}; it goes on trying",
                found.name,
                State::Succeeded
            ));
        }
        found
    }

    fn look(&self, client: &Client, mut service: Service) -> Service {
        let begin = Instant::now();
        let (mut pause, mut is_told) = (FIRST_PAUSE, false);
        loop {
            // That it cannot be asked, or is gone by now, takes nothing back.
            match client.get(format!("/v1/services/{}", segment(&service.name))) {
                Ok(found) => service = found,
                Err(error) => output::err(&format!("warning: {error:#}")),
            }
            let left = self.wait.saturating_sub(begin.elapsed());
            if service.state == State::Succeeded || left.is_zero() {
                return service;
            }
            if begin.elapsed() > UNTOLD && !is_told {
                output::err(&format!("waiting for a replica of {} that answers (--no-wait does not)", service.name));
                is_told = true;
            }
            sleep(pause.min(left));
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}
