//! Which certificate answers for which name. A finished table never changes; a change is a new table.

use std::collections::HashMap;
use std::sync::Arc;

use super::Certificate;

/// The certificates by CNAME: the exact name first, then a wildcard over its first label, then the default.
#[derive(Debug, Default)]
pub struct CertificateTable {
    /// Keys are lower case, without a trailing dot.
    exact: HashMap<Box<str>, Arc<Certificate>>,
    /// `*.models.example.com` stands here as `models.example.com`.
    wildcard: HashMap<Box<str>, Arc<Certificate>>,
    default: Option<Arc<Certificate>>,
}

impl CertificateTable {
    /// Serves `certificate` for `cname`, an exact name or `*.` and a name; both lower case, without a trailing dot.
    pub fn insert(&mut self, cname: &str, certificate: Arc<Certificate>) {
        match cname.strip_prefix("*.") {
            Some(parent) => self.wildcard.insert(parent.into(), certificate),
            None => self.exact.insert(cname.into(), certificate),
        };
    }

    /// Serves `certificate` to callers that send no name, or one no other certificate is held for.
    pub fn set_default(&mut self, certificate: Arc<Certificate>) {
        self.default = Some(certificate);
    }

    /// The certificate for the name a caller sent; `None` refuses the handshake.
    pub fn find(&self, server_name: Option<&str>) -> Option<&Arc<Certificate>> {
        server_name.and_then(|name| self.find_name(name)).or(self.default.as_ref())
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty()
    }

    /// Every certificate with the CNAME it is served for, the exact names first, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (String, &Arc<Certificate>)> {
        let exact = self.exact.iter().map(|(name, certificate)| (name.to_string(), certificate));
        exact.chain(self.wildcard.iter().map(|(parent, certificate)| (format!("*.{parent}"), certificate)))
    }

    fn find_name(&self, name: &str) -> Option<&Arc<Certificate>> {
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
    use crate::tls::certificate::tests::certificate;

    #[test]
    fn an_exact_name_wins_over_a_wildcard_and_a_wildcard_over_the_default() {
        let mut table = CertificateTable::default();
        let [exact, wildcard, default] = [(); 3].map(|()| certificate(&["a.example.com"]));
        table.insert("a.example.com", Arc::clone(&exact));
        table.insert("*.example.com", Arc::clone(&wildcard));
        table.set_default(Arc::clone(&default));

        let found = |name| table.find(name).map(Arc::as_ptr);
        assert_eq!(found(Some("a.example.com")), Some(Arc::as_ptr(&exact)));
        assert_eq!(found(Some("A.Example.COM.")), Some(Arc::as_ptr(&exact)));
        assert_eq!(found(Some("b.example.com")), Some(Arc::as_ptr(&wildcard)));
        assert_eq!(found(Some("a.b.example.com")), Some(Arc::as_ptr(&default)), "a wildcard stands for one label");
        assert_eq!(found(Some("example.com")), Some(Arc::as_ptr(&default)));
        assert_eq!(found(None), Some(Arc::as_ptr(&default)));
    }

    /// The same choice, by looking at every entry in turn.
    fn naive(entries: &[(String, Arc<Certificate>)], name: &str) -> Option<*const Certificate> {
        let name = name.to_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let matches = |cname: &str| match cname.strip_prefix('*') {
            Some(rest) => name.strip_suffix(rest).is_some_and(|label| !label.contains('.')) && name.len() >= rest.len(),
            None => cname == name,
        };
        let last =
            |wildcard| entries.iter().rev().find(|(cname, _)| cname.starts_with('*') == wildcard && matches(cname));
        last(false).or_else(|| last(true)).map(|(_, certificate)| Arc::as_ptr(certificate))
    }

    proptest! {
        #[test]
        fn the_table_finds_what_a_search_through_all_entries_finds(
            cnames in prop::collection::vec(r"(\*\.)?[ab]{1,2}(\.[ab]{1,2}){0,3}", 0..12),
            name in r"[abAB]{1,2}(\.[abAB]{1,2}){0,4}\.?",
        ) {
            let mut table = CertificateTable::default();
            let entries: Vec<_> = cnames.into_iter().map(|cname| (cname, certificate(&["x.example"]))).collect();
            for (cname, certificate) in &entries {
                table.insert(cname, Arc::clone(certificate));
            }
            prop_assert_eq!(table.find(Some(&name)).map(Arc::as_ptr), naive(&entries, &name));
        }
    }
}
