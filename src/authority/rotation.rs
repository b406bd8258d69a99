//! When a trust domain's CAs are made, sign and go: a pure state machine.
//!
//! [`next_step`] decides from the ledger, the configuration and what was observed; [`Ledger::after`]
//! carries a step out. Every ledger is a good place to stop: whoever starts again from it, with the
//! same or another process, completes what was begun. Two writers cannot disagree, because only one
//! of two writes from the same ledger succeeds.
//!
//! Invariants: one CA at most is active. A CA signs only when its root is in a bundle that was
//! confirmed as published. A root goes a day after its CA has expired, when nothing under it can
//! live, or by revocation. A CA that never signed may go at any time.
//!
//! Not here: keys, certificates and how they are stored ([`super::Journal`]), and publishing.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::spiffe::{Fingerprint, KeyId};

/// How long a new root is in the published bundle before its CA takes over from one that still can
/// sign. The kubelet refreshes the bundles in pods every one to two minutes.
pub const PROPAGATION: SignedDuration = SignedDuration::from_mins(5);

/// A CA is prepared at half of its predecessor's lifetime, at most 30 days before its end, and
/// takes over at a sixth, at most 7 days (SPIRE, `pkg/server/ca/manager/slot.go`).
const PREPARE: (i32, SignedDuration) = (2, SignedDuration::from_hours(30 * 24));
const ACTIVATE: (i32, SignedDuration) = (6, SignedDuration::from_hours(7 * 24));
/// How long the root of an expired CA stays in the bundle (SPIRE).
const PRUNE_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// A CA that begins further in the future than this was made while the clock was wrong.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// Where a CA is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityState {
    /// To be published; has not signed, or not since it was old.
    Prepared,
    /// Signs.
    Active,
    /// Signs no longer; its root stays in the bundle.
    Old,
    /// As old, and what it signed is to be replaced.
    Tainted,
}

impl AuthorityState {
    /// The word for status and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Old => "old",
            Self::Tainted => "tainted",
        }
    }
}

/// Where a CA comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuthorityOrigin {
    /// We make them.
    SelfSigned,
    /// Somebody else makes them and puts them into a Secret.
    Imported,
}

/// What rotation needs to know of a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of the CA's certificate.
    pub fingerprint: Fingerprint,
    /// Of the root's certificate, by which publication is confirmed.
    pub root: Fingerprint,
    /// Of the CA's key: the authority's ID for people. A renewed certificate may keep it.
    pub key_id: KeyId,
    /// Where it comes from.
    pub origin: AuthorityOrigin,
    /// Where it is in its life.
    pub state: AuthorityState,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
    /// When it got here.
    pub prepared_at: Timestamp,
    /// When its root was first seen in the published bundle.
    pub published_at: Option<Timestamp>,
    /// When it began to sign.
    pub activated_at: Option<Timestamp>,
}

impl Record {
    /// Whether signatures at `now` would verify.
    fn is_valid(&self, now: Timestamp) -> bool {
        now < self.not_after && !self.begins_after(now)
    }

    fn begins_after(&self, now: Timestamp) -> bool {
        now.duration_until(self.not_before) > CLOCK_TOLERANCE
    }

    /// Whether less than the given part of the lifetime is left, or less than the most that is
    /// ever waited for.
    fn is_within(&self, (part, most): (i32, SignedDuration), now: Timestamp) -> bool {
        let lifetime = self.not_before.duration_until(self.not_after);
        now.duration_until(self.not_after) < (lifetime / part).min(most)
    }
}

/// The CAs of a trust domain, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub(super) records: Vec<Record>,
    pub(super) sequence: u64,
}

/// What is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationPolicy {
    /// Where CAs come from.
    pub origin: AuthorityOrigin,
    /// How long a root is published before its CA takes over; [`PROPAGATION`] but in tests.
    pub propagation: SignedDuration,
}

/// What is.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The time.
    pub now: Timestamp,
    /// The roots in the bundle that was last confirmed as published.
    pub published: &'a BTreeSet<Fingerprint>,
    /// Fingerprint and end of validity of the CA in the Secret, if there is one that can sign.
    pub candidate: Option<(&'a Fingerprint, Timestamp)>,
}

/// A change of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This one signs from now on; the one before is old.
    Activate {
        /// The CA.
        fingerprint: Fingerprint,
    },
    /// Its root is in the published bundle.
    ConfirmPublished {
        /// The CA.
        fingerprint: Fingerprint,
    },
    /// It is prepared and not needed. It is forgotten, or is old again if it has ever signed.
    Discard {
        /// The CA.
        fingerprint: Fingerprint,
    },
    /// Make a new CA and prepare it.
    Generate,
    /// Prepare the CA of the Secret.
    Import {
        /// The CA.
        fingerprint: Fingerprint,
    },
    /// It expired a day ago.
    Prune {
        /// The CA.
        fingerprint: Fingerprint,
    },
}

/// Why an authority is neither tainted nor revoked. As in SPIRE, what may still sign cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// Only tainted authorities are revoked.
    #[error("the authority is not tainted; taint it first, and let workloads get new certificates")]
    NotTainted,
    /// It signs or is about to.
    #[error("the authority is active or prepared; wait until another one has taken over")]
    StillSigns,
    /// No such authority.
    #[error("there is no such authority")]
    Unknown,
}

/// The next step to take, or none if all is as it should be.
#[must_use]
pub fn next_step(
    ledger: &Ledger,
    policy: &RotationPolicy,
    observed: &Observed<'_>,
) -> Option<Step> {
    let decision = Decision {
        ledger,
        policy,
        observed,
    };
    decision
        .prune()
        .or_else(|| decision.discard())
        .or_else(|| decision.confirm())
        .or_else(|| decision.activate())
        .or_else(|| decision.prepare())
}

impl Ledger {
    /// The CAs, oldest first.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Grows with every change of the bundle.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The CA that signs.
    #[must_use]
    pub fn active(&self) -> Option<&Record> {
        self.in_state(AuthorityState::Active)
    }

    /// The ledger after `step`. [`Step::Generate`] and [`Step::Import`] need a CA, and are carried
    /// out by [`Self::with_prepared`].
    #[must_use]
    pub fn after(mut self, step: &Step, now: Timestamp) -> Self {
        match step {
            Step::Activate { fingerprint } => self.activate(fingerprint, now),
            Step::ConfirmPublished { fingerprint } => {
                if let Some(record) = self.find_mut(fingerprint) {
                    record.published_at = Some(now);
                }
            }
            Step::Discard { fingerprint } => self.discard(fingerprint),
            Step::Prune { fingerprint } => {
                self.remove(|record| record.fingerprint == *fingerprint);
            }
            Step::Generate | Step::Import { .. } => {}
        }
        self
    }

    /// The ledger with another CA to publish, the newest. One that is known already begins anew,
    /// but it is not forgotten that it has signed.
    #[must_use]
    pub fn with_prepared(mut self, record: Record) -> Self {
        let activated_at = self
            .find(&record.fingerprint)
            .and_then(|known| known.activated_at);
        self.records
            .retain(|known| known.fingerprint != record.fingerprint);
        self.records.push(Record {
            state: AuthorityState::Prepared,
            published_at: None,
            activated_at,
            ..record
        });
        self.sequence += 1;
        self
    }

    /// Marks the old CAs with the key `key_id`: their leaves are to be replaced.
    ///
    /// # Errors
    /// When there is none, or one of them may still sign.
    pub fn taint(mut self, key_id: &KeyId) -> Result<Self, AuthorityError> {
        self.check_retired(key_id)?;
        for record in self.records.iter_mut().filter(|r| r.key_id == *key_id) {
            record.state = AuthorityState::Tainted;
        }
        self.sequence += 1;
        Ok(self)
    }

    /// Drops the tainted CAs with the key `key_id`. A root goes with its last CA.
    ///
    /// # Errors
    /// When there is none, one of them may still sign, or is not tainted.
    pub fn revoke(mut self, key_id: &KeyId) -> Result<Self, AuthorityError> {
        self.check_retired(key_id)?;
        let mut same_key = self.records.iter().filter(|r| r.key_id == *key_id);
        if same_key.any(|record| record.state != AuthorityState::Tainted) {
            return Err(AuthorityError::NotTainted);
        }
        self.remove(|record| record.key_id == *key_id);
        Ok(self)
    }

    fn activate(&mut self, fingerprint: &Fingerprint, now: Timestamp) {
        for record in &mut self.records {
            if record.fingerprint == *fingerprint {
                record.state = AuthorityState::Active;
                record.activated_at = Some(now);
            } else if record.state == AuthorityState::Active {
                record.state = AuthorityState::Old;
            }
        }
    }

    /// A root under which leaves may live stays in the bundle.
    fn discard(&mut self, fingerprint: &Fingerprint) {
        match self.find_mut(fingerprint) {
            Some(record) if record.activated_at.is_some() => record.state = AuthorityState::Old,
            _ => self.remove(|record| record.fingerprint == *fingerprint),
        }
    }

    fn remove(&mut self, unwanted: impl Fn(&Record) -> bool) {
        let before = self.records.len();
        self.records.retain(|record| !unwanted(record));
        if self.records.len() != before {
            self.sequence += 1;
        }
    }

    fn check_retired(&self, key_id: &KeyId) -> Result<(), AuthorityError> {
        let mut states = self
            .records
            .iter()
            .filter(|record| record.key_id == *key_id)
            .map(|record| record.state)
            .peekable();
        if states.peek().is_none() {
            return Err(AuthorityError::Unknown);
        }
        if states.any(|s| matches!(s, AuthorityState::Active | AuthorityState::Prepared)) {
            return Err(AuthorityError::StillSigns);
        }
        Ok(())
    }

    fn in_state(&self, state: AuthorityState) -> Option<&Record> {
        self.records.iter().find(|record| record.state == state)
    }

    fn find(&self, fingerprint: &Fingerprint) -> Option<&Record> {
        self.records.iter().find(|r| r.fingerprint == *fingerprint)
    }

    fn find_mut(&mut self, fingerprint: &Fingerprint) -> Option<&mut Record> {
        self.records
            .iter_mut()
            .find(|record| record.fingerprint == *fingerprint)
    }
}

struct Decision<'a> {
    ledger: &'a Ledger,
    policy: &'a RotationPolicy,
    observed: &'a Observed<'a>,
}

impl Decision<'_> {
    fn prune(&self) -> Option<Step> {
        let fingerprint = self
            .ledger
            .records
            .iter()
            .find(|record| {
                matches!(record.state, AuthorityState::Old | AuthorityState::Tainted)
                    && record.not_after.duration_until(self.observed.now) > PRUNE_AFTER
            })?
            .fingerprint
            .clone();
        Some(Step::Prune { fingerprint })
    }

    /// A prepared CA that is of no use: of another origin or another Secret than wanted by now,
    /// expired while nobody looked, or made under a clock that was ahead.
    fn discard(&self) -> Option<Step> {
        let prepared = self.ledger.in_state(AuthorityState::Prepared)?;
        let other_candidate = self
            .observed
            .candidate
            .is_some_and(|(candidate, _)| *candidate != prepared.fingerprint);
        let unwanted = prepared.origin != self.policy.origin
            || (prepared.origin == AuthorityOrigin::Imported && other_candidate)
            || !prepared.is_valid(self.observed.now);
        unwanted.then(|| Step::Discard {
            fingerprint: prepared.fingerprint.clone(),
        })
    }

    /// A confirmation from the future, left by a clock that was ahead, counts from now.
    fn confirm(&self) -> Option<Step> {
        let prepared = self.ledger.in_state(AuthorityState::Prepared)?;
        let confirmed = prepared
            .published_at
            .is_some_and(|published_at| published_at <= self.observed.now);
        (!confirmed && self.observed.published.contains(&prepared.root)).then(|| {
            Step::ConfirmPublished {
                fingerprint: prepared.fingerprint.clone(),
            }
        })
    }

    fn activate(&self) -> Option<Step> {
        let now = self.observed.now;
        let prepared = self.ledger.in_state(AuthorityState::Prepared)?;
        let published_at = prepared.published_at?;
        if !self.observed.published.contains(&prepared.root) {
            return None;
        }
        let due = match self.ledger.active() {
            Some(active) if active.is_valid(now) => {
                published_at.duration_until(now) >= self.policy.propagation
                    && (self.is_superseded(active) || active.is_within(ACTIVATE, now))
            }
            _ => true,
        };
        due.then(|| Step::Activate {
            fingerprint: prepared.fingerprint.clone(),
        })
    }

    fn prepare(&self) -> Option<Step> {
        if self.ledger.in_state(AuthorityState::Prepared).is_some() {
            return None;
        }
        match self.policy.origin {
            AuthorityOrigin::SelfSigned => self.generate(),
            AuthorityOrigin::Imported => self.import(),
        }
    }

    fn generate(&self) -> Option<Step> {
        let now = self.observed.now;
        let suffices = self.ledger.active().is_some_and(|active| {
            !self.is_superseded(active) && active.is_valid(now) && !active.is_within(PREPARE, now)
        });
        (!suffices).then_some(Step::Generate)
    }

    /// A tainted CA does not come back, although somebody put it into the Secret again.
    fn import(&self) -> Option<Step> {
        let (candidate, not_after) = self.observed.candidate?;
        let known = self.ledger.find(candidate).map(|record| record.state);
        let wanted = matches!(known, None | Some(AuthorityState::Old));
        (wanted && self.observed.now < not_after).then(|| Step::Import {
            fingerprint: candidate.clone(),
        })
    }

    /// Whether another CA is wanted although `active` still can sign.
    fn is_superseded(&self, active: &Record) -> bool {
        active.origin != self.policy.origin || active.origin == AuthorityOrigin::Imported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_800_000_000;
    const DAY: i64 = 24 * 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(START + second).unwrap()
    }

    fn name(name: &str) -> Fingerprint {
        Fingerprint::of(name.as_bytes())
    }

    fn key_id(name: &str) -> KeyId {
        KeyId(name.as_bytes().to_vec())
    }

    /// A CA of eight days.
    fn record(called: &str, begin: i64, origin: AuthorityOrigin) -> Record {
        Record {
            fingerprint: name(called),
            root: name(called),
            key_id: key_id(called),
            origin,
            state: AuthorityState::Prepared,
            not_before: at(begin),
            not_after: at(begin + 8 * DAY),
            prepared_at: at(begin),
            published_at: None,
            activated_at: None,
        }
    }

    fn policy(origin: AuthorityOrigin) -> RotationPolicy {
        RotationPolicy {
            origin,
            propagation: PROPAGATION,
        }
    }

    fn step_at(
        ledger: &Ledger,
        origin: AuthorityOrigin,
        second: i64,
        published: &[&str],
        candidate: Option<&str>,
    ) -> Option<Step> {
        let published = published.iter().map(|called| name(called)).collect();
        let candidate = candidate.map(name);
        let observed = Observed {
            now: at(second),
            published: &published,
            candidate: candidate.as_ref().map(|c| (c, at(100 * DAY))),
        };
        next_step(ledger, &policy(origin), &observed)
    }

    fn with_active(called: &str, origin: AuthorityOrigin) -> Ledger {
        let fingerprint = name(called);
        Ledger::default()
            .with_prepared(record(called, 0, origin))
            .after(
                &Step::ConfirmPublished {
                    fingerprint: fingerprint.clone(),
                },
                at(1),
            )
            .after(&Step::Activate { fingerprint }, at(2))
    }

    const OWN: AuthorityOrigin = AuthorityOrigin::SelfSigned;
    const IMPORTED: AuthorityOrigin = AuthorityOrigin::Imported;

    #[test]
    fn the_first_ca_signs_as_soon_as_it_is_published() {
        let ledger = Ledger::default();
        assert_eq!(step_at(&ledger, OWN, 0, &[], None), Some(Step::Generate));
        let ledger = ledger.with_prepared(record("a", 0, OWN));
        assert_eq!(step_at(&ledger, OWN, 0, &[], None), None);
        let fingerprint = name("a");
        let confirm = Step::ConfirmPublished {
            fingerprint: fingerprint.clone(),
        };
        assert_eq!(
            step_at(&ledger, OWN, 1, &["a"], None),
            Some(confirm.clone())
        );
        let ledger = ledger.after(&confirm, at(1));
        let activate = Step::Activate { fingerprint };
        assert_eq!(
            step_at(&ledger, OWN, 1, &["a"], None),
            Some(activate.clone())
        );
        let ledger = ledger.after(&activate, at(1));
        assert_eq!(step_at(&ledger, OWN, 1, &["a"], None), None);
        assert_eq!(ledger.active().unwrap().fingerprint, name("a"));
    }

    #[test]
    fn a_successor_is_prepared_at_half_and_signs_at_a_sixth() {
        let ledger = with_active("a", OWN);
        assert_eq!(step_at(&ledger, OWN, 4 * DAY, &["a"], None), None);
        assert_eq!(
            step_at(&ledger, OWN, 4 * DAY + 1, &["a"], None),
            Some(Step::Generate)
        );
        let fingerprint = name("b");
        let confirm = Step::ConfirmPublished {
            fingerprint: fingerprint.clone(),
        };
        let ledger = ledger
            .with_prepared(record("b", 4 * DAY + 1, OWN))
            .after(&confirm, at(4 * DAY + 2));
        let sixth = 8 * DAY - 8 * DAY / 6;
        assert_eq!(step_at(&ledger, OWN, sixth, &["a", "b"], None), None);
        let activate = Step::Activate { fingerprint };
        assert_eq!(
            step_at(&ledger, OWN, sixth + 1, &["a", "b"], None),
            Some(activate.clone())
        );
        // Not while its root has gone missing from the bundle.
        assert_eq!(step_at(&ledger, OWN, sixth + 1, &["a"], None), None);
        let ledger = ledger.after(&activate, at(sixth + 1));
        assert_eq!(ledger.records()[0].state, AuthorityState::Old);
        assert_eq!(
            step_at(&ledger, OWN, 9 * DAY, &[], None),
            Some(Step::Generate)
        );
        let prune = Step::Prune {
            fingerprint: name("a"),
        };
        assert_eq!(step_at(&ledger, OWN, 9 * DAY + 1, &[], None), Some(prune));
    }

    #[test]
    fn long_lived_cas_are_replaced_30_and_7_days_before_their_end() {
        let mut ledger = with_active("a", OWN);
        ledger.records[0].not_after = at(3650 * DAY);
        assert_eq!(step_at(&ledger, OWN, 3620 * DAY, &["a"], None), None);
        assert_eq!(
            step_at(&ledger, OWN, 3620 * DAY + 1, &["a"], None),
            Some(Step::Generate)
        );
    }

    #[test]
    fn an_expired_ca_is_replaced_at_once() {
        let ledger = with_active("a", OWN);
        assert_eq!(
            step_at(&ledger, OWN, 50 * DAY, &["a"], None),
            Some(Step::Generate)
        );
        let ledger = ledger.with_prepared(record("b", 50 * DAY, OWN));
        let confirm = step_at(&ledger, OWN, 50 * DAY, &["a", "b"], None).unwrap();
        let ledger = ledger.after(&confirm, at(50 * DAY));
        assert_eq!(
            step_at(&ledger, OWN, 50 * DAY, &["a", "b"], None),
            Some(Step::Activate {
                fingerprint: name("b")
            })
        );
    }

    #[test]
    fn a_ca_made_under_a_fast_clock_is_replaced() {
        let ledger = with_active("a", OWN);
        assert_eq!(
            step_at(&ledger, OWN, -DAY, &["a"], None),
            Some(Step::Generate)
        );
        // Prepared ones have not signed, and go.
        let ledger = ledger.with_prepared(record("b", DAY, OWN));
        assert_eq!(
            step_at(&ledger, OWN, 0, &["a"], None),
            Some(Step::Discard {
                fingerprint: name("b")
            })
        );
    }

    #[test]
    fn a_changed_secret_is_published_waited_for_and_activated() {
        let ledger = with_active("a", IMPORTED);
        assert_eq!(step_at(&ledger, IMPORTED, 10, &["a"], Some("a")), None);
        assert_eq!(step_at(&ledger, IMPORTED, 10, &["a"], None), None);
        assert_eq!(
            step_at(&ledger, IMPORTED, 10, &["a"], Some("b")),
            Some(Step::Import {
                fingerprint: name("b")
            })
        );
        let fingerprint = name("b");
        let confirm = Step::ConfirmPublished {
            fingerprint: fingerprint.clone(),
        };
        let ledger = ledger
            .with_prepared(record("b", 0, IMPORTED))
            .after(&confirm, at(100));
        let both = &["a", "b"];
        assert_eq!(step_at(&ledger, IMPORTED, 399, both, Some("b")), None);
        let activate = Step::Activate { fingerprint };
        assert_eq!(
            step_at(&ledger, IMPORTED, 400, both, Some("b")),
            Some(activate.clone())
        );
        let ledger = ledger.after(&activate, at(400));
        assert_eq!(ledger.records()[0].state, AuthorityState::Old);

        // And back: its root stays, whatever becomes of the second attempt.
        let ledger = ledger.with_prepared(record("a", 0, IMPORTED));
        let discard = Step::Discard {
            fingerprint: name("a"),
        };
        assert_eq!(
            step_at(&ledger, IMPORTED, 500, both, Some("b")),
            Some(discard.clone())
        );
        let ledger = ledger.after(&discard, at(500));
        assert_eq!(ledger.records().len(), 2);
        assert_eq!(ledger.records()[1].state, AuthorityState::Old);
    }

    #[test]
    fn another_origin_takes_over() {
        let ledger = with_active("a", OWN);
        let import = Step::Import {
            fingerprint: name("b"),
        };
        assert_eq!(
            step_at(&ledger, IMPORTED, 10, &["a"], Some("b")),
            Some(import)
        );
        let ledger = with_active("b", IMPORTED);
        assert_eq!(
            step_at(&ledger, OWN, 10, &["b"], None),
            Some(Step::Generate)
        );
    }

    #[test]
    fn a_confirmation_from_the_future_counts_from_now() {
        let ledger = with_active("a", IMPORTED).with_prepared(record("b", 0, IMPORTED));
        let confirm = Step::ConfirmPublished {
            fingerprint: name("b"),
        };
        let ledger = ledger.after(&confirm, at(5 * DAY));
        assert_eq!(
            step_at(&ledger, IMPORTED, 10, &["a", "b"], Some("b")),
            Some(confirm)
        );
    }

    #[test]
    fn only_what_is_old_is_tainted_and_only_what_is_tainted_is_revoked() {
        let ledger = with_active("a", OWN);
        assert_eq!(
            ledger.clone().taint(&key_id("x")),
            Err(AuthorityError::Unknown)
        );
        assert_eq!(
            ledger.clone().taint(&key_id("a")),
            Err(AuthorityError::StillSigns)
        );
        let ledger = ledger.with_prepared(record("b", 0, OWN)).after(
            &Step::Activate {
                fingerprint: name("b"),
            },
            at(5),
        );
        assert_eq!(
            ledger.clone().revoke(&key_id("a")),
            Err(AuthorityError::NotTainted)
        );
        let ledger = ledger.taint(&key_id("a")).unwrap();
        assert_eq!(ledger.records()[0].state, AuthorityState::Tainted);
        let sequence = ledger.sequence();
        let ledger = ledger.revoke(&key_id("a")).unwrap();
        assert_eq!(ledger.records().len(), 1);
        assert!(ledger.sequence() > sequence);
    }

    #[test]
    fn a_tainted_ca_is_not_imported_again() {
        let ledger = with_active("a", IMPORTED)
            .with_prepared(record("b", 0, IMPORTED))
            .after(
                &Step::Activate {
                    fingerprint: name("b"),
                },
                at(5),
            )
            .taint(&key_id("a"))
            .unwrap();
        assert_eq!(step_at(&ledger, IMPORTED, 10, &["a", "b"], Some("a")), None);
    }
}
