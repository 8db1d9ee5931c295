//! `/v1/env`: the cluster as a whole, its address, and TLS switched on and off while it serves.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};
use toml_edit::value;
use zeroize::Zeroizing;

use super::answer::{ETag, Object, Precondition, Problem, json, typed};
use super::model::{
    AddressSource, ClusterType, ContainerService, Detail, Environment, EnvironmentKeys, EnvironmentPatch,
    ErrorResponse, GlobalServiceConfiguration, ProvisioningState, Ssl, SslKeys, SslPatch, SslStatus, SystemService,
};
use super::{Admin, settings, state};
use crate::config::{self, CnamePattern, Config, TlsStatus};
use crate::discovery::kubernetes::standing::PublicAddress;
use crate::environment::draft::{Draft, set};
use crate::tls::{Severity, pair};

/// Where nobody is (RFC 5737): asking the system for the way there sends nothing.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// The cluster
#[utoipa::path(get, path = "/v1/env", responses((status = 200, body = Environment, headers(("ETag" = String)))))]
pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    answer(&admin).await
}

/// Changes the cluster
///
/// A certificate and its key come as raw PEM text; they are served when this is answered.
#[utoipa::path(patch, path = "/v1/env", request_body = EnvironmentPatch,
    params(("If-Match" = Option<String>, Header, description = "Only if it is still this one")),
    responses(
        (status = 200, body = Environment, headers(("ETag" = String))),
        (status = 400, body = ErrorResponse),
        (status = 409, body = ErrorResponse, description = "The files are invalid"),
        (status = 412, body = ErrorResponse, description = "It is another one by now"),
))]
pub(super) async fn patch(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Object(fields): Object,
) -> Result<Response, Problem> {
    refuse_unknown(&fields)?;
    let EnvironmentPatch { description, global_service_configuration } = typed(fields)?;
    let global = global_service_configuration.unwrap_or_default();
    let precondition = Precondition::of(&headers)?.or(global.etag);
    let ssl = global.ssl.unwrap_or_default();
    admin
        .change(move |draft| {
            precondition.check(&etag(draft.before(), chain_of(draft.before()).as_deref()))?;
            if let Some(description) = &description {
                set(draft.section("environment")?, "description", Some(value(description.as_str())));
            }
            change_ssl(draft, ssl.clone())
        })
        .await?;
    answer(&admin).await
}

/// What no other answer has: the key of the certificate
#[utoipa::path(post, path = "/v1/env/listKeys", responses(
    (status = 200, body = EnvironmentKeys),
    (status = 500, body = ErrorResponse),
))]
pub(super) async fn list_keys(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    let config = Arc::clone(&admin.config);
    let keys = admin.read(move || {
        let config = config.load_full();
        let first = config.cnames.first();
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| Problem::internal("The certificate could not be read", &error))
        };
        let ssl_configuration = SslKeys {
            status: status(&config),
            cert: first.map(|first| read(&first.cert_pem.path)).transpose()?,
            key: first.map(|first| read(&first.key_pem.path)).transpose()?,
            cname: first.map(|first| first.name.to_string()),
        };
        Ok::<_, Problem>(EnvironmentKeys { ssl_configuration })
    });
    Ok(json(StatusCode::OK, &keys.await??))
}

fn refuse_unknown(fields: &Map<String, Value>) -> Result<(), Problem> {
    let wrong = |error: settings::SettingsError| Problem::bad_request("BadRequest", error.to_string());
    settings::refuse_unknown(fields, &["description", "globalServiceConfiguration"]).map_err(wrong)?;
    let Some(global) = fields.get("globalServiceConfiguration").and_then(Value::as_object) else { return Ok(()) };
    settings::refuse_unknown(global, &["etag", "ssl"]).map_err(wrong)?;
    let Some(ssl) = global.get("ssl").and_then(Value::as_object) else { return Ok(()) };
    settings::refuse_unknown(ssl, &["status", "cert", "key", "cname"]).map_err(wrong)
}

fn change_ssl(draft: &mut Draft, ssl: SslPatch) -> Result<(), Problem> {
    let SslPatch { status, cert, key, cname } = ssl;
    let invalid = |message: &str| Problem::bad_request("InvalidSslSetting", message);
    let cname = cname.map(|cname| {
        cname.parse::<CnamePattern>().map_err(|problem| {
            let is_like_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b" .-_*:/".contains(&byte);
            match cname.len() <= 253 && cname.bytes().all(is_like_a_name) {
                true => Problem::bad_request("InvalidSslSetting", format!("`cname`: {problem}")),
                // It may be a key that was pasted in the wrong place.
                false => invalid("`cname`: expected a DNS name such as \"scoring.example.com\""),
            }
        })
    });
    let cname = cname.transpose()?;
    match (cert, key) {
        (Some(cert), Some(key)) => {
            let key = Zeroizing::new(key);
            let cname = match cname {
                Some(cname) => cname,
                None => only_cname(draft.before())?,
            };
            examine(&cert, &key, &cname)?;
            draft.put_pair(&cname, with_end(&cert).as_bytes(), Zeroizing::new(with_end(&key).as_bytes().to_vec()))?;
        }
        (Some(_), None) => {
            return Err(invalid("Certificate key file must be provided if certificate is provided."));
        }
        (None, Some(_)) => {
            return Err(invalid("Certificate file must be provided if certificate key file is provided."));
        }
        (None, None) => {
            if let Some(cname) = cname {
                if !draft.before().cnames.iter().any(|known| known.name == cname) {
                    let message = format!("There is no certificate for {cname}; send `cert` and `key` with it.");
                    return Err(Problem::bad_request("InvalidSslSetting", message));
                }
                draft.prefer_cname(&cname)?;
            } else if status == Some(SslStatus::Enabled) && draft.before().cnames.is_empty() {
                let message = "There is no certificate that could be served; send `cert`, `key` and `cname` with it.";
                return Err(invalid(message));
            }
        }
    }
    let wanted = status.map(|status| match status {
        SslStatus::Enabled => TlsStatus::Enabled,
        SslStatus::Disabled => TlsStatus::Disabled,
    });
    if let Some(wanted) = wanted.filter(|wanted| *wanted != draft.before().tls.status) {
        draft.set_tls_status(wanted)?;
    }
    Ok(())
}

/// PEM text that was sent without its last line break is not one that was cut off.
fn with_end(text: &str) -> Zeroizing<String> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    Zeroizing::new(format!("{text}{end}"))
}

fn only_cname(config: &Config) -> Result<CnamePattern, Problem> {
    let mut names: Vec<_> = config.cnames.iter().map(|cname| &cname.name).collect();
    names.dedup();
    match names.as_slice() {
        [only] => Ok((*only).clone()),
        [] => {
            let message = "Certificate CNAME must be provided if certificate is provided.";
            Err(Problem::bad_request("InvalidSslSetting", message))
        }
        _ => {
            let names = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            let message = format!("Certificate CNAME must be provided: the cluster has several, {names}.");
            Err(Problem::bad_request("InvalidSslSetting", message))
        }
    }
}

/// As `scorefront check` judges files.
fn examine(cert: &str, key: &str, cname: &CnamePattern) -> Result<(), Problem> {
    let files = pair::Files { chain: Path::new("cert.pem"), key: Path::new("key.pem") };
    let now = SystemTime::now();
    let examined = pair::examine(cert.as_bytes(), key.as_bytes(), files, Some(cname.as_str()), now);
    let mut errors = examined.findings.iter().filter(|finding| finding.severity == Severity::Error).peekable();
    let Some(first) = errors.peek() else { return Ok(()) };
    let field = |part| match part {
        crate::tls::Part::Chain => "cert",
        crate::tls::Part::Key => "key",
    };
    let message = format!("`{}`: {first}. Send raw PEM text.", field(first.part));
    let problem = Problem::bad_request("InvalidSslSetting", message);
    Err(errors.fold(problem, |problem, finding| problem.detail(field(finding.part), finding.to_string())))
}

async fn answer(admin: &Arc<Admin>) -> Result<Response, Problem> {
    let config = admin.config.load_full();
    let chain = {
        let config = Arc::clone(&config);
        let read = tokio::task::spawn_blocking(move || chain_of(&config)).await;
        read.map_err(|error| Problem::internal("The certificate could not be read", &error))?
    };
    let etag = etag(&config, chain.as_deref());
    Ok(etag.on(json(StatusCode::OK, &document(admin, &config, chain, &etag))))
}

/// The chain of the first CNAME, as its file has it.
fn chain_of(config: &Config) -> Option<String> {
    fs::read_to_string(&config.cnames.first()?.cert_pem.path).ok()
}

/// The tag of what is written of everything but services, and of the certificate.
fn etag(config: &Config, chain: Option<&str>) -> ETag {
    ETag::of(&config.written, chain.unwrap_or_default())
}

fn document(admin: &Admin, config: &Config, chain: Option<String>, etag: &ETag) -> Environment {
    let config::Environment { name, resource_group, cluster_type, created_on, description } = &config.environment;
    let name = name.as_ref().map_or_else(|| directory_name(&admin.main), ToString::to_string);
    let (address, source) = admin.public_address(config);
    let standing = admin.reload.standing();
    let errors = standing.status.config.errors.iter();
    let errors = errors.chain(standing.status.certificates.iter().flat_map(|certificate| &certificate.errors));
    let detail = |message: &String| Detail { code: "NotTaken".to_owned(), message: message.clone() };
    let modified = fs::metadata(&admin.main).and_then(|metadata| metadata.modified());
    let is_all_good = standing.status.is_all_good();
    Environment {
        id: std::iter::once(&name)
            .chain(&resource_group.as_ref().map(ToString::to_string))
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("."),
        name,
        resource_group: resource_group.as_ref().map(ToString::to_string),
        description: description.clone(),
        cluster_type: match cluster_type {
            config::ClusterType::Acs => ClusterType::Acs,
            config::ClusterType::Local => ClusterType::Local,
        },
        provisioning_state: if is_all_good { ProvisioningState::Succeeded } else { ProvisioningState::Failed },
        provisioning_errors: errors.map(detail).collect(),
        created_on: created_on.map(state::rfc3339),
        modified_on: state::rfc3339(modified.unwrap_or(SystemTime::UNIX_EPOCH)),
        public_ip_address: address.to_string(),
        public_ip_address_source: source,
        container_service: ContainerService {
            orchestrator_type: "None".to_owned(),
            system_services: vec![SystemService {
                system_service_type: "ScoringFrontEnd".to_owned(),
                public_ip_address: address.to_string(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }],
        },
        global_service_configuration: GlobalServiceConfiguration {
            etag: etag.as_str().to_owned(),
            ssl: Ssl {
                status: status(config),
                cert: chain,
                cname: config.cnames.first().map(|first| first.name.to_string()),
                cnames: names(config),
            },
        },
    }
}

fn status(config: &Config) -> SslStatus {
    match config.tls.status {
        TlsStatus::Enabled => SslStatus::Enabled,
        TlsStatus::Disabled => SslStatus::Disabled,
    }
}

fn names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for cname in &config.cnames {
        let name = cname.name.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Where nothing says how the environment is called, its directory does.
fn directory_name(main: &Path) -> String {
    let main: PathBuf = std::path::absolute(main).unwrap_or_else(|_| main.to_owned());
    let name = main.parent().and_then(Path::file_name);
    name.map_or_else(|| "environment".to_owned(), |name| name.to_string_lossy().into_owned())
}

impl Admin {
    /// The address that callers reach the front end by, and who says so.
    fn public_address(&self, config: &Config) -> (PublicAddress, AddressSource) {
        let listens = self.bound.https.ip();
        if let Some(address) = config.frontend.public_ip_address {
            (PublicAddress::Ip(address), AddressSource::Configuration)
        } else if let Some(address) = self.kubernetes.public_address() {
            (address, AddressSource::LoadBalancer)
        } else if !listens.is_unspecified() {
            (PublicAddress::Ip(listens), AddressSource::Listener)
        } else if let Some(address) = outbound() {
            (PublicAddress::Ip(address), AddressSource::Outbound)
        } else {
            (PublicAddress::Ip(Ipv4Addr::LOCALHOST.into()), AddressSource::Loopback)
        }
    }

    /// Where a service is called, without what is asked of it.
    pub(super) fn service_uri(&self, config: &Config, service: &config::Service) -> String {
        let is_tls = config.tls.status == TlsStatus::Enabled;
        let (scheme, usual, bound, public) = match is_tls {
            true => ("https", 443, Some(self.bound.https.port()), config.frontend.public_https_port),
            false => ("http", 80, self.bound.http.map(|http| http.port()), config.frontend.public_http_port),
        };
        let port = public.or(bound).filter(|port| *port != usual);
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let name = service.name.as_str();
        let host = is_tls.then(|| cname_of(config, service)).flatten().unwrap_or_else(|| {
            match self.public_address(config).0 {
                PublicAddress::Ip(IpAddr::V6(address)) => format!("[{address}]"),
                address => address.to_string(),
            }
        });
        format!("{scheme}://{host}{port}/api/v1/service/{name}")
    }
}

/// The name that the service is called by: the first of its own, or else of all; under a wildcard, one of its own.
fn cname_of(config: &Config, service: &config::Service) -> Option<String> {
    let own = service.cnames.first().or_else(|| config.cnames.first().map(|first| &first.name))?;
    // A label has no dot.
    Some(own.as_str().replacen('*', &service.name.as_str().replace('.', "-"), 1))
}

fn outbound() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_unspecified())
}
