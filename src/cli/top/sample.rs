//! What a front end says of itself at one time, out of the text of its metrics.

use std::collections::BTreeMap;
use std::time::Instant;

use super::exposition::{Sample, samples};
use super::histogram::Histogram;

/// One look.
#[derive(Debug)]
pub struct Look {
    pub at: Instant,
    pub version: String,
    /// When the process was started, in seconds since 1970.
    pub started: f64,
    pub accepted: f64,
    pub connections: f64,
    /// By number; those of the process now.
    pub workers: BTreeMap<usize, Worker>,
    /// By name; the empty one is of requests that reached none.
    pub services: BTreeMap<String, Service>,
}

#[derive(Clone, Debug, Default)]
pub struct Worker {
    pub busy_seconds: f64,
    pub connections: f64,
}

/// All deployments of one service together.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Answers with a status of 5xx, whoever they are from.
    pub errors: f64,
    pub in_flight: f64,
    pub queue: f64,
    /// Of the deployment that has most to do; absent without a bound or without replicas.
    pub utilization: Option<f64>,
    pub ready: f64,
    /// In use although they fail.
    pub failing: f64,
    pub out: f64,
    pub total: Histogram,
    pub queue_wait: Histogram,
    pub model: Histogram,
}

impl Look {
    /// Reads the metrics; absent if they are none of a front end.
    pub fn read(text: &str, at: Instant) -> Option<Self> {
        let (version, started, accepted, connections) = (String::new(), 0.0, 0.0, 0.0);
        let (workers, services) = (BTreeMap::new(), BTreeMap::new());
        let mut look = Self { at, version, started, accepted, connections, workers, services };
        let mut is_ours = false;
        for sample in samples(text) {
            let Some(name) = sample.name.strip_prefix("scorefront_") else { continue };
            is_ours = true;
            look.take(name, &sample);
        }
        is_ours.then_some(look)
    }

    fn take(&mut self, name: &str, sample: &Sample<'_>) {
        match name {
            "build_info" => sample.label("version").clone_into(&mut self.version),
            "start_time_seconds" => self.started = sample.value,
            "connections_accepted_total" => self.accepted = sample.value,
            "connections_open" => self.connections = sample.value,
            "worker_busy_seconds_total" => self.worker(sample, |worker| worker.busy_seconds = sample.value),
            "worker_connections_open" => self.worker(sample, |worker| worker.connections = sample.value),
            "requests_total" if sample.label("class") == "5xx" => self.service(sample).errors += sample.value,
            "requests_in_flight" => self.service(sample).in_flight += sample.value,
            "queue_length" => self.service(sample).queue += sample.value,
            "utilization_ratio" => {
                let service = self.service(sample);
                service.utilization = Some(service.utilization.map_or(sample.value, |most| most.max(sample.value)));
            }
            "replicas" => match sample.label("state") {
                "ready" => self.service(sample).ready += sample.value,
                "failing" => self.service(sample).failing += sample.value,
                "out" => self.service(sample).out += sample.value,
                _ => {}
            },
            "request_duration_seconds_bucket" => bucket(sample, &mut self.service(sample).total),
            "queue_wait_seconds_bucket" => bucket(sample, &mut self.service(sample).queue_wait),
            "model_duration_seconds_bucket" => bucket(sample, &mut self.service(sample).model),
            _ => {}
        }
    }

    fn service(&mut self, sample: &Sample<'_>) -> &mut Service {
        self.services.entry(sample.label("service").to_owned()).or_default()
    }

    fn worker(&mut self, sample: &Sample<'_>, note: impl FnOnce(&mut Worker)) {
        if let Ok(number) = sample.label("worker").parse() {
            note(self.workers.entry(number).or_default());
        }
    }

    /// Whether this is another process than that of `before`.
    pub fn is_restarted_since(&self, before: &Self) -> bool {
        self.started.total_cmp(&before.started).is_ne()
    }
}

fn bucket(sample: &Sample<'_>, histogram: &mut Histogram) {
    if let Ok(bound) = sample.label("le").parse() {
        histogram.add(bound, sample.value);
    }
}
