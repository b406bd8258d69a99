//! Attested agents: one AttestedAgent object each, named by its SPIFFE ID.
//!
//! Agents go from replica to replica with every call, so what one replica writes the next must see.
//! A watch keeps all records in memory, and memory may say one thing only: that an agent may act
//! which shows the X.509-SVID that is on record. Everything else is decided on the record as the API
//! server has it at that moment. So a known agent is served while the API server is away, and no
//! agent is refused by a record that is out of date.
//!
//! Every write carries the `resourceVersion` that was read, and is decided anew where somebody else
//! was faster. What a record means and what becomes of it is [`decide`], which is pure.

mod alias;
mod decide;
mod filter;
mod records;

use std::sync::Arc;

use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};

use crate::api::AttestedAgent;
use crate::clusters::CallError;
use crate::clusters::cache::Cache;
use crate::runtime::metrics::Metrics;

pub use alias::AliasError;
pub use decide::{AgentDenial, Attestation, PresentedSvid};
pub use filter::{AgentFilter, SelectorMatch};
pub use records::{AgentPage, AgentStore};

/// All AttestedAgents of the cluster, kept current by a watch.
pub type AgentCache = Cache<AttestedAgent>;

/// Starts the watch of all AttestedAgents.
#[must_use]
pub fn watch_agents(client: Client, metrics: Arc<Metrics>) -> AgentCache {
    let agents: Api<DeserializeGuard<AttestedAgent>> = Api::all(client);
    let watch = watcher::watcher(agents, watcher::Config::default()).modify(|agent| {
        if let Ok(agent) = &mut agent.0 {
            agent.managed_fields_mut().clear();
        }
    });
    Cache::start_guarded(watch, "AttestedAgent", metrics)
}

/// Why an agent's record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The ID is that of an agent that another attestor attested: one attestor must not give what
    /// another one gave.
    #[error("an agent with this ID was attested by {attestation_type}; evict it first")]
    AttestedOtherwise {
        /// That attestor's name.
        attestation_type: String,
    },
    /// The API server did not give or take the record.
    #[error("cannot read or write the record of the agent")]
    Call {
        /// Why.
        #[from]
        source: CallError,
    },
    /// Others wrote the record each time.
    #[error("the record of the agent is being written by others all the time")]
    Contended,
    /// The agent may not.
    #[error(transparent)]
    Denied {
        /// Why.
        #[from]
        reason: AgentDenial,
    },
    /// There is an object of that name which is not the agent's record.
    #[error("AttestedAgent {name} is not the record of {id}; delete it")]
    Misnamed {
        /// Name of the object.
        name: String,
        /// The agent.
        id: String,
    },
    /// There is no record.
    #[error("agent not found")]
    NotFound,
}

impl AgentError {
    /// Whether the same may well succeed a moment later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Call { source } => !source.is_answer(),
            Self::Contended => true,
            Self::AttestedOtherwise { .. }
            | Self::Denied { .. }
            | Self::Misnamed { .. }
            | Self::NotFound => false,
        }
    }
}
