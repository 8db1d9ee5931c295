//! Deployments as arguments: `name=blue,traffic=90,replica=http://a:5001`, and what becomes of those of a service when some
//! of them change.

use anyhow::{Context, bail};

use super::place;
use super::quantity::{millis, positive_millis};
use crate::admin::model::{DeploymentSettings, ServiceSettings};
use crate::config::defaults::DEPLOYMENT_NAME;

const KEYS: &str = "name, traffic, replica, dns, kubernetes, protocol, path, health-path, model, replica-max-concurrent-requests, \
                    health-interval and health-timeout";

/// All of the calls, in percent.
const ALL: u64 = 100;

/// One deployment, as far as the text says.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse(text: &str) -> Result<DeploymentSettings, String> {
    let mut deployment = DeploymentSettings::default();
    for part in text.split(',') {
        let Some((key, value)) = part.split_once('=') else {
            return Err(format!(
                "expected key=value, found {part:?}; a deployment is written as \
                                name=blue,traffic=90,replica=http://HOST:PORT"
            ));
        };
        set(&mut deployment, key.trim(), value).map_err(|why| format!("{key}: {why}"))?;
    }
    if deployment.name.is_empty() {
        return Err("it has no name: begin with name=blue".to_owned());
    }
    Ok(deployment)
}

fn set(deployment: &mut DeploymentSettings, key: &str, value: &str) -> Result<(), String> {
    let number = || value.parse::<u64>().map_err(|_| "expected a number".to_owned());
    match key {
        "name" => value.clone_into(&mut deployment.name),
        "traffic" => {
            let percent = number().ok().filter(|percent| *percent <= ALL);
            deployment.traffic = Some(percent.ok_or("expected 0 to 100, in percent")?);
        }
        "replica" => deployment.replicas.get_or_insert_default().push(place::replica(value)?),
        "dns" => deployment.dns = Some(place::dns(value)?),
        "kubernetes" => deployment.kubernetes = Some(place::kubernetes(value)?),
        "protocol" => deployment.protocol = Some(value.to_owned()),
        "path" => deployment.path = Some(value.to_owned()),
        "health-path" => deployment.health_path = Some(value.to_owned()),
        "model" => deployment.model = Some(value.to_owned()),
        "replica-max-concurrent-requests" => deployment.max_concurrent_requests_per_container = Some(number()?),
        "health-interval" => deployment.health_interval_ms = Some(millis(value)?),
        "health-timeout" => deployment.health_timeout_ms = Some(positive_millis(value)?),
        _ => return Err(format!("is not known here; there are {KEYS}")),
    }
    Ok(())
}

/// What is to become of a service's deployments.
#[derive(Default)]
pub struct Change<'a> {
    /// Those that are new, or say something else now.
    pub set: &'a [DeploymentSettings],
    pub removed: &'a [String],
    pub traffic: &'a [(String, u64)],
}

impl Change<'_> {
    pub fn is_none(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty() && self.traffic.is_empty()
    }

    /// The deployments of a service with `before`. What is not named stays.
    ///
    /// # Errors
    ///
    /// A deployment is named that there is not.
    pub fn of(&self, before: &ServiceSettings) -> anyhow::Result<Vec<DeploymentSettings>> {
        let mut deployments = match &before.deployments {
            Some(deployments) => deployments.clone(),
            None => vec![self.only(before)],
        };
        for new in self.set {
            match deployments.iter_mut().find(|one| one.name == new.name) {
                Some(known) => merge(known, new),
                // It gets calls when somebody says so.
                None => deployments.push(DeploymentSettings { traffic: new.traffic.or(Some(0)), ..new.clone() }),
            }
        }
        for name in self.removed {
            let index =
                deployments.iter().position(|one| one.name == *name).with_context(|| none(name, &deployments))?;
            deployments.remove(index);
        }
        for (name, percent) in self.traffic {
            let known = none(name, &deployments);
            deployments.iter_mut().find(|one| one.name == *name).context(known)?.traffic = Some(*percent);
        }
        if deployments.is_empty() {
            bail!("a service has one deployment at least");
        }
        Ok(deployments)
    }

    /// The only deployment of a service that was made without naming any, with the calls that the new ones leave it.
    fn only(&self, before: &ServiceSettings) -> DeploymentSettings {
        let taken = self.set.iter().filter(|new| new.name != DEPLOYMENT_NAME).filter_map(|new| new.traffic);
        DeploymentSettings {
            name: DEPLOYMENT_NAME.to_owned(),
            traffic: Some(ALL.saturating_sub(taken.sum())),
            protocol: before.protocol.clone(),
            path: before.path.clone(),
            health_path: before.health_path.clone(),
            model: before.model.clone(),
            replicas: before.replicas.clone(),
            dns: before.dns.clone(),
            kubernetes: before.kubernetes.clone(),
            ..DeploymentSettings::default()
        }
    }
}

fn none(name: &str, deployments: &[DeploymentSettings]) -> String {
    let names: Vec<_> = deployments.iter().map(|one| one.name.as_str()).collect();
    format!("there is no deployment {name}; there are {}", names.join(", "))
}

/// What `new` says, over what was there.
fn merge(known: &mut DeploymentSettings, new: &DeploymentSettings) {
    fn take<T>(known: &mut Option<T>, new: Option<T>) {
        *known = new.or_else(|| known.take());
    }
    let new = new.clone();
    // Replicas are listed or looked up, not both.
    if new.replicas.is_some() || new.dns.is_some() || new.kubernetes.is_some() {
        (known.replicas, known.dns, known.kubernetes) = (None, None, None);
    }
    take(&mut known.traffic, new.traffic);
    take(&mut known.max_concurrent_requests_per_container, new.max_concurrent_requests_per_container);
    take(&mut known.health_interval_ms, new.health_interval_ms);
    take(&mut known.health_timeout_ms, new.health_timeout_ms);
    take(&mut known.protocol, new.protocol);
    take(&mut known.path, new.path);
    take(&mut known.health_path, new.health_path);
    take(&mut known.model, new.model);
    take(&mut known.replicas, new.replicas);
    take(&mut known.dns, new.dns);
    take(&mut known.kubernetes, new.kubernetes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(deployments: &[&str]) -> ServiceSettings {
        let deployments = deployments.iter().map(|text| parse(text).expect(text)).collect();
        ServiceSettings { deployments: Some(deployments), ..ServiceSettings::default() }
    }

    fn shares(deployments: &[DeploymentSettings]) -> Vec<(&str, u64)> {
        deployments.iter().map(|one| (one.name.as_str(), one.traffic.expect("a share"))).collect()
    }

    #[test]
    fn a_deployment_is_written_in_one_word() {
        let blue = parse("name=blue,traffic=90,replica=http://a:5001,replica=http://b:5001,protocol=mlflow,path=/a=b")
            .expect("a deployment");
        assert_eq!((blue.name.as_str(), blue.traffic), ("blue", Some(90)));
        assert_eq!(blue.replicas, Some(vec!["http://a:5001".to_owned(), "http://b:5001".to_owned()]));
        assert_eq!((blue.protocol.as_deref(), blue.path.as_deref()), (Some("mlflow"), Some("/a=b")));
        for wrong in [
            "",
            "blue",
            "traffic=90",
            "name=blue,traffic=101",
            "name=blue,replica=a:5001",
            "name=blue,dns=a",
            "name=blue,kubernetes=a",
            "name=blue,colour=blue",
            "name=blue,",
            "name=blue,health-timeout=0s",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let before = settings(&["name=blue,traffic=100,protocol=mlflow,dns=a:1", "name=green,traffic=0,dns=b:1"]);
        let traffic = [("blue".to_owned(), 50), ("green".to_owned(), 50)];
        let after = Change { traffic: &traffic, ..Change::default() }.of(&before).expect("a change");
        assert_eq!(shares(&after), [("blue", 50), ("green", 50)]);
        let set = [parse("name=blue,replica=http://c:1").expect("a deployment")];
        let after = Change { set: &set, ..Change::default() }.of(&before).expect("a change");
        let blue = after.first().expect("blue");
        assert_eq!((blue.traffic, blue.protocol.as_deref(), &blue.dns), (Some(100), Some("mlflow"), &None));
        assert_eq!(blue.replicas, Some(vec!["http://c:1".to_owned()]));
    }

    #[test]
    fn deployments_come_and_go() {
        let before = settings(&["name=blue,traffic=100,dns=a:1"]);
        let set = [parse("name=green,dns=b:1").expect("a deployment")];
        let after = Change { set: &set, ..Change::default() }.of(&before).expect("a change");
        assert_eq!(shares(&after), [("blue", 100), ("green", 0)]);
        let (removed, traffic) = (["blue".to_owned()], [("green".to_owned(), 100)]);
        let after = Change { set: &set, removed: &removed, traffic: &traffic }.of(&before).expect("a change");
        assert_eq!(shares(&after), [("green", 100)]);
        assert!(Change { removed: &removed, ..Change::default() }.of(&before).is_err());
        let unknown = [("red".to_owned(), 1)];
        let error = Change { traffic: &unknown, ..Change::default() }.of(&before).expect_err("there is no red");
        assert_eq!(error.to_string(), "there is no deployment red; there are blue");
    }

    #[test]
    fn a_service_without_named_deployments_keeps_what_it_has_as_one() {
        let before = ServiceSettings {
            replicas: Some(vec!["http://a:1".to_owned()]),
            protocol: Some("mlflow".to_owned()),
            ..ServiceSettings::default()
        };
        let set = [parse("name=green,traffic=10,dns=b:1").expect("a deployment")];
        let after = Change { set: &set, ..Change::default() }.of(&before).expect("a change");
        assert_eq!(shares(&after), [("default", 90), ("green", 10)]);
        assert_eq!(after.first().and_then(|one| one.protocol.as_deref()), Some("mlflow"));
    }
}
