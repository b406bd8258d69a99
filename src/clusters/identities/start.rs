//! What must have been seen before pods may be told their identities.
//!
//! Until then a pod may have an entry that it will not keep: another object that selects it, the
//! last good spec of one, or the field that a template reads has not been seen. A certificate that
//! was signed by such an entry could not be taken back.

use std::collections::BTreeSet;

use crate::clusters::identities::objects::Objects;
use crate::clusters::identities::{Domain, Identities, State};

/// The lists that entries follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum List {
    ClusterSpiffeIds,
    ClusterStaticEntries,
    EndpointSlices,
    ForeignBundles,
    Namespaces,
    NestedClusters,
    Nodes,
    Pods,
    RegistrationEntries,
}

impl List {
    pub(super) const ALL: [Self; 9] = [
        Self::ClusterSpiffeIds,
        Self::ClusterStaticEntries,
        Self::EndpointSlices,
        Self::ForeignBundles,
        Self::Namespaces,
        Self::NestedClusters,
        Self::Nodes,
        Self::Pods,
        Self::RegistrationEntries,
    ];
    /// Those of the cluster that pods are in.
    pub(super) const OF_PODS: [Self; 4] = [
        Self::EndpointSlices,
        Self::Namespaces,
        Self::Nodes,
        Self::Pods,
    ];
    /// Those that count in nested clusters, too.
    pub(super) const HANDED_ON: [Self; 2] = [Self::ClusterSpiffeIds, Self::ForeignBundles];

    fn as_str(self) -> &'static str {
        match self {
            Self::ClusterSpiffeIds => "ClusterSPIFFEIDs",
            Self::ClusterStaticEntries => "ClusterStaticEntries",
            Self::EndpointSlices => "EndpointSlices",
            Self::ForeignBundles => "foreign bundles",
            Self::Namespaces => "namespaces",
            Self::NestedClusters => "NestedClusters",
            Self::Nodes => "nodes",
            Self::Pods => "pods",
            Self::RegistrationEntries => "RegistrationEntries",
        }
    }
}

impl Identities {
    /// Notes which trust domains have been settled for the first time, tells the pods that were
    /// asked about before, and what is wrong.
    pub(super) fn note_settled(&self, state: &mut State) {
        let State {
            objects,
            domains,
            unlisted,
            ..
        } = state;
        if !unlisted.is_empty() {
            return;
        }
        for (name, domain) in domains.iter_mut().filter(|(_, domain)| !domain.is_settled) {
            if domain.registry.is_settled() && objects.unsought(&domain.registry).is_empty() {
                domain.is_settled = true;
                for uid in std::mem::take(&mut domain.asked_early) {
                    self.tell_pod(&uid);
                }
                for trouble in domain.registry.troubles() {
                    self.tell_change(name, trouble);
                }
            }
        }
    }
}

/// What is still missing before the pods of `domain` are told their identities, in words for the
/// user.
pub(super) fn what_is_missing(
    unlisted: &BTreeSet<List>,
    objects: &Objects,
    domain: &Domain,
) -> String {
    let unsought = objects.unsought(&domain.registry);
    let lists: Vec<_> = unlisted.iter().copied().map(List::as_str).collect();
    let names: Vec<_> = unsought.iter().map(|(object, _)| &*object.name).collect();
    let missing = match (lists.as_slice(), names.as_slice()) {
        ([], []) => "pods are being evaluated".to_owned(),
        ([], names) => format!("last good specs not looked for yet: {}", names.join(", ")),
        (lists, _) => format!("not listed yet: {}", lists.join(", ")),
    };
    format!("the operator is starting: it has not seen all of the cluster yet ({missing})")
}
