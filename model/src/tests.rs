//! The contract, under every order of steps: never more at once than there are permits, nobody left waiting while one is
//! free, and nothing lost of who goes.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::future::block_on;
use loom::thread;

use super::loans::Loans;
use super::permits::Permits;
use super::queue::{Lane, Permit, Queue, Rank, Slot, Turned, Waiting};

/// Something that runs requests, one at a time if the model checker is to tell of two at once.
struct Worker {
    permits: Permits,
    lane: Arc<Lane<Worker>>,
    /// Touched by who has a permit: loom tells if two do, or if one does not see that the other has ended.
    at_work: UnsafeCell<()>,
}

impl Slot for Worker {
    fn permits(&self) -> &Permits {
        &self.permits
    }

    fn lane(&self) -> &Lane<Self> {
        &self.lane
    }
}

impl Worker {
    /// Of a lane of its own, in which `max` may wait.
    fn new(limit: usize, max: usize) -> Arc<Self> {
        Self::in_lane(limit, &Arc::new(Lane::new(Arc::new(Queue::new(max)))))
    }

    fn in_lane(limit: usize, lane: &Arc<Lane<Self>>) -> Arc<Self> {
        Arc::new(Self { permits: Permits::new(limit), lane: Arc::clone(lane), at_work: UnsafeCell::new(()) })
    }

    fn take(self: &Arc<Self>) -> Option<Permit<Self>> {
        if self.permits.is_open() { Permit::take(self) } else { None }
    }

    fn join(self: &Arc<Self>, rank: Rank) -> Result<Waiting<Self>, Turned> {
        self.lane.join(rank, || self.take())
    }

    /// Waits for a permit as long as it takes.
    fn wait(self: &Arc<Self>) -> Permit<Self> {
        self.join(Rank::Normal).and_then(block_on).expect("a permit")
    }

    /// Nobody has or waits for anything.
    fn assert_at_rest(&self) {
        assert_eq!((self.permits.used(), self.lane.length(), self.lane.queue().length()), (0, 0, 0));
    }
}

fn work(permit: &Permit<Worker>) {
    permit.slot().at_work.with_mut(|_| ());
}

/// For [`check`]: every order there is.
const NO_BOUND: Option<usize> = None;

/// Runs `scenario` in every order in which threads are interrupted, where they could have gone on, so many times in all at
/// most.
fn check(interruptions: Option<usize>, scenario: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = interruptions;
    model.check(scenario);
}

#[test]
fn two_that_take_are_never_there_at_once() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 0);
        let attempt = |worker: &Arc<Worker>| {
            let permit = Permit::take(worker);
            permit.as_ref().inspect(|permit| work(permit)).is_some()
        };
        let other = thread::spawn({
            let worker = Arc::clone(&worker);
            move || attempt(&worker)
        });
        let first = attempt(&worker);
        assert!(first | other.join().unwrap(), "one of them must have had it");
        worker.assert_at_rest();
    });
}

#[test]
fn who_joins_while_a_permit_is_given_back_gets_it() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 1);
        let permit = Permit::take(&worker).unwrap();
        let other = thread::spawn(move || {
            work(&permit);
            drop(permit);
        });
        work(&worker.wait());
        other.join().unwrap();
        worker.assert_at_rest();
    });
}

#[test]
fn who_takes_without_waiting_leaves_it_to_who_waits() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 1);
        let other = thread::spawn({
            let worker = Arc::clone(&worker);
            move || drop(Permit::take(&worker).inspect(work))
        });
        work(&worker.wait());
        other.join().unwrap();
        worker.assert_at_rest();
    });
}

#[test]
fn who_goes_while_a_permit_is_handed_over_loses_none() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 1);
        let permit = Permit::take(&worker).unwrap();
        let waiting = worker.join(Rank::Normal).unwrap();
        let other = thread::spawn(move || drop(permit));
        drop(waiting);
        other.join().unwrap();
        worker.assert_at_rest();
    });
}

#[test]
fn what_was_meant_for_who_goes_is_the_next_ones() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 2);
        let permit = Permit::take(&worker).unwrap();
        let first = worker.join(Rank::Normal).unwrap();
        let second = worker.join(Rank::Normal).unwrap();
        let releases = thread::spawn(move || drop(permit));
        let goes = thread::spawn(move || drop(first));
        work(&block_on(second).unwrap());
        releases.join().unwrap();
        goes.join().unwrap();
        worker.assert_at_rest();
    });
}

#[test]
fn who_joins_while_the_only_other_goes_is_served() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 2);
        let permit = Permit::take(&worker).unwrap();
        let first = worker.join(Rank::Normal).unwrap();
        let other = thread::spawn(move || {
            drop(permit);
            drop(first);
        });
        work(&worker.wait());
        other.join().unwrap();
        worker.assert_at_rest();
    });
}

#[test]
fn two_who_wait_are_served_in_turn() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 2);
        let permit = Permit::take(&worker).unwrap();
        let first = worker.join(Rank::Normal).unwrap();
        let second = worker.join(Rank::Normal).unwrap();
        let releases = thread::spawn(move || drop(permit));
        let later = thread::spawn({
            let worker = Arc::clone(&worker);
            move || {
                let permit = block_on(second).unwrap();
                work(&permit);
                // The first has had its turn: it is not in the line any more, whoever runs first from here on.
                assert_eq!(worker.lane.length(), 0);
            }
        });
        work(&block_on(first).unwrap());
        releases.join().unwrap();
        later.join().unwrap();
        worker.assert_at_rest();
    });
}

#[test]
fn who_has_a_higher_rank_goes_first() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 2);
        let permit = Permit::take(&worker).unwrap();
        let low = worker.join(Rank::Low).unwrap();
        let other = thread::spawn({
            let worker = Arc::clone(&worker);
            move || {
                let high = worker.join(Rank::High).unwrap();
                drop(permit);
                let permit = block_on(high).unwrap();
                assert_eq!(worker.lane.length(), 1, "the low one must wait still");
                drop(permit);
            }
        });
        work(&block_on(low).unwrap());
        other.join().unwrap();
        worker.assert_at_rest();
    });
}

#[test]
fn who_waits_gets_a_slot_that_is_opened_while_its_permit_is_given_back() {
    check(Some(4), || {
        let worker = Worker::new(1, 1);
        let permit = Permit::take(&worker).unwrap();
        worker.permits.set_open(false);
        let releases = thread::spawn(move || {
            work(&permit);
            drop(permit);
        });
        let opens = thread::spawn({
            let worker = Arc::clone(&worker);
            move || {
                worker.permits.set_open(true);
                worker.lane.serve(|| worker.take());
            }
        });
        work(&worker.wait());
        releases.join().unwrap();
        opens.join().unwrap();
        worker.assert_at_rest();
    });
}

#[test]
fn who_waits_is_served_by_the_other_slot_if_one_is_closed() {
    check(Some(4), || {
        let lane = Arc::new(Lane::new(Arc::new(Queue::new(1))));
        let (closing, opening) = (Worker::in_lane(1, &lane), Worker::in_lane(1, &lane));
        let worker = Arc::clone(&opening);
        opening.permits.set_open(false);
        let permit = Permit::take(&closing).unwrap();
        let any = {
            let (closing, opening) = (Arc::clone(&closing), Arc::clone(&opening));
            move || closing.take().or_else(|| opening.take())
        };
        let releases = thread::spawn(move || drop(permit));
        let changes = thread::spawn({
            let (lane, any) = (Arc::clone(&lane), any.clone());
            move || {
                closing.permits.set_open(false);
                opening.permits.set_open(true);
                lane.serve(any);
            }
        });
        work(&lane.join(Rank::Normal, any).and_then(block_on).unwrap());
        releases.join().unwrap();
        changes.join().unwrap();
        worker.assert_at_rest();
    });
}

#[test]
fn who_joins_while_the_lane_closes_is_sent_elsewhere() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 1);
        let permit = Permit::take(&worker).unwrap();
        let closes = thread::spawn({
            let worker = Arc::clone(&worker);
            move || worker.lane.set_closed(true)
        });
        let turned = worker.join(Rank::Normal).and_then(block_on).err();
        assert_eq!(turned, Some(Turned::Elsewhere));
        closes.join().unwrap();
        drop(permit);
        worker.assert_at_rest();
    });
}

#[test]
fn who_waits_while_the_lane_closes_is_served_or_sent_elsewhere() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 1);
        let permit = Permit::take(&worker).unwrap();
        let waiting = worker.join(Rank::Normal).unwrap();
        let closes = thread::spawn({
            let worker = Arc::clone(&worker);
            move || worker.lane.set_closed(true)
        });
        let releases = thread::spawn(move || drop(permit));
        match block_on(waiting) {
            Ok(permit) => work(&permit),
            Err(turned) => assert_eq!(turned, Turned::Elsewhere),
        }
        closes.join().unwrap();
        releases.join().unwrap();
        worker.assert_at_rest();
    });
}

#[test]
fn who_joins_while_the_limit_is_raised_is_served() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 1);
        let permit = Permit::take(&worker).unwrap();
        let raises = thread::spawn({
            let worker = Arc::clone(&worker);
            move || {
                worker.permits.set_limit(2);
                worker.lane.serve(|| worker.take());
            }
        });
        drop(worker.wait());
        raises.join().unwrap();
        drop(permit);
        worker.assert_at_rest();
    });
}

#[test]
fn no_more_wait_than_may() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 1);
        let permit = Permit::take(&worker).unwrap();
        let join = |worker: &Arc<Worker>| {
            let waiting = worker.join(Rank::Normal);
            assert!(worker.lane.length() <= 1 && worker.lane.queue().length() <= 1);
            waiting
        };
        let other = thread::spawn({
            let worker = Arc::clone(&worker);
            move || join(&worker)
        });
        let (first, second) = (join(&worker), other.join().unwrap());
        match (first, second) {
            (Ok(waiting), Err(turned)) | (Err(turned), Ok(waiting)) => {
                assert_eq!(turned, Turned::Away);
                drop(permit);
                work(&block_on(waiting).unwrap());
            }
            both => panic!("one must wait and one be turned away: {:?}", [both.0.is_ok(), both.1.is_ok()]),
        }
        worker.assert_at_rest();
    });
}

#[test]
fn those_who_go_make_room_in_the_queue() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 1);
        let permit = Permit::take(&worker).unwrap();
        let come_and_go = |worker: &Arc<Worker>| drop(worker.join(Rank::Normal));
        let other = thread::spawn({
            let worker = Arc::clone(&worker);
            move || come_and_go(&worker)
        });
        come_and_go(&worker);
        other.join().unwrap();
        drop(permit);
        worker.assert_at_rest();
        drop(Permit::take(&worker).unwrap());
    });
}

/// What a request does, with `loans` in reach: joins, and asks for a permit that is lent.
fn join_and_recall(worker: &Arc<Worker>, loans: &Loans<Worker>) -> Result<Waiting<Worker>, Turned> {
    let recall = || loans.recall(|lent| lent.permits().is_open());
    match worker.join(Rank::Normal) {
        Ok(waiting) => {
            if !worker.lane.is_empty() {
                recall();
            }
            Ok(waiting)
        }
        Err(Turned::Away) if recall() => worker.join(Rank::Again),
        Err(turned) => Err(turned),
    }
}

#[test]
fn a_health_check_keeps_no_permit_from_who_joins() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 1);
        let loans = Arc::new(Loans::new());
        let permit = Permit::take(&worker).unwrap();
        let checks = thread::spawn({
            let loans = Arc::clone(&loans);
            // Its answer never comes: only a request ends it.
            move || block_on(loans.lend(permit))
        });
        let waiting = join_and_recall(&worker, &loans);
        drop(waiting.and_then(block_on).unwrap());
        checks.join().unwrap();
        worker.assert_at_rest();
    });
}

#[test]
fn who_may_not_wait_has_the_permit_of_a_health_check_all_the_same() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 0);
        let loans = Arc::new(Loans::new());
        let permit = Permit::take(&worker).unwrap();
        let lent = {
            let loans = Arc::clone(&loans);
            thread::spawn(move || {
                let loan = loans.lend(permit);
                block_on(loan);
            })
        };
        let mut waiting = join_and_recall(&worker, &loans);
        while waiting.is_err() {
            // The loan is not in the book yet.
            thread::yield_now();
            waiting = join_and_recall(&worker, &loans);
        }
        drop(waiting.and_then(block_on).unwrap());
        lent.join().unwrap();
        worker.assert_at_rest();
    });
}

#[test]
fn a_health_check_that_ends_gives_its_permit_to_who_waits() {
    check(NO_BOUND, || {
        let worker = Worker::new(1, 1);
        let loans = Arc::new(Loans::new());
        let checks = thread::spawn({
            let (worker, loans) = (Arc::clone(&worker), Arc::clone(&loans));
            move || drop(Permit::take(&worker).map(|permit| loans.lend(permit)))
        });
        let waiting = join_and_recall(&worker, &loans);
        drop(waiting.and_then(block_on).unwrap());
        checks.join().unwrap();
        worker.assert_at_rest();
    });
}

#[test]
fn a_health_check_of_a_slot_that_is_opened_keeps_no_permit_from_who_waits() {
    check(Some(4), || {
        let worker = Worker::new(1, 1);
        let loans = Arc::new(Loans::new());
        worker.permits.set_open(false);
        let waiting = join_and_recall(&worker, &loans).unwrap();
        let checks = thread::spawn({
            let (worker, loans) = (Arc::clone(&worker), Arc::clone(&loans));
            move || block_on(loans.lend(Permit::take(&worker).unwrap()))
        });
        let opens = thread::spawn({
            let (worker, loans) = (Arc::clone(&worker), Arc::clone(&loans));
            move || {
                // The check takes the permit of a slot that is closed.
                while worker.permits.used() == 0 {
                    thread::yield_now();
                }
                worker.permits.set_open(true);
                worker.lane.serve(|| worker.take());
                if !worker.lane.is_empty() {
                    loans.recall(|lent| lent.permits().is_open());
                }
            }
        });
        drop(block_on(waiting).unwrap());
        checks.join().unwrap();
        opens.join().unwrap();
        worker.assert_at_rest();
    });
}
