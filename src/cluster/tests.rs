//! Front ends that come, go, are killed, talk and take permits in any order: no replica ever has more requests than it may,
//! and when all have talked every slot is somebody's.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::Cluster;
use super::exchange::Refused;
use super::members::{ALONE_AFTER, Members};
use super::plan::{Deployment, Sharer};
use super::secret::Secrets;
use crate::config::ReplicaAddress;
use crate::scheduling::{Queue, ReplicaPermit, Replicas, Settings};

/// Services with their replicas and the requests each of those may run at once; the last is large enough to be split.
const SERVICES: [(&str, u16, usize); 3] = [("iris", 4, 1), ("churn", 1, 3), ("large", 30, 4)];

const FRONT_ENDS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Start(usize),
    /// It gives up what it has, and goes on for a while.
    Leave(usize),
    Kill(usize),
    /// One asks another one.
    Ask(usize, usize),
    /// One asks all others.
    AskAll(usize),
    Share(usize),
    Settle(usize),
    /// Takes a permit of a service, if one is free.
    Take(usize, usize),
    Give(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let one = 0..FRONT_ENDS;
    prop_oneof![
        2 => one.clone().prop_map(Step::Start),
        1 => one.clone().prop_map(Step::Leave),
        1 => one.clone().prop_map(Step::Kill),
        8 => (one.clone(), one.clone()).prop_map(|(from, to)| Step::Ask(from, to)),
        16 => one.clone().prop_map(Step::AskAll),
        12 => one.clone().prop_map(Step::Share),
        8 => one.clone().prop_map(Step::Settle),
        16 => (one.clone(), 0..SERVICES.len()).prop_map(|(at, service)| Step::Take(at, service)),
        4 => (one, 0..64_usize).prop_map(|(at, which)| Step::Give(at, which)),
    ]
}

struct Front {
    cluster: Arc<Cluster>,
    sharer: Sharer,
    services: Vec<Arc<Replicas>>,
    held: Vec<ReplicaPermit>,
}

fn address(n: usize) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9000 + u16::try_from(n).unwrap()).into()
}

fn secrets() -> Secrets {
    Secrets::parse(b"a-secret-of-front-ends-0123456789").unwrap()
}

impl Front {
    fn start(n: usize) -> Self {
        let cluster = Cluster::new(address(n), secrets());
        cluster.set_named((0..FRONT_ENDS).map(address).collect::<BTreeSet<_>>());
        let services = SERVICES.iter().map(|(name, replicas, limit)| {
            let settings = Settings { limit: *limit, look_interval: None };
            let sharing = Some(Arc::clone(&cluster.sharing));
            let service = Replicas::new(name, "default", Arc::new(Queue::new(1)), settings, sharing);
            let ports = 1..=*replicas;
            let addresses: Vec<ReplicaAddress> =
                ports.map(|port| format!("http://{name}:{port}").parse().unwrap()).collect();
            service.set(&addresses);
            Arc::new(service)
        });
        let services = services.collect();
        Self { sharer: Sharer::new(Arc::clone(&cluster)), cluster, services, held: Vec::new() }
    }

    fn share(&mut self, now: Instant) {
        let deployments = self.services.iter().zip(SERVICES);
        let deployments: Vec<_> =
            deployments.map(|(replicas, (service, ..))| Deployment { service, name: "default", replicas }).collect();
        self.sharer.share(&deployments, now);
    }
}

/// All that runs, and the time, which stands still: nobody gives up waiting for others.
struct World {
    fronts: Vec<Option<Front>>,
    now: Instant,
    /// What clocks say, which go on also where the time stands still.
    clock: u64,
}

impl World {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Start(n) => {
                if self.fronts[n].is_none() {
                    self.fronts[n] = Some(Front::start(n));
                }
            }
            Step::Kill(n) => self.fronts[n] = None,
            Step::Ask(from, to) => self.ask(from, to),
            Step::AskAll(from) => (0..FRONT_ENDS).for_each(|to| self.ask(from, to)),
            Step::Leave(n) => self.with(n, |front, _| front.cluster.leave()),
            Step::Share(n) => self.with(n, Front::share),
            Step::Settle(n) => self.with(n, |front, now| front.sharer.settle(now)),
            Step::Take(n, service) => self.with(n, |front, _| {
                let permit = front.services[service].try_take(tokio::time::Instant::now());
                front.held.extend(permit);
            }),
            Step::Give(n, which) => self.with(n, |front, _| {
                if !front.held.is_empty() {
                    let which = which % front.held.len();
                    front.held.swap_remove(which);
                }
            }),
        }
    }

    fn with(&mut self, n: usize, what: impl FnOnce(&mut Front, Instant)) {
        if let Some(front) = &mut self.fronts[n] {
            what(front, self.now);
        }
    }

    fn ask(&mut self, from: usize, to: usize) {
        let (Some(asking), asked) = (&self.fronts[from], &self.fronts[to]) else { return };
        if from == to {
            return;
        }
        let Some(asked) = asked else {
            asking.cluster.members().note_failure(address(to), true);
            return;
        };
        self.clock += 1;
        let question = asking.cluster.members().state_for(address(to), self.clock);
        assert!(asked.cluster.hear(question, false));
        let answer = asked.cluster.members().state_for(address(from), self.clock);
        asking.cluster.hear(answer, true);
    }

    /// Of each replica: the requests with it and those that may yet come, of all front ends together; what all may give it;
    /// and what it may have.
    fn sums(&self) -> Vec<(usize, usize, usize)> {
        let mut sums = Vec::new();
        for (n, (_, _, limit)) in SERVICES.iter().enumerate() {
            let of_front = |front: &Front| -> Vec<_> {
                let (replicas, _) = front.services[n].shared().unwrap();
                replicas.iter().map(|replica| (replica.in_flight(), replica.limit())).collect()
            };
            let fronts: Vec<_> = self.fronts.iter().flatten().map(of_front).collect();
            for replica in 0..fronts.first().map_or(0, Vec::len) {
                let claimed = fronts.iter().map(|front| front[replica].0.max(front[replica].1)).sum();
                let granted = fronts.iter().map(|front| front[replica].1).sum();
                sums.push((claimed, granted, *limit));
            }
        }
        sums
    }

    fn talk(&mut self) {
        for _ in 0..6 {
            for from in 0..FRONT_ENDS {
                for to in 0..FRONT_ENDS {
                    self.ask(from, to);
                }
            }
            for n in 0..FRONT_ENDS {
                self.with(n, Front::share);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_replica_ever_has_more_requests_than_it_may(steps in prop::collection::vec(step(), 1..400)) {
        let mut world = World { fronts: (0..FRONT_ENDS).map(|_| None).collect(), now: Instant::now(), clock: 0 };
        for step in steps {
            world.apply(step);
            for (claimed, _, limit) in world.sums() {
                prop_assert!(claimed <= limit, "{step:?}: {claimed} of {limit}");
            }
        }
        for front in world.fronts.iter_mut().flatten() {
            front.held.clear();
        }
        world.talk();
        if world.fronts.iter().any(Option::is_some) {
            for (claimed, granted, limit) in world.sums() {
                prop_assert_eq!((claimed, granted), (limit, limit), "every slot is somebody's");
            }
            let settled = world.fronts.iter().flatten().all(|front| front.cluster.is_settled());
            prop_assert!(settled, "all have agreed");
        }
    }
}

#[test]
fn one_that_nobody_answers_goes_on_alone_after_a_while() {
    let mut front = Front::start(0);
    let now = Instant::now();
    front.share(now);
    assert!(!front.cluster.is_ready(), "nobody was asked yet");
    front.share(now + ALONE_AFTER);
    assert!(front.cluster.is_ready() && front.cluster.is_settled());
}

#[test]
fn who_is_not_named_yet_does_not_take_itself_for_the_only_one() {
    let now = Instant::now();
    let mut new = Members::new(address(0), now);
    // What names them is late: with this one, others may be missing.
    new.set_named(BTreeSet::new());
    assert!(!new.is_ready(now));
    new.set_named(BTreeSet::from([address(0)]));
    assert!(new.is_ready(now), "it is the only one");
    new.set_named(BTreeSet::new());
    assert!(new.is_ready(now + ALONE_AFTER), "it will not be named, it seems");
}

#[test]
fn two_that_have_met_stay_together_though_nobody_names_them_any_more() {
    let mut now = Instant::now();
    let [mut here, mut there] = [0, 1].map(|n| Members::new(address(n), now));
    here.set_named(BTreeSet::from([address(0), address(1)]));
    for round in 0..100 {
        now += Duration::from_millis(500);
        if round == 10 {
            here.set_named(BTreeSet::new());
        }
        assert_eq!(here.candidates(), [address(1)]);
        there.hear(here.state_for(address(1), round), false, now);
        here.hear(there.state_for(address(0), round), true, now);
        assert_eq!(there.candidates(), [address(0)]);
        here.hear(there.state_for(address(0), round), false, now);
        there.hear(here.state_for(address(1), round), true, now);
    }
    // Silence parts them.
    here.note_failure(address(1), true);
    here.hear(there.state_for(address(0), 200), false, now);
    assert_eq!(here.candidates(), [address(1)]);
    now += Duration::from_secs(6);
    let mut third = Members::new(address(2), now);
    here.hear(third.state_for(address(0), 0), false, now);
    assert_eq!(here.candidates(), [address(2)]);
}

#[test]
fn one_that_one_front_end_alone_cannot_reach_stays_a_member() {
    let mut world =
        World { fronts: (0..3).map(|n| Some(Front::start(n))).chain([None]).collect(), now: Instant::now(), clock: 0 };
    world.talk();
    let members = |world: &World, n: usize| world.fronts[n].as_ref().unwrap().cluster.plan().members.len();
    assert_eq!([0, 1, 2].map(|n| members(&world, n)), [3, 3, 3]);
    world.fronts[0].as_ref().unwrap().cluster.members().note_failure(address(2), true);
    world.with(0, Front::share);
    assert_eq!(members(&world, 0), 3);
    world.fronts[1].as_ref().unwrap().cluster.members().note_failure(address(2), true);
    world.ask(0, 1);
    world.with(0, Front::share);
    assert_eq!(members(&world, 0), 2, "nobody reaches it");
}

#[test]
fn slots_are_taken_though_others_disagree_for_long() {
    let mut world = World {
        fronts: (0..2).map(|n| Some(Front::start(n))).chain([None, None]).collect(),
        now: Instant::now(),
        clock: 0,
    };
    // The first knows of the second, which has not shared out by both yet, and does not.
    for (from, to) in [(0, 1), (0, 2), (0, 3)] {
        world.ask(from, to);
    }
    world.with(0, Front::share);
    let granted = |world: &World| world.sums().iter().map(|(_, granted, _)| granted).sum::<usize>();
    assert_eq!(granted(&world), 0);
    world.now += Duration::from_secs(6);
    world.with(0, |front, now| front.sharer.settle(now));
    assert!(granted(&world) > 0);
}

#[test]
fn a_question_that_is_not_signed_is_not_answered() {
    let front = Front::start(0);
    assert_eq!(front.cluster.answer(None, b"{}").map(drop), Err(Refused::Signature));
    let signature = secrets().sign(b"something else").unwrap();
    assert_eq!(front.cluster.answer(Some(&signature), b"{}").map(drop), Err(Refused::Signature));
    let signature = secrets().sign(&super::secret::question(address(0), b"{}")).unwrap();
    assert_eq!(front.cluster.answer(Some(&signature), b"{}").map(drop), Err(Refused::Malformed));
    let body = br#"{"from":"127.0.0.1:9001","at":1}"#;
    let signature = secrets().sign(&super::secret::question(address(0), body)).unwrap();
    assert!(front.cluster.answer(Some(&signature), body).is_ok());
}

#[test]
fn a_slot_is_not_taken_while_it_is_busy_where_it_was() {
    let mut world = World { fronts: (0..FRONT_ENDS).map(|_| None).collect(), now: Instant::now(), clock: 0 };
    let home = super::shares::owners("iris", (0..FRONT_ENDS).map(address), 1)[0];
    let home = (0..FRONT_ENDS).find(|n| address(*n) == home).unwrap();
    let first = (home + 1) % FRONT_ENDS;
    let sums =
        |world: &World| world.sums()[..4].iter().map(|(claimed, granted, _)| (*claimed, *granted)).collect::<Vec<_>>();
    for step in [Step::Start(first), Step::AskAll(first), Step::Share(first)] {
        world.apply(step);
    }
    for _ in 0..4 {
        world.apply(Step::Take(first, 0));
    }
    world.apply(Step::Start(home));
    for _ in 0..3 {
        for n in [home, first] {
            world.apply(Step::AskAll(n));
            world.apply(Step::Share(n));
        }
    }
    assert_eq!(sums(&world), [(1, 0); 4], "all are busy at the first one, and nobody may take them");
    world.apply(Step::Give(first, 0));
    world.apply(Step::AskAll(home));
    world.apply(Step::Settle(home));
    let mut after = sums(&world);
    after.sort_unstable();
    assert_eq!(after, [(1, 0), (1, 0), (1, 0), (1, 1)], "the one that is free is taken");
}

#[test]
fn a_slot_is_taken_only_by_what_the_others_have_now() {
    for (first, second) in (0..FRONT_ENDS).flat_map(|one| (0..FRONT_ENDS).map(move |other| (one, other))) {
        if first == second {
            continue;
        }
        let mut world = World { fronts: (0..FRONT_ENDS).map(|_| None).collect(), now: Instant::now(), clock: 0 };
        // The second shares out while the first has said of no deployment yet that it has it, and takes it for its own.
        for step in [
            Step::Start(first),
            Step::AskAll(first),
            Step::Start(second),
            Step::AskAll(second),
            Step::Share(second),
            Step::Share(first),
            Step::Ask(first, second),
            Step::Share(first),
            Step::AskAll(second),
            Step::Settle(second),
        ] {
            world.apply(step);
            assert!(world.sums().iter().all(|(claimed, _, limit)| claimed <= limit), "{first} {second} {step:?}");
        }
    }
}
