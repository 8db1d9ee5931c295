//! What became of copies of requests, by the deployment they went to: those that copies go to now, the others have none.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::requests::{Cell, Times, sum_of_all};
use super::{Snapshot, count, counter, histogram, observe};
use crate::telemetry::cell::{Counter, Histogram};
use crate::telemetry::metrics::RequestMetrics;

impl Snapshot {
    pub(super) fn mirroring(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mirrored = self.catalog.services().iter().filter_map(|service| {
            let deployment = service.mirrored()?;
            Some(([("service", &*service.name), ("deployment", &*deployment.name)], &*deployment.metrics))
        });
        let rows: Vec<_> = mirrored.collect();
        let mut family = counter(encoder, "mirror_requests", "Copies of requests, by what became of them")?;
        for ([service, deployment], metrics) in &rows {
            for (result, cell) in [
                ("same_status", same_status as Cell),
                ("other_status", |part| &part.mirroring.other_status),
                ("unanswered", |part| &part.mirroring.unanswered),
                ("busy", |part| &part.mirroring.busy),
                ("slow", |part| &part.mirroring.slow),
                ("abandoned", |part| &part.mirroring.abandoned),
            ] {
                count(&mut family, &[*service, *deployment, ("result", result)], sum_of_all(metrics, cell))?;
            }
        }
        for (name, help, times) in [
            ("mirror_duration_seconds", "Of copies, from the connection to the head of the answer", copies as Times),
            ("mirrored_duration_seconds", "The same of the requests that were copied", |part| {
                &part.mirroring.mirrored_duration
            }),
        ] {
            let mut family = histogram(encoder, name, help)?;
            for (labels, metrics) in &rows {
                observe(&mut family, labels, metrics.threads().iter().chain(metrics.handed()).map(times))?;
            }
        }
        Ok(())
    }
}

fn same_status(part: &RequestMetrics) -> &Counter {
    &part.mirroring.same_status
}

fn copies(part: &RequestMetrics) -> &Histogram {
    &part.mirroring.duration
}
