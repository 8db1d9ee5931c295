//! Questions to name servers, and their answers. What the answers mean for a deployment is decided above.
//!
//! hickory speaks the protocol: one of its pools a name server, without its cache, since times to live are counted
//! above; without its search list, which would take a name's failure for its absence; without its choice of servers,
//! which would end at the first that refuses; and without its way with aliases, which takes a loop of them, and records
//! of other names, for an absence.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer, RetryDnsHandle};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::domain::usage;
use hickory_resolver::proto::rr::rdata::{A, AAAA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use tokio::time::{Instant, timeout_at};

use super::found::{ip_of, shorter};
use super::system::{Conf, Files, Hosts, Stamps};
use crate::config::Dns;

/// How long a name server may take while there is another to ask.
const SERVER_PATIENCE: Duration = Duration::from_millis(1500);

/// How long hickory waits for one server. It repeats a question over UDP by itself meanwhile.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Aliases on the way to records that are followed.
const MAX_ALIASES: usize = 8;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LookupError {
    #[error("\"{name}\" cannot be asked for: {why}")]
    Name { name: String, why: String },
    #[error("no name server is known: {0}")]
    NoServer(String),
    #[error("the name server {0} does not answer")]
    Silent(SocketAddr),
    #[error("the name server {server} cannot be reached: {why}")]
    Unreachable { server: SocketAddr, why: String },
    #[error("the name server {server} answers {code} for {name}")]
    Refused { server: SocketAddr, name: String, code: String },
    #[error("the name server {server} answers for {name} what cannot be used: {why}")]
    Unusable { server: SocketAddr, name: String, why: String },
    #[error("what the name server {server} answers for {name} leads nowhere: {why}")]
    Nowhere { server: SocketAddr, name: String, why: &'static str },
}

impl LookupError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Name { .. } => "write a shorter name",
            Self::NoServer(_) => "write \"nameserver <address>\" into /etc/resolv.conf, or set [dns] servers",
            Self::Silent(_) | Self::Unreachable { .. } => "try again, or correct [dns] servers or /etc/resolv.conf",
            Self::Refused { .. } | Self::Unusable { .. } => "try again, or look at the log of that name server",
            Self::Nowhere { .. } => "correct the records of that name",
        }
    }

    /// Whether the name server works, as far as this tells, and only this name has a failure.
    pub(super) fn concerns_one_name(&self) -> bool {
        match self {
            Self::Refused { code, .. } => *code == rcode(ResponseCode::ServFail),
            Self::Nowhere { .. } => true,
            _ => false,
        }
    }
}

/// Asks name servers, the one that answered last before the others.
pub struct Resolver {
    /// Absent: the name servers were given.
    files: Option<Files>,
    view: ArcSwap<View>,
}

impl Resolver {
    /// What this host asks by: `/etc/resolv.conf` with its search domains, and `/etc/hosts` before it. Both are read
    /// again when they have changed. Without a `resolv.conf` that can be used every lookup fails until there is one.
    pub fn system() -> Self {
        Self::by_files(Files::system())
    }

    /// As the configuration wants it: by its own name servers, or by the host's if it has none.
    pub fn of(config: &Dns) -> Self {
        if config.servers.is_empty() { Self::system() } else { Self::with_servers(&config.servers) }
    }

    /// These name servers, asked by UDP, and by TCP where an answer is too long for it; no search domains and no hosts.
    pub fn with_servers(servers: &[SocketAddr]) -> Self {
        let conf = Conf { servers: servers.to_vec(), ..Conf::default() };
        let view = View::new(conf, Arc::default(), Stamps::default(), "none was given".to_owned());
        Self { files: None, view: ArcSwap::from_pointee(view) }
    }

    pub(super) fn by_files(files: Files) -> Self {
        let view = View::new(Conf::default(), Arc::default(), Stamps::default(), String::new());
        let resolver = Self { view: ArcSwap::from_pointee(view), files: Some(files) };
        resolver.view();
        resolver
    }

    /// How the world looks from here, now. That costs the look at two files of this host.
    pub(super) fn view(&self) -> Arc<View> {
        let view = self.view.load_full();
        let Some(files) = &self.files else { return view };
        let stamps = files.stamps();
        if stamps == view.stamps {
            return view;
        }
        // What cannot be read, or is being written just now, leaves what was there before.
        let hosts = files.read_hosts().map_or_else(|_| Arc::clone(&view.hosts), Arc::new);
        let (conf, trouble) = match files.read_conf() {
            Ok(conf) => (conf, String::new()),
            Err(trouble) => (view.conf.clone(), trouble),
        };
        let view = Arc::new(View::new(conf, hosts, stamps, trouble));
        self.view.store(Arc::clone(&view));
        view
    }
}

/// What one lookup goes by from its beginning to its end.
pub(super) struct View {
    conf: Conf,
    pub hosts: Arc<Hosts>,
    stamps: Stamps,
    servers: Vec<Server>,
    /// The place of the server that answered last.
    first: AtomicUsize,
    /// Why `servers` is empty, if it is.
    trouble: String,
}

struct Server {
    address: SocketAddr,
    hickory: RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>,
    options: DnsRequestOptions,
}

/// What a name server said: that there are these records, or none.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Of the kind that was asked for, and of the name or what it is an alias of. Some can be used, if there are any.
    pub records: Vec<Record>,
    /// Records that were not asked for but may be of use.
    pub additionals: Vec<Record>,
    /// The shortest of all records and aliases; of an absence what the zone says (RFC 2308), if it does.
    pub ttl: Option<Duration>,
}

impl View {
    fn new(conf: Conf, hosts: Arc<Hosts>, stamps: Stamps, mut trouble: String) -> Self {
        let mut servers = Vec::new();
        for address in &conf.servers {
            match Server::new(*address) {
                Ok(server) => servers.push(server),
                Err(error) => trouble = error.to_string(),
            }
        }
        Self { conf, hosts, stamps, servers, first: AtomicUsize::new(0), trouble }
    }

    /// The full names that `name` may stand for, in the order they are asked for (resolv.conf(5), `search` and
    /// `ndots`). A name that ends with a dot stands for itself.
    pub fn names(&self, name: &str) -> Result<Vec<Name>, LookupError> {
        let invalid = |error| LookupError::Name { name: name.to_owned(), why: format!("{error}") };
        let plain = Name::from_ascii(name).map_err(invalid)?;
        let mut full = plain.clone();
        full.set_fqdn(true);
        if plain.is_fqdn() {
            return Ok(vec![full]);
        }
        // Too long together with a domain, it stands for nothing there.
        let mut names: Vec<Name> =
            self.conf.search.iter().filter_map(|domain| plain.clone().append_domain(domain).ok()).collect();
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let place = if dots >= self.conf.ndots { 0 } else { names.len() };
        names.insert(place, full);
        Ok(names)
    }

    /// Asks one server after the other until one answers. That a name does not exist is an answer.
    pub async fn ask(&self, name: &Name, kind: RecordType, deadline: Instant) -> Result<Answer, LookupError> {
        if let Some(answer) = known_to_all(name, kind) {
            return Ok(answer);
        }
        let first = self.first.load(Relaxed);
        let by_turns = self.servers.iter().enumerate().cycle().skip(first).take(self.servers.len());
        let mut failure = LookupError::NoServer(self.trouble.clone());
        for (turn, (place, server)) in by_turns.enumerate() {
            let is_last = turn + 1 == self.servers.len();
            let patience = if is_last { deadline } else { deadline.min(Instant::now() + SERVER_PATIENCE) };
            match timeout_at(patience, server.ask(name, kind)).await {
                Ok(Ok(answer)) => {
                    self.first.store(place, Relaxed);
                    return Ok(answer);
                }
                Ok(Err(error)) => failure = error,
                Err(_) => failure = LookupError::Silent(server.address),
            }
        }
        Err(failure)
    }
}

impl Server {
    fn new(address: SocketAddr) -> Result<Self, NetError> {
        let mut config = NameServerConfig::udp_and_tcp(address.ip());
        config.connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut config.connections {
            connection.port = address.port();
        }
        let mut settings = ResolverOpts::default();
        settings.timeout = EXCHANGE_TIMEOUT;
        let mut options = DnsRequestOptions::default();
        options.recursion_desired = settings.recursion_desired;
        options.use_edns = settings.edns0;
        options.edns_payload_len = settings.edns_payload_len;
        let context = Arc::new(PoolContext::new(settings, TlsConfig::new()?));
        let pool = NameServerPool::from_config([config], context, TokioRuntimeProvider::default());
        // An answer that cannot be read is asked for once more.
        Ok(Self { address, hickory: RetryDnsHandle::new(pool, 1), options })
    }

    /// Asks for `name`, and for what it is an alias of as long as the records of that are not given along.
    ///
    /// Only a server that says so has no records. A way that does not end, or ends at nothing that can be used, is a
    /// mistake in what somebody wrote, and must not end the replicas that are there.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer, LookupError> {
        let nowhere = |why| Err(LookupError::Nowhere { server: self.address, name: name.to_ascii(), why });
        let (mut owner, mut aliases, mut ttl) = (name.clone(), 0, None);
        loop {
            let Some(response) = self.exchange(&owner, kind, &mut ttl).await? else {
                return Ok(Answer { ttl, ..Answer::default() });
            };
            let followed = aliases;
            while let Some((alias, other)) = response.answers.iter().find_map(|record| alias_of(record, &owner)) {
                aliases += 1;
                if aliases > MAX_ALIASES {
                    return nowhere("its aliases go round in a circle, or are more than 8");
                }
                ttl = shorter(ttl, Some(ttl_of(alias)));
                owner = other.clone();
            }
            let is_asked_for = |it: &&Record| it.name == owner && it.record_type() == kind;
            let records: Vec<Record> = response.answers.iter().filter(is_asked_for).cloned().collect();
            if records.iter().any(is_usable) {
                let ttl = shorter(ttl, records.iter().map(ttl_of).min());
                return Ok(Answer { records, additionals: response.into_message().additionals, ttl });
            }
            if !records.is_empty() {
                return nowhere("no replica can be where its records say");
            }
            if aliases == followed {
                return nowhere("the records are of another name or kind");
            }
        }
    }

    /// One question: what was said, or nothing if that is that there are no records, for `ttl` at most.
    async fn exchange(
        &self,
        name: &Name,
        kind: RecordType,
        ttl: &mut Option<Duration>,
    ) -> Result<Option<DnsResponse>, LookupError> {
        let server = self.address;
        let refused = |code| LookupError::Refused { server, name: name.to_ascii(), code: rcode(code) };
        let query = Query::query(name.clone(), kind);
        let why = match self.hickory.lookup(query, self.options).first_answer().await {
            Ok(response) => match response.response_code {
                // With NXDOMAIN it is the end of the aliases that does not exist.
                ResponseCode::NoError | ResponseCode::NXDomain => return Ok(Some(response)),
                code => return Err(refused(code)),
            },
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NoError if names_others(&none) => "it names other servers".to_owned(),
                ResponseCode::NoError | ResponseCode::NXDomain => {
                    *ttl = shorter(*ttl, none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into())));
                    return Ok(None);
                }
                code => return Err(refused(code)),
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => return Err(refused(code)),
            Err(NetError::Timeout) => return Err(LookupError::Silent(server)),
            Err(NetError::Io(error)) => return Err(LookupError::Unreachable { server, why: error.to_string() }),
            Err(error) => error.to_string(),
        };
        Err(LookupError::Unusable { server, name: name.to_ascii(), why })
    }
}

/// Whether it is a server that is not meant to be asked, and names others in place of an answer.
fn names_others(none: &NoRecords) -> bool {
    none.soa.is_none() && none.ns.is_some()
}

/// The names that no name server is to be asked for (RFC 6761, RFC 7686).
fn known_to_all(name: &Name, kind: RecordType) -> Option<Answer> {
    if usage::INVALID.zone_of(name) || usage::ONION.zone_of(name) {
        return Some(Answer::default());
    }
    if !usage::LOCALHOST.zone_of(name) {
        return None;
    }
    let data = match kind {
        RecordType::A => Some(RData::A(A::new(127, 0, 0, 1))),
        RecordType::AAAA => Some(RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1))),
        _ => None,
    };
    let records = data.into_iter().map(|data| Record::from_rdata(name.clone(), u32::MAX, data)).collect();
    Some(Answer { records, additionals: Vec::new(), ttl: Some(Duration::MAX) })
}

/// The record that makes `name` an alias, and of what, if it is this one.
fn alias_of<'a>(record: &'a Record, name: &Name) -> Option<(&'a Record, &'a Name)> {
    match &record.data {
        RData::CNAME(alias) if record.name == *name => Some((record, &alias.0)),
        _ => None,
    }
}

fn ttl_of(record: &Record) -> Duration {
    Duration::from_secs(record.ttl.into())
}

/// Whether it says where a replica may be, or, as the host `.` of a service does (RFC 2782), that there is none.
fn is_usable(record: &Record) -> bool {
    match &record.data {
        RData::A(_) | RData::AAAA(_) => ip_of(record).is_some(),
        RData::SRV(srv) => srv.port != 0 || srv.target.is_root(),
        _ => true,
    }
}

/// A code by the name operators know it by (RFC 1035, section 4.1.1).
fn rcode(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => format!("\"{other}\""),
    }
}
