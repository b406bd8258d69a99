//! Who is registered: the registries of all trust domains, and the facts of the cluster that feed
//! them.
//!
//! Synchronous and behind one lock; nothing here waits for anything. Facts come from the watches
//! ([`super::observe`]); changes go out by channels, and a consumer that lags looks at everything
//! anew. A trust domain that comes later gets all facts that are known.

mod entries;
mod facts;
mod feed;
mod foreign;
mod nested;
mod objects;
mod queries;
mod registrations;
mod start;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast, watch};

use crate::api::{
    ClusterSPIFFEID, ClusterSpiffeIdSpec, ClusterStaticEntry, ClusterStaticEntrySpec,
    TrustDomainSpec,
};
pub use crate::clusters::identities::entries::NotYetSeen;
use crate::clusters::identities::facts::Facts;
pub use crate::clusters::identities::foreign::ForeignBundles;
use crate::clusters::identities::nested::Members;
use crate::clusters::identities::objects::Objects;
pub use crate::clusters::identities::registrations::Expired;
use crate::clusters::identities::registrations::Registrations;
use crate::clusters::identities::start::List;
use crate::registration::bounds::NestedScope;
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
    /// On a ClusterSPIFFEID.
    ClusterSpiffeId(Reported<ClusterSPIFFEID, ClusterSpiffeIdSpec, ClusterSpiffeIdReport>),
    /// On a ClusterStaticEntry.
    ClusterStaticEntry(Reported<ClusterStaticEntry, ClusterStaticEntrySpec, StaticEntryReport>),
}

/// An object of kind `K` with spec `S`, and the report `R` on it.
#[derive(Clone, Debug)]
pub struct Reported<K, S, R> {
    /// The object as it was seen last.
    pub object: Arc<K>,
    /// The last spec of it that was good.
    pub last_good: Option<LastGood<S>>,
    /// The report; none when no trust domain serves its class.
    pub report: Option<R>,
}

/// The last spec of an object that was good.
#[derive(Debug)]
pub struct LastGood<S> {
    /// The spec.
    pub spec: Arc<S>,
    /// The generation that had it; none when the spec comes from a copy.
    pub generation: Option<i64>,
}

impl<S> Clone for LastGood<S> {
    fn clone(&self) -> Self {
        Self {
            spec: Arc::clone(&self.spec),
            generation: self.generation,
        }
    }
}

/// The registries of all trust domains in one cluster, and in those that are nested in it.
#[derive(Debug)]
pub struct Identities {
    state: Mutex<State>,
    members: Members,
    metrics: Arc<Metrics>,
    changed_pods: broadcast::Sender<PodChanged>,
    changes: broadcast::Sender<DomainChange>,
    namespaces: watch::Sender<u64>,
    /// The fields that pods' facts must hold.
    pod_fields: watch::Sender<FieldSet>,
    /// Something waits for [`Self::process`] or [`Self::take_changed_objects`].
    work: Notify,
    reports: Arc<Notify>,
    /// [`Self::wanting_last_good`] may have something.
    wanting: Arc<Notify>,
    /// RegistrationEntries were seen.
    seen_registrations: watch::Sender<()>,
    foreign_bundles: watch::Sender<Arc<ForeignBundles>>,
}

#[derive(Debug, Default)]
struct State {
    facts: Facts,
    objects: Objects,
    registrations: Registrations,
    domains: BTreeMap<Arc<str>, Domain>,
    /// The lists that have never been complete.
    unlisted: BTreeSet<List>,
    /// Objects whose trust domain, or one of whose clusters, is served no more.
    unreported: BTreeSet<ObjectName>,
    /// What may be registered in a nested cluster.
    scope: Option<NestedScope>,
}

#[derive(Debug)]
struct Domain {
    spec: TrustDomainSpec,
    registry: Registry,
    /// Whether all of the cluster had been evaluated once; see [`start`].
    is_settled: bool,
    /// Pods that were asked about before.
    asked_early: BTreeSet<Arc<str>>,
}

impl Identities {
    /// Nothing is known.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::new(State {
                unlisted: List::ALL.into(),
                ..State::default()
            }),
            members: Members::default(),
            metrics,
            changed_pods: broadcast::Sender::new(BACKLOG),
            changes: broadcast::Sender::new(BACKLOG),
            namespaces: watch::Sender::new(0),
            pod_fields: watch::Sender::new(FieldSet::default()),
            work: Notify::new(),
            reports: Arc::default(),
            wanting: Arc::default(),
            seen_registrations: watch::Sender::new(()),
            foreign_bundles: watch::Sender::default(),
        }
    }

    /// Serves a trust domain, or serves it by another spec. All facts that are known count.
    ///
    /// # Errors
    /// When the spec cannot be served; what was served before goes on.
    pub fn set_domain(&self, name: &str, spec: &TrustDomainSpec) -> Result<(), SettingsError> {
        self.serve_domain(name, spec)?;
        let mut members = self.members_of(name).into_iter();
        members.try_for_each(|member| member.serve_domain(name, spec))
    }

    fn serve_domain(&self, name: &str, spec: &TrustDomainSpec) -> Result<(), SettingsError> {
        let mut state = self.lock();
        let State {
            facts,
            objects,
            registrations,
            domains,
            scope,
            ..
        } = &mut *state;
        let settings = match domains.get(name) {
            Some(domain) if domain.spec == *spec => return Ok(()),
            _ => Settings::parse(spec)?,
        };
        let settings = match scope {
            Some(scope) => settings.within(scope),
            None => settings,
        };
        let name: Arc<str> = name.into();
        let changes = match domains.get_mut(&name) {
            Some(domain) => {
                domain.spec = spec.clone();
                domain.registry.set_settings(settings)
            }
            None => {
                let mut registry = Registry::new(settings);
                registry.set_foreign_bundles(self.foreign_bundles(&name));
                // Objects come last, so that pods are evaluated once.
                let mut changes = facts.replay(&mut registry);
                changes.extend(objects.replay(&mut registry));
                changes.extend(registrations.replay(&mut registry));
                let domain = Domain {
                    spec: spec.clone(),
                    registry,
                    is_settled: false,
                    asked_early: BTreeSet::new(),
                };
                domains.insert(Arc::clone(&name), domain);
                changes
            }
        };
        if let Some(domain) = domains.get(&name) {
            objects.note_good(&domain.registry);
            self.publish(&name, domain, changes);
        }
        self.wanting.notify_one();
        self.settle(&mut state);
        Ok(())
    }

    /// Serves a trust domain no more.
    pub fn remove_domain(&self, name: &str) {
        self.hand_on(|member| member.remove_domain(name));
        let mut state = self.lock();
        let Some(domain) = state.domains.remove(name) else {
            return;
        };
        let trust_domain = domain.spec.trust_domain.as_str();
        self.metrics.forget_trust_domain(trust_domain);
        for object in state.objects.names() {
            let ObjectName { kind, name } = &object;
            self.metrics
                .set_object(trust_domain, kind.as_str(), name, None);
            state.unreported.insert(object);
        }
        self.reports.notify_one();
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
            self.publish(name, domain, changes);
            more_left |= more;
        }
        self.note_fields(&state);
        self.note_settled(&mut state);
        self.reports.notify_one();
        more_left
    }

    /// Sends changes to whoever listens. Those of a trust domain that is not settled may come of
    /// what has not been seen yet, and are none to tell.
    fn publish(&self, name: &Arc<str>, domain: &Domain, changes: Vec<Change>) {
        for change in changes {
            if let Some(pod) = tell::pod_of(&change) {
                self.tell_pod(&pod.uid);
            }
            if domain.is_settled {
                self.tell_change(name, change);
            }
        }
    }

    fn tell_change(&self, name: &Arc<str>, change: Change) {
        // Fails only when nobody listens.
        let _ = self.changes.send(DomainChange {
            domain: Arc::clone(name),
            change,
        });
    }

    fn tell_pod(&self, uid: &Arc<str>) {
        // Fails only when nobody listens.
        let _ = self.changed_pods.send(PodChanged {
            uid: Arc::clone(uid),
        });
    }

    /// After any change: wakes who has work by it.
    fn settle(&self, state: &mut State) {
        self.note_fields(state);
        self.note_settled(state);
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

#[cfg(test)]
mod tests;
