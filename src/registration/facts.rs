//! What registration remembers of pods and nodes: only what selectors, masking and templates can
//! read, shared between the registries that look at the same cluster.
//!
//! Invariant: two versions of an object whose facts are equal give the same entries. What few
//! templates read ([`PodDetail`]) is kept only where [`super::Registry::needed_pod_fields`] asks
//! for it. Namespaces and EndpointSlices need no facts: the registry takes from them what it needs.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::labels::{Interner, Labels};

/// Fields of an object that templates read, by JSON name, beyond those that facts always hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Fields of `metadata`.
    pub meta: BTreeSet<&'static str>,
    /// Fields of `spec`.
    pub spec: BTreeSet<&'static str>,
}

impl FieldSet {
    /// Whether it names no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meta.is_empty() && self.spec.is_empty()
    }

    /// Whether every field of `other` is in it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.meta.is_subset(&self.meta) && other.spec.is_subset(&self.spec)
    }

    /// Adds the fields of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.meta.extend(&other.meta);
        self.spec.extend(&other.spec);
    }
}

/// What is remembered of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// UID.
    pub uid: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Labels.
    pub labels: Labels,
    /// Name of the service account.
    pub service_account: Arc<str>,
    /// Name of the node; empty before the pod is scheduled.
    pub node: Arc<str>,
    /// Whether it has run to its end (phase Succeeded or Failed).
    pub finished: bool,
    /// What few templates read.
    pub detail: Option<Arc<PodDetail>>,
}

/// The fields of a pod that few templates read, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDetail {
    /// Which fields were asked for. Fields that the pod lacks are in it, too.
    pub kept: FieldSet,
    meta: Map<String, Json>,
    spec: Map<String, Json>,
}

impl PodFacts {
    /// The facts of `pod`; none when it lacks a UID, a name or a namespace. `keep` is what
    /// templates read beyond what is always kept.
    #[must_use]
    pub fn from_pod(pod: &Pod, keep: &FieldSet, interner: &mut Interner) -> Option<Arc<Self>> {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref();
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        Some(Arc::new(Self {
            uid: meta.uid.as_deref()?.into(),
            namespace: interner.text(meta.namespace.as_deref()?),
            name: meta.name.as_deref()?.into(),
            labels: interner.labels(meta.labels.as_ref()),
            service_account: interner.text(
                spec.and_then(|spec| spec.service_account_name.as_deref())
                    .unwrap_or_default(),
            ),
            node: interner.text(
                spec.and_then(|spec| spec.node_name.as_deref())
                    .unwrap_or_default(),
            ),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            detail: (!keep.is_empty()).then(|| {
                Arc::new(PodDetail {
                    kept: keep.clone(),
                    meta: pick(meta, &keep.meta),
                    spec: pick(&pod.spec, &keep.spec),
                })
            }),
        }))
    }

    /// Whether the facts hold what a template that reads `fields` needs.
    #[must_use]
    pub fn holds(&self, fields: &FieldSet) -> bool {
        fields.is_empty()
            || self
                .detail
                .as_ref()
                .is_some_and(|detail| detail.kept.contains(fields))
    }
}

impl PodDetail {
    /// A field of `metadata`.
    #[must_use]
    pub fn meta(&self, field: &str) -> Option<&Json> {
        self.meta.get(field)
    }

    /// A field of `spec`.
    #[must_use]
    pub fn spec(&self, field: &str) -> Option<&Json> {
        self.spec.get(field)
    }
}

/// What is remembered of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Name.
    pub name: Arc<str>,
    /// UID.
    pub uid: Arc<str>,
    /// Labels.
    pub labels: Labels,
    /// `metadata` and `spec` as JSON text, without what changes at every heartbeat. Text, because
    /// it is small and few templates read it.
    json: Box<str>,
}

impl NodeFacts {
    /// The facts of `node`; none when it lacks a UID or a name.
    #[must_use]
    pub fn from_node(node: &Node, interner: &mut Interner) -> Option<Arc<Self>> {
        let meta = &node.metadata;
        let mut metadata = to_object(meta);
        metadata.remove("managedFields");
        metadata.remove("resourceVersion");
        let json = serde_json::json!({"metadata": metadata, "spec": to_object(&node.spec)});
        Some(Arc::new(Self {
            name: interner.text(meta.name.as_deref()?),
            uid: meta.uid.as_deref()?.into(),
            labels: interner.labels(meta.labels.as_ref()),
            json: json.to_string().into(),
        }))
    }

    /// `metadata` and `spec` as JSON.
    #[must_use]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.json).unwrap_or_default()
    }
}

fn pick(object: &impl Serialize, fields: &BTreeSet<&'static str>) -> Map<String, Json> {
    if fields.is_empty() {
        return Map::new();
    }
    let mut object = to_object(object);
    object.retain(|key, _| fields.contains(key.as_str()));
    object
}

fn to_object(object: &impl Serialize) -> Map<String, Json> {
    match serde_json::to_value(object) {
        Ok(Json::Object(object)) => object,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: Json) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn status_updates_do_not_change_facts() {
        let mut interner = Interner::default();
        let mut facts = |phase: &str, version: &str| {
            let pod = pod(serde_json::json!({
                "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": version},
                "spec": {"containers": [], "nodeName": "node"},
                "status": {"phase": phase},
            }));
            PodFacts::from_pod(&pod, &FieldSet::default(), &mut interner).unwrap()
        };
        assert_eq!(facts("Pending", "1"), facts("Running", "2"));
        assert_ne!(facts("Running", "2"), facts("Succeeded", "3"));
        assert_eq!(facts("Succeeded", "3"), facts("Failed", "4"));
    }

    #[test]
    fn only_the_fields_that_are_asked_for_are_kept() {
        let pod = pod(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "annotations": {"a": "b"}},
            "spec": {"containers": [{"name": "c"}], "hostPID": true},
        }));
        let keep = FieldSet {
            spec: ["hostPID", "hostIPC"].into(),
            ..FieldSet::default()
        };
        let facts = PodFacts::from_pod(&pod, &keep, &mut Interner::default()).unwrap();
        let detail = facts.detail.as_ref().unwrap();
        assert_eq!(detail.spec("hostPID"), Some(&Json::Bool(true)));
        assert_eq!(
            (detail.spec("containers"), detail.meta("annotations")),
            (None, None)
        );
        assert!(facts.holds(&keep));
        let more = FieldSet {
            meta: ["annotations"].into(),
            ..keep
        };
        assert!(!facts.holds(&more));
    }

    #[test]
    fn heartbeats_do_not_change_a_nodes_facts() {
        let mut interner = Interner::default();
        let mut facts = |version: &str| {
            let node: Node = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "n", "uid": "u", "resourceVersion": version,
                    "managedFields": [{"manager": version}]},
                "spec": {"podCIDR": "10.0.0.0/24"},
            }))
            .unwrap();
            NodeFacts::from_node(&node, &mut interner).unwrap()
        };
        assert_eq!(facts("1"), facts("2"));
        assert_eq!(facts("1").json()["spec"]["podCIDR"], "10.0.0.0/24");
    }
}
