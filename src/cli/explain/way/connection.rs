//! The first part of the way: which listener, whose certificate, and whether calls are taken over it at all.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;

use super::{Ended, Way, time};
use crate::cli::explain::report;
use crate::config::{HttpWhenTls, TlsStatus, TlsVersion};
use crate::scoring::explain::{Found, Station};
use crate::tls::{FoundBy, Handshake, HandshakeError, Identity, Protocol, identify};

impl Way<'_> {
    pub(super) fn listener(&mut self) -> Result<(), Ended> {
        let frontend = &self.config.frontend;
        let (https, http, port) = (frontend.https, frontend.http, self.call.port);
        let is_on = |address: std::net::SocketAddr| address.port() == port;
        let (key, address, public, other) = if self.call.is_tls {
            ("https", Some(https), frontend.public_https_port, http)
        } else {
            ("http", http, frontend.public_http_port, Some(https))
        };
        let Some(address) = address else {
            let says = vec!["plain HTTP, by the URL's scheme".to_owned()];
            let message = "nothing listens for plain HTTP: [frontend] has no `http`".to_owned();
            return Err(self.cut("listener", says, message));
        };
        let listens = format!("[frontend] {key} = \"{address}\"");
        let is_elsewhere = |called: &IpAddr| !address.ip().is_unspecified() && *called != address.ip();
        let called = self.call.host.parse().ok().filter(is_elsewhere);
        let says = if is_on(address) || public == Some(port) {
            let by = if is_on(address) { String::new() } else { format!(", which public_{key}_port says leads to") };
            let leads =
                called.map(|called| format!("something before the front end has to lead from {called} to there"));
            std::iter::once(format!("port {port}{by}: {listens}")).chain(leads).collect()
        } else if other.is_some_and(is_on) {
            let is_not = if self.call.is_tls { "speaks plain HTTP" } else { "speaks TLS" };
            let message = format!("port {port} {is_not}: the connection fails; {listens}");
            return Err(self.cut("listener", Vec::new(), message));
        } else if address.port() == 0 {
            vec![format!("port {port}, if it is the free one that was taken at the start: {listens}")]
        } else {
            vec![
                listens,
                format!("port {port} is another one: something before the front end has to lead from there to here"),
            ]
        };
        self.say("listener", says);
        Ok(())
    }

    /// Who the front end is to this caller.
    pub(super) fn handshake(&mut self) -> Result<Handshake, Ended> {
        let name = self.call.server_name.clone();
        let table = self.environment.table();
        let asked = name.as_ref().map_or("no name (SNI): clients send none for an address".to_owned(), |name| {
            format!("the caller asks for {name} (SNI)")
        });
        let (by, identity) = match identify(&table, name.as_deref()) {
            Ok((by, identity)) => (by, Arc::clone(identity)),
            Err(error) => {
                let says = vec![asked, self.why_none(&error)];
                return Err(self.cut("certificate", says, format!("TLS alert unrecognized_name: {error}")));
            }
        };
        let cname = identity.cname();
        let (found_by, why) = match by {
            FoundBy::Name => ("name", "the [[cname]] of that name".to_owned()),
            FoundBy::Wildcard => ("wildcard", format!("the [[cname]] {cname} stands for it")),
            FoundBy::Default => ("default", format!("no [[cname]] is for that; default_cname is {cname}")),
        };
        let mut says = vec![asked, why];
        says.extend(self.certificates(&identity));
        if identity.asks_for_certificate() {
            says.push(
                "the caller has to show a certificate (client_ca_pem); this goes on as with a good one".to_owned(),
            );
        }
        if !identity.covers(&self.call.host) {
            says.push(format!("callers that verify it leave here: it is not for {}", self.call.host));
        }
        self.report.certificate = Some(report::Certificate {
            cname: cname.to_owned(),
            found_by,
            names: identity.certificates().iter().flat_map(|one| one.names()).map(ToString::to_string).collect(),
            not_after: identity.certificates().iter().map(|one| time(one.not_after())).min().unwrap_or_default(),
            asks_callers: identity.asks_for_certificate(),
        });
        self.say("certificate", says);
        let caller = identity.asks_for_certificate().then(|| CertificateDer::from(Vec::new()));
        Ok(Handshake {
            server_name: name.map(String::into_boxed_str),
            identity,
            protocol: Protocol::Http1,
            version: ProtocolVersion::TLSv1_3,
            resumed: false,
            caller,
        })
    }

    fn why_none(&self, error: &HandshakeError) -> String {
        let name = self.call.server_name.as_deref().unwrap_or_default();
        let configured = self.config.cnames.iter().find(|cname| cname.name.matches(name));
        match (configured, error) {
            (Some(cname), _) => {
                format!(
                    "its files cannot be served, `scorefront check` says why: [[cname]] {} ({})",
                    cname.name, cname.at
                )
            }
            (None, HandshakeError::NoCertificates) => "there is no certificate at all".to_owned(),
            (None, _) => "no [[cname]] is for that, and there is no default_cname".to_owned(),
        }
    }

    fn certificates(&self, identity: &Identity) -> Vec<String> {
        let now = SystemTime::now();
        let versions = match self.config.tls.min_version {
            TlsVersion::V1_2 => "TLS 1.2 or 1.3",
            TlsVersion::V1_3 => "TLS 1.3",
        };
        let one = |certificate: &Arc<crate::tls::Certificate>| {
            let kind = if certificate.is_rsa() { "RSA" } else { "ECDSA" };
            let end = time(certificate.not_after());
            let until = if certificate.not_after() < now {
                format!("EXPIRED {end}: callers that verify it leave here")
            } else if certificate.not_before() > now {
                let begin = time(certificate.not_before());
                format!("NOT VALID before {begin}: callers that verify it leave here; until {end}")
            } else {
                format!("until {end}")
            };
            let names: Vec<_> = certificate.names().iter().map(ToString::to_string).collect();
            format!("{kind} certificate for {}, {until}; {versions}", names.join(", "))
        };
        identity.certificates().iter().map(one).collect()
    }

    pub(super) fn transport(&mut self, found: &Found) -> Result<(), Ended> {
        if self.call.is_tls {
            return Ok(());
        }
        let says = match (self.config.tls.status, self.config.frontend.http_when_tls) {
            (TlsStatus::Disabled, _) if found.refusal.as_ref().is_some_and(|(at, _)| *at == Station::Transport) => {
                "TLS is Disabled, but callers of this name have to show a certificate (client_ca_pem)"
            }
            (TlsStatus::Disabled, _) => "TLS is Disabled: calls are taken over plain HTTP",
            (TlsStatus::Enabled, HttpWhenTls::Refuse) => "TLS is Enabled, and http_when_tls = \"refuse\"",
            (TlsStatus::Enabled, HttpWhenTls::Redirect) => "TLS is Enabled, and http_when_tls = \"redirect\"",
        };
        self.pass("transport", &[Station::Transport], found, vec![says.to_owned()])
    }
}
