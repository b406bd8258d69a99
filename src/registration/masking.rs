//! Which of several entries with the same key counts: that of the oldest object.
//!
//! Only entries whose selectors name the same pod, or that name none and have the same SPIFFE ID, can
//! share a key, so they are kept together: a change looks at few entries, however many others there
//! are.
//!
//! Invariant: an entry is in force exactly when it is the first of its key by the order of
//! [`Source`].

use std::{collections::BTreeMap, sync::Arc};

use super::entry::{Entry, EntryKey, EntrySelector, Source};

/// All entries, by their [scopes](scope_of).
#[derive(Debug, Default)]
pub(super) struct Candidates {
    scopes: BTreeMap<Arc<str>, Scope>,
    winner_count: usize,
}

/// The entries of one scope, by key.
#[derive(Debug, Default)]
struct Scope(Vec<Rivals>);

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
        Some(&self.rivals(entry)?.winner)
    }

    /// The entries that have the key of `entry`.
    pub(super) fn rivals(&self, entry: &Entry) -> Option<&Rivals> {
        self.scopes.get(scope_of(entry))?.rivals(&entry.key)
    }

    /// The object that masks `entry`, if one does.
    pub(super) fn masked_by(&self, entry: &Entry) -> Option<&Arc<Source>> {
        let winner = self.winner(entry)?;
        (rank(winner) != rank(entry)).then_some(&winner.source)
    }

    /// The entries in force.
    pub(super) fn winners(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let scopes = self.scopes.values();
        scopes
            .flat_map(|scope| &scope.0)
            .map(|rivals| &rivals.winner)
    }

    pub(super) fn winner_count(&self) -> usize {
        self.winner_count
    }

    pub(super) fn insert(&mut self, entry: &Arc<Entry>) {
        let name = scope_of(entry);
        if !self.scopes.contains_key(name) {
            self.scopes
                .insert(shared_scope(entry, name), Scope::default());
        }
        if let Some(scope) = self.scopes.get_mut(name) {
            let is_new_key = scope.insert(entry.clone());
            self.winner_count += usize::from(is_new_key);
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        let name = scope_of(entry);
        let Some(scope) = self.scopes.get_mut(name) else {
            return;
        };
        let is_last_of_key = scope.remove(entry);
        self.winner_count -= usize::from(is_last_of_key);
        if scope.0.is_empty() {
            self.scopes.remove(name);
        }
    }
}

impl Scope {
    fn rivals(&self, key: &EntryKey) -> Option<&Rivals> {
        self.0.get(self.find(key).ok()?)
    }

    /// Whether no other entry has its key.
    fn insert(&mut self, entry: Arc<Entry>) -> bool {
        let rivals = match self.find(&entry.key) {
            Ok(at) => self.0.get_mut(at),
            Err(at) => {
                let masked = Vec::new();
                let winner = entry;
                self.0.insert(at, Rivals { winner, masked });
                return true;
            }
        };
        let Some(rivals) = rivals else {
            return false;
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
        false
    }

    /// Whether no other entry had its key.
    fn remove(&mut self, entry: &Entry) -> bool {
        let Ok(at) = self.find(&entry.key) else {
            return false;
        };
        let Some(rivals) = self.0.get_mut(at) else {
            return false;
        };
        if rank(&rivals.winner) != rank(entry) {
            rivals.masked.retain(|other| rank(other) != rank(entry));
            return false;
        }
        if rivals.masked.is_empty() {
            self.0.remove(at);
            return true;
        }
        rivals.winner = rivals.masked.remove(0);
        false
    }

    fn find(&self, key: &EntryKey) -> Result<usize, usize> {
        self.0.binary_search_by(|rivals| rivals.winner.key.cmp(key))
    }
}

/// The UID of the pod that an entry's selectors name, the first where they name several; the SPIFFE
/// ID where they name none. Entries with the same key have the same selectors and SPIFFE ID, and so
/// the same scope.
fn scope_of(entry: &Entry) -> &str {
    let named = entry.selectors.iter().filter_map(EntrySelector::names_pod);
    named.min().unwrap_or(entry.spiffe_id.as_str())
}

/// The name of an entry's scope, shared with the entry where that is possible.
fn shared_scope(entry: &Entry, name: &str) -> Arc<str> {
    let uid = entry.pod.as_ref().map(|pod| &pod.uid);
    let texts = uid.into_iter().chain([entry.spiffe_id.shared()]);
    let shared = texts.into_iter().find(|text| ***text == *name);
    shared.map_or_else(|| name.into(), Arc::clone)
}

/// The order of precedence; equal only for entries that one object makes for one pod.
fn rank(entry: &Entry) -> (&Source, Option<&str>) {
    (&entry.source, entry.pod.as_ref().map(|pod| &*pod.uid))
}
