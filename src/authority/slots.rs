//! The authorities of one kind with what stands behind each: the key of one that signs or will, and
//! of the others only what verifiers need. They never sign again.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{AuthorityState, JournalError, Ledger, Record};
use crate::spiffe::Fingerprint;

/// An authority with its private key.
pub(super) trait Signing: fmt::Debug {
    /// What verifiers need once it signs no more.
    type Public: Clone + fmt::Debug;

    /// That.
    fn public(&self) -> Self::Public;
}

/// What stands behind a record.
#[derive(Debug)]
pub(super) enum Material<S: Signing> {
    /// An authority that signs or will.
    Signing(Arc<S>),
    /// One that signs no more.
    Retired(S::Public),
}

impl<S: Signing> Clone for Material<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Signing(signer) => Self::Signing(Arc::clone(signer)),
            Self::Retired(public) => Self::Retired(public.clone()),
        }
    }
}

/// The authorities of one kind.
#[derive(Debug)]
pub(super) struct Slots<S: Signing> {
    ledger: Ledger,
    material: BTreeMap<Fingerprint, Material<S>>,
}

impl<S: Signing> Clone for Slots<S> {
    fn clone(&self) -> Self {
        Self {
            ledger: self.ledger.clone(),
            material: self.material.clone(),
        }
    }
}

impl<S: Signing> Default for Slots<S> {
    fn default() -> Self {
        Self {
            ledger: Ledger::default(),
            material: BTreeMap::new(),
        }
    }
}

impl<S: Signing> Slots<S> {
    /// What was read, with the sequence number and lineage of its ledger.
    ///
    /// # Errors
    /// When an authority is there twice, or two are in a state that only one can have.
    pub(super) fn read(
        entries: Vec<(Record, Material<S>)>,
        sequence: u64,
        lineage: Option<String>,
    ) -> Result<Self, JournalError> {
        let mut slots = Self::default();
        for (record, material) in entries {
            let fingerprint = record.fingerprint.clone();
            if slots.material.insert(fingerprint, material).is_some() {
                return Err(JournalError::Repeated { id: record.id });
            }
            slots.ledger.records.push(record);
        }
        for state in [AuthorityState::Active, AuthorityState::Prepared] {
            let records = slots.ledger.records.iter();
            if records.filter(|record| record.state == state).count() > 1 {
                return Err(JournalError::Several { state });
            }
        }
        slots.ledger.sequence = sequence;
        slots.ledger.lineage = lineage;
        Ok(slots)
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The one that signs.
    pub(super) fn active(&self) -> Option<&Arc<S>> {
        match self.material.get(&self.ledger.active()?.fingerprint)? {
            Material::Signing(signer) => Some(signer),
            Material::Retired(_) => None,
        }
    }

    /// The records with what stands behind them, oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Record, &Material<S>)> {
        let records = self.ledger.records.iter();
        records.filter_map(|record| Some((record, self.material.get(&record.fingerprint)?)))
    }

    /// With another one to publish.
    pub(super) fn with_prepared(mut self, record: Record, signer: Arc<S>) -> Self {
        self.material
            .insert(record.fingerprint.clone(), Material::Signing(signer));
        let ledger = self.ledger.clone().with_prepared(record);
        self.with_ledger(ledger)
    }

    /// With the ledger that came of a step or command. Keys that are no longer needed go.
    pub(super) fn with_ledger(self, ledger: Ledger) -> Self {
        let mut known = self.material;
        let material = ledger.records.iter().filter_map(|record| {
            let material = match known.remove(&record.fingerprint)? {
                Material::Signing(signer) if !needs_key(record.state) => {
                    Material::Retired(signer.public())
                }
                kept => kept,
            };
            Some((record.fingerprint.clone(), material))
        });
        Self {
            material: material.collect(),
            ledger,
        }
    }
}

/// Whether an authority in `state` keeps its private key.
pub(super) fn needs_key(state: AuthorityState) -> bool {
    matches!(state, AuthorityState::Prepared | AuthorityState::Active)
}
