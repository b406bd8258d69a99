//! What the leader removes once its time is over (join tokens that expired, and agents that have been
//! away for too long), and what others left half done.

use kube::ResourceExt;

use crate::api::TrustDomain;
use crate::controllers::trust_domain::published::{labels, owner_reference};
use crate::controllers::trust_domain::reconcile::ReconcileError;
use crate::controllers::trust_domain::worker::Worker;
use crate::domains::DomainSettings;
use crate::runtime::clock;
use crate::store::{DomainStores, RegistrationEntryStore};

impl Worker {
    /// What the server of this trust domain keeps.
    pub(super) fn stores(&self, object: &TrustDomain, settings: &DomainSettings) -> DomainStores {
        let owner = settings.goes_with_object().then(|| owner_reference(object));
        DomainStores::new(
            &self.context.client,
            &self.context.namespace,
            &self.context.caches,
            &self.name,
            &settings.trust_domain,
            &labels(&self.name),
            owner.as_ref(),
        )
    }

    /// As the leader, removes what has expired, and completes what others began.
    pub(super) async fn sweep(&self, object: &TrustDomain) -> Result<(), ReconcileError> {
        let Some((_, settings)) = self.settings.as_ref().filter(|_| self.leads()) else {
            return Ok(());
        };
        let sweep = |source| ReconcileError::Sweep { source };
        let now = clock::now();
        let stores = self.stores(object, settings);
        let secrets = self.shared.secrets.all();
        let secrets = secrets.iter().map(|secret| &secret.metadata);
        let removed = stores.join_tokens.remove_expired(secrets, now).await;
        let removed = removed.map_err(sweep)?;
        stores.agents.disarm_banned().await.map_err(sweep)?;
        let (client, identities) = (&self.context.client, &self.context.identities);
        let entries = RegistrationEntryStore::new(client.clone(), identities.clone());
        stores
            .agents
            .make_pending_aliases(&entries, &self.name)
            .await;
        let server = settings.server.as_ref();
        let pruned = match server.and_then(|server| server.prune_agents_expired_for) {
            Some(age) => stores.agents.prune(now - age).await.map_err(sweep)?,
            None => 0,
        };
        if removed + pruned > 0 {
            let name = object.name_any();
            tracing::info!(
                trust_domain = name,
                join_tokens = removed,
                agents = pruned,
                "removed what expired"
            );
        }
        Ok(())
    }
}
