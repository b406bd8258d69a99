//! ClusterSPIFFEID: which pods get which SPIFFE ID (spire-controller-manager's kind, unchanged).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Registers the pods that match its selectors under a SPIFFE ID made from a template.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "spire.spiffe.io",
    version = "v1alpha1",
    kind = "ClusterSPIFFEID",
    plural = "clusterspiffeids",
    singular = "clusterspiffeid",
    shortname = "csid",
    category = "spiffe",
    status = "ClusterSpiffeIdStatus"
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpiffeIdSpec {
    /// Go template of the SPIFFE ID.
    #[serde(rename = "spiffeIDTemplate")]
    pub spiffe_id_template: String,
    /// Lifetime of X.509-SVIDs, a Go duration. Unset or 0: the trust domain's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Lifetime of JWT-SVIDs, a Go duration. Unset or 0: the trust domain's default.
    #[serde(default, rename = "jwtTtl", skip_serializing_if = "Option::is_none")]
    pub jwt_ttl: Option<String>,
    /// Go templates of DNS names, in the order the certificate carries them.
    #[serde(
        default,
        rename = "dnsNameTemplates",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub dns_name_templates: Vec<String>,
    /// Go templates of further selectors, each rendering to `type:value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workload_selector_templates: Vec<String>,
    /// Trust domains whose bundles the workload gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub federates_with: Vec<String>,
    /// Namespaces whose pods are selected. Unset or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Pods that are selected. Unset or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Whether the workload may call the server's administrative API.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// Whether the workload is a downstream server that gets an intermediate CA.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub downstream: bool,
    /// Adds the names of the services that select the pod to its DNS names.
    #[serde(
        default,
        rename = "autoPopulateDNSNames",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub auto_populate_dns_names: bool,
    /// The class of trust domains that serve this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Applies only to pods that no other ClusterSPIFFEID serves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fallback: bool,
    /// Hint for workloads that hold several identities. Literal, not a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What was made of a ClusterSPIFFEID.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpiffeIdStatus {
    /// Counts of the last evaluation.
    #[serde(default)]
    pub stats: ClusterSpiffeIdStats,
    /// Pods for which this object failed, the first 10 by namespace and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing_pods: Vec<FailingPod>,
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Standard conditions, `Ready` first among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Counts of a ClusterSPIFFEID, as spire-controller-manager reports them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSpiffeIdStats {
    /// Namespaces that the selector matches.
    pub namespaces_selected: i64,
    /// Namespaces among them that the trust domain ignores.
    pub namespaces_ignored: i64,
    /// Pods that the selectors match.
    pub pods_selected: i64,
    /// Pods for which no entry could be made.
    pub pod_entry_render_failures: i64,
    /// Entries that an older object declares already.
    pub entries_masked: i64,
    /// Entries in force.
    pub entries_to_set: i64,
    /// Entries that could not be stored.
    pub entry_failures: i64,
}

/// A pod for which an object failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailingPod {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// What failed, with the rendered value.
    pub message: String,
}
