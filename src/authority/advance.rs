//! Taking a journal forward: the steps that are due, carried out.

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    AuthorityId, AuthorityOrigin, CertificateAuthority, Journal, JwtAuthority, KeyError, Observed,
    PrivateKey, RotationPolicy, SignError, Step, next_step,
};
use crate::{
    api::{CaKeyType, CaSubject, JwtKeyType},
    spiffe::Fingerprint,
};

/// How far a CA's certificate starts in the past (SPIRE).
const CA_BACKDATING: SignedDuration = SignedDuration::from_secs(10);

/// What a TrustDomain wants its CAs to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthoritySettings {
    /// Where they come from, and how long a new one waits.
    pub policy: RotationPolicy,
    /// Key type of CAs that we make.
    pub key_type: CaKeyType,
    /// Lifetime of CAs that we make, and of JWT keys.
    pub ca_ttl: SignedDuration,
    /// Subject of CAs that we make.
    pub subject: CaSubject,
    /// Key type of JWT keys.
    pub jwt_key_type: JwtKeyType,
}

/// A journal that has gone forward, to be written in place of the one that it came from. Only when
/// that write has succeeded may the bundle be published.
#[derive(Clone, Debug)]
pub struct Advance {
    /// The new journal.
    pub journal: Journal,
    /// What was done, for events; at least one thing.
    pub done: Vec<Done>,
}

/// A step, and of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Of the CAs.
    Ca(Step),
    /// Of the JWT keys.
    JwtKey {
        /// The key.
        id: AuthorityId,
        /// The step.
        step: Step,
    },
    /// So many authorities of others have expired, or are those of a former server above, and leave
    /// the bundle.
    Pruned(usize),
}

/// Takes `journal`, which is what is stored, as far as it can go at `now`: until nothing is due, or
/// a new authority waits to be published. `published` are the fingerprints of the roots in the
/// bundle that was last confirmed, `candidate` the CA imported from the Secret that the TrustDomain
/// names, or the one that the server above has signed. A JWT key counts as published once it is stored: the bundle that carries it is served from
/// there by every replica.
///
/// None if nothing is due.
///
/// # Errors
/// When an authority cannot be made. `journal` is as good as before.
pub fn advance(
    journal: &Journal,
    settings: &AuthoritySettings,
    published: &BTreeSet<Fingerprint>,
    candidate: Option<&Arc<CertificateAuthority>>,
    now: Timestamp,
) -> Result<Option<Advance>, AdvanceError> {
    let mut advance = Advance {
        journal: journal.clone(),
        done: Vec::new(),
    };
    advance.cas(settings, published, candidate, now)?;
    // A trust domain begins with its first CA.
    if advance.journal.edition().is_some() {
        advance.jwt_keys(settings, now)?;
    }
    let (journal, gone) = advance.journal.pruned(now);
    let (journal, forgotten) = match settings.policy.origin {
        AuthorityOrigin::Upstream => (journal, 0),
        AuthorityOrigin::SelfSigned | AuthorityOrigin::Imported => journal.without_upstream(),
    };
    advance.journal = journal;
    let gone = gone + forgotten;
    if gone > 0 {
        advance.done.push(Done::Pruned(gone));
    }
    Ok((!advance.done.is_empty()).then_some(advance))
}

impl Advance {
    fn cas(
        &mut self,
        settings: &AuthoritySettings,
        published: &BTreeSet<Fingerprint>,
        candidate: Option<&Arc<CertificateAuthority>>,
        now: Timestamp,
    ) -> Result<(), AdvanceError> {
        let distrusted = self.journal.distrusted_roots();
        let observed = Observed {
            now,
            published,
            candidate: candidate.map(|ca| {
                let certificates = ca.certificates();
                (certificates.fingerprint(), certificates.not_after())
            }),
            distrusted: &distrusted,
        };
        while let Some(step) = next_step(self.journal.ledger(), &settings.policy, &observed) {
            let journal = self.journal.clone();
            let ca = match (&step, candidate) {
                (Step::Generate, _) => Some(Arc::new(new_ca(&journal, settings, now)?)),
                (Step::Import { .. }, Some(ca)) => Some(Arc::clone(ca)),
                _ => None,
            };
            let is_prepared = ca.is_some();
            self.journal = match ca {
                Some(ca) => journal.with_prepared(ca, settings.policy.origin, now),
                None => journal.after(&step, now),
            };
            self.done.push(Done::Ca(step));
            if is_prepared {
                break;
            }
        }
        Ok(())
    }

    fn jwt_keys(
        &mut self,
        settings: &AuthoritySettings,
        now: Timestamp,
    ) -> Result<(), AdvanceError> {
        let policy = RotationPolicy {
            origin: AuthorityOrigin::SelfSigned,
            ..settings.policy
        };
        let published = self.published_jwt_keys(settings);
        let observed = Observed {
            now,
            published: &published,
            candidate: None,
            distrusted: &BTreeSet::new(),
        };
        while let Some(step) = next_step(self.journal.jwt_ledger(), &policy, &observed) {
            let journal = self.journal.clone();
            if step == Step::Generate {
                let authority = new_jwt_authority(settings, now)?;
                let id = authority.key_id().into();
                self.journal = journal.with_prepared_jwt(Arc::new(authority), now);
                self.done.push(Done::JwtKey { id, step });
                break;
            }
            if let Some(record) = step
                .fingerprint()
                .and_then(|it| journal.jwt_ledger().find(it))
            {
                let id = record.id.clone();
                let step = step.clone();
                self.done.push(Done::JwtKey { id, step });
            }
            self.journal = journal.after_jwt(&step, now);
        }
        Ok(())
    }
}

impl Advance {
    /// A key is published by being stored, and where there is a server above by being in its bundle,
    /// too: servers beside ours know it from there.
    fn published_jwt_keys(&self, settings: &AuthoritySettings) -> BTreeSet<Fingerprint> {
        let above = self.journal.upstream().jwt_keys();
        let is_above = |id: &str| above.iter().any(|key| key.key_id == id);
        let stored = self.journal.jwt_ledger().records().iter();
        let published = stored.filter(|record| {
            settings.policy.origin != AuthorityOrigin::Upstream || is_above(record.id.as_str())
        });
        published.map(|record| record.fingerprint.clone()).collect()
    }
}

/// Why a journal cannot go forward.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvanceError {
    /// No new key.
    #[error("making a key for a new authority: {source}")]
    GenerateKey {
        /// Why.
        source: KeyError,
    },
    /// The lifetime reaches out of what a certificate can say.
    #[error("an authority that lives for {ca_ttl:#} would end too far in the future")]
    Lifetime {
        /// What was asked for.
        ca_ttl: SignedDuration,
    },
    /// No certificate for the new key.
    #[error("making the certificate of a new CA: {source}")]
    SelfSign {
        /// Why.
        source: SignError,
    },
}

pub(super) fn new_ca(
    journal: &Journal,
    settings: &AuthoritySettings,
    now: Timestamp,
) -> Result<CertificateAuthority, AdvanceError> {
    let key = PrivateKey::generate(settings.key_type)
        .map_err(|source| AdvanceError::GenerateKey { source })?;
    CertificateAuthority::self_signed(
        journal.trust_domain(),
        &settings.subject,
        key,
        now.saturating_sub(CA_BACKDATING).unwrap_or(now),
        end_of_life(settings, now)?,
    )
    .map_err(|source| AdvanceError::SelfSign { source })
}

pub(super) fn new_jwt_authority(
    settings: &AuthoritySettings,
    now: Timestamp,
) -> Result<JwtAuthority, AdvanceError> {
    JwtAuthority::generate(settings.jwt_key_type, end_of_life(settings, now)?)
        .map_err(|source| AdvanceError::GenerateKey { source })
}

fn end_of_life(settings: &AuthoritySettings, now: Timestamp) -> Result<Timestamp, AdvanceError> {
    let ca_ttl = settings.ca_ttl;
    now.checked_add(ca_ttl)
        .map_err(|_| AdvanceError::Lifetime { ca_ttl })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{
        PROPAGATION,
        fixtures::{now, trust_domain},
    };

    fn first(settings: &AuthoritySettings) -> Result<Option<Advance>, AdvanceError> {
        let journal = Journal::new(trust_domain());
        advance(&journal, settings, &BTreeSet::new(), None, now())
    }

    fn settings(origin: AuthorityOrigin, ca_ttl: SignedDuration) -> AuthoritySettings {
        AuthoritySettings {
            policy: RotationPolicy {
                origin,
                propagation: PROPAGATION,
            },
            key_type: CaKeyType::EcP256,
            ca_ttl,
            subject: CaSubject::default(),
            jwt_key_type: JwtKeyType::default(),
        }
    }

    #[test]
    fn a_new_ca_is_backdated_and_lives_for_its_lifetime() {
        let ca_ttl = SignedDuration::from_hours(24);
        let done = first(&settings(AuthorityOrigin::SelfSigned, ca_ttl)).unwrap();
        let done = done.unwrap();
        let [record] = done.journal.jwt_ledger().records() else {
            panic!("one JWT key");
        };
        assert_eq!(record.not_after, now() + ca_ttl);
        let (id, step) = (record.id.clone(), Step::Generate);
        assert_eq!(
            done.done,
            [Done::Ca(Step::Generate), Done::JwtKey { id, step }]
        );
        let [record] = done.journal.ledger().records() else {
            panic!("one CA");
        };
        assert_eq!(record.not_before, now() - CA_BACKDATING);
        assert_eq!(record.not_after, now() + ca_ttl);
    }

    #[test]
    fn without_a_ca_in_the_secret_nothing_is_due() {
        let ca_ttl = SignedDuration::from_hours(24);
        let done = first(&settings(AuthorityOrigin::Imported, ca_ttl)).unwrap();
        assert!(done.is_none());
    }

    #[test]
    fn refuses_a_lifetime_out_of_range() {
        let ca_ttl = SignedDuration::MAX;
        let refused = first(&settings(AuthorityOrigin::SelfSigned, ca_ttl)).unwrap_err();
        assert_eq!(refused, AdvanceError::Lifetime { ca_ttl });
    }
}
