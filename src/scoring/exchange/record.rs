//! What becomes of an [`Exchange`] when it is over: figures, and a line of the access log.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, Version};
use rustls::ProtocolVersion;
use tokio::time::Instant;

use super::{Ending, Exchange};
use crate::scoring::caller::Caller;
use crate::scoring::error::Code;
use crate::scoring::id::RequestId;
use crate::scoring::worker::Worker;
use crate::telemetry::access;
use crate::telemetry::metrics::RequestMetrics;

/// Bytes of a path that are logged: a caller needs no key to send a long one.
const MAX_LOGGED_PATH: usize = 1024;

/// Writes down a request that could not be read, so that there was nothing to begin an [`Exchange`] with. That is known so
/// long after its first byte as it `took`.
pub fn note_unreadable(
    worker: &Worker,
    caller: &Caller,
    (code, response): (Code, &Response<Bytes>),
    id: &RequestId,
    took: Duration,
) {
    let length = response.body().len() as u64;
    let metrics = worker.part(&worker.metrics.unrouted);
    metrics.started.increment();
    metrics.response_bytes.add(length);
    metrics.finish(Some(response.status()), Some(code), took);
    if worker.access.is_on() {
        let mut line = access::Line::new(id.as_str(), &caller.peer);
        line.tls = caller.tls.as_ref().map(|tls| tls_version(tls.version));
        line.status = Some(response.status().as_u16());
        line.code = Some(code.as_str());
        line.response_bytes = length;
        line.total = took;
        worker.access.write(&line);
    }
}

fn tls_version(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "1.3",
        _ => "1.2",
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        self.caller.in_flight.set(self.caller.in_flight.get().saturating_sub(1));
        self.caller.idle_since.set(now);
        if self.is_silent.get() {
            return;
        }
        // Whoever has the whole answer has let go of this before.
        if self.worker.cutting.get() && matches!(self.ending.get(), Ending::CallerLeft | Ending::Complete) {
            self.ending.set(Ending::Cut);
            self.worker.thread_metrics().requests_cut.increment();
        }
        let total = now - self.started;
        self.count(total);
        if self.worker.access.is_on() {
            self.log(total);
        }
    }
}

impl Exchange {
    fn count(&self, total: Duration) {
        let metrics = self.metrics();
        if self.deployment.get().is_none() {
            metrics.started.increment();
        } else {
            metrics.queue_wait.observe(self.stages().queue);
        }
        metrics.request_bytes.add(self.request_bytes.get());
        metrics.response_bytes.add(self.response_bytes.get());
        metrics.finish(self.status.get(), self.refused.get(), total);
    }

    fn log(&self, total: Duration) {
        let stages = self.stages();
        let path = self.uri.path();
        let replica = self.replica.borrow();
        let member = self.member.borrow();
        self.worker.access.write(&access::Line {
            client_id: self.client_id.as_ref().and_then(|id| id.to_str().ok()),
            host: self.host.get().and_then(|host| host.to_str().ok()),
            protocol: Some(match self.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            }),
            tls: self.caller.tls.as_ref().map(|tls| tls_version(tls.version)),
            client_certificate: self.caller.certificate.as_ref().map(|certificate| &*certificate.subject),
            method: Some(self.method.as_str()),
            path: Some(path.split_at(path.floor_char_boundary(MAX_LOGGED_PATH)).0),
            service: self.service().map(|service| &*service.name),
            key: self.key().map(|key| &*key.name),
            deployment: self.deployment().map(|deployment| &*deployment.name),
            replica: replica.as_ref().and_then(|replica| replica.endpoint().authority().to_str().ok()),
            handed_to: member.as_ref().map(|member| member.address),
            handed_by: self.handed().map(|handed| handed.from),
            status: self.status.get().map(|status| status.as_u16()),
            code: self.refused.get().map(Code::as_str),
            end: match self.ending.get() {
                Ending::Complete => "complete",
                Ending::CallerLeft => "caller_left",
                Ending::Cut => "cut",
                Ending::ReplicaBroke | Ending::ReplicaSilent => "replica_broke",
            },
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
            queue: stages.queue,
            connect: stages.connect,
            model: stages.model,
            total,
            ..access::Line::new(self.id.as_str(), &self.caller.peer)
        });
    }
}

impl RequestMetrics {
    fn finish(&self, status: Option<StatusCode>, refused: Option<Code>, total: Duration) {
        self.finished.increment();
        self.duration.observe(total);
        match status {
            Some(status) => {
                let class = usize::from(status.as_u16() / 100).checked_sub(1);
                if let Some(class) = class.and_then(|class| self.statuses.get(class)) {
                    class.increment();
                }
            }
            None => self.abandoned.increment(),
        }
        if let Some(refusal) = refused.and_then(|code| self.refusals.get(code as usize)) {
            refusal.increment();
        }
    }
}
