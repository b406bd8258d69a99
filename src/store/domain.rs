//! What one trust domain's server keeps: its agents, join tokens, and foreign trust domains; and what
//! is watched once for all trust domains.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Api, Client};

use crate::api::TrustDomain;
use crate::clusters::CallError;
use crate::clusters::cache::Cache;
use crate::runtime::metrics::Metrics;
use crate::spiffe::TrustDomainName;
use crate::store::agents::{AgentCache, AgentStore, watch_agents};
use crate::store::federation::{FederationCache, FederationStore, watch_federation};
use crate::store::join_tokens::JoinTokenStore;

/// What is watched once for all.
#[derive(Clone)]
pub struct Caches {
    /// The agents.
    pub agents: Arc<AgentCache>,
    /// The foreign trust domains.
    pub federation: Arc<FederationCache>,
    /// The Secrets of the operator's namespace, without their data.
    pub secrets: Arc<Cache<PartialObjectMeta<Secret>>>,
    /// All TrustDomains.
    pub trust_domains: Arc<Cache<TrustDomain>>,
}

impl Caches {
    /// Starts the watches.
    #[must_use]
    pub fn start(client: &Client, namespace: &str, metrics: &Arc<Metrics>) -> Self {
        let agents = watch_agents(client.clone(), Arc::clone(metrics));
        let federation = watch_federation(client.clone(), namespace, Arc::clone(metrics));
        let secrets = Api::<PartialObjectMeta<Secret>>::namespaced(client.clone(), namespace);
        let trust_domains = Api::<DeserializeGuard<TrustDomain>>::all(client.clone());
        Self {
            agents: Arc::new(agents),
            federation: Arc::new(federation),
            secrets: Arc::new(Cache::start(
                watcher::watcher(secrets, watcher::Config::default()),
                "Secret",
                Arc::clone(metrics),
            )),
            trust_domains: Arc::new(Cache::start_guarded(
                watcher::watcher(trust_domains, watcher::Config::default()),
                "TrustDomain",
                Arc::clone(metrics),
            )),
        }
    }
}

/// The stores of one trust domain.
#[derive(Clone)]
pub struct DomainStores {
    /// Its agents.
    pub agents: AgentStore,
    /// Its join tokens.
    pub join_tokens: JoinTokenStore,
    /// What it knows of others.
    pub federation: FederationStore,
}

impl DomainStores {
    /// Has all that is kept go with the TrustDomain, or stay without it, as is wished by now;
    /// `secrets` are those there are.
    ///
    /// # Errors
    /// When something cannot be written; that is left for the next time, and nothing else.
    pub async fn correct_owners<'a>(
        &self,
        secrets: impl IntoIterator<Item = &'a ObjectMeta>,
    ) -> Result<(), CallError> {
        let agents = self.agents.correct_owners().await;
        let join_tokens = self.join_tokens.correct_owners(secrets).await;
        let federation = self.federation.correct_owners().await;
        agents.and(join_tokens).and(federation)
    }

    /// The stores of the TrustDomain object `object`. What they hold has these `labels`, and goes
    /// with the `owner` where one is given; all but the agents lies in `namespace`.
    #[must_use]
    pub fn new(
        client: &Client,
        namespace: &str,
        caches: &Caches,
        object: &str,
        trust_domain: &TrustDomainName,
        labels: &BTreeMap<String, String>,
        owner: Option<&OwnerReference>,
    ) -> Self {
        Self {
            agents: AgentStore::new(
                client.clone(),
                Arc::clone(&caches.agents),
                trust_domain.clone(),
                labels.clone(),
                owner.cloned(),
            ),
            join_tokens: JoinTokenStore::new(
                client.clone(),
                namespace,
                object,
                trust_domain.clone(),
                labels.clone(),
                owner.cloned(),
            ),
            federation: FederationStore::new(
                client.clone(),
                namespace,
                Arc::clone(&caches.federation),
                object,
                labels.clone(),
                owner.cloned(),
            ),
        }
    }
}
