//! How agents prove where they run, one module an attestor, as spire-server's plugins do it.
//!
//! An attestor gets what an agent sent and gives [`Evidence`]. What an agent says of itself counts
//! for nothing; nor does what an API server says before its form was checked. Sizes are bounded
//! before anything is parsed or verified.

pub mod join_token;
pub mod k8s_psat;
pub mod x509pop;

use tonic::{Code, Status};

use crate::spiffe::SpiffeId;

/// Largest payload of an attestor in bytes: five certificates with long keys in base64, or a token.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// What attestation found out about an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// SPIFFE ID of the agent.
    pub id: SpiffeId,
    /// The attestor's name.
    pub attestation_type: &'static str,
    /// Whether the agent attests again instead of renewing.
    pub can_reattest: bool,
    /// Selectors, each `type:value`.
    pub selectors: Vec<String>,
    /// Name of the agent's cluster.
    pub cluster: Option<String>,
    /// Name of the agent's node.
    pub node_name: Option<String>,
    /// The SPIFFE ID that the agent has besides, by an entry of its own.
    pub alias: Option<SpiffeId>,
}

/// A refusal in the words of the attestor `name`.
fn refusal(name: &str, code: Code, message: impl std::fmt::Display) -> Status {
    Status::new(code, format!("nodeattestor({name}): {message}"))
}
