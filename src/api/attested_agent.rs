//! AttestedAgent: the record of one attested agent, which servers write and people read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// The record of one attested agent. The operator writes it; its name is made of the agent's SPIFFE
/// ID. Deleting it evicts the agent: its X.509-SVIDs are refused from then on, and it must attest
/// again.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "spiffe-operator.io",
    version = "v1alpha1",
    kind = "AttestedAgent",
    plural = "attestedagents",
    singular = "attestedagent",
    shortname = "agent",
    shortname = "agents",
    category = "spiffe",
    doc = "The record of one attested agent. Deleting it evicts the agent.",
    printcolumn = r#"{ "name": "Trust Domain", "type": "string", "jsonPath": ".spec.trustDomain" }"#,
    printcolumn = r#"{ "name": "Cluster", "type": "string", "jsonPath": ".spec.cluster" }"#,
    printcolumn = r#"{ "name": "Node", "type": "string", "jsonPath": ".spec.nodeName" }"#,
    printcolumn = r#"{ "name": "Attestation", "type": "string", "jsonPath": ".spec.attestationType" }"#,
    printcolumn = r#"{ "name": "Expires At", "type": "string", "jsonPath": ".spec.x509SVIDExpiresAt" }"#,
    printcolumn = r#"{ "name": "Version", "type": "string", "jsonPath": ".spec.agentVersion" }"#,
    printcolumn = r#"{ "name": "Banned", "type": "boolean", "jsonPath": ".spec.banned" }"#,
    printcolumn = r#"{ "name": "SPIFFE ID", "type": "string", "jsonPath": ".spec.id", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }"#
)]
#[serde(rename_all = "camelCase")]
pub struct AttestedAgentSpec {
    /// Name of the trust domain.
    #[schemars(schema_with = "schema::trust_domain_name")]
    pub trust_domain: String,
    /// SPIFFE ID of the agent. Immutable.
    #[schemars(schema_with = "schema::immutable_spiffe_id")]
    pub id: String,
    /// How it attested: `k8s_psat`, `x509pop` or `join_token`.
    #[schemars(schema_with = "schema::non_empty")]
    pub attestation_type: String,
    /// Whether it gets its next X.509-SVID by attesting again; else it renews the one it has.
    #[serde(default)]
    pub can_reattest: bool,
    /// Name of the cluster that it runs in, if it attested as a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Name of the node that it runs on, if it attested as a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// What attestation found out about it, each `type:value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selectors: Vec<String>,
    /// Serial number, in decimal digits, of the X.509-SVID that the agent acts by. Unset: of none
    /// any more.
    #[serde(
        default,
        rename = "x509SVIDSerialNumber",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::serial_number")]
    pub x509_svid_serial_number: Option<String>,
    /// End of that X.509-SVID's validity.
    #[serde(
        default,
        rename = "x509SVIDExpiresAt",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::date_time")]
    pub x509_svid_expires_at: Option<Time>,
    /// Serial number, in decimal digits, of an X.509-SVID that the agent got by renewal and has not
    /// used yet. Its first use puts it in place of the other.
    #[serde(
        default,
        rename = "newX509SVIDSerialNumber",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::serial_number")]
    pub new_x509_svid_serial_number: Option<String>,
    /// End of that X.509-SVID's validity.
    #[serde(
        default,
        rename = "newX509SVIDExpiresAt",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::date_time")]
    pub new_x509_svid_expires_at: Option<Time>,
    /// Version that the agent says it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// SPIFFE ID that the agent is to have besides, as was asked for with its join token, while the
    /// RegistrationEntry that gives it is still to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::spiffe_id")]
    pub pending_alias: Option<String>,
    /// Bans the agent: nothing that it asks for is answered, and it cannot attest again until this
    /// is false or the record is deleted.
    #[serde(default)]
    pub banned: bool,
}
