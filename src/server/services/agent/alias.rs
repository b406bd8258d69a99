//! The entry that gives an agent with a join token the SPIFFE ID that was asked for with the token.

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use tonic::Status;

use crate::api::RegistrationEntrySpec;
use crate::registration::EntryId;
use crate::server::attestation::join_token;
use crate::server::context::ServerContext;
use crate::spiffe::SpiffeId;
use crate::store::{RegistrationEntryStore, WriteError};

/// Makes the entry. It goes with the agent's record, the `owner`.
pub(super) async fn make(
    context: &ServerContext,
    agent_id: &SpiffeId,
    alias: &SpiffeId,
    owner: OwnerReference,
) -> Result<(), Status> {
    let spec = RegistrationEntrySpec {
        entry_id: entry_id(agent_id).to_string(),
        spiffe_id: alias.to_string(),
        parent_id: agent_id.to_string(),
        selectors: vec![format!("spiffe_id:{agent_id}")],
        ..RegistrationEntrySpec::default()
    };
    let made = store(context)
        .create_owned(&context.object, &context.trust_domain, spec, Some(owner))
        .await;
    match made {
        // Others will see it.
        Ok(_) | Err(WriteError::NotSeen) => Ok(()),
        Err(error) => Err(failed(
            "failed to create join token registration entry",
            &error,
        )),
    }
}

/// Deletes the entry of the agent, if it has one.
pub(super) async fn remove(context: &ServerContext, agent_id: &SpiffeId) -> Result<(), Status> {
    let prefix = format!("/spire/agent/{}/", join_token::NAME);
    if !agent_id.path().starts_with(&prefix) {
        return Ok(());
    }
    let id = entry_id(agent_id);
    match store(context).delete(&context.trust_domain, &id).await {
        Ok(()) | Err(WriteError::NotFound | WriteError::NotSeen) => Ok(()),
        Err(error) => Err(failed(
            "failed to delete join token registration entry",
            &error,
        )),
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

fn store(context: &ServerContext) -> RegistrationEntryStore {
    let process = &context.process;
    RegistrationEntryStore::new(process.client.clone(), process.identities.clone())
}

fn failed(what: &str, error: &WriteError) -> Status {
    let message = format!("{what}: {}", crate::error_chain(error));
    match error {
        WriteError::Call(error) if error.is_answer() => Status::internal(message),
        WriteError::Call(_) | WriteError::Conflict => Status::unavailable(message),
        _ => Status::internal(message),
    }
}
