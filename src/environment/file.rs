//! Files as they are found: read whole and within bounds, and looked at from outside to see whether they changed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use crate::config;

/// PEM files, tokens and secrets are a few kilobytes, a revocation list some hundred; what is larger is none of them.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A file written twice within one tick of its file system's clock looks the same before and after the second time.
/// Until it is this old, its content is compared as well. FAT and some network file systems tick every two seconds.
const TICK: Duration = Duration::from_secs(2);

/// A file's bytes, which may be a key's and are wiped when they are dropped.
///
/// # Errors
///
/// Why there are none, for an operator.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let explain = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => "there is no such file; paths are relative to the file they are written in".to_owned(),
        _ => error.to_string(),
    };
    let file = config::open_regular(path).map_err(explain)?;
    // Room for all of it at once: growing would leave copies behind.
    let length = file.metadata().map_or(0, |metadata| metadata.len()).min(MAX_BYTES);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("is larger than {} MiB; is it the right file?", MAX_BYTES / 1024 / 1024));
    }
    Ok(bytes)
}

/// Whether every user of this machine can read `path`.
pub fn is_readable_by_all(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
}

/// A file seen from outside. As long as it stays the same and is [`settled`](Stamp::is_settled), so does the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The file that `path` leads to; `None` if there is none.
    pub fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }

    /// Whether it is old enough that a later change cannot look the same.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let touched = u64::try_from(self.modified.0.max(self.changed.0)).unwrap_or(0);
        now.duration_since(UNIX_EPOCH + Duration::from_secs(touched)).is_ok_and(|age| age > TICK)
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Links that are followed on the way to one file, as many as the kernel does.
const MAX_LINKS: usize = 40;

/// Where a change of what paths lead to can be seen.
#[derive(Debug, Default)]
pub struct Way {
    /// Those in which a link on the way lies, that of the file in the end, and the one above it, in which it may be replaced
    /// as a whole. Of those that do not exist, the nearest that does.
    pub directories: Vec<PathBuf>,
    /// What the links on the way and the file in the end are called in them.
    pub names: Vec<OsString>,
}

impl Way {
    pub fn of_all(paths: &[PathBuf]) -> Self {
        let mut all = Self::default();
        for way in paths.iter().map(|path| Self::of(path)) {
            all.directories.extend(way.directories);
            all.names.extend(way.names);
        }
        all.directories.sort_unstable();
        all.directories.dedup();
        all.names.sort_unstable();
        all.names.dedup();
        all
    }

    pub fn of(path: &Path) -> Self {
        let mut directories = Vec::new();
        let mut names = Vec::new();
        let mut links = 0;
        // What is left of the way, the next step last.
        let mut ahead: Vec<PathBuf> = steps(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let mut reached = PathBuf::new();
        while let Some(step) = ahead.pop() {
            // Of a directory that was reached through no link, `..` is the one above.
            if step == Path::new("..") {
                reached.pop();
                continue;
            }
            let next = reached.join(step);
            match fs::read_link(&next) {
                Ok(target) if links < MAX_LINKS => {
                    links += 1;
                    directories.push(reached.clone());
                    names.extend(next.file_name().map(OsStr::to_owned));
                    ahead.extend(steps(&target));
                }
                _ => reached = next,
            }
        }
        let own = reached.parent().unwrap_or(Path::new("/"));
        directories.extend([own, own.parent().unwrap_or(own)].map(nearest_existing));
        names.extend(reached.file_name().map(OsStr::to_owned));
        directories.sort_unstable();
        directories.dedup();
        Self { directories, names }
    }
}

/// The last step first. An absolute path begins with the root, which leads away from wherever one is.
fn steps(path: &Path) -> Vec<PathBuf> {
    path.components().rev().map(|step| PathBuf::from(step.as_os_str())).collect()
}

fn nearest_existing(directory: &Path) -> PathBuf {
    let existing = directory.ancestors().find(|ancestor| ancestor.is_dir());
    existing.unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_directory_with_a_link_on_the_way_is_watched_and_the_one_above_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("it is there");
        for made in ["real/inner", "links"] {
            fs::create_dir_all(root.join(made)).expect("a directory");
        }
        fs::write(root.join("real/inner/cert.pem"), "x").expect("a file");
        // links/current -> ../real, links/cert.pem -> current/inner/cert.pem
        symlink("../real", root.join("links/current")).expect("a link");
        symlink("current/inner/cert.pem", root.join("links/cert.pem")).expect("a link");

        let way = Way::of(&root.join("links/cert.pem"));
        assert_eq!(way.directories, ["links", "real", "real/inner"].map(|name| root.join(name)));
        assert_eq!(way.names, ["cert.pem", "current", "cert.pem"]);
        let missing = Way::of(&root.join("nowhere/at/all/cert.pem"));
        assert_eq!(missing.directories, [root]);
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        let directory = tempfile::tempdir().expect("a directory");
        symlink("b", directory.path().join("a")).expect("a link");
        symlink("a", directory.path().join("b")).expect("a link");
        assert!(!Way::of(&directory.path().join("a")).directories.is_empty());
    }

    #[test]
    fn only_files_are_read() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(read(directory.path()).is_err());
        assert!(read(Path::new("/dev/zero")).is_err());
    }
}
