//! ClusterStaticEntry: one registration entry as it stands (spire-controller-manager's kind).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One registration entry, without templates.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "spire.spiffe.io",
    version = "v1alpha1",
    kind = "ClusterStaticEntry",
    plural = "clusterstaticentries",
    singular = "clusterstaticentry",
    shortname = "cse",
    category = "spiffe",
    status = "ClusterStaticEntryStatus"
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStaticEntrySpec {
    /// SPIFFE ID of the entry.
    #[serde(rename = "spiffeID")]
    pub spiffe_id: String,
    /// SPIFFE ID of the agent or server that the entry is delegated to.
    #[serde(rename = "parentID")]
    pub parent_id: String,
    /// Selectors, each `type:value`.
    pub selectors: Vec<String>,
    /// Trust domains whose bundles the workload gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub federates_with: Vec<String>,
    /// Lifetime of X.509-SVIDs, a Go duration. Unset or 0: the trust domain's default.
    #[serde(
        default,
        rename = "x509SVIDTTL",
        skip_serializing_if = "Option::is_none"
    )]
    pub x509_svid_ttl: Option<String>,
    /// Lifetime of JWT-SVIDs, a Go duration. Unset or 0: the trust domain's default.
    #[serde(
        default,
        rename = "jwtSVIDTTL",
        skip_serializing_if = "Option::is_none"
    )]
    pub jwt_svid_ttl: Option<String>,
    /// DNS names, in the order the certificate carries them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Hint for workloads that hold several identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the workload may call the server's administrative API.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// Whether the workload is a downstream server that gets an intermediate CA.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub downstream: bool,
    /// Whether agents store the SVID with an SVID store plugin.
    #[serde(
        default,
        rename = "storeSVID",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub store_svid: bool,
    /// The class of trust domains that serve this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
}

/// What was made of a ClusterStaticEntry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStaticEntryStatus {
    /// Whether the entry is valid.
    #[serde(default)]
    pub rendered: bool,
    /// Whether an older object declares the same entry.
    #[serde(default)]
    pub masked: bool,
    /// Whether the entry is in force.
    #[serde(default)]
    pub set: bool,
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Standard conditions, `Ready` first among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
