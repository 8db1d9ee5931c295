use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::discovery::kubernetes::standing::Standing;

fn slice(name: &str, service: Option<&str>, endpoints: &[u8]) -> EndpointSlice {
    let endpoints: Vec<_> = endpoints.iter().map(|n| json!({"addresses": [format!("10.0.0.{}", n + 1)]})).collect();
    let labels = service.map(|service| json!({SERVICE_NAME: service}));
    let slice = json!({
        "metadata": {"name": name, "resourceVersion": "1", "labels": labels},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 5001}],
    });
    serde_json::from_value(slice).expect("a slice")
}

fn namespace() -> Rc<RefCell<Namespace>> {
    Rc::new(RefCell::new(Namespace::new(Standing::new(1).watch("endpointslices", "models"))))
}

fn found(namespace: &Namespace, service: &str) -> Option<Vec<String>> {
    let found = namespace.found(&format!("{service}:5001").parse().expect("a target"), Which::Serving)?;
    Some(found.addresses.iter().map(ToString::to_string).collect())
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Happens {
    Set(u8, Option<u8>, Vec<u8>),
    Gone(u8),
    /// A list of all there is, of which these were not heard before: set, or gone.
    Listed(Vec<(u8, Option<u8>, Vec<u8>)>),
}

fn happens() -> impl Strategy<Value = Happens> {
    let slice = || (0..5u8, prop::option::weighted(0.8, 0..3u8), vec(0..5u8, 0..4));
    prop_oneof![
        4 => slice().prop_map(|(name, service, endpoints)| Happens::Set(name, service, endpoints)),
        2 => (0..5u8).prop_map(Happens::Gone),
        1 => vec(slice(), 0..5).prop_map(Happens::Listed),
    ]
}

proptest! {
    #[test]
    fn what_is_known_is_what_was_heard(all in vec(happens(), 0..30)) {
        let namespace = namespace();
        let name = |n: u8| format!("slice-{n}");
        let service = |n: u8| format!("service-{n}");
        let of = |(n, of, endpoints): &(u8, Option<u8>, Vec<u8>)| slice(&name(*n), of.map(service).as_deref(), endpoints);
        let mut followers: Vec<_> = (0..3u8)
            .map(|n| Follower::new(Rc::clone(&namespace), &service(n).parse().expect("a name")))
            .collect();
        namespace.borrow_mut().hear(Heard::Begin);
        namespace.borrow_mut().hear(Heard::End);
        let mut model = BTreeMap::<u8, (Option<u8>, Vec<u8>)>::new();
        for one in all {
            let before: Vec<_> = (0..3).map(|n| found(&namespace.borrow(), &service(n))).collect();
            for follower in &mut followers {
                let _ = follower.changes.borrow_and_update();
            }
            match one {
                Happens::Set(n, service, endpoints) => {
                    namespace.borrow_mut().hear(Heard::Set(of(&(n, service, endpoints.clone()))));
                    model.insert(n, (service, endpoints));
                }
                Happens::Gone(n) => {
                    namespace.borrow_mut().hear(Heard::Gone(slice(&name(n), None, &[])));
                    model.remove(&n);
                }
                Happens::Listed(slices) => {
                    // A list has each once.
                    model = slices.into_iter().map(|(n, service, endpoints)| (n, (service, endpoints))).collect();
                    namespace.borrow_mut().hear(Heard::Begin);
                    for (n, (service, endpoints)) in &model {
                        namespace.borrow_mut().hear(Heard::Listed(of(&(*n, *service, endpoints.clone()))));
                    }
                    // Until it is complete nothing is otherwise.
                    let meanwhile: Vec<_> = (0..3).map(|n| found(&namespace.borrow(), &service(n))).collect();
                    prop_assert_eq!(&meanwhile, &before);
                    namespace.borrow_mut().hear(Heard::End);
                }
            }
            for n in 0..3u8 {
                let of_service = model.values().filter(|(service, _)| *service == Some(n));
                let expected: BTreeSet<_> = of_service.flat_map(|(_, endpoints)| endpoints).map(|n| format!("10.0.0.{}:5001", n + 1)).collect();
                let now = found(&namespace.borrow(), &service(n));
                prop_assert_eq!(now.clone().map(|now| now.into_iter().collect()), Some(expected));
                if now != before[usize::from(n)] {
                    prop_assert!(followers[usize::from(n)].changes.has_changed().expect("a sender"), "nobody was told");
                }
            }
            let namespace = namespace.borrow();
            let known = namespace.known.as_ref().expect("it was listed");
            prop_assert_eq!(known.endpoints, known.by_name.values().map(|(_, slice)| slice.endpoints.len()).sum::<usize>());
            prop_assert_eq!(known.of_service.values().map(BTreeSet::len).sum::<usize>(), known.by_name.len());
        }
        drop(followers);
        prop_assert!(namespace.borrow().followers.is_empty());
    }
}

#[test]
fn a_follower_is_told_of_its_service_and_of_no_other() {
    let namespace = namespace();
    assert_eq!(found(&namespace.borrow(), "churn"), None);
    let follower = Follower::new(Rc::clone(&namespace), &"churn".parse().expect("a name"));
    namespace.borrow_mut().hear(Heard::Begin);
    namespace.borrow_mut().hear(Heard::Listed(slice("churn-1", Some("churn"), &[1])));
    assert_eq!(found(&namespace.borrow(), "churn"), None, "not all is listed yet");
    namespace.borrow_mut().hear(Heard::End);
    assert!(follower.changes.has_changed().expect("a sender"));
    assert_eq!(found(&namespace.borrow(), "churn"), Some(vec!["10.0.0.2:5001".to_owned()]));

    let again = Follower::new(Rc::clone(&namespace), &"churn".parse().expect("a name"));
    namespace.borrow_mut().hear(Heard::Set(slice("bikes-1", Some("bikes"), &[2])));
    namespace.borrow_mut().hear(Heard::Set(slice("churn-1", Some("churn"), &[1])));
    assert!(!again.changes.has_changed().expect("a sender"), "nothing is otherwise");
}
