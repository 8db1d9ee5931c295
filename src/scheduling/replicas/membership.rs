//! Which replicas there are, under what name and with what settings.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Member, Members, Replicas, Settings};
use crate::config::ReplicaAddress;
use crate::scheduling::clock;
use crate::scheduling::condition::Condition;
use crate::scheduling::permits::ANY;
use crate::scheduling::queue::Slot;
use crate::scheduling::replica::Replica;
use crate::upstream::Endpoint;

impl Replicas {
    /// Makes `addresses` the replicas there are. One that stays keeps its permits, its pace and its condition; one that goes
    /// finishes what it has in flight.
    pub fn set(&self, addresses: &[ReplicaAddress]) {
        let now = Instant::now();
        let mut members = self.members();
        if members.are(addresses) {
            return;
        }
        let is_first = members.present.is_empty();
        let before = std::mem::take(&mut members.present);
        let (mut stay, gone): (Vec<_>, Vec<_>) =
            before.into_iter().partition(|member| addresses.contains(member.replica.endpoint().address()));
        let mut departed = std::mem::take(&mut members.departed);
        // One that nothing else holds can be forgotten. The permits in use do not tell: a request that read the set before
        // this change, or the last one, may take another.
        departed.retain(|replica| Arc::strong_count(replica) > 1);
        let (interval, limit) = (members.settings.look_interval, self.first_limit(members.settings.limit));
        for address in addresses {
            let is = |replica: &Replica| replica.endpoint().address() == address;
            if stay.iter().any(|member| is(&member.replica)) {
                continue;
            }
            let back = departed.iter().position(|replica| is(replica)).map(|index| departed.swap_remove(index));
            let Some(replica) = back.or_else(|| self.new_replica(address, limit)) else { continue };
            if !is_first {
                replica.put_on_trial(clock::millis(now));
            }
            replica.permits().set_limit(limit);
            replica.permits().set_open(true);
            stay.push(Member { replica, condition: Condition::new(now, interval) });
        }
        departed.extend(gone.into_iter().map(|member| {
            member.replica.permits().set_open(false);
            member.replica
        }));
        members.present = stay;
        members.departed = departed;
        if members.ready() == 0 {
            // Those that are left are out, and the last is never out.
            for member in &mut members.present {
                member.bring_back(now, interval);
            }
        }
        self.publish(members);
        self.looks_changed.notify_one();
        self.share_out();
    }

    fn new_replica(&self, address: &ReplicaAddress, limit: usize) -> Option<Arc<Replica>> {
        let endpoint = Endpoint::new(address.clone())?;
        Some(Arc::new(Replica::new(endpoint, limit, Arc::clone(&self.lane))))
    }

    pub fn configure(&self, settings: Settings) {
        let mut members = self.members();
        if members.settings == settings {
            return;
        }
        let was_any = members.settings.limit == ANY;
        members.settings = settings;
        let Members { present, departed, .. } = &*members;
        for replica in present.iter().map(|member| &member.replica).chain(departed) {
            // What is shared out follows; until then it stays.
            if self.sharing.is_none() || was_any || settings.limit == ANY {
                replica.permits().set_limit(self.first_limit(settings.limit));
            }
        }
        let now = Instant::now();
        for member in members.present.iter_mut().filter(|member| !member.condition.is_out()) {
            member.condition.look_later(now, settings.look_interval);
        }
        self.publish(members);
        self.looks_changed.notify_one();
        self.share_out();
    }

    /// Sends away who waits, because the deployment is gone; opened again when it is back.
    pub fn set_closed(&self, closed: bool) {
        self.lane.set_closed(closed);
    }

    /// Goes on as the deployment `name`. Who waits is sent to look for it there.
    pub fn rename(&self, name: &str) {
        let mut members = self.members();
        if *members.name != *name {
            members.name = name.into();
            drop(members);
            self.lane.send_away();
        }
    }

    /// Whether any of `addresses` is a replica of this deployment.
    pub fn has_any(&self, addresses: &HashSet<&ReplicaAddress>) -> bool {
        self.members().present.iter().any(|member| addresses.contains(member.replica.endpoint().address()))
    }
}
