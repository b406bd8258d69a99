//! What a server above gives: its bundle, and CAs under its own.
//!
//! The bundle of a server above is that of the whole trust domain, and ours follows it. A root that
//! it drops stays until it ends, unless it was tainted before: then it was revoked, and goes (SPIRE,
//! `pkg/server/ca/manager`). Everything is bounded: the bundle goes to every agent, and the Secret
//! that keeps it holds a megabyte.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::{
    AppendedRoot, CertificateAuthority, ImportError, PrivateKey, rotation::is_to_be_pruned,
};
use crate::spiffe::{
    Bundle, CaCertificate, CaCertificateError, Fingerprint, JwtKey, TrustDomainName,
    is_trust_anchor,
};

/// Most roots that a server above may have.
const MAX_ROOTS: usize = 64;
/// Most JWT keys that it may have.
const MAX_JWT_KEYS: usize = 512;
/// Longest certificate, in bytes.
const MAX_ROOT_LENGTH: usize = 4096;
/// Most certificates in the chain of a CA.
const MAX_CHAIN: usize = 8;
/// Longest ID of a JWT key, in bytes.
const MAX_KEY_ID_LENGTH: usize = 128;

/// The bundle of a server above, as far as it counts here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamBundle {
    roots: Vec<(AppendedRoot, Timestamp)>,
    jwt_keys: Vec<JwtKey>,
    changes: u64,
}

/// Why the bundle of a server above is not followed. The one before stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamBundleError {
    /// It would take all trust away.
    #[error("the bundle of the server above has no roots")]
    Empty,
    /// A root that is none.
    #[error("a root of the server above cannot be used: {source}")]
    Root {
        /// What is wrong with it.
        source: CaCertificateError,
    },
    /// A root that no verifier here could take.
    #[error("a root of the server above cannot be a trust anchor")]
    RootForm,
    /// A part of too many bytes.
    #[error("a root or the ID of a JWT key of the server above is too long")]
    TooLong,
    /// Too many.
    #[error(
        "the bundle of the server above has {roots} roots and {jwt_keys} JWT keys; {MAX_ROOTS} and \
         {MAX_JWT_KEYS} are allowed"
    )]
    TooMany {
        /// How many roots it has.
        roots: usize,
        /// How many JWT keys it has.
        jwt_keys: usize,
    },
}

impl UpstreamBundle {
    /// What was read from a journal.
    ///
    /// # Errors
    /// When a root is none.
    pub(super) fn read(
        roots: impl IntoIterator<Item = AppendedRoot>,
        jwt_keys: Vec<JwtKey>,
    ) -> Result<Self, CaCertificateError> {
        let with_end = |root: AppendedRoot| {
            let not_after = CaCertificate::parse(root.certificate.clone())?.not_after();
            Ok((root, not_after))
        };
        Ok(Self {
            roots: roots.into_iter().map(with_end).collect::<Result<_, _>>()?,
            jwt_keys,
            changes: 0,
        })
    }

    /// The roots, oldest first.
    pub fn roots(&self) -> impl Iterator<Item = &AppendedRoot> {
        self.roots.iter().map(|(root, _)| root)
    }

    /// The JWT keys, oldest first.
    #[must_use]
    pub fn jwt_keys(&self) -> &[JwtKey] {
        &self.jwt_keys
    }

    /// How often it has changed since it was read.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether it vouches for this root.
    pub(super) fn trusts(&self, root: &Fingerprint) -> bool {
        self.roots()
            .any(|known| !known.tainted && Fingerprint::of(&known.certificate) == *root)
    }

    /// What it is once the server above has `bundle`.
    ///
    /// # Errors
    /// When that cannot be followed.
    pub(super) fn following(
        mut self,
        bundle: &Bundle,
        now: Timestamp,
    ) -> Result<Self, UpstreamBundleError> {
        let (roots, jwt_keys) = (bundle.x509_authorities(), bundle.jwt_keys());
        if roots.is_empty() {
            return Err(UpstreamBundleError::Empty);
        }
        if roots.len() > MAX_ROOTS || jwt_keys.len() > MAX_JWT_KEYS {
            let (roots, jwt_keys) = (roots.len(), jwt_keys.len());
            return Err(UpstreamBundleError::TooMany { roots, jwt_keys });
        }
        if jwt_keys
            .iter()
            .any(|key| key.key_id.len() > MAX_KEY_ID_LENGTH)
        {
            return Err(UpstreamBundleError::TooLong);
        }
        let mut told = Vec::new();
        for root in roots {
            let not_after = check_root(root.certificate())?;
            let root = AppendedRoot {
                certificate: root.certificate().clone(),
                tainted: root.is_tainted(),
            };
            told.push((root, not_after));
        }
        let is_told = |known: &AppendedRoot| {
            told.iter()
                .any(|(root, _)| root.certificate == known.certificate)
        };
        let is_kept = |(root, not_after): &&(AppendedRoot, Timestamp)| {
            !root.tainted && now < *not_after && !is_told(root)
        };
        let mut followed: Vec<_> = self.roots.iter().filter(is_kept).cloned().collect();
        let too_many = followed.len().saturating_sub(MAX_ROOTS);
        followed.drain(..too_many);
        followed.extend(told);
        if self.roots != followed || self.jwt_keys != jwt_keys {
            self.roots = followed;
            self.jwt_keys = jwt_keys.to_vec();
            self.changes += 1;
        }
        Ok(self)
    }

    /// Without what ended a day ago, and how much that was.
    pub(super) fn pruned(mut self, now: Timestamp) -> (Self, usize) {
        let count = |it: &Self| it.roots.len() + it.jwt_keys.len();
        let before = count(&self);
        self.roots
            .retain(|(_, not_after)| !is_to_be_pruned(*not_after, now));
        self.jwt_keys.retain(|key| {
            let expires_at = key.expires_at;
            !expires_at.is_some_and(|end| is_to_be_pruned(end, now))
        });
        let gone = before - count(&self);
        if gone > 0 {
            self.changes += 1;
        }
        (self, gone)
    }

    /// Nothing, for a trust domain that has no server above any more, and how much it was.
    pub(super) fn forgotten(self) -> (Self, usize) {
        let gone = self.roots.len() + self.jwt_keys.len();
        let forgotten = Self {
            roots: Vec::new(),
            jwt_keys: Vec::new(),
            changes: self.changes + u64::from(gone > 0),
        };
        (forgotten, gone)
    }
}

fn check_root(certificate: &CertificateDer<'static>) -> Result<Timestamp, UpstreamBundleError> {
    if certificate.len() > MAX_ROOT_LENGTH {
        return Err(UpstreamBundleError::TooLong);
    }
    let parsed = CaCertificate::parse(certificate.clone())
        .map_err(|source| UpstreamBundleError::Root { source })?;
    if !is_trust_anchor(certificate) {
        return Err(UpstreamBundleError::RootForm);
    }
    Ok(parsed.not_after())
}

impl CertificateAuthority {
    /// The CA of `key` that a server above has signed: `chain` are its certificate and then those
    /// above, up to but excluding the root, which is one of `roots`.
    ///
    /// # Errors
    /// When that is no CA that can sign for `trust_domain` at `now`.
    pub fn of_upstream(
        key: PrivateKey,
        chain: &[CertificateDer<'static>],
        roots: &[CertificateDer<'static>],
        trust_domain: &TrustDomainName,
        now: Timestamp,
    ) -> Result<Self, ImportError> {
        if chain.len() > MAX_CHAIN {
            return Err(ImportError::PathLength {
                allowed: u32::try_from(MAX_CHAIN).unwrap_or(u32::MAX),
                count: u32::try_from(chain.len()).unwrap_or(u32::MAX),
            });
        }
        let Some((certificate, above)) = chain.split_first() else {
            return Err(ImportError::Certificate {
                source: CaCertificateError::Malformed,
            });
        };
        let others = above.iter().chain(roots).cloned().collect();
        Self::assemble(certificate.clone(), key, others, trust_domain, now)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        api::{CaKeyType, CaSubject, JwtKeyType},
        authority::{
            DownstreamCaRequest, Journal, JwtAuthority,
            fixtures::{ca_params, now, root, trust_domain},
        },
    };

    fn later(hours: i64) -> Timestamp {
        now() + SignedDuration::from_hours(hours)
    }

    fn parent(hours: i64) -> CertificateAuthority {
        let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
        let subject = CaSubject::default();
        CertificateAuthority::self_signed(&trust_domain(), &subject, key, now(), later(hours))
            .unwrap()
    }

    fn root_of(ca: &CertificateAuthority) -> CertificateDer<'static> {
        ca.certificates().root().clone()
    }

    fn bundle(roots: &[&CertificateAuthority], tainted: &[&CertificateAuthority]) -> Bundle {
        let tainted: Vec<_> = tainted.iter().map(|ca| root_of(ca)).collect();
        let roots = roots.iter().map(|ca| root_of(ca));
        let bundle = Bundle::new(trust_domain(), roots, 7).unwrap();
        bundle.with_tainted(|root| tainted.contains(root))
    }

    fn jwt_key(name: &str) -> JwtKey {
        let authority = JwtAuthority::generate(JwtKeyType::EcP256, later(24)).unwrap();
        JwtKey {
            key_id: name.into(),
            public_key: authority.key().public_key().clone(),
            expires_at: Some(later(24)),
            tainted: false,
        }
    }

    fn shown(journal: &Journal) -> Vec<(CertificateDer<'static>, bool)> {
        let bundle = journal.bundle().unwrap();
        let roots = bundle.x509_authorities().iter();
        roots
            .map(|root| (root.certificate().clone(), root.is_tainted()))
            .collect()
    }

    fn restarted(journal: &Journal) -> Journal {
        Journal::from_secret_data(&trust_domain(), &journal.to_secret_data().unwrap()).unwrap()
    }

    #[test]
    fn a_root_is_as_it_is_above_and_goes_when_it_was_tainted() {
        let (a, b, c) = (parent(24), parent(48), parent(72));
        let follow = |journal: &Journal, bundle: &Bundle, at| {
            let followed = journal.following(bundle, at).unwrap();
            restarted(&followed.expect("news"))
        };
        let journal = Journal::new(trust_domain());
        let journal = follow(&journal, &bundle(&[&a, &b], &[]), now());
        let both = [(root_of(&a), false), (root_of(&b), false)];
        assert_eq!(shown(&journal), both);
        let again = journal.following(&bundle(&[&a, &b], &[]), now()).unwrap();
        assert!(again.is_none(), "no news");
        // One that is gone without having been tainted stays until its end.
        let gone = bundle(&[&b], &[]);
        assert!(journal.following(&gone, now()).unwrap().is_none());
        let ended = follow(&journal, &gone, later(25));
        assert_eq!(shown(&ended), [(root_of(&b), false)]);
        let sequence = journal.sequence();
        let journal = follow(&journal, &bundle(&[&a, &b, &c], &[&a]), now());
        assert_eq!(shown(&journal)[0], (root_of(&a), true));
        assert!(journal.sequence() > sequence);
        let journal = follow(&journal, &bundle(&[&b, &c], &[]), now());
        let left = [(root_of(&b), false), (root_of(&c), false)];
        assert_eq!(shown(&journal), left);
    }

    #[test]
    fn a_bundle_that_cannot_be_followed_changes_nothing() {
        let a = parent(24);
        let journal = Journal::new(trust_domain());
        let many: Vec<_> = (0..=MAX_JWT_KEYS)
            .map(|n| JwtKey {
                key_id: n.to_string(),
                ..jwt_key("")
            })
            .collect();
        let long = jwt_key(&"a".repeat(MAX_KEY_ID_LENGTH + 1));
        let leaf = root(rcgen::CertificateParams::default());
        let leaf = Bundle::new(trust_domain(), [leaf.der().clone()], 0).unwrap();
        for (bundle, error) in [
            (bundle(&[], &[]), UpstreamBundleError::Empty),
            (
                bundle(&[&a], &[]).with_jwt_keys(many),
                UpstreamBundleError::TooMany {
                    roots: 1,
                    jwt_keys: MAX_JWT_KEYS + 1,
                },
            ),
            (
                bundle(&[&a], &[]).with_jwt_keys([long]),
                UpstreamBundleError::TooLong,
            ),
            (
                leaf,
                UpstreamBundleError::Root {
                    source: CaCertificateError::NotCa,
                },
            ),
        ] {
            assert_eq!(journal.following(&bundle, now()).unwrap_err(), error);
        }
    }

    #[test]
    fn jwt_keys_are_told_once() {
        let a = parent(24);
        let theirs = jwt_key("theirs");
        let journal = Journal::new(trust_domain());
        let own = JwtAuthority::generate(JwtKeyType::EcP256, later(24)).unwrap();
        let id = own.key_id().to_owned();
        let journal = journal.with_prepared_jwt(std::sync::Arc::new(own), now());
        let told = journal.jwt_keys_for_upstream(now());
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].key_id, id);
        assert!(
            journal.jwt_keys_for_upstream(later(24)).is_empty(),
            "it has ended"
        );
        let above = bundle(&[&a], &[]).with_jwt_keys([theirs, told[0].clone()]);
        let journal = restarted(&journal.following(&above, now()).unwrap().unwrap());
        assert!(journal.jwt_keys_for_upstream(now()).is_empty());
        let keys = journal.bundle().unwrap();
        let keys: Vec<_> = keys.jwt_keys().iter().map(|key| &*key.key_id).collect();
        assert_eq!(keys, [&*id, "theirs"]);
        assert_eq!(journal.jwt_key_count(), 2);
        let (journal, gone) = journal.without_upstream();
        assert_eq!((gone, journal.jwt_key_count()), (3, 1));
    }

    #[test]
    fn a_ca_of_a_server_above_must_be_one() {
        let above = parent(48);
        let sign = |key: &PrivateKey| {
            let signed = above.sign_downstream_ca(&DownstreamCaRequest {
                trust_domain: &trust_domain(),
                public_key: key.public_key(),
                not_before: now(),
                not_after: later(24),
            });
            signed.unwrap().chain
        };
        let new_key = || PrivateKey::generate(CaKeyType::EcP256).unwrap();
        let take = |key, chain: &[CertificateDer<'static>], roots: &[CertificateDer<'static>]| {
            CertificateAuthority::of_upstream(key, chain, roots, &trust_domain(), now())
        };
        let key = new_key();
        let chain = sign(&key);
        let roots = [root_of(&parent(24)), root_of(&above)];
        let ca = take(key, &chain, &roots).unwrap();
        assert_eq!(ca.not_after(), later(24));
        assert_eq!(*ca.certificates().root(), roots[1]);
        let refused = take(new_key(), &chain, &roots).unwrap_err();
        assert_eq!(refused, ImportError::KeyMismatch);
        let key = new_key();
        let chain = sign(&key);
        let refused = take(key, &chain, &roots[..1]).unwrap_err();
        assert_eq!(refused.reason(), "InvalidChain");
        assert_eq!(
            take(new_key(), &[], &roots).unwrap_err().reason(),
            "InvalidCertificate"
        );
        let long = vec![root(ca_params("a")).der().clone(); MAX_CHAIN + 1];
        assert_eq!(
            take(new_key(), &long, &roots).unwrap_err().reason(),
            "InvalidChain"
        );
    }
}
