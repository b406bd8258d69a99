//! Entries that were made through the Entry API come, change, expire and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Registry, tally::Exchange};
use crate::registration::{
    entry::Entry,
    report::{Change, RemovalCause},
};

/// Those that have not expired.
#[derive(Debug, Default)]
pub(super) struct RegisteredEntries {
    /// By name of the object: the entry as the object holds it, and as it is in force.
    by_name: BTreeMap<Arc<str>, (Arc<Entry>, Arc<Entry>)>,
    /// Expiry and name of those that expire.
    expiring: BTreeSet<(i64, Arc<str>)>,
}

impl RegisteredEntries {
    /// The entries as their objects hold them.
    pub(super) fn declared(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_name.values().map(|(declared, _)| declared)
    }

    pub(super) fn put(&mut self, declared: &Arc<Entry>, entry: &Arc<Entry>) {
        let name = &entry.source.name;
        if let Some(at) = entry.expires_at() {
            self.expiring.insert((at, name.clone()));
        }
        let entries = (declared.clone(), entry.clone());
        self.by_name.insert(name.clone(), entries);
    }

    /// Forgets an entry, and gives it as it was in force.
    pub(super) fn take(&mut self, name: &str) -> Option<Arc<Entry>> {
        let (_, entry) = self.by_name.remove(name)?;
        if let Some(at) = entry.expires_at() {
            self.expiring.remove(&(at, entry.source.name.clone()));
        }
        Some(entry)
    }

    /// The names of those that expire by `now`.
    fn due(&self, now: i64) -> Vec<Arc<str>> {
        let due = self.expiring.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, name)| name.clone()).collect()
    }
}

impl Registry {
    /// Takes in the entry of a RegistrationEntry; `now` is in seconds since 1970.
    pub fn apply_registration_entry(&mut self, entry: &Arc<Entry>, now: i64) -> Vec<Change> {
        let old = self.registered.take(&entry.source.name);
        let is_expired = entry.expires_at().is_some_and(|at| at <= now);
        let new = (!is_expired).then(|| self.restricted(entry));
        if let Some(new) = &new {
            self.registered.put(entry, new);
        }
        if old == new {
            return Vec::new();
        }
        let cause = if is_expired {
            RemovalCause::Expired
        } else {
            RemovalCause::Rewritten
        };
        self.settle(&Exchange {
            gone: old.into_iter().map(|old| (old, cause)).collect(),
            new: new.into_iter().collect(),
        })
    }

    /// Forgets the RegistrationEntry with this name.
    pub fn delete_registration_entry(&mut self, name: &str) -> Vec<Change> {
        self.drop_registered(name, RemovalCause::ObjectGone)
    }

    /// Forgets the entries that expire by `now`, in seconds since 1970.
    pub fn expire_entries(&mut self, now: i64) -> Vec<Change> {
        let due = self.registered.due(now).into_iter();
        due.flat_map(|name| self.drop_registered(&name, RemovalCause::Expired))
            .collect()
    }

    fn drop_registered(&mut self, name: &str, cause: RemovalCause) -> Vec<Change> {
        let Some(old) = self.registered.take(name) else {
            return Vec::new();
        };
        self.settle(&Exchange {
            gone: vec![(old, cause)],
            new: Vec::new(),
        })
    }
}
