//! The part of a TrustDomain that says how it is served to SPIRE agents, servers and tools.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NodeAttestors, schema};

/// The API of spire-server, for stock agents, downstream servers and tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerSpec {
    /// TCP port of the API, on every replica. No two TrustDomains of an operator may have the same.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// SPIFFE IDs that may do everything that an administrator may, beside those whose entries have
    /// `admin`. An ID of another trust domain needs that trust domain's bundle to be known.
    #[serde(default, rename = "adminIDs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::admin_ids")]
    pub admin_ids: Vec<String>,
    /// Lifetime of the X.509-SVIDs of agents, a Go duration of at least a second. Unset: that of
    /// `x509SVID.ttl`.
    #[serde(default, rename = "agentTTL", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::lifetime")]
    pub agent_ttl: Option<String>,
    /// How agents may prove where they run. Without any no agent is attested.
    #[serde(default)]
    pub node_attestors: NodeAttestors,
    /// How long the record of an agent stays after its X.509-SVID has ended, a Go duration; `0`: for
    /// good. Records of banned agents stay for good anyway.
    #[serde(default = "default_prune_agents_expired_for")]
    #[schemars(schema_with = "schema::duration")]
    pub prune_agents_expired_for: String,
    /// How many calls are taken from one address.
    #[serde(default)]
    pub rate_limit: ServerRateLimit,
}

/// Limits of calls, each by the address that they come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerRateLimit {
    /// Limits attestations to one a second; those by `k8s_psat` to 50 a second from one address, as
    /// agents of a cluster may share one, and to 200 a second from all. The IPv6 addresses of a /64
    /// count as one.
    #[serde(default = "yes")]
    pub attestation: bool,
    /// Limits signatures to 500 a second.
    #[serde(default = "yes")]
    pub signing: bool,
}

impl Default for ServerRateLimit {
    fn default() -> Self {
        Self {
            attestation: true,
            signing: true,
        }
    }
}

fn default_port() -> i32 {
    8081
}

fn default_prune_agents_expired_for() -> String {
    "720h".into()
}

fn yes() -> bool {
    true
}
