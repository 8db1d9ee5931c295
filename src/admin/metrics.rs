//! The figures of [`Metrics`] in Prometheus' words: base units, `_total` for counters, and few labels, each of them
//! bounded by the configuration. docs/metrics.md lists them.
//!
//! Here are those of the process, its connections and its files; the modules below have the others.

mod cluster;
mod kubernetes;
mod mirroring;
mod replicas;
mod requests;
mod workers;

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
use crate::cluster::Cluster;
use crate::discovery::kubernetes::standing;
use crate::reload::Standing;
use crate::scoring::catalog::Catalog;
use crate::telemetry::cell::{BOUNDS_MICROS, Counter, Histogram, Total};
use crate::telemetry::metrics::{Metrics, ThreadMetrics};

/// `OpenMetrics`, which Prometheus asks for.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The document as it is now.
pub(super) fn render(admin: &Admin) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("scorefront");
    registry.register_collector(Box::new(Snapshot {
        metrics: Arc::clone(&admin.metrics),
        standing: admin.reload.standing(),
        is_following: admin.reload.is_following(),
        catalog: admin.catalog.load_full(),
        kubernetes: Arc::clone(&admin.kubernetes),
        cluster: admin.cluster.clone(),
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
    kubernetes: Arc<standing::Standing>,
    cluster: Option<Arc<Cluster>>,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.requests(&mut encoder)?;
        self.mirroring(&mut encoder)?;
        self.connections(&mut encoder)?;
        self.workers(&mut encoder)?;
        self.certificates(&mut encoder)?;
        self.reloads(&mut encoder)?;
        self.replicas(&mut encoder)?;
        self.kubernetes(&mut encoder)?;
        self.cluster(&mut encoder)?;
        self.process(&mut encoder)
    }
}

impl Snapshot {
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

        let help = "Headers of the PROXY protocol, by what became of them";
        let mut family = counter(encoder, "proxy_protocol_headers", help)?;
        for (result, n) in [
            ("taken", sum(|thread| &thread.proxy_headers.taken)),
            ("refused", sum(|thread| &thread.proxy_headers.refused)),
            ("timeout", sum(|thread| &thread.proxy_headers.timeout)),
            ("closed", sum(|thread| &thread.proxy_headers.closed)),
        ] {
            count(&mut family, &[("result", result)], n)?;
        }
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

    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let dropped = self.metrics.dropped_lines.load(std::sync::atomic::Ordering::Relaxed);
        single(encoder, "log_lines_dropped", "Log lines that could not be written in time", dropped)?;
        let threads = u64::try_from(self.metrics.threads.len()).unwrap_or(u64::MAX);
        gauge(encoder, "worker_threads", "Worker threads")?.encode_gauge(&as_gauge(threads))?;
        let started = self.metrics.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge(encoder, "start_time_seconds", "When the process was started")?.encode_gauge(&started.as_secs_f64())?;
        let mut family = gauge(encoder, "build_info", "The version that runs; always 1")?;
        family.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1i64)
    }
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
