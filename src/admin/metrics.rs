//! The figures of [`Metrics`] in Prometheus' words: base units, `_total` for counters, and few labels, each of them
//! bounded by the configuration. docs/metrics.md lists them.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Admin;
use crate::reload::Standing;
use crate::scoring::catalog::Catalog;
use crate::scoring::error::Code;
use crate::telemetry::cell::{BOUNDS_MICROS, Counter, Histogram, Total};
use crate::telemetry::metrics::{DeploymentMetrics, Metrics, RequestMetrics, ThreadMetrics};

/// `OpenMetrics`, which Prometheus asks for.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The document as it is now.
pub(super) fn render(admin: &Admin) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("scorefront");
    registry.register_collector(Box::new(Snapshot {
        metrics: Arc::clone(&admin.metrics),
        standing: admin.reload.standing(),
        is_following: admin.reload.is_following(),
        catalog: admin.catalog.load_full(),
    }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Snapshot {
    metrics: Arc<Metrics>,
    standing: Arc<Standing>,
    is_following: bool,
    catalog: Arc<Catalog>,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.requests(&mut encoder)?;
        self.mirroring(&mut encoder)?;
        self.connections(&mut encoder)?;
        self.certificates(&mut encoder)?;
        self.reloads(&mut encoder)?;
        self.replicas(&mut encoder)?;
        self.process(&mut encoder)
    }
}

/// The labels of one deployment's figures; both empty for requests that reached none.
type Row = ([(&'static str, String); 2], Arc<DeploymentMetrics>);

impl Snapshot {
    fn rows(&self) -> Vec<Row> {
        let unrouted = (String::new(), String::new(), Arc::clone(&self.metrics.unrouted));
        let rows = std::iter::once(unrouted).chain(self.metrics.deployments());
        rows.map(|(service, deployment, metrics)| ([("service", service), ("deployment", deployment)], metrics))
            .collect()
    }

    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
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
        for (name, help, cell) in [
            ("requests_abandoned", "Requests whose caller left before an answer", abandoned as Cell),
            ("request_body_bytes", "Bytes of request bodies", |part| &part.request_bytes),
            ("response_body_bytes", "Bytes of response bodies", |part| &part.response_bytes),
            ("unreachable_replicas", "Attempts to reach a replica that failed before anything was sent", |part| {
                &part.unreachable
            }),
        ] {
            let mut family = counter(encoder, name, help)?;
            for (labels, metrics) in &rows {
                count(&mut family, labels, sum(metrics, cell))?;
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

    /// For the deployments that copies go to now; the others have none.
    fn mirroring(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
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
                count(&mut family, &[*service, *deployment, ("result", result)], sum(metrics, cell))?;
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
                observe(&mut family, labels, metrics.threads().iter().map(times))?;
            }
        }
        Ok(())
    }

    fn connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sum = |cell: fn(&ThreadMetrics) -> &Counter| -> u64 {
            self.metrics.threads.iter().map(|thread| cell(thread).get()).sum()
        };
        let accepted = sum(|thread| &thread.connections_accepted);
        single(encoder, "connections_accepted", "Connections taken from callers", accepted)?;
        single(
            encoder,
            "connections_at_limit",
            "How often a thread stopped accepting at its share of max_connections",
            sum(|thread| &thread.connections_at_limit),
        )?;
        let open = accepted.saturating_sub(sum(|thread| &thread.connections_closed));
        gauge(encoder, "connections_open", "Connections of callers open now")?.encode_gauge(&as_gauge(open))?;

        let mut family = counter(encoder, "accept_errors", "Accepts that failed, by cause")?;
        for (cause, n) in [
            ("descriptors", sum(|thread| &thread.accept_errors.descriptors)),
            ("memory", sum(|thread| &thread.accept_errors.memory)),
            ("aborted", sum(|thread| &thread.accept_errors.aborted)),
            ("other", sum(|thread| &thread.accept_errors.other)),
        ] {
            count(&mut family, &[("cause", cause)], n)?;
        }
        let mut family = counter(encoder, "tls_handshakes", "TLS handshakes, by version and outcome")?;
        for (version, outcome, n) in [
            ("1.2", "full", sum(|thread| &thread.handshakes.tls12_full)),
            ("1.2", "resumed", sum(|thread| &thread.handshakes.tls12_resumed)),
            ("1.3", "full", sum(|thread| &thread.handshakes.tls13_full)),
            ("1.3", "resumed", sum(|thread| &thread.handshakes.tls13_resumed)),
            ("", "unknown_name", sum(|thread| &thread.handshakes.unknown_name)),
            ("", "no_name", sum(|thread| &thread.handshakes.no_name)),
            ("", "no_certificates", sum(|thread| &thread.handshakes.no_certificates)),
            ("", "caller_certificate", sum(|thread| &thread.handshakes.caller_certificate)),
            ("", "protocol_error", sum(|thread| &thread.handshakes.protocol)),
            ("", "io_error", sum(|thread| &thread.handshakes.io)),
            ("", "timeout", sum(|thread| &thread.handshakes.timeout)),
        ] {
            count(&mut family, &[("version", version), ("outcome", outcome)], n)?;
        }
        let mut family = histogram(encoder, "tls_handshake_duration_seconds", "TLS handshakes that succeeded")?;
        let handshakes = self.metrics.threads.iter().map(|thread| &thread.handshake_duration);
        observe(&mut family, &[("listener", "https")], handshakes)?;

        let mut family =
            counter(encoder, "caller_timeouts", "Connections or streams ended because the caller kept us waiting")?;
        for (kind, n) in [
            ("header", sum(|thread| &thread.timeouts.header)),
            ("idle", sum(|thread| &thread.timeouts.idle)),
            ("stalled", sum(|thread| &thread.timeouts.stalled)),
        ] {
            count(&mut family, &[("kind", kind)], n)?;
        }
        Ok(())
    }

    /// By `[[cname]]` table, so that RSA beside ECDSA has a row each; what concerns the name is the same in both.
    fn certificates(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let certificates = &self.standing.status.certificates;
        let served = || certificates.iter().filter_map(|row| row.served.as_ref().map(|served| (row, served)));
        let help = "When a CNAME's certificate expires";
        let mut family = gauge(encoder, "certificate_not_after_timestamp_seconds", help)?;
        for (row, served) in served() {
            let labels = [("cname", row.cname.as_str()), ("serial", served.serial.as_str())];
            family.encode_family(&labels)?.encode_gauge(&seconds(served.not_after))?;
        }
        let mut family = gauge(encoder, "certificate_loaded_timestamp_seconds", "When it was taken from its files")?;
        for (row, served) in served() {
            family.encode_family(&row.labels())?.encode_gauge(&seconds(served.loaded_at))?;
        }
        let mut family = gauge(encoder, "certificate_generation", "How often one was taken from these files")?;
        for row in certificates {
            family.encode_family(&row.labels())?.encode_gauge(&as_gauge(row.generation))?;
        }
        let help = "1 if what the files hold is what is served";
        let mut family = gauge(encoder, "certificate_last_reload_success", help)?;
        for row in certificates {
            family.encode_family(&row.labels())?.encode_gauge(&i64::from(row.last_reload_ok))?;
        }
        let mut family = counter(encoder, "certificate_handshakes", "Handshakes finished under a CNAME")?;
        let mut counted = HashSet::new();
        for (row, identity) in certificates.iter().filter_map(|row| Some((row, row.identity.as_ref()?))) {
            // Two certificates of one name are one identity.
            if counted.insert(&row.cname) {
                count(&mut family, &[("cname", row.cname.as_str())], identity.handshakes())?;
            }
        }
        Ok(())
    }

    fn reloads(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let config = &self.standing.status.config;
        let ok = i64::from(config.last_reload_ok);
        gauge(encoder, "config_last_reload_success", "1 if what the configuration files hold is what runs")?
            .encode_gauge(&ok)?;
        gauge(encoder, "config_generation", "How often a configuration was taken")?
            .encode_gauge(&as_gauge(config.generation))?;
        gauge(encoder, "config_loaded_timestamp_seconds", "When the configuration that runs was taken")?
            .encode_gauge(&seconds(config.taken_at))?;
        let waiting = as_gauge(u64::try_from(self.standing.waits_for_restart.len()).unwrap_or(u64::MAX));
        gauge(encoder, "config_waits_for_restart", "Settings whose new value holds after a restart only")?
            .encode_gauge(&waiting)?;
        gauge(encoder, "files_followed", "1 as long as changes of files are noticed")?
            .encode_gauge(&i64::from(self.is_following))
    }

    fn replicas(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = gauge(encoder, "replica_requests_in_flight", "Requests that are with a replica now")?;
        for service in self.catalog.services() {
            for deployment in service.deployments() {
                for view in deployment.replicas.views() {
                    let address = view.replica.endpoint().address().to_string();
                    let labels =
                        [("service", &*service.name), ("deployment", &*deployment.name), ("replica", address.as_str())];
                    let in_flight = u64::try_from(view.replica.in_flight()).unwrap_or(u64::MAX);
                    family.encode_family(&labels)?.encode_gauge(&as_gauge(in_flight))?;
                }
            }
        }
        Ok(())
    }

    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let dropped = self.metrics.dropped_lines.load(std::sync::atomic::Ordering::Relaxed);
        single(encoder, "log_lines_dropped", "Log lines that could not be written in time", dropped)?;
        let threads = u64::try_from(self.metrics.threads.len()).unwrap_or(u64::MAX);
        gauge(encoder, "worker_threads", "Worker threads")?.encode_gauge(&as_gauge(threads))?;
        let mut family = gauge(encoder, "build_info", "The version that runs; always 1")?;
        family.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1i64)
    }
}

type Cell = fn(&RequestMetrics) -> &Counter;
type Times = fn(&RequestMetrics) -> &Histogram;

fn abandoned(part: &RequestMetrics) -> &Counter {
    &part.abandoned
}

fn duration(part: &RequestMetrics) -> &Histogram {
    &part.duration
}

fn same_status(part: &RequestMetrics) -> &Counter {
    &part.mirroring.same_status
}

fn copies(part: &RequestMetrics) -> &Histogram {
    &part.mirroring.duration
}

fn sum(metrics: &DeploymentMetrics, cell: Cell) -> u64 {
    metrics.threads().iter().map(|part| cell(part).get()).sum()
}

fn counter<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

fn gauge<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)
}

fn histogram<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Histogram)
}

fn single(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, n: u64) -> fmt::Result {
    counter(encoder, name, help)?.encode_counter::<NoLabelSet, _, f64>(&n, None)
}

fn count(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, n: u64) -> fmt::Result {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, _, f64>(&n, None)
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are f64")]
fn observe<'a>(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    parts: impl Iterator<Item = &'a Histogram>,
) -> fmt::Result {
    let mut total = Total::default();
    parts.for_each(|part| total.add(part));
    let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(total.buckets).collect();
    let count = total.buckets.iter().sum();
    family.encode_family(labels)?.encode_histogram::<NoLabelSet>(total.sum_nanos as f64 / 1e9, count, &buckets, None)
}

fn as_gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| as_gauge(since.as_secs()))
}
