//! How things stand with Kubernetes: each watch of its API, and each target that something is wrong with. None of it is
//! there where nothing is asked of Kubernetes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::DescriptorEncoder;

use super::{Snapshot, as_gauge, count, counter, gauge};
use crate::discovery::kubernetes::ApiError;
use crate::discovery::kubernetes::standing::WatchStanding;

impl Snapshot {
    pub(super) fn kubernetes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // While one takes the place of another there may be two of the same; the newer one counts.
        let watches: BTreeMap<_, Arc<WatchStanding>> = self
            .kubernetes
            .watches()
            .into_iter()
            .map(|watch| ((watch.watch, watch.namespace.clone()), watch))
            .collect();
        let rows = || watches.values().map(|watch| ([("watch", watch.watch), ("namespace", &*watch.namespace)], watch));
        for (name, help, value) in [
            (
                "kubernetes_watch_up",
                "1 if the API of Kubernetes answered when it was last asked",
                (|watch| Some(u64::from(watch.is_up()))) as fn(&WatchStanding) -> Option<u64>,
            ),
            (
                "kubernetes_watch_last_sync_timestamp_seconds",
                "When what is known of Kubernetes was last known to be so",
                WatchStanding::heard_at,
            ),
            ("kubernetes_watch_objects", "Objects that are known of", |watch| u64::try_from(watch.objects()).ok()),
        ] {
            let mut family = gauge(encoder, name, help)?;
            for (labels, watch) in rows() {
                if let Some(value) = value(watch) {
                    family.encode_family(&labels)?.encode_gauge(&as_gauge(value))?;
                }
            }
        }
        let mut family = counter(encoder, "kubernetes_watch_lists", "How often all objects were asked for")?;
        for (labels, watch) in rows() {
            count(&mut family, &labels, watch.lists())?;
        }
        let mut family = counter(encoder, "kubernetes_watch_errors", "What went wrong with a watch, by reason")?;
        for ([watch_label, namespace], watch) in rows() {
            for (reason, n) in ApiError::REASONS.iter().zip(watch.errors()) {
                count(&mut family, &[watch_label, namespace, ("reason", reason)], n)?;
            }
        }
        let help = "1 for each Service that is named and not there, or that has no such port";
        let mut family = gauge(encoder, "kubernetes_target_trouble", help)?;
        for (target, trouble) in self.kubernetes.troubles() {
            family.encode_family(&[("target", &*target), ("reason", trouble.reason())])?.encode_gauge(&1i64)?;
        }
        Ok(())
    }
}
