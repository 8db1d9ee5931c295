//! The files that are the state: configuration, certificates, secrets. They are opened and checked together, looked at
//! again whenever they may have changed, and what of them is good is held until something better is there.
//!
//! Nothing here serves, watches or waits: [`crate::reload`] says when to look, and hands on what was found.

pub mod commit;
mod configuration;
pub mod create;
pub mod draft;
mod file;
mod held;
mod identities;
mod material;
pub mod report;
pub mod write;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{ProtocolVersion, ServerConfig};

use crate::cluster::secret::Secrets;
use crate::config::{Cname, CnamePattern, Config, Diagnostics, FilePath, TlsVersion};
use crate::tls::tickets::TicketKeys;
use crate::tls::{Certificate, CertificateTable, Identity, Settings};
use configuration::Configuration;
use file::Way;
use held::{Attention, Files, Held, Outcome};
use identities::{Identities, Parts};
use material::{AdminCallers, AdminPair, AdminToken, Callers, ClusterSecrets, Material, Pair, Tickets};
use report::{Report, Status};

pub use held::PATIENCE;
pub use material::Token;

/// One cluster's state: what is in its files, as far as it is good.
#[derive(Debug)]
pub struct Environment {
    configuration: Configuration,
    pairs: Vec<Pair>,
    callers: Vec<Callers>,
    tickets: Option<Tickets>,
    token: Option<AdminToken>,
    admin_pair: Option<AdminPair>,
    admin_callers: Option<AdminCallers>,
    cluster_secrets: Option<ClusterSecrets>,
    settings: Settings,
    identities: Identities,
    /// How near their end certificates were when that was told, by name and serial number.
    told_stages: HashMap<(CnamePattern, Box<str>), u8>,
}

/// How the admin listener is spoken to.
#[derive(Clone, Debug)]
pub enum AdminTransport {
    /// In the clear.
    Plain,
    Tls(Arc<ServerConfig>),
    /// Over TLS, for which no certificate is there yet: not at all.
    Unready,
}

/// Which files to look at.
#[derive(Debug)]
pub enum Scope {
    /// All, from outside; those that look different are read.
    Glance,
    /// All, and read them.
    Read,
    /// Those of which a change can be seen in one of these directories.
    Directories(HashSet<PathBuf>),
    /// The same, and read them: whoever changed them says that it is done.
    Changed(HashSet<PathBuf>),
}

impl Scope {
    /// What a change of the file or directory at `path` may concern.
    pub fn of(path: PathBuf) -> Self {
        let mut scope = Self::Directories(HashSet::new());
        scope.widen(path);
        scope
    }

    /// What was changed with `files`, all of it.
    pub fn changed(files: &[PathBuf]) -> Self {
        let directories = files.iter().flat_map(|file| Way::of(file).directories);
        let files = files.iter().filter_map(|file| file.canonicalize().ok());
        Self::Changed(directories.chain(files).collect())
    }

    /// What both concern.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Changed(one), Self::Changed(other)) => Self::Changed(one.into_iter().chain(other).collect()),
            _ => Self::Read,
        }
    }

    /// How closely to look at what is concerned.
    fn attention(&self) -> Attention {
        match self {
            Self::Read | Self::Changed(_) => Attention::Read,
            Self::Glance | Self::Directories(_) => Attention::Glance,
        }
    }

    /// Whether a change in one of `directories` is meant.
    fn concerns(&self, mut directories: impl Iterator<Item = impl std::borrow::Borrow<PathBuf>>) -> bool {
        match self {
            Self::Glance | Self::Read => true,
            Self::Directories(changed) | Self::Changed(changed) => {
                directories.any(|directory| changed.contains(directory.borrow()))
            }
        }
    }

    /// Adds what a change of the file or directory at `path` may concern.
    pub fn widen(&mut self, path: PathBuf) {
        if let Self::Directories(directories) = self {
            directories.extend(path.parent().map(Path::to_owned));
            directories.insert(path);
        }
    }
}

/// Opens everything that `path` leads to. What is wrong with certificates and secrets is said, and is no reason to
/// refuse: those that are good can be served.
///
/// # Errors
///
/// Everything that is wrong in any of the files, if the configuration is.
pub fn open(path: &Path) -> Result<(Environment, Diagnostics), Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let Some(configuration) = Configuration::open(path, &mut diagnostics) else { return Err(diagnostics) };
    if commit::is_unfinished(path.parent().unwrap_or(Path::new(""))) {
        let message = "somebody was killed over a change: part of what the files say is still in `.change`";
        diagnostics.warning_with(configuration.start(), message, "start the front end, which finishes it");
    }
    let is_refused = diagnostics.has_errors();
    let Ok(tickets) = TicketKeys::random() else {
        diagnostics.error(configuration.start(), "the system has no random bytes to give");
        return Err(diagnostics);
    };
    let settings = Settings::new(oldest(configuration.current()), Arc::new(tickets));
    let mut environment = Environment {
        configuration,
        pairs: Vec::new(),
        callers: Vec::new(),
        tickets: None,
        token: None,
        admin_pair: None,
        admin_callers: None,
        cluster_secrets: None,
        settings,
        identities: Identities::default(),
        told_stages: HashMap::new(),
    };
    environment.follow_configuration();
    // Also when the configuration is refused: one run shows all that is wrong.
    let settings = environment.settings.clone();
    for material in environment.materials_mut() {
        material.look(Attention::Read, &settings, &mut diagnostics);
    }
    for trouble in environment.materials_mut().filter_map(|material| material.files_mut().trouble_mut()) {
        diagnostics.extend(trouble.told().clone());
    }
    if is_refused {
        return Err(diagnostics);
    }
    environment.apply(&mut diagnostics);
    // That stands among what was found.
    environment.tell_expiring();
    Ok((environment, diagnostics))
}

impl Environment {
    pub fn config(&self) -> &Arc<Config> {
        self.configuration.current()
    }

    /// The configuration's main file.
    pub fn main_file(&self) -> &Path {
        self.configuration.path()
    }

    /// The certificates that can be served, by name.
    pub fn table(&self) -> CertificateTable {
        self.identities.table(self.config().tls.default_cname.as_ref())
    }

    /// The bearer token of the admin API; `None` if for nothing. An empty token fits nobody.
    pub fn token(&self) -> Option<Token> {
        self.token.as_ref().map(|token| token.held.value().cloned().unwrap_or_default())
    }

    /// What the front ends of the cluster know each other by; none fits nobody.
    pub fn cluster_secrets(&self) -> Secrets {
        self.cluster_secrets.as_ref().and_then(|secrets| secrets.held.value()).cloned().unwrap_or_default()
    }

    /// How the admin listener is spoken to.
    pub fn admin_transport(&self) -> AdminTransport {
        let Some(pair) = &self.admin_pair else { return AdminTransport::Plain };
        let callers = self.admin_callers.as_ref().map(|callers| callers.held.value());
        let (Some(certificate), Some(callers)) = (pair.held.value(), callers.map_or(Some(None), |held| held.map(Some)))
        else {
            return AdminTransport::Unready;
        };
        let identity = Identity::new("admin", vec![Arc::clone(certificate)], callers, &self.settings);
        identity.map_or(AdminTransport::Unready, |identity| AdminTransport::Tls(identity.config_for_http1()))
    }

    /// Looks whether the files hold something new, and holds it if it is good. What is unchanged is in the report only
    /// if all files were read.
    pub fn look(&mut self, scope: &Scope, remarks: &mut Diagnostics) -> Report {
        let config = if scope.concerns(self.configuration.directories()) {
            self.configuration.look(scope.attention(), remarks)
        } else {
            Outcome::Unchanged
        };
        if config == Outcome::Taken {
            self.follow_configuration();
        }
        let settings = self.settings.clone();
        let mut look = |material: &mut dyn Material| {
            if scope.concerns(material.files().directories().iter()) {
                material.look(scope.attention(), &settings, remarks)
            } else if config == Outcome::Taken {
                // It may name files that were never looked at.
                material.look(Attention::Glance, &settings, remarks)
            } else {
                Outcome::Unchanged
            }
        };
        let pairs: Vec<_> = self.pairs.iter_mut().map(|pair| look(pair)).collect();
        let others: Vec<_> = self.others_mut().map(look).collect();
        if config == Outcome::Taken || pairs.iter().chain(&others).any(|outcome| *outcome == Outcome::Taken) {
            self.apply(remarks);
            // That stands among the remarks.
            self.tell_expiring();
        }
        Report::new(self, config, &pairs, &others, matches!(scope, Scope::Read))
    }

    /// Whether files were read since this was asked last, so that a change may now be seen elsewhere.
    pub fn take_read(&mut self) -> bool {
        let mut were_read = self.configuration.files_mut().take_read();
        for material in self.materials_mut() {
            were_read |= material.files_mut().take_read();
        }
        were_read
    }

    /// Every directory in which a change can be seen.
    pub fn directories(&self) -> HashSet<PathBuf> {
        let materials = self.materials().flat_map(|material| material.files().directories().iter().cloned());
        materials.chain(self.configuration.directories()).collect()
    }

    /// The names in those directories under which content counts.
    pub fn names(&self) -> HashSet<OsString> {
        self.files().flat_map(|files| files.names().iter().cloned()).collect()
    }

    /// Whether something may come of looking again soon.
    pub fn is_unsettled(&self) -> bool {
        self.files().any(Files::are_unsettled)
    }

    /// What is wrong with the files and was not told before, once it was wrong long enough; and whether there is
    /// something that goes on in its place.
    pub fn tell_troubles(&mut self) -> Vec<(Diagnostics, bool)> {
        let tell = |files: &mut Files| {
            let goes_on = files.generation() > 0;
            files.trouble_mut().and_then(|trouble| trouble.tell()).map(|found| (found.clone(), goes_on))
        };
        let mut told: Vec<_> = tell(self.configuration.files_mut()).into_iter().collect();
        told.extend(self.materials_mut().filter_map(|material| tell(material.files_mut())));
        told
    }

    /// The certificates that came nearer to their end since this was asked last: 30, 14, 7 or 1 days, or past it.
    pub fn tell_expiring(&mut self) -> Vec<(CnamePattern, Arc<Certificate>)> {
        let now = SystemTime::now();
        let mut stages = HashMap::new();
        let mut nearer = Vec::new();
        for Pair { cname, held, .. } in &self.pairs {
            let Some(certificate) = held.value() else { continue };
            let Some(stage) = certificate.expiry_stage(now) else { continue };
            let key = (cname.name.clone(), Box::from(certificate.serial()));
            if self.told_stages.get(&key) != Some(&stage) {
                nearer.push((cname.name.clone(), Arc::clone(certificate)));
            }
            stages.insert(key, stage);
        }
        self.told_stages = stages;
        nearer
    }

    /// How things stand.
    pub fn status(&self) -> Status {
        Status::of(self)
    }

    fn materials(&self) -> impl Iterator<Item = &dyn Material> {
        let pairs = self.pairs.iter().map(|pair| pair as &dyn Material);
        pairs.chain(self.others())
    }

    /// All that is held but certificates.
    fn others(&self) -> impl Iterator<Item = &dyn Material> {
        let callers = self.callers.iter().map(|callers| callers as &dyn Material);
        let tickets = self.tickets.iter().map(|tickets| tickets as &dyn Material);
        let token = self.token.iter().map(|token| token as &dyn Material);
        let pair = self.admin_pair.iter().map(|pair| pair as &dyn Material);
        let operators = self.admin_callers.iter().map(|callers| callers as &dyn Material);
        let secrets = self.cluster_secrets.iter().map(|secrets| secrets as &dyn Material);
        callers.chain(tickets).chain(token).chain(pair).chain(operators).chain(secrets)
    }

    fn materials_mut(&mut self) -> impl Iterator<Item = &mut dyn Material> {
        let pairs = self.pairs.iter_mut().map(|pair| pair as &mut dyn Material);
        let callers = self.callers.iter_mut().map(|callers| callers as &mut dyn Material);
        let tickets = self.tickets.iter_mut().map(|tickets| tickets as &mut dyn Material);
        let token = self.token.iter_mut().map(|token| token as &mut dyn Material);
        let pair = self.admin_pair.iter_mut().map(|pair| pair as &mut dyn Material);
        let operators = self.admin_callers.iter_mut().map(|callers| callers as &mut dyn Material);
        let secrets = self.cluster_secrets.iter_mut().map(|secrets| secrets as &mut dyn Material);
        pairs.chain(callers).chain(tickets).chain(token).chain(pair).chain(operators).chain(secrets)
    }

    fn others_mut(&mut self) -> impl Iterator<Item = &mut dyn Material> {
        let pairs = self.pairs.len();
        self.materials_mut().skip(pairs)
    }

    fn files(&self) -> impl Iterator<Item = &Files> {
        std::iter::once(self.configuration.files()).chain(self.materials().map(Material::files))
    }

    /// Holds what the configuration names. What was held goes on, also where the configuration names other files for it,
    /// until those hold something good.
    fn follow_configuration(&mut self) {
        let config = Arc::clone(self.config());
        let known = std::mem::take(&mut self.pairs).into_iter().map(|pair| (pair.cname, pair.held)).collect();
        let pairs = follow(&config.cnames, pair_files, known).into_iter();
        self.pairs = pairs.map(|(cname, held)| Pair::new(cname, held)).collect();

        let known =
            std::mem::take(&mut self.callers).into_iter().map(|callers| (callers.cname, callers.held)).collect();
        let mut seen = HashSet::new();
        let asking = config.cnames.iter().filter(|cname| cname.client_ca_pem.is_some());
        let asking: Vec<_> = asking.filter(|cname| seen.insert(caller_files(cname))).cloned().collect();
        let callers = follow(&asking, caller_files, known).into_iter();
        self.callers = callers.map(|(cname, held)| Callers { cname, held }).collect();

        let known = self.tickets.take().map(|tickets| tickets.held);
        self.tickets =
            config.tls.ticket_keys.as_ref().map(|file| Tickets { file: file.clone(), held: of(file, known) });
        let known = self.token.take().map(|token| token.held);
        self.token =
            config.admin.token_file.as_ref().map(|file| AdminToken { file: file.clone(), held: of(file, known) });
        let tls = config.admin.tls.as_ref();
        let known = self.admin_pair.take().map(|pair| pair.held);
        self.admin_pair = tls.map(|tls| {
            let files = vec![tls.cert_pem.path.clone(), tls.key_pem.path.clone()];
            AdminPair { tls: tls.clone(), held: of_files(files, known) }
        });
        let known = self.admin_callers.take().map(|callers| callers.held);
        let operators = tls.and_then(|tls| tls.client_ca_pem.as_ref());
        self.admin_callers = operators.map(|file| AdminCallers { file: file.clone(), held: of(file, known) });
        let known = self.cluster_secrets.take().map(|secrets| secrets.held);
        let file = config.cluster.as_ref().map(|cluster| &cluster.secret_file);
        self.cluster_secrets = file.map(|file| ClusterSecrets { file: file.clone(), held: of(file, known) });
    }

    /// Makes what is held into what is served.
    fn apply(&mut self, diagnostics: &mut Diagnostics) {
        let settings = self.settings.with_oldest(oldest(self.config()));
        let secrets = self.tickets.as_ref().and_then(|tickets| tickets.held.value());
        self.settings.tickets().follow(secrets.map(Vec::as_slice));

        let callers: HashMap<_, _> = self
            .callers
            .iter()
            .filter_map(|callers| Some((caller_files(&callers.cname), callers.held.value()?)))
            .collect();
        let mut wanted: BTreeMap<_, Parts> = BTreeMap::new();
        for Pair { cname, held, .. } in &self.pairs {
            let Some(certificate) = held.value() else { continue };
            let callers = callers.get(&caller_files(cname)).map(|authority| (*authority).clone());
            if cname.client_ca_pem.is_some() && callers.is_none() {
                // Without its authorities the name would be open to everybody.
                continue;
            }
            let parts = wanted.entry(cname.name.clone()).or_insert(Parts { certificates: Vec::new(), callers });
            parts.certificates.push(Arc::clone(certificate));
        }
        match self.identities.change_to(wanted, &settings, self.settings.oldest()) {
            Ok(()) => self.settings = settings,
            Err(error) => diagnostics.error(self.configuration.start(), format!("TLS: {error}")),
        }
    }
}

fn pair_files(cname: &Cname) -> Vec<PathBuf> {
    vec![cname.cert_pem.path.clone(), cname.key_pem.path.clone()]
}

fn caller_files(cname: &Cname) -> Vec<PathBuf> {
    cname.client_ca_pem.iter().chain(&cname.client_crl_pem).map(|file| file.path.clone()).collect()
}

/// What each of `wanted` holds: what was `known` of the same name and files, else of the name, else nothing yet.
fn follow<T>(
    wanted: &[Cname],
    files: impl Fn(&Cname) -> Vec<PathBuf>,
    known: Vec<(Cname, Held<T>)>,
) -> Vec<(Cname, Held<T>)> {
    let key = |cname: &Cname| (cname.name.clone(), files(cname));
    let mut known: HashMap<_, _> = known.into_iter().map(|(cname, held)| (key(&cname), held)).collect();
    let found: Vec<_> = wanted.iter().map(|cname| known.remove(&key(cname))).collect();
    let mut left: HashMap<CnamePattern, Vec<Held<T>>> = HashMap::new();
    for ((name, _), held) in known {
        left.entry(name).or_default().push(held);
    }
    let held = wanted.iter().zip(found).map(|(cname, found)| {
        let of_name = || left.get_mut(&cname.name).and_then(Vec::pop).map(|held| held.of_other_files(files(cname)));
        found.or_else(of_name).unwrap_or_else(|| Held::new(files(cname)))
    });
    wanted.iter().cloned().zip(held).collect()
}

/// What is held of `file`: what was `known`, until the file holds something good.
fn of<T>(file: &FilePath, known: Option<Held<T>>) -> Held<T> {
    of_files(vec![file.path.clone()], known)
}

fn of_files<T>(paths: Vec<PathBuf>, known: Option<Held<T>>) -> Held<T> {
    match known {
        Some(held) if held.files.paths() == paths => held,
        Some(held) => held.of_other_files(paths),
        None => Held::new(paths),
    }
}

fn oldest(config: &Config) -> ProtocolVersion {
    match config.tls.min_version {
        TlsVersion::V1_2 => ProtocolVersion::TLSv1_2,
        TlsVersion::V1_3 => ProtocolVersion::TLSv1_3,
    }
}
