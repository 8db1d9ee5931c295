//! Files as they are found: read whole and within bounds, and looked at from outside to see whether they changed.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

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
    // Before it is opened: opening a pipe would wait for whoever writes into it.
    let metadata = fs::metadata(path).map_err(explain)?;
    if !metadata.is_file() {
        return Err("is no file but a directory, a pipe or a device".to_owned());
    }
    let file = File::open(path).map_err(explain)?;
    // Room for all of it at once: growing would leave copies behind.
    let length = metadata.len().min(MAX_BYTES);
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

/// The directories in which a change of what `path` leads to can be seen: its own, where files are renamed and links
/// swapped, and that of the file in the end. Of those that do not exist, the nearest that does.
pub fn directories(path: &Path) -> Vec<PathBuf> {
    let own = path.parent().map(nearest_existing);
    let target = path.canonicalize().ok().and_then(|target| target.parent().map(Path::to_owned));
    let mut directories: Vec<_> = own.into_iter().chain(target).collect();
    directories.dedup();
    directories
}

fn nearest_existing(directory: &Path) -> PathBuf {
    let existing = directory.ancestors().find(|ancestor| ancestor.is_dir());
    match existing {
        Some(existing) if existing != Path::new("") => existing.canonicalize().unwrap_or_else(|_| existing.to_owned()),
        _ => PathBuf::from("."),
    }
}
