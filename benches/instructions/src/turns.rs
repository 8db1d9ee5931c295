//! Two threads that take turns: a worker thread of the front end, and a script that plays everybody else. The script goes on
//! when the worker has nothing left to do, and the worker when the script says so. Nothing depends on who is faster, hence
//! the worker does the same at every run.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::counting::aside;

/// The script's end.
pub struct Turns {
    rests: Receiver<()>,
    go_on: SyncSender<()>,
}

/// The script's end, and what the worker does whenever it rests; once the script has ended, nothing.
pub fn turns() -> (Turns, impl Fn() + Send + Sync + 'static) {
    let (resting, rests) = sync_channel(0);
    let (go_on, told) = sync_channel(0);
    let told = Mutex::new(told);
    let rest = move || {
        aside(&mut || {
            if let (Ok(()), Ok(told)) = (resting.send(()), told.lock()) {
                let _ = told.recv();
            }
        });
    };
    (Turns { rests, go_on }, rest)
}

impl Turns {
    /// Waits for the worker to rest for the first time.
    pub fn begin(&self) {
        self.rests.recv().expect("the worker runs");
    }

    /// Has the worker do what there is to do.
    pub fn give(&self) {
        self.go_on.send(()).expect("the worker waits");
        self.rests.recv().expect("the worker runs");
    }
}
