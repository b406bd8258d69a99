//! ClusterStaticEntry: one registration entry as it stands (spire-controller-manager's kind).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

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
    status = "ClusterStaticEntryStatus",
    doc = "One registration entry, without templates.",
    printcolumn = r#"{ "name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" }"#,
    printcolumn = r#"{ "name": "SPIFFE ID", "type": "string", "jsonPath": ".spec.spiffeID" }"#,
    printcolumn = r#"{ "name": "Set", "type": "boolean", "jsonPath": ".status.set" }"#,
    printcolumn = r#"{ "name": "Masked", "type": "boolean", "jsonPath": ".status.masked" }"#,
    printcolumn = r#"{ "name": "Class", "type": "string", "jsonPath": ".spec.className" }"#,
    printcolumn = r#"{ "name": "Parent ID", "type": "string", "jsonPath": ".spec.parentID", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }"#
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStaticEntrySpec {
    /// SPIFFE ID of the entry: in the trust domain that serves this object, with a path, and not
    /// under `/spire`.
    #[serde(rename = "spiffeID")]
    #[schemars(schema_with = "schema::spiffe_id")]
    pub spiffe_id: String,
    /// SPIFFE ID of the agent or server that may fetch the identity on the workload's behalf.
    #[serde(rename = "parentID")]
    #[schemars(schema_with = "schema::spiffe_id")]
    pub parent_id: String,
    /// Selectors, each `type:value`; a workload must have all of them. At least one.
    #[schemars(schema_with = "schema::selectors")]
    pub selectors: Vec<String>,
    /// Names of trust domains whose bundles the workload gets. One without a known bundle is left
    /// out and named in a condition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::trust_domains")]
    pub federates_with: Vec<String>,
    /// Lifetime of X.509-SVIDs, a Go duration such as `1h30m`; parts of a second are dropped.
    /// Unset or 0: the trust domain's default.
    #[serde(
        default,
        rename = "x509SVIDTTL",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::duration")]
    pub x509_svid_ttl: Option<String>,
    /// Lifetime of JWT-SVIDs, a Go duration such as `5m`; parts of a second are dropped. Unset or
    /// 0: the trust domain's default.
    #[serde(
        default,
        rename = "jwtSVIDTTL",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::duration")]
    pub jwt_svid_ttl: Option<String>,
    /// DNS names, in the order in which the certificate carries them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Tells a workload that holds several identities which one this is; at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::hint")]
    pub hint: Option<String>,
    /// Whether the workload may call the server's administrative API. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// Whether the workload is a downstream server, which gets an intermediate CA of the trust
    /// domain. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub downstream: bool,
    /// Whether agents put the SVID into a store by their SVID store plugin. All selectors must then
    /// have one type. Default: false.
    #[serde(
        default,
        rename = "storeSVID",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub store_svid: bool,
    /// The class of trust domains that serve this object. Unset: those that watch objects without
    /// a class.
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
    /// What holds and what does not: `Ready` says whether the entry is in force, `Reconciling` that
    /// work is under way, `Stalled` that somebody must change something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
