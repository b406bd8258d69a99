//! What agents and tools ask about entries. Each question holds the lock only as long as its own
//! entries take.
//!
//! Invariant: nothing is answered before all of the cluster was seen and evaluated once, and no agent
//! of a nested cluster is answered before all of that was. An agent that was told of fewer entries
//! than it has would drop what it holds.

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
        let authorized =
            |registry: &mut Registry| registry.authorized_entries(agent, node_selectors);
        let mut found = self.ask(domain, authorized)?;
        if let Some(member) = self.cluster_of(domain, agent) {
            found.extend(member.ask(domain, authorized)?);
        }
        Ok(found)
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
        let authorized =
            |registry: &mut Registry| registry.authorized_blocks(agent, node_selectors, write);
        let mut found = self.ask(domain, authorized)?;
        if let Some(member) = self.cluster_of(domain, agent) {
            found.extend(member.ask(domain, authorized)?);
        }
        Ok(found)
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
        let authorized =
            |registry: &mut Registry| registry.authorized_among(agent, node_selectors, ids);
        let mut found = self.ask(domain, authorized)?;
        if let Some(member) = self.cluster_of(domain, agent) {
            let of_member = member.ask(domain, authorized)?;
            for (found, other) in found.iter_mut().zip(of_member) {
                *found = found.take().or(other);
            }
        }
        Ok(found)
    }

    /// Whether an entry with this SPIFFE ID gives a right, whatever its parent and selectors are.
    ///
    /// # Errors
    /// Before all of the cluster was seen; also where no entry does, and a nested cluster was not
    /// seen, since it may have one.
    pub fn has_entry(
        &self,
        domain: &str,
        spiffe_id: &SpiffeId,
        right: Right,
    ) -> Result<bool, NotYetSeen> {
        let gives_right =
            |registry: &mut Registry| registry.gives_right(spiffe_id, right).then_some(());
        Ok(self.find(domain, gives_right)?.is_some())
    }

    /// The entry in force with this ID.
    ///
    /// # Errors
    /// Before all of the cluster was seen; also where there is none, it may be that of a pod, and a
    /// nested cluster was not seen.
    pub fn entry(&self, domain: &str, id: &EntryId) -> Result<Option<Arc<Entry>>, NotYetSeen> {
        let find = |registry: &mut Registry| registry.entry(id).cloned();
        if id.is_derived() {
            self.find(domain, find)
        } else {
            self.ask(domain, find)
        }
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
        let same = |registry: &mut Registry| registry.same_entry(entry).cloned();
        match (
            self.ask(domain, same)?,
            self.cluster_of(domain, &entry.parent_id),
        ) {
            (None, Some(member)) => member.ask(domain, same),
            (found, _) => Ok(found),
        }
    }

    /// The entries, but for those of nested clusters that have not been seen, that federate with a
    /// foreign trust domain: those that were made through the Entry
    /// API and name it, whether or not its bundle is known, and the others that are in force with it.
    ///
    /// # Errors
    /// Before all of the cluster was seen.
    pub fn entries_federated_with(
        &self,
        domain: &str,
        foreign: &TrustDomainName,
    ) -> Result<Vec<Arc<Entry>>, NotYetSeen> {
        let federated = |registry: &mut Registry| registry.entries_federated_with(foreign);
        let mut found = self.ask(domain, federated)?;
        for member in self.members_of(domain) {
            found.extend(member.ask(domain, federated).unwrap_or_default());
        }
        Ok(found)
    }

    /// The first `limit` entries whose IDs come after `id`, in the order of IDs, but for those of
    /// nested clusters that have not been seen. Who wants them all asks slice by slice, so that others have their turn in between.
    ///
    /// # Errors
    /// Before all of the cluster was seen.
    pub fn entries_after(
        &self,
        domain: &str,
        id: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<Arc<Entry>>, NotYetSeen> {
        let after =
            |registry: &mut Registry| registry.entries_after(id).take(limit).cloned().collect();
        let mut found: Vec<_> = self.ask(domain, after)?;
        for member in self.members_of(domain) {
            found.extend(member.ask(domain, after).unwrap_or_default());
        }
        found.sort_by(|one, other| one.id.cmp(&other.id));
        found.truncate(limit);
        Ok(found)
    }

    /// What is found here or in a nested cluster.
    fn find<T>(
        &self,
        domain: &str,
        answer: impl Fn(&mut Registry) -> Option<T>,
    ) -> Result<Option<T>, NotYetSeen> {
        if let Some(found) = self.ask(domain, &answer)? {
            return Ok(Some(found));
        }
        let mut unseen = None;
        for member in self.members_of(domain) {
            match member.ask(domain, &answer) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => unseen = Some(error),
            }
        }
        unseen.map_or(Ok(None), Err)
    }

    /// What is missing before agents of the TrustDomain object `domain` in this cluster are told of
    /// their entries, in words for the user; none once all was seen.
    #[must_use]
    pub fn missing(&self, domain: &str) -> Option<String> {
        let seen = self.ask(domain, |_| ());
        seen.err().map(|unseen| unseen.to_string())
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
