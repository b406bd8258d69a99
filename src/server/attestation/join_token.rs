//! `join_token`: an administrator made a token, and who shows it first is the agent.

use jiff::Timestamp;
use tonic::Status;

use crate::server::attestation::Evidence;
use crate::store::join_tokens::{JoinTokenError, JoinTokenStore, LiveToken};

/// The attestor's name.
pub const NAME: &str = "join_token";

/// Finds the token in `payload`, which is not used up by that.
///
/// # Errors
/// When it is none, or the API server does not say.
pub async fn find(
    store: &JoinTokenStore,
    payload: &[u8],
    now: Timestamp,
) -> Result<LiveToken, Status> {
    let found = match std::str::from_utf8(payload) {
        Ok(token) => store.find(token, now).await,
        Err(_) => Err(JoinTokenError::Unknown),
    };
    found.map_err(|error| refused(&error))
}

/// Uses up `token`.
///
/// # Errors
/// When somebody else was faster, or the API server does not say that it is used up.
pub async fn attest(store: &JoinTokenStore, token: LiveToken) -> Result<Evidence, Status> {
    let used = store.consume(token).await;
    let used = used.map_err(|error| refused(&error))?;
    Ok(Evidence {
        id: used.agent_id,
        attestation_type: NAME,
        can_reattest: false,
        selectors: Vec::new(),
        cluster: None,
        node_name: None,
        alias: used.alias,
    })
}

fn refused(error: &JoinTokenError) -> Status {
    match error {
        JoinTokenError::Unknown => Status::invalid_argument(
            "failed to attest: join token does not exist or has already been used",
        ),
        JoinTokenError::Expired => Status::invalid_argument("join token expired"),
        JoinTokenError::Call { .. } => {
            let error = crate::error_chain(error);
            Status::unavailable(format!("failed to use the join token: {error}"))
        }
        error => Status::internal(format!("failed to use the join token: {error}")),
    }
}
