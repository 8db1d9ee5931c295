//! What is set is shown, and what is shown can be set.

use std::path::Path;

use proptest::collection::vec;
use proptest::option::of as maybe;
use proptest::prelude::*;
use serde_json::Value as Json;
use toml_edit::DocumentMut;

use super::super::model::{DeploymentSettings, Kubernetes, KubernetesPort, Mirror, ServiceSettings};
use super::*;
use crate::config::{self, Diagnostics, Overlay};

/// What stands in a table of its own, before and after all changes.
const KEPT: &str = "# Who asks for more talks to the owners.\n";

/// The service that the text of a main file describes.
fn meant(text: &str) -> config::Service {
    let file = Path::new("scorefront.toml");
    let mut overlay = Overlay::default();
    overlay.set(file.to_owned(), Some(text.to_owned()));
    let mut found = Diagnostics::default();
    let (config, _) = config::load_over(file, &overlay, &mut found);
    assert!(!found.has_errors(), "{found}\n{text}");
    config.and_then(|mut config| config.services.pop()).expect("a service")
}

fn replicas() -> impl Strategy<Value = Vec<String>> {
    (1..4u8).prop_map(|many| (0..many).map(|number| format!("http://10.0.0.{number}:5001")).collect())
}

prop_compose! {
    fn target()(
        protocol in maybe(prop::sample::select(vec!["azureml", "mlflow", "kserve-v2"])),
        path in maybe("/[a-z]{1,8}"),
        health_path in maybe("/[a-z]{1,8}"),
        replicas in replicas(),
        source in 0..4usize,
        concurrent in maybe(0..100u64),
        interval in maybe(0..100_000u64),
        timeout in maybe(1..100_000u64),
    ) -> DeploymentSettings {
        DeploymentSettings {
            protocol: protocol.map(str::to_owned),
            path,
            health_path,
            replicas: (source == 0).then_some(replicas),
            dns: (source == 1).then(|| "models.svc:5001".to_owned()),
            kubernetes: (source > 1).then(|| Kubernetes {
                namespace: Some("models".to_owned()),
                service: "churn".to_owned(),
                port: [KubernetesPort::Number(5001), KubernetesPort::Name("http".to_owned())][source - 2].clone(),
            }),
            max_concurrent_requests_per_container: concurrent,
            health_interval_ms: interval,
            health_timeout_ms: timeout,
            ..DeploymentSettings::default()
        }
    }
}

fn deployments() -> impl Strategy<Value = Vec<DeploymentSettings>> {
    (vec(target(), 2..4), 0..=100u64, any::<bool>()).prop_map(|(mut targets, share, swapped)| {
        for (number, target) in targets.iter_mut().enumerate() {
            target.name = ["blue", "green", "red"][number].to_owned();
            target.traffic = Some([share, 100 - share, 0][number]);
        }
        if swapped {
            targets.swap(0, 1);
        }
        targets
    })
}

prop_compose! {
    fn settings()(
        only in target(),
        several in maybe(deployments()),
        scoring_timeout_ms in maybe(1..3_600_000u64),
        max_queue_wait_ms in maybe(1..100_000u64),
        max_queue in maybe(1..1000u64),
        max_body_bytes in maybe(1..u64::from(u32::MAX)),
        text in any::<bool>(),
        rate in maybe(1..1000u64),
        in_flight in maybe(1..1000u64),
        mirrored in maybe(1..=50u64),
    ) -> ServiceSettings {
        let has_several = several.is_some();
        let idle = several.iter().flatten().find(|one| one.traffic == Some(0)).map(|one| one.name.clone());
        let mirror = idle.zip(mirrored).map(|(deployment, percent)| Mirror { deployment, percent });
        let only = if has_several { DeploymentSettings::default() } else { only };
        ServiceSettings {
            auth_enabled: Some(false),
            scoring_timeout_ms,
            max_queue_wait_ms,
            max_queue,
            max_body_bytes,
            error_format: text.then(|| "text".to_owned()),
            max_requests_per_second: rate,
            burst: rate.map(|rate| rate * 2),
            max_requests_in_flight: in_flight,
            mirror,
            max_concurrent_requests_per_container: only.max_concurrent_requests_per_container,
            health_interval_ms: only.health_interval_ms,
            health_timeout_ms: only.health_timeout_ms,
            protocol: only.protocol,
            path: only.path,
            health_path: only.health_path,
            replicas: only.replicas,
            dns: only.dns,
            kubernetes: only.kubernetes,
            deployments: several,
            ..ServiceSettings::default()
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_means_what_was_asked_for_whatever_it_was_before(before in settings(), after in settings()) {
        let mut document: DocumentMut = format!("{KEPT}[[service]]\nname = 'iris' # the flower\n").parse().expect("TOML");
        let table = |document: &mut DocumentMut, old: &ServiceSettings, new: &ServiceSettings| {
            let table = document["service"].as_array_of_tables_mut().and_then(|tables| tables.get_mut(0));
            write(table.expect("a service"), old, new);
        };
        table(&mut document, &ServiceSettings::default(), &before);
        let first = document.to_string();
        prop_assert_eq!(&of(&meant(&first)), &before);

        table(&mut document, &before, &after);
        let text = document.to_string();
        prop_assert_eq!(&of(&meant(&text)), &after);
        let name_line = "name = 'iris' # the flower\n";
        prop_assert!(text.starts_with(KEPT) && text.contains(name_line));

        // Back again: nothing is left of the change.
        table(&mut document, &after, &before);
        prop_assert_eq!(&of(&meant(&document.to_string())), &before);
    }

    #[test]
    fn a_merge_patch_is_what_rfc_7396_says(before in settings(), patch in settings(), nulls in any::<u32>()) {
        let Ok(Json::Object(mut patch)) = serde_json::to_value(&patch) else { unreachable!("an object") };
        for (bit, value) in patch.values_mut().enumerate() {
            if nulls >> (bit % 32) & 1 == 1 {
                *value = Json::Null;
            }
        }
        let Ok(Json::Object(mut expected)) = serde_json::to_value(&before) else { unreachable!("an object") };
        for (name, value) in &patch {
            if value.is_null() {
                expected.remove(name);
            } else {
                expected.insert(name.clone(), value.clone());
            }
        }
        let merged = merged(&before, patch).expect("settings");
        prop_assert_eq!(serde_json::to_value(merged).expect("JSON"), Json::Object(expected));
    }

    #[test]
    fn a_part_of_a_mirror_can_be_changed(before in settings(), percent in 1..=50u64) {
        let Some(mirror) = before.mirror.clone() else { return Ok(()) };
        let patch = serde_json::json!({"mirror": {"percent": percent}});
        let Json::Object(patch) = patch else { unreachable!("an object") };
        let merged = merged(&before, patch).expect("settings");
        prop_assert_eq!(merged.mirror, Some(Mirror { percent, ..mirror }));
    }
}
