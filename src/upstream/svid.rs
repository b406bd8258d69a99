//! An X.509-SVID of ours that the server above knows us by, with its key. Pure.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::authority::PrivateKey;
use crate::spiffe::{SpiffeId, VerifyError, check_x509_svid};

/// An X.509-SVID with its key.
#[derive(Clone)]
pub(super) struct Svid {
    pub(super) id: SpiffeId,
    /// The leaf, then those above it.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: Arc<PrivateKey>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Svid {
    /// The X.509-SVID in `chain`, of which `key` is the key.
    ///
    /// # Errors
    /// When the first of `chain` is none for that key.
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: Arc<PrivateKey>,
    ) -> Result<Self, VerifyError> {
        let Some(leaf) = chain.first() else {
            return Err(VerifyError::EmptyChain);
        };
        let id = check_x509_svid(leaf)?;
        let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
            return Err(VerifyError::Malformed);
        };
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| VerifyError::Malformed);
        let validity = parsed.validity();
        if parsed.public_key().raw != key.public_key().spki() {
            return Err(VerifyError::Malformed);
        }
        Ok(Self {
            id,
            not_before: time(validity.not_before.timestamp())?,
            not_after: time(validity.not_after.timestamp())?,
            chain,
            key,
        })
    }

    /// Whether it can be shown at `now`.
    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        now < self.not_after
    }

    /// Whether half of its life is over, and so another one is due.
    pub(super) fn is_half_over(&self, now: Timestamp) -> bool {
        let half = self.not_before.duration_until(self.not_after) / 2;
        now.duration_until(self.not_after) < half
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
