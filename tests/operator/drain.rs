//! `scorefront drain`: a front end that is asked to go goes in good order, and whoever asked is told.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Environment, FrontEnd, Process, SCOREFRONT, Stub, eventually, free_port, http_get, needs, write_secret,
};

const CALL: &[&str] = &["-d", "{}"];

fn command(front_end: &FrontEnd, arguments: &[&str]) -> Command {
    let mut command = Command::new(SCOREFRONT);
    command.args(["drain", "--admin", &format!("http://{}", front_end.admin)]).args(arguments);
    command.env_remove("SCOREFRONT_ADMIN").env_remove("SCOREFRONT_ADMIN_TOKEN_FILE");
    command
}

fn drain(front_end: &FrontEnd, arguments: &[&str]) -> Output {
    command(front_end, arguments).output().expect("run")
}

/// The exit code and all it says.
fn said(output: &Output) -> (Option<i32>, String) {
    let streams = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned());
    (output.status.code(), streams.concat())
}

fn state(front_end: &FrontEnd) -> Value {
    serde_json::from_str(&http_get(front_end.admin, "/v1/drain").1).expect("JSON")
}

#[test]
fn what_is_in_flight_is_answered_and_then_it_has_ended() {
    needs!("curl");
    let replica = Stub::start();
    let front_end = Environment::new().service("iris", replica.address).serve();
    assert_eq!((&state(&front_end)["phase"], &state(&front_end)["requests_in_flight"]), (&"running".into(), &0.into()));
    let output = thread::scope(|scope| {
        let call = scope.spawn(|| front_end.curl("iris/score?delay_ms=1500", CALL));
        eventually("a call in flight", || (state(&front_end)["requests_in_flight"] == 1).then_some(()));
        let output = drain(&front_end, &[]);
        assert_eq!(call.join().expect("curl").status, 200);
        output
    });
    let (code, text) = said(&output);
    assert!(code == Some(0) && text.contains("1 in flight") && text.contains("ended after"), "{text}");
    assert_eq!(front_end.process.exit_code(), Some(0));
    front_end.events.wait_for("stopped; nothing was cut");
    assert!(front_end.events.wait_for("scorefront::audit").contains("/v1/drain"));
    assert!(front_end.process.status().is_some());
}

#[test]
fn what_takes_longer_than_the_limit_is_cut_and_told() {
    needs!("curl");
    let replica = Stub::start();
    let environment = Environment::new().set("frontend.drain_timeout", "300ms");
    let front_end = environment.service("iris", replica.address).serve();
    thread::scope(|scope| {
        let call = scope.spawn(|| front_end.curl("iris/score?delay_ms=20000", CALL));
        eventually("a call in flight", || (state(&front_end)["requests_in_flight"] == 1).then_some(()));
        let output = drain(&front_end, &["-o", "json"]);
        assert_ne!(call.join().expect("curl").status, 200);
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((output.status.code(), &told["requests_cut"]), (Some(1), &1.into()));
    });
    assert_eq!(front_end.process.exit_code(), Some(1));
    assert!(front_end.access.wait_for("\"end\":\"cut\"").contains("iris"), "it is no fault of the caller");
}

/// What `drain` says of a front end with a call in flight to which `meanwhile` is done, and how the call was answered. It
/// takes a moment or, if it is slow, longer than anybody waits.
fn drained(is_slow: bool, meanwhile: impl FnOnce(&FrontEnd)) -> (Option<i32>, String, u64) {
    let replica = Stub::start();
    let environment = Environment::new().set("frontend.drain_timeout", "60s");
    let front_end = environment.service("iris", replica.address).serve();
    thread::scope(|scope| {
        let path = if is_slow { "iris/score?delay_ms=20000" } else { "iris/score?delay_ms=1500" };
        let call = scope.spawn(|| front_end.curl(path, CALL));
        eventually("a call in flight", || (state(&front_end)["requests_in_flight"] == 1).then_some(()));
        let watching = scope.spawn(|| said(&drain(&front_end, &[])));
        eventually("it drains", || (state(&front_end)["phase"] != "running").then_some(()));
        meanwhile(&front_end);
        let (code, text) = watching.join().expect("drain");
        (code, text, call.join().expect("curl").status)
    })
}

#[test]
fn a_call_that_is_cut_before_its_time_is_told_too() {
    needs!("curl");
    let (code, text, status) = drained(true, |front_end| {
        for told in ["stopping already", "second signal"] {
            front_end.process.signal(Signal::TERM);
            front_end.events.wait_for(told);
        }
    });
    assert!(code == Some(1) && text.contains("1 calls were cut") && status != 200, "{text}");
}

#[test]
fn one_that_is_killed_has_not_answered_every_call() {
    needs!("curl");
    let (code, text, status) = drained(true, |front_end| front_end.process.signal(Signal::KILL));
    assert!(code == Some(1) && text.contains("was it killed? 1 calls were in flight") && status != 200, "{text}");
}

#[test]
fn whoever_comes_later_is_told_as_well_and_new_times_are_for_the_next_stop() {
    needs!("curl");
    let (code, text, status) = drained(false, |front_end| {
        let file = front_end.environment.file("scorefront.toml");
        let changed = std::fs::read_to_string(&file).expect("read").replace("\"60s\"", "\"1ms\"");
        std::fs::write(&file, changed).expect("written");
        assert_eq!(http_get(front_end.admin, "/v1/drain").0, 200);
        let (code, text) = said(&drain(front_end, &[]));
        assert!(code == Some(0) && text.contains("every call was answered"), "{text}");
    });
    assert!(code == Some(0) && text.contains("every call was answered") && status == 200, "{text}");
}

#[test]
fn a_connection_without_a_call_is_nothing_that_could_be_cut() {
    let environment = Environment::new().set("frontend.drain_timeout", "50ms");
    let front_end = environment.set("frontend.proxy_protocol_from", vec!["127.0.0.1".to_owned()]).serve();
    // One that says nothing, and one whose question is not whole.
    let _silent = TcpStream::connect(front_end.https).expect("a connection");
    let mut half = TcpStream::connect(front_end.admin).expect("a connection");
    half.write_all(b"GET /met").expect("sent");
    let begun = Instant::now();
    front_end.process.signal(Signal::TERM);
    assert_eq!(front_end.process.exit_code(), Some(0));
    assert!(begun.elapsed() < Duration::from_millis(900), "nobody was waited for: {:?}", begun.elapsed());
    front_end.events.wait_for("stopped; nothing was cut");
}

#[test]
fn on_a_terminal_it_is_seen_while_it_goes_on() {
    needs!("curl");
    needs!("script");
    let replica = Stub::start();
    let front_end = Environment::new().service("iris", replica.address).serve();
    thread::scope(|scope| {
        let call = scope.spawn(|| front_end.curl("iris/score?delay_ms=1500", CALL));
        eventually("a call in flight", || (state(&front_end)["requests_in_flight"] == 1).then_some(()));
        let drain = format!("{SCOREFRONT} drain --admin http://{}", front_end.admin);
        let mut script = Command::new("script");
        script.args(["-qefc", &drain, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start_group(&mut script);
        let mut pipe = process.pipes().stdout.take().expect("a pipe");
        let (mut drawn, mut space) = (Vec::new(), [0; 1024]);
        while !String::from_utf8_lossy(&drawn).contains("1 in flight") {
            let read = pipe.read(&mut space).expect("read");
            assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&drawn));
            drawn.extend_from_slice(&space[..read]);
        }
        assert!(!String::from_utf8_lossy(&drawn).contains("ended"), "it was seen only then");
        assert_eq!(call.join().expect("curl").status, 200);
        pipe.read_to_end(&mut drawn).expect("read");
        assert!(String::from_utf8_lossy(&drawn).contains("every call was answered"));
    });
}

#[test]
fn it_is_not_ready_at_once_and_who_does_not_wait_is_told_how_it_stands() {
    let front_end = Environment::new().set("frontend.drain_grace", "60s").serve();
    let output = drain(&front_end, &["--no-wait", "-o", "json"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &told["phase"]), (Some(0), &"draining".into()));
    assert_eq!((&told["drain_grace_ms"], &told["drain_timeout_ms"]), (&60_000.into(), &30_000.into()));
    assert_eq!(http_get(front_end.admin, "/readyz"), (503, "not ready: shutting down\n".to_owned()));
    // Asked again it goes on.
    let (code, text) = said(&drain(&front_end, &["--no-wait"]));
    assert!(code == Some(0) && text.starts_with("not ready; connections are taken for 60s"), "{text}");

    // Whoever drained it then stops it, as a service manager does. Only the second signal is in a hurry.
    front_end.process.signal(Signal::TERM);
    front_end.events.wait_for("stopping already");
    assert!(http_get(front_end.admin, "/livez").0 == 200);
    front_end.process.signal(Signal::TERM);
    assert_eq!(front_end.process.exit_code(), Some(1));
}

#[test]
fn a_token_is_asked_for() {
    let environment = Environment::new().set("admin.token_file", "admin.token");
    write_secret(&environment.file("admin.token"), "0123456789abcdef");
    let front_end = environment.serve();
    let (code, text) = said(&drain(&front_end, &[]));
    assert!(code == Some(1) && text.contains("--token-file"), "{text}");
    assert_eq!(http_get(front_end.admin, "/readyz").0, 200, "nothing was begun");
    let token = front_end.environment.file("admin.token");
    let (code, text) = said(&drain(&front_end, &["--token-file", token.to_str().expect("UTF-8")]));
    assert!(code == Some(0) && text.contains("ended after"), "{text}");
}

#[test]
fn where_nobody_is_there_is_nothing_to_drain() {
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let output = Command::new(SCOREFRONT).args(["drain", "--admin", &nowhere]).output().expect("run");
    let (code, text) = said(&output);
    assert!(code == Some(1) && text.contains("is a front end running there?"), "{text}");
    for arguments in [&["drain", "--admin", &nowhere, "now"][..], &["drain", "-o", "xml"]] {
        let output = Command::new(SCOREFRONT).args(arguments).output().expect("run");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
