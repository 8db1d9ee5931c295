//! The way of a call, station by station: what was decided at each, in words. It decides nothing but what belongs to no
//! request: whether anything is listened on where the URL leads.

mod connection;

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use super::call::Call;
use super::replicas;
use super::report::{self, Refused, Report, Step};
use crate::config::diagnostic::nearest;
use crate::config::{Auth, Config, Rate, RequestLimits, Source, StickyBy};
use crate::environment::Environment;
use crate::scoring::catalog;
use crate::scoring::error::Refusal;
use crate::scoring::explain::{Candidate, ChosenBy, Found, Question, Station, explain};
use crate::tls::Handshake;

/// A call on its way.
pub(super) struct Way<'a> {
    environment: &'a Environment,
    config: &'a Config,
    call: Call,
    report: Report,
}

/// It ends here.
struct Ended;

impl<'a> Way<'a> {
    pub fn of(environment: &'a Environment, call: Call) -> Self {
        let report = Report {
            method: call.method.to_string(),
            url: call.url.clone(),
            reached: false,
            refusal: None,
            steps: Vec::new(),
            certificate: None,
            service: None,
            deployments: Vec::new(),
        };
        Self { environment, config: environment.config(), call, report }
    }

    /// All that is to be said of it.
    pub async fn walk(mut self) -> Report {
        // Where it ends early, that is in the report.
        let _ = self.follow().await;
        self.report
    }

    async fn follow(&mut self) -> Result<(), Ended> {
        self.listener()?;
        let handshake = if self.call.is_tls { Some(self.handshake()?) } else { None };
        let found = explain(self.config, self.question(handshake));
        self.transport(&found)?;
        self.host(&found)?;
        self.path(&found)?;
        self.key(&found)?;
        self.limits(&found)?;
        self.time(&found)?;
        self.deployment(&found)?;
        self.replicas(&found).await?;
        self.report.reached = true;
        Ok(())
    }

    fn say(&mut self, at: &'static str, says: Vec<String>) {
        self.report.steps.push(Step { at, refused: false, says });
    }

    /// What happens to the connection, where it comes to no request.
    fn cut(&mut self, at: &'static str, mut says: Vec<String>, message: String) -> Ended {
        says.push(message.clone());
        self.report.steps.push(Step { at, refused: true, says });
        self.report.refusal = Some(Refused { at, status: None, code: None, message });
        Ended
    }

    fn refuse(&mut self, at: &'static str, mut says: Vec<String>, refusal: &Refusal) -> Ended {
        let (status, code) = (refusal.status().as_u16(), refusal.code.as_str());
        says.push(format!("{status} {code}"));
        self.report.steps.push(Step { at, refused: true, says });
        let message = refusal.message().to_owned();
        self.report.refusal = Some(Refused { at, status: Some(status), code: Some(code), message });
        Ended
    }

    /// Says what is so at a station, or that the call is refused at one of `stations`.
    fn pass(&mut self, at: &'static str, stations: &[Station], found: &Found, says: Vec<String>) -> Result<(), Ended> {
        match &found.refusal {
            Some((station, refusal)) if stations.contains(station) => Err(self.refuse(at, says, refusal)),
            _ => {
                self.say(at, says);
                Ok(())
            }
        }
    }

    fn question(&self, handshake: Option<Handshake>) -> Question {
        Question {
            method: self.call.method.clone(),
            uri: self.call.target.clone(),
            headers: self.call.headers.clone(),
            from: self.call.from,
            handshake,
        }
    }

    fn host(&mut self, found: &Found) -> Result<(), Ended> {
        let host = self.call.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let is_refused = found.refusal.as_ref().is_some_and(|(station, _)| *station == Station::Host);
        let why = match (self.call.is_tls, is_refused) {
            (true, false) => ", which the certificate covers",
            (true, true) | (false, _) => "",
        };
        self.pass("host", &[Station::Host], found, vec![format!("{host}{why}")])?;
        match &found.refusal {
            Some((Station::Fields, refusal)) => Err(self.refuse("fields", Vec::new(), refusal)),
            // One that is for no path at all.
            Some((Station::Method, refusal)) if found.service.is_none() => {
                let says = vec![self.call.method.to_string()];
                Err(self.refuse("method", says, refusal))
            }
            _ => Ok(()),
        }
    }

    fn path(&mut self, found: &Found) -> Result<(), Ended> {
        let path = self.call.target.path().to_owned();
        self.pass("path", &[Station::Path], found, vec![path])?;
        let mut says = Vec::new();
        if let (Some(served), Some(config)) = (&found.service, self.configured(found)) {
            let under = match &config.cnames[..] {
                [] => "served under every name".to_owned(),
                names => format!("served under {}", list(names)),
            };
            says.push(format!("{} ({}), {under}", served.name, config.at));
            self.report.service = Some(service(config, found, self.call.is_keyed));
        } else {
            says.extend(self.why_no_service());
        }
        self.pass("service", &[Station::Service], found, says)?;
        let says = vec![self.call.method.to_string()];
        self.pass("method", &[Station::Method], found, says)
    }

    /// What else there is to know of a service that is not found.
    fn why_no_service(&self) -> Vec<String> {
        let name = self.call.target.path().split('/').nth(4).unwrap_or_default();
        let other = self.config.services.iter().find(|service| service.name.as_str() == name);
        let other = other.map(|other| format!("{name} ({}) is served under {} only", other.at, list(&other.cnames)));
        let names = self.config.services.iter().map(|service| service.name.as_str());
        let near = if other.is_none() { nearest(name, names) } else { None };
        let near = near.map(|near| format!("there is a service {near}"));
        let discovered = self.config.kubernetes.discovered.is_some();
        let unasked = discovered.then_some("services that Kubernetes names by their labels are not looked for here");
        other.into_iter().chain(near).chain(unasked.map(str::to_owned)).collect()
    }

    fn configured(&self, found: &Found) -> Option<&'a crate::config::Service> {
        let name = &found.service.as_ref()?.name;
        self.config.services.iter().find(|service| service.name.as_str() == &**name)
    }

    fn key(&mut self, found: &Found) -> Result<(), Ended> {
        let Some(config) = self.configured(found) else { return Ok(()) };
        let Auth::Keys(keys) = &config.auth else {
            self.say("key", vec!["none is asked for: auth = false".to_owned()]);
            return Ok(());
        };
        let names = list(keys.iter().map(|key| &key.name));
        let mut says = vec![match &names[..] {
            "" => "asked for, and there is none: nobody can call it".to_owned(),
            names => format!("asked for, as `Authorization: Bearer KEY`; there are: {names}"),
        }];
        match found.key.and_then(|key| keys.get(key)) {
            Some(key) if self.call.is_keyed => says.push(format!("the one that is sent is {}", key.name)),
            Some(key) => says.push(format!("none is given here (--key FILE): this goes on as with {}", key.name)),
            None if self.call.is_keyed => says.push("the one that is sent is none of them".to_owned()),
            None => {}
        }
        self.pass("key", &[Station::Key], found, says)
    }

    fn limits(&mut self, found: &Found) -> Result<(), Ended> {
        let Some(config) = self.configured(found) else { return Ok(()) };
        let mut says = vec![format!("of the service: {}", limits(config.limits))];
        let own = match &config.auth {
            Auth::Keys(keys) => found.key.and_then(|key| keys.get(key)),
            Auth::Open => None,
        };
        if let Some(key) = own.filter(|key| key.limits != RequestLimits::default()) {
            says.push(format!("of the key {}: {}", key.name, limits(key.limits)));
        }
        self.pass("limits", &[Station::Limits], found, says)?;
        let says = vec![format!("of {} bytes at most", config.max_body)];
        self.pass("body", &[Station::Body], found, says)
    }

    fn time(&mut self, found: &Found) -> Result<(), Ended> {
        let Some(config) = self.configured(found) else { return Ok(()) };
        let own = config.scoring_timeout;
        let says = match found.timeout {
            Some(timeout) if timeout < own => format!("{timeout:?}, which the caller asks for, in place of {own:?}"),
            _ => format!("{own:?} (scoring_timeout)"),
        };
        let queue = format!(
            "waits for a replica for {:?} at most, if fewer than {} wait",
            config.max_queue_wait, config.max_queue
        );
        self.pass("time", &[Station::Time], found, vec![says, queue])
    }

    fn deployment(&mut self, found: &Found) -> Result<(), Ended> {
        let Some(config) = self.configured(found) else { return Ok(()) };
        let name = |candidate: &Candidate| config.deployments.get(candidate.place).map(|one| one.name.clone());
        let names: Vec<_> = found.deployments.iter().filter_map(name).collect();
        let mut says = Vec::new();
        match (found.chosen_by, &names[..]) {
            (_, []) => {}
            (ChosenBy::Caller, [name, ..]) => {
                says.push(format!("{name}, which the caller names (azureml-model-deployment)"));
            }
            (ChosenBy::Sticky, [name, ..]) => says.push(format!("{name}, always, for a caller like this: sticky_by")),
            (ChosenBy::Share, [name]) => says.push(format!("{name}, which has all of the traffic")),
            (ChosenBy::Share, names) => {
                let shares = found.deployments.iter().zip(names);
                let shares = list(shares.map(|(candidate, name)| format!("{name} ({} %)", candidate.share)));
                says.push(format!("by the shares of the traffic: {shares}"));
                says.extend(
                    config.sticky_by.as_ref().map(|by| format!("the same caller keeps to one, by {}", told(by))),
                );
            }
        }
        if let Some((percent, name)) = mirror(config, found) {
            says.push(format!("{percent} % of such calls are copied to {name}"));
        }
        self.pass("deployment", &[Station::Deployment], found, says)?;
        match &found.refusal {
            Some((_, refusal)) => Err(self.refuse("target", Vec::new(), refusal)),
            None => Ok(()),
        }
    }

    async fn replicas(&mut self, found: &Found) -> Result<(), Ended> {
        let (Some(config), Some(served)) = (self.configured(found), &found.service) else { return Ok(()) };
        let mut is_any = false;
        for candidate in &found.deployments {
            let (Some(deployment), Some(of)) =
                (config.deployments.get(candidate.place), served.deployments().get(candidate.place))
            else {
                continue;
            };
            let looked_up = replicas::of(self.config, &deployment.source).await;
            is_any |= looked_up.as_ref().is_ok_and(|found| !found.is_empty()) || looked_up.is_err();
            let row = row(deployment, of, candidate, looked_up);
            let mut says = self.describe(&row);
            if self.config.cluster.is_some() {
                says.push(
                    "  the front ends of the [cluster] share them: another one may be handed the call".to_owned(),
                );
            }
            self.say("replicas", says);
            self.report.deployments.push(row);
        }
        if is_any {
            return Ok(());
        }
        Err(self.refuse("replicas", vec!["there is none".to_owned()], &Refusal::no_ready_replicas(&served.name)))
    }

    fn describe(&self, row: &report::Deployment) -> Vec<String> {
        let source = match (&row.looked_up_by, &row.defined_at) {
            (Some(target), Some(at)) => format!("{} names them: {target} ({at})", by(row.source)),
            (_, Some(at)) => format!("listed ({at})"),
            (_, None) => "none is listed".to_owned(),
        };
        let mut says = vec![format!("{}: {source}", row.name)];
        match (&row.replicas, &row.problem) {
            (None, problem) => {
                says.push(format!("  cannot be looked up here: {}", problem.as_deref().unwrap_or_default()));
                says.push(format!("  asked for {} {}", self.call.method, row.target));
            }
            (Some(none), _) if none.is_empty() => says.push("  there is none: 503 NoReadyReplicas".to_owned()),
            (Some(replicas), _) => {
                let asked = |replica| format!("  {} http://{replica}{}", self.call.method, row.target);
                says.extend(replicas.iter().map(asked));
            }
        }
        says.push(match row.permits_per_replica {
            Some(permits) => format!("  each has {permits} at a time; its health is at {}", row.health_path),
            None => format!("  each has any number at a time; its health is at {}", row.health_path),
        });
        says
    }
}

fn row(
    deployment: &crate::config::Deployment,
    served: &catalog::Deployment,
    candidate: &Candidate,
    looked_up: Result<Vec<crate::config::ReplicaAddress>, String>,
) -> report::Deployment {
    let (source, looked_up_by, at) = match &deployment.source {
        Source::Static(listed) => ("static", None, listed.first().map(|replica| &replica.at)),
        Source::Dns { target, at } => ("dns", Some(target.to_string()), Some(at)),
        Source::Kubernetes { target, at } => ("kubernetes", Some(target.to_string()), Some(at)),
    };
    let (replicas, problem) = match looked_up {
        Ok(found) => (Some(found.iter().map(ToString::to_string).collect()), None),
        Err(problem) => (None, Some(problem)),
    };
    report::Deployment {
        name: deployment.name.clone(),
        share: candidate.share,
        target: candidate.target.clone(),
        health_path: served.paths.health.clone(),
        permits_per_replica: Some(deployment.max_concurrent_requests).filter(|permits| *permits > 0),
        source,
        looked_up_by,
        defined_at: at.map(ToString::to_string),
        replicas,
        problem,
    }
}

fn service(config: &crate::config::Service, found: &Found, is_keyed: bool) -> report::Service {
    let keys = match &config.auth {
        Auth::Keys(keys) => &keys[..],
        Auth::Open => &[],
    };
    let Rate { per_second, burst } = config.limits.rate.unwrap_or(Rate { per_second: 0, burst: 0 });
    let is_limited = config.limits.rate.is_some();
    report::Service {
        name: config.name.to_string(),
        defined_at: config.at.to_string(),
        needs_key: config.auth != Auth::Open,
        keys: keys.iter().map(|key| key.name.clone()).collect(),
        key: found.key.filter(|_| is_keyed).and_then(|key| keys.get(key)).map(|key| key.name.clone()),
        timeout_ms: found.timeout.map(millis),
        max_body: config.max_body,
        max_queue: config.max_queue,
        max_queue_wait_ms: millis(config.max_queue_wait),
        max_requests_per_second: is_limited.then_some(per_second),
        burst: is_limited.then_some(burst),
        max_requests_in_flight: config.limits.max_in_flight,
        chosen_by: match found.chosen_by {
            ChosenBy::Caller => "caller",
            ChosenBy::Sticky => "sticky",
            ChosenBy::Share => "share",
        },
        mirrored_to: mirror(config, found).map(|(_, name)| name.to_owned()),
    }
}

/// How many of such calls are copied, in percent, and where to.
fn mirror<'a>(config: &'a crate::config::Service, found: &Found) -> Option<(u8, &'a str)> {
    let mirror = found.mirror?;
    Some((mirror.percent, config.deployments.get(mirror.deployment)?.name.as_str()))
}

fn limits(limits: RequestLimits) -> String {
    let rate = limits.rate.map(|rate| format!("{} requests a second, in bursts of {}", rate.per_second, rate.burst));
    let in_flight = limits.max_in_flight.map(|max| format!("{max} requests in flight"));
    let all: Vec<_> = rate.into_iter().chain(in_flight).collect();
    if all.is_empty() { "none".to_owned() } else { all.join("; ") }
}

fn told(by: &StickyBy) -> String {
    match by {
        StickyBy::Key => "its key".to_owned(),
        StickyBy::Address => "its address (--from)".to_owned(),
        StickyBy::Header(name) => format!("its {name} (-H)"),
    }
}

fn by(source: &str) -> &'static str {
    if source == "dns" { "DNS" } else { "Kubernetes" }
}

fn list<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(", ")
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
