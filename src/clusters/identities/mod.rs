//! Who is registered: the registries of all trust domains, and the facts of the cluster that feed
//! them.
//!
//! Synchronous and behind one lock; nothing here waits for anything. Facts come from the watches
//! ([`super::observe`]); changes go out by channels, and a consumer that lags looks at everything
//! anew. A trust domain that comes later gets all facts that are known.

mod facts;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;

use crate::api::{
    ClusterSPIFFEID, ClusterSpiffeIdSpec, ClusterStaticEntry, ClusterStaticEntrySpec,
    TrustDomainSpec,
};
use crate::clusters::identities::facts::Facts;
use crate::registration::selector::Selector;
use crate::registration::{
    Change, ClusterSpiffeIdReport, Entry, FieldSet, PodFacts, Registry, Settings, SettingsError,
    SourceKind, StaticEntryReport,
};
use crate::runtime::metrics::Metrics;

/// Changes that a consumer may lag behind before it has to look at everything anew.
const BACKLOG: usize = 4096;
/// Pods that are evaluated without letting anybody else in between.
const SLICE: usize = 250;

/// A pod whose facts or entries changed.
#[derive(Clone, Debug)]
pub struct PodChanged {
    /// UID of the pod.
    pub uid: Arc<str>,
}

/// A change of one trust domain's entries.
#[derive(Clone, Debug)]
pub struct DomainChange {
    /// Name of the TrustDomain object.
    pub domain: Arc<str>,
    /// What changed.
    pub change: Change,
}

/// What is known of a pod in one trust domain.
#[derive(Clone, Debug, Default)]
pub struct PodIdentities {
    /// The pod, once it has been seen.
    pub facts: Option<Arc<PodFacts>>,
    /// Its entries, the one of the oldest object first.
    pub entries: Vec<Arc<Entry>>,
    /// Why it has none, in words for the user.
    pub why_none: String,
}

/// A registering object, by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// Its kind.
    pub kind: SourceKind,
    /// Its name.
    pub name: Arc<str>,
}

/// What was made of an object, with the object.
#[derive(Clone, Debug)]
pub enum ObjectReport {
    /// On a ClusterSPIFFEID, with the object.
    ClusterSpiffeId(Arc<ClusterSPIFFEID>, ClusterSpiffeIdReport),
    /// On a ClusterStaticEntry, with the object.
    ClusterStaticEntry(Arc<ClusterStaticEntry>, StaticEntryReport),
}

/// The registries of all trust domains.
#[derive(Debug)]
pub struct Identities {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    changed_pods: broadcast::Sender<PodChanged>,
    changes: broadcast::Sender<DomainChange>,
    namespaces: watch::Sender<u64>,
    /// The fields that pods' facts must hold.
    pod_fields: watch::Sender<FieldSet>,
    /// Something waits for [`Self::process`] or [`Self::take_changed_objects`].
    work: Notify,
    reports: Notify,
}

#[derive(Debug, Default)]
struct State {
    facts: Facts,
    domains: BTreeMap<Arc<str>, Domain>,
}

#[derive(Debug)]
struct Domain {
    spec: TrustDomainSpec,
    registry: Registry,
}

impl Identities {
    /// Nothing is known.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::default(),
            metrics,
            changed_pods: broadcast::Sender::new(BACKLOG),
            changes: broadcast::Sender::new(BACKLOG),
            namespaces: watch::Sender::new(0),
            pod_fields: watch::Sender::new(FieldSet::default()),
            work: Notify::new(),
            reports: Notify::new(),
        }
    }

    /// Serves a trust domain, or serves it by another spec. All facts that are known count.
    ///
    /// # Errors
    /// When the spec cannot be served; what was served before goes on.
    pub fn set_domain(&self, name: &str, spec: &TrustDomainSpec) -> Result<(), SettingsError> {
        let mut state = self.lock();
        let State { facts, domains } = &mut *state;
        let settings = match domains.get(name) {
            Some(domain) if domain.spec == *spec => return Ok(()),
            _ => Settings::parse(spec)?,
        };
        let name: Arc<str> = name.into();
        let changes = match domains.get_mut(&name) {
            Some(domain) => {
                domain.spec = spec.clone();
                domain.registry.set_settings(settings)
            }
            None => {
                let mut registry = Registry::new(settings);
                let changes = facts.replay(&mut registry);
                domains.insert(
                    Arc::clone(&name),
                    Domain {
                        spec: spec.clone(),
                        registry,
                    },
                );
                changes
            }
        };
        self.publish(&name, changes);
        self.settle(&state);
        Ok(())
    }

    /// Serves a trust domain no more.
    pub fn remove_domain(&self, name: &str) {
        if let Some(domain) = self.lock().domains.remove(name) {
            self.metrics.forget_trust_domain(&domain.spec.trust_domain);
        }
    }

    /// Takes in a pod.
    pub fn apply_pod(&self, pod: &Pod) {
        let started = Instant::now();
        let mut state = self.lock();
        let Some(facts) = state.facts.apply_pod(pod, &self.pod_fields.borrow()) else {
            return;
        };
        let mut is_registered = false;
        for (name, domain) in &mut state.domains {
            let changes = domain.registry.apply_pod(Arc::clone(&facts));
            is_registered |= changes
                .iter()
                .any(|change| matches!(change, Change::Set(_)));
            self.publish(name, changes);
        }
        if is_registered {
            self.metrics.registered(started.elapsed());
        }
        self.tell_pod(&facts.uid);
        self.settle(&state);
    }

    /// A pod is gone.
    pub fn delete_pod(&self, uid: &str) {
        let mut state = self.lock();
        if !state.facts.delete_pod(uid) {
            return;
        }
        for (name, domain) in &mut state.domains {
            let changes = domain.registry.delete_pod(uid);
            self.publish(name, changes);
        }
        self.settle(&state);
    }

    /// All pods that are there have these UIDs; the others are gone.
    pub fn retain_pods(&self, uids: &BTreeSet<String>) {
        let gone = self.lock().facts.pods_except(uids);
        gone.iter().for_each(|uid| self.delete_pod(uid));
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
        self.settle(&state);
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
        self.settle(&state);
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
    }

    /// Takes in a ClusterSPIFFEID; `last_good` is the last spec of it that could be evaluated,
    /// where it was kept from before.
    pub fn apply_cluster_spiffe_id(
        &self,
        object: &Arc<ClusterSPIFFEID>,
        last_good: Option<ClusterSpiffeIdSpec>,
    ) {
        let mut state = self.lock();
        let State { facts, domains } = &mut *state;
        let last_good = facts.apply_cluster_spiffe_id(object, last_good);
        for domain in domains.values_mut() {
            domain.registry.apply_cluster_spiffe_id(object, last_good);
        }
        self.settle(&state);
    }

    /// A ClusterSPIFFEID is gone.
    pub fn delete_cluster_spiffe_id(&self, name: &str) {
        let mut state = self.lock();
        state.facts.delete_cluster_spiffe_id(name);
        for domain in state.domains.values_mut() {
            domain.registry.delete_cluster_spiffe_id(name);
            let trust_domain = domain.spec.trust_domain.as_str();
            let kind = SourceKind::ClusterSpiffeId.as_str();
            self.metrics.set_object(trust_domain, kind, name, None);
        }
        self.settle(&state);
    }

    /// All ClusterSPIFFEIDs that are there have these names.
    pub fn retain_cluster_spiffe_ids(&self, names: &BTreeSet<String>) {
        let gone = self.lock().facts.cluster_spiffe_ids_except(names);
        gone.iter()
            .for_each(|name| self.delete_cluster_spiffe_id(name));
    }

    /// Takes in a ClusterStaticEntry; `last_good` as for a ClusterSPIFFEID.
    pub fn apply_cluster_static_entry(
        &self,
        object: &Arc<ClusterStaticEntry>,
        last_good: Option<ClusterStaticEntrySpec>,
    ) {
        let mut state = self.lock();
        let State { facts, domains } = &mut *state;
        let last_good = facts.apply_cluster_static_entry(object, last_good);
        for (name, domain) in domains {
            let changes = domain
                .registry
                .apply_cluster_static_entry(object, last_good);
            self.publish(name, changes);
        }
        self.settle(&state);
    }

    /// A ClusterStaticEntry is gone.
    pub fn delete_cluster_static_entry(&self, name: &str) {
        let mut state = self.lock();
        state.facts.delete_cluster_static_entry(name);
        for (domain_name, domain) in &mut state.domains {
            let changes = domain.registry.delete_cluster_static_entry(name);
            self.publish(domain_name, changes);
            let trust_domain = domain.spec.trust_domain.as_str();
            let kind = SourceKind::ClusterStaticEntry.as_str();
            self.metrics.set_object(trust_domain, kind, name, None);
        }
        self.settle(&state);
    }

    /// All ClusterStaticEntries that are there have these names.
    pub fn retain_cluster_static_entries(&self, names: &BTreeSet<String>) {
        let gone = self.lock().facts.cluster_static_entries_except(names);
        gone.iter()
            .for_each(|name| self.delete_cluster_static_entry(name));
    }

    /// Evaluates pods as objects come and go, a slice at a time, for ever.
    pub async fn process(&self) {
        loop {
            self.work.notified().await;
            while self.process_slice() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Evaluates one slice of every trust domain; whether more is to be done.
    fn process_slice(&self) -> bool {
        let mut state = self.lock();
        let mut more_left = false;
        for (name, domain) in &mut state.domains {
            let (changes, more) = domain.registry.process(SLICE);
            self.publish(name, changes);
            more_left |= more;
        }
        self.note_fields(&state);
        self.reports.notify_one();
        more_left
    }

    /// The pod with `uid` in the trust domain of the TrustDomain object `domain`.
    #[must_use]
    pub fn pod(&self, domain: &str, uid: &str) -> PodIdentities {
        let state = self.lock();
        let Some(domain) = state.domains.get(domain) else {
            return PodIdentities::default();
        };
        PodIdentities {
            facts: state.facts.pod(uid),
            entries: domain.registry.entries_of_pod(uid),
            why_none: tell::why_none(domain.registry.pod_report(uid).as_ref(), &domain.spec),
        }
    }

    /// UID of the pod with this name, for events.
    #[must_use]
    pub fn pod_uid(&self, namespace: &str, name: &str) -> Option<Arc<str>> {
        self.lock().facts.pod_uid(namespace, name)
    }

    /// How many entries a trust domain has.
    #[must_use]
    pub fn entry_count(&self, domain: &str) -> usize {
        self.lock()
            .domains
            .get(domain)
            .map_or(0, |domain| domain.registry.entry_count())
    }

    /// The objects whose reports may have changed since this was asked last.
    #[must_use]
    pub fn take_changed_objects(&self) -> BTreeSet<ObjectName> {
        let mut state = self.lock();
        let mut changed = BTreeSet::new();
        for domain in state.domains.values_mut() {
            let trust_domain = domain.spec.trust_domain.as_str();
            let count = domain.registry.entry_count();
            self.metrics
                .set_entries(trust_domain, i64::try_from(count).unwrap_or(i64::MAX));
            let names = domain.registry.take_changed_reports().into_iter();
            changed.extend(names.map(|(kind, name)| ObjectName { kind, name }));
        }
        changed
    }

    /// What was made of an object; none when there is no such object, or no trust domain serves
    /// its class.
    #[must_use]
    pub fn report(&self, object: &ObjectName) -> Option<ObjectReport> {
        let state = self.lock();
        let ObjectName { kind, name } = object;
        let mut found = None;
        for domain in state.domains.values() {
            let report = state.facts.report(&domain.registry, *kind, name);
            let trust_domain = domain.spec.trust_domain.as_str();
            let counts = report.as_ref().map(tell::counts);
            self.metrics
                .set_object(trust_domain, kind.as_str(), name, counts);
            found = found.or(report);
        }
        found
    }

    /// All registering objects.
    #[must_use]
    pub fn objects(&self) -> BTreeSet<ObjectName> {
        self.lock().facts.objects()
    }

    /// Waits until [`Self::take_changed_objects`] may have something.
    pub async fn reports_changed(&self) {
        self.reports.notified().await;
    }

    /// Pods whose facts or entries change from now on.
    #[must_use]
    pub fn changed_pods(&self) -> broadcast::Receiver<PodChanged> {
        self.changed_pods.subscribe()
    }

    /// All changes of entries from now on.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<DomainChange> {
        self.changes.subscribe()
    }

    /// Changes whenever a namespace does.
    #[must_use]
    pub fn namespaces_changed(&self) -> watch::Receiver<u64> {
        self.namespaces.subscribe()
    }

    /// The fields that pods' facts must hold; all pods must be given again when this changes.
    #[must_use]
    pub fn pod_fields(&self) -> watch::Receiver<FieldSet> {
        self.pod_fields.subscribe()
    }

    /// The namespaces that a selector matches and that are not about to go; none matches all.
    ///
    /// # Errors
    /// When the selector is none, in words for the user.
    pub fn namespaces_matching(
        &self,
        selector: Option<&LabelSelector>,
    ) -> Result<BTreeSet<String>, String> {
        let selector = Selector::new(selector).map_err(|error| error.to_string())?;
        Ok(self.lock().facts.namespaces_matching(&selector))
    }

    fn with_registries(&self, note: impl FnOnce(&mut Facts), mut apply: impl FnMut(&mut Registry)) {
        let mut state = self.lock();
        note(&mut state.facts);
        state
            .domains
            .values_mut()
            .for_each(|domain| apply(&mut domain.registry));
        self.settle(&state);
    }

    /// Sends changes to whoever listens.
    fn publish(&self, domain: &Arc<str>, changes: Vec<Change>) {
        for change in changes {
            if let Some(pod) = tell::pod_of(&change) {
                self.tell_pod(&pod.uid);
            }
            // Fails only when nobody listens.
            let _ = self.changes.send(DomainChange {
                domain: Arc::clone(domain),
                change,
            });
        }
    }

    fn tell_pod(&self, uid: &Arc<str>) {
        // Fails only when nobody listens.
        let _ = self.changed_pods.send(PodChanged {
            uid: Arc::clone(uid),
        });
    }

    /// After any change: wakes who has work by it.
    fn settle(&self, state: &State) {
        self.note_fields(state);
        self.work.notify_one();
        self.reports.notify_one();
    }

    /// Asks for all pods again when templates read fields that the facts do not hold.
    fn note_fields(&self, state: &State) {
        if !state
            .domains
            .values()
            .any(|domain| domain.registry.missing_pod_detail())
        {
            return;
        }
        let mut needed = FieldSet::default();
        for domain in state.domains.values() {
            needed.extend(&domain.registry.needed_pod_fields());
        }
        self.pod_fields.send_if_modified(|fields| {
            let changed = *fields != needed;
            *fields = needed;
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
