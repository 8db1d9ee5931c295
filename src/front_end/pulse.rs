//! Whether a thread still turns: it is asked from outside, and answers from inside its runtime. A thread that nobody asks
//! is never woken.

use tokio::sync::{mpsc, oneshot};

/// Asks one thread.
#[derive(Debug)]
pub struct Pulse(mpsc::Sender<oneshot::Sender<()>>);

/// Is asked; goes to that thread.
#[derive(Debug)]
pub struct Asked(mpsc::Receiver<oneshot::Sender<()>>);

/// Both ends for one thread.
pub fn pair() -> (Pulse, Asked) {
    let (sender, receiver) = mpsc::channel(1);
    (Pulse(sender), Asked(receiver))
}

impl Pulse {
    /// True when the thread has answered, false if it has ended. Waits for ever for one that is stuck.
    pub(super) async fn beats(&self) -> bool {
        let (tell, told) = oneshot::channel();
        self.0.send(tell).await.is_ok() && told.await.is_ok()
    }
}

impl Asked {
    /// Answers for as long as somebody may ask.
    pub(super) async fn answer(mut self) {
        while let Some(tell) = self.0.recv().await {
            // Whoever asked may have gone.
            let _ = tell.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as blocking;
    use std::thread;
    use std::time::Duration;

    use tokio::runtime::Builder;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_thread_answers_unless_it_is_stuck_or_has_ended() {
        let (pulse, asked) = pair();
        let (stick, stuck) = blocking::channel::<()>();
        let (begin, begun) = oneshot::channel::<()>();
        let (tell, is_stuck) = blocking::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async move {
                let answering = tokio::spawn(asked.answer());
                let _ = begun.await;
                // As a bug would block it: nothing else runs on this thread meanwhile.
                let _ = tell.send(());
                let _ = stuck.recv();
                answering.abort();
            });
        });
        assert!(pulse.beats().await);
        assert!(pulse.beats().await);
        begin.send(()).expect("the thread");
        is_stuck.recv().expect("the thread");
        assert!(timeout(Duration::from_millis(200), pulse.beats()).await.is_err(), "it is stuck");
        drop(stick);
        thread.join().expect("its end");
        assert!(!pulse.beats().await, "it has ended");
    }
}
