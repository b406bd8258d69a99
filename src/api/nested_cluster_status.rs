//! What is told of a NestedCluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SpireParent, schema};

/// What was made of a NestedCluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NestedClusterStatus {
    /// The generation that the conditions speak of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds and what does not: `Ready` sums up, `Reachable` says whether the API server
    /// answers, `CredentialsValid` whether it takes the credential, `RightsGranted` whether that may do
    /// what is needed, `Registered` whether all pods were seen and evaluated, `BundleSynced` whether the
    /// bundle is in the cluster, `Wired` whether all `parents` were told of it, `Duplicate` that another NestedCluster leads to the same cluster,
    /// `Reconciling` that work is under way, `Stalled` that somebody must change something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Name of the cluster as it is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// UID of the cluster's namespace `kube-system`, by which another cluster behind the same
    /// address, and the same cluster under two names, are found out.
    #[serde(rename = "clusterUID", skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<String>,
    /// URL of the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Version of the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_version: Option<String>,
    /// End of the credential: of a client certificate, or of a token that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::date_time")]
    pub credential_expires_at: Option<Time>,
    /// When the API server last answered. It is written when something else changes, and at most
    /// every few minutes otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::date_time")]
    pub last_contact: Option<Time>,
    /// What the credential may not do and would have to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_rights: Vec<MissingRight>,
    /// Pods that were seen.
    pub pods: i64,
    /// Entries of the cluster's pods.
    pub entries: i64,
    /// Agents of the cluster that have attested.
    pub agents: i64,
    /// The stock SPIRE servers that were told of the cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<WiredParent>,
}

/// Rights on a resource that a credential lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MissingRight {
    /// What may not be done.
    pub verbs: Vec<String>,
    /// The API group; empty: the core one.
    #[serde(default)]
    pub api_group: String,
    /// The resource, or `resource/subresource`.
    pub resource: String,
    /// Name of the object. Unset: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// Namespace of the object. Unset: the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The rule that grants it, in YAML: for a Role in `namespace`, or for a ClusterRole.
    pub rule: String,
}

/// A stock SPIRE server that was told of a nested cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct WiredParent {
    /// Namespace of the server's pods.
    pub namespace: String,
    /// What the server is called.
    pub name: String,
}

impl From<&SpireParent> for WiredParent {
    fn from(parent: &SpireParent) -> Self {
        Self {
            namespace: parent.namespace.clone(),
            name: parent.name.clone(),
        }
    }
}
