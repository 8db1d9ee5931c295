//! Which front end gives a replica how many requests at once: pure arithmetic, the same in every front end.
//!
//! A queue wants many slots: a few slots split over front ends would make a request wait here while a slot is idle there.
//! So a deployment is one front end's as long as it has few slots, and is split into parts only where each of them is a
//! queue large enough of its own. Who gets it is decided by rendezvous hashing (Thaler and Ravishankar, 1998): of each
//! front end and service a number is made, and the highest win. When one front end comes or goes, nothing moves but what
//! it gets or had.

use std::net::SocketAddr;

use aws_lc_rs::digest::{Context, SHA256};

use crate::config::ReplicaAddress;

/// Slots that a front end has of a deployment at least before it is split. Where each is busy for nine tenths of the time, a
/// request waits for a seventh of a service time on average in front of 32 slots, and for two of them in front of four
/// (Erlang C); 64 would save it a tenth.
pub const LEAST_PART: usize = 32;

/// Into how many parts a deployment of so many slots goes among so many front ends, at least one.
pub fn parts(slots: usize, members: usize) -> usize {
    (slots / LEAST_PART).clamp(1, members.max(1))
}

/// The front ends that have a part of a deployment of `service`: the first `parts` of `members` in the order of their
/// numbers. Deployments of one service share their first one, and so do their queue and whatever counts by service.
pub fn owners(service: &str, members: impl IntoIterator<Item = SocketAddr>, parts: usize) -> Vec<SocketAddr> {
    let mut ranked: Vec<_> =
        members.into_iter().map(|member| (number(&[service, &member.to_string()]), member)).collect();
    ranked.sort_unstable_by(|one, other| other.cmp(one));
    ranked.truncate(parts);
    ranked.into_iter().map(|(_, member)| member).collect()
}

/// How many requests `own` gives to `replica` at once, of the `limit` that all of `owners` together may. Each gets as many
/// whole ones as all can have, and of the rest one more goes to those whose numbers are highest for this replica; so
/// what a replica's slots are does not hang on what other replicas there are.
pub fn slots(owners: &[SocketAddr], own: SocketAddr, replica: &ReplicaAddress, limit: usize) -> usize {
    if !owners.contains(&own) {
        return 0;
    }
    if owners.len() == 1 {
        return limit;
    }
    let (each, rest) = (limit / owners.len(), limit % owners.len());
    let replica = replica.to_string();
    let number = |owner: &SocketAddr| (number(&[&replica, &owner.to_string()]), *owner);
    let own = number(&own);
    let before = owners.iter().filter(|owner| number(owner) > own).count();
    each + usize::from(before < rest)
}

/// A number made of texts, the same for the same texts on every machine and in every version.
pub fn number(texts: &[&str]) -> u64 {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    context.finish().as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn member(n: u8) -> SocketAddr {
        (Ipv4Addr::new(10, 0, 0, n), 8444).into()
    }

    fn replicas(count: usize) -> Vec<ReplicaAddress> {
        (0..count).map(|n| format!("http://10.1.{}.{}:5001", n / 250, n % 250).parse().unwrap()).collect()
    }

    fn all_slots(
        owners: &[SocketAddr],
        replicas: &[ReplicaAddress],
        limit: usize,
    ) -> HashMap<(usize, SocketAddr), usize> {
        let each = replicas.iter().enumerate().flat_map(|(n, replica)| {
            owners.iter().map(move |owner| ((n, *owner), slots(owners, *owner, replica, limit)))
        });
        each.collect()
    }

    #[test]
    fn a_few_slots_are_one_front_ends_and_many_are_split() {
        assert_eq!([0, 4, 63, 64, 95, 96, 1000].map(|slots| parts(slots, 3)), [1, 1, 1, 2, 2, 3, 3]);
        assert_eq!(parts(1000, 0), 1);
    }

    #[test]
    fn services_are_spread_evenly() {
        let members: Vec<_> = (1..=3).map(member).collect();
        let mut homes = HashMap::new();
        for n in 0..3_000 {
            let home = owners(&format!("service-{n}"), members.iter().copied(), 1)[0];
            *homes.entry(home).or_insert(0) += 1;
        }
        assert!(homes.values().all(|count| (900..1_100).contains(count)), "{homes:?}");
    }

    #[test]
    fn the_parts_of_a_deployment_are_about_alike() {
        let owners = owners("service", (1..=3).map(member), 3);
        for (count, limit) in [(300, 1), (100, 3), (90, 4), (10, 32)] {
            let replicas = replicas(count);
            let part = |owner: &SocketAddr| replicas.iter().map(|replica| slots(&owners, *owner, replica, limit)).sum();
            let parts: Vec<usize> = owners.iter().map(part).collect();
            let fair = count * limit / 3;
            assert!(parts.iter().all(|part| part.abs_diff(fair) <= fair / 4), "{count} of {limit}: {parts:?}");
        }
    }

    proptest! {
        #[test]
        fn every_slot_has_one_owner_and_the_order_of_members_is_nothing(
            members in prop::collection::btree_set(1..60_u8, 1..8),
            (count, limit) in (0..40_usize, 1..9_usize),
            seed: u64,
        ) {
            let members: Vec<_> = members.into_iter().map(member).collect();
            let mut shuffled = members.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            let parts = parts(count * limit, members.len());
            let owners = owners("service", members, parts);
            prop_assert_eq!(&owners, &super::owners("service", shuffled, parts));
            prop_assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), parts);
            for replica in replicas(count) {
                let given = owners.iter().map(|owner| slots(&owners, *owner, &replica, limit));
                prop_assert_eq!(given.clone().sum::<usize>(), limit);
                prop_assert!(given.clone().max().unwrap() - given.min().unwrap() <= 1);
                prop_assert_eq!(slots(&owners, member(99), &replica, limit), 0);
            }
        }

        #[test]
        fn who_goes_leaves_all_others_where_they_are(
            members in prop::collection::btree_set(1..60_u8, 2..8),
            gone in any::<prop::sample::Index>(),
            service in "[a-z]{3,8}",
        ) {
            let members: Vec<_> = members.into_iter().map(member).collect();
            let gone = members[gone.index(members.len())];
            let left = members.iter().copied().filter(|member| *member != gone);
            let before = owners(&service, members.iter().copied(), 1)[0];
            let after = owners(&service, left, 1)[0];
            prop_assert!(before == after || before == gone);
        }

        #[test]
        fn of_a_split_deployment_only_what_the_one_had_moves(
            members in prop::collection::btree_set(1..60_u8, 3..8),
            gone in any::<prop::sample::Index>(),
        ) {
            let members: Vec<_> = members.into_iter().map(member).collect();
            let gone = members[gone.index(members.len())];
            let left: Vec<_> = members.iter().copied().filter(|member| *member != gone).collect();
            let replicas = replicas(40);
            let before = all_slots(&owners("service", members.clone(), members.len()), &replicas, 1);
            let after = all_slots(&owners("service", left.clone(), left.len()), &replicas, 1);
            for (n, _) in replicas.iter().enumerate() {
                if before[&(n, gone)] == 0 {
                    prop_assert!(left.iter().all(|owner| before[&(n, *owner)] == after[&(n, *owner)]));
                }
            }
        }

        #[test]
        fn who_comes_takes_a_fair_part(count in 2..8_u8) {
            let moved = (0..500).filter(|n| {
                let service = format!("service-{n}");
                owners(&service, (1..=count).map(member), 1) != owners(&service, (1..=count + 1).map(member), 1)
            });
            let (moved, fair) = (moved.count(), 500 / usize::from(count + 1));
            prop_assert!(moved.abs_diff(fair) <= fair / 2 + 10, "{moved} of 500 with {count} before");
        }
    }
}
