//! What one pod gets from the ClusterSPIFFEIDs that select it.

use std::sync::Arc;

use super::{Registry, cluster::SeenNode, objects::ClusterSpiffeIdState, tally::Exchange};
use crate::registration::{
    entry::{Entry, EntrySelector, Source},
    entry_error::EntryError,
    facts::PodFacts,
    pod_entry::{self, PodSurroundings, pod_ref},
    report::{Change, RemovalCause},
    spec::ParsedClusterSpiffeId,
};

/// A pod and what it got.
#[derive(Debug)]
pub(super) struct PodState {
    pub(super) facts: Arc<PodFacts>,
    /// By name of the object.
    pub(super) outcomes: Vec<Outcome>,
    /// The selector that only this pod has, shared by its entries.
    uid_selector: EntrySelector,
    /// Whether the outcomes were found for other facts, another node or other services.
    pub(super) is_stale: bool,
}

/// What came of a ClusterSPIFFEID for a pod that it selects.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) source: Arc<Source>,
    /// The version of the object it was found for.
    version: u64,
    pub(super) verdict: Verdict,
}

/// The kinds of outcome.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Entry(Arc<Entry>),
    Failed(Arc<EntryError>),
    /// The pod has run to its end, or has not been scheduled.
    NotRunning,
    /// Another object serves the pod, and this one is a fallback.
    Superseded,
    /// The pod's facts lack what templates read, or for a fallback, whether another object serves
    /// the pod is not known for that reason; an entry from before stays.
    Waiting(Option<Arc<Entry>>),
}

impl PodState {
    pub(super) fn new(facts: Arc<PodFacts>) -> Self {
        Self {
            uid_selector: EntrySelector::pod_uid(&facts.uid),
            facts,
            outcomes: Vec::new(),
            is_stale: true,
        }
    }

    /// What came of the object `name`.
    pub(super) fn outcome(&self, name: &str) -> Option<&Outcome> {
        find(&self.outcomes, name)
    }
}

impl Outcome {
    /// The entry that it made.
    pub(super) fn entry(&self) -> Option<&Arc<Entry>> {
        match &self.verdict {
            Verdict::Entry(entry) | Verdict::Waiting(Some(entry)) => Some(entry),
            _ => None,
        }
    }

    /// Whether both are entries, so that no count changes when one takes the other's place.
    fn counts_like(&self, other: Option<&Self>) -> bool {
        let is_entry = |outcome: &Self| matches!(outcome.verdict, Verdict::Entry(_));
        is_entry(self) && other.is_some_and(is_entry)
    }

    fn is_waiting(&self) -> bool {
        matches!(self.verdict, Verdict::Waiting(_))
    }

    /// Whether the pod is left to no fallback.
    fn serves(&self) -> bool {
        match &self.verdict {
            Verdict::Failed(error) => error.is_refusal(),
            _ => self.entry().is_some(),
        }
    }
}

/// A ClusterSPIFFEID that selects a pod.
type Match<'a> = (&'a ClusterSpiffeIdState, &'a Arc<ParsedClusterSpiffeId>);

impl Registry {
    /// Finds out what a pod gets, and says what is different.
    pub(super) fn evaluate(&mut self, uid: &str) -> Vec<Change> {
        let Some(pod) = self.pods.get(uid) else {
            return Vec::new();
        };
        let facts = pod.facts.clone();
        let new = self.outcomes(pod);
        let Some(pod) = self.pods.get_mut(uid) else {
            return Vec::new();
        };
        pod.is_stale = false;
        if pod.outcomes == new {
            return Vec::new();
        }
        let old = std::mem::take(&mut pod.outcomes);
        let changes = self.replace_outcomes(&facts, &old, &new, None);
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.outcomes = new;
        }
        changes
    }

    /// Puts the new outcomes of a pod in place of the old ones. Entries go for `cause`, where it is
    /// given.
    pub(super) fn replace_outcomes(
        &mut self,
        pod: &PodFacts,
        old: &[Outcome],
        new: &[Outcome],
        cause: Option<RemovalCause>,
    ) -> Vec<Change> {
        let pod = pod_ref(pod);
        let mut exchange = Exchange::default();
        let mut failures = Vec::new();
        for outcome in old {
            let replacement = find(new, &outcome.source.name);
            if replacement == Some(outcome) {
                continue;
            }
            if !outcome.counts_like(replacement) {
                self.count_outcome(&pod, outcome, -1);
            }
            if let Some(entry) = outcome.entry() {
                let cause = cause.unwrap_or_else(|| self.removal_cause(outcome, replacement));
                exchange.gone.push((entry.clone(), cause));
            }
        }
        for outcome in new {
            let replaced = find(old, &outcome.source.name);
            if replaced == Some(outcome) {
                continue;
            }
            if !outcome.counts_like(replaced) {
                self.count_outcome(&pod, outcome, 1);
            }
            if let Some(entry) = outcome.entry() {
                exchange.new.push(entry.clone());
            }
            if let Verdict::Failed(error) = &outcome.verdict
                && replaced.is_none_or(|replaced| replaced.verdict != outcome.verdict)
            {
                failures.push(Change::Failed {
                    pod: pod.clone(),
                    source: outcome.source.clone(),
                    error: error.clone(),
                });
            }
        }
        let mut changes = self.settle(&exchange);
        changes.append(&mut failures);
        changes
    }

    fn removal_cause(&self, old: &Outcome, new: Option<&Outcome>) -> RemovalCause {
        match new.map(|new| &new.verdict) {
            Some(Verdict::Failed(_)) => RemovalCause::Failed,
            Some(Verdict::NotRunning) => RemovalCause::PodFinished,
            Some(Verdict::Superseded) => RemovalCause::Superseded,
            Some(Verdict::Entry(_) | Verdict::Waiting(_)) => RemovalCause::Rewritten,
            None => match self.cluster_spiffe_ids.get(&old.source.name) {
                Some(state) if state.object.active().is_some() => RemovalCause::NotSelected,
                _ => RemovalCause::ObjectGone,
            },
        }
    }

    /// What a pod gets, by name of the object. Fallbacks come into play last.
    fn outcomes(&self, pod: &PodState) -> Vec<Outcome> {
        let (fallbacks, others): (Vec<_>, Vec<_>) = self
            .matches(&pod.facts)
            .into_iter()
            .partition(|(_, spec)| spec.fallback);
        let mut outcomes: Vec<_> = others
            .into_iter()
            .map(|found| self.outcome(pod, found))
            .collect();
        let is_served = outcomes.iter().any(Outcome::serves);
        let is_open = outcomes.iter().any(Outcome::is_waiting);
        for (state, spec) in fallbacks {
            let source = &state.object.source;
            let given = |verdict| Outcome {
                source: source.clone(),
                version: state.version,
                verdict,
            };
            outcomes.push(if is_served {
                given(Verdict::Superseded)
            } else if is_open {
                let old = pod.outcome(&source.name).and_then(Outcome::entry);
                given(Verdict::Waiting(old.cloned()))
            } else {
                self.outcome(pod, (state, spec))
            });
        }
        outcomes.sort_unstable_by(|left, right| left.source.name.cmp(&right.source.name));
        outcomes
    }

    /// The ClusterSPIFFEIDs that select a pod.
    fn matches(&self, pod: &PodFacts) -> Vec<Match<'_>> {
        let Some(namespace) = self
            .namespaces
            .get(&pod.namespace)
            .filter(|namespace| !namespace.ignored)
        else {
            return Vec::new();
        };
        self.pod_index
            .candidates(&pod.labels)
            .filter(|name| namespace.selected_by.contains(*name))
            .filter_map(|name| {
                let state = self.cluster_spiffe_ids.get(name)?;
                Some((state, state.object.active()?))
            })
            .filter(|(_, spec)| spec.pods.matches(&pod.labels))
            .filter(|(_, spec)| spec.servers.as_ref().is_none_or(|all| all.contain(pod)))
            .collect()
    }

    fn outcome(&self, pod: &PodState, (state, spec): Match<'_>) -> Outcome {
        let source = &state.object.source;
        let old = pod.outcome(&source.name);
        if let Some(old) = old.filter(|old| old.version == state.version && !pod.is_stale)
            && !matches!(old.verdict, Verdict::Superseded | Verdict::Waiting(_))
        {
            return old.clone();
        }
        let verdict = self.verdict(pod, source, spec, old.and_then(Outcome::entry));
        Outcome {
            source: source.clone(),
            version: state.version,
            verdict,
        }
    }

    fn verdict(
        &self,
        pod: &PodState,
        source: &Arc<Source>,
        spec: &ParsedClusterSpiffeId,
        old: Option<&Arc<Entry>>,
    ) -> Verdict {
        let PodState {
            facts: pod,
            uid_selector,
            ..
        } = pod;
        if pod.finished || pod.node.is_empty() {
            return Verdict::NotRunning;
        }
        if !pod.holds(&spec.needed_pod_fields) {
            return Verdict::Waiting(old.cloned());
        }
        let entry = self.seen_node(pod).and_then(|node| {
            let parent_id = node.parent_id.as_ref().map_err(Clone::clone)?;
            let around = PodSurroundings {
                settings: &self.settings,
                pod,
                uid_selector,
                node: &node.facts,
                parent_id,
                foreign: &self.foreign,
            };
            let wants_services = spec.auto_populate_dns_names;
            let services = wants_services.then(|| self.services.of_pod(&pod.namespace, &pod.uid));
            pod_entry::make(spec, source, around, services.into_iter().flatten())
        });
        match (entry, old) {
            (Ok(entry), Some(old)) if **old == entry => Verdict::Entry(old.clone()),
            (Ok(entry), _) => Verdict::Entry(Arc::new(entry)),
            (Err(error), _) => Verdict::Failed(Arc::new(error)),
        }
    }

    fn seen_node(&self, pod: &PodFacts) -> Result<&SeenNode, EntryError> {
        self.nodes
            .get(&pod.node)
            .and_then(|node| node.seen.as_ref())
            .ok_or_else(|| EntryError::NodeUnseen {
                node: pod.node.to_string(),
            })
    }
}

fn find<'a>(outcomes: &'a [Outcome], name: &str) -> Option<&'a Outcome> {
    let at = outcomes
        .binary_search_by(|outcome| (*outcome.source.name).cmp(name))
        .ok()?;
    outcomes.get(at)
}
