//! The configuration's files, and the last good configuration they held.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::held::{Attention, Content, Files, Held, Offer, Outcome, PATIENCE};
use crate::config::{self, Auth, Config, Diagnostics, Location, Sources};

/// A part of a file can be a whole configuration: what has less in it than before may still be written. Whoever asks for
/// a reload says that it is not.
const SHRINKING: Duration = Duration::from_secs(2);

const SHRINKING_REMEDY: &str = "waiting 2 s for the rest of the text; `scorefront reload` takes it at once";

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
                    Some(config) if is_hasty(&config, current, attention, circumstances.unchanged_for) => {
                        found.warning_with(start, "something is missing that was there before", SHRINKING_REMEDY);
                        Offer::Later
                    }
                    Some(config) => Offer::Take(Arc::new(config)),
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

fn is_hasty(new: &Config, old: &Config, attention: Attention, unchanged_for: Duration) -> bool {
    attention == Attention::Glance && unchanged_for < SHRINKING && is_less(new, old)
}

/// Whether tables are missing, or something that keeps others out.
fn is_less(new: &Config, old: &Config) -> bool {
    let guards = |config: &Config| config.cnames.iter().filter(|cname| cname.client_ca_pem.is_some()).count();
    let open = |config: &Config| config.services.iter().filter(|service| service.auth == Auth::Open).count();
    new.cnames.len() < old.cnames.len()
        || new.services.len() < old.services.len()
        || guards(new) < guards(old)
        || open(new) > open(old)
        || (new.admin.token_file.is_none() && old.admin.token_file.is_some())
        || (new.tls.ticket_keys.is_none() && old.tls.ticket_keys.is_some())
        || (new.tls.default_cname.is_none() && old.tls.default_cname.is_some())
}
