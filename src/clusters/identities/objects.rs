//! The objects that register pods, each with its last good spec, for trust domains that come later
//! and for the copies that outlive the process.
//!
//! Whether a spec is good, a registry says; a copy from before this process counts only until a spec
//! was good in this one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::Resource;

use crate::api::{
    ClusterSPIFFEID, ClusterSpiffeIdSpec, ClusterStaticEntry, ClusterStaticEntrySpec,
};
use crate::clusters::identities::{LastGood, ObjectName, ObjectReport, Reported};
use crate::registration::{Change, Registry, SourceKind};

/// All of them, by name.
#[derive(Debug, Default)]
pub(super) struct Objects {
    cluster_spiffe_ids: BTreeMap<String, Known<ClusterSPIFFEID, ClusterSpiffeIdSpec>>,
    cluster_static_entries: BTreeMap<String, Known<ClusterStaticEntry, ClusterStaticEntrySpec>>,
}

/// An object and its last good spec.
#[derive(Debug)]
struct Known<K, S> {
    object: Arc<K>,
    last_good: Option<LastGood<S>>,
    /// Whether a copy of the last good spec from before this process was looked for.
    is_sought: bool,
}

impl Objects {
    /// Feeds everything into a new registry.
    pub(super) fn replay(&self, registry: &mut Registry) -> Vec<Change> {
        let mut changes = Vec::new();
        for known in self.cluster_spiffe_ids.values() {
            registry.apply_cluster_spiffe_id(&known.object, known.last_good_spec());
        }
        for known in self.cluster_static_entries.values() {
            let last_good = known.last_good_spec();
            changes.extend(registry.apply_cluster_static_entry(&known.object, last_good));
        }
        changes
    }

    /// Those that register the pods of nested clusters, too.
    pub(super) fn handed_on(&self) -> Self {
        Self {
            cluster_spiffe_ids: self.cluster_spiffe_ids.clone(),
            ..Self::default()
        }
    }

    pub(super) fn apply_cluster_spiffe_id(&mut self, object: &Arc<ClusterSPIFFEID>) {
        keep(&mut self.cluster_spiffe_ids, object);
    }

    /// The object, and the last good spec that counts for it.
    pub(super) fn cluster_spiffe_id(
        &self,
        name: &str,
    ) -> Option<(Arc<ClusterSPIFFEID>, Option<&ClusterSpiffeIdSpec>)> {
        let known = self.cluster_spiffe_ids.get(name)?;
        Some((Arc::clone(&known.object), known.last_good_spec()))
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

    pub(super) fn apply_cluster_static_entry(&mut self, object: &Arc<ClusterStaticEntry>) {
        keep(&mut self.cluster_static_entries, object);
    }

    /// The object, and the last good spec that counts for it.
    pub(super) fn cluster_static_entry(
        &self,
        name: &str,
    ) -> Option<(Arc<ClusterStaticEntry>, Option<&ClusterStaticEntrySpec>)> {
        let known = self.cluster_static_entries.get(name)?;
        Some((Arc::clone(&known.object), known.last_good_spec()))
    }

    /// Notes the copy of the last good spec that was found of the ClusterSPIFFEID with this name and
    /// UID, or that there is none; whether it is news.
    pub(super) fn restore_cluster_spiffe_id(
        &mut self,
        name: &str,
        uid: &str,
        copy: Option<ClusterSpiffeIdSpec>,
    ) -> bool {
        restore(&mut self.cluster_spiffe_ids, name, uid, copy)
    }

    /// As for a ClusterSPIFFEID.
    pub(super) fn restore_cluster_static_entry(
        &mut self,
        name: &str,
        uid: &str,
        copy: Option<ClusterStaticEntrySpec>,
    ) -> bool {
        restore(&mut self.cluster_static_entries, name, uid, copy)
    }

    /// Notes which objects have a spec that `registry` finds good.
    pub(super) fn note_good(&mut self, registry: &Registry) {
        for object in self.names() {
            self.note_if_good(registry, object.kind, &object.name);
        }
    }

    /// Notes the spec of an object as its last good one if `registry` finds it good.
    pub(super) fn note_if_good(&mut self, registry: &Registry, kind: SourceKind, name: &str) {
        if !registry.is_good(kind, name) {
            return;
        }
        match kind {
            SourceKind::ClusterSpiffeId => {
                if let Some(known) = self.cluster_spiffe_ids.get_mut(name) {
                    let generation = known.object.metadata.generation;
                    known.note_good(generation, |object| &object.spec);
                }
            }
            SourceKind::ClusterStaticEntry => {
                if let Some(known) = self.cluster_static_entries.get_mut(name) {
                    let generation = known.object.metadata.generation;
                    known.note_good(generation, |object| &object.spec);
                }
            }
            SourceKind::RegistrationEntry | SourceKind::NestedCluster => {}
        }
    }

    /// The objects, with their UIDs, none of whose specs `registry` finds good, as long as no copy
    /// from before this process was looked for.
    pub(super) fn unsought(&self, registry: &Registry) -> Vec<(ObjectName, String)> {
        let lacking = registry.without_good_spec();
        let unsought = lacking.filter_map(|(kind, name)| {
            let uid = match kind {
                SourceKind::ClusterSpiffeId => unsought(&self.cluster_spiffe_ids, name),
                SourceKind::ClusterStaticEntry => unsought(&self.cluster_static_entries, name),
                SourceKind::RegistrationEntry | SourceKind::NestedCluster => None,
            }?;
            let name = Arc::clone(name);
            Some((ObjectName { kind, name }, uid))
        });
        unsought.collect()
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
    pub(super) fn names(&self) -> BTreeSet<ObjectName> {
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

    /// What `registry` made of an object, with the object.
    pub(super) fn report(
        &self,
        registry: Option<&Registry>,
        name: &ObjectName,
    ) -> Option<ObjectReport> {
        let ObjectName { kind, name } = name;
        match kind {
            SourceKind::ClusterSpiffeId => {
                let known = self.cluster_spiffe_ids.get(&**name)?;
                let report = registry.and_then(|it| it.report_of_cluster_spiffe_id(name));
                Some(ObjectReport::ClusterSpiffeId(known.reported(report)))
            }
            SourceKind::ClusterStaticEntry => {
                let known = self.cluster_static_entries.get(&**name)?;
                let report = registry.and_then(|it| it.report_of_cluster_static_entry(name));
                Some(ObjectReport::ClusterStaticEntry(known.reported(report)))
            }
            SourceKind::RegistrationEntry | SourceKind::NestedCluster => None,
        }
    }
}

impl<K, S> Clone for Known<K, S> {
    fn clone(&self) -> Self {
        Self {
            object: Arc::clone(&self.object),
            last_good: self.last_good.clone(),
            is_sought: self.is_sought,
        }
    }
}

impl<K, S: Clone> Known<K, S> {
    fn last_good_spec(&self) -> Option<&S> {
        self.last_good.as_ref().map(|good| &*good.spec)
    }

    fn note_good(&mut self, generation: Option<i64>, spec: impl Fn(&K) -> &S) {
        let is_known =
            |good: &LastGood<S>| good.generation.is_some() && good.generation == generation;
        if !self.last_good.as_ref().is_some_and(is_known) {
            let spec = Arc::new(spec(&self.object).clone());
            self.last_good = Some(LastGood { spec, generation });
        }
    }

    fn reported<R>(&self, report: Option<R>) -> Reported<K, S, R> {
        Reported {
            object: Arc::clone(&self.object),
            last_good: self.last_good.clone(),
            report,
        }
    }
}

/// Keeps `object`, and what is known of the last good spec of the same object.
fn keep<K: Resource, S>(known: &mut BTreeMap<String, Known<K, S>>, object: &Arc<K>) {
    let name = object.meta().name.clone().unwrap_or_default();
    let before = known
        .remove(&name)
        .filter(|old| old.object.meta().uid == object.meta().uid);
    let (last_good, is_sought) = before.map_or((None, false), |old| (old.last_good, old.is_sought));
    let object = Arc::clone(object);
    known.insert(
        name,
        Known {
            object,
            last_good,
            is_sought,
        },
    );
}

/// Notes what was found of the object with this name and UID; whether it is news. A spec that was
/// found good since is newer than a copy.
fn restore<K: Resource, S>(
    known: &mut BTreeMap<String, Known<K, S>>,
    name: &str,
    uid: &str,
    copy: Option<S>,
) -> bool {
    let known = known
        .get_mut(name)
        .filter(|known| known.object.meta().uid.as_deref() == Some(uid));
    let Some(known) = known else {
        return false;
    };
    known.is_sought = true;
    let (None, Some(spec)) = (&known.last_good, copy) else {
        return false;
    };
    known.last_good = Some(LastGood {
        spec: Arc::new(spec),
        generation: None,
    });
    true
}

/// The UID of an object of which no copy was looked for.
fn unsought<K: Resource, S>(known: &BTreeMap<String, Known<K, S>>, name: &str) -> Option<String> {
    let known = known.get(name).filter(|known| !known.is_sought)?;
    Some(known.object.meta().uid.clone().unwrap_or_default())
}
