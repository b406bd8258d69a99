//! Counts, failures and masking of each ClusterSPIFFEID, kept current with every change of a pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Registry,
    evaluate::{Outcome, Verdict},
};
use crate::{
    api::ClusterSpiffeIdStats,
    registration::{
        entry::{Entry, EntryError, EntryKey, PodRef, Source, SourceKind},
        masking::{Candidates, Rivals},
        report::{Change, RemovalCause},
    },
};

/// What is counted of one ClusterSPIFFEID.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) stats: ClusterSpiffeIdStats,
    pub(super) failures: BTreeMap<PodRef, Arc<EntryError>>,
    pub(super) masked_by: BTreeMap<PodRef, Arc<Source>>,
    pub(super) waiting: BTreeSet<Arc<str>>,
}

/// Keys whose candidates change in one step, each as it was before.
#[derive(Debug, Default)]
pub(super) struct Touched(Vec<TouchedKey>);

#[derive(Debug)]
struct TouchedKey {
    key: EntryKey,
    before: Option<Rivals>,
    cause: Option<RemovalCause>,
}

impl Touched {
    pub(super) fn insert(&mut self, candidates: &mut Candidates, entry: Arc<Entry>) {
        self.touch(candidates, entry.key);
        candidates.insert(entry);
    }

    pub(super) fn remove(
        &mut self,
        candidates: &mut Candidates,
        entry: &Entry,
        cause: RemovalCause,
    ) {
        self.touch(candidates, entry.key).cause = Some(cause);
        candidates.remove(entry);
    }

    fn touch(&mut self, candidates: &Candidates, key: EntryKey) -> &mut TouchedKey {
        let known = self.0.iter().position(|touched| touched.key == key);
        let at = known.unwrap_or_else(|| {
            let before = candidates.rivals(&key).cloned();
            self.0.push(TouchedKey {
                key,
                before,
                cause: None,
            });
            self.0.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or pushed above")]
        &mut self.0[at]
    }
}

impl Registry {
    /// Says what became of the keys that were touched: first what is gone, then what is there.
    pub(super) fn settle(&mut self, touched: Touched) -> Vec<Change> {
        let (mut gone, mut set) = (Vec::new(), Vec::new());
        for TouchedKey { key, before, cause } in touched.0 {
            let after = self.candidates.rivals(&key).cloned();
            self.recount(before.as_ref(), after.as_ref(), &mut set);
            match (before, after) {
                (Some(before), None) => gone.push(Change::Removed(
                    before.winner,
                    cause.unwrap_or(RemovalCause::Rewritten),
                )),
                (before, Some(after)) => {
                    if before.is_none_or(|before| before.winner != after.winner) {
                        set.push(Change::Set(after.winner));
                    }
                }
                (None, None) => {}
            }
        }
        gone.append(&mut set);
        let is_change = |change: &&Change| matches!(change, Change::Set(_) | Change::Removed(..));
        let count = gone.iter().filter(is_change).count();
        self.revision += u64::try_from(count).unwrap_or_default();
        gone
    }

    fn recount(&mut self, before: Option<&Rivals>, after: Option<&Rivals>, news: &mut Vec<Change>) {
        if let (Some(before), Some(after)) = (before, after)
            && before.stand_as(after)
        {
            return;
        }
        if let Some(before) = before {
            self.count_entry(&before.winner, None, -1);
            for entry in &before.masked {
                self.count_entry(entry, Some(&before.winner.source), -1);
            }
        }
        let Some(after) = after else {
            return;
        };
        self.count_entry(&after.winner, None, 1);
        for entry in &after.masked {
            self.count_entry(entry, Some(&after.winner.source), 1);
            let was_masked = before.is_some_and(|before| before.masked.contains(entry));
            if !was_masked {
                let by = after.winner.source.clone();
                news.push(Change::Masked {
                    entry: entry.clone(),
                    by,
                });
            }
        }
    }

    fn count_entry(&mut self, entry: &Entry, masked_by: Option<&Arc<Source>>, sign: i64) {
        let source = &entry.source;
        self.changed_reports
            .insert((source.kind, source.name.clone()));
        let (SourceKind::ClusterSpiffeId, Some(pod)) = (source.kind, &entry.pod) else {
            return;
        };
        let tally = self.tallies.entry(source.name.clone()).or_default();
        match masked_by {
            None => tally.stats.entries_to_set += sign,
            Some(by) => {
                tally.stats.entries_masked += sign;
                if sign > 0 {
                    tally.masked_by.insert(pod.clone(), by.clone());
                } else {
                    tally.masked_by.remove(pod);
                }
            }
        }
        self.drop_idle_tally(&source.name);
    }

    /// Counts what came of a ClusterSPIFFEID for a pod that it selects, or takes it back.
    pub(super) fn count_outcome(&mut self, pod: &PodRef, outcome: &Outcome, sign: i64) {
        let name = outcome.source.name.clone();
        self.changed_reports
            .insert((SourceKind::ClusterSpiffeId, name.clone()));
        let tally = self.tallies.entry(name.clone()).or_default();
        tally.stats.pods_selected += sign;
        match &outcome.verdict {
            Verdict::Failed(error) => {
                if error.is_refusal() {
                    tally.stats.entry_failures += sign;
                } else {
                    tally.stats.pod_entry_render_failures += sign;
                }
                if sign > 0 {
                    tally.failures.insert(pod.clone(), error.clone());
                } else {
                    tally.failures.remove(pod);
                }
            }
            Verdict::Waiting(_) if sign > 0 => {
                tally.waiting.insert(pod.uid.clone());
            }
            Verdict::Waiting(_) => {
                tally.waiting.remove(&pod.uid);
            }
            Verdict::Entry(_) | Verdict::NotRunning | Verdict::Superseded => {}
        }
        self.drop_idle_tally(&name);
    }

    pub(super) fn count_namespaces(
        &mut self,
        name: &Arc<str>,
        count: impl FnOnce(&mut ClusterSpiffeIdStats),
    ) {
        self.changed_reports
            .insert((SourceKind::ClusterSpiffeId, name.clone()));
        count(&mut self.tallies.entry(name.clone()).or_default().stats);
    }

    /// Forgets the counts of an object that is gone once they are all back at nothing.
    pub(super) fn drop_idle_tally(&mut self, name: &Arc<str>) {
        let is_idle = !self.cluster_spiffe_ids.contains_key(name)
            && self
                .tallies
                .get(name)
                .is_some_and(|tally| tally.stats == ClusterSpiffeIdStats::default());
        if is_idle {
            self.tallies.remove(name);
        }
    }
}
