//! Which of several entries with the same key counts: that of the oldest object.
//!
//! Invariant: an entry is in force exactly when it is the first of its key by the order of
//! [`Source`].

use std::{collections::BTreeMap, sync::Arc};

use super::entry::{Entry, EntryKey, Source};

/// All entries, by key.
#[derive(Debug, Default)]
pub(super) struct Candidates(BTreeMap<EntryKey, Rivals>);

/// The entries that share a key; there is at least one.
#[derive(Clone, Debug)]
pub(super) struct Rivals {
    /// The one in force.
    pub(super) winner: Arc<Entry>,
    /// The others, in order.
    pub(super) masked: Vec<Arc<Entry>>,
}

impl Rivals {
    /// Whether the same objects win and lose, whatever else their entries say.
    pub(super) fn stand_as(&self, other: &Self) -> bool {
        let same = |left: &Arc<Entry>, right: &Arc<Entry>| {
            left.source.name == right.source.name
                && left.source.kind == right.source.kind
                && left.pod == right.pod
        };
        same(&self.winner, &other.winner)
            && self.masked.len() == other.masked.len()
            && self
                .masked
                .iter()
                .zip(&other.masked)
                .all(|(left, right)| same(left, right))
    }
}

impl Candidates {
    pub(super) fn rivals(&self, key: &EntryKey) -> Option<&Rivals> {
        self.0.get(key)
    }

    /// The object that masks `entry`, if one does.
    pub(super) fn masked_by(&self, entry: &Entry) -> Option<&Arc<Source>> {
        let winner = &self.0.get(&entry.key)?.winner;
        (rank(winner) != rank(entry)).then_some(&winner.source)
    }

    /// The entries in force, by key.
    pub(super) fn winners(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.0.values().map(|rivals| &rivals.winner)
    }

    pub(super) fn winner_count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn insert(&mut self, entry: Arc<Entry>) {
        let Some(rivals) = self.0.get_mut(&entry.key) else {
            self.0.insert(
                entry.key,
                Rivals {
                    winner: entry,
                    masked: Vec::new(),
                },
            );
            return;
        };
        let loser = if rank(&entry) < rank(&rivals.winner) {
            std::mem::replace(&mut rivals.winner, entry)
        } else {
            entry
        };
        let at = rivals
            .masked
            .partition_point(|other| rank(other) < rank(&loser));
        rivals.masked.insert(at, loser);
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        let Some(rivals) = self.0.get_mut(&entry.key) else {
            return;
        };
        if rank(&rivals.winner) != rank(entry) {
            rivals.masked.retain(|other| rank(other) != rank(entry));
        } else if rivals.masked.is_empty() {
            self.0.remove(&entry.key);
        } else {
            rivals.winner = rivals.masked.remove(0);
        }
    }
}

/// The order of precedence; equal only for entries that one object makes for one pod.
fn rank(entry: &Entry) -> (&Source, Option<&str>) {
    (&entry.source, entry.pod.as_ref().map(|pod| &*pod.uid))
}
