//! `scorefront top`: what it says of a front end that has something to do, one that goes, and one that is not there.

use std::process::{Command, Output, Stdio};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Environment, FrontEnd, Lines, Process, SCOREFRONT, Stub, eventually, free_port, h2load, has, needs, write_secret,
};

fn command(front_end: &FrontEnd, arguments: &[&str]) -> Command {
    let mut command = Command::new(SCOREFRONT);
    command.args(["top", "--admin", &format!("http://{}", front_end.admin)]).args(arguments);
    command.env_remove("SCOREFRONT_ADMIN").env_remove("SCOREFRONT_ADMIN_TOKEN_FILE");
    command
}

/// The exit code and all it says.
fn said(output: &Output) -> (Option<i32>, String) {
    let streams = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned());
    (output.status.code(), streams.concat())
}

fn serving(replica: &Stub) -> FrontEnd {
    let environment = Environment::new().set("defaults.max_concurrent_requests_per_replica", 8);
    environment.service("iris", replica.address).service("idle", replica.address).serve()
}

#[test]
fn figures_are_those_of_the_interval() {
    needs!("h2load");
    let replica = Stub::start();
    let front_end = serving(&replica);
    thread::scope(|scope| {
        let load = scope.spawn(|| h2load(&front_end, "iris", &["--h1", "-n100000000", "-c8", "-D3"]));
        eventually("calls", || {
            let metric = "scorefront_requests_total{service=\"iris\",deployment=\"default\",class=\"2xx\"}";
            (front_end.metric(metric) > 100.0).then_some(())
        });
        let output = command(&front_end, &["-o", "json", "--interval", "500ms"]).output().expect("run");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let figures: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number in {figures}"));
        let iris = &figures["services"][0];
        assert_eq!(iris["name"], "iris", "the busiest comes first");
        assert!(number(&iris["requests_per_second"]) > 1.0, "{figures}");
        assert!(number(&iris["total_ms"]["p99"]) >= number(&iris["total_ms"]["p50"]), "{figures}");
        assert!(number(&iris["model_ms"]["p50"]) > 0.0, "{figures}");
        assert_eq!((number(&iris["replicas_ready"]), number(&iris["replicas_out"])), (1.0, 0.0));
        assert!(number(&figures["connections_open"]) >= 1.0, "{figures}");
        assert!(number(&figures["workers"][0]["busy_ratio"]) >= 0.0, "{figures}");
        let idle = &figures["services"][1];
        assert_eq!((&idle["name"], &idle["total_ms"]["p50"]), (&"idle".into(), &Value::Null));
        load.join().expect("h2load");
    });
}

#[test]
fn where_nobody_watches_it_is_one_table() {
    let replica = Stub::start();
    let front_end = serving(&replica);
    for arguments in [&["--interval", "100ms"][..], &["--interval", "100ms", "--once"]] {
        let (code, text) = said(&command(&front_end, arguments).output().expect("run"));
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("0.0 calls/s") && text.contains("\nthreads  0: "), "{text}");
        assert!(
            text.contains("\nSERVICE  CALLS/S  ERR/S") && text.contains("\niris ") && text.contains("\nidle "),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}

/// `script` is what gives a command a terminal.
#[test]
fn on_a_terminal_it_goes_on_also_after_the_front_end_has_gone() {
    if !has("script") {
        return;
    }
    let replica = Stub::start();
    let front_end = serving(&replica);
    let top = format!("{SCOREFRONT} top --admin http://{} --interval 100ms", front_end.admin);
    let mut script = Command::new("script");
    script.args(["-qefc", &top, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process::start_group(&mut script);
    let drawn = Lines::of(process.pipes().stdout.take().expect("a pipe"));
    drawn.wait_for("\u{1b}[H");
    drawn.wait_for("SERVICE  CALLS/S");
    front_end.process.signal(Signal::TERM);
    drawn.wait_for("Connection refused");
    process.kill();
}

#[test]
fn bad_input_and_nobody_there_are_told() {
    let replica = Stub::start();
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let run = |arguments: &[&str]| said(&Command::new(SCOREFRONT).arg("top").args(arguments).output().expect("run"));
    let (code, text) = run(&["--admin", &nowhere]);
    assert!(code == Some(1) && text.contains("is a front end running there?"), "{text}");
    // A model server is none.
    let (code, text) = run(&["--admin", &format!("http://{}", replica.address), "--once"]);
    assert!(code == Some(1) && text.contains("not the metrics of a front end"), "{text}");
    for arguments in [&["--interval", "0s"][..], &["--interval", "soon"], &["-o", "xml"], &["more"]] {
        assert_eq!(run(arguments).0, Some(2), "{arguments:?}");
    }

    let environment = Environment::new().set("admin.token_file", "admin.token");
    write_secret(&environment.file("admin.token"), "0123456789abcdef");
    let front_end = environment.serve();
    let (code, text) = said(&command(&front_end, &[]).output().expect("run"));
    assert!(code == Some(1) && text.contains("--token-file"), "{text}");
}
