//! What the watches feed in: an object is there, is gone, or these are all there are. The latter says
//! that a list is complete.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::time::Instant;

use crate::api::{
    ClusterSPIFFEID, ClusterSpiffeIdSpec, ClusterStaticEntry, ClusterStaticEntrySpec,
};
use crate::clusters::identities::facts::Facts;
use crate::clusters::identities::start::List;
use crate::clusters::identities::{Identities, State};
use crate::registration::{Change, Registry, SourceKind};

impl Identities {
    /// Takes in a pod.
    pub fn apply_pod(&self, pod: &Pod) {
        let started = Instant::now();
        let mut state = self.lock();
        let Some(facts) = state.facts.apply_pod(pod, &self.pod_fields.borrow()) else {
            return;
        };
        let mut is_registered = false;
        for (name, domain) in &mut state.domains {
            let had_none = domain.registry.entries_of_pod(&facts.uid).is_empty();
            let changes = domain.registry.apply_pod(Arc::clone(&facts));
            let is_set = |change| matches!(change, &Change::Set(_));
            is_registered |= had_none && changes.iter().any(is_set);
            self.publish(name, domain, changes);
        }
        if is_registered {
            self.metrics.registered(started.elapsed());
        }
        self.tell_pod(&facts.uid);
        self.settle(&mut state);
    }

    /// A pod is gone.
    pub fn delete_pod(&self, uid: &str) {
        let mut state = self.lock();
        if !state.facts.delete_pod(uid) {
            return;
        }
        for (name, domain) in &mut state.domains {
            let changes = domain.registry.delete_pod(uid);
            self.publish(name, domain, changes);
        }
        self.settle(&mut state);
    }

    /// All pods that are there have these UIDs; the others are gone.
    pub fn retain_pods(&self, uids: &BTreeSet<String>) {
        let gone = self.lock().facts.pods_except(uids);
        gone.iter().for_each(|uid| self.delete_pod(uid));
        self.listed(List::Pods);
    }

    /// Takes in a namespace.
    pub fn apply_namespace(&self, namespace: &Namespace) {
        self.with_registries(
            |facts| facts.apply_namespace(namespace),
            |registry| {
                registry.apply_namespace(namespace);
            },
        );
        self.namespaces.send_modify(|changes| *changes += 1);
    }

    /// A namespace is gone.
    pub fn delete_namespace(&self, name: &str) {
        self.with_registries(
            |facts| facts.delete_namespace(name),
            |registry| {
                registry.delete_namespace(name);
            },
        );
        self.namespaces.send_modify(|changes| *changes += 1);
    }

    /// All namespaces that are there have these names.
    pub fn retain_namespaces(&self, names: &BTreeSet<String>) {
        let gone = self.lock().facts.namespaces_except(names);
        gone.iter().for_each(|name| self.delete_namespace(name));
        self.listed(List::Namespaces);
        self.namespaces.send_modify(|changes| *changes += 1);
    }

    /// Takes in a node.
    pub fn apply_node(&self, node: &Node) {
        let mut state = self.lock();
        let Some(facts) = state.facts.apply_node(node) else {
            return;
        };
        for domain in state.domains.values_mut() {
            domain.registry.apply_node(Arc::clone(&facts));
        }
        self.settle(&mut state);
    }

    /// A node is gone.
    pub fn delete_node(&self, name: &str) {
        self.with_registries(
            |facts| facts.delete_node(name),
            |registry| {
                registry.delete_node(name);
            },
        );
    }

    /// All nodes that are there have these names.
    pub fn retain_nodes(&self, names: &BTreeSet<String>) {
        let gone = self.lock().facts.nodes_except(names);
        gone.iter().for_each(|name| self.delete_node(name));
        self.listed(List::Nodes);
    }

    /// Takes in an EndpointSlice.
    pub fn apply_endpoint_slice(&self, slice: &EndpointSlice) {
        let mut state = self.lock();
        let Some(slice) = state.facts.apply_endpoint_slice(slice) else {
            return;
        };
        for domain in state.domains.values_mut() {
            domain.registry.apply_endpoint_slice(&slice);
        }
        self.settle(&mut state);
    }

    /// An EndpointSlice is gone.
    pub fn delete_endpoint_slice(&self, namespace: &str, name: &str) {
        self.with_registries(
            |facts| facts.delete_endpoint_slice(namespace, name),
            |registry| {
                registry.delete_endpoint_slice(namespace, name);
            },
        );
    }

    /// All EndpointSlices that are there have these namespaces and names.
    pub fn retain_endpoint_slices(&self, names: &BTreeSet<(String, String)>) {
        let gone = self.lock().facts.endpoint_slices_except(names);
        gone.iter()
            .for_each(|(namespace, name)| self.delete_endpoint_slice(namespace, name));
        self.listed(List::EndpointSlices);
    }

    /// Takes in a ClusterSPIFFEID.
    pub fn apply_cluster_spiffe_id(&self, object: &Arc<ClusterSPIFFEID>) {
        let mut state = self.lock();
        state.objects.apply_cluster_spiffe_id(object);
        let name = object.metadata.name.as_deref().unwrap_or_default();
        self.evaluate_cluster_spiffe_id(&mut state, name);
        drop(state);
        self.hand_registration_on(|member| member.apply_cluster_spiffe_id(object));
    }

    /// Takes in the copy of the last good spec that was kept of the ClusterSPIFFEID with this name
    /// and UID from before this process, or that there is none.
    pub fn restore_cluster_spiffe_id(
        &self,
        name: &str,
        uid: &str,
        copy: Option<ClusterSpiffeIdSpec>,
    ) {
        let mut state = self.lock();
        let objects = &mut state.objects;
        if objects.restore_cluster_spiffe_id(name, uid, copy.clone()) {
            self.evaluate_cluster_spiffe_id(&mut state, name);
        } else {
            self.settle(&mut state);
        }
        drop(state);
        self.hand_registration_on(move |member| {
            member.restore_cluster_spiffe_id(name, uid, copy.clone());
        });
    }

    fn evaluate_cluster_spiffe_id(&self, state: &mut State, name: &str) {
        let State {
            objects, domains, ..
        } = state;
        for domain in domains.values_mut() {
            if let Some((object, last_good)) = objects.cluster_spiffe_id(name) {
                domain.registry.apply_cluster_spiffe_id(&object, last_good);
            }
            objects.note_if_good(&domain.registry, SourceKind::ClusterSpiffeId, name);
        }
        self.wanting.notify_one();
        self.settle(state);
    }

    /// A ClusterSPIFFEID is gone.
    pub fn delete_cluster_spiffe_id(&self, name: &str) {
        let mut state = self.lock();
        state.objects.delete_cluster_spiffe_id(name);
        for domain in state.domains.values_mut() {
            domain.registry.delete_cluster_spiffe_id(name);
            let trust_domain = domain.spec.trust_domain.as_str();
            let kind = SourceKind::ClusterSpiffeId.as_str();
            self.metrics.set_object(trust_domain, kind, name, None);
        }
        self.settle(&mut state);
        drop(state);
        self.hand_registration_on(|member| member.delete_cluster_spiffe_id(name));
    }

    /// All ClusterSPIFFEIDs that are there have these names.
    pub fn retain_cluster_spiffe_ids(&self, names: &BTreeSet<String>) {
        let gone = self.lock().objects.cluster_spiffe_ids_except(names);
        gone.iter()
            .for_each(|name| self.delete_cluster_spiffe_id(name));
        self.listed(List::ClusterSpiffeIds);
        self.hand_on(|member| member.listed(List::ClusterSpiffeIds));
    }

    /// Takes in a ClusterStaticEntry.
    pub fn apply_cluster_static_entry(&self, object: &Arc<ClusterStaticEntry>) {
        let mut state = self.lock();
        state.objects.apply_cluster_static_entry(object);
        let name = object.metadata.name.as_deref().unwrap_or_default();
        self.evaluate_cluster_static_entry(&mut state, name);
    }

    /// As [`Self::restore_cluster_spiffe_id`].
    pub fn restore_cluster_static_entry(
        &self,
        name: &str,
        uid: &str,
        copy: Option<ClusterStaticEntrySpec>,
    ) {
        let mut state = self.lock();
        if state.objects.restore_cluster_static_entry(name, uid, copy) {
            self.evaluate_cluster_static_entry(&mut state, name);
        } else {
            self.settle(&mut state);
        }
    }

    fn evaluate_cluster_static_entry(&self, state: &mut State, name: &str) {
        let State {
            objects, domains, ..
        } = state;
        for (domain_name, domain) in domains {
            if let Some((object, last_good)) = objects.cluster_static_entry(name) {
                let registry = &mut domain.registry;
                let changes = registry.apply_cluster_static_entry(&object, last_good);
                self.publish(domain_name, domain, changes);
            }
            objects.note_if_good(&domain.registry, SourceKind::ClusterStaticEntry, name);
        }
        self.wanting.notify_one();
        self.settle(state);
    }

    /// A ClusterStaticEntry is gone.
    pub fn delete_cluster_static_entry(&self, name: &str) {
        let mut state = self.lock();
        state.objects.delete_cluster_static_entry(name);
        for (domain_name, domain) in &mut state.domains {
            let changes = domain.registry.delete_cluster_static_entry(name);
            self.publish(domain_name, domain, changes);
            let trust_domain = domain.spec.trust_domain.as_str();
            let kind = SourceKind::ClusterStaticEntry.as_str();
            self.metrics.set_object(trust_domain, kind, name, None);
        }
        self.settle(&mut state);
    }

    /// All ClusterStaticEntries that are there have these names.
    pub fn retain_cluster_static_entries(&self, names: &BTreeSet<String>) {
        let gone = self.lock().objects.cluster_static_entries_except(names);
        gone.iter()
            .for_each(|name| self.delete_cluster_static_entry(name));
        self.listed(List::ClusterStaticEntries);
    }

    /// A list is complete, for the first time or again.
    pub(super) fn listed(&self, list: List) {
        let mut state = self.lock();
        state.unlisted.remove(&list);
        self.settle(&mut state);
    }

    fn with_registries(&self, note: impl FnOnce(&mut Facts), mut apply: impl FnMut(&mut Registry)) {
        let mut state = self.lock();
        note(&mut state.facts);
        state
            .domains
            .values_mut()
            .for_each(|domain| apply(&mut domain.registry));
        self.settle(&mut state);
    }
}
