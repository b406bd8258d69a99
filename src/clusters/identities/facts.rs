//! The facts of a cluster as the watches gave them, for trust domains that come later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, ObjectReference, Pod};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::{
    ClusterSPIFFEID, ClusterSpiffeIdSpec, ClusterStaticEntry, ClusterStaticEntrySpec,
};
use crate::clusters::identities::{ObjectName, ObjectReport};
use crate::registration::selector::Selector;
use crate::registration::{
    Change, FieldSet, Interner, Labels, NodeFacts, PodFacts, Registry, SourceKind,
};

/// Everything that registries are fed with, as small as they need it.
#[derive(Debug, Default)]
pub(super) struct Facts {
    interner: Interner,
    pods: BTreeMap<Arc<str>, Arc<PodFacts>>,
    namespaces: BTreeMap<String, KnownNamespace>,
    /// Whether a complete list of namespaces was seen.
    namespaces_are_complete: bool,
    nodes: BTreeMap<Arc<str>, Arc<NodeFacts>>,
    endpoint_slices: BTreeMap<(String, String), Arc<EndpointSlice>>,
    cluster_spiffe_ids: BTreeMap<String, Known<ClusterSPIFFEID, ClusterSpiffeIdSpec>>,
    cluster_static_entries: BTreeMap<String, Known<ClusterStaticEntry, ClusterStaticEntrySpec>>,
}

#[derive(Debug)]
struct KnownNamespace {
    object: Namespace,
    labels: Labels,
}

/// An object, and the last good spec that was kept of it from before this process.
#[derive(Debug)]
struct Known<K, S> {
    object: Arc<K>,
    last_good: Option<S>,
}

impl Facts {
    /// Feeds everything into a new registry. Objects come last, so that pods are evaluated once.
    pub(super) fn replay(&self, registry: &mut Registry) -> Vec<Change> {
        self.namespaces
            .values()
            .for_each(|known| registry.apply_namespace(&known.object));
        self.nodes
            .values()
            .for_each(|node| registry.apply_node(Arc::clone(node)));
        self.endpoint_slices
            .values()
            .for_each(|slice| registry.apply_endpoint_slice(slice));
        let mut changes = Vec::new();
        for pod in self.pods.values() {
            changes.extend(registry.apply_pod(Arc::clone(pod)));
        }
        for known in self.cluster_spiffe_ids.values() {
            registry.apply_cluster_spiffe_id(&known.object, known.last_good.as_ref());
        }
        for known in self.cluster_static_entries.values() {
            let last_good = known.last_good.as_ref();
            changes.extend(registry.apply_cluster_static_entry(&known.object, last_good));
        }
        changes
    }

    /// The facts of a pod; none when they are no news.
    pub(super) fn apply_pod(&mut self, pod: &Pod, keep: &FieldSet) -> Option<Arc<PodFacts>> {
        let facts = PodFacts::from_pod(pod, keep, &mut self.interner)?;
        if self
            .pods
            .get(&facts.uid)
            .is_some_and(|known| *known == facts)
        {
            return None;
        }
        self.pods.insert(Arc::clone(&facts.uid), Arc::clone(&facts));
        Some(facts)
    }

    pub(super) fn delete_pod(&mut self, uid: &str) -> bool {
        self.pods.remove(uid).is_some()
    }

    pub(super) fn pod(&self, uid: &str) -> Option<Arc<PodFacts>> {
        self.pods.get(uid).cloned()
    }

    pub(super) fn pods_except(&self, uids: &BTreeSet<String>) -> Vec<Arc<str>> {
        self.pods
            .keys()
            .filter(|uid| !uids.contains(&***uid))
            .cloned()
            .collect()
    }

    pub(super) fn apply_namespace(&mut self, namespace: &Namespace) {
        let labels = self.interner.labels(namespace.metadata.labels.as_ref());
        let object = Namespace {
            metadata: ObjectMeta {
                name: namespace.metadata.name.clone(),
                labels: namespace.metadata.labels.clone(),
                deletion_timestamp: namespace.metadata.deletion_timestamp.clone(),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let name = namespace.metadata.name.clone().unwrap_or_default();
        self.namespaces
            .insert(name, KnownNamespace { object, labels });
    }

    pub(super) fn delete_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    pub(super) fn namespaces_except(&self, names: &BTreeSet<String>) -> Vec<String> {
        self.namespaces
            .keys()
            .filter(|name| !names.contains(*name))
            .cloned()
            .collect()
    }

    pub(super) fn complete_namespaces(&mut self) {
        self.namespaces_are_complete = true;
    }

    /// None before a complete list was seen: what is missing then may be there.
    pub(super) fn namespaces_matching(&self, selector: &Selector) -> Option<BTreeSet<String>> {
        let matching = self
            .namespaces
            .iter()
            .filter(|(_, known)| known.object.metadata.deletion_timestamp.is_none())
            .filter(|(_, known)| selector.matches(&known.labels))
            .map(|(name, _)| name.clone());
        self.namespaces_are_complete.then(|| matching.collect())
    }

    /// The facts of a node; none when they are no news.
    pub(super) fn apply_node(&mut self, node: &Node) -> Option<Arc<NodeFacts>> {
        let facts = NodeFacts::from_node(node, &mut self.interner)?;
        if self
            .nodes
            .get(&facts.name)
            .is_some_and(|known| *known == facts)
        {
            return None;
        }
        self.nodes
            .insert(Arc::clone(&facts.name), Arc::clone(&facts));
        Some(facts)
    }

    pub(super) fn delete_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    pub(super) fn nodes_except(&self, names: &BTreeSet<String>) -> Vec<String> {
        let gone = self.nodes.keys().filter(|name| !names.contains(&***name));
        gone.map(ToString::to_string).collect()
    }

    /// What registries read of a slice; none when it is no news.
    pub(super) fn apply_endpoint_slice(
        &mut self,
        slice: &EndpointSlice,
    ) -> Option<Arc<EndpointSlice>> {
        let metadata = &slice.metadata;
        let key = (metadata.namespace.clone()?, metadata.name.clone()?);
        let slice = trimmed(slice);
        if self
            .endpoint_slices
            .get(&key)
            .is_some_and(|known| **known == slice)
        {
            return None;
        }
        let slice = Arc::new(slice);
        self.endpoint_slices.insert(key, Arc::clone(&slice));
        Some(slice)
    }

    pub(super) fn delete_endpoint_slice(&mut self, namespace: &str, name: &str) {
        self.endpoint_slices
            .remove(&(namespace.to_owned(), name.to_owned()));
    }

    pub(super) fn endpoint_slices_except(
        &self,
        names: &BTreeSet<(String, String)>,
    ) -> Vec<(String, String)> {
        self.endpoint_slices
            .keys()
            .filter(|name| !names.contains(*name))
            .cloned()
            .collect()
    }

    /// Keeps the object; gives the last good spec that counts for it.
    pub(super) fn apply_cluster_spiffe_id(
        &mut self,
        object: &Arc<ClusterSPIFFEID>,
        last_good: Option<ClusterSpiffeIdSpec>,
    ) -> Option<&ClusterSpiffeIdSpec> {
        let name = object.metadata.name.clone().unwrap_or_default();
        keep(
            &mut self.cluster_spiffe_ids,
            name,
            object,
            &object.metadata,
            last_good,
        )
    }

    pub(super) fn delete_cluster_spiffe_id(&mut self, name: &str) {
        self.cluster_spiffe_ids.remove(name);
    }

    pub(super) fn cluster_spiffe_ids_except(&self, names: &BTreeSet<String>) -> Vec<String> {
        self.cluster_spiffe_ids
            .keys()
            .filter(|name| !names.contains(*name))
            .cloned()
            .collect()
    }

    /// Keeps the object; gives the last good spec that counts for it.
    pub(super) fn apply_cluster_static_entry(
        &mut self,
        object: &Arc<ClusterStaticEntry>,
        last_good: Option<ClusterStaticEntrySpec>,
    ) -> Option<&ClusterStaticEntrySpec> {
        let name = object.metadata.name.clone().unwrap_or_default();
        keep(
            &mut self.cluster_static_entries,
            name,
            object,
            &object.metadata,
            last_good,
        )
    }

    pub(super) fn delete_cluster_static_entry(&mut self, name: &str) {
        self.cluster_static_entries.remove(name);
    }

    pub(super) fn cluster_static_entries_except(&self, names: &BTreeSet<String>) -> Vec<String> {
        self.cluster_static_entries
            .keys()
            .filter(|name| !names.contains(*name))
            .cloned()
            .collect()
    }

    /// All registering objects.
    pub(super) fn objects(&self) -> BTreeSet<ObjectName> {
        let named = |kind| {
            move |name: &String| ObjectName {
                kind,
                name: name.as_str().into(),
            }
        };
        let ids = self
            .cluster_spiffe_ids
            .keys()
            .map(named(SourceKind::ClusterSpiffeId));
        let entries = self
            .cluster_static_entries
            .keys()
            .map(named(SourceKind::ClusterStaticEntry));
        ids.chain(entries).collect()
    }

    /// The report of an object, with the object.
    pub(super) fn report(
        &self,
        registry: &Registry,
        kind: SourceKind,
        name: &str,
    ) -> Option<ObjectReport> {
        match kind {
            SourceKind::ClusterSpiffeId => {
                let object = Arc::clone(&self.cluster_spiffe_ids.get(name)?.object);
                let report = registry.report_of_cluster_spiffe_id(name)?;
                Some(ObjectReport::ClusterSpiffeId(object, report))
            }
            SourceKind::ClusterStaticEntry => {
                let object = Arc::clone(&self.cluster_static_entries.get(name)?.object);
                let report = registry.report_of_cluster_static_entry(name)?;
                Some(ObjectReport::ClusterStaticEntry(object, report))
            }
        }
    }
}

/// Keeps `object`, and of the same object the last good spec where no newer one is given.
fn keep<'a, K: kube::Resource, S>(
    known: &'a mut BTreeMap<String, Known<K, S>>,
    name: String,
    object: &Arc<K>,
    metadata: &ObjectMeta,
    last_good: Option<S>,
) -> Option<&'a S> {
    let before = known
        .remove(&name)
        .filter(|old| old.object.meta().uid == metadata.uid);
    let last_good = last_good.or(before.and_then(|old| old.last_good));
    let kept = known.entry(name).or_insert(Known {
        object: Arc::clone(object),
        last_good,
    });
    kept.last_good.as_ref()
}

/// Name, labels, and the pods that endpoints are.
fn trimmed(slice: &EndpointSlice) -> EndpointSlice {
    let endpoints = slice.endpoints.iter().flatten().filter_map(|endpoint| {
        let target = endpoint.target_ref.as_ref()?;
        Some(Endpoint {
            target_ref: Some(ObjectReference {
                kind: target.kind.clone(),
                namespace: target.namespace.clone(),
                uid: target.uid.clone(),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        })
    });
    EndpointSlice {
        metadata: ObjectMeta {
            name: slice.metadata.name.clone(),
            namespace: slice.metadata.namespace.clone(),
            labels: slice.metadata.labels.clone(),
            ..ObjectMeta::default()
        },
        endpoints: Some(endpoints.collect()),
        ..EndpointSlice::default()
    }
}
