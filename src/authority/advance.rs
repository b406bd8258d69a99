//! Taking a journal forward: the steps that are due, carried out.

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    CertificateAuthority, Journal, KeyError, Observed, PrivateKey, RotationPolicy, SignError, Step,
    next_step,
};
use crate::{
    api::{CaKeyType, CaSubject},
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
    /// Lifetime of CAs that we make.
    pub ca_ttl: SignedDuration,
    /// Subject of CAs that we make.
    pub subject: CaSubject,
}

/// A journal that has gone forward, to be written in place of the one that it came from. Only when
/// that write has succeeded may the bundle be published.
#[derive(Clone, Debug)]
pub struct Advance {
    /// The new journal.
    pub journal: Journal,
    /// What was done, for events; at least one step.
    pub steps: Vec<Step>,
}

/// Takes `journal` as far as it can go at `now`: until nothing is due, or a new CA waits to be
/// published. `published` are the fingerprints of the roots in the bundle that was last confirmed,
/// `candidate` the CA imported from the Secret that the TrustDomain names.
///
/// None if nothing is due.
///
/// # Errors
/// When a CA cannot be made. `journal` is as good as before.
pub fn advance(
    journal: &Journal,
    settings: &AuthoritySettings,
    published: &BTreeSet<Fingerprint>,
    candidate: Option<&Arc<CertificateAuthority>>,
    now: Timestamp,
) -> Result<Option<Advance>, AdvanceError> {
    let observed = Observed {
        now,
        published,
        candidate: candidate.map(|ca| {
            let certificates = ca.certificates();
            (certificates.fingerprint(), certificates.not_after())
        }),
    };
    let mut journal = journal.clone();
    let mut steps = Vec::new();
    while let Some(step) = next_step(journal.ledger(), &settings.policy, &observed) {
        let ca = match (&step, candidate) {
            (Step::Generate, _) => Some(Arc::new(generate(&journal, settings, now)?)),
            (Step::Import { .. }, Some(ca)) => Some(Arc::clone(ca)),
            _ => None,
        };
        let is_prepared = ca.is_some();
        journal = match ca {
            Some(ca) => journal.with_prepared(ca, settings.policy.origin, now),
            None => journal.after(&step, now),
        };
        steps.push(step);
        if is_prepared {
            break;
        }
    }
    Ok((!steps.is_empty()).then_some(Advance { journal, steps }))
}

/// Why a journal cannot go forward.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvanceError {
    /// No new key.
    #[error("making a key for a new CA: {source}")]
    GenerateKey {
        /// Why.
        source: KeyError,
    },
    /// The lifetime reaches out of what a certificate can say.
    #[error("a CA that lives for {ca_ttl:#} would end too far in the future")]
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

fn generate(
    journal: &Journal,
    settings: &AuthoritySettings,
    now: Timestamp,
) -> Result<CertificateAuthority, AdvanceError> {
    let key = PrivateKey::generate(settings.key_type)
        .map_err(|source| AdvanceError::GenerateKey { source })?;
    let ca_ttl = settings.ca_ttl;
    let not_after = now
        .checked_add(ca_ttl)
        .map_err(|_| AdvanceError::Lifetime { ca_ttl })?;
    CertificateAuthority::self_signed(
        journal.trust_domain(),
        &settings.subject,
        key,
        now.saturating_sub(CA_BACKDATING).unwrap_or(now),
        not_after,
    )
    .map_err(|source| AdvanceError::SelfSign { source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{
        AuthorityOrigin, PROPAGATION,
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
        }
    }

    #[test]
    fn a_new_ca_is_backdated_and_lives_for_its_lifetime() {
        let ca_ttl = SignedDuration::from_hours(24);
        let done = first(&settings(AuthorityOrigin::SelfSigned, ca_ttl)).unwrap();
        let done = done.unwrap();
        assert_eq!(done.steps, [Step::Generate]);
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
