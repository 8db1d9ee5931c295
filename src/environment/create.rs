//! Makes a whole environment: a directory with `scorefront.toml`, `services/`, `certs/<CNAME>/` and `keys/`. It is made
//! beside its place and moved there, so that it is there whole or not at all. Changing one that is there is not for here.

mod toml;

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::TempDir;
use zeroize::Zeroizing;

use super::write::{PairFiles, WriteError, failed, store_pair, sync};
use crate::config::{AdminListen, CnamePattern};

/// Everybody may look into an environment; its secrets are guarded one by one.
const MODE: u32 = 0o755;

/// Keys of services are their owner's alone.
const SECRET_DIRECTORY_MODE: u32 = 0o700;

const CONFIGURATION_MODE: u32 = 0o644;

const SECRET_MODE: u32 = 0o600;

/// The file of the admin token, where one is needed.
const TOKEN_FILE: &str = "admin.token";

/// What a new environment is to be.
pub struct NewEnvironment {
    pub name: String,
    pub resource_group: Option<String>,
    pub description: Option<String>,
    /// For development: no TLS and no keys.
    pub is_local: bool,
    pub created_on: SystemTime,
    pub https: SocketAddr,
    pub http: SocketAddr,
    pub public_ip_address: Option<IpAddr>,
    pub public_https_port: Option<u16>,
    pub public_http_port: Option<u16>,
    pub admin_listen: AdminListen,
    /// What whoever asks at `admin_listen` has to know.
    pub admin_token: Option<Zeroizing<String>>,
    /// TLS is enabled if there is one.
    pub pair: Option<NewPair>,
}

/// PEM text of a chain and its key, and the name they are for.
pub struct NewPair {
    pub cname: CnamePattern,
    pub chain: Vec<u8>,
    pub key: Zeroizing<Vec<u8>>,
}

/// Why there is no new environment. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("{}: is there already and not empty; give another directory with --dir", .0.display())]
    Exists(PathBuf),
    #[error("{}: there is no such directory to make it in; make it: mkdir -p {}", .0.display(), crate::tls::finding::quoted(.0))]
    NoParent(PathBuf),
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What is wrong with it, as `check` says it.
    #[error("{0}")]
    Invalid(String),
}

impl NewEnvironment {
    /// Makes the directory, which must not be there yet or be empty. `examine` sees it in the place where it is made,
    /// and says why it must not be taken.
    ///
    /// # Errors
    ///
    /// See [`CreateError`].
    pub fn create(
        &self,
        directory: &Path,
        examine: impl FnOnce(&Path) -> Result<(), String>,
    ) -> Result<(), CreateError> {
        let place = place(directory)?;
        let above = place.parent().unwrap_or(Path::new("/"));
        let made = temporary(above).map_err(failed("cannot be made", &place))?;
        self.fill(made.path())?;
        examine(made.path()).map_err(CreateError::Invalid)?;
        sync(made.path())?;
        match fs::rename(made.path(), &place) {
            Ok(()) => drop(made.keep()),
            Err(error) if is_occupied(&error) => return Err(CreateError::Exists(directory.to_owned())),
            Err(error) => return Err(failed("cannot be made", &place)(error).into()),
        }
        Ok(sync(above)?)
    }

    fn fill(&self, directory: &Path) -> Result<(), WriteError> {
        make_directory(&directory.join("services"), MODE)?;
        make_directory(&directory.join("keys"), SECRET_DIRECTORY_MODE)?;
        make_directory(&directory.join("certs"), MODE)?;
        if let Some(NewPair { cname, chain, key }) = &self.pair {
            store_pair(&PairFiles::of(directory, cname), chain, key)?;
        }
        if let Some(token) = &self.admin_token {
            store(&directory.join(TOKEN_FILE), token.as_bytes(), SECRET_MODE)?;
        }
        store(&directory.join("scorefront.toml"), toml::write(self).as_bytes(), CONFIGURATION_MODE)
    }
}

/// Where a new environment goes, without links and dots on the way.
fn place(directory: &Path) -> Result<PathBuf, CreateError> {
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => directory.canonicalize().map_err(|error| failed("cannot be made", directory)(error).into()),
        Err(error) if error.kind() == ErrorKind::NotFound => beside(directory),
        // A directory with something in it, a file, or something that cannot be looked at.
        Ok(false) => Err(CreateError::Exists(directory.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotADirectory => Err(CreateError::Exists(directory.to_owned())),
        Err(error) => Err(failed("cannot be made", directory)(error).into()),
    }
}

fn beside(directory: &Path) -> Result<PathBuf, CreateError> {
    let absolute = std::path::absolute(directory).map_err(failed("cannot be made", directory))?;
    let (Some(above), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(CreateError::Exists(directory.to_owned()));
    };
    let above = above.canonicalize().map_err(|_| CreateError::NoParent(above.to_owned()))?;
    Ok(above.join(name))
}

/// Somebody else may have made it meanwhile.
fn is_occupied(error: &io::Error) -> bool {
    use ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};

    matches!(error.kind(), AlreadyExists | DirectoryNotEmpty | NotADirectory)
}

/// A directory that nobody takes for anything yet. It goes when it is dropped.
fn temporary(above: &Path) -> io::Result<TempDir> {
    let made = tempfile::Builder::new().prefix(".new-").tempdir_in(above)?;
    fs::set_permissions(made.path(), Permissions::from_mode(MODE))?;
    Ok(made)
}

fn make_directory(path: &Path, mode: u32) -> Result<(), WriteError> {
    DirBuilder::new().mode(mode).create(path).map_err(failed("cannot make the directory", path))
}

/// Writes a new file, and waits until it is on the disk.
fn store(path: &Path, content: &[u8], mode: u32) -> Result<(), WriteError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(failed("cannot be written", path))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::defaults;

    fn new() -> NewEnvironment {
        NewEnvironment {
            name: "my-cluster".to_owned(),
            resource_group: Some("my-rg".to_owned()),
            description: None,
            is_local: false,
            created_on: SystemTime::UNIX_EPOCH,
            https: defaults::HTTPS,
            http: (Ipv4Addr::UNSPECIFIED, 8080).into(),
            public_ip_address: None,
            public_https_port: None,
            public_http_port: None,
            admin_listen: defaults::ADMIN_LISTEN,
            admin_token: Some("0123456789abcdef".to_owned().into()),
            pair: Some(NewPair {
                cname: "*.models.example.com".parse().expect("a name"),
                chain: b"chain".to_vec(),
                key: b"key".to_vec().into(),
            }),
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("read").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    }

    #[test]
    fn everything_is_there_and_secrets_are_kept() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("my-cluster");
        new().create(&directory, |_| Ok(())).expect("made");
        assert_eq!(names(root.path()), ["my-cluster"]);
        assert_eq!(names(&directory), ["admin.token", "certs", "keys", "scorefront.toml", "services"]);
        for (name, expected) in [
            ("admin.token", 0o600),
            ("keys", 0o700),
            ("certs/_.models.example.com/key.pem", 0o600),
            ("certs/_.models.example.com/cert.pem", 0o644),
        ] {
            assert_eq!(mode(&directory.join(name)), expected, "{name}");
        }
    }

    #[test]
    fn an_empty_directory_is_taken_and_any_other_left_alone() {
        let root = tempfile::tempdir().expect("a directory");
        let empty = root.path().join("empty");
        fs::create_dir(&empty).expect("a directory");
        new().create(&empty, |_| Ok(())).expect("made");
        let again = new().create(&empty, |_| Ok(())).expect_err("it is not empty any more");
        assert!(matches!(again, CreateError::Exists(_)), "{again}");
        let file = root.path().join("file");
        fs::write(&file, "x").expect("write");
        assert!(matches!(new().create(&file, |_| Ok(())), Err(CreateError::Exists(_))));
        let deep = new().create(&root.path().join("a/b"), |_| Ok(())).expect_err("there is no a");
        assert!(matches!(deep, CreateError::NoParent(_)), "{deep}");
        assert_eq!(names(root.path()), ["empty", "file"]);
    }

    #[test]
    fn what_is_found_wrong_leaves_nothing_behind() {
        let root = tempfile::tempdir().expect("a directory");
        let refused = new().create(&root.path().join("env"), |made| {
            assert!(made.join("scorefront.toml").exists());
            Err("no".to_owned())
        });
        assert!(matches!(refused, Err(CreateError::Invalid(_))));
        assert_eq!(names(root.path()), [""; 0]);
    }
}
