//! Session tickets: who can resume what, across front ends, restarts and changes of the secrets.

use std::sync::Arc;

use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, SupportedProtocolVersion};
use serde_json::json;

use crate::support::{Algorithm, CNAME, Environment, Front, client_config_for, session};

const OTHER: &str = "other.example.com";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// What a cluster shares.
const SECRET: &str = "first secret of this cluster, in base64 or any other text";
const NEXT: &str = "second secret of this cluster, in base64 or any other text";

/// A front end with this `ticket_keys` file.
fn with_keys(text: &str) -> Front {
    // It notices what it is told of, and nothing else.
    let environment = Environment::new()
        .set("reload", "watch = false\npoll_interval = '1h'")
        .set("tls", "ticket_keys = 'ticket.keys'")
        .cname(CNAME);
    environment.write("ticket.keys", text);
    environment.start()
}

/// Whether the session of a new connection was resumed.
async fn is_resumed(front: &Front, config: &ClientConfig) -> bool {
    session(front, config, CNAME).await.expect("a session") == HandshakeKind::Resumed
}

/// A caller that holds a ticket of `front`, and no other.
async fn holder(front: &Front, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let config = client_config_for(&[version], &[]);
    assert!(!is_resumed(front, &config).await, "it has no ticket yet");
    config
}

#[tokio::test]
async fn a_ticket_of_one_front_end_is_taken_by_every_other_with_the_same_secret() {
    for version in VERSIONS {
        let (one, other) = (with_keys(SECRET), with_keys(&format!("{SECRET}\n")));
        let config = holder(&one, version).await;
        assert!(is_resumed(&other, &config).await, "{version:?}");
        assert!(is_resumed(&one, &config).await, "{version:?}: and back");
    }
}

#[tokio::test]
async fn a_ticket_outlives_a_restart() {
    for version in VERSIONS {
        let mut front = with_keys(SECRET);
        let config = holder(&front, version).await;
        front.restart();
        assert!(is_resumed(&front, &config).await, "{version:?}");
    }
}

#[tokio::test]
async fn without_a_common_secret_a_ticket_is_good_for_its_own_front_end_alone() {
    for version in VERSIONS {
        let own = || Environment::new().cname(CNAME).start();
        for (one, other) in [(own(), own()), (with_keys(SECRET), own()), (own(), with_keys(SECRET))] {
            let config = holder(&one, version).await;
            assert!(is_resumed(&one, &config).await, "{version:?}");
            assert!(!is_resumed(&other, &config).await, "{version:?}");
        }
        let config = holder(&with_keys(SECRET), version).await;
        assert!(!is_resumed(&with_keys(NEXT), &config).await, "{version:?}");

        let mut front = own();
        let config = holder(&front, version).await;
        front.restart();
        assert!(!is_resumed(&front, &config).await, "{version:?}");
    }
}

#[tokio::test]
async fn any_line_opens_tickets_and_the_first_one_seals_them() {
    for version in VERSIONS {
        let both = with_keys(&format!("{NEXT}\n{SECRET}\n"));
        let config = holder(&with_keys(SECRET), version).await;
        assert!(is_resumed(&both, &config).await, "{version:?}: the second line opens");
        let config = holder(&both, version).await;
        assert!(is_resumed(&with_keys(NEXT), &config).await, "{version:?}: the first line seals");
        let config = holder(&both, version).await;
        assert!(!is_resumed(&with_keys(SECRET), &config).await, "{version:?}: the second does not");
    }
}

#[tokio::test]
async fn after_a_rotation_old_tickets_are_taken_and_new_ones_are_sealed_with_the_new_secret() {
    for version in VERSIONS {
        let front = with_keys(SECRET);
        let [old, seen] = [holder(&front, version).await, holder(&front, version).await];
        // Past its first look at what may have changed since it was started.
        front.row(CNAME).await;
        front.files().put("ticket.keys", NEXT);
        let (status, report) = front.reload().await;
        assert_eq!((status, &report["others"][0]["result"]), (200, &json!("taken")), "{report}");
        assert!(is_resumed(&front, &old).await, "{version:?}: the old secret is not forgotten at once");
        // A full handshake, a ticket of the new secret.
        let new = holder(&front, version).await;
        assert!(is_resumed(&with_keys(NEXT), &new).await, "{version:?}");
        // Not one that a front end without the old secret takes.
        assert!(!is_resumed(&with_keys(NEXT), &seen).await, "{version:?}");
    }
}

#[tokio::test]
async fn a_bad_secrets_file_leaves_the_last_good_one_in_use() {
    for version in VERSIONS {
        let front = with_keys(SECRET);
        let other = with_keys(SECRET);
        let config = holder(&other, version).await;
        for bad in ["", "short", "\u{1}"] {
            front.files().put("ticket.keys", bad);
            let (status, report) = front.reload().await;
            assert_eq!((status, &report["others"][0]["result"]), (422, &json!("refused")), "{report}");
            assert!(!report.to_string().contains("secret of this cluster"), "{report}");
            assert!(is_resumed(&front, &config).await, "{version:?} {bad:?}");
        }
        front.files().remove("ticket.keys");
        assert_eq!(front.reload().await.0, 422);
        assert!(is_resumed(&front, &config).await, "{version:?}");
        // What it seals is sealed with the secret that was there.
        let config = holder(&front, version).await;
        assert!(is_resumed(&other, &config).await, "{version:?}");
    }
}

#[tokio::test]
async fn with_a_bad_secrets_file_from_the_start_names_are_served_all_the_same() {
    for version in VERSIONS {
        let front = with_keys("short");
        let config = holder(&front, version).await;
        assert!(is_resumed(&front, &config).await, "{version:?}: with a secret of its own");
        front.files().put("ticket.keys", SECRET);
        assert_eq!(front.reload().await.0, 200);
        let config = holder(&front, version).await;
        assert!(is_resumed(&with_keys(SECRET), &config).await, "{version:?}");
    }
}

/// Sessions of all names in one place, so that one of them is offered under every name.
#[derive(Debug)]
struct OneName(ClientSessionMemoryCache);

impl OneName {
    fn name() -> ServerName<'static> {
        ServerName::try_from(CNAME).expect("a name")
    }
}

impl ClientSessionStore for OneName {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(Self::name(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&Self::name())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::name(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::name())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::name());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::name(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::name())
    }
}

#[tokio::test]
async fn a_ticket_for_one_name_is_not_taken_under_another() {
    for version in VERSIONS {
        for front in [
            Environment::new().cname(CNAME).cname(OTHER).start(),
            // One certificate for both.
            Environment::new()
                .certificate(CNAME, &[CNAME, OTHER], Algorithm::Ecdsa)
                .certificate(OTHER, &[CNAME, OTHER], Algorithm::Ecdsa)
                .start(),
            // One identity for both, found by its default.
            Environment::new()
                .set("tls", &format!("default_cname = '{CNAME}'"))
                .certificate(CNAME, &[CNAME, OTHER], Algorithm::Ecdsa)
                .start(),
        ] {
            let mut config = client_config_for(&[version], &[]);
            config.resumption = Resumption::store(Arc::new(OneName(ClientSessionMemoryCache::new(8))));
            let kind = async |name| session(&front, &config, name).await.expect("a session");
            assert_ne!(kind(CNAME).await, HandshakeKind::Resumed);
            assert_ne!(kind(OTHER).await, HandshakeKind::Resumed, "{version:?}");
            // The store hands out what it has: of the same name that is taken.
            assert_eq!(kind(OTHER).await, HandshakeKind::Resumed, "{version:?}");
        }
    }
}
