//! Which replica is chosen, which are out, and when those are back, by hand and with time that stands still.

use std::future::{pending, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use http::StatusCode;
use tokio::time::advance;

use super::choice::choose;
use super::*;
use crate::scheduling::condition::Health;
use crate::scheduling::permits::ANY;
use crate::scheduling::queue::{Rank, Turned};
use crate::scheduling::replica::ReplicaPermit;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn addresses(ports: &[u16]) -> Vec<ReplicaAddress> {
    ports.iter().map(|port| format!("http://10.0.0.1:{port}").parse().unwrap()).collect()
}

/// Replicas by their ports, with a queue for `max`.
fn with_queue(max: usize, limit: usize, ports: &[u16]) -> Replicas {
    // The clock that threads share has to begin before any test moves its own on.
    clock::millis(Instant::now());
    let settings = Settings { limit, look_interval: Some(SECOND) };
    let replicas = Replicas::new("service", "deployment", Arc::new(Queue::new(max)), settings, None);
    replicas.set(&addresses(ports));
    replicas
}

fn new(limit: usize, ports: &[u16]) -> Replicas {
    with_queue(10, limit, ports)
}

fn at(replicas: &Replicas, port: u16) -> Arc<Replica> {
    replicas.views().into_iter().find(|view| view.replica.endpoint().address().port() == port).unwrap().replica
}

fn port(permit: &ReplicaPermit) -> u16 {
    permit.slot().endpoint().address().port()
}

fn take(replicas: &Replicas) -> Option<ReplicaPermit> {
    replicas.try_take(Instant::now())
}

/// So many permits, and how many of them were of each of `ports`.
fn take_many<const N: usize>(replicas: &Replicas, count: usize, ports: [u16; N]) -> (Vec<ReplicaPermit>, [usize; N]) {
    let permits: Vec<_> = (0..count).map(|_| take(replicas).unwrap()).collect();
    let counts = ports.map(|of| permits.iter().filter(|permit| port(permit) == of).count());
    (permits, counts)
}

fn ready_ports(replicas: &Replicas) -> Vec<u16> {
    let ready = replicas.views().into_iter().filter(|view| view.replica.is_ready() && view.out.is_none());
    ready.map(|view| view.replica.endpoint().address().port()).collect()
}

fn unreachable() -> Failure {
    Failure::Unreachable("refused".into())
}

fn answers(status: u16) -> Health {
    Health::Answered(StatusCode::from_u16(status).unwrap())
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn the_least_busy_is_chosen() {
    let replicas = new(ANY, &[1, 2, 3]);
    assert_eq!(take_many(&replicas, 6, [1, 2, 3]).1, [2, 2, 2]);
    let (permits, counts) = take_many(&replicas, 9, [1, 2, 3]);
    assert_eq!(counts, [3, 3, 3]);
    drop(permits.into_iter().filter(|permit| port(permit) != 2).collect::<Vec<_>>());
    assert!(!replicas.is_busy());
}

#[tokio::test(start_paused = true)]
async fn among_equals_the_fastest_of_late_is_chosen() {
    let replicas = new(1, &[1, 2, 3]);
    for (port, held) in [(1, 30), (2, 10), (3, 20)] {
        at(&replicas, port).note_answered(held * MS, Instant::now());
    }
    let order: Vec<_> = std::iter::from_fn(|| take(&replicas)).collect();
    assert_eq!(order.iter().map(port).collect::<Vec<_>>(), [2, 3, 1]);
    drop(order);
    // What was measured long ago counts less: 1 has not been asked for so long that it is worth a try.
    advance(25 * SECOND).await;
    for port in [2, 3] {
        at(&replicas, port).note_answered(15 * MS, Instant::now());
    }
    assert_eq!(port(&take(&replicas).unwrap()), 1);
}

/// Of 3,000 requests that come one by one, those that the replica at `which` gets.
fn share(replicas: &Replicas, which: u16) -> usize {
    (0..3_000).filter(|_| take(replicas).is_some_and(|permit| port(&permit) == which)).count()
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_has_to_earn_its_share() {
    fastrand::seed(1);
    let replicas = new(100, &[1, 2]);
    replicas.set(&addresses(&[1, 2, 3]));
    // A third is what it would have; at first a tenth of that, half-way a fifth.
    let at_first = share(&replicas, 3);
    assert!((60..150).contains(&at_first), "{at_first}");
    advance(5 * SECOND).await;
    let half_way = share(&replicas, 3);
    assert!((120..250).contains(&half_way), "{half_way}");
    advance(6 * SECOND).await;
    let in_the_end = share(&replicas, 3);
    assert!((900..1_100).contains(&in_the_end), "{in_the_end}");
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_used_if_the_others_are_full() {
    let replicas = new(2, &[1, 2]);
    replicas.set(&addresses(&[1, 2, 3]));
    assert_eq!(take_many(&replicas, 6, [1, 2, 3]).1, [2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn one_that_failed_has_to_earn_its_share_again() {
    fastrand::seed(1);
    let replicas = new(100, &[1, 2]);
    let failed = at(&replicas, 1);
    replicas.failed(&failed, unreachable());
    assert_eq!(share(&replicas, 1), 0);
    replicas.answered(&failed);
    let at_first = share(&replicas, 1);
    assert!((100..200).contains(&at_first), "{at_first}");
    advance(11 * SECOND).await;
    let in_the_end = share(&replicas, 1);
    assert!((1_400..1_600).contains(&in_the_end), "{in_the_end}");
}

#[tokio::test(start_paused = true)]
async fn all_but_the_last_go_if_they_cannot_be_reached() {
    let replicas = new(1, &[1, 2, 3]);
    for port in [1, 2, 3] {
        replicas.failed(&at(&replicas, port), unreachable());
    }
    assert_eq!(ready_ports(&replicas), [3]);
    assert_eq!(replicas.taken_out(), [2, 0, 0, 0]);
    assert_eq!(port(&take(&replicas).unwrap()), 3);
}

#[tokio::test(start_paused = true)]
async fn half_go_at_most_for_what_requests_can_bring_about() {
    for (all, left) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)] {
        for failure in [Failure::Closed, Failure::Silent(SECOND)] {
            let ports: Vec<_> = (1..=all).collect();
            let replicas = new(1, &ports);
            for port in ports {
                replicas.failed(&at(&replicas, port), failure.clone());
            }
            assert_eq!(ready_ports(&replicas).len(), left, "{failure} of {all}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_reached_counts_towards_the_half() {
    let replicas = new(1, &[1, 2, 3, 4]);
    replicas.failed(&at(&replicas, 1), unreachable());
    replicas.failed(&at(&replicas, 2), Failure::Closed);
    replicas.failed(&at(&replicas, 3), Failure::Closed);
    assert_eq!(ready_ports(&replicas), [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn the_unhealthy_go_while_another_is_healthy() {
    let replicas = new(1, &[1, 2]);
    let (sick, well) = (at(&replicas, 1), at(&replicas, 2));
    for _ in 0..5 {
        replicas.looked(&sick, Some(answers(503)));
    }
    assert_eq!(ready_ports(&replicas), [1, 2], "nobody is known to be better");
    replicas.looked(&well, Some(answers(200)));
    replicas.looked(&sick, Some(answers(503)));
    assert_eq!(ready_ports(&replicas), [2]);
    for _ in 0..5 {
        replicas.looked(&well, Some(answers(503)));
    }
    assert_eq!(ready_ports(&replicas), [2], "the last is never out");
}

#[tokio::test(start_paused = true)]
async fn three_checks_in_a_row_have_to_fail() {
    let replicas = new(1, &[1, 2]);
    let (sick, well) = (at(&replicas, 1), at(&replicas, 2));
    replicas.looked(&well, Some(answers(200)));
    for status in [503, 503, 200, 503, 503] {
        replicas.looked(&sick, Some(answers(status)));
    }
    assert_eq!(ready_ports(&replicas), [1, 2]);
    replicas.looked(&sick, Some(answers(500)));
    assert_eq!(ready_ports(&replicas), [2]);
}

#[tokio::test(start_paused = true)]
async fn one_that_closes_connections_is_not_proven_healthy() {
    let replicas = new(1, &[1, 2]);
    let (sick, other) = (at(&replicas, 1), at(&replicas, 2));
    replicas.looked(&other, Some(answers(200)));
    replicas.looked(&other, Some(Health::Closed));
    for _ in 0..3 {
        replicas.looked(&sick, Some(answers(503)));
    }
    assert_eq!(ready_ports(&replicas), [1, 2]);
    // Silent is what one is that is busy with another front end's request.
    replicas.looked(&other, Some(answers(200)));
    replicas.looked(&other, Some(Health::Silent));
    replicas.looked(&sick, Some(answers(503)));
    assert_eq!(ready_ports(&replicas), [2]);
}

#[tokio::test(start_paused = true)]
async fn one_that_stays_keeps_what_it_has() {
    let replicas = new(1, &[1, 2]);
    let (stays, permits) = (at(&replicas, 1), take_many(&replicas, 2, [1, 2]).0);
    replicas.failed(&stays, unreachable());
    replicas.set(&addresses(&[3, 1]));
    assert_eq!((at(&replicas, 1).id(), stays.in_flight()), (stays.id(), 1));
    assert_eq!(ready_ports(&replicas), [3]);
    drop(permits);
    assert_eq!(stays.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_while_it_runs_requests_is_the_same() {
    let replicas = new(1, &[1, 2]);
    let (away, permits) = (at(&replicas, 1), take_many(&replicas, 2, [1, 2]).0);
    let away_id = away.id();
    drop(away);
    replicas.set(&addresses(&[2]));
    assert!(replicas.is_busy());
    replicas.set(&addresses(&[2, 1]));
    assert_eq!(at(&replicas, 1).id(), away_id);
    assert!(take(&replicas).is_none(), "it runs as many as it may");
    drop(permits);
    assert_eq!(take_many(&replicas, 2, [1, 2]).1, [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_with_nothing_to_do_is_new() {
    let replicas = new(1, &[1, 2]);
    let before = at(&replicas, 1).id();
    replicas.set(&addresses(&[2]));
    replicas.set(&addresses(&[2, 1]));
    assert_ne!(at(&replicas, 1).id(), before);
}

#[tokio::test(start_paused = true)]
async fn a_permit_taken_by_an_old_set_counts_when_the_replica_comes_back() {
    let replicas = new(1, &[1]);
    let old_set = replicas.set.load_full();
    replicas.set(&addresses(&[2]));
    let late = choose(&old_set.ready, None, Instant::now()).unwrap();
    drop(old_set);
    replicas.set(&addresses(&[1]));
    assert!(take(&replicas).is_none(), "it runs as many as it may");
    drop(late);
    assert!(take(&replicas).is_some());
}

#[tokio::test(start_paused = true)]
async fn those_that_are_out_are_back_when_the_last_other_goes() {
    let replicas = new(1, &[1, 2, 3]);
    for port in [1, 2] {
        replicas.failed(&at(&replicas, port), unreachable());
    }
    let permit = take(&replicas).unwrap();
    let mut waiting = pin!(replicas.join(Rank::Normal, Instant::now()).unwrap());
    assert!(poll(waiting.as_mut()).is_pending());
    replicas.set(&addresses(&[1, 2]));
    assert_eq!(ready_ports(&replicas), [1, 2]);
    assert!(matches!(poll(waiting.as_mut()), Poll::Ready(Ok(_))), "who waits is served");
    drop(permit);
}

#[tokio::test(start_paused = true)]
async fn none_at_all_are_none() {
    let replicas = new(1, &[1]);
    replicas.set(&[]);
    assert!(replicas.is_none() && take(&replicas).is_none());
    let mut waiting = pin!(replicas.join(Rank::Normal, Instant::now()).unwrap());
    replicas.set(&addresses(&[2]));
    assert!(matches!(poll(waiting.as_mut()), Poll::Ready(Ok(permit)) if port(&permit) == 2));
}

#[tokio::test(start_paused = true)]
async fn one_that_answers_is_back() {
    let replicas = new(1, &[1, 2]);
    let failed = at(&replicas, 1);
    replicas.failed(&failed, unreachable());
    let permit = take(&replicas).unwrap();
    let mut waiting = pin!(replicas.join(Rank::Normal, Instant::now()).unwrap());
    replicas.answered(&failed);
    assert_eq!(ready_ports(&replicas), [1, 2]);
    assert!(matches!(poll(waiting.as_mut()), Poll::Ready(Ok(permit)) if port(&permit) == 1));
    drop(permit);
}

#[tokio::test(start_paused = true)]
async fn one_that_has_departed_stays_away_whatever_it_does() {
    let replicas = new(1, &[1, 2]);
    let departed = at(&replicas, 1);
    replicas.set(&addresses(&[2]));
    replicas.answered(&departed);
    replicas.looked(&departed, Some(answers(200)));
    replicas.failed(&departed, unreachable());
    assert_eq!(ready_ports(&replicas), [2]);
    assert!(!departed.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_success_brings_back() {
    let replicas = new(1, &[1, 2]);
    let failed = at(&replicas, 1);
    replicas.failed(&failed, unreachable());
    for found in [None, Some(Health::Silent), Some(Health::Closed), Some(Health::Unreachable(String::new()))] {
        replicas.looked(&failed, found);
        assert_eq!(ready_ports(&replicas), [2]);
    }
    replicas.looked(&failed, Some(answers(204)));
    assert_eq!(ready_ports(&replicas), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn another_answer_brings_back_only_if_the_path_never_worked() {
    let replicas = new(1, &[1, 2]);
    let failed = at(&replicas, 1);
    replicas.failed(&failed, unreachable());
    replicas.looked(&failed, Some(answers(404)));
    assert_eq!(ready_ports(&replicas), [1, 2], "it is there, and the path may be wrong");
    replicas.looked(&at(&replicas, 2), Some(answers(200)));
    replicas.failed(&failed, unreachable());
    replicas.looked(&failed, Some(answers(503)));
    assert_eq!(ready_ports(&replicas), [2]);
    replicas.forget_health();
    replicas.looked(&failed, Some(answers(503)));
    assert_eq!(ready_ports(&replicas), [1, 2], "another path was never known to work");
}

#[tokio::test(start_paused = true)]
async fn looks_at_one_that_is_out_become_rarer_up_to_two_seconds() {
    let replicas = new(1, &[1, 2]);
    let failed = at(&replicas, 1);
    replicas.looked(&at(&replicas, 2), None);
    replicas.configure(Settings { limit: 1, look_interval: None });
    assert_eq!(replicas.next_look(), None);
    replicas.failed(&failed, unreachable());
    let mut pauses = Vec::new();
    for _ in 0..50 {
        let next = replicas.next_look().unwrap();
        pauses.push(next - Instant::now());
        advance(next - Instant::now()).await;
        let due = replicas.due(Instant::now(), 10);
        assert_eq!(due.iter().map(|replica| replica.id()).collect::<Vec<_>>(), [failed.id()]);
        assert_eq!(replicas.next_look(), None, "one look at a time");
        replicas.looked(&failed, Some(Health::Unreachable(String::new())));
    }
    let longest = [50, 50, 100, 200, 400, 800, 1_600].into_iter().chain(std::iter::repeat(2_000));
    for (pause, longest) in pauses.iter().zip(longest) {
        assert!((longest * MS * 4 / 5..=longest * MS).contains(pause), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_in_use_are_looked_at_at_once_and_then_every_so_often() {
    let replicas = new(1, &[1, 2, 3]);
    assert_eq!(replicas.due(Instant::now(), 2).len(), 2, "no more than there is room for");
    let due = replicas.due(Instant::now(), 2);
    assert_eq!(due.len(), 1);
    replicas.looked(&due[0], Some(answers(200)));
    let next = replicas.next_look().unwrap() - Instant::now();
    assert!((800 * MS..=SECOND).contains(&next), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_looks_at_one_that_is_busy() {
    let replicas = new(2, &[1]);
    let replica = at(&replicas, 1);
    let permit = take(&replicas).unwrap();
    assert_eq!(replicas.unless_wanted(&replica, ready(7)).await, None);
    drop(permit);
    assert_eq!(replicas.unless_wanted(&replica, ready(7)).await, Some(7));
    assert_eq!(replica.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_asks_for_the_permit_of_a_look_although_nobody_may_wait() {
    let replicas = with_queue(0, 1, &[1, 2]);
    let all = [1, 2].map(|port| at(&replicas, port));
    let mut looks = all.each_ref().map(|replica| Box::pin(replicas.unless_wanted(replica, pending::<()>())));
    assert!(looks.iter_mut().all(|look| poll(look.as_mut()).is_pending()));
    assert!(take(&replicas).is_none());
    let mut waiting = pin!(replicas.join(Rank::Normal, Instant::now()).unwrap());
    assert!(poll(waiting.as_mut()).is_pending(), "the look is not over yet");
    let broken_off = looks.iter_mut().map(|look| poll(look.as_mut()).is_ready()).filter(|is_over| *is_over).count();
    assert_eq!(broken_off, 1);
    let Poll::Ready(Ok(permit)) = poll(waiting.as_mut()) else { panic!("no permit") };
    drop(looks);
    assert_eq!(permit.slot().in_flight(), 1);
    drop(permit);
    assert!(!replicas.is_busy());
    assert_eq!(replicas.join(Rank::Normal, Instant::now()).map(drop), Err(Turned::Away), "with nothing lent");
}

#[tokio::test(start_paused = true)]
async fn a_look_is_over_before_its_permit_goes_to_a_request() {
    struct Connection<'a>(&'a Replica);
    impl Drop for Connection<'_> {
        fn drop(&mut self) {
            assert_eq!(self.0.in_flight(), 1, "still the look's");
            assert!(self.0.lane().length() > 0, "and the request waits");
        }
    }
    let replicas = new(1, &[1]);
    let replica = at(&replicas, 1);
    let connection = Connection(&replica);
    let mut look = Box::pin(replicas.unless_wanted(&replica, async move {
        let _connection = connection;
        pending::<()>().await;
    }));
    assert!(poll(look.as_mut()).is_pending());
    let mut waiting = pin!(replicas.join(Rank::Normal, Instant::now()).unwrap());
    assert!(poll(look.as_mut()).is_ready());
    drop(look);
    assert!(poll(waiting.as_mut()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_look_at_one_that_is_out_ends_when_it_is_back_and_wanted() {
    let replicas = new(1, &[1, 2]);
    let out = at(&replicas, 1);
    replicas.failed(&out, unreachable());
    let permit = take(&replicas).unwrap();
    let mut look = Box::pin(replicas.unless_wanted(&out, pending::<()>()));
    assert!(poll(look.as_mut()).is_pending());
    let mut waiting = pin!(replicas.join(Rank::Normal, Instant::now()).unwrap());
    assert!(poll(waiting.as_mut()).is_pending() && poll(look.as_mut()).is_pending());
    replicas.set(&addresses(&[1]));
    assert!(poll(look.as_mut()).is_ready());
    drop(look);
    assert!(matches!(poll(waiting.as_mut()), Poll::Ready(Ok(permit)) if port(&permit) == 1));
    drop(permit);
}

#[tokio::test(start_paused = true)]
async fn a_look_needs_no_permit_where_there_is_no_limit() {
    let replicas = new(ANY, &[1]);
    let permit = take(&replicas).unwrap();
    assert_eq!(replicas.unless_wanted(permit.slot(), ready(7)).await, Some(7));
}

/// As often as it takes to be sure.
fn measure(replica: &Replica, held: Duration) {
    for _ in 0..200 {
        replica.note_answered(held, Instant::now());
    }
}

#[tokio::test(start_paused = true)]
async fn a_forecast_is_made_of_what_was_measured() {
    let replicas = new(2, &[1, 2]);
    for _ in 0..7 {
        assert!(replicas.forecast(Rank::Normal, Instant::now()).is_none(), "a few samples are none");
        at(&replicas, 1).note_answered(3 * SECOND, Instant::now());
    }
    // The other is taken to be like it.
    measure(&at(&replicas, 1), 20 * MS);
    let (permits, _) = take_many(&replicas, 4, [1, 2]);
    let waiting = [Rank::High, Rank::Normal, Rank::Low].map(|rank| replicas.join(rank, Instant::now()).unwrap());
    for (rank, ahead) in [(Rank::Again, 0), (Rank::High, 1), (Rank::Normal, 2), (Rank::Low, 3)] {
        let forecast = replicas.forecast(rank, Instant::now()).unwrap();
        assert_eq!((forecast.slots, forecast.ahead), (4, ahead));
        assert!(forecast.wait.abs_diff(u32::try_from(ahead + 1).unwrap() * 5 * MS) < MS / 10, "{forecast:?}");
        assert!(forecast.service.abs_diff(20 * MS) < MS, "{forecast:?}");
    }
    drop((waiting, permits));
    // What was measured long ago counts less.
    advance(30 * SECOND).await;
    assert!(replicas.forecast(Rank::Normal, Instant::now()).unwrap().service < 3 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_forecast_counts_only_those_that_are_in_use() {
    let replicas = new(1, &[1, 2]);
    measure(&at(&replicas, 1), 10 * MS);
    measure(&at(&replicas, 2), 30 * MS);
    replicas.failed(&at(&replicas, 1), unreachable());
    let forecast = replicas.forecast(Rank::Normal, Instant::now()).unwrap();
    assert!(forecast.slots == 1 && forecast.wait.abs_diff(30 * MS) < MS, "{forecast:?}");
}

#[tokio::test(start_paused = true)]
async fn one_slow_replica_does_not_make_the_others_hopeless() {
    let replicas = new(1, &[1, 2, 3, 4]);
    for _ in 0..50 {
        for port in [1, 2, 3] {
            at(&replicas, port).note_answered(20 * MS, Instant::now());
        }
        at(&replicas, 4).note_given_up(2 * SECOND, Instant::now());
    }
    let forecast = replicas.forecast(Rank::Normal, Instant::now()).unwrap();
    assert!(forecast.wait < 8 * MS && forecast.service < 100 * MS, "{forecast:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_nobody_is_forecast_to_wait() {
    let replicas = new(ANY, &[1, 2]);
    measure(&at(&replicas, 1), 20 * MS);
    let forecast = replicas.forecast(Rank::Normal, Instant::now()).unwrap();
    assert!(forecast.slots == 2 * ANY && forecast.wait < MS, "{forecast:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_one_that_is_out_rather_than_nowhere() {
    let replicas = new(1, &[1, 2]);
    let (tried, out) = (at(&replicas, 1), at(&replicas, 2));
    replicas.failed(&out, unreachable());
    assert!(replicas.has_other(&tried));
    let permit = replicas.try_take_other(&tried, Instant::now()).unwrap();
    assert_eq!(port(&permit), 2);
    assert!(replicas.try_take_other(&tried, Instant::now()).is_none());
    drop(permit);
    replicas.set(&addresses(&[1]));
    assert!(!replicas.has_other(&tried) && replicas.try_take_other(&tried, Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_none_that_is_out_while_another_is_in_use() {
    let replicas = new(1, &[1, 2, 3]);
    let tried = at(&replicas, 1);
    replicas.failed(&at(&replicas, 2), unreachable());
    let permit = replicas.try_take_other(&tried, Instant::now()).unwrap();
    assert_eq!(port(&permit), 3);
    assert!(replicas.try_take_other(&tried, Instant::now()).is_none(), "it waits instead");
}

#[tokio::test(start_paused = true)]
async fn who_waits_has_the_good_of_a_higher_limit() {
    let replicas = new(1, &[1]);
    let permit = take(&replicas).unwrap();
    let mut waiting = pin!(replicas.join(Rank::Normal, Instant::now()).unwrap());
    assert!(poll(waiting.as_mut()).is_pending());
    assert!(take(&replicas).is_none());
    replicas.configure(Settings { limit: 2, look_interval: None });
    assert!(poll(waiting.as_mut()).is_ready());
    drop(permit);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_what_is_gone_is_sent_elsewhere() {
    let replicas = new(1, &[]);
    let mut waiting = pin!(replicas.join(Rank::Normal, Instant::now()).unwrap());
    replicas.set_closed(true);
    assert!(matches!(poll(waiting.as_mut()), Poll::Ready(Err(Turned::Elsewhere))));
    assert!(matches!(replicas.join(Rank::Normal, Instant::now()), Err(Turned::Elsewhere)));
    replicas.set_closed(false);
    assert!(replicas.join(Rank::Normal, Instant::now()).is_ok());
}
