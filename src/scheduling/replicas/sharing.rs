//! What shares replicas out among several processes.

use std::sync::Arc;

use tokio::time::Instant;

use super::Replicas;
use crate::scheduling::permits::ANY;
use crate::scheduling::replica::Replica;

impl Replicas {
    /// The replicas there are and the requests each may run at once, from wherever they come; `None` if there is nothing to
    /// share out. The permits of each are for the caller to set, as the part that is this process's.
    pub fn shared(&self) -> Option<(Vec<Arc<Replica>>, usize)> {
        let members = self.members();
        let limit = members.settings.limit;
        let all = || members.present.iter().map(|member| Arc::clone(&member.replica)).collect();
        (self.sharing.is_some() && limit != ANY).then(|| (all(), limit))
    }

    /// Notes that there are permits now of `replicas` that had none here: they are looked at, and those who wait are served.
    pub fn note_gained(&self, replicas: &[Arc<Replica>]) {
        let now = Instant::now();
        let mut members = self.members();
        if members.settings.look_interval.is_some() {
            for replica in replicas {
                if let Some(member) = members.find(replica) {
                    member.condition.look_at = Some(now);
                }
            }
            self.looks_changed.notify_one();
        }
        drop(members);
        self.lane.serve(|| self.take_any(now));
    }

    /// What a replica may be given before anything of it was shared out.
    pub(super) fn first_limit(&self, limit: usize) -> usize {
        if self.sharing.is_some() && limit != ANY { 0 } else { limit }
    }

    pub(super) fn share_out(&self) {
        if let Some(sharing) = &self.sharing {
            sharing.notify_one();
        }
    }
}
