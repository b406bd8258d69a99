//! Bundles of foreign trust domains become known and are forgotten. Entries name those trust domains
//! only of which there is a bundle, so that no agent asks for one in vain.

use std::{collections::BTreeSet, sync::Arc};

use super::{Registry, tally::Exchange};
use crate::{
    registration::{
        entry::Entry,
        report::{Change, RemovalCause},
    },
    spiffe::TrustDomainName,
};

impl Registry {
    /// Says of which foreign trust domains there is a bundle. Pods are marked where that matters.
    pub fn set_foreign_bundles(&mut self, known: BTreeSet<TrustDomainName>) -> Vec<Change> {
        let concerned: BTreeSet<_> = self.foreign.symmetric_difference(&known).cloned().collect();
        if concerned.is_empty() {
            return Vec::new();
        }
        self.foreign = known;
        let is_concerned =
            |names: &[TrustDomainName]| names.iter().any(|name| concerned.contains(name));

        let ids = self.cluster_spiffe_ids.iter().filter(|(_, state)| {
            let spec = state.object.active();
            spec.is_some_and(|spec| is_concerned(&spec.federates_with))
        });
        let ids: Vec<_> = ids.map(|(name, _)| name.clone()).collect();
        ids.iter().for_each(|name| self.remake_entries_of(name));

        let entries = self.static_entries.iter().filter(|(_, state)| {
            let spec = state.object.active();
            spec.is_some_and(|spec| is_concerned(&spec.federates_with))
        });
        let entries: Vec<_> = entries.map(|(name, _)| name.clone()).collect();
        let mut changes: Vec<_> = entries
            .iter()
            .flat_map(|name| self.reclassify_static_entry(name))
            .collect();

        let registered = self.registered.declared();
        let registered = registered.filter(|entry| is_concerned(&entry.federates_with));
        let registered: Vec<_> = registered.cloned().collect();
        for declared in &registered {
            let old = self.registered.take(&declared.source.name).into_iter();
            let new = self.restricted(declared);
            self.registered.put(declared, &new);
            changes.extend(self.settle(&Exchange {
                gone: old.map(|old| (old, RemovalCause::Rewritten)).collect(),
                new: vec![new],
            }));
        }
        changes
    }

    /// The entries that federate with a foreign trust domain: those that were made through the Entry
    /// API and name it, in force or not, and the others that are in force with it.
    #[must_use]
    pub fn entries_federated_with(&self, foreign: &TrustDomainName) -> Vec<Arc<Entry>> {
        let others = self.entries().filter(|entry| entry.registered.is_none());
        let all = self.registered.declared().chain(others);
        all.filter(|entry| entry.federates_with.contains(foreign))
            .cloned()
            .collect()
    }

    /// The entry without the foreign trust domains whose bundles are not known. The own trust domain
    /// stays where it was named through the Entry API, as in spire-server.
    pub(super) fn restricted(&self, declared: &Arc<Entry>) -> Arc<Entry> {
        let own = &self.settings.cluster.trust_domain;
        let is_registered = declared.registered.is_some();
        let stays =
            |name: &TrustDomainName| self.foreign.contains(name) || (is_registered && name == own);
        if declared.federates_with.iter().all(stays) {
            return declared.clone();
        }
        let mut entry = (**declared).clone();
        entry.federates_with.retain(stays);
        Arc::new(entry.with_revision())
    }
}
