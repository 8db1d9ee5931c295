//! What becomes of header fields on the way to a replica and back.

use http::Method;

use crate::support::{CNAME, Environment, Replica, SCORE, Step, empty, get, post, request, score};

#[tokio::test]
async fn a_replica_gets_the_callers_own_fields_and_what_the_front_end_knows() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for (index, mut caller) in front.both().await.into_iter().enumerate() {
        let reply =
            caller.call(score(&[("content-type", "application/json"), ("x-own", "1"), ("cookie", "a=1")])).await;
        let seen = &replica.requests()[index];
        let mut names: Vec<_> = seen.fields().map(|(name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "content-length",
                "content-type",
                "cookie",
                "host",
                "traceparent",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-own",
                "x-request-id",
                "x-request-timeout-ms",
            ]
        );
        assert_eq!(seen.field("host"), Some(&*replica.address.to_string()));
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.field("x-forwarded-host"), Some(CNAME));
        assert_eq!(seen.field("content-length"), Some("3"));
        assert_eq!(seen.field("x-request-id"), reply.field("x-ms-request-id"), "one id for all");
    }
}

#[tokio::test]
async fn what_concerns_one_connection_only_ends_at_the_front_end() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    wire.post(
        "Connection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nTrailer: x\r\n\
         Upgrade: websocket\r\nProxy-Authorization: x\r\nProxy-Connection: close\r\nHTTP2-Settings: x\r\nX-Kept: 1\r\n\
         Connection: content-type\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n",
        "x",
    )
    .await;
    assert_eq!(wire.reply().await.status, 200);
    let seen = replica.only_request();
    for gone in [
        "connection",
        "x-private",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "proxy-authorization",
        "proxy-connection",
        "http2-settings",
    ] {
        assert_eq!(seen.field(gone), None);
    }
    assert_eq!(seen.field("x-kept"), Some("1"));
    assert_eq!(seen.field("content-type"), Some("text/plain"), "what the message is cannot be nominated away");
}

#[tokio::test]
async fn http_2_callers_may_not_say_what_concerns_one_connection_but_te() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    assert_eq!(front.http2().await.call(score(&[("te", "trailers")])).await.status, 200);
    assert_eq!(replica.only_request().field("te"), None);
}

#[tokio::test]
async fn what_a_caller_forges_is_replaced() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for (index, mut caller) in front.both().await.into_iter().enumerate() {
        let forged = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-port", "1"),
            ("x-real-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-request-id", "mine"),
            ("x-ms-request-id", "mine"),
        ];
        let reply = caller.call(score(&forged)).await;
        let seen = &replica.requests()[index];
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.field("x-forwarded-host"), Some(CNAME));
        assert_eq!(seen.field("x-request-id"), reply.field("x-ms-request-id"));
        assert_ne!(seen.field("x-request-id"), Some("mine"));
        for gone in ["x-forwarded-port", "x-real-ip", "forwarded", "x-ms-request-id"] {
            assert_eq!(seen.field(gone), None);
        }
    }
}

#[tokio::test]
async fn the_callers_own_id_goes_both_ways_reduced_to_plain_characters() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let long = "x".repeat(60);
    for mut caller in front.both().await {
        for (given, kept) in
            [("Ab_9-z", Some("Ab_9-z")), ("a b/c\"d", Some("abcd")), (&long, Some(&long[..40])), ("//", None)]
        {
            let before = replica.requests().len();
            let reply = caller.call(score(&[("x-ms-client-request-id", given)])).await;
            assert_eq!(reply.field("x-ms-client-request-id"), kept);
            assert_eq!(replica.requests()[before].field("x-ms-client-request-id"), kept);
        }
    }
}

#[tokio::test]
async fn a_good_traceparent_passes_and_a_bad_or_missing_one_is_made_anew() {
    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let mut caller = front.http1().await;
    caller.call(score(&[("traceparent", GOOD), ("tracestate", "a=b")])).await;
    caller.call(score(&[("traceparent", "00-nonsense"), ("tracestate", "a=b")])).await;
    let reply = caller.call(score(&[])).await;
    let [good, bad, none] = <[_; 3]>::try_from(replica.requests()).expect("three requests");
    assert_eq!((good.field("traceparent"), good.field("tracestate")), (Some(GOOD), Some("a=b")));
    assert_eq!(bad.field("tracestate"), None);
    let id = reply.field("x-ms-request-id").expect("an id").replace('-', "");
    let made = none.field("traceparent").expect("a traceparent");
    assert!(made.starts_with(&format!("00-{id}-")) && made.len() == GOOD.len(), "{made}");
    assert_ne!(bad.field("traceparent"), Some("00-nonsense"));
}

#[tokio::test]
async fn a_replica_is_told_how_long_it_may_take() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).set("defaults", "scoring_timeout = '50s'").start();
    let mut caller = front.http1().await;
    for (given, most) in [(None, 50_000), (Some("30000"), 30_000), (Some("3600000"), 50_000)] {
        let before = replica.requests().len();
        let fields: Vec<_> = given.map(|given| ("x-request-timeout-ms", given)).into_iter().collect();
        caller.call(score(&fields)).await;
        let left: u64 = replica.requests()[before].field("x-request-timeout-ms").expect("told").parse().expect("ms");
        assert!(left <= most && left > most - 20_000, "{left} of {most}");
    }
}

#[tokio::test]
async fn names_that_replicas_take_for_ours_are_refused() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        for name in ["x_forwarded_for", "x_request_id", "content_length", "transfer_encoding", "x-ms-client_request-id"]
        {
            let refused = format!("Replicas read the field name {name} with hyphens; write it so.");
            caller.call(score(&[(name, "1")])).await.assert_refusal(400, "BadRequest", &refused);
        }
        assert!(replica.requests().is_empty());
    }
    front.http1().await.call(score(&[("my_own", "1")])).await;
    assert_eq!(replica.only_request().field("my_own"), Some("1"));
}

#[tokio::test]
async fn an_answer_carries_the_ids_the_deployment_and_where_the_time_went() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        let reply = caller.call(score(&[("x-ms-client-request-id", "mine")])).await;
        assert_eq!(reply.field("x-ms-request-id").map(str::len), Some(36));
        assert_eq!(reply.field("x-ms-client-request-id"), Some("mine"));
        assert_eq!(reply.field("azureml-model-deployment"), Some("default"));
        let timing = reply.field("server-timing").expect("a timing");
        let names: Vec<_> = timing.split(", ").map(|entry| entry.split_once(";dur=").expect("a duration")).collect();
        for ((name, duration), expected) in names.iter().zip(["queue", "connect", "model", "frontend"]) {
            assert_eq!(*name, expected);
            let (whole, fraction) = duration.split_once('.').expect("milliseconds");
            assert!(whole.parse::<u32>().is_ok() && fraction.len() == 3 && fraction.parse::<u32>().is_ok(), "{timing}");
        }
        assert_eq!(names.len(), 4);
    }
}

#[tokio::test]
async fn an_answer_is_passed_on_with_repeated_fields_and_without_what_is_nobodys_business() {
    let replica = Replica::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Model: m\r\nServer: gunicorn\r\n\
         Server-Timing: own;dur=1\r\nX-Request-Id: forged\r\nX-Ms-Request-Id: forged\r\nX-Ms-Client-Request-Id: forged\r\n\
         Azureml-Model-Deployment: forged\r\nKeep-Alive: timeout=2\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
         Content-Type: application/json\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n{}",
    );
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        let reply = caller.call(score(&[])).await;
        assert_eq!(reply.fields("set-cookie"), ["a=1", "b=2"]);
        assert_eq!(reply.field("x-model"), Some("m"));
        assert_eq!(reply.field("content-type"), Some("application/json"));
        assert_eq!(reply.field("date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        assert_eq!(reply.field("azureml-model-deployment"), Some("default"));
        assert_ne!(reply.field("x-ms-request-id"), Some("forged"));
        assert_eq!(reply.fields("server-timing")[0], "own;dur=1");
        assert_eq!(reply.fields("server-timing").len(), 2);
        for gone in ["server", "x-request-id", "x-ms-client-request-id", "keep-alive", "connection", "x-hop"] {
            assert_eq!(reply.field(gone), None);
        }
    }
}

#[tokio::test]
async fn whatever_status_a_replica_answers_passes_unchanged() {
    for status in [200, 201, 206, 301, 400, 401, 404, 418, 429, 499, 500, 502, 503, 504, 599] {
        let answer = format!("HTTP/1.1 {status} Any\r\nContent-Length: 2\r\nx-ms-run-function-failed: True\r\n\r\nhi");
        let replica = Replica::answering(&answer);
        let front = Environment::iris(&[&replica]).start();
        for mut caller in front.both().await {
            let reply = caller.call(post(SCORE, "x")).await;
            assert_eq!((reply.status, reply.text()), (status, "hi"));
            assert_eq!(reply.field("x-ms-run-function-failed"), Some("True"));
        }
        assert_eq!(replica.requests().len(), 2, "{status}: nothing is tried again");
    }
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_in_order() {
    for answer in
        ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 7\r\n\r\n"]
    {
        let replica = Replica::answering(answer);
        let front = Environment::iris(&[&replica]).start();
        for mut caller in front.both().await {
            for _ in 0..2 {
                let reply = caller.call(get(SCORE)).await;
                assert!(answer.contains(&reply.status.to_string()));
                assert!(reply.body.is_empty());
            }
        }
        assert_eq!(replica.state().connections, 1);
    }
}

#[tokio::test]
async fn head_gets_the_length_and_no_body() {
    let replica =
        Replica::start([Step::ReadBody, Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_vec())]);
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        for _ in 0..2 {
            let reply = caller.call(request(Method::HEAD, "/api/v1/service/iris/", empty())).await;
            assert_eq!((reply.status, reply.field("content-length")), (200, Some("7")));
        }
    }
    assert_eq!(replica.state().connections, 1);
}

#[tokio::test]
async fn interim_answers_of_a_replica_are_not_the_answer() {
    let replica = Replica::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    );
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        let reply = caller.call(score(&[])).await;
        assert_eq!((reply.status, reply.text()), (200, "hi"));
    }
}
