//! Who signs: the CAs and JWT keys of a trust domain, from their making to their end.
//!
//! Everything here is pure: no I/O, no clock, no Kubernetes. Time, what is published and what a
//! Secret holds come in as arguments; keys and serial numbers alone are drawn from the operating
//! system's randomness. Who reads and writes the Secret, publishes the bundle and calls
//! [`advance()`] is in the controllers.
//!
//! - [`CertificateAuthority`]: a CA that signs. [`import`]: one that somebody else made.
//! - [`JwtAuthority`]: a key that signs JWT-SVIDs.
//! - [`next_step`]: the state machine of rotation, the same for both. [`Journal`]: both, in the
//!   durable form, with the keys.
//! - [`UpstreamBundle`]: what a server above says. [`CertificateAuthority::of_upstream`]: a CA that it
//!   has signed.
//! - [`Command`]: what people and tools may do to a journal. [`Appended`]: authorities of others.
//! - [`Authority`]: what a signer needs of a journal.
//!
//! The order that makes rotation safe: write the journal, then publish its bundle, then confirm
//! that to [`advance()`]; a CA becomes active only in a journal written after that.

mod advance;
mod appended;
mod certificate_authority;
mod command;
mod downstream;
#[cfg(test)]
mod fixtures;
pub mod import;
mod journal;
mod journal_document;
mod journal_secret;
mod jwt_authority;
mod key;
mod ledger;
mod pod_certificate_times;
mod rotation;
#[cfg(test)]
mod rotation_simulation;
mod sign_error;
mod slots;
mod upstream;

use std::sync::Arc;

pub use advance::{Advance, AdvanceError, AuthoritySettings, Done, advance};
pub use appended::{
    AppendError, Appended, AppendedRoot, MAX_APPENDED_JWT_KEYS, MAX_APPENDED_ROOTS,
};
pub use certificate_authority::{CaCertificates, CertificateAuthority, SignedSvid, SvidRequest};
pub use command::{AuthorityKind, Command, CommandError};
pub use downstream::{DownstreamCaRequest, SignedCa};
pub use import::ImportError;
pub use journal::Journal;
pub use journal_secret::{DOCUMENT, JournalError};
pub use jwt_authority::{JwtAuthority, JwtSignError, JwtSvidRequest, SignedJwtSvid};
pub use key::{KeyError, PrivateKey};
pub use ledger::{
    AuthorityError, AuthorityId, AuthorityOrigin, AuthorityState, Edition, Ledger, Record, Step,
};
pub use pod_certificate_times::{
    BACKDATING, MIN_LIFETIME, PodCertificateTimes, PodCertificateTimesError, pod_certificate_times,
};
pub use rotation::{
    Observed, PROPAGATION, RotationPolicy, next_step, signs_until_left, successor_when_left,
    wants_upstream_ca,
};
pub use sign_error::{SignError, SubjectError};
pub use upstream::{UpstreamBundle, UpstreamBundleError};

use crate::spiffe::{Bundle, BundleError, Fingerprint};

/// What a signer needs: the CA and the JWT key that are active, and the bundle that what they sign
/// verifies to. Immutable; a rotation makes a new one.
#[derive(Clone, Debug)]
pub struct Authority {
    ca: Arc<CertificateAuthority>,
    jwt: Option<Arc<JwtAuthority>>,
    bundle: Arc<Bundle>,
}

impl Authority {
    /// The authority of `journal`, if a CA is active.
    ///
    /// # Errors
    /// When the journal's roots make no bundle.
    pub fn from_journal(journal: &Journal) -> Result<Option<Self>, BundleError> {
        let Some(ca) = journal.active() else {
            return Ok(None);
        };
        Ok(Some(Self {
            ca: Arc::clone(ca),
            jwt: journal.active_jwt().map(Arc::clone),
            bundle: Arc::new(journal.bundle()?),
        }))
    }

    /// The CA that signs.
    #[must_use]
    pub fn ca(&self) -> &CertificateAuthority {
        &self.ca
    }

    /// The key that signs JWT-SVIDs; none for a moment after the first CA, and after an upgrade from
    /// an operator that had no JWT keys.
    #[must_use]
    pub fn jwt(&self) -> Option<&JwtAuthority> {
        self.jwt.as_deref()
    }

    /// Whether both say the same and sign by the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.state() == other.state()
    }

    /// Whether it was made of `journal` or of a later state of that.
    #[must_use]
    pub fn is_as_late_as(&self, journal: &Journal) -> bool {
        let signs = journal.active().map(|ca| ca.certificates().fingerprint());
        let signs_tokens = journal.active_jwt().map(|jwt| jwt.key_id());
        let (sequence, ca, jwt) = self.state();
        sequence > journal.sequence()
            || (sequence == journal.sequence() && Some(ca) == signs && jwt == signs_tokens)
    }

    /// Whether what `before` signs is trusted still: its root and its JWT key are in this bundle, and
    /// not tainted.
    #[must_use]
    pub fn still_trusts(&self, before: &Self) -> bool {
        let root = before.ca.certificates().root();
        let mut roots = self.bundle.x509_authorities().iter();
        let trusts_ca = roots.any(|it| it.certificate() == root && !it.is_tainted());
        let trusts_jwt = before.jwt().is_none_or(|jwt| {
            let mut keys = self.bundle.jwt_keys().iter();
            keys.any(|key| key.key_id == jwt.key_id() && !key.tainted)
        });
        trusts_ca && trusts_jwt
    }

    fn state(&self) -> (u64, &Fingerprint, Option<&str>) {
        (
            self.bundle.sequence(),
            self.ca.certificates().fingerprint(),
            self.jwt().map(JwtAuthority::key_id),
        )
    }

    /// The bundle.
    #[must_use]
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::{NOW, now, trust_domain};
    use super::*;
    use crate::api::{CaKeyType, CaSubject};

    #[test]
    fn what_went_before_is_trusted_while_its_root_is_there_and_not_tainted() {
        let end = jiff::Timestamp::from_second(NOW + 3600).unwrap();
        let ca = || {
            let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
            let subject = CaSubject::default();
            CertificateAuthority::self_signed(&trust_domain(), &subject, key, now(), end).unwrap()
        };
        let (before, after) = (Arc::new(ca()), Arc::new(ca()));
        let root = |ca: &CertificateAuthority| ca.certificates().root().clone();
        let authority = |ca: &Arc<CertificateAuthority>, roots: Vec<_>| {
            let bundle = Bundle::new(trust_domain(), roots, 1).unwrap();
            Authority {
                ca: Arc::clone(ca),
                jwt: None,
                bundle: Arc::new(bundle),
            }
        };
        let old = authority(&before, vec![root(&before)]);
        let mut new = authority(&after, vec![root(&before), root(&after)]);
        assert!(new.still_trusts(&old));
        assert!(!authority(&after, vec![root(&after)]).still_trusts(&old));
        let tainted = root(&before);
        let bundle = Bundle::clone(&new.bundle).with_tainted(|root| *root == tainted);
        new.bundle = Arc::new(bundle);
        assert!(!new.still_trusts(&old));
    }
}
