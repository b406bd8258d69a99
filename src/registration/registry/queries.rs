//! What can be asked of the registry.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Registry, Right, WriteBlocks,
    evaluate::{Outcome, Verdict},
};
use crate::{
    api::FailingPod,
    registration::{
        entry::{Entry, EntrySelector, SourceKind},
        entry_id::EntryId,
        facts::PodFacts,
        pod_entry::pod_ref,
        report::{
            Change, ClusterSpiffeIdReport, MatchOutcome, NAMED_IN_REPORT, Obstacle, PodReport,
            StaticEntryReport,
        },
    },
    spiffe::{SpiffeId, TrustDomainName},
};

impl Registry {
    /// The entries in force.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.candidates.winners()
    }

    /// The entry in force with this ID.
    #[must_use]
    pub fn entry(&self, id: &EntryId) -> Option<&Arc<Entry>> {
        self.index.get(id)
    }

    /// The entry in force with the key of `entry`.
    #[must_use]
    pub fn same_entry(&self, entry: &Entry) -> Option<&Arc<Entry>> {
        self.candidates.winner(entry)
    }

    /// The entries with the key of `entry`, the one in force first.
    pub fn same_entries(&self, entry: &Entry) -> impl Iterator<Item = &Arc<Entry>> {
        let rivals = self.candidates.rivals(entry).into_iter();
        rivals.flat_map(|rivals| std::iter::once(&rivals.winner).chain(&rivals.masked))
    }

    /// The entries in force whose IDs come after `id`, in the order of IDs; all without one.
    pub fn entries_after(&self, id: Option<&EntryId>) -> impl Iterator<Item = &Arc<Entry>> {
        self.index.after(id)
    }

    /// The entries that an agent may fetch, as spire-server's `authorizedentries` finds them: those
    /// whose parent is the agent, a node alias whose selectors its node has, or such an entry. Node
    /// aliases themselves are not among them.
    #[must_use]
    pub fn authorized_entries(
        &mut self,
        agent: &SpiffeId,
        node_selectors: &BTreeSet<EntrySelector>,
    ) -> Vec<Arc<Entry>> {
        let parents = self.index.parents_for(agent, node_selectors);
        let entries = parents.iter().flat_map(|it| self.index.children(it));
        entries.cloned().collect()
    }

    /// The entries that an agent may fetch as `write` makes them, which must be the same function
    /// always: what it made of a parent's entries is given again until they change.
    #[must_use]
    pub fn authorized_blocks(
        &mut self,
        agent: &SpiffeId,
        node_selectors: &BTreeSet<EntrySelector>,
        write: WriteBlocks,
    ) -> Vec<Arc<[u8]>> {
        let parents = self.index.parents_for(agent, node_selectors);
        let blocks = parents.iter().flat_map(|it| self.index.blocks(it, write));
        blocks.collect()
    }

    /// Of the entries that an agent may fetch those with these IDs, in their order.
    #[must_use]
    pub fn authorized_among(
        &mut self,
        agent: &SpiffeId,
        node_selectors: &BTreeSet<EntrySelector>,
        ids: &[EntryId],
    ) -> Vec<Option<Arc<Entry>>> {
        let parents = self.index.parents_for(agent, node_selectors);
        let may_fetch =
            |entry: &&Arc<Entry>| !entry.is_node_alias() && parents.contains(&entry.parent_id);
        let found = |id| self.index.get(id).filter(may_fetch).cloned();
        ids.iter().map(found).collect()
    }

    /// Whether an entry of this SPIFFE ID gives a right.
    #[must_use]
    pub fn gives_right(&self, id: &SpiffeId, right: Right) -> bool {
        self.index.gives_right(id, right)
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

    /// The entries in force for a pod, that of the oldest object first. Where another object
    /// declares the entry already that was made for the pod, its entry counts for the pod, too.
    #[must_use]
    pub fn entries_of_pod(&self, uid: &str) -> Vec<Arc<Entry>> {
        let outcomes = self.pods.get(uid).map_or(&[][..], |pod| &pod.outcomes);
        let mut entries: Vec<_> = outcomes
            .iter()
            .filter_map(Outcome::entry)
            .filter_map(|entry| self.candidates.winner(entry))
            .cloned()
            .collect();
        entries.sort_by(|left, right| (&left.source, left.key).cmp(&(&right.source, right.key)));
        entries.dedup_by_key(|entry| entry.key);
        entries
    }

    /// Whether everything that was taken in has been evaluated.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.marked.is_empty() && !self.missing_pod_detail()
    }

    /// The objects of the trust domain's class none of whose specs is in force.
    pub fn without_good_spec(&self) -> impl Iterator<Item = (SourceKind, &Arc<str>)> {
        let ids = self.cluster_spiffe_ids.iter();
        let ids = ids.filter(|(_, state)| state.object.lacks_good_spec());
        let entries = self.static_entries.iter();
        let entries = entries.filter(|(_, state)| state.object.lacks_good_spec());
        ids.map(|(name, _)| (SourceKind::ClusterSpiffeId, name))
            .chain(entries.map(|(name, _)| (SourceKind::ClusterStaticEntry, name)))
    }

    /// Whether an object is of the trust domain's class and the spec that it has is in force.
    #[must_use]
    pub fn is_good(&self, kind: SourceKind, name: &str) -> bool {
        match kind {
            SourceKind::ClusterSpiffeId => self
                .cluster_spiffe_ids
                .get(name)
                .is_some_and(|state| state.object.is_good()),
            SourceKind::ClusterStaticEntry => self
                .static_entries
                .get(name)
                .is_some_and(|state| state.object.is_good()),
            SourceKind::RegistrationEntry | SourceKind::NestedCluster => false,
        }
    }

    /// What is wrong now, as if it were news: the first failures and masked entries of each object.
    #[must_use]
    pub fn troubles(&self) -> Vec<Change> {
        let mut news = Vec::new();
        for (name, tally) in &self.tallies {
            let Some(state) = self.cluster_spiffe_ids.get(name) else {
                continue;
            };
            let failures = tally.failures.iter().take(NAMED_IN_REPORT);
            news.extend(failures.map(|(pod, error)| Change::Failed {
                pod: pod.clone(),
                source: state.object.source.clone(),
                error: error.clone(),
            }));
            let masked = tally.masked_by.iter().take(NAMED_IN_REPORT);
            news.extend(masked.filter_map(|(pod, by)| {
                let entry = self.pods.get(&pod.uid)?.outcome(name)?.entry()?.clone();
                let by = by.clone();
                Some(Change::Masked { entry, by })
            }));
        }
        let entries = self.static_entries.values();
        let entries = entries.filter_map(|state| state.entry.as_ref());
        news.extend(entries.filter_map(|entry| {
            let by = self.candidates.masked_by(entry)?.clone();
            let entry = entry.clone();
            Some(Change::Masked { entry, by })
        }));
        news
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
        if !object.is_served || object.source.kind != SourceKind::ClusterSpiffeId {
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
            exceeding_ttls: object
                .active()
                .map(|spec| {
                    let ttls = (("ttl", spec.x509_ttl), ("jwtTtl", spec.jwt_ttl));
                    self.settings.lifetimes.exceeded_by(ttls.0, ttls.1)
                })
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
            exceeding_ttls: state
                .object
                .active()
                .map(|spec| {
                    let ttls = (("x509SVIDTTL", spec.x509_ttl), ("jwtSVIDTTL", spec.jwt_ttl));
                    self.settings.lifetimes.exceeded_by(ttls.0, ttls.1)
                })
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

    /// The trust domain's own bundle goes to every workload anyway.
    fn unknown_federated(&self, names: &[TrustDomainName]) -> Vec<TrustDomainName> {
        let own = &self.settings.cluster.trust_domain;
        let is_unknown = |name: &&TrustDomainName| *name != own && !self.foreign.contains(*name);
        names.iter().filter(is_unknown).cloned().collect()
    }
}
