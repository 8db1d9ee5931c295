//! Copies of calls to a deployment whose answers nobody gets. Of the calls a half is copied at most, so tests call more often.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;

use crate::support::{
    CNAME, Environment, Front, Gate, Replica, SCORE, Seen, Step, channel, chunk, chunked, empty, eventually, get, ok,
    post, request, score,
};

/// Calls of which hardly ever none is copied.
const ENOUGH: usize = 24;

/// Every result there is.
const RESULTS: [&str; 6] = ["same_status", "other_status", "unanswered", "busy", "slow", "abandoned"];

/// Half of the calls of `blue` go to `green` too, whose replicas are given as many as come.
fn mirrored(blue: &[&Replica], green: &[&Replica]) -> Environment {
    mirrored_one_at_a_time(blue, green).without_permits()
}

fn mirrored_one_at_a_time(blue: &[&Replica], green: &[&Replica]) -> Environment {
    let mirror = "mirror = { deployment = 'green', percent = 50 }";
    Environment::new().cname(CNAME).deployments_with("iris", mirror, &[("blue", 100, blue), ("green", 0, green)])
}

fn result(result: &str) -> String {
    format!("mirror_requests_total{{service=\"iris\",deployment=\"green\",result=\"{result}\"}}")
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a count")]
async fn metric(front: &Front, name: &str) -> usize {
    front.metric(name).await.round() as usize
}

/// Copies by result.
async fn results(front: &Front) -> [usize; 6] {
    let mut counts = [0; 6];
    for (count, name) in counts.iter_mut().zip(RESULTS) {
        *count = metric(front, &result(name)).await;
    }
    counts
}

/// Waits until as many copies as `green` saw have ended in this way, and none in any other.
async fn until_all(front: &Front, green: &Replica, expected: &str) -> usize {
    // One that fails is looked at as well.
    let copies = || green.requests().iter().filter(|seen| seen.line().starts_with("POST")).count();
    eventually(expected, async || {
        let counts = results(front).await;
        let seen = copies();
        seen > 0 && counts == RESULTS.map(|name| if name == expected { seen } else { 0 })
    })
    .await;
    copies()
}

/// Waits until no replica of the mirrored deployment has a request.
async fn until_idle(front: &Front, green: &Replica) {
    let address = green.address;
    let name = format!("replica_requests_in_flight{{service=\"iris\",deployment=\"green\",replica=\"{address}\"}}");
    let metrics = front.admin("GET /metrics HTTP/1.1").await;
    assert!(metrics.text().contains(&name), "{name}");
    front.until_metric(&name, 0).await;
}

#[tokio::test]
async fn about_as_many_calls_are_copied_as_the_configuration_says() {
    let (blue, green) = (Replica::echo(), Replica::echo());
    let mirror = "mirror = { deployment = 'green', percent = 20 }";
    let deployments: [(&str, u8, &[&Replica]); 2] = [("blue", 100, &[&blue]), ("green", 0, &[&green])];
    let front =
        Environment::new().cname(CNAME).deployments_with("iris", mirror, &deployments).without_permits().start();
    for mut caller in front.both().await {
        for _ in 0..500 {
            let reply = caller.call(post(SCORE, "x")).await;
            assert_eq!((reply.text(), reply.field("azureml-model-deployment")), ("x", Some("blue")));
        }
    }
    let copies = until_all(&front, &green, "same_status").await;
    // Five standard deviations.
    assert!((137..=263).contains(&copies), "{copies} of 1000");
    assert_eq!(blue.requests().len(), 1000);

    let labels = "{service=\"iris\",deployment=\"green\"}";
    for name in ["mirror_duration_seconds_count", "mirrored_duration_seconds_count"] {
        assert_eq!(metric(&front, &format!("{name}{labels}")).await, copies);
    }
    for name in ["requests_in_flight", "request_duration_seconds_count", "request_body_bytes_total"] {
        assert_eq!(metric(&front, &format!("{name}{labels}")).await, 0, "copies are no requests: {name}");
    }
    assert!(front.log_lines(1000).await.iter().all(|line| line["deployment"] == "blue"));
    assert!(green.state().connections < 5, "connections are used again");
}

#[tokio::test]
async fn a_copy_is_the_call_at_the_mirrored_deployments_own_path() {
    let (blue, green) = (Replica::echo(), Replica::echo());
    let front = Environment::new()
        .cname(CNAME)
        .without_permits()
        .table(&format!(
            "[[service]]\nname = 'iris'\nmirror = {{ deployment = 'green', percent = 50 }}\n\
             [[service.deployment]]\nname = 'blue'\ntraffic = 100\nreplicas = ['http://{}']\n\
             [[service.deployment]]\nname = 'green'\ntraffic = 0\nprotocol = 'mlflow'\nreplicas = ['http://{}']",
            blue.address, green.address
        ))
        .start();
    for mut caller in front.both().await {
        for n in 0..ENOUGH {
            let mut request = post(&format!("{SCORE}/below?n={n}"), format!("body {n}"));
            request.headers_mut().insert("x-own", "1".parse().expect("a value"));
            request.headers_mut().insert("expect", "100-continue".parse().expect("a value"));
            request.headers_mut().insert("x-request-timeout-ms", "15000".parse().expect("a value"));
            assert_eq!(caller.call(request).await.status, 200);
        }
    }
    until_all(&front, &green, "same_status").await;
    let originals = blue.requests();
    for copy in green.requests() {
        let id = copy.field("x-request-id").expect("an id");
        let original = originals.iter().find(|other| other.field("x-request-id") == Some(id)).expect("its original");
        assert_eq!(copy.line(), original.line().replace("/score", "/invocations"));
        assert!(copy.whole && copy.body == original.body);
        assert_eq!(copy.field("host"), Some(&*green.address.to_string()));
        assert_eq!(copy.field("expect"), None);
        let left: u32 = copy.field("x-request-timeout-ms").expect("a time").parse().expect("a number");
        assert!((1..=15_000).contains(&left), "{left}");
        let fields = |seen: &Seen| {
            let own = ["host", "x-request-timeout-ms"];
            let mut fields: Vec<_> = seen
                .fields()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .filter(|(name, _)| !own.contains(&&**name))
                .collect();
            fields.sort();
            fields
        };
        assert_eq!(fields(&copy), fields(original));
    }
}

#[tokio::test]
async fn bodies_of_every_kind_are_copied_whole() {
    let (blue, green) = (Replica::echo(), Replica::echo());
    let front = mirrored(&[&blue], &[&green]).start();
    let long: Bytes = (0..3_000_000_u32).map(|n| u8::try_from(n % 251).expect("small")).collect();
    for mut caller in front.both().await {
        for _ in 0..ENOUGH {
            assert_eq!(caller.call(get(&format!("{SCORE}?empty"))).await.status, 200);
            assert_eq!(caller.call(request(Method::POST, &format!("{SCORE}?empty"), empty())).await.status, 200);
            for (path, parts) in [("?empty", &[][..]), ("?two", &["one", "two"])] {
                let (sender, body) = channel();
                let upload = async move {
                    for part in parts {
                        sender.send(Ok(Bytes::from(*part))).await.expect("taken");
                    }
                };
                let call = caller.call(request(Method::POST, &format!("{SCORE}{path}"), body));
                assert_eq!(tokio::join!(call, upload).0.status, 200);
            }
        }
        for _ in 0..8 {
            assert_eq!(caller.call(post(&format!("{SCORE}?long"), long.clone())).await.body.len(), long.len());
        }
    }
    eventually("all copies are over", async || {
        let [same, other, unanswered, busy, _, abandoned] = results(&front).await;
        assert_eq!([other, unanswered, busy, abandoned], [0; 4]);
        same > 3 * ENOUGH && green.state().running == 0
    })
    .await;
    let whole = |path: &str| -> Vec<_> {
        green.requests().into_iter().filter(|seen| seen.whole && seen.line().contains(path)).collect()
    };
    assert!(whole("?empty").iter().all(|seen| seen.body.is_empty()));
    assert!(whole("?two").iter().all(|seen| seen.body == b"onetwo"));
    assert!(whole("?long").iter().all(|seen| seen.body == long));
    let framed = |path, name| whole(path).iter().filter(|seen| seen.field(name).is_some()).count();
    assert!(framed("?two", "transfer-encoding") > 0 && framed("?two", "content-length") == 0);
    assert!(framed("?long", "content-length") > 0 && framed("?long", "transfer-encoding") == 0);
}

#[tokio::test]
async fn calls_are_answered_as_ever_whatever_the_mirrors_replica_does() {
    let close = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi".to_vec();
    for (script, expected) in [
        (vec![Step::Hang], "unanswered"),
        // Closed with the body unread it is a reset.
        (vec![Step::Close], "unanswered"),
        (vec![Step::ReadBody, Step::Close], "unanswered"),
        (vec![Step::ReadBody, Step::Send(b"SSH-2.0\r\n\r\n".to_vec()), Step::Close], "unanswered"),
        (vec![Step::ReadBody, Step::Send(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec())], "other_status"),
        (vec![Step::ReadBody, Step::Send(close), Step::Close], "same_status"),
        (vec![Step::ReadBody, chunked(), Step::Flood(20), chunk("")], "same_status"),
    ] {
        let (blue, green) = (Replica::echo(), Replica::start(script.clone()));
        let front = mirrored(&[&blue], &[&green]).set("defaults", "scoring_timeout = '2s'").start();
        for mut caller in front.both().await {
            let began = Instant::now();
            for _ in 0..ENOUGH {
                let body = "x".repeat(10_000);
                assert_eq!(caller.call(post(SCORE, body.clone())).await.text(), body, "{script:?}");
            }
            assert!(began.elapsed() < Duration::from_secs(2), "nobody waited: {script:?}");
        }
        until_all(&front, &green, expected).await;
        until_idle(&front, &green).await;
        assert_eq!(blue.requests().len(), 2 * ENOUGH);
    }
}

#[tokio::test]
async fn a_replica_that_refuses_copies_is_taken_out_and_none_is_tried_twice() {
    let (blue, refusing, green) = (Replica::echo(), Replica::refusing(), Replica::echo());
    let front = mirrored(&[&blue], &[&refusing, &green]).start();
    let mut caller = front.http1().await;
    for _ in 0..3 * ENOUGH {
        assert_eq!(caller.call(post(SCORE, "x")).await.text(), "x");
        front.admin("GET /livez HTTP/1.1").await;
    }
    eventually("the others were answered", async || results(&front).await[0] == green.requests().len()).await;
    let [_, other, unanswered, busy, slow, abandoned] = results(&front).await;
    assert_eq!([other, unanswered, busy, slow, abandoned], [0, 1, 0, 0, 0]);
}

#[tokio::test]
async fn a_copy_goes_on_when_its_call_was_answered() {
    let gate = Gate::new();
    let (blue, green) = (Replica::echo(), Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("late")]));
    let front = mirrored(&[&blue], &[&green]).start();
    for mut caller in front.both().await {
        for _ in 0..ENOUGH {
            assert_eq!(caller.call(post(SCORE, "x")).await.text(), "x");
        }
    }
    green.until(|state| state.running > 0).await;
    assert_eq!(results(&front).await, [0; 6]);
    gate.open();
    until_all(&front, &green, "same_status").await;
}

#[tokio::test]
async fn a_copy_that_is_answered_first_is_compared_later() {
    let gate = Gate::new();
    let no = b"HTTP/1.1 418 No\r\nContent-Length: 0\r\n\r\n".to_vec();
    let (blue, green) = (Replica::start([Step::ReadBody, Step::Wait(gate.clone()), Step::Send(no)]), Replica::echo());
    let front = mirrored(&[&blue], &[&green]).start();
    let mut calls = Vec::new();
    for _ in 0..ENOUGH {
        let mut caller = front.http1().await;
        calls.push(tokio::spawn(async move { caller.call(post(SCORE, "x")).await.status }));
    }
    blue.saw(ENOUGH).await;
    green.until(|state| !state.requests.is_empty() && state.running == 0).await;
    assert_eq!(results(&front).await, [0; 6]);
    gate.open();
    for call in calls {
        assert_eq!(call.await.expect("no panic"), 418);
    }
    until_all(&front, &green, "other_status").await;
}

#[tokio::test]
async fn a_copy_that_does_not_take_the_body_is_cut_and_the_upload_is_not_held_up() {
    let gate = Gate::new();
    let (blue, green) = (Replica::start([Step::ReadBody, ok("read")]), Replica::start([Step::Stall(gate.clone())]));
    let front = mirrored(&[&blue], &[&green]).start();
    let body = Bytes::from(vec![7; 8 * 1024 * 1024]);
    for (mut caller, uploads) in front.both().await.into_iter().zip([8, 16]) {
        for _ in 0..8 {
            assert_eq!(caller.call(post(SCORE, body.clone())).await.text(), "read");
        }
        assert_eq!(blue.requests().len(), uploads);
    }
    // Some were cut before they had a connection.
    until_idle(&front, &green).await;
    let counts = results(&front).await;
    assert!(counts[4] > 0 && counts.iter().sum::<usize>() == counts[4], "{counts:?}");
    assert!(blue.requests().iter().all(|seen| seen.whole && seen.body.len() == body.len()));
    gate.open();
    green.is_free().await;
}

#[tokio::test]
async fn a_mirror_of_one_at_a_time_is_never_given_two_and_what_is_too_much_is_not_copied() {
    let pause = Step::Drip(Vec::new(), 2, Duration::from_millis(5));
    let (blue, green) = (Replica::echo(), Replica::start([Step::ReadBody, pause, ok("[0]")]));
    let set = "max_concurrent_requests_per_replica = 1\nmax_queue_wait = '10s'\nmax_queue = 1000";
    let front = mirrored_one_at_a_time(&[&blue], &[&green]).set("defaults", set).threads(2).start();
    let mut callers = Vec::new();
    for _ in 0..4 {
        for mut caller in front.both().await {
            callers.push(tokio::spawn(async move {
                for _ in 0..40 {
                    assert_eq!(caller.call(post(SCORE, "x")).await.text(), "x");
                }
            }));
        }
    }
    for caller in callers {
        caller.await.expect("no panic");
    }
    until_idle(&front, &green).await;
    assert_eq!(green.state().most_running, 1);
    let [same, other, unanswered, busy, slow, abandoned] = results(&front).await;
    assert_eq!((same, [other, unanswered, slow, abandoned]), (green.requests().len(), [0; 4]));
    assert!(same > 0 && busy > 0, "{same} {busy}");
    // Five standard deviations.
    assert!((115..=205).contains(&(same + busy)), "{same} and {busy} of 320");
}

#[tokio::test]
async fn a_thread_has_so_many_copies_under_way_and_no_more() {
    let (blue, green) = (Replica::echo(), Replica::start([Step::Hang]));
    let front = mirrored(&[&blue], &[&green]).start();
    let mut caller = front.http2().await;
    for _ in 0..200 {
        assert_eq!(caller.call(post(SCORE, "x")).await.text(), "x");
    }
    green.saw(64).await;
    let counts = results(&front).await;
    assert!(counts[3] > 0 && counts.iter().sum::<usize>() == counts[3], "{counts:?}");
    assert_eq!(green.requests().len(), 64);
}

#[tokio::test]
async fn what_pins_a_deployment_and_what_does_not_score_is_not_copied() {
    let (blue, green) = (Replica::echo(), Replica::echo());
    let front = mirrored(&[&blue], &[&green]).start();
    for mut caller in front.both().await {
        for _ in 0..ENOUGH {
            for pin in ["blue", "green"] {
                let reply = caller.call(score(&[("azureml-model-deployment", pin)])).await;
                assert_eq!(reply.field("azureml-model-deployment"), Some(pin));
            }
            for path in ["/api/v1/service/iris/", "/api/v1/service/iris/swagger.json"] {
                assert_eq!(caller.call(get(path)).await.status, 200);
            }
        }
    }
    assert_eq!((green.requests().len(), results(&front).await), (2 * ENOUGH, [0; 6]));
}

#[tokio::test]
async fn a_caller_that_breaks_off_its_upload_ends_the_copy() {
    let (blue, green) = (Replica::start([Step::ReadBody, ok("x")]), Replica::start([Step::ReadBody, ok("x")]));
    let front = mirrored(&[&blue], &[&green]).start();
    for n in 1..=ENOUGH {
        let mut wire = front.wire().await;
        wire.post("Content-Length: 100000\r\n", "some").await;
        blue.saw(n).await;
    }
    for n in ENOUGH + 1..=2 * ENOUGH {
        let (parts, body) = channel();
        let mut caller = front.http2().await;
        let call = tokio::spawn(async move { caller.send(request(Method::POST, SCORE, body)).await.is_ok() });
        parts.send(Ok("some".into())).await.expect("taken");
        blue.saw(n).await;
        parts.send(Err(std::io::ErrorKind::Other.into())).await.expect("taken");
        assert!(!call.await.expect("no panic"));
    }
    blue.is_free().await;
    green.is_free().await;
    until_idle(&front, &green).await;
    let counts = results(&front).await;
    assert!(counts[5] > 2 && counts.iter().sum::<usize>() == counts[5], "{counts:?}");
    assert!(green.requests().iter().all(|seen| !seen.whole));
}

#[tokio::test]
async fn a_caller_that_leaves_after_its_upload_leaves_nothing_to_compare() {
    let gate = Gate::new();
    let script = [Step::ReadBody, Step::Wait(gate.clone()), ok("x")];
    let (blue, green) = (Replica::start(script.clone()), Replica::start(script));
    let front = mirrored(&[&blue], &[&green]).start();
    for n in 1..=ENOUGH {
        let mut wire = front.wire().await;
        wire.post("Content-Length: 4\r\n", "some").await;
        blue.until(|state| state.requests.len() == n && state.requests.iter().all(|seen| seen.whole)).await;
    }
    blue.is_free().await;
    until_all(&front, &green, "abandoned").await;
    green.until(|state| state.requests.iter().all(|seen| seen.whole)).await;
    assert_eq!(green.state().running, green.requests().len(), "they go on");
    gate.open();
    until_idle(&front, &green).await;
    assert_eq!(green.state().running, 0);
}

#[tokio::test]
async fn a_copy_takes_no_place_of_the_callers_and_outlives_no_stop() {
    let (blue, green) = (Replica::echo(), Replica::start([Step::Hang]));
    let mirror = "mirror = { deployment = 'green', percent = 50 }\nmax_requests_in_flight = 1";
    let deployments: [(&str, u8, &[&Replica]); 2] = [("blue", 100, &[&blue]), ("green", 0, &[&green])];
    let environment = Environment::new().cname(CNAME).deployments_with("iris", mirror, &deployments);
    let mut front = environment.without_permits().start();
    let mut caller = front.http1().await;
    for _ in 0..ENOUGH {
        assert_eq!(caller.call(post(SCORE, "x")).await.text(), "x");
    }
    drop(caller);
    green.saw(1).await;
    let began = Instant::now();
    assert!(front.stop(Duration::from_secs(15)).await, "nothing of a caller's was cut");
    assert!(began.elapsed() < Duration::from_secs(10), "copies are not waited for");
    green.is_free().await;
}

#[tokio::test]
async fn a_call_that_goes_to_a_second_replica_is_copied_once_and_whole() {
    let (refusing, blue, green) = (Replica::refusing(), Replica::echo(), Replica::echo());
    for _ in 0..4 {
        let front = mirrored(&[&refusing, &blue], &[&green]).start();
        for mut caller in front.both().await {
            for _ in 0..4 {
                assert_eq!(caller.call(post(SCORE, "the whole body")).await.text(), "the whole body");
            }
        }
        eventually("all were answered", async || {
            let counts = results(&front).await;
            counts.iter().sum::<usize>() == counts[0] && green.state().running == 0
        })
        .await;
    }
    assert!(green.requests().iter().all(|seen| seen.body == b"the whole body"));
    let mut ids: Vec<_> = green.requests().iter().map(|seen| seen.field("x-request-id").map(str::to_owned)).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), green.requests().len());
}
