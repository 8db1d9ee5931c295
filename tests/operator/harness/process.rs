//! A process that ends with its owner, and the lines it writes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::PATIENCE;

/// A child process; killed when this is dropped.
pub struct Process {
    id: Pid,
    child: Mutex<Child>,
    leads_group: bool,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { id: Pid::from_child(&child), child: Mutex::new(child), leads_group: false }
    }

    /// The same for a program that forks: its children end with it.
    pub fn start_group(command: &mut Command) -> Self {
        use std::os::unix::process::CommandExt;

        let mut process = Self::start(command.process_group(0));
        process.leads_group = true;
        process
    }

    /// Its end of the pipes.
    pub fn pipes(&mut self) -> &mut Child {
        self.child.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn id(&self) -> Pid {
        self.id
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.id, signal).expect("signal");
    }

    /// How it ended, within `limit`.
    pub fn exit_within(&self, limit: Duration) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.status() {
                return status;
            }
            assert!(begin.elapsed() < limit, "still runs after {limit:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn exit_code(&self) -> Option<i32> {
        self.exit_within(PATIENCE).code()
    }

    /// How it ended, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().expect("wait")
    }

    /// `kill -9`, and nothing is left.
    pub fn kill(&mut self) {
        // Once it has been waited for, the id may be somebody else's; a group's lives as long as any of its members.
        if self.leads_group {
            let _ = kill_process_group(self.id, Signal::KILL);
        }
        let child = self.pipes();
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The lines that come out of a pipe, as they come.
#[derive(Clone, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let pipe = BufReader::new(pipe);
        let collector = lines.clone();
        thread::spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                collector.change(|state| state.lines.push(line));
            }
            collector.change(|state| state.ended = true);
        });
        lines
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_all();
    }

    /// The first line that holds `text`.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |lines| lines.iter().find(|line| line.contains(text)).cloned())
    }

    pub fn wait_for_count(&self, count: usize) {
        self.wait_until(&format!("{count} lines"), |lines| (lines.len() >= count).then_some(()));
    }

    /// All there are once the writer has closed its end.
    pub fn wait_for_end(&self) -> Vec<String> {
        self.wait(&"the end", |state| state.ended.then(|| state.lines.clone()))
    }

    pub fn wait_until<T>(&self, what: &str, look: impl Fn(&[String]) -> Option<T>) -> T {
        self.wait(&what, |state| look(&state.lines))
    }

    fn wait<T>(&self, what: &dyn std::fmt::Display, look: impl Fn(&State) -> Option<T>) -> T {
        let begin = Instant::now();
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = look(&state) {
                return found;
            }
            let left = PATIENCE.saturating_sub(begin.elapsed());
            assert!(!left.is_zero() && !state.ended, "no sign of {what} in:\n{}", state.lines.join("\n"));
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
