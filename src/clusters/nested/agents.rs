//! The nested clusters whose pods may attest as agents, for the servers of their trust domains.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Semaphore;

use crate::clusters::reviews::Reviews;
use crate::domains::K8sPsatSettings;

/// A cluster whose pods may attest as agents.
#[derive(Clone)]
pub struct AttestingCluster {
    /// UID of the object that nests it; none for the local one.
    pub owner: Option<String>,
    /// Which of them.
    pub settings: Arc<K8sPsatSettings>,
    /// Asks the cluster.
    pub reviews: Reviews,
    /// Turns for asking whose a token is, so that a slow cluster holds up its own agents only.
    pub turns: Arc<Semaphore>,
}

/// All of them, by the name of the TrustDomain object and what their agents call them.
#[derive(Clone, Default)]
pub struct AttestingClusters(Arc<RwLock<BTreeMap<(String, String), AttestingCluster>>>);

impl AttestingClusters {
    /// The cluster that agents of the TrustDomain object `domain` call `name`.
    #[must_use]
    pub fn get(&self, domain: &str, name: &str) -> Option<AttestingCluster> {
        let clusters = self.0.read().unwrap_or_else(PoisonError::into_inner);
        clusters.get(&(domain.to_owned(), name.to_owned())).cloned()
    }

    /// From now on it is `cluster`.
    pub fn set(&self, domain: &str, name: &str, cluster: AttestingCluster) {
        let key = (domain.to_owned(), name.to_owned());
        let mut clusters = self.0.write().unwrap_or_else(PoisonError::into_inner);
        clusters.insert(key, cluster);
    }

    /// It is none any more, if it was that of the object with the UID `owner`.
    pub fn remove(&self, domain: &str, name: &str, owner: &str) {
        let key = (domain.to_owned(), name.to_owned());
        let mut clusters = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_owned = |it: &AttestingCluster| it.owner.as_deref() == Some(owner);
        if clusters.get(&key).is_some_and(is_owned) {
            clusters.remove(&key);
        }
    }
}
