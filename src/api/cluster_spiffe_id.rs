//! ClusterSPIFFEID: which pods get which SPIFFE ID (spire-controller-manager's kind, unchanged).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Registers the pods that match its selectors under a SPIFFE ID made from a template.
///
/// Templates are Go text/templates over `.TrustDomain`, `.ClusterName`, `.ClusterDomain`,
/// `.PodMeta`, `.PodSpec`, `.NodeMeta` and `.NodeSpec`, whose fields have their Go names
/// (`.PodMeta.Namespace`, `.PodSpec.ServiceAccountName`).
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "spire.spiffe.io",
    version = "v1alpha1",
    kind = "ClusterSPIFFEID",
    plural = "clusterspiffeids",
    singular = "clusterspiffeid",
    shortname = "csid",
    category = "spiffe",
    status = "ClusterSpiffeIdStatus",
    doc = "Registers the pods that match its selectors under a SPIFFE ID made from a template.",
    printcolumn = r#"{ "name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" }"#,
    printcolumn = r#"{ "name": "Pods", "type": "integer", "jsonPath": ".status.stats.podsSelected" }"#,
    printcolumn = r#"{ "name": "Entries", "type": "integer", "jsonPath": ".status.stats.entriesToSet" }"#,
    printcolumn = r#"{ "name": "Masked", "type": "integer", "jsonPath": ".status.stats.entriesMasked" }"#,
    printcolumn = r#"{ "name": "Failures", "type": "integer", "jsonPath": ".status.stats.podEntryRenderFailures" }"#,
    printcolumn = r#"{ "name": "Refused", "type": "integer", "jsonPath": ".status.stats.entryFailures" }"#,
    printcolumn = r#"{ "name": "Class", "type": "string", "jsonPath": ".spec.className" }"#,
    printcolumn = r#"{ "name": "Fallback", "type": "boolean", "jsonPath": ".spec.fallback" }"#,
    printcolumn = r#"{ "name": "SPIFFE ID Template", "type": "string", "jsonPath": ".spec.spiffeIDTemplate", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }"#
)]
#[serde(rename_all = "camelCase")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are spire-controller-manager's"
)]
pub struct ClusterSpiffeIdSpec {
    /// Go template of the SPIFFE ID, such as
    /// `spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}`.
    /// It must render to an ID with a path in the trust domain that serves this object; a pod for
    /// which it does not gets no identity from this object and is named in `status.failingPods`. A
    /// template that does not parse leaves the last good spec in force.
    #[serde(rename = "spiffeIDTemplate")]
    #[schemars(schema_with = "schema::non_empty")]
    pub spiffe_id_template: String,
    /// Lifetime of X.509-SVIDs, a Go duration such as `1h30m`; parts of a second are dropped.
    /// Unset or 0: the trust domain's default. Pod certificates live at least an hour and at most
    /// as long as the pod's volume allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub ttl: Option<String>,
    /// Lifetime of JWT-SVIDs, a Go duration such as `5m`; parts of a second are dropped. Unset or
    /// 0: the trust domain's default.
    #[serde(default, rename = "jwtTtl", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub jwt_ttl: Option<String>,
    /// Go templates of DNS names, in the order in which the certificate carries them.
    #[serde(
        default,
        rename = "dnsNameTemplates",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub dns_name_templates: Vec<String>,
    /// Go templates of further selectors, each rendering to `type:value`. The pod's UID is always
    /// the first selector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workload_selector_templates: Vec<String>,
    /// Names of trust domains whose bundles the workload gets. One without a known bundle is left
    /// out and named in a condition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::trust_domains")]
    pub federates_with: Vec<String>,
    /// Labels of the namespaces whose pods are selected. Unset or empty: all namespaces. Those that
    /// the trust domain ignores are left out in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// Labels of the pods that are selected. Unset or empty: all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub pod_selector: Option<LabelSelector>,
    /// Whether the workload may call the server's administrative API. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// Whether the workload is a downstream server, which gets an intermediate CA of the trust
    /// domain. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub downstream: bool,
    /// Adds the names of the services that select the pod to its DNS names: `name`,
    /// `name.namespace`, `name.namespace.svc` and `name.namespace.svc.<cluster domain>`, sorted,
    /// after those of `dnsNameTemplates`. Default: false.
    #[serde(
        default,
        rename = "autoPopulateDNSNames",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub auto_populate_dns_names: bool,
    /// The class of trust domains that serve this object. Unset: those that watch objects without
    /// a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Serves only pods for which no ClusterSPIFFEID without `fallback` makes an entry. Default:
    /// false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fallback: bool,
    /// Tells a workload that holds several identities which one this is. Literal, not a template;
    /// at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::hint")]
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
    /// What holds and what does not: `Ready` says whether the spec is in force,
    /// `RenderFailed` that some of the selected pods cannot have their entry, `Masked` that an older
    /// object declares some, `FederationIncomplete` that a bundle is not known, `TTLExceedsCA` that
    /// SVIDs may live shorter than `ttl` or `jwtTtl`, `Reconciling` that work is under way,
    /// `Stalled` that somebody must change something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
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
