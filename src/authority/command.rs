//! What people and tools may do to a trust domain's authorities, as SPIRE's `LocalAuthority` and
//! Bundle services have it: each command takes a journal to another one, or is refused with the
//! rule that it would break.
//!
//! SPIRE has two slots for each kind of authority, the current one and the next, which is prepared
//! or old. Here as many old ones as live stay, and each may be tainted and revoked, also while
//! another one is prepared.

use std::{fmt, sync::Arc};

use jiff::Timestamp;

use super::{
    AdvanceError, AppendError, AppendedRoot, AuthorityError, AuthorityId, AuthorityOrigin,
    AuthoritySettings, AuthorityState, Journal, Ledger, Step,
    advance::{new_ca, new_jwt_authority},
};
use crate::spiffe::{BundleError, JwtKey};

/// A kind of authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityKind {
    /// CAs.
    X509,
    /// Keys that sign JWT-SVIDs.
    Jwt,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Lets the prepared authority sign from now on; the one before is old.
    Activate(AuthorityKind, AuthorityId),
    /// Takes authorities of others into the bundle.
    Append {
        /// X.509 roots.
        roots: Vec<AppendedRoot>,
        /// JWT keys.
        jwt_keys: Vec<JwtKey>,
    },
    /// Makes another authority ready, in place of one that was prepared before.
    Prepare(AuthorityKind),
    /// Takes a tainted authority out of the bundle. What it signed verifies no more.
    Revoke(AuthorityKind, AuthorityId),
    /// Marks an old authority: what it signed is to be replaced.
    Taint(AuthorityKind, AuthorityId),
}

impl fmt::Display for AuthorityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X509 => "X.509",
            Self::Jwt => "JWT",
        })
    }
}

/// For logs.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activate(kind, id) => write!(f, "activate {kind} authority {id}"),
            Self::Append { roots, jwt_keys } => {
                write!(
                    f,
                    "append {} roots and {} JWT keys",
                    roots.len(),
                    jwt_keys.len()
                )
            }
            Self::Prepare(kind) => write!(f, "prepare {kind} authority"),
            Self::Revoke(kind, id) => write!(f, "revoke {kind} authority {id}"),
            Self::Taint(kind, id) => write!(f, "taint {kind} authority {id}"),
        }
    }
}

/// Why a command is refused. The journal is as good as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// No such authority could be made.
    #[error(transparent)]
    Advance {
        /// Why.
        #[from]
        source: AdvanceError,
    },
    /// An authority of somebody else that is not taken.
    #[error(transparent)]
    Append {
        /// Why.
        #[from]
        source: AppendError,
    },
    /// The authority is in no state for it.
    #[error(transparent)]
    Authority {
        /// Why.
        #[from]
        source: AuthorityError,
    },
    /// The bundle of the journal cannot be made.
    #[error(transparent)]
    Bundle {
        /// Why.
        #[from]
        source: BundleError,
    },
    /// We make no CAs.
    #[error(
        "the CA comes from the Secret that spec.authority.secretRef names; change that to prepare another"
    )]
    Imported,
    /// There is no authority of that kind yet.
    #[error("no authority is active yet")]
    NotActive,
    /// The server above decides about CAs.
    #[error("the CA is signed by the server above, which decides about its root")]
    Upstream,
}

impl Command {
    /// The journal after the command; none if it changes nothing.
    ///
    /// # Errors
    /// When a rule forbids it.
    pub fn apply(
        &self,
        journal: &Journal,
        settings: &AuthoritySettings,
        now: Timestamp,
    ) -> Result<Option<Journal>, CommandError> {
        let is_of_upstream = settings.policy.origin == AuthorityOrigin::Upstream;
        if is_of_upstream && self.decides_about_a_root() {
            return Err(CommandError::Upstream);
        }
        let journal = journal.clone();
        Ok(Some(match self {
            Self::Activate(kind, id) => {
                journal.change(*kind, |ledger| ledger.activate_prepared(id, now))?
            }
            Self::Append { roots, jwt_keys } => {
                let before = journal.sequence();
                let appended = journal.append(roots, jwt_keys, now)?;
                return Ok((appended.sequence() != before).then_some(appended));
            }
            Self::Prepare(kind) => prepare(journal, *kind, settings, now)?,
            Self::Revoke(kind, id) => journal.change(*kind, |ledger| ledger.revoke(id))?,
            Self::Taint(kind, id) => journal.change(*kind, |ledger| ledger.taint(id))?,
        }))
    }
}

impl Command {
    fn decides_about_a_root(&self) -> bool {
        let x509 = AuthorityKind::X509;
        match self {
            Self::Prepare(kind) | Self::Revoke(kind, _) | Self::Taint(kind, _) => *kind == x509,
            Self::Activate(..) | Self::Append { .. } => false,
        }
    }
}

/// What was prepared before has not signed since, and nothing that lives needs it.
fn prepare(
    journal: Journal,
    kind: AuthorityKind,
    settings: &AuthoritySettings,
    now: Timestamp,
) -> Result<Journal, CommandError> {
    if kind == AuthorityKind::X509 && settings.policy.origin == AuthorityOrigin::Imported {
        return Err(CommandError::Imported);
    }
    if journal.ledger_of(kind).active().is_none() {
        return Err(CommandError::NotActive);
    }
    let prepared = journal.ledger_of(kind).in_state(AuthorityState::Prepared);
    let discard = prepared.map(|record| Step::Discard {
        fingerprint: record.fingerprint.clone(),
    });
    let journal = journal.change(kind, |ledger| {
        Ok::<_, CommandError>(match &discard {
            Some(discard) => ledger.after(discard, now),
            None => ledger,
        })
    })?;
    Ok(match kind {
        AuthorityKind::X509 => {
            let ca = Arc::new(new_ca(&journal, settings, now)?);
            journal.with_prepared(ca, AuthorityOrigin::SelfSigned, now)
        }
        AuthorityKind::Jwt => {
            journal.with_prepared_jwt(Arc::new(new_jwt_authority(settings, now)?), now)
        }
    })
}

impl Journal {
    /// The ledger of one kind.
    #[must_use]
    pub fn ledger_of(&self, kind: AuthorityKind) -> &Ledger {
        match kind {
            AuthorityKind::X509 => self.ledger(),
            AuthorityKind::Jwt => self.jwt_ledger(),
        }
    }

    fn change<E>(
        self,
        kind: AuthorityKind,
        change: impl FnOnce(Ledger) -> Result<Ledger, E>,
    ) -> Result<Self, E> {
        let ledger = change(self.ledger_of(kind).clone())?;
        Ok(match kind {
            AuthorityKind::X509 => self.with_ledger(ledger),
            AuthorityKind::Jwt => self.with_jwt_ledger(ledger),
        })
    }

    fn append(
        self,
        roots: &[AppendedRoot],
        jwt_keys: &[JwtKey],
        now: Timestamp,
    ) -> Result<Self, CommandError> {
        let bundle = self.bundle()?;
        let appended = self.appended.with(roots, jwt_keys, &bundle, now)?;
        Ok(Self { appended, ..self })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::SignedDuration;

    use super::*;
    use crate::{
        api::{CaKeyType, CaSubject, JwtKeyType},
        authority::{
            PROPAGATION, RotationPolicy, advance,
            fixtures::{ca_params, now, root, trust_domain},
        },
    };

    const KINDS: [AuthorityKind; 2] = [AuthorityKind::X509, AuthorityKind::Jwt];

    fn settings(origin: AuthorityOrigin) -> AuthoritySettings {
        AuthoritySettings {
            policy: RotationPolicy {
                origin,
                propagation: PROPAGATION,
            },
            key_type: CaKeyType::EcP256,
            ca_ttl: SignedDuration::from_hours(168),
            subject: CaSubject::default(),
            jwt_key_type: JwtKeyType::default(),
        }
    }

    /// As a leader takes it forward that then publishes it.
    fn pass(journal: Journal) -> Journal {
        let published: BTreeSet<_> = journal.bundle().unwrap().fingerprints().collect();
        let settings = settings(AuthorityOrigin::SelfSigned);
        let done = advance(&journal, &settings, &published, None, now()).unwrap();
        done.map_or(journal, |advance| advance.journal)
    }

    fn active() -> Journal {
        pass(pass(Journal::new(trust_domain())))
    }

    fn apply(journal: &Journal, command: &Command) -> Result<Journal, CommandError> {
        let applied = command.apply(journal, &settings(AuthorityOrigin::SelfSigned), now())?;
        let data = applied
            .unwrap_or_else(|| journal.clone())
            .to_secret_data()
            .unwrap();
        Ok(Journal::from_secret_data(&trust_domain(), &data).unwrap())
    }

    fn id_in(journal: &Journal, kind: AuthorityKind, state: AuthorityState) -> AuthorityId {
        journal.ledger_of(kind).in_state(state).unwrap().id.clone()
    }

    fn states(journal: &Journal, kind: AuthorityKind) -> Vec<&'static str> {
        let records = journal.ledger_of(kind).records().iter();
        records.map(|record| record.state.as_str()).collect()
    }

    fn refused(journal: &Journal, command: &Command) -> AuthorityError {
        match apply(journal, command) {
            Err(CommandError::Authority { source }) => source,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_authority_is_forced_out_step_by_step() {
        for kind in KINDS {
            let first = active();
            let old = id_in(&first, kind, AuthorityState::Active);
            let journal = apply(&first, &Command::Prepare(kind)).unwrap();
            assert_eq!(states(&journal, kind), ["active", "prepared"]);
            let new = id_in(&journal, kind, AuthorityState::Prepared);
            let activate = Command::Activate(kind, new.clone());
            assert_eq!(refused(&journal, &activate), AuthorityError::NotPublished);
            let journal = apply(&pass(journal), &activate).unwrap();
            assert_eq!(states(&journal, kind), ["old", "active"]);
            assert_eq!(id_in(&journal, kind, AuthorityState::Active), new);
            let journal = apply(&journal, &Command::Taint(kind, old.clone())).unwrap();
            assert_eq!(states(&journal, kind), ["tainted", "active"]);
            let bundle = journal.bundle().unwrap();
            let tainted = match kind {
                AuthorityKind::X509 => bundle.x509_authorities()[0].is_tainted(),
                AuthorityKind::Jwt => bundle.jwt_key(old.as_str()).unwrap().tainted,
            };
            assert!(tainted);
            let journal = apply(&journal, &Command::Revoke(kind, old)).unwrap();
            assert_eq!(states(&journal, kind), ["active"]);
            let bundle = journal.bundle().unwrap();
            assert_eq!((bundle.roots().count(), bundle.jwt_keys().len()), (1, 1));
            assert!(bundle.sequence() > first.sequence());
        }
    }

    #[test]
    fn each_state_allows_what_it_allows_in_spire() {
        for kind in KINDS {
            let journal = apply(&active(), &Command::Prepare(kind)).unwrap();
            let [of_active, of_prepared] = [AuthorityState::Active, AuthorityState::Prepared]
                .map(|state| id_in(&journal, kind, state));
            let journal = pass(journal);
            let unknown = AuthorityId::from("unknown");
            for (id, activate, retire) in [
                (
                    &of_active,
                    Some(AuthorityError::NotPrepared),
                    AuthorityError::Active,
                ),
                (&of_prepared, None, AuthorityError::Prepared),
                (
                    &unknown,
                    Some(AuthorityError::Unknown),
                    AuthorityError::Unknown,
                ),
            ] {
                if let Some(activate) = activate {
                    let command = Command::Activate(kind, id.clone());
                    assert_eq!(refused(&journal, &command), activate);
                }
                assert_eq!(refused(&journal, &Command::Taint(kind, id.clone())), retire);
                assert_eq!(
                    refused(&journal, &Command::Revoke(kind, id.clone())),
                    retire
                );
            }
            let journal = apply(&journal, &Command::Activate(kind, of_prepared)).unwrap();
            let revoke = Command::Revoke(kind, of_active.clone());
            assert_eq!(refused(&journal, &revoke), AuthorityError::NotTainted);
            let taint = Command::Taint(kind, of_active.clone());
            let journal = apply(&journal, &taint).unwrap();
            assert_eq!(refused(&journal, &taint), AuthorityError::AlreadyTainted);
            let activate = Command::Activate(kind, of_active);
            assert_eq!(refused(&journal, &activate), AuthorityError::NotPrepared);
        }
    }

    #[test]
    fn another_one_takes_the_place_of_a_prepared_one() {
        for kind in KINDS {
            let journal = apply(&active(), &Command::Prepare(kind)).unwrap();
            let first = id_in(&journal, kind, AuthorityState::Prepared);
            let journal = apply(&journal, &Command::Prepare(kind)).unwrap();
            assert_eq!(states(&journal, kind), ["active", "prepared"]);
            assert_ne!(id_in(&journal, kind, AuthorityState::Prepared), first);
        }
    }

    #[test]
    fn nothing_is_prepared_before_the_first_is_active_or_in_place_of_a_secret() {
        for kind in KINDS {
            let refused = apply(&Journal::new(trust_domain()), &Command::Prepare(kind));
            assert!(matches!(refused, Err(CommandError::NotActive)));
        }
        let settings = settings(AuthorityOrigin::Imported);
        let prepare = |kind| Command::Prepare(kind).apply(&active(), &settings, now());
        assert!(matches!(
            prepare(AuthorityKind::X509),
            Err(CommandError::Imported)
        ));
        assert!(prepare(AuthorityKind::Jwt).is_ok());
    }

    #[test]
    fn an_expired_one_is_not_activated() {
        let journal = pass(apply(&active(), &Command::Prepare(AuthorityKind::X509)).unwrap());
        let id = id_in(&journal, AuthorityKind::X509, AuthorityState::Prepared);
        let command = Command::Activate(AuthorityKind::X509, id);
        let late = now() + SignedDuration::from_hours(169);
        let refused = command.apply(&journal, &settings(AuthorityOrigin::SelfSigned), late);
        let source = AuthorityError::Expired;
        assert_eq!(refused.unwrap_err(), CommandError::Authority { source });
    }

    #[test]
    fn what_was_appended_survives_a_restart_and_goes_in_time() {
        let first = active();
        let foreign = AppendedRoot {
            certificate: root(ca_params("foreign")).der().clone(),
            tainted: true,
        };
        let key = JwtKey {
            key_id: "of-a-server/below".into(),
            public_key: first.active_jwt().unwrap().key().public_key().clone(),
            expires_at: Some(now() + SignedDuration::from_hours(1)),
            tainted: false,
        };
        let append = Command::Append {
            roots: vec![foreign.clone()],
            jwt_keys: vec![key.clone()],
        };
        let journal = apply(&first, &append).unwrap();
        let bundle = journal.bundle().unwrap();
        assert!(bundle.sequence() > first.sequence());
        let [own, last] = bundle.x509_authorities() else {
            panic!("two roots");
        };
        assert!(!own.is_tainted() && last.is_tainted());
        assert_eq!(*last.certificate(), foreign.certificate);
        assert_eq!(bundle.jwt_keys().last(), Some(&key));
        assert_eq!(journal.jwt_key_count(), 2);
        let published = bundle.fingerprints().collect();
        let settings = settings(AuthorityOrigin::SelfSigned);
        assert!(append.apply(&journal, &settings, now()).unwrap().is_none());
        let later = now() + SignedDuration::from_hours(26);
        let done = advance(&journal, &settings, &published, None, later).unwrap();
        let pruned = done.unwrap().journal;
        assert_eq!(pruned.jwt_key_count(), 1);
        assert!(pruned.sequence() > journal.sequence());
        assert_eq!(pruned.bundle().unwrap().roots().count(), 2);
    }
}
