//! What the leader looks after of all that the server keeps: it takes from banned agents what they
//! act by, removes join tokens that expired and agents that have been away for too long, and sees
//! that everything has the owner that the deletion policy wants. It completes what others left half
//! done, too.

use kube::ResourceExt;

use crate::api::TrustDomain;
use crate::controllers::trust_domain::reconcile::ReconcileError;
use crate::controllers::trust_domain::server::stores;
use crate::controllers::trust_domain::worker::Worker;
use crate::runtime::clock;
use crate::store::RegistrationEntryStore;

impl Worker {
    /// As the leader, disarms who is banned, removes what has expired, and has what the server keeps
    /// go with the object or stay, as is wished. What fails holds up nothing else. Completes
    /// what others began.
    pub(super) async fn sweep(&self, object: &TrustDomain) -> Result<(), ReconcileError> {
        let Some((_, settings)) = self.settings.as_ref().filter(|_| self.leads()) else {
            return Ok(());
        };
        let sweep = |source| ReconcileError::Sweep { source };
        let now = clock::now();
        let stores = stores(&self.context, object, settings);
        let secrets = self.shared.secrets.all();
        let of_secrets = || secrets.iter().map(|secret| &secret.metadata);
        let disarmed = stores.agents.disarm_banned().await;
        let owned = stores.correct_owners(of_secrets()).await;
        let removed = stores.join_tokens.remove_expired(of_secrets(), now).await;
        let (client, identities) = (&self.context.client, &self.context.identities);
        let entries = RegistrationEntryStore::new(client.clone(), identities.clone());
        stores
            .agents
            .make_pending_aliases(&entries, &self.name)
            .await;
        let server = settings.server.as_ref();
        let pruned = match server.and_then(|server| server.prune_agents_expired_for) {
            Some(age) => stores.agents.prune(now - age).await,
            None => Ok(0),
        };
        disarmed.and(owned).map_err(sweep)?;
        let (removed, pruned) = (removed.map_err(sweep)?, pruned.map_err(sweep)?);
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
