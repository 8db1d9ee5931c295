//! Whether a thread still turns: it is asked from outside, and answers from inside its runtime. A thread that nobody asks
//! is never woken.

use tokio::sync::{mpsc, oneshot};

/// Asks one thread.
#[derive(Debug)]
pub(super) struct Pulse(mpsc::Sender<oneshot::Sender<()>>);

/// Is asked; goes to that thread.
#[derive(Debug)]
pub(super) struct Asked(mpsc::Receiver<oneshot::Sender<()>>);

pub(super) fn pair() -> (Pulse, Asked) {
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
