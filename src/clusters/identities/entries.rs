//! What agents and tools ask about entries. Each question holds the lock only as long as its own
//! entries take.
//!
//! Invariant: nothing is answered before all of the cluster was seen and evaluated once. An agent that
//! was told of fewer entries than it has would drop what it holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::clusters::identities::{Identities, State, start};
use crate::registration::{Entry, EntryId, EntrySelector, Registry, Right, WriteBlocks};
use crate::spiffe::{SpiffeId, TrustDomainName};

/// Not all of the cluster was seen and evaluated yet; what is missing, in words for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{missing}")]
pub struct NotYetSeen {
    missing: String,
}

impl Identities {
    /// The entries that an agent of the TrustDomain object `domain` may fetch, in no order that
    /// means anything.
    ///
    /// # Errors
    /// Before all of the cluster was seen.
    pub fn authorized_entries(
        &self,
        domain: &str,
        agent: &SpiffeId,
        node_selectors: &BTreeSet<EntrySelector>,
    ) -> Result<Vec<Arc<Entry>>, NotYetSeen> {
        self.ask(domain, |registry| {
            registry.authorized_entries(agent, node_selectors)
        })
    }

    /// The entries that an agent may fetch as `write` makes them, which must be the same function
    /// always.
    ///
    /// # Errors
    /// Before all of the cluster was seen.
    pub fn authorized_blocks(
        &self,
        domain: &str,
        agent: &SpiffeId,
        node_selectors: &BTreeSet<EntrySelector>,
        write: WriteBlocks,
    ) -> Result<Vec<Arc<[u8]>>, NotYetSeen> {
        self.ask(domain, |registry| {
            registry.authorized_blocks(agent, node_selectors, write)
        })
    }

    /// For each of `ids` the entry, if the agent may fetch it.
    ///
    /// # Errors
    /// Before all of the cluster was seen.
    pub fn authorized_among(
        &self,
        domain: &str,
        agent: &SpiffeId,
        node_selectors: &BTreeSet<EntrySelector>,
        ids: &[EntryId],
    ) -> Result<Vec<Option<Arc<Entry>>>, NotYetSeen> {
        self.ask(domain, |registry| {
            registry.authorized_among(agent, node_selectors, ids)
        })
    }

    /// Whether an entry with this SPIFFE ID gives a right, whatever its parent and selectors are.
    ///
    /// # Errors
    /// Before all of the cluster was seen.
    pub fn has_entry(
        &self,
        domain: &str,
        spiffe_id: &SpiffeId,
        right: Right,
    ) -> Result<bool, NotYetSeen> {
        self.ask(domain, |registry| registry.gives_right(spiffe_id, right))
    }

    /// The entry in force with this ID.
    ///
    /// # Errors
    /// Before all of the cluster was seen.
    pub fn entry(&self, domain: &str, id: &EntryId) -> Result<Option<Arc<Entry>>, NotYetSeen> {
        self.ask(domain, |registry| registry.entry(id).cloned())
    }

    /// The entry in force with the SPIFFE ID, parent ID and selectors of `entry`.
    ///
    /// # Errors
    /// Before all of the cluster was seen.
    pub fn same_entry(
        &self,
        domain: &str,
        entry: &Entry,
    ) -> Result<Option<Arc<Entry>>, NotYetSeen> {
        self.ask(domain, |registry| registry.same_entry(entry).cloned())
    }

    /// The entries that federate with a foreign trust domain: those that were made through the Entry
    /// API and name it, whether or not its bundle is known, and the others that are in force with it.
    ///
    /// # Errors
    /// Before all of the cluster was seen.
    pub fn entries_federated_with(
        &self,
        domain: &str,
        foreign: &TrustDomainName,
    ) -> Result<Vec<Arc<Entry>>, NotYetSeen> {
        self.ask(domain, |registry| registry.entries_federated_with(foreign))
    }

    /// The first `limit` entries whose IDs come after `id`, in the order of IDs. Who wants them all
    /// asks slice by slice, so that others have their turn in between.
    ///
    /// # Errors
    /// Before all of the cluster was seen.
    pub fn entries_after(
        &self,
        domain: &str,
        id: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<Arc<Entry>>, NotYetSeen> {
        self.ask(domain, |registry| {
            registry.entries_after(id).take(limit).cloned().collect()
        })
    }

    fn ask<T>(
        &self,
        domain: &str,
        answer: impl FnOnce(&mut Registry) -> T,
    ) -> Result<T, NotYetSeen> {
        let mut state = self.lock();
        let State {
            objects,
            domains,
            unlisted,
            ..
        } = &mut *state;
        match domains.get_mut(domain) {
            Some(domain) if domain.is_settled => Ok(answer(&mut domain.registry)),
            Some(domain) => Err(NotYetSeen {
                missing: start::what_is_missing(unlisted, objects, domain),
            }),
            None => Err(NotYetSeen {
                missing: format!("the operator does not serve the TrustDomain {domain} yet"),
            }),
        }
    }
}
