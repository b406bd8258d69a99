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
        entry::{Entry, EntryKey, PodRef, Source, SourceKind},
        entry_error::EntryError,
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

/// Entries that go and come in one step.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) gone: Vec<(Arc<Entry>, RemovalCause)>,
    pub(super) new: Vec<Arc<Entry>>,
}

impl Exchange {
    /// One entry for each key that it concerns.
    fn keys(&self) -> Vec<&Arc<Entry>> {
        let gone = self.gone.iter().map(|(entry, _)| entry);
        let mut entries: Vec<_> = gone.chain(&self.new).collect();
        entries.sort_by_key(|entry| entry.key);
        entries.dedup_by_key(|entry| entry.key);
        entries
    }

    /// Lets the entries with this key go and come.
    fn apply(&self, key: &EntryKey, candidates: &mut Candidates) {
        for (entry, _) in self.gone.iter().filter(|(entry, _)| entry.key == *key) {
            candidates.remove(entry);
        }
        for entry in self.new.iter().filter(|entry| entry.key == *key) {
            candidates.insert(entry);
        }
    }

    fn cause(&self, key: &EntryKey) -> RemovalCause {
        let found = self.gone.iter().find(|(entry, _)| entry.key == *key);
        found.map_or(RemovalCause::Rewritten, |(_, cause)| *cause)
    }
}

impl Registry {
    /// Does an exchange and says what became of it: first what is gone, then what is there.
    pub(super) fn settle(&mut self, exchange: &Exchange) -> Vec<Change> {
        let (mut changes, mut set) = (Vec::new(), Vec::new());
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for entry in exchange.keys() {
            let before = self.candidates.rivals(entry).cloned();
            exchange.apply(&entry.key, &mut self.candidates);
            let after = self.candidates.rivals(entry).cloned();
            self.recount(before.as_ref(), after.as_ref(), &mut set);
            let old = before.map(|rivals| rivals.winner);
            let new = after.map(|rivals| rivals.winner);
            if old == new {
                continue;
            }
            match (&old, &new) {
                (_, Some(new)) => set.push(Change::Set(new.clone())),
                (Some(old), None) => {
                    changes.push(Change::Removed(old.clone(), exchange.cause(&entry.key)));
                }
                (None, None) => {}
            }
            gone.extend(old);
            come.extend(new);
        }
        // First what goes: an entry that was updated may have another key and the same ID.
        gone.iter().for_each(|entry| self.index.remove(entry));
        come.iter().for_each(|entry| self.index.insert(entry));
        changes.append(&mut set);
        let is_change = |change: &&Change| matches!(change, Change::Set(_) | Change::Removed(..));
        let count = changes.iter().filter(is_change).count();
        self.revision += u64::try_from(count).unwrap_or_default();
        changes
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
        if source.kind != SourceKind::RegistrationEntry {
            self.changed_reports
                .insert((source.kind, source.name.clone()));
        }
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
        if sign < 0 {
            self.drop_idle_tally(&source.name);
        }
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
        if sign < 0 {
            self.drop_idle_tally(&name);
        }
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
