//! Which of several entries with the same key counts: that of the oldest object.
//!
//! Only entries whose selectors name the same pod can share a key, so they are kept together: a
//! change of a pod looks at that pod's few entries, however many others there are.
//!
//! Invariant: an entry is in force exactly when it is the first of its key by the order of
//! [`Source`].

use std::{collections::BTreeMap, sync::Arc};

use super::entry::{Entry, EntryKey, EntrySelector, Source};

/// All entries, by the pod that their selectors name.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    scopes: BTreeMap<Arc<str>, Scope>,
    winner_count: usize,
}

/// The entries whose selectors name one pod, or none, by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope(Vec<Rivals>);

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
            Arc::ptr_eq(left, right)
                || (left.source.name == right.source.name
                    && left.source.kind == right.source.kind
                    && left.pod == right.pod)
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
    /// The entry in force that has the key of `entry`.
    pub(super) fn winner(&self, entry: &Entry) -> Option<&Arc<Entry>> {
        let rivals = self.scopes.get(scope_of(entry))?.rivals(&entry.key)?;
        Some(&rivals.winner)
    }

    /// The object that masks `entry`, if one does.
    pub(super) fn masked_by(&self, entry: &Entry) -> Option<&Arc<Source>> {
        let winner = self.winner(entry)?;
        (rank(winner) != rank(entry)).then_some(&winner.source)
    }

    /// The entries in force, by pod and key.
    pub(super) fn winners(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.scopes
            .values()
            .flat_map(Scope::iter)
            .map(|rivals| &rivals.winner)
    }

    pub(super) fn winner_count(&self) -> usize {
        self.winner_count
    }

    /// Takes out the entries that name a pod, to be [put](Self::put) back.
    pub(super) fn take(&mut self, name: &str) -> Scope {
        let scope = self
            .scopes
            .get_mut(name)
            .map(std::mem::take)
            .unwrap_or_default();
        self.winner_count -= scope.0.len();
        scope
    }

    pub(super) fn put(&mut self, name: Arc<str>, scope: Scope) {
        self.winner_count += scope.0.len();
        if scope.0.is_empty() {
            self.scopes.remove(&name);
        } else {
            self.scopes.insert(name, scope);
        }
    }
}

impl Scope {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Rivals> {
        self.0.iter()
    }

    pub(super) fn rivals(&self, key: &EntryKey) -> Option<&Rivals> {
        self.0.get(self.find(key).ok()?)
    }

    pub(super) fn insert(&mut self, entry: Arc<Entry>) {
        let found = self.find(&entry.key);
        let rivals = match found {
            Ok(at) => self.0.get_mut(at),
            Err(at) => {
                let masked = Vec::new();
                self.0.insert(
                    at,
                    Rivals {
                        winner: entry,
                        masked,
                    },
                );
                return;
            }
        };
        let Some(rivals) = rivals else {
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
        let Ok(at) = self.find(&entry.key) else {
            return;
        };
        let Some(rivals) = self.0.get_mut(at) else {
            return;
        };
        if rank(&rivals.winner) != rank(entry) {
            rivals.masked.retain(|other| rank(other) != rank(entry));
        } else if rivals.masked.is_empty() {
            self.0.remove(at);
        } else {
            rivals.winner = rivals.masked.remove(0);
        }
    }

    fn find(&self, key: &EntryKey) -> Result<usize, usize> {
        self.0.binary_search_by(|rivals| rivals.winner.key.cmp(key))
    }
}

/// The UID of the pod that an entry's selectors name, the first where they name several; empty
/// where they name none. Entries with the same key have the same selectors, and so the same UID.
pub(super) fn scope_of(entry: &Entry) -> &str {
    let named = entry.selectors.iter().filter_map(EntrySelector::names_pod);
    named.min().unwrap_or_default()
}

/// The order of precedence; equal only for entries that one object makes for one pod.
fn rank(entry: &Entry) -> (&Source, Option<&str>) {
    (&entry.source, entry.pod.as_ref().map(|pod| &*pod.uid))
}
