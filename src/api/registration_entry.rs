//! RegistrationEntry: one registration entry that was made through the SPIRE server API.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{entry_schema, schema};

/// One registration entry that was made through the Entry API of the SPIRE server API.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "spiffe-operator.io",
    version = "v1alpha1",
    kind = "RegistrationEntry",
    plural = "registrationentries",
    singular = "registrationentry",
    category = "spiffe",
    doc = "One registration entry that was made through the Entry API of the SPIRE server API. The operator writes it; whoever wants to declare an entry applies a ClusterStaticEntry instead. Deleting it deletes the entry.",
    printcolumn = r#"{ "name": "SPIFFE ID", "type": "string", "jsonPath": ".spec.spiffeID" }"#,
    printcolumn = r#"{ "name": "Parent ID", "type": "string", "jsonPath": ".spec.parentID" }"#,
    printcolumn = r#"{ "name": "Entry ID", "type": "string", "jsonPath": ".spec.entryID" }"#,
    printcolumn = r#"{ "name": "Hint", "type": "string", "jsonPath": ".spec.hint", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }"#
)]
#[schemars(extend("x-kubernetes-validations" = [
    entry_schema::of_one_trust_domain()[0],
    entry_schema::of_one_trust_domain()[1],
    entry_schema::stored_is_prefetched(),
]))]
#[serde(rename_all = "camelCase")]
pub struct RegistrationEntrySpec {
    /// ID of the entry: the one that the caller chose, or a random UUID. With the trust domain it
    /// determines the name of this object, so it never changes.
    #[serde(rename = "entryID")]
    #[schemars(schema_with = "entry_schema::entry_id")]
    pub entry_id: String,
    /// SPIFFE ID of the entry: with a path, and not under `/spire`. Its trust domain is the one
    /// that serves the entry.
    #[serde(rename = "spiffeID")]
    #[schemars(schema_with = "entry_schema::workload_id")]
    pub spiffe_id: String,
    /// SPIFFE ID of the agent, server or node alias that may fetch the identity on the workload's
    /// behalf.
    #[serde(rename = "parentID")]
    #[schemars(schema_with = "entry_schema::parent_id")]
    pub parent_id: String,
    /// Selectors, each `type:value`; a workload must have all of them. At least one.
    #[schemars(schema_with = "schema::selectors")]
    pub selectors: Vec<String>,
    /// Names of trust domains whose bundles the workload gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::trust_domains")]
    pub federates_with: Vec<String>,
    /// Lifetime of X.509-SVIDs, such as `3600s`. Unset: the trust domain's default.
    #[serde(
        default,
        rename = "x509SVIDTTL",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "entry_schema::entry_lifetime")]
    pub x509_svid_ttl: Option<String>,
    /// Lifetime of JWT-SVIDs, such as `300s`. Unset: the trust domain's default.
    #[serde(
        default,
        rename = "jwtSVIDTTL",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "entry_schema::entry_lifetime")]
    pub jwt_svid_ttl: Option<String>,
    /// DNS names, in the order in which the certificate carries them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "entry_schema::dns_names")]
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
    /// From when on the entry does not count, in seconds since 1970; the operator then deletes this
    /// object. Unset: it never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// Further attributes of the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_attributes: Option<RegistrationEntryAttributes>,
}

/// Further attributes of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationEntryAttributes {
    /// Whether agents fetch the X.509-SVID only once a workload asks for it. Default: false.
    #[serde(
        default,
        rename = "disableX509SVIDPrefetch",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub disable_x509_svid_prefetch: bool,
    /// Whether JWT-SVIDs have an ID of their own, `jti`. Default: false.
    #[serde(
        default,
        rename = "jwtSVIDIncludeJTI",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub jwt_svid_include_jti: bool,
}
