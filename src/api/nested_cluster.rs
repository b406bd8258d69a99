//! NestedCluster: another Kubernetes cluster whose pods belong to a trust domain of this operator.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BundleFormat, K8sPsatAttestor, nested_cluster_schema, schema};

/// Another Kubernetes cluster, reached by a kubeconfig, whose pods belong to a trust domain of this
/// operator.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "spiffe-operator.io",
    version = "v1alpha1",
    kind = "NestedCluster",
    plural = "nestedclusters",
    singular = "nestedcluster",
    shortname = "nc",
    category = "spiffe",
    status = "NestedClusterStatus",
    doc = "Another Kubernetes cluster, reached by a kubeconfig, whose pods belong to a trust domain of this operator.",
    printcolumn = r#"{ "name": "Trust Domain", "type": "string", "jsonPath": ".spec.trustDomainRef.name" }"#,
    printcolumn = r#"{ "name": "Cluster", "type": "string", "jsonPath": ".status.clusterName" }"#,
    printcolumn = r#"{ "name": "Mode", "type": "string", "jsonPath": ".spec.mode" }"#,
    printcolumn = r#"{ "name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" }"#,
    printcolumn = r#"{ "name": "Reachable", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Reachable\")].status" }"#,
    printcolumn = r#"{ "name": "Kubernetes", "type": "string", "jsonPath": ".status.kubernetesVersion" }"#,
    printcolumn = r#"{ "name": "Credential Expiry", "type": "string", "jsonPath": ".status.credentialExpiresAt" }"#,
    printcolumn = r#"{ "name": "Entries", "type": "integer", "jsonPath": ".status.entries" }"#,
    printcolumn = r#"{ "name": "Pods", "type": "integer", "jsonPath": ".status.pods", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Agents", "type": "integer", "jsonPath": ".status.agents", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Last Contact", "type": "string", "jsonPath": ".status.lastContact", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }"#
)]
#[schemars(extend("x-kubernetes-validations" = [
    nested_cluster_schema::cluster_name_stays(),
    nested_cluster_schema::parents_have_agents(),
    nested_cluster_schema::trust_domain_stays(),
    nested_cluster_schema::mode_stays(),
    nested_cluster_schema::servers_only_downstream(),
    nested_cluster_schema::servers_are_not_bound(),
]))]
#[serde(rename_all = "camelCase")]
pub struct NestedClusterSpec {
    /// The TrustDomain that the cluster belongs to.
    pub trust_domain_ref: TrustDomainRef,
    /// Name of the cluster: `.ClusterName` in templates, what its agents call it, and part of their
    /// IDs. No two clusters of a trust domain have the same, the one of the TrustDomain included.
    /// Unset: the name of this object. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path_segment")]
    pub cluster_name: Option<String>,
    /// How the cluster's API server is reached.
    pub kube_config: KubeConfigSource,
    /// Who serves the cluster's pods and agents. Immutable.
    #[serde(default)]
    pub mode: NestedClusterMode,
    /// With `mode: Downstream`: which pods are the cluster's servers. Unset: those of this operator,
    /// in the namespace and with the service account that it has by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downstream: Option<DownstreamServer>,
    /// Where the credential comes from that the operator uses.
    #[serde(default)]
    pub credentials: CredentialSource,
    /// Whose ClusterSPIFFEIDs apply to the cluster's pods.
    #[serde(default)]
    pub registration: NestedRegistration,
    /// Paths of the SPIFFE IDs that the cluster's pods may have, whoever declares them. Each is
    /// matched segment by segment; `*` stands for any characters within a segment, and a last
    /// segment `**` for one segment or more: `/ns/*/sa/web-*`, `/cluster/child01/**`. Unset: any,
    /// and then the cluster is trusted as much as this one, as it can name any namespace and service
    /// account.
    #[serde(
        default,
        rename = "allowedIDs",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "nested_cluster_schema::id_patterns")]
    pub allowed_ids: Option<Vec<String>>,
    /// DNS names that X.509-SVIDs of the cluster's pods may have. Each is matched label by label;
    /// `*` stands for any characters within a label, and a first label `**` for one label or more:
    /// `*.web.svc.cluster.local`, `**.child01.example.org`. Unset: any.
    #[serde(
        default,
        rename = "allowedDNSNames",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "nested_cluster_schema::dns_name_patterns")]
    pub allowed_dns_names: Option<Vec<String>>,
    /// What becomes of an entry with a SPIFFE ID that another cluster has already.
    #[serde(default, rename = "uniqueIDs")]
    pub unique_ids: UniqueIds,
    /// Agents in the cluster that may attest to the TrustDomain's server, by the token of their
    /// service account (`k8s_psat`). Unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<K8sPsatAttestor>,
    /// Where the trust domain's bundle is published in the cluster, besides its ClusterTrustBundle.
    #[serde(default)]
    pub bundle: NestedBundle,
    /// Stock SPIRE servers in the operator's cluster that agents of the cluster may attest to as
    /// well. Each is told of the cluster by a ConfigMap and a Secret beside it, which a sidecar in the
    /// server's pod puts in place (`spiffe-operator parent`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "nested_cluster_schema::parents")]
    pub parents: Vec<SpireParent>,
    /// How long the removal of this object waits for a cluster that does not answer, a Go duration.
    /// What is left in the cluster then is named in an event.
    #[serde(default = "default_cleanup_timeout")]
    #[schemars(schema_with = "schema::duration")]
    pub cleanup_timeout: String,
}

/// A TrustDomain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrustDomainRef {
    /// Name of the TrustDomain object.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// A kubeconfig, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeConfigSource {
    /// The Secret with the kubeconfig. It is watched: a change takes effect at once.
    pub secret_ref: KubeConfigSecretRef,
    /// Name of the context to use. Unset: the kubeconfig's `current-context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::non_empty")]
    pub context: Option<String>,
    /// Allows a kubeconfig that says `insecure-skip-tls-verify: true`. Whoever stands between the
    /// clusters can then read the credential and invent pods. Default: false.
    #[serde(default, rename = "insecureSkipTLSVerify")]
    pub insecure_skip_tls_verify: bool,
    /// Whom all calls to the cluster impersonate, in place of `as`, `as-groups`, `as-uid` and
    /// `as-user-extra` of the kubeconfig. The credential then needs the right to impersonate and no
    /// other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impersonate: Option<ImpersonatedUser>,
}

/// A key of a Secret in the operator's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KubeConfigSecretRef {
    /// Name of the Secret in the operator's namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Key in its data. What is there is a kubeconfig in YAML or JSON, as it is or in base64. Files
    /// that it names cannot be read: certificates, keys and tokens must be in it.
    #[serde(default = "default_kube_config_key")]
    #[schemars(schema_with = "schema::non_empty")]
    pub key: String,
}

/// A user to impersonate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImpersonatedUser {
    /// Name of the user.
    #[schemars(schema_with = "schema::non_empty")]
    pub user: String,
    /// Names of groups. Empty: those that the API server gives to the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::non_empty_list")]
    pub groups: Vec<String>,
}

/// The server of a nested cluster that gets its CA from this one. Its SPIFFE ID is
/// `spiffe://<trust domain>/nested/<cluster name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownstreamServer {
    /// Service accounts of the server's pods, each `namespace:name`; at least one.
    #[serde(default = "default_servers")]
    #[schemars(schema_with = "schema::service_accounts")]
    pub service_account_allow_list: Vec<String>,
    /// How the server comes to its X.509-SVID.
    #[serde(default)]
    pub attestation: DownstreamAttestation,
    /// Lifetime of that X.509-SVID, a Go duration. Unset: `x509SVID.ttl` of the TrustDomain. The CA
    /// lives as long as the server asks for, and no longer than the one above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::lifetime")]
    pub ttl: Option<String>,
}

/// How a server comes to its X.509-SVID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DownstreamAttestation {
    /// By the token of its service account, as this operator does: it is an agent of its own, with
    /// the ID `spiffe://<trust domain>/spire/agent/k8s_psat/<cluster name>/pod/<UID of the pod>`.
    #[default]
    #[serde(rename = "K8sPSAT")]
    K8sPsat,
    /// From the agent on its node, as spire-server does. Those agents are named in `spec.agents`.
    #[serde(rename = "WorkloadAPI")]
    WorkloadApi,
}

/// Who serves a nested cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NestedClusterMode {
    /// This operator: nothing of ours runs in the cluster.
    #[default]
    Remote,
    /// A server in the cluster, under an intermediate CA from us. Nothing but that server is
    /// registered here, and only it publishes a ClusterTrustBundle and answers
    /// PodCertificateRequests there. Its CA signs any ID of the trust domain.
    Downstream,
}

/// Where the credential for a nested cluster comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CredentialSource {
    /// The kubeconfig has it.
    #[default]
    Provided,
    /// The operator makes a service account in the cluster with the kubeconfig, and then uses
    /// short-lived tokens of it.
    Managed,
}

/// Whose declarations count in a nested cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NestedRegistration {
    /// Whose ClusterSPIFFEIDs apply to the cluster's pods. Those of the nested cluster serve its own
    /// pods only, and may not set `admin` or `downstream`.
    #[serde(default)]
    pub source: RegistrationSource,
}

/// Whose ClusterSPIFFEIDs apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RegistrationSource {
    /// Those of this cluster.
    #[default]
    Parent,
    /// Those of the nested cluster.
    Child,
    /// Those of both.
    Both,
}

/// What becomes of equal SPIFFE IDs in two clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UniqueIds {
    /// Both clusters' pods have it.
    #[default]
    Warn,
    /// This cluster's pods do not get it.
    Deny,
}

/// Where a nested cluster finds the bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NestedBundle {
    /// A ConfigMap in the cluster that is kept as the bundle is. `configMap: {}` is the one that
    /// agents of the spire-nested chart read. Unset: none, and with `mode: Downstream`
    /// `spire-bundle-upstream` in the namespace of the first service account of its servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<NestedBundleConfigMap>,
}

/// A ConfigMap with the bundle in a nested cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NestedBundleConfigMap {
    /// Namespace of the ConfigMap. It must exist.
    #[serde(default = "default_bundle_namespace")]
    #[schemars(schema_with = "schema::namespace_name")]
    pub namespace: String,
    /// Name of the ConfigMap.
    #[serde(default = "default_bundle_name")]
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Key of the ConfigMap. Unset: `bundle.spiffe`, `bundle.crt` or `bundle.jwks`, as `format` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::config_map_key")]
    pub key: Option<String>,
    /// Form of the bundle.
    #[serde(default = "default_bundle_format")]
    pub format: BundleFormat,
}

/// A stock SPIRE server that is told of a nested cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpireParent {
    /// Namespace of the server's pods. The operator needs the rights there that
    /// `spiffe-operator parent rights` prints.
    #[schemars(schema_with = "schema::namespace_name")]
    pub namespace: String,
    /// What the server is called here: the ConfigMap and the Secret are named
    /// `<name>-nested-clusters`.
    #[schemars(schema_with = "nested_cluster_schema::parent_name")]
    pub name: String,
    /// Agents in the cluster that may attest to the server. Unset: as `spec.agents` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<K8sPsatAttestor>,
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

impl Default for DownstreamServer {
    fn default() -> Self {
        Self {
            service_account_allow_list: default_servers(),
            attestation: DownstreamAttestation::default(),
            ttl: None,
        }
    }
}

impl NestedBundleConfigMap {
    /// The one that servers of a nested cluster look for in `namespace`.
    #[must_use]
    pub fn of_servers(namespace: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: default_bundle_name(),
            key: None,
            format: default_bundle_format(),
        }
    }
}

/// What was made of a NestedCluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NestedClusterStatus {
    /// The generation that the conditions speak of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds and what does not: `Ready` sums up, `Reachable` says whether the API server
    /// answers, `CredentialsValid` whether it takes the credential, `Registered` whether all pods were seen and evaluated, `BundleSynced` whether the
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

fn default_kube_config_key() -> String {
    "kubeconfig".into()
}

fn default_servers() -> Vec<String> {
    vec!["spiffe-system:spiffe-operator".into()]
}

fn default_cleanup_timeout() -> String {
    "5m".into()
}

fn default_bundle_namespace() -> String {
    "spire-system".into()
}

fn default_bundle_name() -> String {
    "spire-bundle-upstream".into()
}

fn default_bundle_format() -> BundleFormat {
    BundleFormat::Spiffe
}
