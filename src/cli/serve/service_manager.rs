//! What the service manager that started this process is told: systemd's protocol, as `sd_notify(3)` has it. A process that
//! nobody manages tells nothing, and whatever becomes of a message, serving goes on.

use std::convert::Infallible;
use std::env;
use std::ffi::{OsStr, OsString};
use std::future::pending;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval};

use crate::front_end::FrontEnd;

/// How long a message may take to hand over. Nobody waits for this thread but who asks it to stop.
const PATIENCE: Duration = Duration::from_secs(1);

/// The manager, if there is one.
pub(super) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// Absent: it watches over nothing.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Who the environment of this process says it is.
    pub(super) fn of_environment() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Self { socket: None, watchdog: None };
        };
        let socket = connect(&address).inspect_err(
            |error| tracing::warn!(?address, %error, "NOTIFY_SOCKET: the service manager is told nothing"),
        );
        let watchdog = watchdog(env::var_os("WATCHDOG_USEC"), env::var_os("WATCHDOG_PID"), process::id());
        Self { socket: socket.ok(), watchdog }
    }

    /// Serving, with the files as they were read last.
    pub(super) fn tell_ready(&self) {
        self.tell("READY=1");
    }

    /// Reading its files because it was asked to.
    pub(super) fn tell_reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        // The manager knows by the time whether this answers its own signal.
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// On its way out.
    pub(super) fn tell_stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Says twice a period that it is well, as long as every thread of `front_end` answers.
    pub(super) async fn keep_watchdog(&self, front_end: &FrontEnd) -> Infallible {
        let Some(period) = self.watchdog else { return pending().await };
        let mut ticks = interval(period / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if front_end.is_turning().await {
                self.tell("WATCHDOG=1");
            }
        }
    }

    fn tell(&self, state: &str) {
        if let Some(Err(error)) = self.socket.as_ref().map(|socket| socket.send(state.as_bytes())) {
            tracing::warn!(state, %error, "the service manager was not told");
        }
    }
}

/// A path, or with `@` in front a name of the abstract namespace.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Within which time the manager wants to hear that the process `id` is well.
fn watchdog(microseconds: Option<OsString>, of: Option<OsString>, id: u32) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    if of.is_some_and(|of| number(of) != Some(u64::from(id))) {
        return None;
    }
    let period = Duration::from_micros(number(microseconds?)?);
    // A timer does not ring more often.
    (period >= Duration::from_millis(2)).then_some(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_kept_by_the_process_it_watches() {
        let given = |usec: &str, of: Option<&str>| watchdog(Some(usec.into()), of.map(Into::into), 7);
        assert_eq!(given("30000000", Some("7")), Some(Duration::from_secs(30)));
        assert_eq!(given("30000000", None), Some(Duration::from_secs(30)));
        for (usec, of) in
            [("30000000", Some("8")), ("30000000", Some("")), ("0", None), ("1", None), ("soon", None), ("-1", None)]
        {
            assert_eq!(given(usec, of), None, "{usec} {of:?}");
        }
        assert_eq!(watchdog(None, None, 7), None);
    }
}
