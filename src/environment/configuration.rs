//! The configuration's files, and the last good configuration they held.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::held::{Attention, Content, Files, Held, Offer, Outcome, PATIENCE};
use crate::config::{self, Auth, Config, Diagnostics, Key, Location, RequestLimits, Service, Sources, TlsVersion};

/// A part of a file can be a whole configuration. Whoever asks for a reload says that it is one.
const WAITING: &str = "waiting 2 s for the rest of the text; `scorefront reload` takes it at once";

/// One configuration, and where it comes from.
#[derive(Debug)]
pub struct Configuration {
    path: PathBuf,
    sources: Sources,
    current: Arc<Config>,
    held: Held<Arc<Config>>,
}

impl Configuration {
    /// Reads it. With errors in `diagnostics` it is good for finding more of them, and not to be followed.
    pub fn open(path: &Path, diagnostics: &mut Diagnostics) -> Option<Self> {
        let (config, sources) = config::load_partly(path, diagnostics);
        let current = Arc::new(config?);
        let mut held = Held::new(sources.files());
        let mut remarks = Diagnostics::default();
        held.look(Attention::Read, &mut remarks, |_, _, _| Offer::Take(Arc::clone(&current)), |_| true);
        Some(Self { path: path.to_owned(), sources, current, held })
    }

    pub fn current(&self) -> &Arc<Config> {
        &self.current
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn start(&self) -> Location {
        Location::start_of(self.path.as_path().into())
    }

    pub fn files(&self) -> &Files {
        &self.held.files
    }

    pub fn files_mut(&mut self) -> &mut Files {
        &mut self.held.files
    }

    /// Where a change can be seen, a new file included.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let included = self.sources.directories();
        let included = included.into_iter().filter_map(|directory| directory.canonicalize().ok());
        included.chain(self.held.files.directories().iter().cloned())
    }

    /// Looks whether the files hold another configuration, and follows it if it is good.
    pub fn look(&mut self, attention: Attention, remarks: &mut Diagnostics) -> Outcome {
        self.held.files.set_paths(self.sources.files());
        let outcome = self.look_at_files(attention, remarks);
        // What was read may include other files than those that were looked at.
        if self.held.files.set_paths(self.sources.files()) && outcome == Outcome::Taken {
            self.look_at_files(attention, remarks);
        }
        outcome
    }

    fn look_at_files(&mut self, attention: Attention, remarks: &mut Diagnostics) -> Outcome {
        let start = self.start();
        let Self { path, sources, current, held } = self;
        let is_empty = |content: &Content| content.as_ref().is_ok_and(|text| text.is_empty());
        let outcome = held.look(
            attention,
            remarks,
            |contents, circumstances, found| {
                // As a file is for an instant when it is written in place.
                if contents.iter().any(is_empty) && circumstances.unchanged_for < PATIENCE {
                    found.warning_with(start, "a configuration file is empty", "waiting for its text");
                    return Offer::Later;
                }
                // What a full disk leaves of it; whoever wants a front end without anything can stop it.
                if contents.first().is_some_and(is_empty) {
                    found.error_with(start, "the configuration file is empty", "put its text back");
                    return Offer::Nothing;
                }
                let (config, read) = config::load_partly(path, found);
                *sources = read;
                match config {
                    Some(config) if !found.has_errors() && config == **current => Offer::Same,
                    _ if found.has_errors() => Offer::Nothing,
                    Some(_) if circumstances.may_be_unfinished(contents) => {
                        found.warning_with(start, "a configuration file ends in the middle of a line", WAITING);
                        Offer::Later
                    }
                    Some(config) => match what_is_less(&config, current).filter(|_| circumstances.is_fresh()) {
                        Some(missing) => {
                            found.warning_with(start, format!("{missing} is no longer there"), WAITING);
                            Offer::Later
                        }
                        None => Offer::Take(Arc::new(config)),
                    },
                    None => Offer::Nothing,
                }
            },
            |_| true,
        );
        if let (Outcome::Taken, Some(config)) = (outcome, held.value()) {
            *current = Arc::clone(config);
        }
        outcome
    }
}

/// What `old` has and `new` has not, of tables and of all that keeps callers out.
fn what_is_less(new: &Config, old: &Config) -> Option<String> {
    let lost = |name: &str, was: bool, is: bool| (was && !is).then(|| format!("`{name}`"));
    let cnames: HashMap<_, _> = new.cnames.iter().map(|cname| (&cname.name, cname)).collect();
    let services: HashMap<_, _> = new.services.iter().map(|service| (&service.name, service)).collect();
    let of_cnames = old.cnames.iter().find_map(|old| {
        let Some(new) = cnames.get(&old.name) else { return Some(format!("[[cname]] {}", old.name)) };
        let ca = lost("client_ca_pem", old.client_ca_pem.is_some(), new.client_ca_pem.is_some());
        ca.or_else(|| lost("client_crl_pem", old.client_crl_pem.is_some(), new.client_crl_pem.is_some()))
    });
    let of_services = old.services.iter().find_map(|old| {
        let Some(new) = services.get(&old.name) else { return Some(format!("[[service]] {}", old.name)) };
        let key = lost("primary_key_sha256", old.auth != Auth::Open, new.auth != Auth::Open);
        key.or_else(|| lost("cnames", !old.cnames.is_empty(), !new.cnames.is_empty()))
            .or_else(|| what_keys_are_less(new, old))
            .or_else(|| what_limits_are_less(&new.limits, &old.limits))
    });
    let asks_operators = |config: &Config| config.admin.tls.as_ref().is_some_and(|tls| tls.client_ca_pem.is_some());
    let is_1_3 = |config: &Config| config.tls.min_version == TlsVersion::V1_3;
    of_cnames
        .or(of_services)
        .or_else(|| lost("token_file", old.admin.token_file.is_some(), new.admin.token_file.is_some()))
        .or_else(|| lost("client_ca_pem", asks_operators(old), asks_operators(new)))
        .or_else(|| lost("ticket_keys", old.tls.ticket_keys.is_some(), new.tls.ticket_keys.is_some()))
        .or_else(|| lost("default_cname", old.tls.default_cname.is_some(), new.tls.default_cname.is_some()))
        .or_else(|| lost("min_version", is_1_3(old), is_1_3(new)))
}

/// What `old` has and `new` has not, of keys and of what may be asked with them.
fn what_keys_are_less(new: &Service, old: &Service) -> Option<String> {
    let keys = |service: &Service| -> Vec<Key> {
        match &service.auth {
            Auth::Keys(keys) => keys.clone(),
            Auth::Open => Vec::new(),
        }
    };
    let new_keys = keys(new);
    keys(old).iter().find_map(|old| match new_keys.iter().find(|new| new.name == old.name) {
        Some(new) => what_limits_are_less(&new.limits, &old.limits),
        None => Some(format!("key `{}`", old.name)),
    })
}

fn what_limits_are_less(new: &RequestLimits, old: &RequestLimits) -> Option<String> {
    let lost = |name: &str, was: bool, is: bool| (was && !is).then(|| format!("`{name}`"));
    lost("max_requests_per_second", old.rate.is_some(), new.rate.is_some())
        .or_else(|| lost("max_requests_in_flight", old.max_in_flight.is_some(), new.max_in_flight.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
[tls]
min_version = "1.3"
default_cname = "a.example.com"
ticket_keys = "tickets"
[admin]
token_file = "token"
[[cname]]
name = "a.example.com"
cert_pem = "cert.pem"
key_pem = "key.pem"
client_ca_pem = "ca.pem"
client_crl_pem = "crl.pem"
[[service]]
name = "iris"
primary_key_sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
replicas = ["http://127.0.0.1:1"]
cnames = ["a.example.com"]
max_requests_per_second = 5
max_requests_in_flight = 5
secondary_key_sha256 = "2222222222222222222222222222222222222222222222222222222222222222"
"#;

    fn config(text: &str) -> Config {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("scorefront.toml");
        std::fs::write(&file, text).expect("written");
        config::load(&file).unwrap_or_else(|found| panic!("{found}\n{text}")).0
    }

    #[test]
    fn every_line_that_keeps_callers_out_is_missed_when_it_is_gone() {
        let whole = config(WHOLE);
        assert_eq!(what_is_less(&whole, &whole), None);
        for (line, missing) in [
            ("min_version", "`min_version`"),
            ("default_cname", "`default_cname`"),
            ("ticket_keys", "`ticket_keys`"),
            ("token_file", "`token_file`"),
            ("client_crl_pem", "`client_crl_pem`"),
            ("cnames", "`cnames`"),
            ("secondary_key_sha256", "key `secondary`"),
            ("max_requests_per_second", "`max_requests_per_second`"),
            ("max_requests_in_flight", "`max_requests_in_flight`"),
        ] {
            let without: Vec<_> = WHOLE.lines().filter(|text| !text.starts_with(line)).collect();
            let less = what_is_less(&config(&without.join("\n")), &whole);
            assert_eq!(less.as_deref(), Some(missing));
        }
        let key = WHOLE.to_owned() + "[[service.key]]\nname = \"batch\"\nsha256 = \"" + &"3".repeat(64) + "\"\n";
        let limit = key.clone() + "max_requests_in_flight = 1\n";
        assert_eq!(what_is_less(&whole, &config(&key)).as_deref(), Some("key `batch`"));
        assert_eq!(what_is_less(&config(&key), &config(&limit)).as_deref(), Some("`max_requests_in_flight`"));
        assert_eq!(what_is_less(&config(&limit), &whole), None);
        let more =
            WHOLE.to_owned() + "[[service]]\nname = \"open\"\nauth = false\nreplicas = [\"http://127.0.0.1:1\"]\n";
        assert_eq!(what_is_less(&config(&more), &whole), None);
        assert_eq!(what_is_less(&whole, &config(&more)).as_deref(), Some("[[service]] open"));
    }
}
