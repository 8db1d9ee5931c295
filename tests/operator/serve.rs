//! `scorefront serve` through its life: starting, standing up to callers and to want, stopping.

use std::io::{Read, Write, pipe};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::harness::{
    CNAME, Environment, FrontEnd, H2load, PATIENCE, SCOREFRONT, Stub, eventually, h2load, http_get, needs, try_http_get,
};

const CALL: &[&str] = &["-d", "{}"];

/// As when a stop was asked for at once.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_bad_configuration_is_refused_with_what_check_says_of_it() {
    let environment = Environment::new().set("frontend.drain_timeot", "30s").set("limits.max_connections", "many");
    let checked = environment.run("check", &[]);
    let served = environment.run("serve", &[]);
    assert_eq!((served.status.code(), &*served.stdout), (Some(1), &b""[..]));
    let said = String::from_utf8_lossy(&served.stderr);
    for line in String::from_utf8_lossy(&checked.stdout).lines().filter(|line| line.contains(": error: ")) {
        assert!(said.lines().any(|said| said == line), "no {line:?} in {said}");
    }
}

#[test]
fn a_port_in_use_is_told_with_its_key_and_the_remedy() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    for (key, said_key) in [("frontend.https", "https"), ("frontend.http", "http"), ("admin.listen", "listen")] {
        let served = Environment::new().set(key, &*address).run("serve", &[]);
        let said = String::from_utf8_lossy(&served.stderr);
        assert_eq!(served.status.code(), Some(1), "{said}");
        for wanted in [&*format!("{said_key} = \"{address}\""), "Address already in use", "another port"] {
            assert!(said.contains(wanted), "{key}: no {wanted:?} in {said}");
        }
    }
}

/// SIGTERM in the midst of a load: whatever was taken is answered, and the process ends well.
fn stop_under_load(protocol: &[&str]) -> H2load {
    let replica = Stub::start();
    let environment = Environment::new().set("frontend.drain_grace", "300ms");
    let environment = environment.set("defaults.max_concurrent_requests_per_replica", 0);
    let front_end = environment.service("iris", replica.address).serve();
    let (load, exit) = thread::scope(|scope| {
        let load = scope.spawn(|| h2load(&front_end, "iris", &[&["-n200000", "-c64"], protocol].concat()));
        front_end.access.wait_for_count(300);
        front_end.stop();
        (load.join().expect("h2load"), front_end.process.exit_code())
    });
    assert_eq!(exit, Some(0));
    let lines = front_end.access.wait_for_end();
    for line in &lines {
        assert!(line.contains("\"status\":200") && line.contains("\"end\":\"complete\""), "{line}");
    }
    // Failed, to h2load, are also the calls for which it had no connection any more.
    assert_eq!(load.ok, lines.len(), "{}", load.output);
    front_end.events.wait_for("stopped; nothing was cut");
    load
}

#[test]
fn a_stop_under_load_fails_no_call_over_http_1() {
    needs!("h2load");
    let load = stop_under_load(&["--h1"]);
    // Over a connection that was made, the one request it was made for is answered.
    assert_eq!(load.ok, load.started, "{}", load.output);
}

#[test]
fn a_stop_under_load_fails_no_call_over_http_2() {
    needs!("h2load");
    // A stream begun when GOAWAY was on its way is refused, which tells the caller that it may ask elsewhere.
    stop_under_load(&["-m4"]);
}

#[test]
fn a_front_end_asked_to_stop_is_not_ready_but_takes_calls_until_the_grace_is_over() {
    needs!("curl");
    let replica = Stub::start();
    let environment = Environment::new().set("frontend.drain_grace", "60s");
    let front_end = environment.service("iris", replica.address).serve();
    assert_eq!(http_get(front_end.admin, "/readyz").0, 200);
    front_end.stop();
    eventually("not to be ready", || (http_get(front_end.admin, "/readyz").0 == 503).then_some(()));
    assert_eq!(http_get(front_end.admin, "/livez").0, 200);
    let answer = front_end.curl("iris/score", &[&["--http1.1"], CALL].concat());
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{answer:?}");
    assert_eq!(front_end.curl("iris/score", &[&["--http2"], CALL].concat()).status, 200);
}

/// One that sends its request at once, over a connection of its own, and what came back: all of it, or how it ended.
fn call_once(front_end: &FrontEnd) -> std::io::Result<TcpStream> {
    let mut caller = TcpStream::connect(front_end.http)?;
    caller.set_read_timeout(Some(PATIENCE))?;
    caller.write_all(b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    Ok(caller)
}

fn told(mut caller: TcpStream) -> std::io::Result<String> {
    let mut answer = String::new();
    caller.read_to_string(&mut answer).map(|_| answer)
}

#[test]
fn whoever_stands_in_the_queue_when_a_stop_is_asked_for_is_answered() {
    const QUEUE: usize = 600;

    let environment = Environment::new().set("tls.status", "Disabled").set("frontend.threads", 1);
    let front_end = environment.serve();
    // While it stands still the kernel completes their connections, and nobody accepts them.
    front_end.process.signal(Signal::STOP);
    let callers: Vec<_> = (0..QUEUE).map(|_| call_once(&front_end).expect("connect")).collect();
    front_end.process.signal(Signal::TERM);
    front_end.process.signal(Signal::CONT);
    for (index, caller) in callers.into_iter().enumerate() {
        let answer = told(caller).unwrap_or_else(|error| panic!("caller {index}: {error}"));
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with('}'), "caller {index}: {answer:?}");
    }
    assert_eq!(front_end.process.exit_code(), Some(0));
    assert_eq!(front_end.access.wait_for_end().len(), QUEUE);
}

#[test]
fn callers_who_keep_coming_during_a_stop_are_all_answered_or_not_taken() {
    const CALLERS: usize = 8;

    let environment = Environment::new().set("tls.status", "Disabled").set("frontend.drain_grace", "300ms");
    let front_end = environment.serve();
    let answered = thread::scope(|scope| {
        let callers = (0..CALLERS).map(|_| {
            scope.spawn(|| {
                let mut answered = 0;
                // Until a connection is refused or, having stood in the queue of the closed socket, reset.
                while let Ok(answer) = call_once(&front_end).and_then(told) {
                    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with('}'), "{answer:?}");
                    answered += 1;
                }
                answered
            })
        });
        let callers: Vec<_> = callers.collect();
        front_end.access.wait_for_count(300);
        front_end.stop();
        callers.into_iter().map(|caller| caller.join().expect("a caller")).sum::<usize>()
    });
    assert_eq!(front_end.process.exit_code(), Some(0));
    // None was answered, or thought to have been, that the other side does not know of.
    assert_eq!(front_end.access.wait_for_end().len(), answered);
    front_end.events.wait_for("stopped; nothing was cut");
}

#[test]
fn a_stop_takes_no_longer_because_nobody_reads_the_access_log() {
    needs!("h2load");
    let (reader, writer) = pipe().expect("a pipe");
    let front_end = Environment::new().serve_as(Command::new(SCOREFRONT).arg("serve").stdout(writer));
    // Long paths fill the lines: seven mebibytes of them.
    let load = h2load(&front_end, &"x".repeat(1_000), &["-n8000", "-c8", "-m4"]);
    assert_eq!(load.started, 8_000, "{}", load.output);
    let lost = || front_end.metric("scorefront_log_lines_dropped_total");
    eventually("as many lines to wait as can", || (lost() > 0.0).then_some(()));
    front_end.stop();
    // Nothing is in flight, so that there is nothing else to wait for.
    assert_eq!(front_end.process.exit_within(Duration::from_secs(4)).code(), Some(0));
    drop(reader);
}

/// A call that the replica will not answer in this test's time.
fn hang(front_end: &FrontEnd) -> crate::harness::Answer {
    front_end.curl("iris/score?delay_ms=60000", &["--http1.1", "-d", "{}"])
}

fn wait_for_call(front_end: &FrontEnd) {
    let in_flight = "scorefront_requests_in_flight{service=\"iris\",deployment=\"default\"}";
    eventually("a call in flight", || (front_end.metric(in_flight) > 0.0).then_some(()));
}

#[test]
fn a_second_signal_stops_at_once() {
    needs!("curl");
    for (setting, value) in [("frontend.drain_grace", "60s"), ("frontend.drain_timeout", "60s")] {
        let replica = Stub::start();
        let front_end = Environment::new().set(setting, value).service("iris", replica.address).serve();
        thread::scope(|scope| {
            let call = scope.spawn(|| hang(&front_end));
            wait_for_call(&front_end);
            front_end.stop();
            front_end.process.signal(Signal::INT);
            assert_eq!(front_end.process.exit_within(SOON).code(), Some(1), "{setting}");
            assert_eq!(call.join().expect("curl").status, 0);
        });
        front_end.events.wait_for("second signal");
    }
}

#[test]
fn drain_timeout_cuts_what_takes_longer_and_says_so() {
    needs!("curl");
    let replica = Stub::start();
    let environment = Environment::new().set("frontend.drain_timeout", "500ms");
    let front_end = environment.service("iris", replica.address).serve();
    thread::scope(|scope| {
        let call = scope.spawn(|| hang(&front_end));
        wait_for_call(&front_end);
        front_end.stop();
        assert_eq!(front_end.process.exit_within(SOON).code(), Some(1));
        assert_eq!(call.join().expect("curl").status, 0);
    });
    front_end.events.wait_for("stopped at drain_timeout");
    let lines = front_end.access.wait_for_end();
    assert!(lines.len() == 1 && !lines[0].contains("\"end\":\"complete\""), "{lines:?}");
}

#[test]
fn each_call_is_a_line_of_json_in_the_access_log() {
    needs!("curl");
    let replica = Stub::start();
    let front_end = Environment::new().service("iris", replica.address).serve();
    let line = |answer: crate::harness::Answer| -> Value {
        let line = front_end.access.wait_for(answer.header("x-ms-request-id").expect("an id"));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };

    let arguments = ["--http2", "-d", "12345", "-H", "x-ms-client-request-id: call-7"];
    let scored = line(front_end.curl("iris/score?secret=1", &arguments));
    for (field, value) in [
        ("client_id", Value::from("call-7")),
        ("host", format!("{CNAME}:{}", front_end.https.port()).into()),
        ("protocol", "HTTP/2".into()),
        ("tls", "1.3".into()),
        ("method", "POST".into()),
        ("path", "/api/v1/service/iris/score".into()),
        ("service", "iris".into()),
        ("deployment", "default".into()),
        ("replica", replica.address.to_string().into()),
        ("status", 200.into()),
        ("end", "complete".into()),
        ("request_bytes", 5.into()),
        ("response_bytes", "{\"bytes\":5}".len().into()),
    ] {
        assert_eq!(scored[field], value, "{field} in {scored}");
    }
    assert!(scored["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{scored}");
    assert!(scored["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{scored}");
    let millis = |field: &str| scored[field].as_f64().unwrap_or_else(|| panic!("no {field} in {scored}"));
    let stages = millis("queue_ms") + millis("connect_ms") + millis("model_ms");
    assert!(stages <= millis("total_ms"), "{scored}");
    assert!(!scored.to_string().contains("secret"), "{scored}");

    let refused = line(front_end.curl("none/score", CALL));
    assert_eq!((&refused["status"], &refused["code"]), (&404.into(), &"ServiceNotFound".into()), "{refused}");
    assert!(refused.get("service").is_none() && refused.get("replica").is_none(), "{refused}");
}

#[test]
fn every_log_event_is_a_line_of_json() {
    let front_end = Environment::new().serve();
    front_end.stop();
    assert_eq!(front_end.process.exit_code(), Some(0));
    for line in front_end.events.wait_for_end() {
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(event["timestamp"].is_string() && event["level"].is_string() && event["message"].is_string(), "{line}");
    }
}

#[test]
fn serving_goes_on_when_nobody_reads_the_access_log_any_more_and_lost_lines_are_counted() {
    needs!("curl");
    let replica = Stub::start();
    let environment = Environment::new().service("iris", replica.address);
    let (reader, writer) = pipe().expect("a pipe");
    let mut command = Command::new(SCOREFRONT);
    let front_end = environment.serve_as(command.arg("serve").stdout(writer));
    drop(reader);
    for _ in 0..3 {
        assert_eq!(front_end.curl("iris/score", CALL).status, 200);
    }
    let lost = || front_end.metric("scorefront_log_lines_dropped_total");
    eventually("lost lines to be counted", || (lost() >= 3.0).then_some(()));
}

#[test]
fn a_front_end_out_of_descriptors_lets_callers_wait_and_serves_them_later() {
    let replica = Stub::start();
    let environment = Environment::new().set("tls.status", "Disabled").service("iris", replica.address);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh", SCOREFRONT, "serve"]).stdout(Stdio::null());
    let front_end = environment.serve_as(&mut command);

    let mut callers: Vec<_> = (0..100).map(|_| TcpStream::connect(front_end.http).expect("connect")).collect();
    front_end.events.wait_for("cannot accept connections");
    // The admin listener waits too; those who were first make room.
    callers.drain(..70);
    let errors = eventually("the admin listener", || {
        let (_, metrics) = try_http_get(front_end.admin, "/metrics").ok()?;
        Some(crate::harness::metric_in(&metrics, "scorefront_accept_errors_total{cause=\"descriptors\"}"))
    });
    assert!(errors >= 1.0);
    // Until all are in and 70 out again, callers may hold the descriptors that connections to the replica need.
    let metric = |name: &str| front_end.metric(&format!("scorefront_connections_{name}"));
    eventually("room", || (metric("accepted_total") >= 100.0 && metric("open") <= 30.0).then_some(()));
    for (index, mut caller) in callers.into_iter().enumerate() {
        caller.set_read_timeout(Some(PATIENCE)).expect("set");
        let request =
            "POST /api/v1/service/iris/score HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
        caller.write_all(request.as_bytes()).expect("write");
        let mut answer = String::new();
        caller.read_to_string(&mut answer).expect("read");
        assert!(answer.starts_with("HTTP/1.1 200 "), "caller {index}: {answer}");
    }
}

/// Sends a head byte by byte, for ever; says how long it was let do so, and what it was told at the end.
async fn send_slowly(connector: TlsConnector, address: SocketAddr) -> (Duration, String) {
    let tcp = tokio::net::TcpStream::connect(address).await.expect("connect");
    let mut stream = connector.connect(ServerName::try_from(CNAME).expect("a name"), tcp).await.expect("a handshake");
    let begin = Instant::now();
    stream.write_all(b"POST /api/v1/service/iris/score HTTP/1.1\r\nx-slow: ").await.expect("write");
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut told = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let send = async {
        loop {
            tick.tick().await;
            if writer.write_all(b"x").await.is_err() || writer.flush().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _ = reader.read_to_end(&mut told) => {}
        () = send => {}
        () = tokio::time::sleep(PATIENCE) => panic!("still connected"),
    }
    (begin.elapsed(), String::from_utf8_lossy(&told).into_owned())
}

fn connector(environment: &Environment) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(environment.file("ca.pem")).expect("a certificate")).expect("a CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth()).into()
}

#[test]
fn callers_who_send_a_head_byte_by_byte_are_gone_after_the_timeout_while_scoring_goes_on() {
    const SLOW: usize = 200;

    needs!("h2load");
    let replica = Stub::start();
    let environment = Environment::new().set("limits.header_read_timeout", "2s");
    let front_end = environment.service("iris", replica.address).serve();
    let connector = connector(&front_end.environment);
    let address = front_end.https;
    let slow = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let callers: Vec<_> = (0..SLOW).map(|_| tokio::spawn(send_slowly(connector.clone(), address))).collect();
            let mut ends = Vec::new();
            for caller in callers {
                ends.push(caller.await.expect("a caller"));
            }
            ends
        })
    });
    eventually("slow callers", || (front_end.metric("scorefront_connections_open") > 50.0).then_some(()));
    let load = h2load(&front_end, "iris", &["-n500", "-c4"]);
    assert_eq!((load.ok, load.failed), (500, 0), "{}", load.output);

    let ends = slow.join().expect("slow callers");
    assert_eq!(ends.len(), SLOW);
    for (lasted, told) in &ends {
        assert!((Duration::from_millis(1_900)..Duration::from_secs(10)).contains(lasted), "{lasted:?}");
        assert!(told.starts_with("HTTP/1.1 408 "), "{told:?}");
    }
    let ended = || front_end.metric("scorefront_caller_timeouts_total{kind=\"header\"}");
    eventually("each of them to be counted", || (ended() >= 200.0).then_some(()));
    eventually("no connection to be left", || (front_end.metric("scorefront_connections_open") < 1.0).then_some(()));
}
