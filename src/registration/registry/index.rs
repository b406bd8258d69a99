//! Entries in force, by what agents and tools look for: ID, parent and special rights.
//!
//! Invariant: it holds exactly the entries in force. The cost of what an agent asks follows the
//! entries that are its own.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use crate::{
    registration::{
        entry::{Entry, EntrySelector},
        entry_id::EntryId,
    },
    spiffe::SpiffeId,
};

/// A right that an entry gives beyond being who it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// May call the server's administrative API.
    Admin,
    /// Is a downstream server.
    Downstream,
}

/// An entry that is found by its ID.
#[derive(Debug)]
struct ById(Arc<Entry>);

type Entries = BTreeSet<ById>;

/// The entries in force.
#[derive(Debug, Default)]
pub(super) struct Index {
    all: Entries,
    /// Those that are no node alias, by parent ID.
    by_parent: BTreeMap<SpiffeId, Entries>,
    /// Node aliases, by the first of their selectors.
    aliases: BTreeMap<EntrySelector, Entries>,
    /// Those that give a right, by SPIFFE ID.
    with_rights: BTreeMap<SpiffeId, Entries>,
}

impl Index {
    pub(super) fn insert(&mut self, entry: &Arc<Entry>) {
        let new = || ById(entry.clone());
        self.all.insert(new());
        if let Some(selector) = alias_selector(entry) {
            put(&mut self.aliases, selector, new());
        } else {
            put(&mut self.by_parent, &entry.parent_id, new());
        }
        if entry.admin || entry.downstream {
            put(&mut self.with_rights, &entry.spiffe_id, new());
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        self.all.remove(&entry.id);
        if let Some(selector) = alias_selector(entry) {
            take(&mut self.aliases, selector, &entry.id);
        } else {
            take(&mut self.by_parent, &entry.parent_id, &entry.id);
        }
        if entry.admin || entry.downstream {
            take(&mut self.with_rights, &entry.spiffe_id, &entry.id);
        }
    }

    pub(super) fn get(&self, id: &EntryId) -> Option<&Arc<Entry>> {
        self.all.get(id).map(|found| &found.0)
    }

    /// The entries whose IDs come after `id`, in the order of IDs; all without one.
    pub(super) fn after(&self, id: Option<&EntryId>) -> impl Iterator<Item = &Arc<Entry>> {
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.all.range::<EntryId, _>((from, Bound::Unbounded));
        found.map(|found| &found.0)
    }

    pub(super) fn gives_right(&self, id: &SpiffeId, right: Right) -> bool {
        let mut found = self.with_rights.get(id).into_iter().flatten();
        found.any(|ById(entry)| match right {
            Right::Admin => entry.admin,
            Right::Downstream => entry.downstream,
        })
    }

    /// Visits the entries that an agent may fetch, each once, until `visit` returns false: those
    /// whose parent is the agent, a node alias that it matches, or an entry that was visited.
    pub(super) fn visit_authorized<'a>(
        &'a self,
        agent: &'a SpiffeId,
        node_selectors: &BTreeSet<EntrySelector>,
        mut visit: impl FnMut(&'a Arc<Entry>) -> bool,
    ) {
        let aliases = self.aliases_of(node_selectors);
        let mut parents = vec![agent];
        parents.extend(aliases.map(|entry| &entry.spiffe_id));
        let mut seen = BTreeSet::new();
        while let Some(parent) = parents.pop() {
            // Few SPIFFE IDs are parents of anything, so few are remembered.
            let Some(children) = self.by_parent.get(parent) else {
                continue;
            };
            if !seen.insert(parent) {
                continue;
            }
            for ById(entry) in children {
                if !visit(entry) {
                    return;
                }
                parents.push(&entry.spiffe_id);
            }
        }
    }

    /// The node aliases whose selectors a node all has.
    fn aliases_of(
        &self,
        node_selectors: &BTreeSet<EntrySelector>,
    ) -> impl Iterator<Item = &Arc<Entry>> {
        let found = node_selectors
            .iter()
            .filter_map(|selector| self.aliases.get(selector));
        found.flatten().map(|ById(entry)| entry).filter(|entry| {
            let mut selectors = entry.selectors.iter();
            selectors.all(|selector| node_selectors.contains(selector))
        })
    }
}

/// The first selector of a node alias.
fn alias_selector(entry: &Entry) -> Option<&EntrySelector> {
    let is_alias = entry.is_node_alias();
    is_alias.then(|| entry.selectors.iter().min()).flatten()
}

fn put<K: Ord + Clone>(map: &mut BTreeMap<K, Entries>, key: &K, entry: ById) {
    match map.get_mut(key) {
        Some(entries) => {
            entries.insert(entry);
        }
        None => {
            map.insert(key.clone(), BTreeSet::from([entry]));
        }
    }
}

fn take<K: Ord>(map: &mut BTreeMap<K, Entries>, key: &K, id: &EntryId) {
    if let Some(entries) = map.get_mut(key) {
        entries.remove(id);
        if entries.is_empty() {
            map.remove(key);
        }
    }
}

impl Borrow<EntryId> for ById {
    fn borrow(&self) -> &EntryId {
        &self.0.id
    }
}

impl Ord for ById {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}
