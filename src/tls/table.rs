//! What holds for which name. A finished table never changes; a change is a new table.

use std::collections::HashMap;
use std::sync::Arc;

use super::Identity;

/// Who we are, by name.
pub type CertificateTable = NameTable<Arc<Identity>>;

/// Something by CNAME: the exact name first, then a wildcard over its first label, then the default.
#[derive(Debug)]
pub struct NameTable<T> {
    /// Keys are lower case, without a trailing dot.
    exact: HashMap<Box<str>, T>,
    /// `*.models.example.com` stands here as `models.example.com`.
    wildcard: HashMap<Box<str>, T>,
    default: Option<T>,
}

/// Why something holds for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// It is the very name.
    Name,
    /// A wildcard stands for it.
    Wildcard,
    /// Nothing else does.
    Default,
}

impl<T> Default for NameTable<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), default: None }
    }
}

impl<T> NameTable<T> {
    /// Puts in what holds for `cname`, an exact name or `*.` and a name; lower case, without a trailing dot.
    pub fn insert(&mut self, cname: &str, value: T) {
        match cname.strip_prefix("*.") {
            Some(parent) => self.wildcard.insert(parent.into(), value),
            None => self.exact.insert(cname.into(), value),
        };
    }

    /// What holds for callers that send no name, or one that nothing else holds for.
    pub fn set_default(&mut self, value: T) {
        self.default = Some(value);
    }

    /// What holds for the name a caller sent.
    pub fn find(&self, name: Option<&str>) -> Option<&T> {
        self.find_by(name).map(|(_, found)| found)
    }

    /// The same, with why it does.
    pub fn find_by(&self, name: Option<&str>) -> Option<(FoundBy, &T)> {
        let by_default = || self.default.as_ref().map(|value| (FoundBy::Default, value));
        name.and_then(|name| self.find_name(name)).or_else(by_default)
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty()
    }

    fn find_name(&self, name: &str) -> Option<(FoundBy, &T)> {
        let name = name.strip_suffix('.').unwrap_or(name);
        // Nearly every caller sends lower case: only the others pay for a copy.
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        let exact = self.exact.get(name).map(|value| (FoundBy::Name, value));
        exact.or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.wildcard.get(parent).map(|value| (FoundBy::Wildcard, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_exact_name_wins_over_a_wildcard_and_a_wildcard_over_the_default() {
        let mut table = NameTable::default();
        table.insert("a.example.com", "exact");
        table.insert("*.example.com", "wildcard");
        table.set_default("default");

        let found = |name| table.find(name).copied();
        assert_eq!(found(Some("a.example.com")), Some("exact"));
        assert_eq!(found(Some("A.Example.COM.")), Some("exact"));
        assert_eq!(found(Some("b.example.com")), Some("wildcard"));
        assert_eq!(found(Some("a.b.example.com")), Some("default"), "a wildcard stands for one label");
        assert_eq!(found(Some("example.com")), Some("default"));
        assert_eq!(found(None), Some("default"));
        let by = |name| table.find_by(name).map(|(by, _)| by);
        assert_eq!(by(Some("a.example.com")), Some(FoundBy::Name));
        assert_eq!(by(Some("b.example.com")), Some(FoundBy::Wildcard));
        assert_eq!(by(Some("example.com")), Some(FoundBy::Default));
    }

    /// The same choice, by looking at every entry in turn.
    fn naive(cnames: &[String], name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let matches = |cname: &str| match cname.strip_prefix('*') {
            Some(rest) => name.strip_suffix(rest).is_some_and(|label| !label.contains('.')) && name.len() >= rest.len(),
            None => cname == name,
        };
        let last = |wildcard| cnames.iter().rposition(|cname| cname.starts_with('*') == wildcard && matches(cname));
        last(false).or_else(|| last(true))
    }

    proptest! {
        #[test]
        fn the_table_finds_what_a_search_through_all_entries_finds(
            cnames in prop::collection::vec(r"(\*\.)?[ab]{1,2}(\.[ab]{1,2}){0,3}", 0..12),
            name in r"[abAB]{1,2}(\.[abAB]{1,2}){0,4}\.?",
        ) {
            let mut table = NameTable::default();
            for (index, cname) in cnames.iter().enumerate() {
                table.insert(cname, index);
            }
            prop_assert_eq!(table.find(Some(&name)).copied(), naive(&cnames, &name));
        }
    }
}
