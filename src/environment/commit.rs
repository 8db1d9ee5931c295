//! Changes several files of an environment at once: whenever the process or the machine ends, all of the change is there
//! or nothing of it.
//!
//! The new contents are written into a directory of their own. Its renaming to `.change` is the instant at which the
//! change is made; moving the files into their places is finished by whoever comes next ([`recover`]), if not by us. A
//! change of one file needs no such thing: its own renaming is the instant. What files mean is none of its business.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::write::{WriteError, failed, give_to_owner_of, make_directories, sync};

/// What was changed and may not be in its place yet. Included files never begin with a dot.
const PENDING: &str = ".change";

/// What is being written. Whatever a process leaves of it that was killed is swept away.
const UNFINISHED: &str = ".change-";

/// In [`PENDING`]: which content goes where.
const MANIFEST: &str = "manifest.json";

/// Held by whoever changes files or finishes a change.
const LOCK: &str = ".lock";

/// How long the lock is waited for: others hold it for some milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

const RETRY: Duration = Duration::from_millis(5);

/// A file that is to be another, or gone.
pub struct FileChange {
    pub path: PathBuf,
    /// `None`: it is to be gone.
    pub content: Option<Zeroizing<Vec<u8>>>,
    /// Permissions of a file that is new; one that is there keeps what its group may do.
    pub mode: u32,
}

/// Nobody else changes the environment while this is held.
#[derive(Debug)]
pub struct Lock {
    directory: PathBuf,
    // Given back by the kernel when it is closed, also if the process is killed.
    _file: File,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    moves: Vec<Move>,
}

#[derive(Serialize, Deserialize)]
struct Move {
    /// As the configuration reaches it; relative to the environment if it lies in there.
    to: PathBuf,
    /// The content's file; absent: `to` is to be gone.
    from: Option<String>,
}

impl Lock {
    /// Waits for everybody else, and finishes what they did not.
    ///
    /// # Errors
    ///
    /// The directory cannot be written, or somebody holds the lock for long.
    pub fn take(directory: &Path) -> Result<Self, WriteError> {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let path = directory.join(LOCK);
        let end = Instant::now() + PATIENCE;
        let open = || {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
                if error != Errno::WOULDBLOCK || Instant::now() >= end {
                    return Err(io::Error::from(error));
                }
                thread::sleep(RETRY);
            }
            Ok(file)
        };
        let file = open().map_err(failed("the environment cannot be changed", &path))?;
        let lock = Self { directory: directory.to_owned(), _file: file };
        lock.recover()?;
        Ok(lock)
    }

    /// Makes `changes`, in this order where it takes more than an instant.
    ///
    /// # Errors
    ///
    /// A step failed. Up to the instant of the change nothing is changed; what fails later is finished by [`recover`].
    pub fn commit(&self, changes: &[FileChange]) -> Result<(), WriteError> {
        let unfinished = |error| failed("cannot be written", &self.directory)(error);
        let written = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&self.directory).map_err(unfinished)?;
        let mut moves = Vec::new();
        for (number, change) in changes.iter().enumerate() {
            let to = change.path.canonicalize().unwrap_or_else(|_| change.path.clone());
            let from = change.content.as_ref().map(|content| {
                let name = number.to_string();
                write_new(&written.path().join(&name), content, change.mode, &to)?;
                Ok(name)
            });
            let to = to.strip_prefix(&self.directory).map_or(to.clone(), Path::to_owned);
            moves.push(Move { to, from: from.transpose()? });
        }
        match moves.as_slice() {
            [] => Ok(()),
            [only] => sync(&self.carry_out(written.path(), only)?),
            _ => self.commit_all(written, &Manifest { moves }),
        }
    }

    fn commit_all(&self, written: TempDir, manifest: &Manifest) -> Result<(), WriteError> {
        let text =
            serde_json::to_vec(manifest).map_err(|error| failed("cannot be written", written.path())(error.into()))?;
        let file = written.path().join(MANIFEST);
        write_new(&file, &text, 0o600, &file)?;
        sync(written.path())?;
        let pending = self.directory.join(PENDING);
        fs::rename(written.path(), &pending).map_err(failed("cannot be written", &pending))?;
        // Nothing is left to be removed.
        let _ = written.keep();
        sync(&self.directory)?;
        self.finish(&pending)
    }

    /// Finishes the change of somebody who was killed, and sweeps away what was none yet.
    fn recover(&self) -> Result<(), WriteError> {
        let pending = self.directory.join(PENDING);
        if pending.join(MANIFEST).exists() {
            self.finish(&pending)?;
        }
        let entries = fs::read_dir(&self.directory).map_err(failed("cannot be read", &self.directory))?;
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == PENDING || name.starts_with(UNFINISHED) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    fn finish(&self, pending: &Path) -> Result<(), WriteError> {
        let file = pending.join(MANIFEST);
        let read = || Ok(serde_json::from_slice::<Manifest>(&fs::read(&file)?)?);
        let manifest = read().map_err(failed("cannot be read", &file))?;
        // All of them, and only then what takes time: who reads meanwhile would see the certificate of one pair and the key of
        // another.
        let directories: Result<BTreeSet<_>, _> =
            manifest.moves.iter().map(|one| self.carry_out(pending, one)).collect();
        // One that is gone by now has nothing to be lost, if this is done again.
        for directory in directories?.iter().filter(|directory| directory.exists()) {
            sync(directory)?;
        }
        // First the manifest: without it what is left means nothing.
        fs::remove_file(&file)
            .and_then(|()| fs::remove_dir_all(pending))
            .map_err(failed("cannot be removed", pending))?;
        sync(&self.directory)
    }

    /// Again as often as it takes. Says which directory is to be synced.
    fn carry_out(&self, written: &Path, Move { to, from }: &Move) -> Result<PathBuf, WriteError> {
        let to = self.directory.join(to);
        let directory = to.parent().unwrap_or(&self.directory).to_owned();
        let replaced = match from {
            Some(from) => {
                let from = written.join(from);
                if !from.exists() {
                    return Ok(directory);
                }
                make_directories(&directory).and_then(|()| put(&from, &to))
            }
            None => match fs::remove_file(&to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            },
        };
        replaced.map_err(failed("cannot be replaced", &to))?;
        Ok(directory)
    }
}

/// Whether a change was made in the environment at `directory` that is not all in its place yet.
pub fn is_unfinished(directory: &Path) -> bool {
    directory.join(PENDING).join(MANIFEST).exists()
}

/// Finishes a change in the environment at `directory` that was made and is not in its place yet, if there is one. Nothing
/// is written where there is none.
///
/// # Errors
///
/// See [`Lock::take`].
pub fn recover(directory: &Path) -> Result<(), WriteError> {
    match directory.join(PENDING).exists() {
        true => Lock::take(directory).map(drop),
        false => Ok(()),
    }
}

/// A file with `content`, on the disk, that belongs to whom `like` belongs to.
fn write_new(path: &Path, content: &[u8], mode: u32, like: &Path) -> Result<(), WriteError> {
    let write = || {
        let mut file = File::options().write(true).create_new(true).open(path)?;
        // A front end may read a key by its group.
        let group = fs::metadata(like).map_or(0, |before| before.mode() & 0o040);
        file.set_permissions(Permissions::from_mode(mode | group))?;
        file.write_all(content)?;
        give_to_owner_of(like, &file);
        file.sync_all()
    };
    write().map_err(failed("cannot be written", path))
}

fn put(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        // What the configuration names may lie on another file system.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let beside = tempfile::Builder::new().prefix(".new-").tempfile_in(to.parent().unwrap_or(Path::new(".")))?;
            fs::copy(from, beside.path())?;
            give_to_owner_of(to, beside.as_file());
            beside.as_file().sync_all()?;
            beside.persist(to)?;
            // The other goes with the directory that it is in.
            Ok(())
        }
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &Path, content: Option<&str>) -> FileChange {
        let content = content.map(|text| Zeroizing::new(text.as_bytes().to_vec()));
        FileChange { path: path.to_owned(), content, mode: 0o600 }
    }

    fn entries(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn manifest(moves: &[(&str, Option<&str>)]) -> Manifest {
        let of = |(to, from): &(&str, Option<&str>)| Move { to: to.into(), from: from.map(str::to_owned) };
        Manifest { moves: moves.iter().map(of).collect() }
    }

    #[test]
    fn files_are_changed_made_and_removed_together_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        fs::write(file("changed"), "old").expect("written");
        fs::write(file("removed"), "old").expect("written");
        let lock = Lock::take(directory.path()).expect("free");
        let changes = [
            change(&file("changed"), Some("new")),
            change(&file("deep/down/made"), Some("new")),
            change(&file("removed"), None),
        ];
        lock.commit(&changes).expect("made");
        assert_eq!(entries(directory.path()), [".lock", "changed", "deep"]);
        assert_eq!(fs::read_to_string(file("changed")).expect("there"), "new");
        let made = fs::metadata(file("deep/down/made")).expect("there");
        assert_eq!(made.mode() & 0o777, 0o600);
    }

    #[test]
    fn a_change_that_was_cut_off_at_any_step_is_there_whole_or_not_at_all() {
        // What is in its place already when the process ends: 0, 1, 2 or all 3 of the steps.
        for done in 0..=3 {
            let directory = tempfile::tempdir().expect("a directory");
            let file = |name: &str| directory.path().join(name);
            for name in ["a", "b", "c"] {
                fs::write(file(name), "old").expect("written");
            }
            let pending = file(PENDING);
            fs::create_dir(&pending).expect("made");
            fs::write(pending.join("0"), "new").expect("written");
            fs::write(pending.join("1"), "new").expect("written");
            let moves = manifest(&[("a", Some("0")), ("b", Some("1")), ("c", None)]);
            fs::write(pending.join(MANIFEST), serde_json::to_vec(&moves).expect("JSON")).expect("written");
            if done > 0 {
                fs::rename(pending.join("0"), file("a")).expect("moved");
            }
            if done > 1 {
                fs::rename(pending.join("1"), file("b")).expect("moved");
            }
            if done > 2 {
                fs::remove_file(file("c")).expect("removed");
            }
            recover(directory.path()).expect("finished");
            assert_eq!(entries(directory.path()), [".lock", "a", "b"]);
            assert!(["a", "b"].iter().all(|name| fs::read(file(name)).expect("there") == b"new"));
        }
    }

    #[test]
    fn a_change_that_was_cut_off_is_finished_where_its_directory_has_gone_since() {
        let directory = tempfile::tempdir().expect("a directory");
        let pending = directory.path().join(PENDING);
        fs::create_dir(&pending).expect("made");
        let moves = manifest(&[("gone/a", Some("0")), ("gone/b", None)]);
        fs::write(pending.join(MANIFEST), serde_json::to_vec(&moves).expect("JSON")).expect("written");
        recover(directory.path()).expect("finished");
        assert_eq!(entries(directory.path()), [".lock"]);
    }

    #[test]
    fn what_was_not_yet_a_change_is_swept_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        fs::write(file("a"), "old").expect("written");
        fs::create_dir(file(".change-x1y2")).expect("made");
        fs::write(file(".change-x1y2/0"), "new").expect("written");
        // Cut off while it was taken away: it is in its place already.
        fs::create_dir(file(PENDING)).expect("made");
        drop(Lock::take(directory.path()).expect("free"));
        assert_eq!(entries(directory.path()), [".lock", "a"]);
        assert_eq!(fs::read(file("a")).expect("there"), b"old");
    }

    #[test]
    fn only_one_at_a_time_holds_the_lock() {
        let directory = tempfile::tempdir().expect("a directory");
        let lock = Lock::take(directory.path()).expect("free");
        let path = directory.path().to_owned();
        let other = thread::spawn(move || Lock::take(&path).map(|_| Instant::now()));
        let freed = Instant::now();
        drop(lock);
        assert!(other.join().expect("no panic").expect("free again") >= freed);
    }
}
