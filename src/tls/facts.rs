//! What is read out of one certificate. Nothing here judges it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// One certificate, as people and checks look at it (RFC 5280).
#[derive(Clone, Debug)]
pub struct Facts {
    pub subject: String,
    pub issuer: String,
    /// DNS names of the subjectAltName, lower case; a wildcard as `*.example.com`.
    pub names: Vec<Box<str>>,
    pub addresses: Vec<IpAddr>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// Hexadecimal, lower case, without colons.
    pub serial: String,
}

impl Facts {
    /// # Errors
    ///
    /// Why it is no certificate.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        let mut facts = Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            names: Vec::new(),
            addresses: Vec::new(),
            not_before: to_system_time(certificate.validity().not_before.timestamp()),
            not_after: to_system_time(certificate.validity().not_after.timestamp()),
            serial: certificate.raw_serial_as_string().replace(':', ""),
        };
        let alternatives = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => facts.names.push(name.to_ascii_lowercase().into()),
                GeneralName::IPAddress(octets) => facts.addresses.extend(to_address(octets)),
                _ => {}
            }
        }
        Ok(facts)
    }
}

fn to_address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// Seconds since 1970; dates before it count as that day.
fn to_system_time(timestamp: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0))
}
