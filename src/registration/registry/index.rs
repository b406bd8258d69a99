//! Entries in force, by what agents and tools look for: ID, parent and special rights.
//!
//! Invariant: it holds exactly the entries in force. The cost of what an agent asks follows the
//! entries that are its own, and where nothing has changed since it was asked last, the parents that
//! have them.

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
        entry_error,
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

/// Writes entries down for agents, in blocks that are told as they are.
pub type WriteBlocks = fn(&mut dyn Iterator<Item = &Entry>) -> Vec<Arc<[u8]>>;

/// The entries of one parent, and what follows from them until they change.
#[derive(Debug, Default)]
struct Children {
    entries: Entries,
    blocks: Option<Vec<Arc<[u8]>>>,
    /// The IDs of entries that are parents themselves, as of a version of the parents.
    parents: Option<(u64, Arc<[SpiffeId]>)>,
}

/// The entries in force.
#[derive(Debug, Default)]
pub(super) struct Index {
    all: Entries,
    /// Those that are no node alias, by parent ID.
    by_parent: BTreeMap<SpiffeId, Children>,
    /// How often an ID that an entry can have came to be a parent's, or ceased to be one.
    parents_version: u64,
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
            self.put_child(&entry.parent_id, new());
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
            self.take_child(&entry.parent_id, &entry.id);
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

    /// The parents whose entries an agent may fetch: itself, the node aliases that it matches, and
    /// those of such entries that are parents.
    pub(super) fn parents_for(
        &mut self,
        agent: &SpiffeId,
        node_selectors: &BTreeSet<EntrySelector>,
    ) -> BTreeSet<SpiffeId> {
        let aliases = self.aliases_of(node_selectors);
        let mut open = vec![agent.clone()];
        open.extend(aliases.map(|entry| entry.spiffe_id.clone()));
        let mut found = BTreeSet::new();
        while let Some(parent) = open.pop() {
            if found.contains(&parent) {
                continue;
            }
            if let Some(parents) = self.parents_among_children(&parent) {
                open.extend(parents.iter().cloned());
                found.insert(parent);
            }
        }
        found
    }

    /// The entries of a parent that are no node alias.
    pub(super) fn children(&self, parent: &SpiffeId) -> impl Iterator<Item = &Arc<Entry>> {
        let children = self.by_parent.get(parent);
        let entries = children.into_iter().flat_map(|it| &it.entries);
        entries.map(|ById(entry)| entry)
    }

    /// The same as `write` makes of them, which must be the same function always: it is called once
    /// until they change.
    pub(super) fn blocks(&mut self, parent: &SpiffeId, write: WriteBlocks) -> Vec<Arc<[u8]>> {
        let Some(children) = self.by_parent.get_mut(parent) else {
            return Vec::new();
        };
        let mut entries = children.entries.iter().map(|ById(entry)| &**entry);
        let blocks = &mut children.blocks;
        blocks.get_or_insert_with(|| write(&mut entries)).clone()
    }

    fn parents_among_children(&mut self, parent: &SpiffeId) -> Option<Arc<[SpiffeId]>> {
        let children = self.by_parent.get(parent)?;
        if let Some((version, parents)) = &children.parents
            && *version == self.parents_version
        {
            return Some(Arc::clone(parents));
        }
        let ids = children.entries.iter().map(|ById(entry)| &entry.spiffe_id);
        let parents = ids.filter(|id| self.by_parent.contains_key(id)).cloned();
        let parents: Arc<[SpiffeId]> = parents.collect::<BTreeSet<_>>().into_iter().collect();
        let children = self.by_parent.get_mut(parent)?;
        children.parents = Some((self.parents_version, Arc::clone(&parents)));
        Some(parents)
    }

    fn put_child(&mut self, parent: &SpiffeId, entry: ById) {
        if let Some(children) = self.by_parent.get_mut(parent) {
            children.change(|entries| entries.insert(entry));
            return;
        }
        let mut children = Children::default();
        children.change(|entries| entries.insert(entry));
        self.by_parent.insert(parent.clone(), children);
        self.note_parent(parent);
    }

    fn take_child(&mut self, parent: &SpiffeId, id: &EntryId) {
        let Some(children) = self.by_parent.get_mut(parent) else {
            return;
        };
        children.change(|entries| entries.remove(id));
        if children.entries.is_empty() {
            self.by_parent.remove(parent);
            self.note_parent(parent);
        }
    }

    /// Agents come and go with the pods on their nodes; no entry has the ID of one.
    fn note_parent(&mut self, parent: &SpiffeId) {
        self.parents_version += u64::from(!entry_error::is_reserved(parent));
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

impl Children {
    fn change(&mut self, change: impl FnOnce(&mut Entries) -> bool) {
        change(&mut self.entries);
        self.blocks = None;
        self.parents = None;
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
