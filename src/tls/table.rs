//! Who we are under which name. A finished table never changes; a change is a new table.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;

use super::Certificate;

/// What is served for one CNAME.
#[derive(Debug)]
pub struct Identity {
    cname: Box<str>,
    /// The cheapest for us first; at least one.
    certificates: Vec<Arc<Certificate>>,
}

impl Identity {
    /// Serves `certificates` for `cname`, an exact name or `*.` and a name; lower case, without a trailing dot.
    pub fn new(cname: &str, mut certificates: Vec<Arc<Certificate>>) -> Self {
        certificates.sort_by_key(|certificate| certificate.is_rsa());
        Self { cname: cname.into(), certificates }
    }

    /// The name it is configured under.
    pub fn cname(&self) -> &str {
        &self.cname
    }

    pub fn certificates(&self) -> &[Arc<Certificate>] {
        &self.certificates
    }

    /// The chain and key for a caller: the first whose signature it says it can verify.
    pub fn key_for(&self, hello: &ClientHello<'_>) -> Option<&Arc<CertifiedKey>> {
        let mut keys = self.certificates.iter().map(|certificate| certificate.certified());
        keys.find(|certified| certified.key.choose_scheme(hello.signature_schemes()).is_some())
    }

    /// Whether every certificate proves that we are `host`: a lower-case DNS name without trailing dot, or an address.
    pub fn covers(&self, host: &str) -> bool {
        self.certificates.iter().all(|certificate| certificate.covers(host))
    }
}

/// Identities by CNAME: the exact name first, then a wildcard over its first label, then the default.
#[derive(Debug, Default)]
pub struct CertificateTable {
    /// Keys are lower case, without a trailing dot.
    exact: HashMap<Box<str>, Arc<Identity>>,
    /// `*.models.example.com` stands here as `models.example.com`.
    wildcard: HashMap<Box<str>, Arc<Identity>>,
    default: Option<Arc<Identity>>,
}

impl CertificateTable {
    /// Serves `identity` to callers that ask for its CNAME.
    pub fn insert(&mut self, identity: Arc<Identity>) {
        match identity.cname().strip_prefix("*.") {
            Some(parent) => self.wildcard.insert(parent.into(), identity),
            None => self.exact.insert(identity.cname().into(), identity),
        };
    }

    /// Serves `identity` to callers that send no name, or one no other identity is held for.
    pub fn set_default(&mut self, identity: Arc<Identity>) {
        self.default = Some(identity);
    }

    /// Who we are under the name a caller sent; `None` refuses the handshake.
    pub fn find(&self, server_name: Option<&str>) -> Option<&Arc<Identity>> {
        server_name.and_then(|name| self.find_name(name)).or(self.default.as_ref())
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty()
    }

    /// Every identity, the exact names first, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Identity>> {
        self.exact.values().chain(self.wildcard.values())
    }

    fn find_name(&self, name: &str) -> Option<&Arc<Identity>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        // Nearly every caller sends lower case: only the others pay for a copy.
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        self.exact.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.wildcard.get(parent)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(cname: &str) -> Arc<Identity> {
        Arc::new(Identity::new(cname, Vec::new()))
    }

    #[test]
    fn an_exact_name_wins_over_a_wildcard_and_a_wildcard_over_the_default() {
        let mut table = CertificateTable::default();
        table.insert(identity("a.example.com"));
        table.insert(identity("*.example.com"));
        table.set_default(identity("default.example.net"));

        let found = |name| table.find(name).map(|identity| identity.cname());
        assert_eq!(found(Some("a.example.com")), Some("a.example.com"));
        assert_eq!(found(Some("A.Example.COM.")), Some("a.example.com"));
        assert_eq!(found(Some("b.example.com")), Some("*.example.com"));
        assert_eq!(found(Some("a.b.example.com")), Some("default.example.net"), "a wildcard stands for one label");
        assert_eq!(found(Some("example.com")), Some("default.example.net"));
        assert_eq!(found(None), Some("default.example.net"));
    }

    /// The same choice, by looking at every entry in turn.
    fn naive(entries: &[Arc<Identity>], name: &str) -> Option<*const Identity> {
        let name = name.to_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let matches = |cname: &str| match cname.strip_prefix('*') {
            Some(rest) => name.strip_suffix(rest).is_some_and(|label| !label.contains('.')) && name.len() >= rest.len(),
            None => cname == name,
        };
        let last = |wildcard| {
            entries.iter().rev().find(|entry| entry.cname().starts_with('*') == wildcard && matches(entry.cname()))
        };
        last(false).or_else(|| last(true)).map(Arc::as_ptr)
    }

    proptest! {
        #[test]
        fn the_table_finds_what_a_search_through_all_entries_finds(
            cnames in prop::collection::vec(r"(\*\.)?[ab]{1,2}(\.[ab]{1,2}){0,3}", 0..12),
            name in r"[abAB]{1,2}(\.[abAB]{1,2}){0,4}\.?",
        ) {
            let mut table = CertificateTable::default();
            let entries: Vec<_> = cnames.iter().map(|cname| identity(cname)).collect();
            for entry in &entries {
                table.insert(Arc::clone(entry));
            }
            prop_assert_eq!(table.find(Some(&name)).map(Arc::as_ptr), naive(&entries, &name));
        }
    }
}
