//! The facts of a cluster as the watches gave them, for trust domains that come later. The objects
//! that register pods are [`super::objects`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, ObjectReference, Pod};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::registration::selector::Selector;
use crate::registration::{Change, FieldSet, Interner, Labels, NodeFacts, PodFacts, Registry};

/// Everything that registries are fed with, as small as they need it.
#[derive(Debug, Default)]
pub(super) struct Facts {
    interner: Interner,
    pods: BTreeMap<Arc<str>, Arc<PodFacts>>,
    namespaces: BTreeMap<String, KnownNamespace>,
    nodes: BTreeMap<Arc<str>, Arc<NodeFacts>>,
    endpoint_slices: BTreeMap<(String, String), Arc<EndpointSlice>>,
}

#[derive(Debug)]
struct KnownNamespace {
    object: Namespace,
    labels: Labels,
}

impl Facts {
    /// Feeds everything into a new registry.
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

    pub(super) fn namespaces_matching(&self, selector: &Selector) -> BTreeSet<String> {
        self.namespaces
            .iter()
            .filter(|(_, known)| known.object.metadata.deletion_timestamp.is_none())
            .filter(|(_, known)| selector.matches(&known.labels))
            .map(|(name, _)| name.clone())
            .collect()
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
