//! What can be asked of the registry.

use std::sync::Arc;

use super::{
    Registry,
    evaluate::{Outcome, Verdict},
};
use crate::{
    api::FailingPod,
    registration::{
        entry::Entry,
        facts::PodFacts,
        pod_entry::pod_ref,
        report::{ClusterSpiffeIdReport, MatchOutcome, Obstacle, PodReport, StaticEntryReport},
    },
    spiffe::TrustDomainName,
};

/// How many failing pods and masking objects a report names.
const NAMED_IN_REPORT: usize = 10;

impl Registry {
    /// The entries in force, by key.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.candidates.winners()
    }

    /// How many entries are in force.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.candidates.winner_count()
    }

    /// How many pods are known.
    #[must_use]
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// The entries in force that were made for a pod, that of the oldest object first.
    #[must_use]
    pub fn entries_of_pod(&self, uid: &str) -> Vec<Arc<Entry>> {
        let outcomes = self.pods.get(uid).map_or(&[][..], |pod| &pod.outcomes);
        let mut entries: Vec<_> = outcomes
            .iter()
            .filter_map(Outcome::entry)
            .filter(|entry| self.candidates.masked_by(entry).is_none())
            .cloned()
            .collect();
        entries.sort_by(|left, right| left.source.cmp(&right.source));
        entries
    }

    /// Why a pod has the entries it has, or none.
    #[must_use]
    pub fn pod_report(&self, uid: &str) -> Option<PodReport> {
        let pod = self.pods.get(uid)?;
        Some(PodReport {
            pod: pod_ref(&pod.facts),
            obstacle: self.obstacle(&pod.facts),
            matches: pod
                .outcomes
                .iter()
                .map(|outcome| (outcome.source.clone(), self.match_outcome(outcome)))
                .collect(),
        })
    }

    /// What was made of a ClusterSPIFFEID; none if there is no such object or the trust domain does
    /// not serve its class.
    #[must_use]
    pub fn report_of_cluster_spiffe_id(&self, name: &str) -> Option<ClusterSpiffeIdReport> {
        let object = &self.cluster_spiffe_ids.get(name)?.object;
        let tally = self.tallies.get(name)?;
        if !object.is_served {
            return None;
        }
        let failing = tally
            .failures
            .iter()
            .take(NAMED_IN_REPORT)
            .map(|(pod, error)| FailingPod {
                namespace: pod.namespace.to_string(),
                name: pod.name.to_string(),
                message: error.to_string(),
            });
        let mut masked_by = Vec::new();
        for source in tally.masked_by.values() {
            if masked_by.len() < NAMED_IN_REPORT && !masked_by.contains(source) {
                masked_by.push(source.clone());
            }
        }
        Some(ClusterSpiffeIdReport {
            stats: tally.stats.clone(),
            failing: failing.collect(),
            error: object.error.clone(),
            in_force: object.in_force(),
            unknown_federated: object
                .active()
                .map(|spec| self.unknown_federated(&spec.federates_with))
                .unwrap_or_default(),
            masked_by,
            waiting_pods: tally.waiting.len(),
        })
    }

    /// What was made of a ClusterStaticEntry; none if there is no such object or the trust domain
    /// does not serve its class.
    #[must_use]
    pub fn report_of_cluster_static_entry(&self, name: &str) -> Option<StaticEntryReport> {
        let state = self
            .static_entries
            .get(name)
            .filter(|state| state.object.is_served)?;
        let masked_by = state
            .entry
            .as_ref()
            .and_then(|entry| self.candidates.masked_by(entry))
            .cloned();
        Some(StaticEntryReport {
            error: state.object.error.clone(),
            in_force: state.object.in_force(),
            masked_by,
            unknown_federated: state
                .object
                .active()
                .map(|spec| self.unknown_federated(&spec.federates_with))
                .unwrap_or_default(),
        })
    }

    /// Whether pods wait for fields that their facts lack. The owner then gives all pods again,
    /// with [`Registry::needed_pod_fields`]; until then what they have stays.
    #[must_use]
    pub fn missing_pod_detail(&self) -> bool {
        self.tallies.values().any(|tally| !tally.waiting.is_empty())
    }

    fn obstacle(&self, pod: &PodFacts) -> Option<Obstacle> {
        let namespace = self.namespaces.get(&pod.namespace);
        if namespace.is_some_and(|namespace| namespace.ignored) {
            return Some(Obstacle::NamespaceIgnored);
        }
        if namespace.is_none_or(|namespace| namespace.labels.is_none()) {
            return Some(Obstacle::NamespaceUnseen);
        }
        if pod.finished {
            return Some(Obstacle::Finished);
        }
        pod.node.is_empty().then_some(Obstacle::Unscheduled)
    }

    fn match_outcome(&self, outcome: &Outcome) -> MatchOutcome {
        match &outcome.verdict {
            Verdict::Entry(entry) => match self.candidates.masked_by(entry) {
                None => MatchOutcome::Issued(entry.clone()),
                Some(by) => MatchOutcome::Masked {
                    entry: entry.clone(),
                    by: by.clone(),
                },
            },
            Verdict::Failed(error) => MatchOutcome::Failed(error.clone()),
            Verdict::NotRunning => MatchOutcome::NotRunning,
            Verdict::Superseded => MatchOutcome::Superseded,
            Verdict::Waiting(entry) => MatchOutcome::Waiting(entry.clone()),
        }
    }

    /// No foreign bundle is known; the trust domain's own bundle goes to every workload anyway.
    fn unknown_federated(&self, names: &[TrustDomainName]) -> Vec<TrustDomainName> {
        let own = &self.settings.cluster.trust_domain;
        names.iter().filter(|name| *name != own).cloned().collect()
    }
}
