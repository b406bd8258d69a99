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
