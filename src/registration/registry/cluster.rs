//! Pods, nodes, namespaces and EndpointSlices come, change and go.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{core::v1::Namespace, discovery::v1::EndpointSlice};

use super::{Registry, evaluate::PodState};
use crate::{
    registration::{
        entry_error::EntryError,
        facts::{NodeFacts, PodFacts},
        labels::Labels,
        pod_entry,
        report::{Change, RemovalCause},
        spec::ParsedClusterSpiffeId,
    },
    spiffe::SpiffeId,
};

/// What is known of a namespace, or of the pods in one that has not been seen.
#[derive(Debug, Default)]
pub(super) struct NamespaceState {
    /// None before it is seen: nothing selects it.
    pub(super) labels: Option<Labels>,
    pub(super) ignored: bool,
    /// Names of the ClusterSPIFFEIDs whose namespace selector matches.
    pub(super) selected_by: BTreeSet<Arc<str>>,
    pods: BTreeSet<Arc<str>>,
}

/// What is known of a node, or of the pods on one that has not been seen.
#[derive(Debug, Default)]
pub(super) struct NodeState {
    /// None before it is seen.
    pub(super) seen: Option<SeenNode>,
    /// Whether it was deleted. It is remembered while pods are on it.
    is_gone: bool,
    pods: BTreeSet<Arc<str>>,
}

/// A node and the parent ID of its pods' entries.
#[derive(Debug)]
pub(super) struct SeenNode {
    pub(super) facts: Arc<NodeFacts>,
    pub(super) parent_id: Result<SpiffeId, EntryError>,
}

impl Registry {
    /// Takes in a pod.
    pub fn apply_pod(&mut self, facts: Arc<PodFacts>) -> Vec<Change> {
        let uid = facts.uid.clone();
        match self.pods.get_mut(&uid) {
            Some(pod) if pod.facts == facts => {}
            Some(pod) if pod.facts.node == facts.node => {
                pod.facts = facts;
                pod.is_stale = true;
                self.marked.insert(uid.clone());
            }
            Some(pod) => {
                let old_node = std::mem::replace(&mut pod.facts, facts.clone())
                    .node
                    .clone();
                pod.is_stale = true;
                self.leave_node(&old_node, &uid);
                self.enter_node(&facts);
                self.marked.insert(uid.clone());
            }
            None => {
                self.enter_namespace(&facts);
                self.enter_node(&facts);
                self.pods.insert(uid.clone(), PodState::new(facts));
                self.marked.insert(uid.clone());
            }
        }
        if self.marked.remove(&uid) {
            self.evaluate(&uid)
        } else {
            Vec::new()
        }
    }

    /// Forgets a pod.
    pub fn delete_pod(&mut self, uid: &str) -> Vec<Change> {
        let Some((uid, pod)) = self.pods.remove_entry(uid) else {
            return Vec::new();
        };
        self.marked.remove(&uid);
        self.leave_namespace(&pod.facts.namespace, &uid);
        self.leave_node(&pod.facts.node, &uid);
        self.replace_outcomes(&pod.facts, &pod.outcomes, &[], Some(RemovalCause::PodGone))
    }

    /// Takes in a namespace. Its pods are marked where something changed.
    pub fn apply_namespace(&mut self, namespace: &Namespace) {
        let Some(name) = namespace.metadata.name.as_deref() else {
            return;
        };
        let labels = namespace.metadata.labels.iter().flatten();
        let labels: Labels = labels
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let state = self.namespaces.entry(name.into()).or_default();
        if state.labels.as_ref() == Some(&labels) {
            return;
        }
        state.labels = Some(labels);
        self.reselect_namespace(name);
    }

    /// Forgets a namespace. Its pods are marked.
    pub fn delete_namespace(&mut self, name: &str) {
        let Some(state) = self.namespaces.get_mut(name) else {
            return;
        };
        state.labels = None;
        self.reselect_namespace(name);
        self.namespaces
            .retain(|other, state| &**other != name || !state.pods.is_empty());
    }

    /// Takes in a node. Its pods are marked where something changed.
    pub fn apply_node(&mut self, facts: Arc<NodeFacts>) {
        let name = facts.name.clone();
        let state = self.nodes.entry(name.clone()).or_default();
        state.is_gone = false;
        if state.seen.as_ref().is_some_and(|seen| seen.facts == facts) {
            return;
        }
        let parent_id = pod_entry::parent_id(&self.settings, &facts);
        state.seen = Some(SeenNode { facts, parent_id });
        for uid in &state.pods {
            if let Some(pod) = self.pods.get_mut(uid) {
                pod.is_stale = true;
                self.marked.insert(uid.clone());
            }
        }
    }

    /// A node is gone. Its pods keep what they have: a missing node is no fact about a pod.
    pub fn delete_node(&mut self, name: &str) {
        if let Some(state) = self.nodes.get_mut(name) {
            state.is_gone = true;
            if state.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Takes in an EndpointSlice. Pods whose services changed are marked.
    pub fn apply_endpoint_slice(&mut self, slice: &EndpointSlice) {
        let changed = self.services.apply(slice);
        self.mark_stale(changed);
    }

    /// Forgets an EndpointSlice. Pods whose services changed are marked.
    pub fn delete_endpoint_slice(&mut self, namespace: &str, name: &str) {
        let changed = self.services.delete(namespace, name);
        self.mark_stale(changed);
    }

    /// Renders the parent ID of a node's pods again.
    pub(super) fn render_parent_id(&mut self, node: &str) {
        if let Some(seen) = self
            .nodes
            .get_mut(node)
            .and_then(|state| state.seen.as_mut())
        {
            seen.parent_id = pod_entry::parent_id(&self.settings, &seen.facts);
        }
    }

    /// Notes in every namespace whether the ClusterSPIFFEID `name` selects it, and marks its pods
    /// if `has_changed`.
    pub(super) fn select_namespaces(
        &mut self,
        name: &Arc<str>,
        spec: Option<&ParsedClusterSpiffeId>,
        has_changed: bool,
    ) {
        let (mut selected, mut ignored) = (0, 0);
        for namespace in self.namespaces.values_mut() {
            let spec = spec.filter(|spec| {
                namespace
                    .labels
                    .as_ref()
                    .is_some_and(|labels| spec.namespaces.matches(labels))
            });
            let was_selected = if spec.is_some() {
                selected += 1;
                ignored += i64::from(namespace.ignored);
                !namespace.selected_by.insert(name.clone())
            } else {
                namespace.selected_by.remove(name)
            };
            if !has_changed || !(was_selected || spec.is_some()) {
                continue;
            }
            for uid in &namespace.pods {
                let is_concerned = self.pods.get(uid).is_some_and(|pod| {
                    spec.is_some_and(|spec| spec.pods.matches(&pod.facts.labels))
                        || pod.outcome(name).is_some()
                });
                if is_concerned {
                    self.marked.insert(uid.clone());
                }
            }
        }
        self.count_namespaces(name, |stats| {
            stats.namespaces_selected = selected;
            stats.namespaces_ignored = ignored;
        });
    }

    /// Finds out which ClusterSPIFFEIDs select a namespace whose labels have changed.
    fn reselect_namespace(&mut self, name: &str) {
        let ignored = self.settings.ignores_namespace(name);
        let Some(state) = self.namespaces.get_mut(name) else {
            return;
        };
        state.ignored = ignored;
        let now: BTreeSet<Arc<str>> = match &state.labels {
            None => BTreeSet::new(),
            Some(labels) => self
                .cluster_spiffe_ids
                .iter()
                .filter(|(_, other)| {
                    other
                        .object
                        .active()
                        .is_some_and(|spec| spec.namespaces.matches(labels))
                })
                .map(|(name, _)| name.clone())
                .collect(),
        };
        let before = std::mem::replace(&mut state.selected_by, now.clone());
        if before == now {
            return;
        }
        self.marked.extend(state.pods.iter().cloned());
        for (names, sign) in [(before.difference(&now), 1), (now.difference(&before), -1)] {
            for name in names {
                self.count_namespaces(name, |stats| {
                    stats.namespaces_selected -= sign;
                    stats.namespaces_ignored -= sign * i64::from(ignored);
                });
            }
        }
    }

    fn mark_stale(&mut self, pods: BTreeSet<Arc<str>>) {
        for uid in pods {
            if let Some(pod) = self.pods.get_mut(&uid) {
                pod.is_stale = true;
                self.marked.insert(uid);
            }
        }
    }

    fn enter_namespace(&mut self, pod: &PodFacts) {
        let ignored = &self.settings;
        let state = self
            .namespaces
            .entry(pod.namespace.clone())
            .or_insert_with(|| NamespaceState {
                ignored: ignored.ignores_namespace(&pod.namespace),
                ..NamespaceState::default()
            });
        state.pods.insert(pod.uid.clone());
    }

    fn leave_namespace(&mut self, name: &str, uid: &str) {
        if let Some(state) = self.namespaces.get_mut(name) {
            state.pods.remove(uid);
            if state.pods.is_empty() && state.labels.is_none() {
                self.namespaces.remove(name);
            }
        }
    }

    fn enter_node(&mut self, pod: &PodFacts) {
        if !pod.node.is_empty() {
            let state = self.nodes.entry(pod.node.clone()).or_default();
            state.pods.insert(pod.uid.clone());
        }
    }

    fn leave_node(&mut self, name: &str, uid: &str) {
        if let Some(state) = self.nodes.get_mut(name) {
            state.pods.remove(uid);
            if state.pods.is_empty() && (state.is_gone || state.seen.is_none()) {
                self.nodes.remove(name);
            }
        }
    }
}
