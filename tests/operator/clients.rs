//! Callers as they come: curl in all its versions of HTTP and TLS, openssl `s_client`, bodies without end.

use std::fs;
use std::io::Write;
use std::process::ChildStdin;

use crate::harness::{CNAME, Environment, FrontEnd, OTHER_CNAME, Stub, needs, openssl};

const MIB: u64 = 1024 * 1024;

/// What a test needs to be up for as long as it runs.
struct Served {
    front_end: FrontEnd,
    _replica: Stub,
}

fn served(max_body: &str) -> Served {
    served_by(Environment::new(), max_body)
}

/// One thread, whose buffers and heap are there after the first call, whichever it is.
fn served_by_one_thread() -> Served {
    served_by(Environment::new().set("frontend.threads", 1), "2GiB")
}

fn served_by(environment: Environment, max_body: &str) -> Served {
    let replica = Stub::start();
    let environment = environment.set("defaults.max_body", max_body);
    Served { front_end: environment.service("iris", replica.address).serve(), _replica: replica }
}

/// Writes zeros until there were `length`, or curl wants no more.
fn zeros(length: u64) -> impl FnOnce(ChildStdin) {
    let chunk = vec![0; 64 * 1024];
    move |mut stdin| {
        let chunks = length / chunk.len() as u64;
        let _ = (0..chunks).try_for_each(|_| stdin.write_all(&chunk));
    }
}

const UPLOAD: &[&str] = &["-X", "POST", "-T", "-", "-H", "content-type: application/octet-stream"];

#[test]
fn curl_scores_over_every_version_of_http_and_tls() {
    needs!("curl");
    let Served { front_end, .. } = &served("1MiB");
    for (arguments, version, protocol, tls) in [
        (&["--http1.0"][..], "1", "HTTP/1.0", "1.3"),
        (&["--http1.1"], "1.1", "HTTP/1.1", "1.3"),
        (&["--http2"], "2", "HTTP/2", "1.3"),
        (&["--tls-max", "1.2"], "2", "HTTP/2", "1.2"),
        (&["--http1.1", "--tls-max", "1.2"], "1.1", "HTTP/1.1", "1.2"),
        (&["--tlsv1.3"], "2", "HTTP/2", "1.3"),
    ] {
        let answer = front_end.curl("iris/score", &[arguments, &["-d", "five!"]].concat());
        assert_eq!((answer.exit, answer.status, &*answer.body), (Some(0), 200, "{\"bytes\":5}"), "{answer:?}");
        let line = front_end.access.wait_for(answer.header("x-ms-request-id").expect("an id"));
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&line["protocol"], &line["tls"]), (&protocol.into(), &tls.into()), "{arguments:?}");
        assert!(answer.version.starts_with(version), "{arguments:?}: {answer:?}");
    }
}

#[test]
fn tls_1_2_is_refused_when_1_3_is_the_lowest_version() {
    needs!("curl");
    let front_end = Environment::new().set("tls.min_version", "1.3").serve();
    let answer = front_end.curl("iris/score", &["--tls-max", "1.2"]);
    // CURLE_SSL_CONNECT_ERROR
    assert_eq!((answer.exit, answer.status), (Some(35), 0), "{answer:?}");
    assert!(answer.complaint.contains("alert protocol version"), "{answer:?}");
}

/// `openssl s_client` that asks for nothing much and waits until the front end closes, so that tickets arrive.
fn s_client(front_end: &FrontEnd, arguments: &[&str]) -> String {
    let address = front_end.https.to_string();
    let ca = front_end.environment.file("ca.pem").display().to_string();
    let connect = ["s_client", "-connect", &address, "-CAfile", &ca, "-verify_return_error", "-ign_eof"];
    openssl(&[&connect, arguments].concat(), &format!("GET / HTTP/1.1\r\nHost: {CNAME}\r\nConnection: close\r\n\r\n"))
}

#[test]
fn each_cname_gets_its_own_certificate_over_both_versions_of_tls() {
    needs!("openssl");
    let front_end = Environment::new().serve();
    for name in [CNAME, OTHER_CNAME] {
        for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let said = s_client(&front_end, &["-servername", name, option]);
            for wanted in [&*format!("subject=CN = {name}\n"), "Verify return code: 0 (ok)", version] {
                assert!(said.contains(wanted), "no {wanted:?} in {said}");
            }
        }
    }
}

#[test]
fn sessions_are_resumed_over_both_versions_of_tls() {
    needs!("openssl");
    let front_end = Environment::new().serve();
    let session = front_end.environment.file("session.pem").display().to_string();
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let first = s_client(&front_end, &["-servername", CNAME, option, "-sess_out", &session]);
        assert!(first.contains(&format!("New, {version}")), "{first}");
        let second = s_client(&front_end, &["-servername", CNAME, option, "-sess_in", &session]);
        assert!(second.contains(&format!("Reused, {version}")), "{second}");
    }
    for version in ["1.2", "1.3"] {
        let resumed = format!("scorefront_tls_handshakes_total{{version=\"{version}\",outcome=\"resumed\"}}");
        assert!((front_end.metric(&resumed) - 1.0).abs() < f64::EPSILON);
    }
}

#[test]
fn callers_of_an_unknown_name_or_of_none_are_told_so_and_shown_no_certificate() {
    needs!("openssl");
    let front_end = Environment::new().serve();
    for who in [&["-servername", "elsewhere.example"][..], &["-noservername"]] {
        for version in ["-tls1_2", "-tls1_3"] {
            let said = s_client(&front_end, &[who, &[version]].concat());
            assert!(said.contains("unrecognized name"), "{who:?} {version}: {said}");
            assert!(said.contains("no peer certificate available"), "{who:?} {version}: {said}");
        }
    }
}

#[test]
fn a_default_cname_takes_those_who_ask_for_an_unknown_name_or_none() {
    needs!("openssl");
    let front_end = Environment::new().set("tls.default_cname", OTHER_CNAME).serve();
    for who in [&["-servername", "elsewhere.example"][..], &["-noservername"]] {
        let said = s_client(&front_end, who);
        assert!(said.contains(&format!("subject=CN = {OTHER_CNAME}\n")), "{who:?}: {said}");
    }
}

#[test]
fn alpn_takes_the_best_protocol_both_know() {
    needs!("openssl");
    let front_end = Environment::new().serve();
    for (offered, agreed) in [
        ("http/1.1,h2", "ALPN protocol: h2"),
        ("http/1.1", "ALPN protocol: http/1.1"),
        ("http/1.0", "ALPN protocol: http/1.0"),
        ("spdy/3", "no application protocol"),
    ] {
        let said = s_client(&front_end, &["-servername", CNAME, "-alpn", offered]);
        assert!(said.contains(agreed), "{offered}: {said}");
    }
    let said = s_client(&front_end, &["-servername", CNAME]);
    assert!(said.contains("No ALPN negotiated"), "{said}");
}

#[test]
fn a_large_body_of_a_file_is_asked_for_before_it_is_sent() {
    needs!("curl");
    let Served { front_end, .. } = &served("8MiB");
    let file = front_end.environment.file("body");
    fs::write(&file, vec![b'x'; 8 << 20]).expect("write");
    let from_file = format!("@{}", file.display());
    let expect = ["-v", "--http1.1", "-H", "Expect: 100-continue", "--expect100-timeout", "30", "-d", &from_file];
    let answer = front_end.curl("iris/score", &expect);
    assert_eq!((answer.status, &*answer.body), (200, "{\"bytes\":8388608}"));
    assert!(answer.complaint.contains("< HTTP/1.1 100 Continue"), "{}", answer.complaint);
    assert!(answer.total < 20.0, "curl waited for nothing: {answer:?}");
}

/// Does `what` and tells by how much the front end's memory, at its highest, was more than before.
fn growth(front_end: &FrontEnd, what: impl Fn(u64)) -> u64 {
    what(4 * MIB);
    let before = front_end.memory("VmRSS:");
    what(256 * MIB);
    front_end.memory("VmHWM:").saturating_sub(before)
}

#[test]
fn memory_stays_flat_while_an_upload_of_any_size_passes() {
    needs!("curl");
    let Served { front_end, .. } = &served_by_one_thread();
    for version in ["--http1.1", "--http2"] {
        let grown = growth(front_end, |length| {
            let answer = front_end.curl_fed("iris/score", &[&[version], UPLOAD].concat(), zeros(length));
            assert_eq!((answer.status, answer.body), (200, format!("{{\"bytes\":{length}}}")), "{version}");
        });
        assert!(grown < 8 * MIB, "{version}: {grown} bytes more");
    }
}

#[test]
fn memory_stays_flat_while_an_answer_of_any_size_passes() {
    needs!("curl");
    let Served { front_end, .. } = &served_by_one_thread();
    for version in ["--http1.1", "--http2"] {
        let grown = growth(front_end, |length| {
            let path = format!("iris/score?answer={length}");
            let answer = front_end.curl(&path, &[version, "-d", "", "-o", "/dev/null"]);
            assert_eq!((answer.exit, answer.status, answer.downloaded), (Some(0), 200, length), "{version}");
        });
        assert!(grown < 8 * MIB, "{version}: {grown} bytes more");
    }
}

#[test]
fn a_slow_reader_slows_the_replica_and_costs_no_memory() {
    needs!("curl");
    let Served { front_end, .. } = &served_by_one_thread();
    for version in ["--http1.1", "--http2"] {
        let read = |length: u64, rate| {
            let path = format!("iris/score?answer={length}");
            front_end.curl(&path, &[version, "-d", "", "-o", "/dev/null", "--limit-rate", rate, "--max-time", "2"])
        };
        read(4 * MIB, "100M");
        let before = front_end.memory("VmRSS:");
        let answer = read(256 * MIB, "2M");
        // CURLE_OPERATION_TIMEDOUT: it was far from done.
        assert_eq!((answer.exit, answer.status), (Some(28), 200), "{version}: {answer:?}");
        let grown = front_end.memory("VmHWM:").saturating_sub(before);
        assert!(grown < 8 * MIB, "{version}: {grown} bytes more");
    }
}

#[test]
fn a_body_over_the_limit_is_refused_at_once_in_words_that_curl_can_read() {
    needs!("curl");
    let Served { front_end, .. } = &served("1MiB");
    let file = front_end.environment.file("body");
    fs::write(&file, vec![b'x'; 8 << 20]).expect("write");
    let announced = ["-H", "Expect:", "--data-binary", &format!("@{}", file.display())];
    for version in ["--http1.1", "--http2"] {
        for arguments in [&announced[..], &[UPLOAD, &["-H", "Expect:"]].concat(), UPLOAD] {
            // Without end; when the length is announced curl does not read it.
            let answer = front_end.curl_fed("iris/score", &[&[version], arguments].concat(), zeros(u64::MAX));
            let message = "The request body is larger than the limit of 1048576 bytes.";
            answer.assert_refused(413, "BodyTooLarge", message);
            assert!(answer.total < 2.0, "{version} {arguments:?}: {answer:?}");
        }
    }
}

#[test]
fn a_body_of_just_the_limit_is_taken() {
    needs!("curl");
    let Served { front_end, .. } = &served("1MiB");
    let answer = front_end.curl_fed("iris/score", UPLOAD, zeros(MIB));
    assert_eq!((answer.status, &*answer.body), (200, "{\"bytes\":1048576}"));
}
