//! The nested clusters whose pods may attest as agents, for the servers of their trust domains.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Semaphore;

use crate::clusters::reviews::Reviews;
use crate::domains::K8sPsatSettings;

/// A cluster whose pods may attest as agents.
#[derive(Clone)]
pub struct AttestingCluster {
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

    /// From now on it is `cluster`; without one, none.
    pub fn set(&self, domain: &str, name: &str, cluster: Option<AttestingCluster>) {
        let key = (domain.to_owned(), name.to_owned());
        let mut clusters = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match cluster {
            Some(cluster) => clusters.insert(key, cluster),
            None => clusters.remove(&key),
        };
    }
}
