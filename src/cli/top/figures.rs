//! What came of the time between two looks: the same for people and for programs.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::histogram::Histogram;
use super::sample::{Look, Service};
use crate::cli::output;

/// The document.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub version: String,
    pub interval_seconds: f64,
    pub requests_per_second: f64,
    pub errors_per_second: f64,
    pub requests_in_flight: u64,
    pub connections_open: u64,
    pub connections_per_second: f64,
    pub workers: Vec<WorkerFigures>,
    /// The busiest first.
    pub services: Vec<ServiceFigures>,
}

#[derive(Debug, Serialize)]
pub(super) struct WorkerFigures {
    pub worker: usize,
    /// Part of the interval in which it had something to do.
    pub busy_ratio: f64,
    pub connections_open: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct ServiceFigures {
    /// Absent: of requests that reached none.
    pub name: Option<String>,
    pub requests_per_second: f64,
    pub errors_per_second: f64,
    pub requests_in_flight: u64,
    pub queue_length: u64,
    pub total_ms: Times,
    pub queue_wait_ms: Times,
    pub model_ms: Times,
    pub utilization: Option<f64>,
    pub replicas_ready: u64,
    /// In use although they fail, because too few others are left.
    pub replicas_failing: u64,
    pub replicas_out: u64,
}

/// In milliseconds; absent where there was none in the interval.
#[derive(Debug, Serialize)]
pub(super) struct Times {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

impl Times {
    fn of(histogram: &Histogram) -> Self {
        let millis = |part| histogram.quantile(part).map(|seconds| thousandths(seconds * 1e3));
        Self { p50: millis(0.5), p99: millis(0.99) }
    }
}

impl Figures {
    /// Of one process, which `before` and `now` are both of.
    pub fn between(before: &Look, now: &Look) -> Self {
        // Two looks at one instant have nothing between them.
        let seconds = (now.at - before.at).as_secs_f64().max(1e-3);
        let nothing = Service::default();
        let had = |name: &String| before.services.get(name).unwrap_or(&nothing);
        let mut services: Vec<_> = now
            .services
            .iter()
            .map(|(name, service)| ServiceFigures::between(name, had(name), service, seconds))
            .filter(|row| row.name.is_some() || row.requests_per_second > 0.0 || row.requests_in_flight > 0)
            .collect();
        services.sort_by(|one, other| {
            let by_name = || one.name.cmp(&other.name);
            other.requests_per_second.total_cmp(&one.requests_per_second).then_with(by_name)
        });
        // The sum of nothing is -0.0.
        let sum = |figure: fn(&ServiceFigures) -> f64| services.iter().map(figure).fold(0.0, |sum, one| sum + one);
        let workers = now.workers.iter().map(|(number, worker)| {
            let had = before.workers.get(number).map_or(0.0, |before| before.busy_seconds);
            WorkerFigures {
                worker: *number,
                busy_ratio: thousandths((worker.busy_seconds - had) / seconds).clamp(0.0, 1.0),
                connections_open: whole(worker.connections),
            }
        });
        Self {
            version: now.version.clone(),
            interval_seconds: thousandths(seconds),
            requests_per_second: sum(|row| row.requests_per_second),
            errors_per_second: sum(|row| row.errors_per_second),
            requests_in_flight: services.iter().map(|row| row.requests_in_flight).sum(),
            connections_open: whole(now.connections),
            connections_per_second: thousandths((now.accepted - before.accepted).max(0.0) / seconds),
            workers: workers.collect(),
            services,
        }
    }

    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{:.1} calls/s, {:.1} errors/s, {} in flight; {} connections, {:.1} new/s; times are p50/p99 of {:.1} s\n",
            self.requests_per_second,
            self.errors_per_second,
            self.requests_in_flight,
            self.connections_open,
            self.connections_per_second,
            self.interval_seconds
        );
        text.push_str("threads");
        for WorkerFigures { worker, busy_ratio, connections_open } in &self.workers {
            // Writing to a string does not fail.
            let _ = write!(text, "  {worker}: {:.0} % busy, {connections_open} connections", busy_ratio * 100.0);
        }
        text.push_str("\n\n");
        let names = [
            "SERVICE", "CALLS/S", "ERR/S", "FLIGHT", "QUEUE", "UTIL", "READY", "OUT", "TOTAL MS", "WAIT MS", "MODEL MS",
        ];
        let rows: Vec<_> = self.services.iter().map(ServiceFigures::cells).collect();
        text.push_str(&output::table(names, &rows));
        text
    }
}

impl ServiceFigures {
    fn between(name: &str, before: &Service, now: &Service, seconds: f64) -> Self {
        let total = now.total.since(&before.total);
        // A service that went and came back counts from nothing.
        let errors = if now.errors < before.errors { now.errors } else { now.errors - before.errors };
        Self {
            name: Some(name.to_owned()).filter(|name| !name.is_empty()),
            requests_per_second: thousandths(total.count() / seconds),
            errors_per_second: thousandths(errors / seconds),
            requests_in_flight: whole(now.in_flight),
            queue_length: whole(now.queue),
            total_ms: Times::of(&total),
            queue_wait_ms: Times::of(&now.queue_wait.since(&before.queue_wait)),
            model_ms: Times::of(&now.model.since(&before.model)),
            utilization: now.utilization.map(thousandths),
            replicas_ready: whole(now.ready),
            replicas_failing: whole(now.failing),
            replicas_out: whole(now.out),
        }
    }

    fn cells(&self) -> [String; 11] {
        [
            self.name.clone().unwrap_or_else(|| "(none)".to_owned()),
            format!("{:.1}", self.requests_per_second),
            format!("{:.1}", self.errors_per_second),
            self.requests_in_flight.to_string(),
            self.queue_length.to_string(),
            self.utilization.map_or("-".to_owned(), |ratio| format!("{:.0} %", ratio * 100.0)),
            self.replicas_ready.to_string(),
            (self.replicas_failing + self.replicas_out).to_string(),
            self.total_ms.to_string(),
            self.queue_wait_ms.to_string(),
            self.model_ms.to_string(),
        ]
    }
}

/// As many digits as mean something.
fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// A count, which Prometheus' text has as a number like any other.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast stops at the ends")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(p50), Some(p99)) = (self.p50, self.p99) else { return f.write_str("-") };
        // In as many digits as anybody reads.
        let digits = |millis| if millis < 10.0 { 2 } else { 0 };
        write!(f, "{p50:.0$}/{p99:.1$}", digits(p50), digits(p99))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// The metrics of a front end that answered so many calls, each within 10 ms.
    fn metrics(started: f64, calls: u32, errors: u32, busy: f64) -> String {
        let labels = "service=\"iris\",deployment=\"blue\"";
        format!(
            "scorefront_build_info{{version=\"1.2.3\"}} 1\n\
             scorefront_start_time_seconds {started}\n\
             scorefront_connections_accepted_total {calls}\n\
             scorefront_connections_open 2\n\
             scorefront_worker_busy_seconds_total{{worker=\"0\"}} {busy}\n\
             scorefront_worker_connections_open{{worker=\"0\"}} 2\n\
             scorefront_requests_total{{{labels},class=\"5xx\"}} {errors}\n\
             scorefront_requests_in_flight{{{labels}}} 1\n\
             scorefront_queue_length{{{labels}}} 4\n\
             scorefront_utilization_ratio{{{labels}}} 0.5\n\
             scorefront_utilization_ratio{{service=\"iris\",deployment=\"green\"}} 1.5\n\
             scorefront_replicas{{{labels},state=\"ready\"}} 2\n\
             scorefront_replicas{{{labels},state=\"failing\"}} 1\n\
             scorefront_replicas{{{labels},state=\"out\"}} 1\n\
             scorefront_request_duration_seconds_bucket{{le=\"0.005\",{labels}}} 0\n\
             scorefront_request_duration_seconds_bucket{{le=\"0.01\",{labels}}} {calls}\n\
             scorefront_request_duration_seconds_bucket{{le=\"+Inf\",{labels}}} {calls}\n"
        )
    }

    fn looks(one: (u32, u32, f64), other: (u32, u32, f64)) -> (Look, Look) {
        let begin = Instant::now();
        let look = |(calls, errors, busy), at| Look::read(&metrics(1e9, calls, errors, busy), at).expect("metrics");
        (look(one, begin), look(other, begin + Duration::from_secs(2)))
    }

    #[test]
    fn what_came_between_two_looks_is_told() {
        let (before, now) = looks((100, 10, 5.0), (140, 14, 6.5));
        assert!(!now.is_restarted_since(&before));
        let figures = Figures::between(&before, &now);
        let json = serde_json::to_value(&figures).expect("JSON");
        assert_eq!(json["services"][0]["requests_per_second"], 20.0);
        assert_eq!(json["services"][0]["errors_per_second"], 2.0);
        assert_eq!(json["services"][0]["total_ms"]["p50"], 7.5);
        assert_eq!(json["services"][0]["utilization"], 1.5);
        assert_eq!(json["services"][0]["model_ms"]["p99"], serde_json::Value::Null);
        assert_eq!(json["workers"][0]["busy_ratio"], 0.75);
        assert_eq!(
            figures.to_text(),
            "20.0 calls/s, 2.0 errors/s, 1 in flight; 2 connections, 20.0 new/s; times are p50/p99 of 2.0 s\n\
             threads  0: 75 % busy, 2 connections\n\n\
             SERVICE  CALLS/S  ERR/S  FLIGHT  QUEUE  UTIL   READY  OUT  TOTAL MS   WAIT MS  MODEL MS\n\
             iris     20.0     2.0    1       4      150 %  2      2    7.50/9.95  -        -\n"
        );
    }

    #[test]
    fn where_there_is_no_service_nothing_is_counted() {
        let look = || Look::read("scorefront_start_time_seconds 1\n", Instant::now()).expect("metrics");
        let text = Figures::between(&look(), &look()).to_text();
        assert!(text.starts_with("0.0 calls/s, 0.0 errors/s"), "{text}");
    }

    #[test]
    fn another_start_is_another_process_whatever_it_has_counted() {
        let look = |started, calls| Look::read(&metrics(started, calls, 1, 5.0), Instant::now()).expect("metrics");
        for calls in [10, 200] {
            assert!(look(1e9 + 0.25, calls).is_restarted_since(&look(1e9, 100)), "{calls}");
        }
        assert!(Look::read("# EOF\n", Instant::now()).is_none());
        assert!(Look::read("other_total 1\n", Instant::now()).is_none());
    }
}
