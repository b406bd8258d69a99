//! What can be asked, and what can be waited for.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use tokio::sync::{broadcast, watch};

use crate::clusters::identities::{
    DomainChange, Identities, ObjectName, ObjectReport, PodChanged, PodIdentities, tell,
};
use crate::registration::FieldSet;
use crate::registration::selector::Selector;

impl Identities {
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

    /// The namespaces that a selector matches and that are not about to go; no selector matches
    /// all. None before a complete list of namespaces was seen.
    ///
    /// # Errors
    /// When the selector is none, in words for the user.
    pub fn namespaces_matching(
        &self,
        selector: Option<&LabelSelector>,
    ) -> Result<Option<BTreeSet<String>>, String> {
        let selector = Selector::new(selector).map_err(|error| error.to_string())?;
        Ok(self.lock().facts.namespaces_matching(&selector))
    }
}
