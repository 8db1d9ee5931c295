//! `scorefront reload` and SIGHUP: how operators have a running front end read its files, and what they are told.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    CNAME, Environment, FrontEnd, Lines, OTHER_CNAME, Process, SCOREFRONT, eventually, free_port, http_get,
    write_secret,
};

const TOKEN: &str = "0123456789abcdef";

/// Notices nothing but what it is told.
fn asked() -> Environment {
    Environment::new().set("reload.watch", false).set("reload.poll_interval", "1h")
}

/// Serves, and has had its first look at what changed since it opened its files.
fn serving(environment: Environment) -> FrontEnd {
    let front_end = environment.serve();
    http_get(front_end.admin, "/metrics");
    front_end
}

fn scorefront(arguments: &[&str]) -> Output {
    let mut command = Command::new(SCOREFRONT);
    command.args(arguments).env_remove("SCOREFRONT_ADMIN").env_remove("SCOREFRONT_ADMIN_TOKEN_FILE");
    command.output().expect("run")
}

/// `scorefront reload --admin URL ARGUMENTS`.
fn reload(front_end: &FrontEnd, arguments: &[&str]) -> Output {
    let url = format!("http://{}", front_end.admin);
    scorefront(&[&["reload", "--admin", &url], arguments].concat())
}

/// The exit code and all it says.
fn said(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned());
    format!("exit {}\n{}", output.status.code().expect("a code"), streams.concat())
}

/// The same for every front end and every certificate.
fn fixed(said: &str, front_end: &FrontEnd) -> String {
    let said = said.replace(front_end.environment.path().to_str().expect("UTF-8"), "ENV");
    let serial = |word: &str| word.len() >= 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = said.split_inclusive([' ', ')', '\n']).map(|word| {
        let bare = word.trim_end_matches([' ', ')', '\n']);
        if serial(bare) { word.replace(bare, "SERIAL") } else { word.to_owned() }
    });
    words.collect()
}

macro_rules! assert_says {
    ($name:expr, $said:expr) => {
        insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!($name, $said);
        });
    };
}

#[test]
fn reload_says_what_was_taken_and_what_was_not() {
    let front_end = serving(asked());
    front_end.environment.write_pair(CNAME, |_| {});
    assert_says!("reload-taken", fixed(&said(&reload(&front_end, &[])), &front_end));
    assert_says!("reload-unchanged", fixed(&said(&reload(&front_end, &[])), &front_end));
    fs::remove_file(front_end.environment.file(&format!("certs/{CNAME}/key.pem"))).expect("remove");
    front_end.environment.write_pair(OTHER_CNAME, |_| {});
    assert_says!("reload-refused", fixed(&said(&reload(&front_end, &[])), &front_end));
    let toml = front_end.environment.file("scorefront.toml");
    let text = fs::read_to_string(&toml).expect("read");
    fs::write(&toml, format!("{text}\n[[service]]\nname = \"iris\"\n")).expect("write");
    assert_says!("reload-configuration-refused", fixed(&said(&reload(&front_end, &[])), &front_end));
}

#[test]
fn settings_that_wait_for_a_restart_are_named() {
    let front_end = serving(asked());
    let toml = front_end.environment.file("scorefront.toml");
    let text = fs::read_to_string(&toml).expect("read");
    fs::write(&toml, format!("frontend.threads = 3\n{text}")).expect("write");
    let text = said(&reload(&front_end, &[]));
    assert!(text.contains("holds after a restart only: frontend.threads\n"), "{text}");
    let json: Value = serde_json::from_slice(&reload(&front_end, &["-o", "json"]).stdout).expect("JSON");
    assert_eq!(json["waits_for_restart"], serde_json::json!(["frontend.threads"]));
}

#[test]
fn programs_get_json() {
    let front_end = serving(asked());
    let row = |output: &Output| -> Value {
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        report["certificates"].as_array().expect("a list")[0].clone()
    };
    let unchanged = reload(&front_end, &["-o", "json"]);
    assert_eq!((unchanged.status.code(), &row(&unchanged)["result"]), (Some(0), &"unchanged".into()));
    front_end.environment.write_pair(CNAME, |_| {});
    let taken = reload(&front_end, &["--output", "json"]);
    assert_eq!((taken.status.code(), &row(&taken)["result"]), (Some(0), &"taken".into()));
    assert_eq!(row(&taken)["replaced_serial"], row(&unchanged)["serial"]);
    assert_ne!(row(&taken)["serial"], row(&unchanged)["serial"]);
    fs::write(front_end.environment.file(&format!("certs/{CNAME}/key.pem")), "no key").expect("write");
    let refused = reload(&front_end, &["-o", "json"]);
    assert_eq!((refused.status.code(), &row(&refused)["result"]), (Some(1), &"refused".into()));
    assert!(row(&refused)["errors"][0].as_str().is_some_and(|error| error.contains("key.pem")));
}

#[test]
fn where_no_front_end_runs_that_is_said() {
    let port = free_port();
    let nowhere = scorefront(&["reload", "--admin", &format!("http://127.0.0.1:{port}")]);
    let text = said(&nowhere);
    assert!(text.starts_with("exit 1\n"), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("is a front end running there?"), "{text}");

    let socket = scorefront(&["reload", "--admin", "unix:/nowhere/admin.sock"]);
    let text = said(&socket);
    assert!(text.starts_with("exit 1\n") && text.contains("/nowhere/admin.sock"), "{text}");

    let missing = scorefront(&["reload", "--config", "/nowhere/scorefront.toml"]);
    let text = said(&missing);
    assert!(text.starts_with("exit 1\n") && text.contains("/nowhere/scorefront.toml"), "{text}");
}

#[test]
fn an_address_that_is_none_is_told_and_wrong_usage_exits_2() {
    let text = said(&scorefront(&["reload", "--admin", "https://nowhere"]));
    assert!(
        text.starts_with("exit 1\n") && text.contains("expected http://ADDRESS:PORT, https://NAME:PORT or unix:PATH"),
        "{text}"
    );
    for arguments in [
        &["reload", "--admin", "http://127.0.0.1:1", "--config", "a"][..],
        &["reload", "--config", "a", "--env", "b"],
        &["reload", "-o", "xml"],
        &["reload", "more"],
    ] {
        assert_eq!(scorefront(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_front_end_that_asks_for_a_token_gets_it_from_a_file() {
    let environment = asked().set("admin.token_file", "admin.token");
    write_secret(&environment.file("admin.token"), &format!("{TOKEN}\n"));
    let front_end = environment.serve();
    let file = |name: &str| front_end.environment.file(name).to_str().expect("UTF-8").to_owned();

    let without = said(&reload(&front_end, &[]));
    assert!(without.starts_with("exit 1\n") && without.contains("asks for a token; --token-file"), "{without}");
    write_secret(&front_end.environment.file("wrong.token"), "fedcba9876543210");
    let wrong = said(&reload(&front_end, &["--token-file", &file("wrong.token")]));
    assert!(wrong.starts_with("exit 1\n") && wrong.contains("token"), "{wrong}");
    assert!(!wrong.contains("fedcba9876543210"), "{wrong}");
    let missing = said(&reload(&front_end, &["--token-file", &file("missing.token")]));
    assert!(missing.starts_with("exit 1\n") && missing.contains("missing.token"), "{missing}");
    let right = said(&reload(&front_end, &["--token-file", &file("admin.token")]));
    assert!(right.starts_with("exit 0\nconfiguration: unchanged\n"), "{right}");
}

/// A front end whose admin address is a socket, and what it writes to standard error.
fn serve_on_socket(config: &Path) -> (Process, Lines) {
    let mut command = Command::new(SCOREFRONT);
    command.args(["serve", "--config"]).arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = Process::start(&mut command);
    let events = Lines::of(process.pipes().stderr.take().expect("a pipe"));
    events.wait_for("\"serving\"");
    (process, events)
}

#[test]
fn the_configuration_or_the_environment_says_where_the_front_end_is() {
    let environment = asked();
    let socket = environment.file("admin.sock");
    let environment =
        environment.set("admin.listen", format!("unix:{}", socket.display())).set("admin.token_file", "admin.token");
    write_secret(&environment.file("admin.token"), TOKEN);
    let config = environment.config();
    let (_process, _events) = serve_on_socket(&config);
    let config = config.to_str().expect("UTF-8");
    let directory = environment.path().to_str().expect("UTF-8");
    for arguments in [["--config", config], ["--env", directory]] {
        let text = said(&scorefront(&["reload", arguments[0], arguments[1]]));
        assert!(text.starts_with("exit 0\nconfiguration: unchanged\n"), "{arguments:?}: {text}");
    }
    let (url, token) = (format!("unix:{}", socket.display()), environment.file("admin.token"));
    let token = token.to_str().expect("UTF-8");
    let text = said(&scorefront(&["reload", "--admin", &url, "--token-file", token]));
    assert!(text.starts_with("exit 0\n"), "{text}");
    // What programs set once for all commands.
    let mut command = Command::new(SCOREFRONT);
    command.arg("reload").env("SCOREFRONT_ADMIN", &url).env("SCOREFRONT_ADMIN_TOKEN_FILE", token);
    assert_eq!(command.output().expect("run").status.code(), Some(0));
}

/// The lines of a level that were written so far.
fn lines_of(front_end: &FrontEnd, level: &str) -> Vec<Value> {
    let lines = front_end.events.wait_until("lines", |lines| Some(lines.to_vec()));
    let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    lines.filter(|line| line["level"] == level).collect()
}

#[test]
fn a_hangup_has_every_file_read_and_the_log_names_the_old_and_the_new_serial() {
    let front_end = serving(asked());
    let before: Value = serde_json::from_str(&http_get(front_end.admin, "/v1/certificates").1).expect("JSON");
    front_end.environment.write_pair(CNAME, |_| {});
    front_end.process.signal(Signal::HUP);
    front_end.events.wait_for("SIGHUP: every file was read");
    let taken: Value = serde_json::from_str(&front_end.events.wait_for("\"certificate taken\"")).expect("JSON");
    let after: Value = serde_json::from_str(&http_get(front_end.admin, "/v1/certificates").1).expect("JSON");
    let serial = |rows: &Value| rows["certificates"][0]["serial"].clone();
    assert_eq!((&taken["cname"], &taken["level"]), (&CNAME.into(), &"INFO".into()), "{taken}");
    assert_eq!((&taken["old_serial"], &taken["new_serial"]), (&serial(&before), &serial(&after)), "{taken}");
    assert_ne!(serial(&before), serial(&after));
    // It goes on serving: a hangup is no stop.
    front_end.process.signal(Signal::HUP);
    eventually("a second look", || {
        let looks = lines_of(&front_end, "INFO").iter().filter(|line| line.to_string().contains("SIGHUP")).count();
        (looks == 2).then_some(())
    });
    assert_eq!(http_get(front_end.admin, "/readyz").0, 200);
}

#[test]
fn a_half_written_pair_is_one_line_in_the_log_however_often_it_is_looked_at() {
    let front_end = serving(Environment::new());
    let key = front_end.environment.file(&format!("certs/{CNAME}/key.pem"));
    let old = fs::read_to_string(&key).expect("read");
    front_end.environment.write_pair(CNAME, |_| {});
    let new = fs::read_to_string(&key).expect("read");
    front_end.events.wait_for("\"certificate taken\"");
    // The key of before: as when only the certificate was written.
    write_secret(&key, &old);
    let line: Value =
        serde_json::from_str(&front_end.events.wait_for("not taken, what was there before goes on")).expect("JSON");
    assert_eq!(line["level"], "ERROR", "{line}");
    for _ in 0..3 {
        assert_eq!(reload(&front_end, &[]).status.code(), Some(1));
        // Written again with nothing new in it.
        write_secret(&key, &old);
    }
    write_secret(&key, &new);
    eventually("it is as it should be", || (reload(&front_end, &[]).status.code() == Some(0)).then_some(()));
    let errors = lines_of(&front_end, "ERROR");
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(!format!("{errors:?}").contains(new.lines().nth(1).expect("a line of the key")));
}
