//! Kubernetes as operators see it: what the log and `check` say, each once; and, when somebody asks for it, what a thousand
//! Services cost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::kubernetes::{Api, SERVICES, SLICES, endpoint, http_port, service, slice};
use crate::harness::{Environment, FrontEnd, Lines, SCOREFRONT, Stub, eventually, http_get, write_secret};

/// A front end's files that name the API of `api`, and a service by it.
fn environment(api: &Api, name: &str, port: &str) -> Environment {
    let environment = Environment::new().set("kubernetes.kubeconfig", "kubeconfig");
    std::fs::write(environment.file("kubeconfig"), api.kubeconfig(json!({}), None)).expect("write");
    let source = format!("kubernetes = {{ namespace = \"models\", service = \"{name}\", port = {port} }}");
    environment.table(&format!("[[service]]\nname = \"iris\"\nauth = false\n{source}"))
}

/// A Service `churn` with one endpoint.
fn churn(api: &Api, replica: &Stub) {
    let pod = endpoint(&replica.address.ip().to_string(), 1);
    api.set(SLICES, slice("churn", "churn-1", http_port(replica.address.port()), &[pod]));
}

/// The lines that hold `text`, with nothing in them that is different each time.
fn lines(events: &Lines, text: &str) -> Vec<Value> {
    let lines = events.wait_until("a look", |lines| Some(lines.to_vec()));
    let mut lines: Vec<Value> =
        lines.iter().filter(|line| line.contains(text)).map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for line in &mut lines {
        line.as_object_mut().expect("fields").remove("timestamp");
    }
    lines
}

fn errors(front_end: &FrontEnd, reason: &str) -> f64 {
    front_end.metric(&format!(
        "scorefront_kubernetes_watch_errors_total{{watch=\"endpointslices\",namespace=\"models\",reason=\"{reason}\"}}"
    ))
}

#[test]
fn what_goes_wrong_on_and_on_is_told_once() {
    let (api, replica) = (Api::start(), Stub::start());
    churn(&api, &replica);
    api.refuse(SLICES, 403);
    let front_end = environment(&api, "churn", "\"http\"").serve();
    eventually("it is asked again and again", || (errors(&front_end, "forbidden") >= 2.0).then_some(()));
    let told = lines(&front_end.events, "cannot be followed");
    assert_eq!(told.len(), 1, "{told:?}");
    let said = told[0].to_string();
    for wanted in ["WARN", "\"endpointslices\"", "\"models\"", "cannot list resource", "bind a Role"] {
        assert!(said.contains(wanted), "no {wanted} in {said}");
    }
    api.go_away();
    front_end.events.wait_for("its API cannot be reached");
    api.allow();
    api.come_back();
    front_end.events.wait_for("can be followed again");
    front_end.events.wait_for("replicas looked up");
    // Of what libraries say nothing is said.
    let of_libraries = lines(&front_end.events, "\"target\":\"kube");
    assert!(of_libraries.is_empty(), "{of_libraries:?}");
}

#[test]
fn a_service_and_a_port_that_are_not_there_are_told_with_the_remedy() {
    let (api, replica) = (Api::start(), Stub::start());
    churn(&api, &replica);
    for (name, port, wanted) in [
        ("churm", "5001", "there is no such Service in the namespace"),
        ("churn", "\"grpc\"", &*format!("there are http ({})", replica.address.port())),
    ] {
        let environment = environment(&api, name, port);
        let checked = environment.run("check", &[]);
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert_eq!(checked.status.code(), Some(0), "{said}");
        assert!(said.contains(":14: warning: ") && said.contains(wanted), "no {wanted} in {said}");
        let front_end = environment.serve();
        front_end.events.wait_for(wanted);
    }
}

#[test]
fn check_asks_kubernetes_and_says_what_it_could_not_find_out() {
    let (api, replica) = (Api::start(), Stub::start());
    churn(&api, &replica);
    let check = |environment: &Environment| {
        let checked = environment.run("check", &["--strict"]);
        (checked.status.code(), String::from_utf8_lossy(&checked.stdout).into_owned())
    };
    let (code, said) = check(&environment(&api, "churn", "\"http\""));
    assert_eq!(code, Some(0), "{said}");
    api.refuse(SLICES, 403);
    let (code, said) = check(&environment(&api, "churn", "\"http\""));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot be looked up in Kubernetes: its API forbids it"), "{said}");
    assert!(said.contains("bind a Role"), "{said}");
    // As on a machine that knows of no cluster.
    let environment = environment(&api, "churn", "\"http\"").set("kubernetes.kubeconfig", "missing");
    let (_, said) = check(&environment);
    assert!(said.contains("cannot be looked up in Kubernetes: kubeconfig: "), "{said}");
    assert!(said.contains("run it in a pod with a service account"), "{said}");
}

#[test]
fn check_sees_whether_kubernetes_can_name_the_front_ends() {
    let (api, replica) = (Api::start(), Stub::start());
    churn(&api, &replica);
    let environment = environment(&api, "churn", "\"http\"").table(
        "[cluster]\nlisten = \"127.0.0.1:8444\"\nsecret_file = \"cluster.secret\"\n\
         kubernetes = { namespace = \"models\", service = \"peers\", port = \"peers\" }\n",
    );
    write_secret(&environment.file("cluster.secret"), "a-secret-of-front-ends-0123456789abcdef\n");
    let check = || {
        let checked = environment.run("check", &["--strict"]);
        (checked.status.code(), String::from_utf8_lossy(&checked.stdout).into_owned())
    };
    let (code, said) = check();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("models/peers:peers: no EndpointSlice is of this Service"), "{said}");
    api.set(SLICES, slice("peers", "peers-1", http_port(8444), &[endpoint("127.0.0.1", 1)]));
    let (_, said) = check();
    assert!(said.contains("models/peers:peers: no pod of this Service has the port peers"), "{said}");
    // Before the first of them is started there is none.
    api.set(SLICES, slice("peers", "peers-1", json!([]), &[]));
    let (code, said) = check();
    assert_eq!(code, Some(0), "{said}");
    api.refuse(SLICES, 403);
    let (_, said) = check();
    assert!(said.contains("the front ends of models/peers:peers cannot be looked up in Kubernetes"), "{said}");
}

#[test]
fn services_that_kubernetes_names_are_told_where_they_cannot_be_called_or_a_file_wins() {
    let (api, replica) = (Api::start(), Stub::start());
    churn(&api, &replica);
    let labels = |name: &str| json!({"isazuremlapp": "true", "webservicename": name});
    api.set(SERVICES, service("models", "churn", labels("iris")));
    api.set(SERVICES, service("models", "bikes", labels("bikes")));
    api.set(SERVICES, service("models", "second", labels("bikes")));
    api.set(SERVICES, service("models", "long", labels("x")));
    let front_end =
        environment(&api, "churn", "\"http\"").set("kubernetes.discover_services.namespace", "models").serve();
    front_end.events.wait_for("a file defines this service");
    front_end.events.wait_for("nobody can call it");
    let told = lines(&front_end.events, "is no service");
    let told: BTreeMap<_, _> = told
        .iter()
        .map(|line| (line["service"].as_str().expect("text"), line["why"].as_str().expect("text")))
        .collect();
    assert_eq!(told["second"], "bikes is called bikes too, and comes first");
    assert!(told["long"].contains("3 to 32"), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
}

/// Services, and endpoints of each.
const MANY: (usize, usize) = (1000, 10);

fn named(number: usize) -> String {
    format!("service-{number}")
}

/// The addresses of service `number`, none of which anybody is at.
fn ips(number: usize, generation: usize) -> Vec<String> {
    (0..MANY.1).map(|one| format!("10.{}.{}.{}", number / 250 + 10 * generation, number % 250, one + 1)).collect()
}

fn slice_of(number: usize, ips: &[String]) -> Value {
    let pods: Vec<_> = ips
        .iter()
        .enumerate()
        .map(|(pod, ip)| endpoint(ip, u32::try_from(number * MANY.1 + pod).expect("few")))
        .collect();
    slice(&named(number), &format!("{}-7kx2p", named(number)), http_port(5001), &pods)
}

/// The front end, before as many services as [`MANY`] says, each with what `source` gives.
fn serve_many(api: &Api, source: impl Fn(usize) -> String) -> FrontEnd {
    let environment = Environment::new()
        .set("kubernetes.kubeconfig", "kubeconfig")
        .set("defaults.health_interval", "0s")
        .set("defaults.auth", false)
        .set("frontend.threads", 2)
        .set("log.level", "warn,scorefront::cli=info");
    std::fs::write(environment.file("kubeconfig"), api.kubeconfig(json!({}), None)).expect("write");
    let mut tables = String::new();
    for number in 0..MANY.0 {
        let _ = write!(tables, "[[service]]\nname = \"{}\"\n{}\n", named(number), source(number));
    }
    let program = std::env::var("SCOREFRONT_BINARY").unwrap_or_else(|_| SCOREFRONT.to_owned());
    environment.table(&tables).serve_as(Command::new(program).arg("serve").stdout(Stdio::piped()))
}

/// Whether each service has the replicas that it is to have, or none for generation 0.
fn all_are(front_end: &FrontEnd, generation: usize) -> bool {
    let report: Value = serde_json::from_str(&http_get(front_end.admin, "/v1/replicas").1).expect("JSON");
    let services = report["services"].as_array().expect("a list");
    assert_eq!(services.len(), MANY.0);
    services.iter().enumerate().all(|(number, service)| {
        let replicas = service["deployments"][0]["replicas"].as_array().expect("a list").iter();
        let found: BTreeSet<_> = replicas.map(|one| one["address"].as_str().expect("text").to_owned()).collect();
        let expected = ips(number, generation);
        let expected: BTreeSet<_> = expected.iter().filter(|_| generation > 0).map(|ip| format!("{ip}:5001")).collect();
        found == expected
    })
}

/// Asks a few times a second, since each answer is a page of 1.5 MB that the front end makes meanwhile.
fn until_all_are(front_end: &FrontEnd, generation: usize) {
    eventually("all services have their replicas", || {
        thread::sleep(Duration::from_millis(50));
        all_are(front_end, generation).then_some(())
    });
}

fn mib(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let mib = bytes as f64 / f64::from(1 << 20);
    mib
}

/// `SCOREFRONT_BINARY=target/release/scorefront cargo test --test operator -- --ignored --nocapture a_thousand`
#[test]
#[ignore = "it measures, which is for a machine at rest and a release build"]
fn a_thousand_services_of_ten_endpoints_at_once() {
    let api = Api::start();
    let listed = serve_many(&api, |number| {
        let replicas: Vec<_> = ips(number, 1).iter().map(|ip| format!("http://{ip}:5001")).collect();
        format!("replicas = {replicas:?}")
    });
    until_all_are(&listed, 1);
    println!("listed in the files: {:.1} MiB resident", mib(listed.memory("VmRSS:")));
    drop(listed);

    let source = |number| format!("kubernetes = {{ service = \"{}\", port = \"http\" }}", named(number));
    for number in 0..MANY.0 {
        api.set(SLICES, slice_of(number, &ips(number, 1)));
    }
    let began = Instant::now();
    let front_end = serve_many(&api, source);
    let serving = began.elapsed();
    until_all_are(&front_end, 1);
    println!(
        "there at the start: {:?} after the process, which serves after {serving:?}; {:?} of CPU",
        began.elapsed(),
        front_end.cpu()
    );
    drop(front_end);

    for number in 0..MANY.0 {
        api.set(SLICES, slice_of(number, &[]));
    }
    let front_end = serve_many(&api, source);
    eventually("it is watched", || (api.asked(&["watch=true"]) >= 2).then_some(()));
    println!("without endpoints: {:.1} MiB resident", mib(front_end.memory("VmRSS:")));
    let slices: Vec<_> = (0..MANY.0).map(|number| slice_of(number, &ips(number, 1))).collect();
    let began = Instant::now();
    let cpu = front_end.cpu();
    for slice in slices {
        api.set(SLICES, slice);
    }
    let sent = began.elapsed();
    until_all_are(&front_end, 1);
    println!(
        "all at once, by a watch: {:?}, of which the server of the test took {sent:?} to say it; {:?} of CPU",
        began.elapsed(),
        front_end.cpu().saturating_sub(cpu)
    );
    println!(
        "with all endpoints: {:.1} MiB resident, {:.1} MiB at most",
        mib(front_end.memory("VmRSS:")),
        mib(front_end.memory("VmHWM:"))
    );

    api.cut();
    for number in 0..MANY.0 {
        api.set(SLICES, slice_of(number, &ips(number, 2)));
    }
    api.forget(false);
    let (began, cpu) = (Instant::now(), front_end.cpu());
    until_all_are(&front_end, 2);
    println!(
        "all others after a 410, by a list: {:?}; {:?} of CPU",
        began.elapsed(),
        front_end.cpu().saturating_sub(cpu)
    );
    println!(
        "and then: {:.1} MiB resident, {:.1} MiB at most",
        mib(front_end.memory("VmRSS:")),
        mib(front_end.memory("VmHWM:"))
    );
}
