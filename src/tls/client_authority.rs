//! Who may connect under a CNAME that asks callers for a certificate (RFC 8446 section 4.3.2).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::facts::date;

/// The authorities whose certificates are taken from callers, and the certificates they revoked.
#[derive(Clone, Debug)]
pub struct ClientAuthority(Arc<dyn ClientCertVerifier>);

/// Why a caller's certificates could not be checked with these authorities.
#[derive(Debug, thiserror::Error)]
pub enum ClientAuthorityError {
    #[error("certificate {0} in the file cannot be an authority: {1}")]
    Authority(usize, rustls::Error),
    #[error("the revocation lists cannot be used: {0}")]
    Verifier(String),
}

/// When the first of `lists` should have been replaced that is not (nextUpdate, RFC 5280 section 5.1.2.5). An old list
/// still keeps out whom it names.
pub fn overdue(lists: &[CertificateRevocationListDer<'_>], now: SystemTime) -> Option<String> {
    let ends = lists.iter().filter_map(|list| {
        let (_, list) = CertificateRevocationList::from_der(list).ok()?;
        let seconds = u64::try_from(list.next_update()?.timestamp()).unwrap_or(0);
        Some(UNIX_EPOCH + Duration::from_secs(seconds)).filter(|next| *next < now)
    });
    ends.min().map(date)
}

impl ClientAuthority {
    /// Takes callers whose certificate leads to one of `authorities` and is in none of `revoked`. With at least one
    /// list, a caller whose issuer has published none in there is refused. A list that is overdue counts as any other.
    ///
    /// # Errors
    ///
    /// See [`ClientAuthorityError`].
    pub fn new(
        provider: Arc<CryptoProvider>,
        authorities: Vec<CertificateDer<'static>>,
        revoked: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, ClientAuthorityError> {
        let mut roots = RootCertStore::empty();
        for (index, authority) in authorities.into_iter().enumerate() {
            roots.add(authority).map_err(|error| ClientAuthorityError::Authority(index + 1, error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .with_crls(revoked)
            .only_check_end_entity_revocation()
            .build()
            .map_err(|error| ClientAuthorityError::Verifier(error.to_string()))?;
        Ok(Self(verifier))
    }

    /// Whether both are one, not only alike.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.0)
    }
}
