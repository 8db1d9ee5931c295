//! Has the kernel tell of changes (inotify), as far as it can. It watches directories, never files: a file that is
//! renamed into place, or a link that is swapped, is another file, and a watch on the old one would never tell.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, TrySendError};

use arc_swap::ArcSwap;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Config, ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::{Message, config};

/// The directories that are watched.
pub(super) struct Watch {
    /// Absent if the kernel does not tell, or is not to be asked; the poll goes on in any case.
    watcher: Option<RecommendedWatcher>,
    /// What files are called whose content counts. Others may be written as often as anybody likes, such as a log that lies
    /// beside the configuration.
    names: Arc<ArcSwap<HashSet<OsString>>>,
    /// Each with the directory it was, by device and inode, when the watch began.
    watched: HashMap<PathBuf, (u64, u64)>,
    /// Whether a directory may have become another one, with the inode of the one before.
    is_stale: bool,
    /// Whether it was said already that a directory cannot be watched.
    told: bool,
}

impl Watch {
    pub(super) fn new(config: &config::Reload, inbox: &SyncSender<Message>) -> Self {
        let names = Arc::default();
        let watcher = config.watch.then(|| watcher(inbox.clone(), Arc::clone(&names)));
        let watcher = watcher.and_then(|watcher| {
            let interval = config.poll_interval;
            watcher
                .inspect_err(|error| tracing::warn!(%error, ?interval, "files cannot be watched; they are polled"))
                .ok()
        });
        Self { watcher, names, watched: HashMap::new(), is_stale: false, told: false }
    }

    /// Something happened to what is at `path`: if that is a directory that is watched, it may have been replaced, and
    /// the watch have gone with the one before. Whether it is one that was watched.
    pub(super) fn doubt(&mut self, path: &Path) -> bool {
        let is_watched = self.watched.remove(path).is_some();
        if is_watched {
            self.is_stale = true;
            let _ = self.watcher.as_mut().map(|watcher| watcher.unwatch(path));
        }
        is_watched
    }

    /// Whether [`Watch::follow`] has something to do, also for the same directories as before.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Watches `wanted`, and nothing else, for the content of what has one of `names` and for any other change. Whether any of
    /// it was not watched before, so that something may have changed in there unheard.
    pub(super) fn follow(&mut self, wanted: HashSet<PathBuf>, names: HashSet<OsString>) -> bool {
        self.is_stale = false;
        let Some(watcher) = &mut self.watcher else { return false };
        let mut is_new = !names.is_subset(&self.names.load());
        self.names.store(Arc::new(names));
        self.watched.retain(|directory, identity| {
            let keep = wanted.contains(directory) && self::identity(directory) == Some(*identity);
            if !keep {
                // It may have gone by itself, with its directory.
                let _ = watcher.unwatch(directory);
            }
            keep
        });
        for directory in wanted {
            if self.watched.contains_key(&directory) {
                continue;
            }
            let Some(identity) = identity(&directory) else { continue };
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => is_new |= self.watched.insert(directory, identity).is_none(),
                Err(error) if !self.told => {
                    self.told = true;
                    let remedy = match error.kind {
                        ErrorKind::MaxFilesWatch => "; raise it: sysctl fs.inotify.max_user_watches=65536",
                        _ => "",
                    };
                    tracing::warn!(directory = %directory.display(), %error, "cannot be watched, it is polled{remedy}");
                }
                Err(_) => {}
            }
        }
        is_new
    }
}

fn watcher(inbox: SyncSender<Message>, names: Arc<ArcSwap<HashSet<OsString>>>) -> notify::Result<RecommendedWatcher> {
    let missed = Arc::new(AtomicBool::new(false));
    let on_event = move |event: notify::Result<Event>| {
        let message = match event {
            Ok(event) if is_reading(event.kind) || is_of_others(&event, &names.load()) => return,
            Ok(mut event) if !event.need_rescan() && !event.paths.is_empty() => {
                Message::Changed(event.paths.swap_remove(0))
            }
            Ok(_) | Err(_) => Message::MissedEvents,
        };
        let message = if missed.swap(false, Relaxed) { Message::MissedEvents } else { message };
        if let Err(TrySendError::Full(_)) = inbox.try_send(message) {
            missed.store(true, Relaxed);
        }
    };
    RecommendedWatcher::new(on_event, Config::default())
}

/// Whether nothing was changed: the files are opened and read by this very program whenever something was.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// Whether only the content of something changed that nobody follows.
fn is_of_others(event: &Event, names: &HashSet<OsString>) -> bool {
    let is_content = matches!(
        event.kind,
        EventKind::Modify(ModifyKind::Data(_)) | EventKind::Access(AccessKind::Close(AccessMode::Write))
    );
    let is_followed = |path: &PathBuf| path.file_name().is_some_and(|name| names.contains(name));
    is_content && !event.need_rescan() && !event.paths.iter().any(is_followed)
}

fn identity(directory: &Path) -> Option<(u64, u64)> {
    fs::metadata(directory).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::time::Duration;

    use super::*;

    fn next(inbox: &Receiver<Message>) -> Option<OsString> {
        match inbox.recv_timeout(Duration::from_secs(20)).expect("a message") {
            Message::Changed(path) => path.file_name().map(ToOwned::to_owned),
            _ => None,
        }
    }

    #[test]
    fn what_is_written_to_a_file_that_nobody_follows_wakes_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        let [log, followed] = ["out.log", "scorefront.toml"].map(|name| directory.path().join(name));
        for file in [&log, &followed] {
            fs::write(file, "").expect("written");
        }
        let (sender, inbox) = sync_channel(100);
        let config = config::Reload { watch: true, poll_interval: Duration::from_secs(60) };
        let mut watch = Watch::new(&config, &sender);
        let names = HashSet::from(["scorefront.toml".into()]);
        let wanted = HashSet::from([directory.path().to_owned()]);
        assert!(watch.follow(wanted.clone(), names.clone()));
        assert!(!watch.follow(wanted.clone(), names), "all of it is watched");

        for _ in 0..10 {
            fs::write(&log, "a line").expect("written");
        }
        fs::write(&followed, "a line").expect("written");
        assert_eq!(next(&inbox), Some("scorefront.toml".into()));

        // A file that comes may belong to a pattern, or be what was missing.
        fs::write(directory.path().join("new.toml"), "a line").expect("written");
        while next(&inbox) != Some("new.toml".into()) {}

        let names = HashSet::from(["scorefront.toml".into(), "new.toml".into()]);
        assert!(watch.follow(wanted, names), "it may have been written to before it was followed");
    }
}
