//! The demo's replica: a real small model with everything a service has of its own, such as a `swagger.json`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;

use scorefront::demo::replica::Replica;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// Ends when dropped.
pub struct Iris {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Iris {
    pub fn start() -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, address) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let replica = Replica::bind((Ipv4Addr::LOCALHOST, 0).into()).await.expect("bind");
                bound.send(replica.local_addr().expect("an address")).expect("somebody waits");
                replica
                    .serve(async {
                        let _ = stopped.await;
                    })
                    .await;
            });
        });
        Self { address: address.recv().expect("an address"), stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Iris {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
