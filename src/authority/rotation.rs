//! When a trust domain's CAs, and its JWT keys, are made, sign and go: a pure state machine.
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

use super::{AuthorityOrigin, AuthorityState, Ledger, Record, Step};
use crate::spiffe::Fingerprint;

/// How long a new root is in the published bundle before its CA takes over from one that still can
/// sign. The kubelet refreshes the bundles in pods every one to two minutes.
pub const PROPAGATION: SignedDuration = SignedDuration::from_mins(5);

/// How long the root of an expired CA stays in the bundle (SPIRE).
const PRUNE_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// How much of a CA's `lifetime` is left when its successor is prepared: half, and at most 30 days
/// (SPIRE, `pkg/server/ca/manager/slot.go`).
#[must_use]
pub fn successor_when_left(lifetime: SignedDuration) -> SignedDuration {
    (lifetime / 2).min(SignedDuration::from_hours(30 * 24))
}

/// How much of a CA's `lifetime` is left when its successor takes over: a sixth, and at most seven
/// days (SPIRE, as above). Until then it signs.
#[must_use]
pub fn signs_until_left(lifetime: SignedDuration) -> SignedDuration {
    (lifetime / 6).min(SignedDuration::from_hours(7 * 24))
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
    /// Fingerprint and end of validity of the CA in the Secret, or of one that the server above has
    /// signed, if there is one that can sign.
    pub candidate: Option<(&'a Fingerprint, Timestamp)>,
    /// The roots that the server above does not vouch for any more.
    pub distrusted: &'a BTreeSet<Fingerprint>,
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

/// Whether an authority that ended at `not_after` has been in the bundle for long enough.
pub(super) fn is_to_be_pruned(not_after: Timestamp, now: Timestamp) -> bool {
    not_after.duration_until(now) > PRUNE_AFTER
}

/// Whether the server above is to be asked for a CA: there is none that will do for the next half of
/// its life. One that has waited for so long that it is nearly over itself will not (SPIRE issue 7199),
/// and neither will one that ends with the one that signs.
#[must_use]
pub fn wants_upstream_ca(
    ledger: &Ledger,
    policy: &RotationPolicy,
    observed: &Observed<'_>,
) -> bool {
    let decision = Decision {
        ledger,
        policy,
        observed,
    };
    policy.origin == AuthorityOrigin::Upstream
        && match ledger.in_state(AuthorityState::Prepared) {
            Some(prepared) => !decision.suffices(prepared),
            None => !ledger.active().is_some_and(|it| decision.suffices(it)),
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
                    && is_to_be_pruned(record.not_after, self.observed.now)
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
        let other_is_better = match prepared.origin {
            AuthorityOrigin::SelfSigned => false,
            AuthorityOrigin::Imported => other_candidate,
            AuthorityOrigin::Upstream => self.is_distrusted(prepared) || self.outlived(prepared),
        };
        let unwanted = prepared.origin != self.policy.origin
            || other_is_better
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
                // Whoever takes what the active one signs has the root already, or must let go of it.
                let is_at_hand = prepared.origin == AuthorityOrigin::Upstream
                    && (prepared.root == active.root || self.is_distrusted(active));
                let has_spread = published_at.duration_until(now) >= self.policy.propagation;
                (is_at_hand || has_spread)
                    && (self.is_superseded(active) || active.is_within(signs_until_left, now))
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
            AuthorityOrigin::Upstream => self.take(),
        }
    }

    fn generate(&self) -> Option<Step> {
        let active = self.ledger.active();
        let suffices = active.is_some_and(|active| self.suffices(active));
        (!suffices).then_some(Step::Generate)
    }

    /// The CA that the server above has signed, where one is due and it lives longer than the one
    /// that signs.
    fn take(&self) -> Option<Step> {
        let (candidate, not_after) = self.observed.candidate?;
        let is_new = self.ledger.find(candidate).is_none();
        let is_due = match self.ledger.active() {
            Some(active) if self.suffices(active) => false,
            Some(active) => {
                let signs_on = active.is_valid(self.observed.now) && !self.is_superseded(active);
                !signs_on || active.not_after < not_after
            }
            None => true,
        };
        (is_new && is_due && self.observed.now < not_after).then(|| Step::Import {
            fingerprint: candidate.clone(),
        })
    }

    /// Whether `record` can sign, or go on to sign, for half of its life.
    fn suffices(&self, record: &Record) -> bool {
        let now = self.observed.now;
        !self.is_superseded(record)
            && record.is_valid(now)
            && !record.is_within(successor_when_left, now)
    }

    /// Whether there is a candidate that lives longer than `prepared`, which has waited for long.
    fn outlived(&self, prepared: &Record) -> bool {
        let candidate = self.observed.candidate;
        let is_later = candidate.is_some_and(|(_, not_after)| prepared.not_after < not_after);
        is_later && !self.suffices(prepared)
    }

    fn is_distrusted(&self, record: &Record) -> bool {
        self.observed.distrusted.contains(&record.root)
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
        active.origin != self.policy.origin
            || active.origin == AuthorityOrigin::Imported
            || self.is_distrusted(active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{AuthorityError, AuthorityId};

    const START: i64 = 1_800_000_000;
    const DAY: i64 = 24 * 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(START + second).unwrap()
    }

    fn name(name: &str) -> Fingerprint {
        Fingerprint::of(name.as_bytes())
    }

    fn id(name: &str) -> AuthorityId {
        name.into()
    }

    /// A CA of eight days.
    fn record(called: &str, begin: i64, origin: AuthorityOrigin) -> Record {
        Record {
            fingerprint: name(called),
            root: name(called),
            id: id(called),
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
            distrusted: &BTreeSet::new(),
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
        assert_eq!(ledger.clone().taint(&id("x")), Err(AuthorityError::Unknown));
        assert_eq!(ledger.clone().taint(&id("a")), Err(AuthorityError::Active));
        let ledger = ledger.with_prepared(record("b", 0, OWN)).after(
            &Step::Activate {
                fingerprint: name("b"),
            },
            at(5),
        );
        assert_eq!(
            ledger.clone().revoke(&id("a")),
            Err(AuthorityError::NotTainted)
        );
        let ledger = ledger.taint(&id("a")).unwrap();
        assert_eq!(ledger.records()[0].state, AuthorityState::Tainted);
        let sequence = ledger.sequence();
        let ledger = ledger.revoke(&id("a")).unwrap();
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
            .taint(&id("a"))
            .unwrap();
        assert_eq!(step_at(&ledger, IMPORTED, 10, &["a", "b"], Some("a")), None);
    }

    /// A CA by the server above under `root`, of eight days.
    fn signed_above(called: &str, root: &str, begin: i64) -> Record {
        Record {
            root: name(root),
            ..record(called, begin, AuthorityOrigin::Upstream)
        }
    }

    /// What is to be done where the server above has signed a CA that ends as given.
    fn with_server_above(
        ledger: &Ledger,
        second: i64,
        candidate: Option<(&str, i64)>,
        distrusted: &[&str],
    ) -> (Option<Step>, bool) {
        let published = ["r", "s"].map(name).into_iter().collect();
        let distrusted = distrusted.iter().map(|root| name(root)).collect();
        let candidate = candidate.map(|(called, end)| (name(called), at(end)));
        let observed = Observed {
            now: at(second),
            published: &published,
            candidate: candidate.as_ref().map(|(called, end)| (called, *end)),
            distrusted: &distrusted,
        };
        let policy = policy(AuthorityOrigin::Upstream);
        (
            next_step(ledger, &policy, &observed),
            wants_upstream_ca(ledger, &policy, &observed),
        )
    }

    fn after(ledger: &Ledger, steps: &[Step], second: i64) -> Ledger {
        let ledger = ledger.clone();
        steps
            .iter()
            .fold(ledger, |ledger, step| ledger.after(step, at(second)))
    }

    fn confirm(called: &str) -> Step {
        let fingerprint = name(called);
        Step::ConfirmPublished { fingerprint }
    }

    fn activate(called: &str) -> Step {
        let fingerprint = name(called);
        Step::Activate { fingerprint }
    }

    fn import(called: &str) -> Step {
        let fingerprint = name(called);
        Step::Import { fingerprint }
    }

    fn under_a_server() -> Ledger {
        let ledger = Ledger::default().with_prepared(signed_above("a", "r", 0));
        after(&ledger, &[confirm("a"), activate("a")], 1)
    }

    #[test]
    fn a_server_above_is_asked_at_half_and_its_ca_signs_at_a_sixth() {
        let empty = Ledger::default();
        assert_eq!(with_server_above(&empty, 0, None, &[]), (None, true));
        let first = Some(("a", 8 * DAY));
        assert_eq!(
            with_server_above(&empty, 0, first, &[]).0,
            Some(import("a"))
        );
        let ledger = under_a_server();
        assert_eq!(
            with_server_above(&ledger, 4 * DAY, None, &[]),
            (None, false)
        );
        let half = 4 * DAY + 1;
        assert_eq!(with_server_above(&ledger, half, None, &[]), (None, true));
        // Not one that ends as early, as near the end of the server's own CA.
        let short = Some(("b", 8 * DAY));
        assert_eq!(with_server_above(&ledger, half, short, &[]), (None, true));
        let next = Some(("b", 12 * DAY));
        assert_eq!(
            with_server_above(&ledger, half, next, &[]).0,
            Some(import("b"))
        );
        let ledger = ledger.with_prepared(signed_above("b", "r", half));
        let ledger = after(&ledger, &[confirm("b")], half);
        assert_eq!(
            with_server_above(&ledger, half + 1, next, &[]),
            (None, false)
        );
        // The same root: no pause.
        let sixth = 8 * DAY - 8 * DAY / 6 + 1;
        assert_eq!(
            with_server_above(&ledger, sixth, next, &[]).0,
            Some(activate("b"))
        );
    }

    #[test]
    fn a_new_root_spreads_before_anything_under_it_signs() {
        let sixth = 8 * DAY - 8 * DAY / 6 + 1;
        let ledger = under_a_server().with_prepared(signed_above("b", "s", sixth));
        let ledger = after(&ledger, &[confirm("b")], sixth);
        assert_eq!(with_server_above(&ledger, sixth, None, &[]).0, None);
        let spread = sixth + PROPAGATION.as_secs();
        assert_eq!(
            with_server_above(&ledger, spread, None, &[]).0,
            Some(activate("b"))
        );
        // But not where the root before it is tainted.
        assert_eq!(
            with_server_above(&ledger, sixth, None, &["r"]).0,
            Some(activate("b"))
        );
    }

    #[test]
    fn a_ca_under_a_tainted_root_is_replaced_at_once() {
        let ledger = under_a_server();
        assert_eq!(with_server_above(&ledger, 10, None, &["r"]), (None, true));
        // Although the next one ends earlier.
        let next = Some(("b", 4 * DAY));
        assert_eq!(
            with_server_above(&ledger, 10, next, &["r"]).0,
            Some(import("b"))
        );
        let ledger = ledger.with_prepared(signed_above("b", "r", 10));
        let fingerprint = name("b");
        assert_eq!(
            with_server_above(&ledger, 10, None, &["r"]),
            (Some(Step::Discard { fingerprint }), true)
        );
    }

    #[test]
    fn one_that_has_waited_for_long_is_replaced_before_it_signs() {
        let half = 4 * DAY + 1;
        let mut short = signed_above("b", "r", half);
        short.not_after = at(half + 5 * DAY);
        let ledger = under_a_server().with_prepared(short);
        let ledger = after(&ledger, &[confirm("b")], half);
        let old = half + 5 * DAY / 2 + 1;
        assert_eq!(with_server_above(&ledger, old, None, &[]), (None, true));
        let fingerprint = name("b");
        let next = Some(("c", half + 9 * DAY));
        assert_eq!(
            with_server_above(&ledger, old, next, &[]).0,
            Some(Step::Discard { fingerprint })
        );
        // It signs if there is no other: the server above may be away.
        let sixth = 8 * DAY - 8 * DAY / 6 + 1;
        assert_eq!(
            with_server_above(&ledger, sixth, None, &[]),
            (Some(activate("b")), true)
        );
    }
}
