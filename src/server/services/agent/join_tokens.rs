//! `CreateJoinToken`.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use jiff::SignedDuration;
use tonic::Status;

use crate::registration::EntryId;
use crate::runtime::clock;
use crate::server::context::ServerContext;
use crate::server::proto::agent::CreateJoinTokenRequest;
use crate::server::proto::types::JoinToken;
use crate::server::services::answer::invalid;
use crate::server::services::ids;
use crate::store::join_tokens::JoinTokenError;

pub(super) async fn create(
    context: &ServerContext,
    request: CreateJoinTokenRequest,
) -> Result<JoinToken, Status> {
    if request.ttl < 1 {
        let problem = "ttl is required, you must provide one";
        return Err(Status::invalid_argument(problem));
    }
    let alias = request.agent_id.as_ref().map(|id| {
        let id = ids::from_proto(Some(id))?;
        ids::check_workload(&id, &context.trust_domain)?;
        Ok::<_, String>(id)
    });
    let alias = alias.transpose();
    let alias = alias.map_err(|problem| invalid("invalid agent ID", problem))?;
    if !context.settings().node_attestors.join_token {
        return Err(Status::failed_precondition(
            "join tokens are of no use: set server.nodeAttestors.joinToken of the TrustDomain",
        ));
    }
    let value = match request.token.as_str() {
        "" => random_token()?,
        _ => request.token,
    };
    let expires_at = clock::now().saturating_add(SignedDuration::from_secs(request.ttl.into()));
    let expires_at = expires_at.map_err(|_| Status::invalid_argument("ttl is too long"))?;
    let tokens = &context.stores.join_tokens;
    let created = tokens.create(&value, expires_at, alias.as_ref()).await;
    created.map_err(|error| {
        let message = format!("failed to create token: {}", crate::error_chain(&error));
        match error {
            JoinTokenError::NoSegment { .. } => Status::invalid_argument(message),
            JoinTokenError::Exists => Status::already_exists(message),
            JoinTokenError::Call { source } if !source.is_answer() => Status::unavailable(message),
            _ => Status::internal(message),
        }
    })?;
    Ok(JoinToken {
        value,
        expires_at: expires_at.as_second(),
    })
}

/// A UUID of version 4, as SPIRE makes them.
fn random_token() -> Result<String, Status> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Status::internal("failed to generate token UUID"))?;
    Ok(EntryId::random(bytes).to_string())
}
