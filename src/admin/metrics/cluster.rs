//! The front ends that share the replicas: who they are, what is this one's, and what they hand over to each other. There
//! are none of these where it is the only one.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::DescriptorEncoder;

use super::{Snapshot, as_gauge, count, counter, gauge};
use crate::admin::cluster::slots;

impl Snapshot {
    pub(super) fn cluster(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let plan = cluster.plan();
        let members = as_gauge(u64::try_from(plan.members.len()).unwrap_or(u64::MAX));
        gauge(encoder, "cluster_members", "Front ends that have a part in the cluster")?.encode_gauge(&members)?;
        gauge(encoder, "cluster_settled", "1 if every slot is with the front end that it is to be with")?
            .encode_gauge(&i64::from(cluster.is_settled()))?;
        let mut family = gauge(encoder, "cluster_slots", "Requests that this front end may give a deployment at once")?;
        for service in self.catalog.services() {
            for deployment in service.deployments() {
                if let Some(slots) = slots(deployment) {
                    let labels = [("service", &*service.name), ("deployment", &*deployment.name)];
                    family.encode_family(&labels)?.encode_gauge(&as_gauge(slots as u64))?;
                }
            }
        }
        let mut family = counter(encoder, "cluster_handed_over", "Requests handed over to another front end")?;
        for member in plan.others() {
            count(&mut family, &[("member", &*member.address.to_string())], member.handed_over.load(Relaxed))?;
        }
        let mut family = counter(encoder, "cluster_received", "Requests that other front ends handed over")?;
        for (service, deployment, metrics) in self.metrics.deployments() {
            let received = metrics.handed().iter().map(|part| part.started.get()).sum();
            count(&mut family, &[("service", &*service), ("deployment", &*deployment)], received)?;
        }
        let counts = &cluster.counts;
        let mut family =
            counter(encoder, "cluster_refused", "Requests and messages of somebody who is no member, by reason")?;
        for (reason, n) in [("wrong_secret", &counts.wrong_secret), ("not_a_member", &counts.not_a_member)] {
            count(&mut family, &[("reason", reason)], n.load(Relaxed))?;
        }
        Ok(())
    }
}
