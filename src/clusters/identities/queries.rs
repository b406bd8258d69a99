//! What can be asked, and what can be waited for.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use tokio::sync::{broadcast, watch};

use crate::clusters::identities::start::List;
use crate::clusters::identities::{
    DomainChange, Identities, ObjectName, ObjectReport, PodChanged, PodIdentities, Reported, State,
    start, tell,
};
use crate::registration::FieldSet;
use crate::registration::selector::Selector;

impl Identities {
    /// The pod with `uid` in the trust domain of the TrustDomain object `domain`. It has no entries
    /// before all of the cluster has been seen and evaluated once; the pods that were asked about
    /// too early are then among the [changed ones](Self::changed_pods).
    #[must_use]
    pub fn pod(&self, domain: &str, uid: &str) -> PodIdentities {
        let mut state = self.lock();
        let State {
            facts,
            objects,
            domains,
            unlisted,
            ..
        } = &mut *state;
        let Some(domain) = domains.get_mut(domain) else {
            return PodIdentities::default();
        };
        if !domain.is_settled {
            domain.asked_early.insert(uid.into());
            return PodIdentities {
                facts: facts.pod(uid),
                entries: Vec::new(),
                why_none: start::what_is_missing(unlisted, objects, domain),
            };
        }
        PodIdentities {
            facts: facts.pod(uid),
            entries: domain.registry.entries_of_pod(uid),
            why_none: tell::why_none(domain.registry.pod_report(uid).as_ref(), &domain.spec),
        }
    }

    /// How many entries a trust domain has.
    #[must_use]
    pub fn entry_count(&self, domain: &str) -> usize {
        let members = self.members_of(domain).into_iter();
        let of_members: usize = members.map(|member| member.entry_count(domain)).sum();
        let state = self.lock();
        let served = state.domains.get(domain);
        served.map_or(0, |domain| domain.registry.entry_count()) + of_members
    }

    /// How many pods a trust domain knows in this cluster.
    #[must_use]
    pub fn pod_count(&self, domain: &str) -> usize {
        let state = self.lock();
        let served = state.domains.get(domain);
        served.map_or(0, |domain| domain.registry.pod_count())
    }

    /// The objects whose reports may have changed since this was asked last.
    #[must_use]
    pub fn take_changed_objects(&self) -> BTreeSet<ObjectName> {
        let mut changed = self.take_changed();
        self.hand_on(|member| changed.extend(member.take_changed()));
        for (name, trust_domain) in self.settled_domains() {
            let count = self.entry_count(&name);
            self.metrics
                .set_entries(&trust_domain, i64::try_from(count).unwrap_or(i64::MAX));
        }
        changed
    }

    fn take_changed(&self) -> BTreeSet<ObjectName> {
        let mut state = self.lock();
        let mut changed = std::mem::take(&mut state.unreported);
        let domains = state.domains.values_mut();
        for domain in domains.filter(|domain| domain.is_settled) {
            let names = domain.registry.take_changed_reports().into_iter();
            changed.extend(names.map(|(kind, name)| ObjectName { kind, name }));
        }
        changed
    }

    /// The TrustDomain objects that are settled, with the names of their trust domains.
    fn settled_domains(&self) -> Vec<(Arc<str>, String)> {
        let state = self.lock();
        let settled = state.domains.iter().filter(|(_, it)| it.is_settled);
        settled
            .map(|(name, domain)| (Arc::clone(name), domain.spec.trust_domain.clone()))
            .collect()
    }

    /// What was made of an object; none when there is no such object, or the cluster has not been
    /// evaluated once for the trust domain that serves it.
    #[must_use]
    pub fn report(&self, object: &ObjectName) -> Option<ObjectReport> {
        let of_members = self.reports_of_members(object);
        let state = self.lock();
        let ObjectName { kind, name } = object;
        let mut found = state.objects.report(None, object);
        for (domain_name, domain) in &state.domains {
            let mut report = state.objects.report(Some(&domain.registry), object)?;
            if let ObjectReport::ClusterSpiffeId(Reported {
                report: Some(report),
                ..
            }) = &mut report
            {
                let others = of_members.iter().filter(|(of, ..)| of == domain_name);
                others.for_each(|(_, cluster, other)| report.add(cluster, other));
            }
            let trust_domain = domain.spec.trust_domain.as_str();
            let counts = tell::counts(&report);
            self.metrics
                .set_object(trust_domain, kind.as_str(), name, counts);
            if counts.is_some() {
                found = domain.is_settled.then_some(report);
            }
        }
        found
    }

    /// Whether there is such an object.
    #[must_use]
    pub fn knows(&self, object: &ObjectName) -> bool {
        self.lock().objects.report(None, object).is_some()
    }

    /// The objects, with their UIDs, that need the copy of their last good spec, if there is one:
    /// the spec that they have is broken, and they had no other since this process started.
    #[must_use]
    pub fn wanting_last_good(&self) -> Vec<(ObjectName, String)> {
        let mut wanting = self.unsought();
        self.hand_on(|member| wanting.extend(member.unsought()));
        wanting.into_iter().collect()
    }

    fn unsought(&self) -> BTreeSet<(ObjectName, String)> {
        let state = self.lock();
        let domains = state.domains.values();
        domains
            .flat_map(|domain| state.objects.unsought(&domain.registry))
            .collect()
    }

    /// What is wrong now, as if it were news: the first failures and masked entries of each object.
    #[must_use]
    pub fn troubles(&self) -> Vec<DomainChange> {
        let state = self.lock();
        let domains = state.domains.iter();
        let domains = domains.filter(|(_, domain)| domain.is_settled);
        let troubles = domains.flat_map(|(name, domain)| {
            let troubles = domain.registry.troubles().into_iter();
            troubles.map(|change| DomainChange {
                domain: Arc::clone(name),
                change,
            })
        });
        troubles.collect()
    }

    /// All registering objects.
    #[must_use]
    pub fn objects(&self) -> BTreeSet<ObjectName> {
        self.lock().objects.names()
    }

    /// Waits until [`Self::wanting_last_good`] may have something new.
    pub async fn last_good_wanted(&self) {
        self.wanting.notified().await;
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

    /// All changes of the entries of settled trust domains from now on, and what is wrong when one
    /// comes to be settled.
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
        let state = self.lock();
        let is_listed = !state.unlisted.contains(&List::Namespaces);
        Ok(is_listed.then(|| state.facts.namespaces_matching(&selector)))
    }
}
