//! Configuration as operators meet it: files that are taken, and the exact words for those that are not.
//!
//! `tests/config/invalid/*.toml` each have a snapshot of all that is said about them. After a change of words, run with
//! `INSTA_UPDATE=always` and read each snapshot: would an operator know at once what to do?

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use scorefront::config::{
    self, AdminListen, Auth, CnamePattern, Config, Diagnostics, ErrorFormat, HealthChecks, HttpWhenTls, Kubernetes,
    KubernetesName, LogFormat, Members, Mirror, Priority, Rate, RequestLimits, Service, Source, StickyBy, TlsStatus,
    TlsVersion,
};

#[test]
fn invalid_files_are_told_everything_at_once() {
    for file in toml_files("tests/config/invalid") {
        let diagnostics = config::load(&file).expect_err(&format!("{} is taken", file.display()));
        assert_snapshot("invalid", &file, &diagnostics);
    }
}

#[test]
fn valid_files_are_taken() {
    for file in toml_files("tests/config/valid") {
        let (_, warnings) = load(&file);
        assert_snapshot("valid", &file, &warnings);
    }
}

#[test]
fn the_files_we_ship_are_taken_without_a_warning() {
    let files = toml_files("config");
    assert!(!files.is_empty());
    for file in files {
        let (_, warnings) = load(&file);
        assert!(warnings.is_empty(), "{warnings}");
    }
}

#[test]
fn the_annotated_file_shows_the_defaults() {
    let (shown, _) = load(Path::new("config/scorefront.toml"));
    let (built_in, _) = load(Path::new("tests/config/valid/empty.toml"));
    for (shown, built_in) in [
        (format!("{:?}", shown.frontend), format!("{:?}", built_in.frontend)),
        (format!("{:?}", shown.tls), format!("{:?}", built_in.tls)),
        (format!("{:?}", shown.reload), format!("{:?}", built_in.reload)),
        (format!("{:?}", shown.admin), format!("{:?}", built_in.admin)),
        (format!("{:?}", shown.limits), format!("{:?}", built_in.limits)),
        (format!("{:?}", shown.dns), format!("{:?}", built_in.dns)),
        (format!("{:?}", shown.kubernetes), format!("{:?}", built_in.kubernetes)),
        (format!("{:?}", shown.log), format!("{:?}", built_in.log)),
    ] {
        assert_eq!(shown, built_in);
    }
    let shown = &shown.services[0];
    let (minimal, _) = load(Path::new("tests/config/valid/minimal.toml"));
    let built_in = &minimal.services[0];
    assert_eq!(shown.scoring_timeout, built_in.scoring_timeout);
    assert_eq!(shown.max_body, built_in.max_body);
    assert_eq!(shown.error_format, built_in.error_format);
    assert_eq!((shown.max_queue_wait, shown.max_queue), (built_in.max_queue_wait, built_in.max_queue));
    let care = |service: &Service| (service.deployments[0].max_concurrent_requests, service.deployments[0].health);
    assert_eq!(care(shown), care(built_in));
}

#[test]
fn defaults_fill_in_what_is_not_written() {
    let (config, _) = load(Path::new("tests/config/valid/minimal.toml"));
    assert_eq!(config.frontend.https, "0.0.0.0:8443".parse().unwrap());
    assert_eq!(config.frontend.http, None);
    assert_eq!(config.frontend.http_when_tls, HttpWhenTls::Refuse);
    assert_eq!(config.frontend.drain_grace, Duration::from_secs(5));
    assert_eq!(config.frontend.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.tls.status, TlsStatus::Enabled);
    assert_eq!(config.tls.min_version, TlsVersion::V1_2);
    assert!(config.tls.ticket_keys.is_none());
    assert_eq!(config.frontend.public_ip_address, None);
    assert!(config.reload.watch);
    assert_eq!(config.reload.poll_interval, Duration::from_secs(10));
    assert!(config.cnames.iter().all(|cname| cname.client_ca_pem.is_none() && cname.client_crl_pem.is_none()));
    assert_eq!(config.admin.listen, AdminListen::Tcp("127.0.0.1:8900".parse().unwrap()));
    assert_eq!(config.limits.max_connections, 10_000);
    assert!(config.dns.servers.is_empty());
    assert_eq!(config.kubernetes, Kubernetes::default());
    assert_eq!(config.log.format, LogFormat::Auto);
    assert_eq!(config.log.level, "info");

    let service = &config.services[0];
    let Auth::Keys(keys) = &service.auth else { panic!("{:?}", service.auth) };
    let [key] = &keys[..] else { panic!("{keys:?}") };
    assert_eq!((&*key.name, key.priority, key.limits), ("primary", Priority::Normal, RequestLimits::default()));
    assert!(service.cnames.is_empty());
    assert_eq!(service.scoring_timeout, Duration::from_secs(60));
    assert_eq!(service.max_body, 100 << 20);
    assert_eq!(service.error_format, ErrorFormat::Json);
    assert_eq!((service.max_queue_wait, service.max_queue), (Duration::from_millis(500), 100));
    assert_eq!(service.limits, RequestLimits::default());
    assert_eq!((&service.sticky_by, &service.mirror), (&None, &None));
    let [deployment] = &service.deployments[..] else { panic!("{:?}", service.deployments) };
    assert_eq!((deployment.name.as_str(), deployment.traffic), ("default", 100));
    assert_eq!((&*deployment.paths.score, &*deployment.paths.health), ("/score", "/"));
    assert_eq!(deployment.paths.swagger, "/swagger.json");
    assert_eq!(deployment.max_concurrent_requests, 1);
    assert_eq!(
        deployment.health,
        HealthChecks { interval: Some(Duration::from_secs(10)), timeout: Duration::from_secs(2) }
    );
}

#[test]
fn every_key_has_its_effect() {
    let (config, _) = load(Path::new("tests/config/valid/full.toml"));
    assert_eq!(config.frontend.https, "[::]:443".parse().unwrap());
    assert_eq!(config.frontend.http, Some("[::]:80".parse().unwrap()));
    assert_eq!(config.frontend.http_when_tls, HttpWhenTls::Redirect);
    assert_eq!(config.frontend.threads, 4);
    assert_eq!(config.frontend.drain_grace, Duration::ZERO);
    assert_eq!(config.frontend.drain_timeout, Duration::from_secs(90));
    assert_eq!(config.tls.status, TlsStatus::Disabled);
    assert_eq!(config.tls.min_version, TlsVersion::V1_3);
    assert_eq!(config.tls.default_cname.as_ref().map(CnamePattern::as_str), Some("scoring.example.com"));
    assert!(config.tls.ticket_keys.is_some());
    assert_eq!(config.frontend.public_ip_address, Some("2001:db8::7".parse().unwrap()));
    let networks =
        ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32", "192.0.3.0/24"].map(|network| network.parse().unwrap());
    assert_eq!(config.frontend.proxy_protocol_from, networks);
    assert!(!config.reload.watch);
    assert_eq!(config.reload.poll_interval, Duration::from_secs(60));
    let asks: Vec<_> =
        config.cnames.iter().map(|cname| (cname.client_ca_pem.is_some(), cname.client_crl_pem.is_some())).collect();
    assert_eq!(asks, [(true, true), (true, true), (false, false)]);
    assert_eq!(config.admin.listen, AdminListen::Tcp("0.0.0.0:8900".parse().unwrap()));
    assert_eq!(config.limits.max_connections, 100_000);
    assert_eq!(config.limits.tls_handshake_timeout, Duration::from_secs(2));
    assert_eq!(config.limits.header_read_timeout, Duration::from_millis(500));
    assert_eq!(config.limits.idle_timeout, Duration::from_secs(3600));
    assert_eq!(config.dns.servers, ["10.96.0.10:53".parse().unwrap(), "[fd00::a]:5353".parse().unwrap()]);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, "warn,scorefront::tls=debug");
    assert!(config.log.access);
    assert_eq!(config.error_format, ErrorFormat::Text);

    let [iris, churn, price, trees, bikes] = &config.services[..] else { panic!("{:?}", config.services) };
    let Auth::Keys(keys) = &iris.auth else { panic!("{:?}", iris.auth) };
    let keys: Vec<_> = keys.iter().map(|key| (&*key.name, key.priority, key.limits)).collect();
    let unlimited = RequestLimits::default();
    let batch = RequestLimits { rate: Some(Rate { per_second: 50, burst: 200 }), max_in_flight: Some(4) };
    let steady = RequestLimits { rate: Some(Rate { per_second: 7, burst: 7 }), max_in_flight: None };
    assert_eq!(
        keys,
        [
            ("primary", Priority::Normal, unlimited),
            ("secondary", Priority::Normal, unlimited),
            ("batch", Priority::Low, batch),
            ("live", Priority::High, steady),
        ]
    );
    let all = RequestLimits { rate: Some(Rate { per_second: 1000, burst: 1 }), max_in_flight: Some(64) };
    assert_eq!(iris.limits, all);
    assert_eq!((iris.max_queue_wait, iris.max_queue), (Duration::from_secs(2), 5));
    assert_eq!(iris.sticky_by, None);
    assert_eq!(iris.mirror, None);
    assert_eq!(iris.deployments[0].max_concurrent_requests, 4);
    assert_eq!(
        iris.deployments[0].health,
        HealthChecks { interval: Some(Duration::from_secs(1)), timeout: Duration::from_millis(300) }
    );
    assert_eq!(iris.cnames.len(), 2);
    assert_eq!(iris.scoring_timeout, Duration::from_millis(300));
    assert_eq!(iris.max_body, 2_000_000_000);
    assert_eq!(iris.error_format, ErrorFormat::Json);
    assert_eq!(iris.deployments[0].paths.score, "/v2/models/flowers/infer");
    let authorities: Vec<_> =
        iris.deployments[0].source.listed().iter().map(|replica| replica.address.authority()).collect();
    assert_eq!(authorities, ["10.1.0.11:5001", "[2001:db8::1]:5001", "model:80"]);

    assert!(matches!(churn.auth, Auth::Open));
    assert_eq!(churn.scoring_timeout, Duration::from_secs(300));
    assert_eq!(churn.max_body, 1024);
    assert_eq!(churn.error_format, ErrorFormat::Text);
    let paths: Vec<_> = churn.deployments.iter().map(|d| (d.traffic, &*d.paths.score, &*d.paths.health)).collect();
    assert_eq!(
        paths,
        [(90, "/invocations", "/ping"), (10, "/v2/score", "/healthz"), (0, "/predictions/churn", "/ping")]
    );
    assert_eq!((churn.max_queue_wait, churn.max_queue), (Duration::ZERO, 0));
    assert_eq!(churn.limits, RequestLimits::default());
    assert_eq!(churn.sticky_by, Some(StickyBy::Header(http::HeaderName::from_static("x-session-id"))));
    assert_eq!(churn.mirror, Some(Mirror { deployment: "shadow".to_owned(), percent: 50 }));
    let care: Vec<_> = churn.deployments.iter().map(|d| (d.max_concurrent_requests, d.health.interval)).collect();
    assert_eq!(care, [(8, None), (8, Some(Duration::from_secs(5))), (0, None)]);
    assert!(churn.deployments.iter().all(|deployment| deployment.health.timeout == Duration::from_secs(1)));
    let sources = [churn, price, trees].into_iter().flat_map(|service| &service.deployments);
    let sources = sources.map(|deployment| match &deployment.source {
        Source::Static(replicas) => format!("{} listed", replicas.len()),
        Source::Dns { target, at } => format!("{target}, in column {}", at.column),
        Source::Kubernetes { target, at } => format!("kubernetes {target}, in column {}", at.column),
    });
    assert_eq!(
        sources.collect::<Vec<_>>(),
        [
            "1 listed",
            "churn-green.models.svc:5001, in column 7",
            "_http._tcp.shadow.svc, in column 7",
            "kubernetes price:8080, in column 14",
            "kubernetes models/trees-oak:http, in column 14",
        ]
    );

    assert_eq!((bikes.name.as_str(), &bikes.sticky_by), ("bikes", &Some(StickyBy::Key)));
}

#[test]
fn paths_are_relative_to_the_file_they_are_written_in() {
    let (config, _) = load(Path::new("tests/config/valid/full.toml"));
    let files: Vec<_> =
        config.cnames.iter().map(|cname| (cname.cert_pem.path.as_path(), cname.key_pem.path.as_path())).collect();
    let directory = Path::new("tests/config/valid");
    assert_eq!(
        files,
        [
            (&*directory.join("certs/rsa.pem"), Path::new("/run/secrets/rsa.key.pem")),
            (&*directory.join("certs/ecdsa.pem"), &*directory.join("certs/ecdsa.key.pem")),
            (&*directory.join("included/wildcard.pem"), &*directory.join("included/wildcard.key.pem")),
        ]
    );
    assert_eq!(config.cnames[2].cert_pem.at.to_string(), "tests/config/valid/included/models.toml:4:12");
    assert_eq!(config.admin.token_file.as_ref().map(|file| &file.path), Some(&directory.join("admin.token")));
    assert_eq!(config.tls.ticket_keys.as_ref().map(|file| &file.path), Some(&directory.join("ticket.keys")));
    let rsa = &config.cnames[0];
    assert_eq!(rsa.client_ca_pem.as_ref().map(|file| &*file.path), Some(&*directory.join("callers.pem")));
    assert_eq!(rsa.client_crl_pem.as_ref().map(|file| &*file.path), Some(Path::new("/run/secrets/revoked.pem")));
}

#[test]
fn what_kubernetes_is_asked_for_is_read() {
    let (config, _) = load(Path::new("tests/config/valid/full.toml"));
    let kubernetes = &config.kubernetes;
    assert_eq!(
        kubernetes.kubeconfig.as_ref().map(|file| &*file.path),
        Some(Path::new("tests/config/valid/kubeconfig"))
    );
    let discovered = kubernetes.discovered.as_ref().unwrap();
    let namespace = |name: &Option<KubernetesName>| name.as_ref().map(ToString::to_string);
    assert_eq!(namespace(&discovered.namespace).as_deref(), Some("azureml"));
    assert_eq!(
        (&*discovered.selector, discovered.port.to_string().as_str()),
        ("isazuremlapp=true,tier!=test", "scoring")
    );
    assert_eq!((discovered.max_queue, &discovered.auth), (0, &Auth::Open));
    let front_end = kubernetes.front_end_service.as_ref().unwrap();
    assert_eq!(
        (namespace(&front_end.namespace).as_deref(), front_end.service.as_str()),
        (Some("scoring"), "scorefront")
    );
}

#[test]
fn services_that_kubernetes_names_are_as_the_defaults_say() {
    let directory = tempfile::tempdir().unwrap();
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    for (keys, names) in [(String::new(), &[][..]), (format!(", primary_key_sha256 = \"{hash}\""), &["primary"])] {
        let text = format!(
            "[tls]\nstatus = \"Disabled\"\n[kubernetes]\ndiscover_services = {{ namespace = \"models\"{keys} }}\n[frontend]\nhttp = \"127.0.0.1:0\"\n"
        );
        let (config, warnings) = load(&write(directory.path(), "scorefront.toml", text));
        assert!(!warnings.to_string().contains("no [[service]]"), "{warnings}");
        let discovered = config.kubernetes.discovered.as_ref().unwrap();
        assert_eq!((&*discovered.selector, discovered.port.to_string().as_str()), ("isazuremlapp=true", "5001"));
        let Auth::Keys(keys) = &discovered.auth else { panic!("{:?}", discovered.auth) };
        assert_eq!(keys.iter().map(|key| &*key.name).collect::<Vec<_>>(), names);
    }
}

#[test]
fn an_admin_listener_on_a_unix_socket_needs_no_token() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "scorefront.toml", "[admin]\nlisten = \"unix:/run/scorefront/admin.sock\"\n");
    let (config, _) = load(&file);
    assert_eq!(config.admin.listen, AdminListen::Unix("/run/scorefront/admin.sock".into()));
}

#[test]
fn port_zero_is_another_port_for_each_listener() {
    let directory = tempfile::tempdir().unwrap();
    let text = "frontend = { https = \"127.0.0.1:0\", http = \"127.0.0.1:0\" }\nadmin.listen = \"127.0.0.1:0\"\n";
    load(&write(directory.path(), "scorefront.toml", text));
}

#[test]
fn included_files_come_in_order_once_and_not_while_they_are_written() {
    let directory = tempfile::tempdir().unwrap();
    // The brackets would be a pattern if the directory's name were taken for one.
    let directory = directory.path().join("[env]");
    fs::create_dir_all(directory.join("services/nested.toml")).unwrap();
    let service = |name: &str| format!("[[service]]\nname = \"{name}\"\nauth = false\nreplicas = [\"http://model\"]\n");
    for (file, name) in [("b.toml", "second"), ("a.toml", "first"), (".new.toml", "unfinished")] {
        write(&directory.join("services"), file, service(name));
    }
    let include = "include = [\"services/*.toml\", \"*.toml\", \"services/a.toml\", \"none/*.toml\"]\n";
    let main = write(&directory, "scorefront.toml", format!("{include}{}", service("main")));
    let (config, _) = load(&main);
    let names: Vec<_> = config.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["main", "first", "second"]);
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.toml");
    let latin1 = write(directory.path(), "latin1.toml", b"# \xc3\xa4\n# caf\xe9\n");
    let large = write(directory.path(), "large.toml", vec![b'#'; (4 << 20) + 1]);
    let mut said = String::new();
    for file in [&missing, &latin1, &large, directory.path()] as [&Path; 4] {
        said += &config::load(file).unwrap_err().to_string();
        said.push('\n');
    }
    let include = format!("include = [{:?}, {:?}]\n", latin1.display().to_string(), large.display().to_string());
    said += &config::load(&write(directory.path(), "scorefront.toml", include)).unwrap_err().to_string();
    let said = said.replace(directory.path().to_str().unwrap(), "DIR");
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("unreadable", said);
    });
}

#[test]
fn a_file_that_is_no_configuration_is_soon_given_up() {
    let directory = tempfile::tempdir().unwrap();
    for content in ["not a key\n", "a = ?\n", "[[", "a = [", "{", "a."] {
        let file = write(directory.path(), "scorefront.toml", content.repeat(100_000));
        let diagnostics = config::load(&file).expect_err(content);
        assert!(diagnostics.iter().count() < 110, "{content}");
    }
}

#[test]
fn no_message_shows_a_key_that_was_pasted_in_a_wrong_place() {
    let diagnostics = config::load(Path::new("tests/config/invalid/pasted-keys.toml")).unwrap_err();
    let told = diagnostics.to_string().to_lowercase();
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn debug_output_holds_no_key() {
    let (config, _) = load(Path::new("tests/config/valid/minimal.toml"));
    assert!(format!("{config:?}").contains("KeyHash(…)"));
}

#[test]
fn a_queue_in_the_defaults_may_be_for_a_service_with_a_time_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    for (own, warned) in [("", true), ("max_queue = 5", true), ("max_queue_wait = \"1s\"", false)] {
        let text = format!(
            "[defaults]\nauth = false\nmax_queue = 10\nmax_queue_wait = \"0s\"\n[[service]]\nname = \"iris\"\n\
             replicas = [\"http://model\"]\n{own}\n"
        );
        let (_, warnings) = load(&write(directory.path(), "scorefront.toml", text));
        assert_eq!(warnings.to_string().contains("`max_queue` has no effect"), warned, "{own}: {warnings}");
    }
}

#[test]
fn front_ends_are_named_by_kubernetes_as_replicas_are() {
    let (config, _) = load(Path::new("tests/config/valid/cluster-kubernetes.toml"));
    let Some(Members::Kubernetes { target, .. }) = config.cluster.as_ref().map(|cluster| &cluster.members) else {
        panic!("{:?}", config.cluster)
    };
    assert_eq!(target.to_string(), "scoring/scorefront-peers:peers");
    // Their namespace is that of one of the services; another one, and the front end's own Service, are watched as well.
    assert_eq!(config.kubernetes_watches(), 3);
}

fn load(file: &Path) -> (Config, Diagnostics) {
    config::load(file).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// Compares `diagnostics` with `tests/snapshots/<kind>-<file>.snap`.
fn assert_snapshot(kind: &str, file: &Path, diagnostics: &Diagnostics) {
    let directory = file.parent().unwrap().join("").display().to_string();
    let name = format!("{kind}-{}", file.file_stem().unwrap().display());
    let said = diagnostics.to_string().replace(&directory, "");
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!(name, said);
    });
}

fn toml_files(directory: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

fn write(directory: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let file = directory.join(name);
    fs::write(&file, content).unwrap();
    file
}
