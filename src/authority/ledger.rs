//! The ledger of a trust domain's authorities of one kind, CAs or JWT keys: where each is in its
//! life, and how steps change that. Which step is due is decided in [`super::rotation`].
//!
//! The words are those of CAs. A JWT key has no certificate and no chain: it is its own root, and
//! its fingerprint is that of its ID.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::spiffe::{Fingerprint, KeyId};

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
    /// A server above signs them; the keys are ours.
    Upstream,
}

/// The name of an authority, as SPIRE gives it: of a CA its subject key identifier in lower-case
/// hexadecimal digits, of a JWT key its `kid`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorityId(String);

impl AuthorityId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&KeyId> for AuthorityId {
    fn from(key_id: &KeyId) -> Self {
        Self(key_id.to_string())
    }
}

impl From<&str> for AuthorityId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

impl std::fmt::Display for AuthorityId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Debug for AuthorityId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// What rotation needs to know of a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of the CA's certificate and the chain above it.
    pub fingerprint: Fingerprint,
    /// Of the root's certificate, by which publication is confirmed.
    pub root: Fingerprint,
    /// The authority's ID for people. A renewed certificate may keep it.
    pub id: AuthorityId,
    /// Where it comes from.
    pub origin: AuthorityOrigin,
    /// Where it is in its life.
    pub state: AuthorityState,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity, or of the first certificate above it that ends earlier.
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
    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        now < self.not_after && !self.begins_after(now)
    }

    fn begins_after(&self, now: Timestamp) -> bool {
        now.duration_until(self.not_before) > CLOCK_TOLERANCE
    }

    /// Whether less than the given part of the lifetime is left, or less than the most that is
    /// ever waited for.
    pub(super) fn is_within(
        &self,
        share: fn(SignedDuration) -> SignedDuration,
        now: Timestamp,
    ) -> bool {
        let lifetime = self.not_before.duration_until(self.not_after);
        now.duration_until(self.not_after) < share(lifetime)
    }
}

/// The CAs of a trust domain, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub(super) records: Vec<Record>,
    pub(super) sequence: u64,
    /// Set with the first CA, and never changed.
    pub(super) lineage: Option<String>,
}

/// Which state of which history of CAs a published bundle was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edition {
    /// The history. A journal that begins anew, because the one before was lost, has another one.
    pub lineage: String,
    /// How far it had come.
    pub sequence: u64,
}

impl Edition {
    /// Whether a bundle of this edition may take the place of one of `published`: within a lineage
    /// nothing goes back, for roots of living certificates would disappear.
    #[must_use]
    pub fn may_replace(&self, published: &Self) -> bool {
        self.lineage != published.lineage || self.sequence >= published.sequence
    }
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
    /// Prepare the CA of the Secret, or the one that the server above has signed.
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

impl Step {
    /// The CA that it is about; none for one that is yet to be made.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&Fingerprint> {
        match self {
            Self::Activate { fingerprint }
            | Self::ConfirmPublished { fingerprint }
            | Self::Discard { fingerprint }
            | Self::Import { fingerprint }
            | Self::Prune { fingerprint } => Some(fingerprint),
            Self::Generate => None,
        }
    }
}

/// Why a command on an authority is refused: each has rules for what it may be done to (SPIRE,
/// `pkg/server/api/localauthority`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// It is tainted.
    #[error("the authority is tainted already")]
    AlreadyTainted,
    /// It signs.
    #[error("the authority is active; activate another one first")]
    Active,
    /// It has ended.
    #[error("the authority has expired; prepare another one")]
    Expired,
    /// Only prepared authorities are activated.
    #[error("the authority is not prepared")]
    NotPrepared,
    /// Verifiers do not have it yet.
    #[error("the authority is not seen in the published bundle yet; try again in some seconds")]
    NotPublished,
    /// Only tainted authorities are revoked.
    #[error("the authority is not tainted; taint it first, and let workloads get new certificates")]
    NotTainted,
    /// It is about to sign.
    #[error("the authority is prepared; only an old one can be tainted or revoked")]
    Prepared,
    /// No such authority.
    #[error("there is no such authority")]
    Unknown,
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
        self.lineage.get_or_insert_with(|| begun_with(&record));
        self.records.push(Record {
            state: AuthorityState::Prepared,
            published_at: None,
            activated_at,
            ..record
        });
        self.sequence += 1;
        self
    }

    /// Lets the prepared CA of this ID sign from now on, before its time.
    ///
    /// # Errors
    /// When there is none, or its root is not known to be published.
    pub fn activate_prepared(
        mut self,
        id: &AuthorityId,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let prepared = self.in_state(AuthorityState::Prepared);
        let Some(prepared) = prepared.filter(|record| record.id == *id) else {
            return Err(match self.states_of(id).next() {
                Some(_) => AuthorityError::NotPrepared,
                None => AuthorityError::Unknown,
            });
        };
        if !prepared.is_valid(now) {
            return Err(AuthorityError::Expired);
        }
        if prepared.published_at.is_none() {
            return Err(AuthorityError::NotPublished);
        }
        let fingerprint = prepared.fingerprint.clone();
        self.activate(&fingerprint, now);
        Ok(self)
    }

    /// Marks the old CAs of this ID: their leaves are to be replaced.
    ///
    /// # Errors
    /// When there is none, one of them may still sign, or all are tainted.
    pub fn taint(mut self, id: &AuthorityId) -> Result<Self, AuthorityError> {
        self.check_retired(id)?;
        if self
            .states_of(id)
            .all(|state| state == AuthorityState::Tainted)
        {
            return Err(AuthorityError::AlreadyTainted);
        }
        for record in self.records.iter_mut().filter(|r| r.id == *id) {
            record.state = AuthorityState::Tainted;
        }
        self.sequence += 1;
        Ok(self)
    }

    /// Drops the tainted CAs of this ID. A root goes with its last CA.
    ///
    /// # Errors
    /// When there is none, one of them may still sign, or is not tainted.
    pub fn revoke(mut self, id: &AuthorityId) -> Result<Self, AuthorityError> {
        self.check_retired(id)?;
        let mut same_key = self.records.iter().filter(|r| r.id == *id);
        if same_key.any(|record| record.state != AuthorityState::Tainted) {
            return Err(AuthorityError::NotTainted);
        }
        self.remove(|record| record.id == *id);
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

    fn check_retired(&self, id: &AuthorityId) -> Result<(), AuthorityError> {
        let mut states = self.states_of(id).peekable();
        if states.peek().is_none() {
            return Err(AuthorityError::Unknown);
        }
        states.try_for_each(|state| match state {
            AuthorityState::Active => Err(AuthorityError::Active),
            AuthorityState::Prepared => Err(AuthorityError::Prepared),
            AuthorityState::Old | AuthorityState::Tainted => Ok(()),
        })
    }

    fn states_of(&self, id: &AuthorityId) -> impl Iterator<Item = AuthorityState> {
        let of_id = self.records.iter().filter(move |record| record.id == *id);
        of_id.map(|record| record.state)
    }

    pub(super) fn in_state(&self, state: AuthorityState) -> Option<&Record> {
        self.records.iter().find(|record| record.state == state)
    }

    pub(super) fn find(&self, fingerprint: &Fingerprint) -> Option<&Record> {
        self.records.iter().find(|r| r.fingerprint == *fingerprint)
    }

    fn find_mut(&mut self, fingerprint: &Fingerprint) -> Option<&mut Record> {
        self.records
            .iter_mut()
            .find(|record| record.fingerprint == *fingerprint)
    }
}

/// The name of a history. The time is in it because an imported CA can begin more than one.
fn begun_with(first: &Record) -> String {
    let beginning = format!("{} {}", first.fingerprint, first.prepared_at);
    Fingerprint::of(beginning.as_bytes()).to_string()
}
