//! How agents prove to a TrustDomain's server where they run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// How agents may prove where they run. What is not set is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAttestors {
    /// Agents that run as pods, by the token of their service account (`k8s_psat`).
    #[serde(default, rename = "k8sPSAT", skip_serializing_if = "Option::is_none")]
    pub k8s_psat: Option<K8sPsatAttestor>,
    /// Agents whose node has a certificate of a CA that is given here (`x509pop`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x509pop: Option<X509PopAttestor>,
    /// Agents with a token that an administrator made (`join_token`). Written `joinToken: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_token: Option<JoinTokenAttestor>,
}

/// Agents that run as pods of this cluster, which the agents name by the TrustDomain's
/// `clusterName`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct K8sPsatAttestor {
    /// Service accounts of agents, each `namespace:name`; at least one.
    #[schemars(schema_with = "schema::service_accounts")]
    pub service_account_allow_list: Vec<String>,
    /// Audiences of which a token must have one. Empty: that of the API server.
    #[serde(default = "default_audience")]
    #[schemars(schema_with = "schema::non_empty_list")]
    pub audience: Vec<String>,
    /// Keys of node labels that become selectors `k8s_psat:agent_node_label:<key>:<value>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::non_empty_list")]
    pub allowed_node_label_keys: Vec<String>,
    /// Keys of pod labels that become selectors `k8s_psat:agent_pod_label:<key>:<value>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::non_empty_list")]
    pub allowed_pod_label_keys: Vec<String>,
    /// Ends the agent's SPIFFE ID in `pod/<UID of its pod>` in place of the UID of its node, so that
    /// a node may have several agents. The entries of pods then need a `parentIDTemplate`, or a node
    /// alias, that leads to them. Default: false.
    #[serde(default, rename = "usePodUIDForAgentID")]
    pub use_pod_uid_for_agent_id: bool,
}

/// Agents that hold the key of a certificate. Exactly one of `caBundle`, `caBundleRef` and `spiffe`
/// says which certificates count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.caBundle), has(self.caBundleRef), has(self.spiffe)].filter(set, set).size() == 1",
    "message": "exactly one of caBundle, caBundleRef and spiffe must be set",
}]))]
#[serde(rename_all = "camelCase")]
pub struct X509PopAttestor {
    /// Certificates of the CAs, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pem")]
    pub ca_bundle: Option<String>,
    /// Where in the operator's namespace the certificates of the CAs lie, in PEM. They are read at
    /// each attestation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundleRef>,
    /// Takes X.509-SVIDs of the trust domain itself for certificates of agents (`mode = "spiffe"` of
    /// SPIRE).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe: Option<SpiffeExchange>,
    /// The agent's SPIFFE ID below `/spire/agent`: a Go template with `.PluginName`, `.TrustDomain`,
    /// `.Fingerprint` (SHA-1 of the certificate in hexadecimal digits), `.SerialNumberHex`,
    /// `.Subject.CommonName`, `.Subject.Organization`, `.Subject.OrganizationalUnit`, `.DNSNames`,
    /// `.URISanSelectors.<key>`, and with `spiffe` `.SVIDPathTrimmed`. Unset:
    /// `/x509pop/{{ .Fingerprint }}`, and with `spiffe` `/x509pop/{{ .SVIDPathTrimmed }}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::agent_path_template")]
    pub agent_path_template: Option<String>,
}

/// X.509-SVIDs of the trust domain that make agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpiffeExchange {
    /// How the path of the X.509-SVID's SPIFFE ID begins. What follows is `.SVIDPathTrimmed`. Empty:
    /// every workload of the trust domain can become an agent.
    #[serde(default = "default_svid_prefix", rename = "svidPrefix")]
    #[schemars(schema_with = "schema::svid_prefix")]
    pub svid_prefix: String,
}

/// A key of a ConfigMap or of a Secret in the operator's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaBundleRef {
    /// `ConfigMap` or `Secret`.
    pub kind: CaBundleKind,
    /// Name of the object.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Key in its data.
    #[serde(default = "default_ca_bundle_key")]
    #[schemars(schema_with = "schema::non_empty")]
    pub key: String,
}

/// What holds certificates of CAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaBundleKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// Agents with a token that an administrator made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinTokenAttestor {}

impl K8sPsatAttestor {
    /// Agents with these service accounts, and nothing else said of them.
    #[must_use]
    pub fn of(service_accounts: &[String]) -> Self {
        Self {
            service_account_allow_list: service_accounts.to_vec(),
            audience: default_audience(),
            allowed_node_label_keys: Vec::new(),
            allowed_pod_label_keys: Vec::new(),
            use_pod_uid_for_agent_id: false,
        }
    }
}

fn default_audience() -> Vec<String> {
    vec!["spire-server".into()]
}

fn default_svid_prefix() -> String {
    "/spire-exchange".into()
}

fn default_ca_bundle_key() -> String {
    "ca.crt".into()
}
