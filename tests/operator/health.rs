//! `scorefront health`: what a container's health check hears.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

use crate::harness::{Environment, SCOREFRONT, eventually, http_get, write_secret};

const TOKEN: &str = "0123456789abcdef";

fn health(arguments: &[&str]) -> Output {
    let mut command = Command::new(SCOREFRONT);
    command.arg("health").args(arguments).env_remove("SCOREFRONT_ADMIN").env_remove("SCOREFRONT_ADMIN_TOKEN_FILE");
    command.output().expect("run")
}

/// The exit code and all it says.
fn said(output: &Output) -> (Option<i32>, String) {
    let streams = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned());
    (output.status.code(), streams.concat())
}

#[test]
fn it_says_ready_and_why_not() {
    let front_end = Environment::new().set("frontend.drain_grace", "60s").serve();
    let url = format!("http://{}", front_end.admin);
    assert_eq!(said(&health(&["--admin", &url])), (Some(0), "ready\n".to_owned()));
    front_end.stop();
    eventually("not to be ready", || (http_get(front_end.admin, "/readyz").0 == 503).then_some(()));
    assert_eq!(said(&health(&["--admin", &url])), (Some(1), "not ready: shutting down\n".to_owned()));
    assert_eq!(said(&health(&["--admin", &url, "--live"])), (Some(0), "ok\n".to_owned()));
}

#[test]
fn it_needs_no_token_and_finds_the_address_in_the_files_or_in_the_variable() {
    let environment = Environment::new().set("admin.token_file", "token");
    write_secret(&environment.file("token"), TOKEN);
    let front_end = environment.serve();
    let address = format!("http://{}", front_end.admin);
    // In the files the port is still the one that was free.
    let config = front_end.environment.file("scorefront.toml");
    let text = fs::read_to_string(&config).expect("read");
    fs::write(
        &config,
        text.replace("admin.listen = \"127.0.0.1:0\"", &format!("admin.listen = \"{}\"", front_end.admin)),
    )
    .expect("write");
    assert_eq!(said(&health(&["--config", config.to_str().expect("UTF-8")])), (Some(0), "ready\n".to_owned()));
    let mut command = Command::new(SCOREFRONT);
    let output = command.arg("health").env("SCOREFRONT_ADMIN", &address).output().expect("run");
    assert_eq!(said(&output), (Some(0), "ready\n".to_owned()));
}

#[test]
fn where_nobody_answers_it_fails_in_time() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    let url = format!("http://{}", silent.local_addr().expect("address"));
    let (code, text) = said(&health(&["--admin", &url, "--timeout", "100ms"]));
    assert!(code == Some(1) && text.contains("no answer within 100ms"), "{text}");
    drop(silent);
    let (code, text) = said(&health(&["--admin", &url]));
    assert!(code == Some(1) && text.contains("Connection refused"), "{text}");
    assert_eq!(said(&health(&["--timeout", "soon"])).0, Some(2));
}
