use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn port(text: &str) -> KubernetesPort {
    text.parse().expect("a port")
}

fn read(json: serde_json::Value) -> Slice {
    Slice::of(serde_json::from_value(json).expect("a slice"))
}

fn recorded() -> Slice {
    let text = include_str!("../../../../tests/fixtures/kubernetes/endpointslice.json");
    read(serde_json::from_str(text).expect("JSON"))
}

fn found(slices: &[Slice], wanted: &str) -> Vec<String> {
    merge(slices.iter(), &port(wanted), Which::Serving).addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn of_a_recorded_slice_the_ready_endpoint_is_a_replica() {
    let slice = recorded();
    let states: Vec<_> = slice.endpoints.iter().map(|endpoint| endpoint.state).collect();
    assert_eq!(states, [State::Ready, State::Ending, State::Out]);
    let slices = [slice];
    for (wanted, number) in [("http", 5001), ("5001", 5001), ("metrics", 9090), ("9090", 9090)] {
        assert_eq!(found(&slices, wanted), [format!("10.244.1.17:{number}")]);
    }
}

#[test]
fn those_that_end_stand_in_only_where_none_is_ready() {
    let mut slice = recorded();
    slice.endpoints[0].state = State::Out;
    assert_eq!(found(&[slice.clone()], "http"), ["10.244.2.31:5001"]);
    slice.endpoints[1].state = State::Out;
    assert!(found(&[slice], "http").is_empty());
}

#[test]
fn what_is_not_said_is_as_the_api_has_it() {
    let state = |conditions: serde_json::Value| {
        let slice = serde_json::json!({
            "addressType": "IPv4", "ports": null,
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}],
        });
        read(slice).endpoints[0].state
    };
    assert_eq!(state(serde_json::json!(null)), State::Ready);
    assert_eq!(state(serde_json::json!({})), State::Ready);
    assert_eq!(state(serde_json::json!({"ready": false})), State::Out);
    assert_eq!(state(serde_json::json!({"ready": false, "terminating": true})), State::Out);
    assert_eq!(state(serde_json::json!({"ready": false, "serving": true})), State::Out);
    // As a Service with publishNotReadyAddresses has them.
    assert_eq!(state(serde_json::json!({"ready": true, "serving": false, "terminating": true})), State::Ready);
}

#[test]
fn what_no_replica_can_have_is_left_out() {
    let slice = |kind: &str, ip: &str| {
        read(serde_json::json!({"addressType": kind, "endpoints": [{"addresses": [ip]}], "ports": [{"port": 5001}]}))
    };
    for (kind, ip) in
        [("IPv4", "0.0.0.0"), ("IPv6", "::"), ("IPv4", "224.0.0.1"), ("FQDN", "a.example.com"), ("IPv4", "x")]
    {
        assert!(slice(kind, ip).endpoints.is_empty(), "{ip}");
    }
    let odd = read(serde_json::json!({
        "addressType": "IPv4", "endpoints": [{"addresses": []}, {}],
        "ports": [{"name": "http", "port": 53, "protocol": "UDP"}, {"name": "zero", "port": 0}],
    }));
    assert_eq!(odd, Slice::default());
}

#[test]
fn a_port_that_is_not_there_is_told_with_those_that_are() {
    let told = merge([recorded()].iter(), &port("grpc"), Which::Serving);
    assert_eq!(told.trouble, Some(Trouble::NoPort));
    assert_eq!(told.ports.into_iter().collect::<Vec<_>>(), ["http (5001)", "metrics (9090)"]);
    assert_eq!(merge([].iter(), &port("http"), Which::Serving).trouble, Some(Trouble::NoService));
    // A Service without pods: its slice names no ports yet.
    assert_eq!(merge([Slice::default()].iter(), &port("http"), Which::Serving).trouble, None);
    // One without ports at all has every number, and no name.
    let bare = Slice { ports: Box::default(), ..recorded() };
    assert_eq!(merge([bare.clone()].iter(), &port("http"), Which::Serving).trouble, Some(Trouble::NoPort));
    assert_eq!(found(&[bare], "7"), ["10.244.1.17:7"]);
}

#[test]
fn any_endpoint_counts_once_whatever_its_state_by_the_family_that_is_asked_for() {
    let [v4, mut v6] = [recorded(), recorded()];
    // The same pods, but for the last one, which has no other address.
    for (number, endpoint) in (1..).zip(&mut v6.endpoints) {
        endpoint.ip = format!("fd00::{number}").parse().expect("an IP");
    }
    v6.endpoints[2].pod = Some(Uuid::from_u128(9));
    let slices = [v4, v6];
    let found = |family| {
        let found = merge(slices.iter(), &port("http"), Which::Any(family));
        found.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let ipv4: Vec<_> = slices[0].endpoints.iter().map(|endpoint| format!("{}:5001", endpoint.ip)).collect();
    assert_eq!(found(Family::V6), [&*ipv4[2], "[fd00::1]:5001", "[fd00::2]:5001", "[fd00::3]:5001"]);
    let mut all = [ipv4, vec!["[fd00::3]:5001".to_owned()]].concat();
    all.sort();
    let mut found = found(Family::V4);
    found.sort();
    assert_eq!(found, all);
}

/// Pods have a number, and an address of each family after it.
fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let state = prop::sample::select(vec![State::Out, State::Ending, State::Ready]);
    let one = (1..6u8, any::<bool>(), any::<bool>(), state).prop_map(|(number, is_ipv6, is_pod, state)| {
        let ip = if is_ipv6 { format!("fd00::{number}") } else { format!("10.0.0.{number}") };
        let pod = is_pod.then(|| Uuid::from_u128(number.into()));
        Endpoint { ip: ip.parse().expect("an IP"), pod, state }
    });
    vec(one, 0..8)
}

fn slices() -> impl Strategy<Value = Vec<Slice>> {
    let ports = prop::sample::subsequence(vec![("http", 5001), ("http", 5002), ("metrics", 5001), ("", 5003)], 0..3);
    let ports = ports.prop_map(|ports| {
        // A name is there once.
        let mut seen = HashSet::new();
        let ports = ports.into_iter().filter(|(name, _)| seen.insert(*name));
        ports.map(|(name, number)| Port { name: name.into(), number: Some(number) }).collect::<Box<[_]>>()
    });
    vec((ports, endpoints()).prop_map(|(ports, endpoints)| Slice { ports, endpoints: endpoints.into() }), 0..6)
}

/// The same in as many passes as it has rules.
fn by_the_rules(slices: &[Slice], wanted: &KubernetesPort) -> BTreeSet<SocketAddr> {
    let mut all = Vec::new();
    for slice in slices {
        let numbers: Vec<u16> = match wanted {
            KubernetesPort::Number(number) if slice.ports.is_empty() => vec![*number],
            KubernetesPort::Number(number) => {
                slice.ports.iter().filter_map(|port| port.number).filter(|port| port == number).take(1).collect()
            }
            KubernetesPort::Name(name) => {
                slice.ports.iter().filter(|port| *port.name == *name.as_str()).filter_map(|port| port.number).collect()
            }
        };
        for number in numbers {
            all.extend(slice.endpoints.iter().map(|one| (SocketAddr::new(one.ip, number), *one)));
        }
    }
    let best_of =
        |address: SocketAddr| all.iter().filter(|(other, _)| *other == address).map(|(_, one)| one.state).max();
    for state in [State::Ready, State::Ending] {
        let of_state: Vec<_> = all.iter().filter(|(address, _)| best_of(*address) == Some(state)).collect();
        if of_state.is_empty() {
            continue;
        }
        // Which pod an address is of is said by the slice that says the best of it, the first of them.
        let pod_of = |address: SocketAddr| {
            of_state.iter().find(|(other, one)| *other == address && one.state == state).and_then(|(_, one)| one.pod)
        };
        let has_ipv4 = |pod: Uuid| of_state.iter().any(|(other, _)| other.is_ipv4() && pod_of(*other) == Some(pod));
        let is_kept = |address: SocketAddr| address.is_ipv4() || !pod_of(address).is_some_and(has_ipv4);
        return of_state.iter().map(|(address, _)| *address).filter(|address| is_kept(*address)).collect();
    }
    BTreeSet::new()
}

proptest! {
    #[test]
    fn merging_goes_by_the_rules(slices in slices(), wanted in prop::sample::select(vec!["http", "metrics", "5001", "5003"])) {
        let wanted = port(wanted);
        let found = merge(slices.iter(), &wanted, Which::Serving);
        prop_assert_eq!(&found.addresses, &by_the_rules(&slices, &wanted));
        prop_assert_eq!(found.trouble == Some(Trouble::NoService), slices.is_empty());
    }

    #[test]
    fn it_does_not_matter_in_which_slice_an_endpoint_stands(all in endpoints(), cut in 0..8usize, is_doubled in any::<bool>()) {
        // What is said of an endpoint is said everywhere: it is only moved.
        let mut seen = HashSet::new();
        let all: Vec<_> = all.into_iter().filter(|one| seen.insert(one.ip)).collect();
        let slice = |endpoints: &[Endpoint]| Slice { ports: recorded().ports, endpoints: endpoints.into() };
        let (first, second) = all.split_at(cut.min(all.len()));
        let one = merge([slice(&all)].iter(), &port("http"), Which::Serving);
        let two = merge([slice(first), slice(if is_doubled { &all } else { second })].iter(), &port("http"), Which::Serving);
        prop_assert_eq!(one.addresses, two.addresses);
    }
}
