//! Writes certificates and keys into an environment so that whoever reads them at any instant, a front end that watches
//! the files above all, sees the old pair or the new one. It checks nothing of what it writes.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown, lchown};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::config::CnamePattern;

/// Everybody may read a certificate: every caller gets it.
const CERT_MODE: u32 = 0o644;

/// A key is its owner's alone, and its group's where it was so before.
const KEY_MODE: u32 = 0o600;

/// Where the pair of a CNAME is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    pub cert_pem: PathBuf,
    pub key_pem: PathBuf,
}

/// What could not be done, and where.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {doing}: {error}", path = path.display())]
pub struct WriteError {
    doing: &'static str,
    path: PathBuf,
    // Said whole, hence no source: `{:#}` would say it again.
    error: io::Error,
}

impl WriteError {
    /// Whether it is not for this process to write there at all: a read-only mount, or files of somebody else.
    pub fn is_read_only(&self) -> bool {
        matches!(self.error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
    }
}

impl PairFiles {
    /// Below the environment's directory: `certs/<CNAME>/{cert,key}.pem`; `certs/_.example.com/` for `*.example.com`,
    /// because shells and people take a star in a path for something else.
    pub fn of(environment: &Path, cname: &CnamePattern) -> Self {
        let directory = environment.join("certs").join(cname.as_str().replacen('*', "_", 1));
        Self { cert_pem: directory.join("cert.pem"), key_pem: directory.join("key.pem") }
    }

    fn directory(&self) -> &Path {
        self.cert_pem.parent().unwrap_or(Path::new("."))
    }
}

/// Writes a pair, PEM text both, in place of the one that is there. Both are on the disk before either is seen; then the
/// key takes its place first, so that with the certificate the pair is whole.
///
/// # Errors
///
/// A step failed. What was there before is there still, and nothing else.
pub fn store_pair(files: &PairFiles, chain: &[u8], key: &[u8]) -> Result<(), WriteError> {
    let directory = files.directory();
    if directory.exists() {
        return replace_pair(files, chain, key);
    }
    make_directories(directory).map_err(failed("cannot make the directory", directory))?;
    replace_pair(files, chain, key).inspect_err(|_| {
        // Only an empty one goes.
        let _ = fs::remove_dir(directory);
    })?;
    // `certs` and `certs/<CNAME>` may both be new.
    directory.ancestors().skip(1).take(2).try_for_each(sync)
}

/// Each belongs to whom the one above it belongs to.
pub(super) fn make_directories(directory: &Path) -> io::Result<()> {
    let above = match directory.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    if !above.exists() {
        make_directories(above)?;
    }
    match fs::create_dir(directory) {
        Err(_) if directory.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            let owner = fs::metadata(above)?;
            // Of what stands there now, not of where a link leads that somebody put in its place.
            let _ = lchown(directory, Some(owner.uid()), Some(owner.gid()));
            Ok(())
        }
    }
}

fn replace_pair(files: &PairFiles, chain: &[u8], key: &[u8]) -> Result<(), WriteError> {
    let PairFiles { cert_pem, key_pem } = files;
    let new_key = beside(key_pem, key, KEY_MODE)?;
    let new_chain = beside(cert_pem, chain, CERT_MODE)?;
    let old_key = keep(key_pem)?;
    put(new_key, key_pem)?;
    put(new_chain, cert_pem).inspect_err(|_| put_back(old_key, key_pem))?;
    sync(files.directory())
}

/// A file with `content` that nobody takes for anything yet, on the disk, in the directory of `file`. It is removed when
/// it is dropped.
fn beside(file: &Path, content: &[u8], mode: u32) -> Result<NamedTempFile, WriteError> {
    let write = || {
        let mut new = temporary().tempfile_in(directory_of(file))?;
        new.write_all(content)?;
        // Said outright: the mode a file is made with is cut down by the umask.
        // A front end may read the key by its group.
        let group = fs::metadata(file).map_or(0, |before| before.mode() & 0o040);
        new.as_file().set_permissions(Permissions::from_mode(mode | group))?;
        give_to_owner_of(file, new.as_file());
        new.as_file().sync_all()?;
        Ok(new)
    };
    write().map_err(failed("cannot be written", file))
}

/// Who owned the file before, or else owns the directory, is who reads it: the front end's user, where root writes. Only
/// root can give files away; for everybody else the file is their own.
pub(super) fn give_to_owner_of(file: &Path, new: &File) {
    let before = fs::metadata(file).or_else(|_| fs::metadata(directory_of(file)));
    if let Ok(before) = before {
        let _ = fchown(new, Some(before.uid()), Some(before.gid()));
    }
}

/// What stands at `file` now, under a second name until it is dropped; `None` if nothing does.
fn keep(file: &Path) -> Result<Option<NamedTempFile<()>>, WriteError> {
    if !file.exists() {
        return Ok(None);
    }
    // Not every file system has hard links.
    let link = |path: &Path| fs::hard_link(file, path).or_else(|_| fs::copy(file, path).map(drop));
    let kept = temporary().make_in(directory_of(file), link);
    kept.map(Some).map_err(failed("cannot be replaced", file))
}

fn put(new: NamedTempFile, file: &Path) -> Result<(), WriteError> {
    new.persist(file).map(drop).map_err(|error| failed("cannot be replaced", file)(error.error))
}

/// As good as it gets: what failed before may fail again.
fn put_back(old: Option<NamedTempFile<()>>, file: &Path) {
    let _ = match old {
        Some(old) => old.persist(file).map_err(|error| error.error),
        None => fs::remove_file(file),
    };
}

/// Makes renamings last (fsync(2): "a file's fsync does not ensure that its entry in the directory has reached disk").
pub(super) fn sync(directory: &Path) -> Result<(), WriteError> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(failed("cannot be written", directory))
}

/// A name that begins with a dot and that nobody has.
fn temporary() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(".new-").suffix(".pem");
    builder
}

fn directory_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("."))
}

pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |error| WriteError { doing, path, error }
}
