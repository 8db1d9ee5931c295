//! How the replicas of each deployment are, and how many requests wait for one. All of it is read from the scheduler
//! as it is now; only what took replicas out is counted.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::{Snapshot, as_gauge, count, counter, gauge};
use crate::admin::replicas::utilization;
use crate::scheduling::{ANY, Failure, View};
use crate::scoring::catalog::Deployment;

/// A deployment with the labels it has, and its replicas.
struct Row<'a> {
    labels: [(&'static str, &'a str); 2],
    deployment: &'a Deployment,
    views: Vec<View>,
}

impl Snapshot {
    pub(super) fn replicas(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let rows = self.catalog.services().iter().flat_map(|service| {
            service.deployments().iter().map(|deployment| Row {
                labels: [("service", &service.name), ("deployment", &deployment.name)],
                deployment,
                views: deployment.replicas.views(),
            })
        });
        let rows: Vec<_> = rows.collect();
        each_replica(&rows, encoder)?;
        each_deployment(&rows, encoder)
    }
}

fn each_replica(rows: &[Row<'_>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for (name, help, value) in [
        (
            "replica_permits",
            "Requests that this front end may give a replica at a time, where that is limited",
            permits as Value,
        ),
        ("replica_requests_in_flight", "Requests that are with a replica now", |view| Some(view.replica.in_flight())),
        ("replica_ready", "1 if a replica is given requests", |view| Some(usize::from(view.out.is_none()))),
    ] {
        let mut family = gauge(encoder, name, help)?;
        for Row { labels: [service, deployment], views, .. } in rows {
            for view in views {
                let address = view.replica.endpoint().address().to_string();
                if let Some(value) = value(view) {
                    let labels = [*service, *deployment, ("replica", &address)];
                    family.encode_family(&labels)?.encode_gauge(&number(value))?;
                }
            }
        }
    }
    Ok(())
}

fn each_deployment(rows: &[Row<'_>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Replicas there are: ready, in use although they fail (failing), or out of use";
    let mut family = gauge(encoder, "replicas", help)?;
    for Row { labels: [service, deployment], views, .. } in rows {
        let out = views.iter().filter(|view| view.out.is_some()).count();
        let failing = views.iter().filter(|view| view.is_failing()).count();
        for (state, n) in [("ready", views.len() - out - failing), ("failing", failing), ("out", out)] {
            family.encode_family(&[*service, *deployment, ("state", state)])?.encode_gauge(&number(n))?;
        }
    }
    let mut family = counter(encoder, "replica_taken_out", "How often a replica was taken out of use, by reason")?;
    for Row { labels: [service, deployment], deployment: of, .. } in rows {
        for (reason, n) in Failure::KINDS.iter().zip(of.replicas.taken_out()) {
            count(&mut family, &[*service, *deployment, ("reason", reason)], n)?;
        }
    }
    let mut family = gauge(encoder, "queue_length", "Requests that wait for a replica with room")?;
    for row in rows {
        let length = row.deployment.replicas.lane().length();
        family.encode_family(&row.labels)?.encode_gauge(&number(length))?;
    }
    let help = "Requests with replicas or waiting for one, by those that the replicas may run at once";
    let mut family = gauge(encoder, "utilization_ratio", help)?;
    for row in rows {
        if let Some(ratio) = utilization(&row.views, row.deployment.replicas.lane().length()) {
            family.encode_family(&row.labels)?.encode_gauge(&ratio)?;
        }
    }
    Ok(())
}

type Value = fn(&View) -> Option<usize>;

fn permits(view: &View) -> Option<usize> {
    Some(view.replica.limit()).filter(|limit| *limit != ANY)
}

fn number(n: usize) -> i64 {
    as_gauge(u64::try_from(n).unwrap_or(u64::MAX))
}
