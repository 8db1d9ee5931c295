//! What operators and their machines ask.

use crate::support::{CNAME, Environment, Replica, SCORE, Step, get, post, score};

#[tokio::test]
async fn a_front_end_with_a_certificate_is_alive_and_ready() {
    let front = Environment::new().cname(CNAME).start();
    let live = front.admin("GET /livez HTTP/1.1").await;
    assert_eq!((live.status, live.text()), (200, "ok\n"));
    let ready = front.admin("GET /readyz HTTP/1.1").await;
    assert_eq!((ready.status, ready.text()), (200, "ready\n"));
}

#[tokio::test]
async fn without_a_certificate_it_is_ready_only_if_tls_is_disabled() {
    let front = Environment::new().start();
    let ready = front.admin("GET /readyz HTTP/1.1").await;
    assert_eq!((ready.status, ready.text()), (503, "not ready: no certificate is loaded\n"));
    assert_eq!(front.admin("GET /livez HTTP/1.1").await.status, 200);

    let plain = Environment::new().set("tls", "status = 'Disabled'").start();
    assert_eq!(plain.admin("GET /readyz HTTP/1.1").await.status, 200);
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let front = Environment::new().cname(CNAME).start();
    let unknown = front.admin("GET /metrics/x HTTP/1.1").await;
    assert_eq!((unknown.status, unknown.json()["error"]["code"].as_str()), (404, Some("NotFound")));
    for path in ["/livez", "/readyz", "/metrics", "/v1/replicas"] {
        let post = front.admin(&format!("POST {path} HTTP/1.1")).await;
        assert_eq!((post.status, post.field("allow")), (405, Some("GET,HEAD")));
    }
}

#[tokio::test]
async fn with_a_token_file_metrics_need_the_token_and_probes_do_not() {
    let environment = Environment::new().cname(CNAME);
    environment.write("admin.token", "0123456789abcdef\n");
    let front = environment.set("admin", "listen = '127.0.0.1:0'\ntoken_file = 'admin.token'").start();
    assert_eq!(front.admin("GET /livez HTTP/1.1").await.status, 200);
    assert_eq!(front.admin("GET /readyz HTTP/1.1").await.status, 200);
    for wrong in ["", "\r\nAuthorization: Bearer 0123456789abcdeX", "\r\nAuthorization: 0123456789abcdef"] {
        let reply = front.admin(&format!("GET /metrics HTTP/1.1{wrong}")).await;
        assert_eq!((reply.status, reply.field("www-authenticate")), (401, Some("Bearer")), "{wrong}");
    }
    let reply = front.admin("GET /metrics HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef").await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn it_may_listen_on_a_unix_socket_and_takes_it_away_in_the_end() {
    let environment = Environment::new().cname(CNAME);
    let socket = environment.path().join("admin.sock");
    // What a front end that was killed left behind is in nobody's way.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    let mut front = environment.set("admin", &format!("listen = 'unix:{}'", socket.display())).start();
    assert_eq!(front.admin("GET /livez HTTP/1.1").await.status, 200);
    front.stop(crate::support::PATIENCE).await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let replica = Replica::in_turn([
        vec![Step::Echo],
        vec![Step::Echo],
        vec![Step::ReadBody, Step::Send(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno".to_vec())],
        vec![Step::ReadBody, Step::Close],
    ]);
    let front = Environment::iris(&[&replica]).threads(2).start();
    let mut callers = front.both().await;
    for caller in &mut callers {
        assert_eq!(caller.call(post(SCORE, "four")).await.status, 200);
    }
    let [mut http1, mut http2] = callers;
    assert_eq!(http1.call(post(SCORE, "four")).await.status, 500);
    assert_eq!(http2.call(post(SCORE, "four")).await.status, 502);
    assert_eq!(http1.call(get("/nowhere")).await.status, 404);
    assert_eq!(http1.call(score(&[("x-request-timeout-ms", "x")])).await.status, 400);

    let iris = "service=\"iris\",deployment=\"default\"";
    let none = "service=\"\",deployment=\"\"";
    for (metric, value) in [
        (format!("requests_total{{{iris},class=\"2xx\"}}"), 2),
        (format!("requests_total{{{iris},class=\"5xx\"}}"), 2),
        (format!("requests_total{{{iris},class=\"4xx\"}}"), 0),
        (format!("requests_total{{{none},class=\"4xx\"}}"), 2),
        (format!("refusals_total{{{iris},code=\"ReplicaClosed\"}}"), 1),
        (format!("refusals_total{{{none},code=\"NotFound\"}}"), 1),
        (format!("refusals_total{{{none},code=\"BadRequest\"}}"), 1),
        (format!("request_body_bytes_total{{{iris}}}"), 16),
        (format!("requests_in_flight{{{iris}}}"), 0),
        (format!("requests_in_flight{{{none}}}"), 0),
        (format!("request_duration_seconds_count{{{iris}}}"), 4),
        (format!("request_duration_seconds_bucket{{le=\"+Inf\",{iris}}}"), 4),
        (format!("model_duration_seconds_count{{{iris}}}"), 3),
        (format!("overhead_seconds_count{{{iris}}}"), 3),
        ("connections_accepted_total".to_owned(), 2),
        ("connections_open".to_owned(), 2),
        ("tls_handshakes_total{version=\"1.3\",outcome=\"full\"}".to_owned(), 2),
    ] {
        front.until_metric(&metric, value).await;
    }
    let metrics = front.admin("GET /metrics HTTP/1.1").await;
    assert_eq!(metrics.field("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(metrics.text().ends_with("# EOF\n"));
    let expiry =
        metrics.text().lines().find(|line| line.starts_with("scorefront_certificate_not_after_timestamp_seconds{"));
    assert!(expiry.is_some_and(|line| line.contains(&format!("cname=\"{CNAME}\""))), "{expiry:?}");
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_request() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    front.http1().await.call(post(&format!("{SCORE}?secret=1"), "four")).await;
    front.http2().await.call(score(&[("x-ms-client-request-id", "mine")])).await;
    front.http1().await.call(get("/nowhere")).await;
    let lines = front.log_lines(3).await;
    let [first, second, third] = &lines[..] else { panic!("three lines: {lines:?}") };
    for (key, value) in [
        ("host", CNAME),
        ("protocol", "HTTP/1.1"),
        ("tls", "1.3"),
        ("method", "POST"),
        ("path", SCORE),
        ("service", "iris"),
        ("deployment", "default"),
        ("replica", &replica.address.to_string()),
        ("end", "complete"),
    ] {
        assert_eq!(first[key], value);
    }
    assert_eq!(
        (&first["status"], &first["request_bytes"], &first["response_bytes"]),
        (&200.into(), &4.into(), &4.into())
    );
    assert_eq!((&second["protocol"], &second["client_id"]), (&"HTTP/2".into(), &"mine".into()));
    assert_eq!((&third["status"], &third["code"]), (&404.into(), &"NotFound".into()));
    assert!(lines.iter().all(|line| !line.to_string().contains("secret")), "queries may hold anything");
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_counted_and_logged_like_any_other() {
    let front = Environment::new().cname(CNAME).threads(2).start();
    let mut ids = Vec::new();
    for bytes in ["GARBAGE\r\n\r\n", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"] {
        let reply = front.wire().await.ask(bytes).await;
        assert_eq!(reply.refusal(), (400, "BadRequest".to_owned()));
        ids.push(reply.field("x-ms-request-id").expect("an id").to_owned());
    }
    assert_eq!(front.http1().await.call(get("/nowhere")).await.status, 404);

    let none = "service=\"\",deployment=\"\"";
    for (metric, value) in [
        (format!("requests_total{{{none},class=\"4xx\"}}"), 3),
        (format!("request_duration_seconds_count{{{none}}}"), 3),
        (format!("refusals_total{{{none},code=\"BadRequest\"}}"), 2),
        (format!("requests_in_flight{{{none}}}"), 0),
    ] {
        front.until_metric(&metric, value).await;
    }

    let lines = front.log_lines(3).await;
    assert_eq!(lines.len(), 3, "{lines:?}");
    for id in ids {
        let line = lines.iter().find(|line| line["id"] == *id).unwrap_or_else(|| panic!("no {id} in {lines:?}"));
        assert_eq!((&line["status"], &line["code"]), (&400.into(), &"BadRequest".into()), "{line}");
        assert_eq!(line["tls"], "1.3", "{line}");
        assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
        assert!(line["time"].is_string(), "{line}");
        for unknown in ["method", "path", "protocol", "host", "service"] {
            assert_eq!(line.get(unknown), None, "{line}");
        }
    }
}

#[tokio::test]
async fn of_a_path_longer_than_a_kibibyte_the_first_kibibyte_is_logged() {
    let front = Environment::new().cname(CNAME).start();
    let path = |length: usize| format!("/nowhere/{}", "x".repeat(length - "/nowhere/".len()));
    for length in [1_024, 1_025, 60_000] {
        assert_eq!(front.http1().await.call(get(&path(length))).await.status, 404);
    }
    assert_eq!(front.http2().await.call(get(&path(10_000))).await.status, 404);
    for line in front.log_lines(4).await {
        assert_eq!(line["path"].as_str().map(str::len), Some(1_024));
        assert_eq!(line["path"], path(1_024), "the first of it");
    }
}

#[tokio::test]
async fn a_long_path_is_cut_also_where_a_kibibyte_ends_within_a_character() {
    let front = Environment::new().cname(CNAME).start();
    // Over HTTP/1 these bytes are refused.
    let path = format!("/{}{}", "x".repeat(1_022), "\u{e9}".repeat(5_000));
    assert!(!path.is_char_boundary(1_024));
    let reply = front.http2().await.call(get(&path)).await;
    assert!((400..500).contains(&reply.status), "{reply:?}");
    let lines = front.log_lines(1).await;
    let logged = lines[0]["path"].as_str().expect("a path");
    assert!(logged.len() <= 1_024 && logged.len() > 1_020, "{} bytes", logged.len());
}
