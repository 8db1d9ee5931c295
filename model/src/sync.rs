//! What the counting and the queue are built on, as the model checker sees it.

pub use std::sync::Arc;

pub use loom::sync::Mutex;
pub use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence};

/// tokio's channel, each use of it a step at which another thread may come in between, and ordered as tokio orders them:
/// all that is done to one channel is done in turn.
pub mod oneshot {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use loom::sync::atomic::{AtomicUsize, Ordering::AcqRel};
    use tokio::sync::oneshot as real;

    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = real::channel();
        let turn = Arc::new(AtomicUsize::new(0));
        (Sender { real: Some(sender), turn: Arc::clone(&turn) }, Receiver { real: receiver, turn })
    }

    #[derive(Debug)]
    pub struct Sender<T> {
        real: Option<real::Sender<T>>,
        turn: Arc<AtomicUsize>,
    }

    impl<T> Sender<T> {
        pub fn send(mut self, value: T) -> Result<(), T> {
            self.turn.fetch_add(1, AcqRel);
            match self.real.take() {
                Some(sender) => sender.send(value),
                None => Err(value),
            }
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            if self.real.is_some() {
                self.turn.fetch_add(1, AcqRel);
            }
        }
    }

    #[derive(Debug)]
    pub struct Receiver<T> {
        real: real::Receiver<T>,
        turn: Arc<AtomicUsize>,
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, real::error::RecvError>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            self.turn.fetch_add(1, AcqRel);
            Pin::new(&mut self.real).poll(cx)
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.turn.fetch_add(1, AcqRel);
        }
    }
}
