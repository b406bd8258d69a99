//! The entry that gives an agent with a join token the SPIFFE ID that was asked for with the token.
//!
//! To attest uses the token up, so an entry that cannot be written must not cost the agent its
//! X.509-SVID: the agent's record says that the entry is pending, and whoever comes first makes it.

use aws_lc_rs::digest::{SHA256, digest};
use kube::Resource;

use super::{AgentError, AgentStore};
use crate::api::RegistrationEntrySpec;
use crate::registration::EntryId;
use crate::spiffe::SpiffeId;
use crate::store::{RegistrationEntryStore, WriteError};

/// Why the entry was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AliasError {
    /// The agent's record could not be read or written.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The entry could not be written.
    #[error(transparent)]
    Entry(#[from] WriteError),
}

impl AgentStore {
    /// Makes the entry of the agent `id` among the `entries` of the TrustDomain object `domain`, if
    /// its record says that it is pending. It goes with the record.
    ///
    /// # Errors
    /// When it cannot be made or the record cannot be written. It stays pending.
    pub async fn make_alias(
        &self,
        entries: &RegistrationEntryStore,
        domain: &str,
        id: &SpiffeId,
    ) -> Result<(), AliasError> {
        let Some(agent) = self.read(id).await? else {
            return Ok(());
        };
        let (Some(alias), owner) = (&agent.spec.pending_alias, agent.owner_ref(&())) else {
            return Ok(());
        };
        let spec = RegistrationEntrySpec {
            entry_id: entry_id(id).to_string(),
            spiffe_id: alias.clone(),
            parent_id: id.to_string(),
            selectors: vec![format!("spiffe_id:{id}")],
            ..RegistrationEntrySpec::default()
        };
        let made = entries
            .create_owned(domain, self.trust_domain(), spec, owner)
            .await;
        match made {
            // Others will see it.
            Ok(_) | Err(WriteError::NotSeen) => {}
            Err(error) => return Err(error.into()),
        }
        let done = self.change(id, |agent| {
            agent.pending_alias = None;
            Ok(())
        });
        match done.await {
            Ok(_) | Err(AgentError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes all entries that are pending. What cannot be made is told in the log and left for the
    /// next time.
    pub async fn make_pending_aliases(&self, entries: &RegistrationEntryStore, domain: &str) {
        for agent in self.pending_aliases() {
            if let Err(error) = self.make_alias(entries, domain, &agent).await {
                let error = crate::error_chain(&error);
                tracing::warn!(%agent, error, "cannot make the entry of an agent's join token");
            }
        }
    }

    /// Deletes the entry of the agent `id`, if it has one.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub async fn remove_alias(
        &self,
        entries: &RegistrationEntryStore,
        id: &SpiffeId,
    ) -> Result<(), WriteError> {
        if !id.path().starts_with("/spire/agent/join_token/") {
            return Ok(());
        }
        match entries.delete(self.trust_domain(), &entry_id(id)).await {
            Ok(()) | Err(WriteError::NotFound | WriteError::NotSeen) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Always the same for an agent, so that the entry is found again.
fn entry_id(agent_id: &SpiffeId) -> EntryId {
    let hash = digest(&SHA256, agent_id.as_str().as_bytes());
    let mut bytes = [0; 16];
    bytes
        .iter_mut()
        .zip(hash.as_ref())
        .for_each(|(to, from)| *to = *from);
    EntryId::random(bytes)
}
