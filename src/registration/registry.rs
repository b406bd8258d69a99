//! The registry: objects in, changes of entries out. One for each trust domain in each cluster.
//!
//! Pods and ClusterStaticEntries take effect at once. Whatever may concern many pods marks them, and
//! [`Registry::process`] does the work in slices, so that the caller can do other things in between.
//!
//! Invariants:
//! - When nothing is marked, the entries are what rendering everything from scratch would give,
//!   whatever order the objects came in.
//! - The cost of an event follows the objects that match the pods it concerns.
//! - An object that is broken keeps its last good spec in force; a node that is gone is remembered
//!   as long as pods are on it.
//!
//! Parts: [`objects`] (ClusterSPIFFEIDs and ClusterStaticEntries come and go), [`registered`]
//! (RegistrationEntries do), [`federation`] (bundles of foreign trust domains do), [`cluster`] (pods,
//! nodes, namespaces and EndpointSlices do), [`evaluate`] (what a pod gets), [`index`] (the entries in
//! force), [`queries`].

mod cluster;
mod evaluate;
mod federation;
mod index;
mod objects;
mod queries;
mod registered;
mod tally;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use self::index::{Right, WriteBlocks};
use self::{
    cluster::{NamespaceState, NodeState},
    evaluate::PodState,
    index::Index,
    objects::{ClusterSpiffeIdState, PodIndex, StaticEntryState},
    registered::RegisteredEntries,
    tally::Tally,
};
use super::{
    entry::SourceKind, masking::Candidates, report::Change, services::Services, settings::Settings,
};
use crate::spiffe::TrustDomainName;

/// Entries of one trust domain in one cluster, kept current.
#[derive(Debug)]
pub struct Registry {
    settings: Settings,
    pods: BTreeMap<Arc<str>, PodState>,
    namespaces: BTreeMap<Arc<str>, NamespaceState>,
    nodes: BTreeMap<Arc<str>, NodeState>,
    services: Services,
    cluster_spiffe_ids: BTreeMap<Arc<str>, ClusterSpiffeIdState>,
    pod_index: PodIndex,
    static_entries: BTreeMap<Arc<str>, StaticEntryState>,
    registered: RegisteredEntries,
    /// The foreign trust domains whose bundles are known.
    foreign: BTreeSet<TrustDomainName>,
    candidates: Candidates,
    index: Index,
    /// Kept by name and apart from the objects, so that a count survives until the last pod has
    /// been told that its object is gone.
    tallies: BTreeMap<Arc<str>, Tally>,
    /// UIDs of pods to evaluate.
    marked: BTreeSet<Arc<str>>,
    changed_reports: BTreeSet<(SourceKind, Arc<str>)>,
    revision: u64,
    next_version: u64,
}

impl Registry {
    /// A registry that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut new = Self {
            settings,
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            nodes: BTreeMap::new(),
            services: Services::default(),
            cluster_spiffe_ids: BTreeMap::new(),
            pod_index: PodIndex::default(),
            static_entries: BTreeMap::new(),
            registered: RegisteredEntries::default(),
            foreign: BTreeSet::new(),
            candidates: Candidates::default(),
            index: Index::default(),
            tallies: BTreeMap::new(),
            marked: BTreeSet::new(),
            changed_reports: BTreeSet::new(),
            revision: 0,
            next_version: 0,
        };
        new.register_servers();
        new
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Replaces the settings and marks every pod. The trust domain's name must stay the same: it is
    /// immutable.
    pub fn set_settings(&mut self, settings: Settings) -> Vec<Change> {
        self.settings = settings;
        for (name, namespace) in &mut self.namespaces {
            namespace.ignored = self.settings.ignores_namespace(name);
        }
        let nodes: Vec<_> = self.nodes.keys().cloned().collect();
        for node in &nodes {
            self.render_parent_id(node);
        }
        for (uid, pod) in &mut self.pods {
            pod.is_stale = true;
            self.marked.insert(uid.clone());
        }
        let names: Vec<_> = self.cluster_spiffe_ids.keys().cloned().collect();
        for name in &names {
            self.reclassify_cluster_spiffe_id(name);
        }
        self.register_servers();
        let names: Vec<_> = self.static_entries.keys().cloned().collect();
        names
            .iter()
            .flat_map(|name| self.reclassify_static_entry(name))
            .collect()
    }

    /// Evaluates up to `budget` marked pods; the flag says whether more are marked.
    pub fn process(&mut self, budget: usize) -> (Vec<Change>, bool) {
        let mut changes = Vec::new();
        for _ in 0..budget {
            let Some(uid) = self.marked.pop_first() else {
                break;
            };
            changes.extend(self.evaluate(&uid));
        }
        (changes, !self.marked.is_empty())
    }

    /// How often the entries in force have changed.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The objects whose reports may have changed since this was asked last.
    pub fn take_changed_reports(&mut self) -> BTreeSet<(SourceKind, Arc<str>)> {
        std::mem::take(&mut self.changed_reports)
    }

    fn new_version(&mut self) -> u64 {
        self.next_version += 1;
        self.next_version
    }
}

#[cfg(test)]
mod naive;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
