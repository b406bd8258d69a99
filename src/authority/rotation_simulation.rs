//! Ten years of rotation on a fake clock, with everything going wrong that can: of CAs, whose roots
//! are published after they are stored, and of JWT keys, which are published by being stored.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    AuthorityId, AuthorityKind, AuthorityOrigin, AuthorityState, Edition, Ledger, Observed,
    PROPAGATION, Record, RotationPolicy, Step, next_step,
};
use crate::spiffe::Fingerprint;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const YEARS: i64 = 10 * 365 * DAY;
const START: i64 = 1_800_000_000;
/// Clocks of operators are wrong by less than the day that a root outlives its CA.
const MAX_SKEW: i64 = 11 * HOUR;

/// What etcd holds.
struct Stored {
    ledger: Ledger,
    version: u64,
}

/// A certificate of a workload.
struct Leaf {
    authority: Fingerprint,
    root: Fingerprint,
    id: AuthorityId,
    not_after: i64,
}

struct World {
    random: StdRng,
    /// True time.
    now: i64,
    /// How far the operators' clock is ahead.
    skew: i64,
    ca_ttl: i64,
    policy: RotationPolicy,
    kind: AuthorityKind,
    stored: Stored,
    /// What each of two operators last read; none after a restart.
    caches: [Option<(Ledger, u64)>; 2],
    published: BTreeSet<Fingerprint>,
    published_edition: Option<Edition>,
    ever_published: BTreeSet<Fingerprint>,
    ever_revoked: BTreeSet<AuthorityId>,
    secret: Option<Record>,
    /// Whether there ever was an active CA.
    has_signed: bool,
    leaves: Vec<Leaf>,
    /// How often each thing happened, to see that all did.
    counts: BTreeMap<&'static str, u32>,
    made: u64,
}

impl World {
    fn new(seed: u64, kind: AuthorityKind) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let ca_ttl = [6 * HOUR, DAY, 7 * DAY, 90 * DAY, 400 * DAY][random.random_range(0..5)];
        Self {
            random,
            now: START,
            skew: 0,
            ca_ttl,
            policy: RotationPolicy {
                origin: AuthorityOrigin::SelfSigned,
                propagation: PROPAGATION,
            },
            kind,
            stored: Stored {
                ledger: Ledger::default(),
                version: 0,
            },
            caches: [None, None],
            published: BTreeSet::new(),
            published_edition: None,
            ever_published: BTreeSet::new(),
            ever_revoked: BTreeSet::new(),
            secret: None,
            has_signed: false,
            leaves: Vec::new(),
            counts: BTreeMap::new(),
            made: 0,
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn clock(&self) -> Timestamp {
        Timestamp::from_second(self.now + self.skew).unwrap()
    }

    fn make(&mut self, origin: AuthorityOrigin, root: Option<Fingerprint>) -> Record {
        self.made += 1;
        let fingerprint = Fingerprint::of(&self.made.to_be_bytes());
        let begin = self.clock().as_second() - 10;
        Record {
            root: root.unwrap_or_else(|| fingerprint.clone()),
            id: self.made.to_string().as_str().into(),
            fingerprint,
            origin,
            state: AuthorityState::Prepared,
            not_before: Timestamp::from_second(begin).unwrap(),
            not_after: Timestamp::from_second(begin + 10 + self.ca_ttl).unwrap(),
            prepared_at: self.clock(),
            published_at: None,
            activated_at: None,
        }
    }

    /// What a controller does in one pass. It may stop at any point, and what it knew is gone.
    fn pass(&mut self, operator: usize, faults: bool) {
        let fault = |random: &mut StdRng, chance| faults && random.random_bool(chance);
        let stale = fault(&mut self.random, 0.3);
        let (before, mut version) = match self.caches[operator].take() {
            Some(cache) if stale => cache,
            _ => (self.stored.ledger.clone(), self.stored.version),
        };
        let after = self.advance(&before);
        if fault(&mut self.random, 0.1) {
            return self.count("crash before the write");
        }
        if after != before {
            if version != self.stored.version {
                return self.count("lost write race");
            }
            self.write(after.clone());
            version += 1;
        }
        if fault(&mut self.random, 0.1) {
            return self.count("crash after the write");
        }
        if self.kind == AuthorityKind::X509 {
            self.publish(&after);
        }
        if fault(&mut self.random, 0.1) {
            return self.count("crash after publishing");
        }
        self.caches[operator] = Some((after, version));
    }

    fn advance(&mut self, before: &Ledger) -> Ledger {
        let mut ledger = before.clone();
        let candidate = self.secret.clone();
        let published = match self.kind {
            AuthorityKind::X509 => self.published.clone(),
            AuthorityKind::Jwt => roots(before),
        };
        let now = self.clock();
        let usable = candidate
            .as_ref()
            .filter(|c| c.not_before <= now && now <= c.not_after);
        let observed = Observed {
            now,
            published: &published,
            candidate: usable.map(|c| (&c.fingerprint, c.not_after)),
            distrusted: &BTreeSet::new(),
        };
        for steps in 0.. {
            assert!(steps < 50, "does not come to rest: {ledger:?}");
            let Some(step) = next_step(&ledger, &self.policy, &observed) else {
                break;
            };
            let new = match &step {
                Step::Generate => Some(self.make(AuthorityOrigin::SelfSigned, None)),
                Step::Import { .. } => candidate.clone(),
                _ => None,
            };
            if let Step::Activate { fingerprint } = &step {
                let root = &ledger
                    .records()
                    .iter()
                    .find(|r| r.fingerprint == *fingerprint)
                    .unwrap()
                    .root;
                assert!(published.contains(root), "activated, not published");
            }
            self.count(match &step {
                Step::Activate { .. } => "activate",
                Step::ConfirmPublished { .. } => "confirm",
                Step::Discard { .. } => "discard",
                Step::Generate => "generate",
                Step::Import { .. } => "import",
                Step::Prune { .. } => "prune",
            });
            match new {
                Some(record) => {
                    ledger = ledger.with_prepared(record);
                    break;
                }
                None => ledger = ledger.after(&step, now),
            }
        }
        ledger
    }

    /// An older bundle never takes the place of a newer one.
    fn publish(&mut self, ledger: &Ledger) {
        let Some(lineage) = ledger.lineage.clone() else {
            return;
        };
        let sequence = ledger.sequence();
        let edition = Edition { lineage, sequence };
        let published = self.published_edition.as_ref();
        if published.is_none_or(|published| edition.may_replace(published)) {
            self.published_edition = Some(edition);
            self.published = roots(ledger);
            self.ever_published.extend(self.published.iter().cloned());
        }
    }

    /// A replica signs with what it last read.
    fn issue(&mut self) {
        let operator = self.random.random_range(0..2);
        let ledger = match &self.caches[operator] {
            Some((ledger, _)) => ledger,
            None => &self.stored.ledger,
        };
        let Some(active) = ledger.active().cloned() else {
            return;
        };
        let now = self.clock().as_second();
        let ttl = self.random.random_range(1..=self.ca_ttl / 6);
        let not_after = (now + ttl).min(active.not_after.as_second());
        if not_after <= now - 10 {
            return;
        }
        assert!(
            self.ever_published.contains(&active.root),
            "signs before it was published"
        );
        self.leaves.push(Leaf {
            authority: active.fingerprint,
            root: active.root,
            id: active.id,
            not_after,
        });
        self.count("issue");
    }

    fn write(&mut self, ledger: Ledger) {
        if self.kind == AuthorityKind::Jwt {
            self.publish(&ledger);
        }
        self.stored = Stored {
            ledger,
            version: self.stored.version + 1,
        };
    }

    /// Makes another one ready, or has it sign before its time.
    fn force(&mut self) {
        let ledger = self.stored.ledger.clone();
        let prepared = ledger.in_state(AuthorityState::Prepared).cloned();
        if self.random.random_bool(0.7) {
            let Some(prepared) = prepared else {
                return;
            };
            if let Ok(ledger) = ledger.activate_prepared(&prepared.id, self.clock()) {
                assert!(
                    self.ever_published.contains(&prepared.root),
                    "not published"
                );
                self.write(ledger);
                self.count("force");
            }
        } else if ledger.active().is_some() && self.policy.origin == AuthorityOrigin::SelfSigned {
            let discard = prepared.map(|prepared| Step::Discard {
                fingerprint: prepared.fingerprint,
            });
            let now = self.clock();
            let ledger = match discard {
                Some(discard) => ledger.after(&discard, now),
                None => ledger,
            };
            let another = self.make(AuthorityOrigin::SelfSigned, None);
            self.write(ledger.with_prepared(another));
            self.count("prepare");
        }
    }

    fn command(&mut self) {
        let records = self.stored.ledger.records();
        if records.is_empty() {
            return;
        }
        if self.random.random_bool(0.5) {
            return self.force();
        }
        let records = self.stored.ledger.records();
        let target = &records[self.random.random_range(0..records.len())];
        let (id, state) = (target.id.clone(), target.state);
        if self.random.random_bool(0.5) {
            if let Ok(ledger) = self.stored.ledger.clone().taint(&id) {
                assert!(state == AuthorityState::Old || state == AuthorityState::Tainted);
                self.write(ledger);
                self.count("taint");
            }
        } else if let Ok(ledger) = self.stored.ledger.clone().revoke(&id) {
            assert_eq!(state, AuthorityState::Tainted);
            self.write(ledger);
            self.ever_revoked.insert(id);
            self.count("revoke");
        }
    }

    fn change_secret(&mut self) {
        if self.kind == AuthorityKind::Jwt {
            return;
        }
        match self.random.random_range(0..5) {
            0 => {
                self.policy.origin = AuthorityOrigin::SelfSigned;
            }
            1 => {
                // An intermediate under a root that is there already.
                let root = self.stored.ledger.active().map(|a| a.root.clone());
                let shared = self.random.random_bool(0.3);
                self.secret = Some(self.make(AuthorityOrigin::Imported, root.filter(|_| shared)));
                self.policy.origin = AuthorityOrigin::Imported;
            }
            2 => {
                // Back to a CA that signed before.
                let old = self.stored.ledger.records().iter().find(|r| {
                    r.origin == AuthorityOrigin::Imported && r.state == AuthorityState::Old
                });
                if let Some(old) = old.cloned() {
                    self.secret = Some(old);
                    self.policy.origin = AuthorityOrigin::Imported;
                    self.count("reinstate");
                }
            }
            3 => self.renew_secret(),
            _ => self.secret = None,
        }
    }

    /// With the same key, as cert-manager does unless told otherwise.
    fn renew_secret(&mut self) {
        if let Some(secret) = self.secret.take() {
            let renewed = self.make(AuthorityOrigin::Imported, None);
            self.secret = Some(Record {
                id: secret.id,
                ..renewed
            });
        }
    }

    fn check(&mut self) {
        let now = self.now;
        self.leaves.retain(|leaf| now < leaf.not_after);
        let stored = if self.leaves.is_empty() {
            BTreeSet::new()
        } else {
            roots(&self.stored.ledger)
        };
        for leaf in &self.leaves {
            let revoked = self.ever_revoked.contains(&leaf.id);
            assert!(
                revoked || (stored.contains(&leaf.root) && self.published.contains(&leaf.root)),
                "the root of a living leaf is gone"
            );
        }
        for leaf in &self.leaves {
            let authority = self
                .stored
                .ledger
                .records()
                .iter()
                .find(|r| r.fingerprint == leaf.authority);
            if let Some(authority) = authority {
                assert!(leaf.not_after <= authority.not_after.as_second());
            }
        }
        let in_state = |state| {
            let records = self.stored.ledger.records().iter();
            records.filter(|r| r.state == state).count()
        };
        assert!(in_state(AuthorityState::Active) <= 1);
        assert!(in_state(AuthorityState::Prepared) <= 1);
        let signs = in_state(AuthorityState::Active) == 1;
        assert!(signs || !self.has_signed, "nobody signs any more");
        self.has_signed |= signs;
    }

    /// Passes without faults, minutes apart, after which there is a CA that signs.
    fn settle(&mut self) {
        if self.policy.origin == AuthorityOrigin::Imported {
            self.renew_secret();
        }
        for _ in 0..4 {
            self.pass(0, false);
            self.now += 6 * 60;
        }
        self.pass(0, false);
        let now = self.clock();
        if self.policy.origin == AuthorityOrigin::SelfSigned || self.secret.is_some() {
            let active = self.stored.ledger.active().expect("an active CA");
            assert!(active.not_before <= now + SignedDuration::from_mins(5));
            assert!(now < active.not_after, "the active CA has expired");
        }
    }

    fn live(&mut self) {
        while self.now < START + YEARS {
            let step = match self.random.random_range(0..100) {
                0 => self.random.random_range(0..2 * self.ca_ttl),
                1..10 => self.random.random_range(0..=self.ca_ttl / 4),
                _ => self
                    .random
                    .random_range(0..=(self.ca_ttl / 12).max(6 * HOUR)),
            };
            self.now += step;
            match self.random.random_range(0..100) {
                0..60 => {
                    let operator = self.random.random_range(0..2);
                    self.pass(operator, true);
                }
                60..85 => self.issue(),
                85..88 => self.skew = self.random.random_range(-MAX_SKEW..=MAX_SKEW),
                88..91 => self.skew = 0,
                91..93 => self.caches = [None, None],
                93..95 => self.command(),
                95..97 => {
                    self.change_secret();
                    while self.random.random_bool(0.6) {
                        self.pass(0, true);
                        self.check();
                        self.now += self.random.random_range(0..600);
                        self.issue();
                        self.change_secret();
                    }
                }
                _ => self.settle(),
            }
            self.check();
        }
    }
}

fn roots(ledger: &Ledger) -> BTreeSet<Fingerprint> {
    ledger.records().iter().map(|r| r.root.clone()).collect()
}

#[test]
fn ten_years_of_faults_break_no_promise() {
    let of_cas = live_ten_years(AuthorityKind::X509);
    for what in ["import", "reinstate"] {
        assert!(of_cas.contains_key(what), "{what} never happened");
    }
}

#[test]
fn ten_years_of_faults_break_no_promise_of_jwt_keys() {
    live_ten_years(AuthorityKind::Jwt);
}

/// Gives how often each thing happened.
fn live_ten_years(kind: AuthorityKind) -> BTreeMap<&'static str, u32> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..12 {
        let mut world = World::new(seed, kind);
        println!("seed {seed}, lifetime {} h", world.ca_ttl / HOUR);
        world.live();
        for (what, count) in world.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("{counts:?}");
    for what in [
        "activate",
        "confirm",
        "crash after publishing",
        "crash after the write",
        "crash before the write",
        "discard",
        "force",
        "generate",
        "issue",
        "lost write race",
        "prepare",
        "prune",
        "revoke",
        "taint",
    ] {
        assert!(counts.contains_key(what), "{what} never happened");
    }
    counts
}

#[test]
fn a_steady_operator_never_shortens_a_certificate() {
    for ca_ttl in [6 * HOUR, 7 * DAY, 90 * DAY] {
        let mut world = World::new(0, AuthorityKind::X509);
        world.ca_ttl = ca_ttl;
        let tick = ca_ttl / 2000;
        let mut activations = BTreeSet::new();
        while world.now < START + 8 * ca_ttl {
            world.pass(0, false);
            if let Some(active) = world.stored.ledger.active() {
                let left = active.not_after.as_second() - world.now;
                let most = (ca_ttl / 6).min(7 * DAY);
                assert!(
                    left >= most - 2 * tick,
                    "{left} s left under a CA of {ca_ttl} s"
                );
                activations.insert(active.fingerprint.clone());
            }
            world.now += tick;
            world.check();
        }
        assert!(activations.len() >= 8, "{}", activations.len());
    }
}
