//! Whether a replica is fit to be given requests, and what makes it so.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

/// After a failure the first look comes soon: most replicas are back, or were never away.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// The longest time between two looks at a replica that is out. With the time a look may take it is well below five
/// seconds, within which a replica that is back is used again.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Health checks in a row that a replica in use has to fail.
pub(super) const UNHEALTHY_CHECKS: u32 = 3;

/// What went wrong with a replica. What its model answers is nothing of the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection to it could be opened.
    Unreachable(String),
    /// It closed the connection, or reset it, before the whole answer was there.
    Closed,
    /// It had a request for so long, longer than its model usually takes, and did not answer.
    Silent(Duration),
    /// Its health resource answers this.
    Unhealthy(StatusCode),
}

impl Failure {
    /// Every kind, as [`Failure::kind`] words it.
    pub const KINDS: [&str; 4] = ["unreachable", "closed", "silent", "unhealthy"];

    /// The kind as a metric's label.
    pub fn kind(&self) -> &'static str {
        Self::KINDS[self.index()]
    }

    /// The place of the kind in [`Failure::KINDS`].
    pub fn index(&self) -> usize {
        match self {
            Self::Unreachable(_) => 0,
            Self::Closed => 1,
            Self::Silent(_) => 2,
            Self::Unhealthy(_) => 3,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "no connection: {why}"),
            Self::Closed => f.write_str("it closed the connection before its answer was complete"),
            Self::Silent(held) => write!(f, "no answer within {} ms", held.as_millis()),
            Self::Unhealthy(status) => write!(f, "its health resource answers {}", status.as_u16()),
        }
    }
}

/// What a look at a replica's health resource found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered with this status.
    Answered(StatusCode),
    /// It took the connection and answered nothing in time: a container that runs one request at a time may be busy with
    /// one of another front end.
    Silent,
    /// It closed the connection without an answer.
    Closed,
    /// No connection could be opened, and why.
    Unreachable(String),
}

/// What is known of one replica.
#[derive(Debug)]
pub(super) struct Condition {
    /// Why it is out, if it is.
    pub out: Option<Out>,
    /// Whether its health resource answered a success when it was last looked at and did not stay silent.
    pub proven: bool,
    /// Health checks in a row that found it unhealthy.
    pub unhealthy: u32,
    /// When it failed last, whether or not that took it out.
    pub failed: Option<Instant>,
    /// How it failed last, if it is in use all the same and was not found healthy since.
    pub trouble: Option<Failure>,
    /// Its own errors made somebody look: what that finds is confirmed soon.
    pub doubted: bool,
    /// When it is to be looked at next; absent: when somebody says so.
    pub look_at: Option<Instant>,
}

/// Why a replica is out.
#[derive(Clone, Debug)]
pub struct Out {
    pub failure: Failure,
    pub since: Instant,
    /// How often it was looked at since.
    pub looks: u32,
}

impl Condition {
    /// One that has just come: taken to be fit, and looked at at once if it is to be looked at at all.
    pub fn new(now: Instant, interval: Option<Duration>) -> Self {
        Self {
            out: None,
            proven: false,
            unhealthy: 0,
            failed: None,
            trouble: None,
            doubted: false,
            look_at: interval.map(|_| now),
        }
    }

    pub fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// Whether an answer to a request ends its being out.
    pub fn may_answer_back(&self) -> bool {
        self.out.as_ref().is_some_and(|out| !matches!(out.failure, Failure::Unhealthy(_)))
    }

    pub fn take_out(&mut self, failure: Failure, now: Instant) {
        self.proven = false;
        (self.unhealthy, self.doubted) = (0, false);
        self.trouble = None;
        self.out = Some(Out { failure, since: now, looks: 0 });
        self.look_at = Some(now + FIRST_LOOK);
    }

    pub fn bring_back(&mut self, now: Instant, interval: Option<Duration>) {
        self.out = None;
        self.unhealthy = 0;
        self.look_later(now, interval);
    }

    /// Has the next look come soon, if it is looked at at all.
    pub fn doubt(&mut self, now: Instant, interval: Option<Duration>) {
        if interval.is_some() && !self.is_out() {
            self.doubted = true;
            self.look_soon(now);
        }
    }

    /// Has the next look come soon if it is doubted: whether it is.
    pub fn look_again(&mut self, now: Instant) -> bool {
        if self.doubted {
            self.look_soon(now);
        }
        self.doubted
    }

    /// Looks under way have no time set, and set the next themselves.
    fn look_soon(&mut self, now: Instant) {
        self.look_at = self.look_at.map(|at| at.min(now + FIRST_LOOK));
    }

    /// Has the next look come after a longer time than the last, up to [`LAST_LOOK`].
    pub fn look_later(&mut self, now: Instant, interval: Option<Duration>) {
        self.look_at = match &mut self.out {
            Some(out) => {
                let pause = FIRST_LOOK.saturating_mul(1 << out.looks.min(10)).min(LAST_LOOK);
                out.looks += 1;
                Some(now + spread(pause))
            }
            // One that fails is not known to be well again by itself.
            None => interval.or(self.trouble.as_ref().map(|_| LAST_LOOK)).map(|pause| now + spread(pause)),
        };
    }

    /// Notes a failure that it is in use for all the same, and has it looked at also if it is not looked at else.
    pub fn note_trouble(&mut self, failure: Failure, now: Instant, interval: Option<Duration>) {
        // A look under way sets the next itself.
        if interval.is_none() && self.trouble.is_none() {
            self.look_at = Some(now + FIRST_LOOK);
        }
        self.trouble = Some(failure);
    }

    /// Notes that a look found it healthy or, if not, how often in a row by now.
    pub fn found(&mut self, is_healthy: bool, now: Instant) -> u32 {
        if is_healthy {
            (self.unhealthy, self.doubted) = (0, false);
        } else {
            self.unhealthy += 1;
            self.look_again(now);
        }
        self.unhealthy
    }
}

/// Up to a fifth less: replicas that came or went together are not to be looked at together.
fn spread(pause: Duration) -> Duration {
    pause.mul_f64(0.8 + 0.2 * fastrand::f64())
}
