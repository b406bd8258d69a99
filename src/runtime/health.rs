//! Readiness: what the process still waits for before it serves.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The set of things that must happen once before the process is ready. Nothing that happens later
/// takes readiness away: one bad object must never take a replica out of service.
#[derive(Clone, Debug, Default)]
pub struct Health {
    missing: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Health {
    /// Waits for `name` until [`Self::done`].
    pub fn expect(&self, name: &'static str) {
        self.missing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name);
    }

    /// `name` has happened.
    pub fn done(&self, name: &'static str) {
        self.missing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }

    /// What has not happened yet.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.missing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect()
    }
}
