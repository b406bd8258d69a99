//! Objects put over others, as `kubectl apply` would put them into a cluster. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

use super::read::Objects;

impl Objects {
    /// These objects after `newer` have been applied, one after the other: an object takes the place
    /// of the one of the same kind, namespace and name, and keeps what the API server gave that
    /// one: UID, time of creation, and a pod's node.
    pub fn apply(&mut self, newer: Self) {
        overlay(&mut self.trust_domains, newer.trust_domains);
        overlay(&mut self.cluster_spiffe_ids, newer.cluster_spiffe_ids);
        overlay(
            &mut self.cluster_static_entries,
            newer.cluster_static_entries,
        );
        overlay_with(&mut self.pods, newer.pods, |old, new| {
            if let (Some(old), Some(new)) = (&old.spec, &mut new.spec) {
                keep(old.node_name.as_ref(), &mut new.node_name);
            }
        });
        overlay(&mut self.namespaces, newer.namespaces);
        overlay(&mut self.nodes, newer.nodes);
        overlay(&mut self.endpoint_slices, newer.endpoint_slices);
        self.notes.extend(newer.notes);
        self.errors.extend(newer.errors);
    }
}

fn overlay<K: Resource>(objects: &mut Vec<K>, newer: Vec<K>) {
    overlay_with(objects, newer, |_, _| {});
}

fn overlay_with<K: Resource>(objects: &mut Vec<K>, newer: Vec<K>, keep_more: impl Fn(&K, &mut K)) {
    let mut places: BTreeMap<_, _> = objects.iter().map(key).zip(0..).collect();
    for mut object in newer {
        let place = *places.entry(key(&object)).or_insert(objects.len());
        let Some(old) = objects.get_mut(place) else {
            objects.push(object);
            continue;
        };
        keep_identity(old.meta(), object.meta_mut());
        keep_more(old, &mut object);
        *old = object;
    }
}

/// Namespace and name; an object without a namespace goes where kubectl would put it.
fn key<K: Resource>(object: &K) -> (String, String) {
    let ObjectMeta {
        namespace, name, ..
    } = object.meta();
    let namespace = namespace.clone().unwrap_or_else(|| "default".into());
    (namespace, name.clone().unwrap_or_default())
}

fn keep_identity(old: &ObjectMeta, new: &mut ObjectMeta) {
    keep(old.uid.as_ref(), &mut new.uid);
    keep(old.creation_timestamp.as_ref(), &mut new.creation_timestamp);
}

fn keep<T: Clone>(old: Option<&T>, new: &mut Option<T>) {
    *new = new.take().or_else(|| old.cloned());
}
