//! From the slices of a Service to the addresses of its pods. It asks nobody and waits for nothing.
//!
//! A slice says of some of a Service's endpoints how they are; all of its slices together say it of all. An endpoint may
//! stand in two of them while it moves from one to the other, and a pod stands in a slice of each family.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use uuid::Uuid;

use super::object;
use super::standing::Trouble;
use crate::config::KubernetesPort;

/// What is kept of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    pub ports: Box<[Port]>,
    pub endpoints: Box<[Endpoint]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Empty: the only one of the Service.
    pub name: Box<str>,
    /// Absent: any.
    pub number: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub ip: IpAddr,
    /// What tells pods apart; absent where somebody else wrote the slice.
    pub pod: Option<Uuid>,
    pub state: State,
}

/// Whether an endpoint takes requests; the greater is the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Out,
    /// It ends, and still answers.
    Ending,
    Ready,
}

/// Which endpoints of a Service are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that take requests, as the proxies of Kubernetes choose them: those that are ready, or if there are none, those
    /// that end and still answer. Of a pod with addresses of both families the IPv4 one.
    Serving,
    /// Every one that there is, however it is. Of a pod with addresses of both families the one of this family.
    Any(Family),
}

/// Of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What the slices of a Service say of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub addresses: BTreeSet<SocketAddr>,
    pub trouble: Option<Trouble>,
    /// The ports there are, where the one that is asked for is none of them.
    pub ports: BTreeSet<String>,
}

impl Slice {
    pub fn of(slice: object::EndpointSlice) -> Self {
        // The third kind, names, is not used by Kubernetes itself any more.
        let is_of_addresses = matches!(slice.address_type.as_deref(), Some("IPv4" | "IPv6"));
        let endpoints = slice.endpoints.unwrap_or_default();
        let endpoints = endpoints.iter().filter(|_| is_of_addresses).filter_map(Endpoint::of).collect();
        let ports = slice.ports.unwrap_or_default().into_iter().filter_map(Port::of).collect();
        Self { ports, endpoints }
    }

    /// The number in these pods of the port that is asked for, if they have it.
    fn number_of(&self, port: &KubernetesPort) -> Option<u16> {
        match port {
            KubernetesPort::Name(name) => self.ports.iter().find(|one| *one.name == *name.as_str())?.number,
            // A Service without ports has whatever its pods listen on.
            KubernetesPort::Number(number) => (self.ports.is_empty()
                || self.ports.iter().any(|one| one.number.is_none_or(|one| one == *number)))
            .then_some(*number),
        }
    }
}

impl Port {
    fn of(port: object::Port) -> Option<Self> {
        let is_tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        let number = port.number;
        (is_tcp && number != Some(0)).then(|| Self { name: port.name.unwrap_or_default().into(), number })
    }
}

impl Endpoint {
    fn of(endpoint: &object::Endpoint) -> Option<Self> {
        // If there are several, any of them will do.
        let ip: IpAddr = endpoint.addresses.as_ref()?.first()?.parse().ok()?;
        let ip = ip.to_canonical();
        let pod = endpoint.target_ref.as_ref().and_then(|pod| Uuid::try_parse(pod.uid.as_deref()?).ok());
        let state = endpoint.conditions.as_ref().map_or(State::Ready, State::of);
        (!ip.is_unspecified() && !ip.is_multicast()).then_some(Self { ip, pod, state })
    }
}

impl State {
    /// What is not said is as the API has it: ready, serving as it is ready, and not ending.
    fn of(conditions: &object::Conditions) -> Self {
        let is_ready = conditions.ready.unwrap_or(true);
        let is_serving = conditions.serving.unwrap_or(is_ready);
        let is_ending = conditions.terminating.unwrap_or(false);
        match (is_ready, is_serving && is_ending) {
            (true, _) => Self::Ready,
            (false, true) => Self::Ending,
            (false, false) => Self::Out,
        }
    }
}

/// The addresses that `slices`, all those of a Service, have at `port`, each pod's once.
pub fn merge<'a>(slices: impl Iterator<Item = &'a Slice>, port: &KubernetesPort, which: Which) -> Found {
    let mut best = BTreeMap::<SocketAddr, (State, Option<Uuid>)>::new();
    let (mut has_slice, mut has_port, mut lacks_port, mut ports) = (false, false, false, BTreeSet::new());
    for slice in slices {
        has_slice = true;
        let Some(number) = slice.number_of(port) else {
            // The slice of a Service without pods names no port.
            lacks_port |= !slice.ports.is_empty() || !slice.endpoints.is_empty();
            ports.extend(slice.ports.iter().map(label));
            continue;
        };
        has_port = true;
        for endpoint in &slice.endpoints {
            let known = best.entry(SocketAddr::new(endpoint.ip, number)).or_insert((endpoint.state, endpoint.pod));
            if endpoint.state > known.0 {
                *known = (endpoint.state, endpoint.pod);
            }
        }
    }
    let trouble = match (has_slice, has_port) {
        (false, _) => Some(Trouble::NoService),
        (true, false) if lacks_port => Some(Trouble::NoPort),
        (true, _) => None,
    };
    if trouble != Some(Trouble::NoPort) {
        ports.clear();
    }
    let preferred = match which {
        Which::Serving => {
            let wanted = best.values().map(|(state, _)| *state).max().filter(|state| *state > State::Out);
            best.retain(|_, (state, _)| Some(*state) == wanted);
            Family::V4
        }
        Which::Any(family) => family,
    };
    let is_preferred = |address: &SocketAddr| Family::of(address.ip()) == preferred;
    let has_preferred: HashSet<Uuid> =
        best.iter().filter(|(address, _)| is_preferred(address)).filter_map(|(_, (_, pod))| *pod).collect();
    best.retain(|address, (_, pod)| is_preferred(address) || pod.is_none_or(|pod| !has_preferred.contains(&pod)));
    Found { addresses: best.into_keys().collect(), trouble, ports }
}

/// A port as messages name it.
fn label(port: &Port) -> String {
    match (&*port.name, port.number) {
        ("", Some(number)) => number.to_string(),
        (name, Some(number)) => format!("{name} ({number})"),
        (name, None) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
