//! ClusterSPIFFEIDs and ClusterStaticEntries come, change and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Registry, tally::Exchange};
use crate::{
    api::{ClusterSPIFFEID, ClusterSpiffeIdSpec, ClusterStaticEntry, ClusterStaticEntrySpec},
    registration::{
        entry::{Entry, Source, SourceKind},
        facts::FieldSet,
        labels::Labels,
        report::{Change, InForce, RemovalCause},
        spec::{ParsedClusterSpiffeId, ParsedStaticEntry, SpecError},
    },
};

/// What is known of a ClusterSPIFFEID.
#[derive(Debug)]
pub(super) struct ClusterSpiffeIdState {
    pub(super) object: ObjectState<ParsedClusterSpiffeId>,
    /// Differs from that of every other state of any object that gives other entries.
    pub(super) version: u64,
}

/// What is known of a ClusterStaticEntry.
#[derive(Debug)]
pub(super) struct StaticEntryState {
    pub(super) object: ObjectState<ParsedStaticEntry>,
    /// The entry it declares.
    pub(super) entry: Option<Arc<Entry>>,
}

/// What both kinds have in common.
#[derive(Debug)]
pub(super) struct ObjectState<T> {
    pub(super) source: Arc<Source>,
    class_name: Option<String>,
    /// Whether the trust domain serves its class.
    pub(super) is_served: bool,
    /// What is wrong with its spec.
    pub(super) error: Option<SpecError>,
    /// The last good spec and its generation.
    pub(super) good: Option<(Arc<T>, Option<i64>)>,
}

impl<T> ObjectState<T> {
    /// The spec in force.
    pub(super) fn active(&self) -> Option<&Arc<T>> {
        self.good
            .as_ref()
            .filter(|_| self.is_served)
            .map(|(spec, _)| spec)
    }

    pub(super) fn is_good(&self) -> bool {
        self.is_served && self.error.is_none()
    }

    pub(super) fn lacks_good_spec(&self) -> bool {
        self.is_served && self.good.is_none()
    }

    pub(super) fn in_force(&self) -> InForce {
        match (&self.good, &self.error) {
            (None, _) => InForce::Nothing,
            (Some(_), None) => InForce::Current,
            (Some((_, generation)), Some(_)) => InForce::LastGood(*generation),
        }
    }
}

type Names = BTreeSet<Arc<str>>;

/// Finds the ClusterSPIFFEIDs whose pod selector may match a pod, without trying them all.
#[derive(Debug, Default)]
pub(super) struct PodIndex {
    /// By key and value of a label that the pod selector requires.
    by_pair: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Names>>,
    others: Names,
}

impl PodIndex {
    fn add(&mut self, name: &Arc<str>, spec: &ParsedClusterSpiffeId) {
        let names = match spec.pods.required_pair() {
            Some((key, value)) => self
                .by_pair
                .entry(key.clone())
                .or_default()
                .entry(value.clone())
                .or_default(),
            None => &mut self.others,
        };
        names.insert(name.clone());
    }

    fn remove(&mut self, name: &Arc<str>, spec: &ParsedClusterSpiffeId) {
        let Some((key, value)) = spec.pods.required_pair() else {
            self.others.remove(name);
            return;
        };
        let Some(values) = self.by_pair.get_mut(key) else {
            return;
        };
        if let Some(names) = values.get_mut(value) {
            names.remove(name);
            if names.is_empty() {
                values.remove(value);
            }
        }
        if values.is_empty() {
            self.by_pair.remove(key);
        }
    }

    /// Names of those that may select a pod with these labels.
    pub(super) fn candidates<'a>(
        &'a self,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<str>> {
        let by_pair = labels
            .iter()
            .filter_map(|(key, value)| self.by_pair.get(key)?.get(value))
            .flatten();
        by_pair.chain(&self.others)
    }
}

impl Registry {
    /// Takes in a ClusterSPIFFEID. `last_good` is the last spec of it that parsed, for a registry
    /// that has not seen it itself. Pods are marked.
    pub fn apply_cluster_spiffe_id(
        &mut self,
        object: &ClusterSPIFFEID,
        last_good: Option<&ClusterSpiffeIdSpec>,
    ) {
        let Some(source) = Source::of(SourceKind::ClusterSpiffeId, &object.metadata).map(Arc::new)
        else {
            return;
        };
        let name = source.name.clone();
        let trust_domain = &self.settings.cluster.trust_domain;
        let previous = self
            .cluster_spiffe_ids
            .get(&name)
            .map(|state| &state.object);
        let new = next_state(
            previous,
            source,
            object.spec.class_name.as_deref(),
            object.metadata.generation,
            ParsedClusterSpiffeId::parse(&object.spec, trust_domain),
            || ParsedClusterSpiffeId::parse(last_good?, trust_domain).ok(),
        );
        let is_served = self.settings.serves(object.spec.class_name.as_deref());
        self.replace_cluster_spiffe_id(&name, Some(ObjectState { is_served, ..new }));
    }

    /// Forgets a ClusterSPIFFEID. Pods are marked.
    pub fn delete_cluster_spiffe_id(&mut self, name: &str) {
        self.replace_cluster_spiffe_id(&name.into(), None);
    }

    /// Takes in a ClusterStaticEntry. `last_good` is the last spec of it that parsed, for a registry
    /// that has not seen it itself.
    pub fn apply_cluster_static_entry(
        &mut self,
        object: &ClusterStaticEntry,
        last_good: Option<&ClusterStaticEntrySpec>,
    ) -> Vec<Change> {
        let Some(source) =
            Source::of(SourceKind::ClusterStaticEntry, &object.metadata).map(Arc::new)
        else {
            return Vec::new();
        };
        let name = source.name.clone();
        let trust_domain = &self.settings.cluster.trust_domain;
        let previous = self.static_entries.get(&name).map(|state| &state.object);
        let new = next_state(
            previous,
            source,
            object.spec.class_name.as_deref(),
            object.metadata.generation,
            ParsedStaticEntry::parse(&object.spec, trust_domain),
            || ParsedStaticEntry::parse(last_good?, trust_domain).ok(),
        );
        let is_served = self.settings.serves(object.spec.class_name.as_deref());
        self.replace_static_entry(&name, Some(ObjectState { is_served, ..new }))
    }

    /// Forgets a ClusterStaticEntry.
    pub fn delete_cluster_static_entry(&mut self, name: &str) -> Vec<Change> {
        self.replace_static_entry(&name.into(), None)
    }

    /// The fields of pods that templates in force read beyond those that facts always hold.
    #[must_use]
    pub fn needed_pod_fields(&self) -> FieldSet {
        let mut fields = FieldSet::default();
        for state in self.cluster_spiffe_ids.values() {
            if let Some(spec) = state.object.active() {
                fields.extend(&spec.needed_pod_fields);
            }
        }
        fields
    }

    /// Registers the servers of a nested cluster that the settings have.
    pub(super) fn register_servers(&mut self) {
        let Some(servers) = self.settings.servers.clone() else {
            return;
        };
        let name = Arc::clone(&servers.source.name);
        let object = ObjectState {
            source: servers.source,
            class_name: None,
            is_served: true,
            error: None,
            good: Some((servers.spec, None)),
        };
        self.replace_cluster_spiffe_id(&name, Some(object));
    }

    pub(super) fn reclassify_cluster_spiffe_id(&mut self, name: &Arc<str>) {
        let declared = self.cluster_spiffe_ids.get(name);
        let of_class = declared.filter(|it| it.object.source.kind == SourceKind::ClusterSpiffeId);
        let Some(state) = of_class else {
            return;
        };
        let is_served = self.settings.serves(state.object.class_name.as_deref());
        let object = ObjectState {
            is_served,
            ..state.object.duplicate()
        };
        self.replace_cluster_spiffe_id(name, Some(object));
    }

    /// Marks the pods of a ClusterSPIFFEID, whose entries are others now.
    pub(super) fn remake_entries_of(&mut self, name: &Arc<str>) {
        let version = self.new_version();
        let Some(state) = self.cluster_spiffe_ids.get_mut(name) else {
            return;
        };
        state.version = version;
        let spec = state.object.active().cloned();
        self.changed_reports
            .insert((SourceKind::ClusterSpiffeId, name.clone()));
        self.select_namespaces(name, spec.as_deref(), true);
    }

    pub(super) fn reclassify_static_entry(&mut self, name: &Arc<str>) -> Vec<Change> {
        let Some(state) = self.static_entries.get(name) else {
            return Vec::new();
        };
        let is_served = self.settings.serves(state.object.class_name.as_deref());
        let object = ObjectState {
            is_served,
            ..state.object.duplicate()
        };
        self.replace_static_entry(name, Some(object))
    }

    fn replace_cluster_spiffe_id(
        &mut self,
        name: &Arc<str>,
        object: Option<ObjectState<ParsedClusterSpiffeId>>,
    ) {
        self.changed_reports
            .insert((SourceKind::ClusterSpiffeId, name.clone()));
        let version = self.new_version();
        let old = self.cluster_spiffe_ids.remove(name);
        let old_spec = old.as_ref().and_then(|old| old.object.active().cloned());
        let old_source = old.as_ref().map(|old| old.object.source.clone());
        let new_spec = object.as_ref().and_then(|object| object.active().cloned());
        let is_same = old_spec == new_spec
            && old_source.as_ref() == object.as_ref().map(|object| &object.source);
        if let Some(object) = object {
            let version = old.filter(|_| is_same).map_or(version, |old| old.version);
            let state = ClusterSpiffeIdState { object, version };
            self.cluster_spiffe_ids.insert(name.clone(), state);
        }
        if let Some(spec) = &old_spec {
            self.pod_index.remove(name, spec);
        }
        if let Some(spec) = &new_spec {
            self.pod_index.add(name, spec);
        }
        self.select_namespaces(name, new_spec.as_deref(), !is_same);
        self.drop_idle_tally(name);
    }

    fn replace_static_entry(
        &mut self,
        name: &Arc<str>,
        object: Option<ObjectState<ParsedStaticEntry>>,
    ) -> Vec<Change> {
        self.changed_reports
            .insert((SourceKind::ClusterStaticEntry, name.clone()));
        let old = self.static_entries.remove(name).and_then(|old| old.entry);
        let cluster = &self.settings.cluster.cluster_name;
        let new = object.as_ref().and_then(|object| {
            let declared = object.active()?.entry(object.source.clone(), cluster);
            Some(self.restricted(&Arc::new(declared)))
        });
        if let Some(object) = object {
            let state = StaticEntryState {
                object,
                entry: new.clone(),
            };
            self.static_entries.insert(name.clone(), state);
        }
        if old == new {
            return Vec::new();
        }
        let cause = if new.is_some() {
            RemovalCause::Rewritten
        } else {
            RemovalCause::ObjectGone
        };
        let exchange = Exchange {
            gone: old.into_iter().map(|old| (old, cause)).collect(),
            new: new.into_iter().collect(),
        };
        self.settle(&exchange)
    }
}

impl<T> ObjectState<T> {
    fn duplicate(&self) -> Self {
        Self {
            source: self.source.clone(),
            class_name: self.class_name.clone(),
            is_served: self.is_served,
            error: self.error.clone(),
            good: self.good.clone(),
        }
    }
}

/// The state after an object was seen, but for whether it is served. A broken spec leaves the last
/// good one of the same object in force.
fn next_state<T: PartialEq>(
    previous: Option<&ObjectState<T>>,
    source: Arc<Source>,
    class_name: Option<&str>,
    generation: Option<i64>,
    parsed: Result<T, SpecError>,
    last_good: impl FnOnce() -> Option<T>,
) -> ObjectState<T> {
    let previous = previous.filter(|previous| previous.source.uid == source.uid);
    let source = match previous {
        Some(previous) if previous.source == source => previous.source.clone(),
        _ => source,
    };
    let kept = previous.and_then(|previous| previous.good.clone());
    let (error, good) = match parsed {
        Err(error) => (
            Some(error),
            kept.or_else(|| Some((Arc::new(last_good()?), None))),
        ),
        Ok(spec) => {
            let spec = match kept {
                Some((kept, _)) if *kept == spec => kept,
                _ => Arc::new(spec),
            };
            (None, Some((spec, generation)))
        }
    };
    ObjectState {
        source,
        class_name: class_name.map(Into::into),
        is_served: false,
        error,
        good,
    }
}
