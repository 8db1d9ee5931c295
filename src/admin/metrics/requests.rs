//! What is counted of requests, by the deployment they reached.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::DescriptorEncoder;

use super::{Snapshot, as_gauge, count, counter, gauge, histogram, observe};
use crate::scoring::error::Code;
use crate::telemetry::cell::{Counter, Histogram};
use crate::telemetry::metrics::{DeploymentMetrics, Overload, RequestMetrics};

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The labels of one deployment's figures; both empty for requests that reached none.
type Row = ([(&'static str, String); 2], Arc<DeploymentMetrics>);

impl Snapshot {
    fn rows(&self) -> Vec<Row> {
        let unrouted = (String::new(), String::new(), Arc::clone(&self.metrics.unrouted));
        let rows = std::iter::once(unrouted).chain(self.metrics.deployments());
        rows.map(|(service, deployment, metrics)| ([("service", service), ("deployment", deployment)], metrics))
            .collect()
    }

    pub(super) fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let rows = self.rows();
        let mut family = counter(encoder, "requests", "Requests answered, by class of the status sent")?;
        for ([service, deployment], metrics) in &rows {
            for (index, class) in CLASSES.iter().enumerate() {
                let n = metrics.threads().iter().filter_map(|part| part.statuses.get(index)).map(Counter::get).sum();
                let labels = [(service.0, service.1.as_str()), (deployment.0, &deployment.1), ("class", class)];
                count(&mut family, &labels, n)?;
            }
        }
        let mut family = counter(encoder, "refusals", "Answers of the front end's own, by error code")?;
        for ([service, deployment], metrics) in &rows {
            for (index, code) in Code::ALL.iter().enumerate() {
                let n = metrics.threads().iter().filter_map(|part| part.refusals.get(index)).map(Counter::get).sum();
                let labels = [(service.0, service.1.as_str()), (deployment.0, &deployment.1), ("code", code.as_str())];
                if n > 0 {
                    count(&mut family, &labels, n)?;
                }
            }
        }
        let mut family = counter(encoder, "overloaded", "Refusals with the code Overloaded, by reason")?;
        for ([service, deployment], metrics) in &rows {
            for (index, reason) in Overload::REASONS.iter().enumerate() {
                let n = all(metrics).filter_map(|part| part.overloaded.get(index)).map(Counter::get).sum();
                let labels = [(service.0, service.1.as_str()), (deployment.0, &deployment.1), ("reason", reason)];
                if n > 0 {
                    count(&mut family, &labels, n)?;
                }
            }
        }
        for (name, help, cell) in [
            ("requests_abandoned", "Requests whose caller left before an answer", abandoned as Cell),
            ("request_body_bytes", "Bytes of request bodies", |part| &part.request_bytes),
            ("response_body_bytes", "Bytes of response bodies", |part| &part.response_bytes),
        ] {
            let mut family = counter(encoder, name, help)?;
            for (labels, metrics) in &rows {
                count(&mut family, labels, sum(metrics, cell))?;
            }
        }
        for (name, help, cell) in [
            (
                "unreachable_replicas",
                "Attempts to reach a replica that failed before anything was sent",
                unreachable as Cell,
            ),
            ("retries", "Requests that went to another replica after that", |part| &part.retries),
        ] {
            let mut family = counter(encoder, name, help)?;
            for (labels, metrics) in &rows {
                count(&mut family, labels, sum_of_all(metrics, cell))?;
            }
        }
        let mut family = gauge(encoder, "requests_in_flight", "Requests being answered now")?;
        for (labels, metrics) in &rows {
            let in_flight = sum(metrics, |part| &part.started).saturating_sub(sum(metrics, |part| &part.finished));
            family.encode_family(labels)?.encode_gauge(&as_gauge(in_flight))?;
        }
        for (name, help, cell) in [
            ("request_duration_seconds", "From the request's head to the end of the answer", duration as Times),
            ("model_duration_seconds", "From the connection to the replica to the head of its answer", |part| {
                &part.model
            }),
            ("model_execution_seconds", "What replicas say themselves their model took", |part| &part.execution),
            ("queue_wait_seconds", "Waiting for a replica with room", |part| &part.queue_wait),
            ("overhead_seconds", "The front end's own share of the time to the head of the answer", |part| {
                &part.overhead
            }),
        ] {
            let mut family = histogram(encoder, name, help)?;
            for (labels, metrics) in &rows {
                observe(&mut family, labels, metrics.threads().iter().map(cell))?;
            }
        }
        Ok(())
    }
}

pub(super) type Cell = fn(&RequestMetrics) -> &Counter;
pub(super) type Times = fn(&RequestMetrics) -> &Histogram;

fn abandoned(part: &RequestMetrics) -> &Counter {
    &part.abandoned
}

fn unreachable(part: &RequestMetrics) -> &Counter {
    &part.unreachable
}

fn duration(part: &RequestMetrics) -> &Histogram {
    &part.duration
}

pub(super) fn sum(metrics: &DeploymentMetrics, cell: Cell) -> u64 {
    metrics.threads().iter().map(|part| cell(part).get()).sum()
}

/// What is counted where the replicas are asked, whoever the request came from.
fn all(metrics: &DeploymentMetrics) -> impl Iterator<Item = &RequestMetrics> {
    metrics.threads().iter().chain(metrics.handed())
}

pub(super) fn sum_of_all(metrics: &DeploymentMetrics, cell: Cell) -> u64 {
    all(metrics).map(|part| cell(part).get()).sum()
}
