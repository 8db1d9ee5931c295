//! Each worker thread by itself: whether one has no time left, or more connections than the others.

use std::time::Duration;
use std::{fmt, iter};

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};

use super::{Snapshot, as_gauge, counter, gauge, histogram, observe};
use crate::telemetry::busy::Busy;

impl Snapshot {
    pub(super) fn workers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let names: Vec<_> = (0..self.metrics.threads.len()).map(|index| index.to_string()).collect();
        let threads = || names.iter().map(|name| [("worker", name.as_str())]).zip(&self.metrics.threads);

        let help = "Connections of callers open now, by worker thread";
        let mut family = gauge(encoder, "worker_connections_open", help)?;
        for (labels, thread) in threads() {
            let open = thread.connections_accepted.get().saturating_sub(thread.connections_closed.get());
            family.encode_family(&labels)?.encode_gauge(&as_gauge(open))?;
        }
        let time = |busy: &Busy| Some(busy.time());
        for (name, help, figure) in [
            ("worker_busy_seconds", "Time in which a worker thread had something to do", time as Figure),
            (
                "worker_cpu_wait_seconds",
                "Time in which a worker thread was ready to run and had no CPU",
                Busy::waited_for_cpu,
            ),
        ] {
            let mut family = counter(encoder, name, help)?;
            for (labels, thread) in threads() {
                if let Some(time) = thread.busy.get().and_then(figure) {
                    let seconds = time.as_secs_f64();
                    family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
                }
            }
        }
        let help = "How long a worker thread takes to come round to what is ready: samples";
        let mut family = histogram(encoder, "worker_ready_wait_seconds", help)?;
        for (labels, thread) in threads() {
            observe(&mut family, &labels, iter::once(&thread.ready_wait))?;
        }
        Ok(())
    }
}

type Figure = fn(&Busy) -> Option<Duration>;
