//! From what is held to what is served: one identity a name. An identity that stays the same is kept, with what it
//! counted and whatever callers hold of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::ProtocolVersion;

use crate::config::CnamePattern;
use crate::tls::client_authority::ClientAuthority;
use crate::tls::{Certificate, CertificateTable, Identity, Settings};

/// Who we are, by name.
#[derive(Debug, Default)]
pub struct Identities(BTreeMap<CnamePattern, (Parts, Arc<Identity>)>);

/// What an identity is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    pub certificates: Vec<Arc<Certificate>>,
    pub callers: Option<ClientAuthority>,
}

impl Parts {
    fn is_same(&self, other: &Self) -> bool {
        let same_certificates = self.certificates.len() == other.certificates.len()
            && self.certificates.iter().zip(&other.certificates).all(|(one, other)| Arc::ptr_eq(one, other));
        let same_callers = match (&self.callers, &other.callers) {
            (Some(one), Some(other)) => one.is_same(other),
            (None, None) => true,
            _ => false,
        };
        same_certificates && same_callers
    }
}

impl Identities {
    /// The identities for `wanted`, as few of them new as can be.
    ///
    /// # Errors
    ///
    /// The cryptographic library lacks what the settings ask for.
    pub fn change_to(
        &mut self,
        wanted: BTreeMap<CnamePattern, Parts>,
        settings: &Settings,
        before: ProtocolVersion,
    ) -> Result<(), rustls::Error> {
        let same_settings = settings.oldest() == before;
        let mut identities = BTreeMap::new();
        for (cname, parts) in wanted {
            let known = self.0.get(&cname);
            let identity = match known {
                Some((known, identity)) if same_settings && known.is_same(&parts) => Arc::clone(identity),
                known => {
                    let certificates = parts.certificates.clone();
                    let new = Identity::new(cname.as_str(), certificates, parts.callers.as_ref(), settings)?;
                    Arc::new(match known {
                        Some((_, identity)) => new.continuing(identity),
                        None => new,
                    })
                }
            };
            identities.insert(cname, (parts, identity));
        }
        self.0 = identities;
        Ok(())
    }

    pub fn get(&self, cname: &CnamePattern) -> Option<&Arc<Identity>> {
        self.0.get(cname).map(|(_, identity)| identity)
    }

    /// All of them, to be looked up by the name that callers send.
    pub fn table(&self, default: Option<&CnamePattern>) -> CertificateTable {
        let mut table = CertificateTable::default();
        for (cname, (_, identity)) in &self.0 {
            table.insert(cname.as_str(), Arc::clone(identity));
        }
        if let Some(identity) = default.and_then(|default| self.get(default)) {
            table.set_default(Arc::clone(identity));
        }
        table
    }
}
