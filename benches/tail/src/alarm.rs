//! A timer of the kernel's (timerfd), exact to some tens of microseconds. tokio's own rounds up to the next millisecond:
//! in a service time of 20 ms that would be a load some 3 % higher than asked for, and at 90 % of capacity a longer tail.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

pub struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    #[expect(
        deprecated,
        reason = "unsound for what changes its descriptor, which an OwnedFd does not; the new way is unsafe"
    )]
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    /// Returns at that time, or at once if it is over. Dropped before, it leaves the alarm good for another time.
    pub async fn until(&mut self, time: Instant) -> io::Result<()> {
        loop {
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let never = Timespec { tv_sec: 0, tv_nsec: 0 };
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
            timerfd_settime(
                self.0.get_ref(),
                TimerfdTimerFlags::empty(),
                &Itimerspec { it_interval: never, it_value: left },
            )?;
            let mut ready = self.0.readable().await?;
            let mut times = [0; 8];
            // An alarm set before and given up may have been what rang: hence the loop.
            let _ = ready.try_io(|alarm| Ok(rustix::io::read(alarm.get_ref(), &mut times)?));
        }
    }
}
