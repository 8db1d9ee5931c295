//! Permits and queue against a model of them that is too simple to be wrong, through random sequences of all that can happen.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use proptest::prelude::*;

use super::permits::Permits;
use super::queue::{Lane, Permit, Queue, Rank, Slot, Turned, Waiting};

const RANKS: [Rank; super::queue::RANKS] = [Rank::Again, Rank::High, Rank::Normal, Rank::Low];

/// What can happen. Numbers choose among those whom it can happen to, modulo how many there are.
#[derive(Clone, Copy, Debug)]
enum Step {
    Arrive(Rank),
    Finish(usize),
    Poll(usize),
    /// One that waits, or was called and does not know yet, goes.
    Leave(usize),
    AddSlot,
    RemoveSlot(usize),
    OpenSlot(usize),
    CloseSlot(usize),
    SetLimit(usize),
    SetMax(usize),
    CloseLane,
    ReopenLane,
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..64_usize;
    prop_oneof![
        12 => proptest::sample::select(&RANKS).prop_map(Step::Arrive),
        8 => which.clone().prop_map(Step::Finish),
        5 => which.clone().prop_map(Step::Poll),
        4 => which.clone().prop_map(Step::Leave),
        1 => Just(Step::AddSlot),
        1 => which.clone().prop_map(Step::RemoveSlot),
        2 => which.clone().prop_map(Step::OpenSlot),
        2 => which.prop_map(Step::CloseSlot),
        2 => (0..4_usize).prop_map(Step::SetLimit),
        1 => (0..8_usize).prop_map(Step::SetMax),
        1 => Just(Step::CloseLane),
        2 => Just(Step::ReopenLane),
    ]
}

/// How it is with one who came. A slot goes by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Situation {
    Holds(usize),
    Waits,
    /// It has a permit, and has not looked.
    IsCalled(usize),
    IsSentElsewhere,
}

/// The model. Whoever came goes by a number that says when.
#[derive(Debug)]
struct Model {
    slots: Vec<ModelSlot>,
    limit: usize,
    max: usize,
    is_closed: bool,
    /// In the order they are to be served in.
    line: Vec<(Rank, usize)>,
    situations: BTreeMap<usize, Situation>,
}

#[derive(Debug)]
struct ModelSlot {
    number: usize,
    is_open: bool,
    is_present: bool,
    used: usize,
}

impl Model {
    fn free(&self) -> Option<usize> {
        let has_room = |slot: &&ModelSlot| slot.used < self.limit;
        self.slots.iter().filter(|slot| slot.is_present && slot.is_open).find(has_room).map(|slot| slot.number)
    }

    fn arrive(&mut self, who: usize, rank: Rank) -> Result<Situation, Turned> {
        let situation = match self.free() {
            Some(slot) if self.line.is_empty() => {
                self.slots[slot].used += 1;
                Situation::Holds(slot)
            }
            _ if self.is_closed => return Err(Turned::Elsewhere),
            _ if self.line.len() >= self.max && rank != Rank::Again => return Err(Turned::Away),
            _ => {
                self.line.push((rank, who));
                self.line.sort();
                Situation::Waits
            }
        };
        self.situations.insert(who, situation);
        Ok(situation)
    }

    fn leave(&mut self, who: usize) {
        match self.situations.remove(&who) {
            Some(Situation::Holds(slot) | Situation::IsCalled(slot)) => self.slots[slot].used -= 1,
            _ => self.line.retain(|(_, waits)| *waits != who),
        }
    }

    fn serve(&mut self) {
        while let (Some(slot), false) = (self.free(), self.line.is_empty()) {
            let (_, who) = self.line.remove(0);
            self.slots[slot].used += 1;
            self.situations.insert(who, Situation::IsCalled(slot));
        }
    }

    fn close(&mut self) {
        self.is_closed = true;
        for (_, who) in self.line.drain(..) {
            self.situations.insert(who, Situation::IsSentElsewhere);
        }
    }

    /// Who is in a situation that `is_one`, by the number that a step gave.
    fn choose(&self, index: usize, is_one: impl Fn(Situation) -> bool) -> Option<usize> {
        let all: Vec<_> = self.situations.iter().filter(|(_, situation)| is_one(**situation)).collect();
        Some(*all.get(index.checked_rem(all.len())?)?.0)
    }
}

#[derive(Debug)]
struct Worker {
    number: usize,
    permits: Permits,
    lane: Arc<Lane<Worker>>,
}

impl Slot for Worker {
    fn permits(&self) -> &Permits {
        &self.permits
    }

    fn lane(&self) -> &Lane<Self> {
        &self.lane
    }
}

/// Whether somebody was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// One who came, in truth.
enum Caller {
    Holds(Permit<Worker>),
    Waits(Pin<Box<Waiting<Worker>>>, Arc<Bell>),
}

/// The code under test, used as [`super::replicas`] uses it.
struct Real {
    queue: Arc<Queue>,
    lane: Arc<Lane<Worker>>,
    slots: Vec<Arc<Worker>>,
    present: Vec<Arc<Worker>>,
    callers: BTreeMap<usize, Caller>,
}

impl Real {
    fn new(max: usize) -> Self {
        let queue = Arc::new(Queue::new(max));
        let lane = Arc::new(Lane::new(Arc::clone(&queue)));
        Self { queue, lane, slots: Vec::new(), present: Vec::new(), callers: BTreeMap::new() }
    }

    fn add_slot(&mut self, limit: usize) {
        let slot = Worker { number: self.slots.len(), permits: Permits::new(limit), lane: Arc::clone(&self.lane) };
        self.slots.push(Arc::new(slot));
        self.present.extend(self.slots.last().map(Arc::clone));
    }

    fn take(&self) -> Option<Permit<Worker>> {
        self.present.iter().filter(|slot| slot.permits.is_open()).find_map(Permit::take)
    }

    fn serve(&self) {
        self.lane.serve(|| self.take());
    }

    fn arrive(&mut self, who: usize, rank: Rank) -> Result<Situation, Turned> {
        let caller = match self.lane.is_empty().then(|| self.take()).flatten() {
            Some(permit) => Caller::Holds(permit),
            None => {
                let waiting = self.lane.join(rank, || self.take())?;
                Caller::Waits(Box::pin(waiting), Arc::default())
            }
        };
        self.callers.insert(who, caller);
        // Whoever waits looks once, and then when it is called.
        Ok(self.poll(who))
    }

    fn poll(&mut self, who: usize) -> Situation {
        let caller = self.callers.get_mut(&who).unwrap();
        if let Caller::Waits(waiting, bell) = caller {
            match waiting.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(bell)))) {
                Poll::Pending => return Situation::Waits,
                Poll::Ready(Ok(permit)) => *caller = Caller::Holds(permit),
                Poll::Ready(Err(turned)) => {
                    assert_eq!(turned, Turned::Elsewhere);
                    self.callers.remove(&who);
                    return Situation::IsSentElsewhere;
                }
            }
        }
        match caller {
            Caller::Holds(permit) => Situation::Holds(permit.slot().number),
            Caller::Waits(..) => Situation::Waits,
        }
    }
}

struct Both {
    real: Real,
    model: Model,
    arrivals: usize,
}

impl Both {
    fn new(limit: usize, max: usize) -> Self {
        let model =
            Model { slots: Vec::new(), limit, max, is_closed: false, line: Vec::new(), situations: BTreeMap::new() };
        Self { real: Real::new(max), model, arrivals: 0 }
    }

    fn step(&mut self, step: Step) {
        let (real, model) = (&mut self.real, &mut self.model);
        let slot = |index: usize| index.checked_rem(real.slots.len());
        match step {
            Step::Arrive(rank) => {
                self.arrivals += 1;
                assert_eq!(real.arrive(self.arrivals, rank), model.arrive(self.arrivals, rank));
            }
            Step::Finish(index) => {
                if let Some(who) = model.choose(index, |situation| matches!(situation, Situation::Holds(_))) {
                    model.leave(who);
                    real.callers.remove(&who);
                }
            }
            Step::Leave(index) => {
                if let Some(who) = model.choose(index, |situation| !matches!(situation, Situation::Holds(_))) {
                    model.leave(who);
                    real.callers.remove(&who);
                }
            }
            Step::Poll(index) => {
                let Some(who) = model.choose(index, |situation| !matches!(situation, Situation::Holds(_))) else {
                    return;
                };
                let found = real.poll(who);
                match model.situations.get_mut(&who).unwrap() {
                    Situation::IsSentElsewhere => {
                        assert_eq!(found, Situation::IsSentElsewhere);
                        model.situations.remove(&who);
                    }
                    situation => {
                        if let Situation::IsCalled(slot) = *situation {
                            *situation = Situation::Holds(slot);
                        }
                        assert_eq!(found, *situation);
                    }
                }
            }
            Step::AddSlot => {
                model.slots.push(ModelSlot { number: model.slots.len(), is_open: true, is_present: true, used: 0 });
                real.add_slot(model.limit);
                real.serve();
            }
            Step::RemoveSlot(index) => {
                if let Some(index) = slot(index) {
                    (model.slots[index].is_open, model.slots[index].is_present) = (false, false);
                    real.slots[index].permits.set_open(false);
                    real.present.retain(|slot| slot.number != index);
                    real.serve();
                }
            }
            Step::OpenSlot(index) | Step::CloseSlot(index) => {
                let is_open = matches!(step, Step::OpenSlot(_));
                if let Some(index) = slot(index).filter(|index| model.slots[*index].is_present) {
                    model.slots[index].is_open = is_open;
                    real.slots[index].permits.set_open(is_open);
                    real.serve();
                }
            }
            Step::SetLimit(limit) => {
                model.limit = limit;
                real.slots.iter().for_each(|slot| slot.permits.set_limit(limit));
                real.serve();
            }
            Step::SetMax(max) => {
                model.max = max;
                real.queue.set_max(max);
            }
            Step::CloseLane => {
                model.close();
                real.lane.set_closed(true);
            }
            Step::ReopenLane => {
                model.is_closed = false;
                real.lane.set_closed(false);
            }
        }
        self.model.serve();
    }

    fn compare(&self) {
        let (real, model) = (&self.real, &self.model);
        let used: Vec<_> = real.slots.iter().map(|slot| slot.permits.used()).collect();
        assert_eq!(used, model.slots.iter().map(|slot| slot.used).collect::<Vec<_>>());
        assert_eq!((real.lane.length(), real.queue.length()), (model.line.len(), model.line.len()));
        assert_eq!(real.lane.is_empty(), model.line.is_empty());
        for rank in RANKS {
            let ahead = model.line.iter().filter(|(other, _)| *other <= rank).count();
            assert_eq!(real.lane.ahead_of(rank), ahead);
        }
        let situations: Vec<_> = real
            .callers
            .iter()
            .map(|(who, caller)| match caller {
                Caller::Holds(_) => (*who, "holds"),
                Caller::Waits(_, bell) if bell.0.load(Relaxed) => (*who, "was called"),
                Caller::Waits(..) => (*who, "waits"),
            })
            .collect();
        let expected: Vec<_> = model
            .situations
            .iter()
            .map(|(who, situation)| match situation {
                Situation::Holds(_) => (*who, "holds"),
                Situation::IsCalled(_) | Situation::IsSentElsewhere => (*who, "was called"),
                Situation::Waits => (*who, "waits"),
            })
            .collect();
        assert_eq!(situations, expected);
        assert!(
            real.lane.is_empty() || real.present.iter().all(|slot| !slot.permits.is_open() || !slot.permits.is_free())
        );
    }

    /// Everybody ends, and nothing is left of them.
    fn end(mut self) {
        self.real.callers.clear();
        assert!(self.real.slots.iter().all(|slot| slot.permits.used() == 0));
        assert_eq!((self.real.lane.length(), self.real.queue.length()), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn permits_and_queue_do_what_the_model_does(
        (limit, max) in (0..4_usize, 0..8_usize),
        slots in 0..3_usize,
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut both = Both::new(limit, max);
        (0..slots).for_each(|_| both.step(Step::AddSlot));
        for step in steps {
            both.step(step);
            both.compare();
        }
        both.end();
    }
}
