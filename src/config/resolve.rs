//! From what is written to what is meant: joins the files, fills in the defaults and checks what belongs together.
//!
//! It reads no TOML and opens no file. A part that is wrong gets a stand-in so that the rest can be checked as well:
//! what comes out counts only if no error was found.

mod choice;
mod cluster;
mod kubernetes;
mod service;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostic::{Diagnostics, Location, nearest};
use super::file::{
    RawAdmin, RawCname, RawDns, RawEnvironment, RawFile, RawFrontend, RawLimits, RawLog, RawReload, RawService,
    RawServiceSettings, RawTls,
};
use super::table::{Field, Located};
use super::value::{CnamePattern, ServiceName};
use super::{
    Admin, AdminListen, AdminTls, Cname, Config, Dns, Environment, FilePath, Frontend, Limits, Log, Reload, Service,
    Tls, TlsStatus, defaults,
};

/// Turns `file`, read from `path`, into a configuration. What comes out counts only if `diagnostics` has no errors.
pub fn resolve(path: &Path, file: Option<RawFile>, diagnostics: &mut Diagnostics) -> Option<Config> {
    let file = file?;
    let start = Location::start_of(path.into());
    check_listeners(&file, diagnostics);
    check_tls_status(&file, &start, diagnostics);
    check_services_exist(&file, &start, diagnostics);
    check_default_cname(&file, diagnostics);

    let error_format = file.defaults.error_format.given().map_or(defaults::ERROR_FORMAT, |given| given.value);
    let services = resolve_services(&file, diagnostics);
    Some(Config {
        written: file.written,
        environment: resolve_environment(file.environment),
        frontend: resolve_frontend(file.frontend),
        tls: resolve_tls(file.tls),
        reload: resolve_reload(file.reload),
        cnames: resolve_cnames(file.cnames, diagnostics),
        admin: resolve_admin(file.admin, diagnostics),
        limits: resolve_limits(file.limits),
        dns: resolve_dns(&file.dns, diagnostics),
        kubernetes: kubernetes::resolve(file.kubernetes, &file.defaults, diagnostics),
        cluster: file.cluster.value().and_then(|raw| cluster::resolve(raw, diagnostics)),
        log: resolve_log(file.log),
        error_format,
        services,
    })
}

fn resolve_environment(raw: RawEnvironment) -> Environment {
    Environment {
        name: raw.name.value(),
        resource_group: raw.resource_group.value(),
        cluster_type: raw.cluster_type.value().unwrap_or_default(),
        created_on: raw.created_on.value(),
        description: raw.description.value(),
    }
}

fn resolve_frontend(raw: RawFrontend) -> Frontend {
    Frontend {
        https: raw.https.value().unwrap_or(defaults::HTTPS),
        http: raw.http.value(),
        http_when_tls: raw.http_when_tls.value().unwrap_or(defaults::HTTP_WHEN_TLS),
        threads: raw.threads.value().unwrap_or(defaults::THREADS),
        drain_grace: raw.drain_grace.value().unwrap_or(defaults::DRAIN_GRACE),
        drain_timeout: raw.drain_timeout.value().unwrap_or(defaults::DRAIN_TIMEOUT),
        proxy_protocol_from: raw
            .proxy_protocol_from
            .value()
            .unwrap_or_default()
            .into_iter()
            .map(|located| located.value)
            .collect(),
        public_ip_address: raw.public_ip_address.value(),
        public_https_port: raw.public_https_port.value(),
        public_http_port: raw.public_http_port.value(),
    }
}

fn resolve_tls(raw: RawTls) -> Tls {
    Tls {
        status: raw.status.value().unwrap_or(defaults::TLS_STATUS),
        min_version: raw.min_version.value().unwrap_or(defaults::TLS_MIN_VERSION),
        default_cname: raw.default_cname.value(),
        ticket_keys: raw.ticket_keys.given().map(beside),
    }
}

fn resolve_reload(raw: RawReload) -> Reload {
    Reload {
        watch: raw.watch.value().unwrap_or(defaults::RELOAD_WATCH),
        poll_interval: raw.poll_interval.value().unwrap_or(defaults::RELOAD_POLL_INTERVAL),
    }
}

fn resolve_limits(raw: RawLimits) -> Limits {
    let default = Limits::default();
    Limits {
        max_connections: raw.max_connections.value().unwrap_or(default.max_connections),
        tls_handshake_timeout: raw.tls_handshake_timeout.value().unwrap_or(default.tls_handshake_timeout),
        header_read_timeout: raw.header_read_timeout.value().unwrap_or(default.header_read_timeout),
        idle_timeout: raw.idle_timeout.value().unwrap_or(default.idle_timeout),
    }
}

fn resolve_dns(raw: &RawDns, diagnostics: &mut Diagnostics) -> Dns {
    let Some(given) = raw.servers.given() else { return Dns::default() };
    if given.value.is_empty() {
        let message = "`servers` names no name server, so that nothing could be looked up";
        diagnostics.error_with(given.at.clone(), message, "add one, or leave it out: then /etc/resolv.conf counts");
    }
    Dns { servers: given.value.iter().map(|server| server.value).collect() }
}

fn resolve_log(raw: RawLog) -> Log {
    Log {
        format: raw.format.value().unwrap_or(defaults::LOG_FORMAT),
        level: raw.level.value().unwrap_or_else(|| defaults::LOG_LEVEL.to_owned()),
        access: raw.access.value().unwrap_or(defaults::LOG_ACCESS),
    }
}

fn resolve_admin(raw: RawAdmin, diagnostics: &mut Diagnostics) -> Admin {
    if let Field::Given(Located { value: AdminListen::Tcp(address), at }) = &raw.listen
        && !address.ip().to_canonical().is_loopback()
        && raw.token_file.is_absent()
        && raw.client_ca_pem.is_absent()
    {
        diagnostics.error_with(
            at.clone(),
            format!("the admin API on {address} can be reached from other hosts, and neither `token_file` nor `client_ca_pem` guards it"),
            "add token_file = \"admin.token\" to [admin], or listen on 127.0.0.1",
        );
    }
    Admin {
        token_file: raw.token_file.given().map(beside),
        tls: resolve_admin_tls(&raw, diagnostics),
        listen: raw.listen.value().unwrap_or(defaults::ADMIN_LISTEN),
    }
}

fn resolve_admin_tls(raw: &RawAdmin, diagnostics: &mut Diagnostics) -> Option<AdminTls> {
    let RawAdmin { cert_pem, key_pem, client_ca_pem, .. } = raw;
    let lacks = |given: &Located<PathBuf>, key: &str, missing: &str| {
        (given.at.clone(), format!("`{key}` in [admin] has no effect without `{missing}`"), format!("add {missing}"))
    };
    let problem = match (cert_pem.given(), key_pem.given(), client_ca_pem.given()) {
        (Some(cert_pem), Some(key_pem), client_ca_pem) => {
            return Some(AdminTls {
                cert_pem: beside(cert_pem),
                key_pem: beside(key_pem),
                client_ca_pem: client_ca_pem.map(beside),
            });
        }
        (Some(given), None, _) if key_pem.is_absent() => lacks(given, "cert_pem", "key_pem"),
        (None, Some(given), _) if cert_pem.is_absent() => lacks(given, "key_pem", "cert_pem"),
        (None, None, Some(given)) if cert_pem.is_absent() => lacks(given, "client_ca_pem", "cert_pem"),
        _ => return None,
    };
    diagnostics.error_with(problem.0, problem.1, problem.2);
    None
}

fn resolve_cnames(raw: Vec<RawCname>, diagnostics: &mut Diagnostics) -> Vec<Cname> {
    let mut cnames: Vec<Cname> = Vec::new();
    let mut first_of: HashMap<CnamePattern, usize> = HashMap::new();
    let mut seen: HashMap<(CnamePattern, PathBuf), Location> = HashMap::new();
    for raw in raw {
        let Some(cname) = resolve_cname(raw, diagnostics) else { continue };
        let at = cname.cert_pem.at.clone();
        match seen.entry((cname.name.clone(), cname.cert_pem.path.clone())) {
            Entry::Vacant(entry) => drop(entry.insert(at)),
            Entry::Occupied(first) => {
                let message = format!("CNAME `{}` has this certificate already, at {}", cname.name, first.get());
                diagnostics.error_with(at, message, "delete one of the two [[cname]] tables");
            }
        }
        let first = *first_of.entry(cname.name.clone()).or_insert(cnames.len());
        if let Some(first) = cnames.get(first) {
            check_same_callers(first, &cname, diagnostics);
        }
        cnames.push(cname);
    }
    cnames
}

fn resolve_cname(raw: RawCname, diagnostics: &mut Diagnostics) -> Option<Cname> {
    if let (Some(crl), true) = (raw.client_crl_pem.given(), raw.client_ca_pem.is_absent()) {
        let message = "`client_crl_pem` has no effect without `client_ca_pem`: callers are not asked for certificates";
        diagnostics.error_with(crl.at.clone(), message, "add client_ca_pem, or delete it");
    }
    let name = raw.name?;
    Some(Cname {
        name: name.value,
        at: name.at,
        cert_pem: beside(&raw.cert_pem?),
        key_pem: beside(&raw.key_pem?),
        client_ca_pem: raw.client_ca_pem.given().map(beside),
        client_crl_pem: raw.client_crl_pem.given().map(beside),
    })
}

/// Which certificate is served is the caller's choice; who may call must not depend on it.
fn check_same_callers(first: &Cname, other: &Cname, diagnostics: &mut Diagnostics) {
    let callers = |cname: &Cname| {
        let path = |file: &Option<FilePath>| file.as_ref().map(|file| file.path.clone());
        (path(&cname.client_ca_pem), path(&cname.client_crl_pem))
    };
    if callers(first) != callers(other) {
        let message = format!(
            "CNAME `{}` asks callers for other certificates here than at {}: both of its tables hold for one caller",
            other.name, first.at
        );
        diagnostics.error_with(
            other.at.clone(),
            message,
            "write the same client_ca_pem and client_crl_pem in both tables, or in neither",
        );
    }
}

fn resolve_services(file: &RawFile, diagnostics: &mut Diagnostics) -> Vec<Service> {
    check_scoring_timeout(&file.defaults.scoring_timeout, diagnostics);
    // Where a service has a time of its own the number may count for it.
    if file.services.iter().all(|raw| raw.settings.max_queue_wait.is_absent()) {
        check_queue(&file.defaults, diagnostics);
    }
    let mut seen: HashMap<&ServiceName, &Location> = HashMap::new();
    let known = known_cnames(file);
    let mut services = Vec::new();
    for raw in &file.services {
        if let Some(Located { value: name, at }) = &raw.name {
            let first = *seen.entry(name).or_insert(at);
            if first != at {
                let message = format!("service `{name}` is already defined at {first}");
                diagnostics.error_with(at.clone(), message, "rename or delete one of the two");
            }
        }
        check_scoring_timeout(&raw.settings.scoring_timeout, diagnostics);
        check_queue(&raw.settings, diagnostics);
        check_service_cnames(raw, known.as_deref(), diagnostics);
        services.extend(service::resolve(raw, &file.defaults, diagnostics));
    }
    services
}

/// Two listeners on one address cannot both be bound, or would share the connections between them.
fn check_listeners(file: &RawFile, diagnostics: &mut Diagnostics) {
    let RawFile { frontend, admin, cluster, .. } = file;
    let https = effective(&frontend.https, Some(defaults::HTTPS));
    let http = effective(&frontend.http, None);
    let admin = effective(&admin.listen, Some(defaults::ADMIN_LISTEN)).and_then(|(listen, at)| match listen {
        AdminListen::Tcp(address) => Some((address, at)),
        AdminListen::Unix(_) => None,
    });
    let cluster = cluster.given().and_then(|raw| effective(&raw.value.listen, Some(defaults::CLUSTER_LISTEN)));
    let listeners =
        [("frontend.https", https), ("frontend.http", http), ("admin.listen", admin), ("cluster.listen", cluster)];
    let listeners: Vec<_> =
        listeners.into_iter().filter_map(|(key, listener)| listener.map(|(address, at)| (key, address, at))).collect();
    for (index, (key, address, at)) in listeners.iter().enumerate() {
        let clash = listeners.iter().take(index).find(|(_, other, _)| overlap(*address, *other));
        if let Some((other_key, other, other_at)) = clash
            && let Some(at) = at.or(*other_at)
        {
            let message = format!("`{key}` ({address}) and `{other_key}` ({other}) take the same connections");
            diagnostics.error_with(at.clone(), message, "give one of them another port");
        }
    }
}

/// The value that counts and, if the operator wrote it, its place.
fn effective<T: Clone>(field: &Field<T>, default: Option<T>) -> Option<(T, Option<&Location>)> {
    match field {
        Field::Absent => default.map(|value| (value, None)),
        Field::Invalid => None,
        Field::Given(Located { value, at }) => Some((value.clone(), Some(at))),
    }
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let every = one.ip().is_unspecified() || other.ip().is_unspecified();
    // Port 0 is a different free port each time.
    one.port() == other.port() && one.port() != 0 && (every || one.ip().to_canonical() == other.ip().to_canonical())
}

fn check_services_exist(file: &RawFile, start: &Location, diagnostics: &mut Diagnostics) {
    if file.complete && file.services.is_empty() && file.kubernetes.discover_services.is_absent() {
        let message = "there is no [[service]]: every scoring call is answered with 404";
        diagnostics.warning_with(start.clone(), message, "add one, or `include` the files that hold them");
    }
}

fn check_tls_status(file: &RawFile, start: &Location, diagnostics: &mut Diagnostics) {
    let Some((status, at)) = effective(&file.tls.status, Some(defaults::TLS_STATUS)) else {
        return;
    };
    let at = at.unwrap_or(start);
    match status {
        TlsStatus::Disabled if file.frontend.http.is_absent() => diagnostics.error_with(
            at.clone(),
            "nobody can score: TLS is Disabled and there is no `frontend.http` address",
            "add http = \"0.0.0.0:8080\" to [frontend], or set status = \"Enabled\"",
        ),
        TlsStatus::Disabled if file.cnames.iter().any(|cname| !cname.client_ca_pem.is_absent()) => {
            diagnostics.warning_with(
                at.clone(),
                "TLS is Disabled, and CNAMEs with `client_ca_pem` are still answered over https alone",
                "set status = \"Enabled\", or let everybody call them: delete client_ca_pem",
            );
        }
        TlsStatus::Enabled if file.complete && file.cnames.is_empty() => diagnostics.warning_with(
            at.clone(),
            "TLS is Enabled and there is no [[cname]]: every handshake is refused until there is one",
            "add a [[cname]] with its certificate and key",
        ),
        TlsStatus::Disabled | TlsStatus::Enabled => {}
    }
}

fn check_default_cname(file: &RawFile, diagnostics: &mut Diagnostics) {
    let (Some(Located { value, at }), Some(known)) = (file.tls.default_cname.given(), known_cnames(file)) else {
        return;
    };
    if !known.contains(&value) {
        let message = format!("`default_cname`: `{value}` is the name of no [[cname]]");
        diagnostics.error_with(at.clone(), message, known_remedy(value, &known));
    }
}

/// `known` is `None` if not all names could be read.
fn check_service_cnames(raw: &RawService, known: Option<&[&CnamePattern]>, diagnostics: &mut Diagnostics) {
    let Some(Located { value: cnames, at }) = raw.cnames.given() else {
        return;
    };
    if cnames.is_empty() {
        let message = "`cnames`: expected at least one name, found an empty list";
        diagnostics.error_with(at.clone(), message, "leave the key out to serve under every CNAME");
    }
    for Located { value, at } in cnames {
        // One name of those a wildcard certificate covers is as good as the wildcard itself.
        let covered =
            |known: &[&CnamePattern]| known.iter().any(|cname| *cname == value || cname.matches(value.as_str()));
        if let Some(known) = known.filter(|known| !covered(known)) {
            let message = format!("`cnames`: no [[cname]] covers `{value}`");
            diagnostics.error_with(at.clone(), message, known_remedy(value, known));
        }
    }
}

/// The names of all `[[cname]]` tables, or `None` if not all could be read.
fn known_cnames(file: &RawFile) -> Option<Vec<&CnamePattern>> {
    let names: Option<_> = file.cnames.iter().map(|raw| raw.name.as_ref().map(|name| &name.value)).collect();
    names.filter(|_| file.complete)
}

fn known_remedy(wanted: &CnamePattern, known: &[&CnamePattern]) -> String {
    match nearest(wanted.as_str(), known.iter().map(|cname| cname.as_str())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "add a [[cname]] of that name with its certificate and key".to_owned(),
    }
}

fn check_scoring_timeout(timeout: &Field<Duration>, diagnostics: &mut Diagnostics) {
    const LONG: Duration = Duration::from_secs(60 * 60);
    if let Some(Located { value, at }) = timeout.given()
        && *value > LONG
    {
        let message = "`scoring_timeout` is longer than an hour: a replica that hangs is held that long";
        diagnostics.warning_with(at.clone(), message, "write the longest time a caller would wait");
    }
}

/// Room to wait and no time for it, in one table: one of them is not meant.
fn check_queue(settings: &RawServiceSettings, diagnostics: &mut Diagnostics) {
    if let (Some(max), Some(wait)) = (settings.max_queue.given(), settings.max_queue_wait.given())
        && max.value > 0
        && wait.value == Duration::ZERO
    {
        let message = "`max_queue` has no effect: with max_queue_wait = \"0s\" no call waits";
        diagnostics.warning_with(max.at.clone(), message, "delete it, or write how long calls may wait");
    }
}

/// The path, relative to the file it is written in.
fn beside(path: &Located<PathBuf>) -> FilePath {
    let directory = path.at.file.parent().unwrap_or(Path::new(""));
    FilePath { path: directory.join(&path.value), at: path.at.clone() }
}
