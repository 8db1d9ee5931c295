//! One change of an environment: its configuration edited as an operator would (comments and order stay), judged whole as a
//! front end would judge it, and written at once.
//!
//! What is to be changed is said by others in TOML; this file knows where it stands, and that nobody changed it meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};
use zeroize::Zeroizing;

use super::commit::{FileChange, Lock};
use super::write::WriteError;
use crate::config::{self, CnamePattern, Config, Diagnostics, Overlay, Service, TlsStatus};
use crate::tls::facts::{Facts, KeyKind};
use crate::tls::pem;

/// Everybody may read what is no secret.
const OPEN_MODE: u32 = 0o644;

/// What is a secret is its owner's alone.
const SECRET_MODE: u32 = 0o600;

/// Where the keys of services lie, beside the main file.
const KEYS: &str = "keys";

/// Why a change was not made. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// The files were wrong before.
    #[error("the files as they are cannot be taken, so they are not changed either; mend them first")]
    InvalidBefore(Diagnostics),
    /// They would be wrong with the change.
    #[error("with this change the configuration could not be taken")]
    Refused(Diagnostics),
    #[error("{0} was changed by somebody else at the same time; look at it again, and try again")]
    Overtaken(PathBuf),
    #[error("{0}: `{1}` is not written as [[{1}]] tables, which is what can be changed; rewrite it so")]
    Form(PathBuf, &'static str),
    #[error("{0}")]
    Write(#[from] WriteError),
}

/// A change that is being made up. Nobody else changes the environment as long as it lasts.
pub struct Draft {
    lock: Lock,
    main: PathBuf,
    before: Config,
    documents: BTreeMap<PathBuf, Document>,
    /// A service that is added, and its file.
    added: Option<(String, PathBuf)>,
    others: Vec<FileChange>,
}

struct Document {
    /// What the file holds; `None`: it is new.
    text: Option<String>,
    toml: DocumentMut,
}

impl Document {
    fn edited(&self) -> String {
        self.toml.to_string()
    }

    /// Whether nothing is left in it, not even a comment.
    fn is_blank(&self) -> bool {
        self.edited().trim().is_empty()
    }
}

impl Draft {
    /// Begins a change of the environment whose main file is `main`.
    ///
    /// # Errors
    ///
    /// The files are wrong, or cannot be changed.
    pub fn begin(main: &Path) -> Result<Self, DraftError> {
        let directory = main.parent().unwrap_or(Path::new(""));
        let lock = Lock::take(directory)?;
        let (before, _) = config::load(main).map_err(DraftError::InvalidBefore)?;
        Ok(Self { lock, main: main.to_owned(), before, documents: BTreeMap::new(), added: None, others: Vec::new() })
    }

    /// What the files mean without the change.
    pub fn before(&self) -> &Config {
        &self.before
    }

    pub fn service(&self, name: &str) -> Option<&Service> {
        self.before.services.iter().find(|service| service.name.as_str() == name)
    }

    /// The main file's table `name`, made if it is not there.
    ///
    /// # Errors
    ///
    /// It is written in a form that cannot be changed, or the file was changed meanwhile.
    pub fn section(&mut self, name: &'static str) -> Result<&mut Table, DraftError> {
        let main = self.main.clone();
        let document = self.document(&main)?;
        let item = document.entry(name).or_insert_with(|| Item::Table(Table::new()));
        item.as_table_mut().ok_or(DraftError::Form(main, name))
    }

    /// The table of the service `name`, if there is one, or one was added.
    ///
    /// # Errors
    ///
    /// As for [`Self::section`].
    pub fn service_table(&mut self, name: &str) -> Result<Option<&mut Table>, DraftError> {
        let known = self.service(name).map(|service| service.at.file.to_path_buf());
        let added = self.added.as_ref().filter(|(added, _)| added == name).map(|(_, file)| file.clone());
        let Some(file) = known.or(added) else { return Ok(None) };
        let tables = tables_mut(self.document(&file)?, &file, "service")?;
        Ok(tables.iter_mut().find(|table| is_named(table, name)))
    }

    /// Adds a service with what stands in `table` besides its name: in a file of its own where the main file includes a
    /// directory of them, else at the end of the main file.
    ///
    /// # Errors
    ///
    /// As for [`Self::section`].
    pub fn add_service(&mut self, name: &str, table: Table) -> Result<(), DraftError> {
        let file = self.file_of_new(name).unwrap_or_else(|| self.main.clone());
        let tables = tables_mut(self.document(&file)?, &file, "service")?;
        tables.push(table);
        self.added = Some((name.to_owned(), file));
        Ok(())
    }

    /// Takes the service `name` out, its file too if nothing else is in it.
    ///
    /// # Errors
    ///
    /// As for [`Self::section`].
    pub fn remove_service(&mut self, name: &str) -> Result<(), DraftError> {
        let Some(file) = self.service(name).map(|service| service.at.file.to_path_buf()) else { return Ok(()) };
        let document = self.document(&file)?;
        let tables = tables_mut(document, &file, "service")?;
        tables.retain(|table| !is_named(table, name));
        if tables.is_empty() {
            document.remove("service");
        }
        let keys = self.keys_file(name);
        if keys.exists() {
            self.others.push(FileChange { path: keys, content: None, mode: SECRET_MODE });
        }
        Ok(())
    }

    /// Whether callers of a service that says nothing of it need a key.
    pub fn is_keyed_by_default(&self) -> bool {
        let defaults = self.before.written.get("defaults").and_then(toml::Value::as_table);
        let written = defaults.and_then(|defaults| defaults.get("auth")).and_then(toml::Value::as_bool);
        written.unwrap_or(config::defaults::AUTH)
    }

    /// Where the keys of the service `name` themselves are kept.
    pub fn keys_file(&self, name: &str) -> PathBuf {
        keys_file(&self.main, name)
    }

    /// Has a secret written beside the configuration.
    pub fn put_secret(&mut self, path: PathBuf, content: Zeroizing<Vec<u8>>) {
        self.others.push(FileChange { path, content: Some(content), mode: SECRET_MODE });
    }

    /// Has this pair, PEM text both, served for `cname`, which becomes the first of all: the one that scoring URIs have.
    /// What other names have stays.
    ///
    /// # Errors
    ///
    /// As for [`Self::section`].
    pub fn put_pair(&mut self, cname: &CnamePattern, chain: &[u8], key: Zeroizing<Vec<u8>>) -> Result<(), DraftError> {
        let mut known = self.before.cnames.iter().filter(|one| one.name == *cname);
        // Of an RSA beside an ECDSA certificate, the one of the same kind.
        let first = known.clone().next();
        let same_kind = known.find(|one| {
            let served = fs::read(&one.cert_pem.path);
            served.is_ok_and(|served| has_rsa_key(&served).is_some() && has_rsa_key(&served) == has_rsa_key(chain))
        });
        let (cert_pem, key_pem) = match same_kind.or(first) {
            Some(known) => {
                let files = (known.cert_pem.path.clone(), known.key_pem.path.clone());
                self.prefer_cname(cname)?;
                files
            }
            None => {
                self.add_cname(cname)?;
                let files = super::write::PairFiles::of(self.main.parent().unwrap_or(Path::new("")), cname);
                (files.cert_pem, files.key_pem)
            }
        };
        // With the certificate the pair is whole: whoever looks in between has the old one, or a key that waits.
        self.others.push(FileChange { path: key_pem, content: Some(key), mode: SECRET_MODE });
        let chain = Zeroizing::new(chain.to_vec());
        self.others.push(FileChange { path: cert_pem, content: Some(chain), mode: OPEN_MODE });
        Ok(())
    }

    /// Makes `cname` the first of all, if its table is in the main file.
    ///
    /// # Errors
    ///
    /// As for [`Self::section`].
    pub fn prefer_cname(&mut self, cname: &CnamePattern) -> Result<(), DraftError> {
        let main = self.main.clone();
        let is_here = |one: &&config::Cname| one.name == *cname && *one.at.file == *main;
        if self.before.cnames.first().is_some_and(|first| first.name == *cname)
            || self.before.cnames.iter().find(is_here).is_none()
        {
            return Ok(());
        }
        let tables = tables_mut(self.document(&main)?, &main, "cname")?;
        let Some(index) = tables.iter().position(|table| is_named(table, cname.as_str())) else { return Ok(()) };
        let mut table = tables.remove(index);
        table.set_position(tables.get(0).and_then(Table::position));
        tables.insert(0, table);
        Ok(())
    }

    fn add_cname(&mut self, cname: &CnamePattern) -> Result<(), DraftError> {
        let main = self.main.clone();
        let files = super::write::PairFiles::of(Path::new(""), cname);
        let mut table = Table::new();
        table.insert("name", value(cname.as_str()));
        table.insert("cert_pem", value(files.cert_pem.to_string_lossy().as_ref()));
        table.insert("key_pem", value(files.key_pem.to_string_lossy().as_ref()));
        let tables = tables_mut(self.document(&main)?, &main, "cname")?;
        if let Some(first) = tables.get(0) {
            table.set_position(first.position());
            tables.insert(0, table);
        } else {
            tables.push(table);
        }
        Ok(())
    }

    /// # Errors
    ///
    /// As for [`Self::section`].
    pub fn set_tls_status(&mut self, status: TlsStatus) -> Result<(), DraftError> {
        let word = match status {
            TlsStatus::Enabled => "Enabled",
            TlsStatus::Disabled => "Disabled",
        };
        set(self.section("tls")?, "status", Some(value(word)));
        Ok(())
    }

    /// What the configuration would mean with the change.
    ///
    /// # Errors
    ///
    /// All that would be wrong with it.
    pub fn judge(&self) -> Result<(Config, Diagnostics), DraftError> {
        let mut overlay = Overlay::default();
        for (file, document) in &self.documents {
            let gone = self.goes(file, document);
            overlay.set(file.clone(), (!gone).then(|| document.edited()));
        }
        let mut found = Diagnostics::default();
        match config::load_over(&self.main, &overlay, &mut found) {
            (Some(config), _) if !found.has_errors() => Ok((config, found)),
            _ => Err(DraftError::Refused(found)),
        }
    }

    /// Makes the change, which [`Self::judge`] was asked about; gives the files that are others now.
    ///
    /// # Errors
    ///
    /// A file was changed since it was read, or cannot be written.
    pub fn commit(self) -> Result<Vec<PathBuf>, DraftError> {
        let mut changes: Vec<FileChange> = Vec::new();
        let mut documents = Vec::new();
        for (file, document) in &self.documents {
            if read(file)? != document.text {
                return Err(DraftError::Overtaken(file.clone()));
            }
            let edited = document.edited();
            if document.text.as_deref() == Some(&edited) {
                continue;
            }
            let content = (!self.goes(file, document)).then(|| Zeroizing::new(edited.into_bytes()));
            documents.push(FileChange { path: file.clone(), content, mode: OPEN_MODE });
        }
        // What the configuration names is there before it is named.
        changes.extend(self.others);
        changes.extend(documents);
        self.lock.commit(&changes)?;
        Ok(changes.into_iter().map(|change| change.path).collect())
    }

    /// Whether the file itself goes: nothing is left in an included one.
    fn goes(&self, file: &Path, document: &Document) -> bool {
        file != self.main && document.is_blank()
    }

    /// The file for a service of its own, if services have such: `DIRECTORY/*.toml` is included.
    fn file_of_new(&mut self, name: &str) -> Option<PathBuf> {
        let include = self.before.written.get("include")?.as_array()?;
        let mut patterns = include.iter().filter_map(|pattern| pattern.as_str()).map(Path::new);
        let own = patterns.find_map(|pattern| {
            let directory = pattern.parent().filter(|_| pattern.file_name().is_some_and(|name| name == "*.toml"))?;
            (!directory.to_string_lossy().contains(['*', '?', '['])).then_some(directory)
        })?;
        Some(self.main.parent().unwrap_or(Path::new("")).join(own).join(format!("{name}.toml")))
    }

    /// Whether `text` says of `file` what the configuration was that the change began with.
    fn is_as_before(&self, file: &Path, text: &str) -> bool {
        let Ok(mut written) = text.parse::<toml::Table>() else { return false };
        let services = written.remove("service");
        let services = services.iter().filter_map(toml::Value::as_array).flatten().filter_map(toml::Value::as_table);
        let of_file = self.before.services.iter().filter(|service| &*service.at.file == file);
        let are_same = services.eq(of_file.map(|service| &service.written));
        are_same && (file != self.main || written == self.before.written)
    }

    fn document(&mut self, file: &Path) -> Result<&mut DocumentMut, DraftError> {
        if !self.documents.contains_key(file) {
            let text = read(file)?;
            // It was sound a moment ago, and what was judged is what is edited.
            let content = text.as_deref().unwrap_or_default();
            let toml = content.parse().ok().filter(|_| self.is_as_before(file, content));
            let toml = toml.ok_or_else(|| DraftError::Overtaken(file.to_owned()))?;
            self.documents.insert(file.to_owned(), Document { text, toml });
        }
        // Just put there.
        let document = self.documents.get_mut(file).ok_or_else(|| DraftError::Overtaken(file.to_owned()))?;
        Ok(&mut document.toml)
    }
}

/// Where the keys of the service `name` are kept in the environment whose main file is `main`.
pub fn keys_file(main: &Path, name: &str) -> PathBuf {
    main.parent().unwrap_or(Path::new("")).join(KEYS).join(format!("{name}.toml"))
}

/// Sets `key` in place, or takes it out; what is said of it in comments stays.
pub fn set(table: &mut Table, key: &str, new: Option<Item>) {
    match (table.get_mut(key), new) {
        (Some(old), Some(mut new)) => {
            if let (Some(old), Some(new)) = (old.as_value(), new.as_value_mut()) {
                *new.decor_mut() = old.decor().clone();
            }
            *old = new;
        }
        (None, Some(new)) => {
            table.insert(key, new);
        }
        (_, None) => {
            table.remove(key);
        }
    }
}

fn tables_mut<'a>(
    document: &'a mut DocumentMut,
    file: &Path,
    key: &'static str,
) -> Result<&'a mut ArrayOfTables, DraftError> {
    let item = document.entry(key).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    item.as_array_of_tables_mut().ok_or_else(|| DraftError::Form(file.to_owned(), key))
}

fn is_named(table: &Table, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

/// Whether the first certificate of a chain has an RSA key; `None` if there is none.
fn has_rsa_key(chain: &[u8]) -> Option<bool> {
    let leaf = pem::certificates(chain).ok()?.into_iter().next()?;
    Facts::read(&leaf).ok().map(|facts| matches!(facts.key, KeyKind::Rsa { .. }))
}

fn read(file: &Path) -> Result<Option<String>, WriteError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(super::write::failed("cannot be read", file)(error)),
    }
}
