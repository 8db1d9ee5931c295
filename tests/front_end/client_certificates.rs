//! Names for which callers have to show a certificate: who is let in, what replicas are told, and every way around it
//! that must not be one.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Request;
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, AlertDescription, ClientConfig, Error, HandshakeKind, SupportedProtocolVersion};
use serde_json::json;

use crate::support::{
    Algorithm, CNAME, Caller, CallerAuthority, CallerPair, Environment, Front, Pair, Replica, SCORE, Wire,
    client_config, client_config_as, client_config_for, eventually, post, score, session,
};

const GUARDED: &str = "guarded.example.com";
const OPEN: &str = "open.example.com";

const GUARD: &str = "client_ca_pem = 'callers.pem'";
const GUARD_WITH_LIST: &str = "client_ca_pem = 'callers.pem'\nclient_crl_pem = 'revoked.pem'";

/// Nothing is noticed but what somebody says.
const ASKED: &str = "watch = false\npoll_interval = '1h'";

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

const REFUSED: &str = "tls_handshakes_total{version=\"\",outcome=\"caller_certificate\"}";

/// [`GUARDED`], for callers of `authority`, and [`OPEN`], for all; the certificates of both are for both.
fn guarded(authority: &CallerAuthority) -> Environment {
    let environment = Environment::new().set("reload", ASKED);
    environment.write("callers.pem", &authority.pem());
    let both = Pair::new(&[GUARDED, OPEN]);
    environment.pair(GUARDED, &both, GUARD).pair(OPEN, &both, "")
}

async fn started(environment: Environment) -> Front {
    let front = environment.start();
    // Past its first look at what may have changed since it was started.
    front.row(GUARDED).await;
    front
}

/// Whether a new connection carries a request.
async fn is_let_in(front: &Front, config: &ClientConfig, name: &str) -> bool {
    session(front, config, name).await.is_ok()
}

async fn shows(front: &Front, caller: &CallerPair) -> bool {
    is_let_in(front, &client_config_as(caller, ALL_VERSIONS, &[]), GUARDED).await
}

/// The alert that a handshake with [`GUARDED`] ends with.
async fn alert(front: &Front, config: ClientConfig) -> AlertDescription {
    let refused = match front.tls(config, GUARDED).await {
        // In TLS 1.3 the caller is done before its certificate was looked at. It sends nothing, so that nothing of the
        // answer is lost.
        Ok(stream) => Wire::new(stream).rest().await.expect_err("refused"),
        Err(refused) => refused,
    };
    match refused.downcast::<Error>() {
        Ok(Error::AlertReceived(alert)) => alert,
        other => panic!("no alert: {other:?}"),
    }
}

fn to(host: &str) -> Request<crate::support::Body> {
    let mut request = post(SCORE, "x");
    *request.uri_mut() = format!("https://{host}{SCORE}").parse().expect("a URI");
    request
}

/// A caller of each protocol on connections to `name`.
async fn callers(front: &Front, name: &str, caller: Option<&CallerPair>) -> [Caller; 2] {
    let config = |alpn: &[&str]| match caller {
        Some(caller) => client_config_as(caller, ALL_VERSIONS, alpn),
        None => client_config(alpn),
    };
    let http1 = front.tls(config(&["http/1.1"]), name).await.expect("a handshake");
    let http2 = front.tls(config(&["h2"]), name).await.expect("a handshake");
    [Caller::http1(http1).await, Caller::http2(http2, None).await]
}

#[tokio::test]
async fn callers_without_a_good_certificate_do_not_get_through_the_handshake() {
    let (ours, theirs) = (CallerAuthority::new("ours"), CallerAuthority::new("theirs"));
    let environment = guarded(&ours).without(GUARDED).pair(GUARDED, &Pair::new(&[GUARDED]), GUARD_WITH_LIST);
    environment.write("revoked.pem", &ours.revoking(&[3]));
    let front = environment.start();
    let expired = ours.issue_altered(2, |params| params.not_after = date_time_ymd(2020, 2, 29));
    let mut refused = 0;
    for version in VERSIONS {
        let showing = |caller: &CallerPair| client_config_as(caller, &[version], &[]);
        let none = alert(&front, client_config_for(&[version], &[])).await;
        assert!(
            matches!(none, AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure),
            "{version:?}: {none:?}"
        );
        for (caller, expected) in [
            (theirs.issue(1), AlertDescription::UnknownCA),
            (
                ours.issue_altered(2, |params| params.not_after = date_time_ymd(2020, 2, 29)),
                AlertDescription::CertificateExpired,
            ),
            (ours.issue(3), AlertDescription::CertificateRevoked),
        ] {
            assert_eq!(alert(&front, showing(&caller)).await, expected, "{version:?}");
        }
        assert!(!is_let_in(&front, &showing(&expired), GUARDED).await, "{version:?}");
        assert!(is_let_in(&front, &showing(&ours.issue(4)), GUARDED).await, "{version:?}");
        refused += 5;
        front.until_metric(REFUSED, refused).await;
    }
    assert_eq!(front.row(GUARDED).await["client_certificates"], true);
    assert_eq!(front.row(GUARDED).await["handshakes"], 2);
}

#[tokio::test]
async fn a_name_that_asks_for_nothing_is_open_to_those_with_and_without_certificate() {
    let front = guarded(&CallerAuthority::new("ours")).start();
    let stranger = CallerAuthority::new("theirs").issue(1);
    assert!(is_let_in(&front, &client_config(&[]), OPEN).await);
    assert!(is_let_in(&front, &client_config_as(&stranger, ALL_VERSIONS, &[]), OPEN).await);
    assert_eq!(front.row(OPEN).await["client_certificates"], false);
}

#[tokio::test]
async fn replicas_and_the_access_log_are_told_who_calls() {
    let (authority, replica) = (CallerAuthority::new("ours"), Replica::echo());
    let front = guarded(&authority).service("iris", &[&replica], "").start();
    let caller = authority.issue(7);
    for mut connection in callers(&front, GUARDED, Some(&caller)).await {
        assert_eq!(connection.call(to(GUARDED)).await.status, 200);
    }
    for mut connection in callers(&front, OPEN, None).await {
        assert_eq!(connection.call(to(OPEN)).await.status, 200);
    }
    let requests = replica.requests();
    let (told, untold) = requests.split_at(2);
    for request in told {
        let value = request.field("client-cert").expect("the certificate");
        // RFC 9440 section 2.1: a byte sequence of RFC 8941.
        let base64 = value.strip_prefix(':').and_then(|value| value.strip_suffix(':')).expect("a byte sequence");
        assert_eq!(BASE64_STANDARD.decode(base64).expect("base64"), caller.leaf.as_ref());
        let hash = hex(digest(&SHA256, &caller.leaf).as_ref());
        let named = request.field("x-forwarded-client-cert").expect("its names");
        assert!(named.starts_with(&format!("Hash={hash};Subject=\"")), "{named}");
        assert!(named.contains("CN=caller 7"), "{named}");
    }
    for request in untold {
        assert_eq!((request.field("client-cert"), request.field("x-forwarded-client-cert")), (None, None));
    }
    for (index, line) in front.log_lines(4).await.iter().enumerate() {
        let subject = line.get("client_certificate").and_then(|subject| subject.as_str());
        let is_told = line["host"] == GUARDED;
        assert_eq!(subject.is_some_and(|subject| subject.contains("CN=caller 7")), is_told, "{index}: {line}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// What a caller might claim of itself.
const CLAIMS: [(&str, &str); 4] = [
    ("client-cert", ":Zm9yZ2Vk:"),
    ("client-cert-chain", ":Zm9yZ2Vk:"),
    ("x-forwarded-client-cert", "Hash=00;Subject=\"CN=forged\""),
    ("x-forwarded-client-cert", "Hash=01;Subject=\"CN=forged\""),
];

fn claiming(host: &str) -> Request<crate::support::Body> {
    let mut request = score(&CLAIMS);
    *request.uri_mut() = to(host).uri().clone();
    request
}

#[tokio::test]
async fn a_callers_own_fields_about_certificates_never_reach_a_replica() {
    let (authority, replica) = (CallerAuthority::new("ours"), Replica::echo());
    let front = guarded(&authority).cname(CNAME).service("iris", &[&replica], "").start();
    let caller = authority.issue(7);
    for mut connection in callers(&front, GUARDED, Some(&caller)).await {
        assert_eq!(connection.call(claiming(GUARDED)).await.status, 200);
    }
    for name in [OPEN, CNAME] {
        for mut connection in callers(&front, name, None).await {
            assert_eq!(connection.call(claiming(name)).await.status, 200);
        }
    }
    for request in replica.requests() {
        let head = request.head.to_ascii_lowercase();
        assert!(!head.contains("zm9yz2vk") && !head.contains("forged"), "{head}");
        assert!(!head.contains("client-cert-chain"), "{head}");
    }
    assert_eq!(replica.requests().len(), 6);
}

#[tokio::test]
async fn plain_http_carries_no_claims_either() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).set("tls", "status = 'Disabled'").start();
    let fields = CLAIMS.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let mut wire = front.plain().await;
    wire.post(&format!("{fields}Content-Length: 1\r\n"), "x").await;
    assert_eq!(wire.reply().await.status, 200);
    let head = replica.only_request().head.to_ascii_lowercase();
    assert!(!head.contains("client-cert"), "{head}");
}

/// That `host` is refused on connections to `name` without certificate, and that those go on.
async fn assert_misdirected(front: &Front, name: &str, host: &str) {
    for mut connection in callers(front, name, None).await {
        let reply = connection.call(to(host)).await;
        let message = format!("Callers of {} show a certificate; open a connection to that name.", host.to_lowercase());
        reply.assert_refusal(421, "Misdirected", &message);
        assert_eq!(connection.call(to(name)).await.status, 200, "{name} itself");
    }
}

#[tokio::test]
async fn a_guarded_name_is_not_reached_over_a_connection_to_another_name() {
    let replica = Replica::echo();
    let front = guarded(&CallerAuthority::new("ours")).service("iris", &[&replica], "").start();
    for host in [GUARDED, "GUARDED.example.com"] {
        assert_misdirected(&front, OPEN, host).await;
    }
    for request in replica.requests() {
        assert_eq!(request.field("x-forwarded-host"), Some(OPEN));
    }
}

#[tokio::test]
async fn nor_is_one_that_a_guarded_wildcard_stands_for() {
    let (authority, replica) = (CallerAuthority::new("ours"), Replica::echo());
    let (wildcard, any, own) = ("*.models.example.com", "any.models.example.com", "own.models.example.com");
    let environment = Environment::new();
    environment.write("callers.pem", &authority.pem());
    let all = Pair::new(&[OPEN, wildcard]);
    let front = environment
        .pair(wildcard, &all, GUARD)
        .pair(own, &all, "")
        .pair(OPEN, &all, "")
        .service("iris", &[&replica], "")
        .start();
    assert_misdirected(&front, OPEN, any).await;
    assert_misdirected(&front, own, any).await;
    for mut connection in callers(&front, OPEN, None).await {
        assert_eq!(connection.call(to(own)).await.status, 200, "an exact name goes before the wildcard");
    }
    for mut connection in callers(&front, any, Some(&authority.issue(1))).await {
        assert_eq!(connection.call(to(any)).await.status, 200);
        assert_eq!(connection.call(to("more.models.example.com")).await.status, 200);
    }
    assert!(!is_let_in(&front, &client_config(&[]), any).await);
}

#[tokio::test]
async fn nor_one_that_a_guarded_default_stands_for() {
    let (authority, replica) = (CallerAuthority::new("ours"), Replica::echo());
    let unknown = "unknown.example.com";
    let environment = Environment::new().set("tls", &format!("default_cname = '{GUARDED}'"));
    environment.write("callers.pem", &authority.pem());
    let all = Pair::new(&[GUARDED, OPEN, unknown, "127.0.0.1"]);
    let front = environment.pair(GUARDED, &all, GUARD).pair(OPEN, &all, "").service("iris", &[&replica], "").start();
    for host in [unknown, "127.0.0.1", GUARDED] {
        assert_misdirected(&front, OPEN, host).await;
    }
    for name in [unknown, "127.0.0.1"] {
        assert!(!is_let_in(&front, &client_config(&[]), name).await, "{name}");
        for mut connection in callers(&front, name, Some(&authority.issue(1))).await {
            assert_eq!(connection.call(to(name)).await.status, 200, "{name}");
            assert_eq!(connection.call(to(GUARDED)).await.status, 200, "{name}");
        }
    }
}

#[tokio::test]
async fn a_certificate_for_one_guarded_name_is_none_for_another() {
    let (ours, theirs) = (CallerAuthority::new("ours"), CallerAuthority::new("theirs"));
    let other = "theirs.example.com";
    let environment = Environment::new();
    environment.write("callers.pem", &ours.pem());
    environment.write("theirs.pem", &theirs.pem());
    let both = Pair::new(&[GUARDED, other]);
    let front = environment
        .pair(GUARDED, &both, GUARD)
        .pair(other, &both, "client_ca_pem = 'theirs.pem'")
        .service("iris", &[&Replica::echo()], "")
        .start();
    for mut connection in callers(&front, GUARDED, Some(&ours.issue(1))).await {
        assert_eq!(connection.call(to(other)).await.refusal(), (421, "Misdirected".to_owned()));
        assert_eq!(connection.call(to(GUARDED)).await.status, 200);
    }
}

#[tokio::test]
async fn callers_with_certificates_are_never_resumed() {
    let authority = CallerAuthority::new("ours");
    let front = guarded(&authority).start();
    for version in VERSIONS {
        let config = client_config_as(&authority.issue(1), &[version], &[]);
        for _ in 0..3 {
            let kind = session(&front, &config, GUARDED).await.expect("a session");
            assert_ne!(kind, HandshakeKind::Resumed, "{version:?}");
        }
    }
    front.until_metric("tls_handshakes_total{version=\"1.2\",outcome=\"resumed\"}", 0).await;
}

/// The first `[[cname]]` table with other keys, and the same certificate.
fn guard_first(files: Environment, keys: &str) -> Environment {
    files
        .without("cert-0.pem")
        .table(&format!("[[cname]]\nname = '{GUARDED}'\ncert_pem = 'cert-0.pem'\nkey_pem = 'key-0.pem'\n{keys}"))
}

#[tokio::test]
async fn what_callers_hold_from_an_unguarded_time_lets_nobody_in() {
    for version in VERSIONS {
        let (authority, replica) = (CallerAuthority::new("ours"), Replica::echo());
        let environment = guarded(&authority).service("iris", &[&replica], "");
        let mut front = started(guard_first(environment, "")).await;
        let stranger = client_config_for(&[version], &[]);
        let known = client_config_as(&authority.issue(1), &[version], &[]);
        for config in [&stranger, &known] {
            assert_ne!(session(&front, config, GUARDED).await.expect("open"), HandshakeKind::Resumed);
            assert_eq!(session(&front, config, GUARDED).await.expect("open"), HandshakeKind::Resumed);
        }
        let mut open = callers(&front, GUARDED, None).await;
        for connection in &mut open {
            assert_eq!(connection.call(to(GUARDED)).await.status, 200);
        }

        front.reconfigure(|files| guard_first(files, GUARD));
        assert_eq!(front.reload().await.0, 200);
        assert!(!is_let_in(&front, &stranger, GUARDED).await, "{version:?}");
        let kind = session(&front, &known, GUARDED).await.expect("it shows a certificate");
        assert_ne!(kind, HandshakeKind::Resumed, "{version:?}");
        for connection in &mut open {
            let refused = connection.call(to(GUARDED)).await.refusal();
            assert_eq!(refused, (421, "Misdirected".to_owned()), "over a connection from before");
        }

        front.reconfigure(|files| guard_first(files, ""));
        assert_eq!(front.reload().await.0, 200);
        assert!(is_let_in(&front, &stranger, GUARDED).await, "{version:?}");
    }
}

#[tokio::test]
async fn authorities_and_revocation_lists_change_live() {
    let (ours, theirs) = (CallerAuthority::new("ours"), CallerAuthority::new("theirs"));
    let environment = guard_first(guarded(&ours), GUARD_WITH_LIST).section("reload", "poll_interval = '1h'");
    environment.write("revoked.pem", &ours.revoking(&[]));
    let front = environment.start();
    let (good, bad, other) = (ours.issue(1), ours.issue(2), theirs.issue(1));
    assert!(shows(&front, &good).await && shows(&front, &bad).await && !shows(&front, &other).await);

    front.files().put("revoked.pem", &ours.revoking(&[2]));
    eventually("the revoked one is refused", async || !shows(&front, &bad).await).await;
    assert!(shows(&front, &good).await);

    front.files().put("revoked.pem", &(ours.revoking(&[2]) + &theirs.revoking(&[])));
    front.files().put("callers.pem", &(ours.pem() + &theirs.pem()));
    eventually("the new authority counts", async || shows(&front, &other).await).await;
    assert!(shows(&front, &good).await && !shows(&front, &bad).await);

    front.files().put("callers.pem", &theirs.pem());
    eventually("the old one does not any more", async || !shows(&front, &good).await).await;
    assert!(shows(&front, &other).await);
}

#[tokio::test]
async fn with_a_bad_authority_from_the_start_the_name_is_not_served_and_others_are() {
    let authority = CallerAuthority::new("ours");
    for bad in [Some(""), Some("no PEM"), Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), None]
    {
        let environment = guarded(&authority);
        match bad {
            Some(text) => environment.put("callers.pem", text),
            None => environment.remove("callers.pem"),
        }
        let front = started(environment).await;
        assert!(front.tls(client_config(&[]), GUARDED).await.is_err(), "{bad:?}");
        assert!(!shows(&front, &authority.issue(1)).await, "{bad:?}");
        assert!(is_let_in(&front, &client_config(&[]), OPEN).await, "{bad:?}");
        for mut connection in callers(&front, OPEN, None).await {
            assert_eq!(connection.call(to(GUARDED)).await.status, 421, "{bad:?}: no way around either");
        }
        let (status, report) = front.reload().await;
        assert_eq!((status, &report["others"][0]["result"]), (422, &json!("refused")), "{report}");
        front.files().put("callers.pem", &authority.pem());
        assert_eq!(front.reload().await.0, 200);
        assert!(shows(&front, &authority.issue(1)).await, "{bad:?}");
        assert!(!is_let_in(&front, &client_config(&[]), GUARDED).await, "{bad:?}");
    }
}

#[tokio::test]
async fn a_bad_authority_or_list_later_leaves_the_last_good_one_in_force() {
    let ours = CallerAuthority::new("ours");
    let environment = guard_first(guarded(&ours), GUARD_WITH_LIST);
    environment.write("revoked.pem", &ours.revoking(&[2]));
    let front = started(environment).await;
    let (good, bad) = (ours.issue(1), ours.issue(2));
    for (file, text) in [("callers.pem", ours.pem()), ("revoked.pem", ours.revoking(&[2]))] {
        for broken in ["", "no PEM"] {
            front.files().put(file, broken);
            let (status, report) = front.reload().await;
            assert_eq!((status, &report["others"][0]["result"]), (422, &json!("refused")), "{report}");
            let errors = report["others"][0]["errors"].as_array().expect("errors");
            assert!(errors.iter().any(|error| error.as_str().is_some_and(|error| error.contains(file))), "{report}");
            assert!(shows(&front, &good).await && !shows(&front, &bad).await, "{file} {broken:?}");
            assert!(!is_let_in(&front, &client_config(&[]), GUARDED).await);
        }
        front.files().remove(file);
        assert_eq!(front.reload().await.0, 422);
        assert!(shows(&front, &good).await && !shows(&front, &bad).await, "{file} is missing");
        front.files().put(file, &text);
        assert_eq!(front.reload().await.0, 200);
    }
}

#[tokio::test]
async fn with_a_list_callers_of_an_authority_that_has_none_in_there_are_refused() {
    let (ours, theirs) = (CallerAuthority::new("ours"), CallerAuthority::new("theirs"));
    let environment = guard_first(guarded(&ours), GUARD_WITH_LIST);
    environment.put("callers.pem", &(ours.pem() + &theirs.pem()));
    environment.write("revoked.pem", &ours.revoking(&[]));
    let front = environment.start();
    assert!(shows(&front, &ours.issue(1)).await);
    assert!(!shows(&front, &theirs.issue(1)).await);
}

#[tokio::test]
async fn both_certificates_of_a_name_are_for_the_same_callers() {
    let ours = CallerAuthority::new("ours");
    let environment = guarded(&ours).pair(GUARDED, &Pair::of(&[GUARDED], Algorithm::Rsa), GUARD);
    let front = environment.start();
    assert!(shows(&front, &ours.issue(1)).await);
    assert!(!is_let_in(&front, &client_config(&[]), GUARDED).await);
}

#[tokio::test]
async fn a_guard_that_is_added_live_with_a_bad_authority_leaves_the_name_open_to_nobody() {
    let ours = CallerAuthority::new("ours");
    let mut front = started(guard_first(guarded(&ours), "")).await;
    assert!(is_let_in(&front, &client_config(&[]), GUARDED).await);
    front.files().put("callers.pem", "no PEM");
    front.reconfigure(|files| guard_first(files, GUARD));
    assert_eq!(front.reload().await.0, 422);
    assert!(!is_let_in(&front, &client_config(&[]), GUARDED).await);
    assert!(is_let_in(&front, &client_config(&[]), OPEN).await);
    front.files().put("callers.pem", &ours.pem());
    assert_eq!(front.reload().await.0, 200);
    assert!(shows(&front, &ours.issue(1)).await);
    assert!(!is_let_in(&front, &client_config(&[]), GUARDED).await);
}

#[tokio::test]
async fn an_authority_is_known_by_its_key_and_not_by_its_name() {
    let root = CallerAuthority::new("root");
    let front = guarded(&root).start();
    let same_name = CallerAuthority::new("root");
    assert!(shows(&front, &root.issue(1)).await);
    assert!(!shows(&front, &same_name.issue(1)).await);
}

#[tokio::test]
async fn a_certificate_for_servers_is_none_for_callers() {
    let ours = CallerAuthority::new("ours");
    let front = guarded(&ours).start();
    let server = ours.issue_altered(1, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert!(!shows(&front, &server).await);
    front.until_metric(REFUSED, 1).await;
}
