//! `scorefront drain`: a front end that is asked to go goes in good order, and whoever asked is told.

use std::process::{Command, Output};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Environment, FrontEnd, SCOREFRONT, Stub, eventually, free_port, http_get, needs, write_secret};

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
        assert_eq!((&told["ended"], &told["started_again"]), (&true.into(), &false.into()));
    });
    assert_eq!(front_end.process.exit_code(), Some(1));
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
