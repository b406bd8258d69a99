//! TrustDomain: who signs, for which objects, with which lifetimes, published where.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AuthoritySource, ServerSpec, schema};

/// A SPIFFE trust domain that this operator serves: who signs, for which objects, with which
/// lifetimes, and where its bundle is published.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "spiffe-operator.io",
    version = "v1alpha1",
    kind = "TrustDomain",
    plural = "trustdomains",
    singular = "trustdomain",
    shortname = "td",
    category = "spiffe",
    status = "TrustDomainStatus",
    doc = "A SPIFFE trust domain that this operator serves.",
    printcolumn = r#"{ "name": "Trust Domain", "type": "string", "jsonPath": ".spec.trustDomain" }"#,
    printcolumn = r#"{ "name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" }"#,
    printcolumn = r#"{ "name": "Authority", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"AuthorityReady\")].status" }"#,
    printcolumn = r#"{ "name": "Authority Expiry", "type": "string", "jsonPath": ".status.authorities[?(@.state==\"active\")].notAfter" }"#,
    printcolumn = r#"{ "name": "Sequence", "type": "integer", "jsonPath": ".status.bundleSequence" }"#,
    printcolumn = r#"{ "name": "Entries", "type": "integer", "jsonPath": ".status.entries" }"#,
    printcolumn = r#"{ "name": "Class", "type": "string", "jsonPath": ".spec.className", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Signer", "type": "string", "jsonPath": ".status.signerName", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1 }"#,
    printcolumn = r#"{ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }"#
)]
// Only a CA that the operator makes has the lifetime `caTTL`: that of a Secret says its own, and
// leaves under it are shortened where they must be. JWT keys have it in any case.
#[schemars(extend("x-kubernetes-validations" = [
    schema::at_most_a_sixth_of_ca_ttl("x509SVID"),
    schema::at_most_a_sixth_of_ca_ttl("podCertificates"),
    schema::jwt_svid_at_most_a_sixth_of_ca_ttl(),
]))]
#[serde(rename_all = "camelCase")]
pub struct TrustDomainSpec {
    /// Name of the trust domain, such as `example.org`: 1 to 255 lower-case letters, digits, dots,
    /// hyphens and underscores. Immutable, and served by one TrustDomain only: of two with the same
    /// name the younger is `Stalled`.
    #[schemars(schema_with = "schema::immutable_trust_domain")]
    pub trust_domain: String,
    /// Serves the objects of the group `spire.spiffe.io` that have this `className`. Unset: only
    /// those without a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::non_empty")]
    pub class_name: Option<String>,
    /// With a `className`: serves the objects without a class, too.
    #[serde(default)]
    pub watch_classless: bool,
    /// Name of this cluster: `.ClusterName` in templates, and part of the IDs of its agents.
    /// A segment of a SPIFFE ID's path: letters, digits, dots, hyphens and underscores.
    #[serde(default = "default_cluster_name")]
    #[schemars(schema_with = "schema::path_segment")]
    pub cluster_name: String,
    /// DNS domain of this cluster: `.ClusterDomain` in templates, and the end of the DNS names of
    /// services.
    #[serde(default = "default_cluster_domain")]
    #[schemars(schema_with = "schema::dns_domain")]
    pub cluster_domain: String,
    /// Go template of the parent ID of pods' entries, over `.TrustDomain`, `.ClusterName`,
    /// `.ClusterDomain`, `.NodeMeta` and `.NodeSpec`. Unset:
    /// `spiffe://{{ .TrustDomain }}/spire/agent/k8s_psat/{{ .ClusterName }}/{{ .NodeMeta.UID }}`.
    #[serde(
        default,
        rename = "parentIDTemplate",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::non_empty")]
    pub parent_id_template: Option<String>,
    /// Regular expressions of namespaces whose pods get no identity. An expression matches anywhere
    /// in the name: write `^name$` for one namespace.
    #[serde(default = "default_ignore_namespaces")]
    #[schemars(schema_with = "schema::non_empty_list")]
    pub ignore_namespaces: Vec<String>,
    /// Who signs: exactly one of `selfSigned`, `secretRef` and `upstream`.
    pub authority: AuthoritySource,
    /// Key type of the CAs of `selfSigned` and `upstream`. A change takes effect with the next one.
    #[serde(default)]
    pub key_type: CaKeyType,
    /// Lifetime of the CAs that `selfSigned` makes, a Go duration. The next one is prepared at half
    /// of it and signs when a sixth is left, so it must be at least six times `x509SVID.ttl` and
    /// six times `podCertificates.ttl`. With `secretRef` the certificate in the Secret says its own
    /// lifetime. It is the lifetime of the keys that sign JWT-SVIDs in any case, and so at least six
    /// times `jwtSVID.ttl`. With `upstream` it is what the server above is asked for; what that grants
    /// counts, and may be less.
    #[serde(default = "default_ca_ttl", rename = "caTTL")]
    #[schemars(schema_with = "schema::lifetime")]
    pub ca_ttl: String,
    /// Subject of the certificates of the CAs that `selfSigned` makes.
    #[serde(default)]
    pub subject: CaSubject,
    /// X.509-SVIDs that agents and servers hand out.
    #[serde(default, rename = "x509SVID")]
    pub x509_svid: X509SvidSettings,
    /// JWT-SVIDs, and the keys that sign them.
    #[serde(default, rename = "jwtSVID")]
    pub jwt_svid: JwtSvidSettings,
    /// Certificates that pods get from the kubelet, through a `podCertificate` volume.
    #[serde(default)]
    pub pod_certificates: PodCertificateSettings,
    /// The ClusterTrustBundle that carries the trust domain's roots to pods. It is always
    /// published where the API server has the kind.
    #[serde(default)]
    pub cluster_trust_bundle: ClusterTrustBundleSettings,
    /// Publishes the bundle in a ConfigMap of every selected namespace. Unset: in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_config_maps: Option<BundleConfigMapSettings>,
    /// Serves the API of spire-server, to stock agents, downstream servers and tools. Unset: to
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerSpec>,
    /// What becomes of the keys when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Key type of a CA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaKeyType {
    /// ECDSA on P-256.
    #[default]
    #[serde(rename = "ec-p256")]
    EcP256,
    /// ECDSA on P-384.
    #[serde(rename = "ec-p384")]
    EcP384,
    /// RSA with 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// RSA with 4096 bits.
    #[serde(rename = "rsa-4096")]
    Rsa4096,
}

/// Subject of a CA certificate; a serial number is always added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaSubject {
    /// Country (C) of two letters; at most one.
    #[serde(default = "default_subject_country")]
    #[schemars(schema_with = "schema::countries")]
    pub country: Vec<String>,
    /// Organization (O) of at most 64 characters; at most one.
    #[serde(default = "default_subject_organization")]
    #[schemars(schema_with = "schema::organizations")]
    pub organization: Vec<String>,
    /// Common name (CN), at most 64 characters. Unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::common_name")]
    pub common_name: Option<String>,
}

/// Lifetimes of X.509-SVIDs for agents and servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct X509SvidSettings {
    /// Lifetime where an entry names none, a Go duration of at least a second. With a `selfSigned`
    /// authority at most a sixth of `caTTL`.
    #[serde(default = "default_x509_svid_ttl")]
    #[schemars(schema_with = "schema::lifetime")]
    pub ttl: String,
}

/// JWT-SVIDs and the keys that sign them. The keys are the operator's own also where a Secret holds
/// the CA; they live as long as `caTTL` says, and are rotated as CAs are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtSvidSettings {
    /// Lifetime where an entry names none, a Go duration of at least a second and at most a sixth
    /// of `caTTL`.
    #[serde(default = "default_jwt_svid_ttl")]
    #[schemars(schema_with = "schema::lifetime")]
    pub ttl: String,
    /// Key type of the keys. A change takes effect with the next one.
    #[serde(default)]
    pub key_type: JwtKeyType,
    /// The claim `iss`, such as `https://id.example.org`. Unset: tokens have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::non_empty")]
    pub issuer: Option<String>,
}

/// Key type of the keys that sign JWT-SVIDs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JwtKeyType {
    /// ECDSA on P-256: tokens have `alg: ES256`.
    #[default]
    #[serde(rename = "ec-p256")]
    EcP256,
    /// ECDSA on P-384: tokens have `alg: ES384`.
    #[serde(rename = "ec-p384")]
    EcP384,
    /// RSA with 2048 bits: tokens have `alg: RS256`.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
}

impl From<JwtKeyType> for CaKeyType {
    fn from(key_type: JwtKeyType) -> Self {
        match key_type {
            JwtKeyType::EcP256 => Self::EcP256,
            JwtKeyType::EcP384 => Self::EcP384,
            JwtKeyType::Rsa2048 => Self::Rsa2048,
        }
    }
}

/// Certificates that pods get through the kubelet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCertificateSettings {
    /// Signer name that pods ask for, such as `example.com/workloads`. Unset:
    /// `spiffe-operator.io/<trust domain>`, with a hash in place of a trust domain that is no legal
    /// signer name; `status.signerName` says which. The operator may sign under
    /// `spiffe-operator.io/` only: for another name a condition names the RBAC rule to add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::signer_name")]
    pub signer_name: Option<String>,
    /// Lifetime where an entry names none, a Go duration of at least 1h; never more than the
    /// volume's `maxExpirationSeconds` (a day unless the pod says otherwise). The kubelet fetches a
    /// new certificate at half of it. With a `selfSigned` authority at most a sixth of `caTTL`.
    #[serde(default = "default_pod_certificate_ttl")]
    #[schemars(schema_with = "schema::pod_certificate_lifetime")]
    pub ttl: String,
}

/// The ClusterTrustBundle of a trust domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterTrustBundleSettings {}

/// Copies of the bundle in namespaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleConfigMapSettings {
    /// Name of the ConfigMap in each namespace. The operator's RBAC allows the default only: for
    /// another name a condition names the rule to add. A ConfigMap of this name that is somebody
    /// else's is never overwritten.
    #[serde(default = "default_bundle_config_map_name")]
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Labels of the namespaces that get a copy. Unset or empty: all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// Forms of the bundle, at least one and each once. Each is a key of the ConfigMap: `pem` has
    /// the X.509 roots, `spiffe` the SPIFFE bundle document, `jwks` a JWK set.
    #[serde(default = "default_bundle_formats")]
    #[schemars(length(min = 1), extend("x-kubernetes-list-type" = "set"))]
    pub formats: Vec<BundleFormat>,
}

/// A form of the bundle.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum BundleFormat {
    /// X.509 roots as PEM certificates.
    Pem,
    /// The SPIFFE bundle document.
    Spiffe,
    /// A JWK set as RFC 7517 has it.
    Jwks,
}

/// What becomes of an authority's keys when its TrustDomain is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay; a TrustDomain of the same name goes on with them.
    #[default]
    Retain,
    /// They go.
    Delete,
}

/// What was made of a TrustDomain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrustDomainStatus {
    /// The generation that the conditions speak of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds and what does not: `Ready` sums up, `AuthorityReady` says whether somebody signs,
    /// `BundlePublished` whether the roots are where they should be, `ServerReady` whether the API of
    /// spire-server is served, `UpstreamReachable` whether the server above answers and lets the
    /// operator be a server below it, `Reconciling` that work is under way, `Stalled` that somebody
    /// must change something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Namespace of the operator that serves this trust domain. An operator in another namespace
    /// stands back, so that no trust domain ever has two authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator_namespace: Option<String>,
    /// Signer name to use in `podCertificate` and `clusterTrustBundle` volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer_name: Option<String>,
    /// Name of the ClusterTrustBundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_trust_bundle: Option<String>,
    /// Name of the ConfigMaps with the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle_config_map: Option<String>,
    /// Sequence number of the bundle; it grows with every change of the authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count")]
    pub bundle_sequence: Option<u64>,
    /// The X.509 authorities, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<AuthorityStatus>,
    /// The keys that sign JWT-SVIDs, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jwt_authorities: Vec<AuthorityStatus>,
    /// Registered entries.
    pub entries: i64,
    /// Keys in the JWK set: the own ones, and those of servers that are chained below.
    pub jwt_keys: i64,
}

/// One authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// Of an X.509 authority the subject key identifier in hexadecimal digits, of a JWT key its
    /// `kid`.
    pub id: String,
    /// `prepared`, `active`, `old` or `tainted`.
    pub state: String,
    /// End of its validity, such as `2026-01-31T12:00:00Z`.
    #[schemars(schema_with = "schema::date_time")]
    pub not_after: String,
}

fn default_cluster_name() -> String {
    "default".into()
}

fn default_cluster_domain() -> String {
    "cluster.local".into()
}

fn default_ignore_namespaces() -> Vec<String> {
    ["kube-system", "kube-public", "spire-system"]
        .map(String::from)
        .into()
}

fn default_ca_ttl() -> String {
    "168h".into()
}

fn default_subject_country() -> Vec<String> {
    vec!["US".into()]
}

fn default_subject_organization() -> Vec<String> {
    vec!["SPIFFE".into()]
}

fn default_x509_svid_ttl() -> String {
    "1h".into()
}

fn default_jwt_svid_ttl() -> String {
    "5m".into()
}

fn default_pod_certificate_ttl() -> String {
    "6h".into()
}

fn default_bundle_config_map_name() -> String {
    "spiffe-bundle".into()
}

fn default_bundle_formats() -> Vec<BundleFormat> {
    vec![BundleFormat::Pem]
}

impl Default for CaSubject {
    fn default() -> Self {
        Self {
            country: default_subject_country(),
            organization: default_subject_organization(),
            common_name: None,
        }
    }
}

impl Default for X509SvidSettings {
    fn default() -> Self {
        Self {
            ttl: default_x509_svid_ttl(),
        }
    }
}

impl Default for JwtSvidSettings {
    fn default() -> Self {
        Self {
            ttl: default_jwt_svid_ttl(),
            key_type: JwtKeyType::default(),
            issuer: None,
        }
    }
}

impl Default for PodCertificateSettings {
    fn default() -> Self {
        Self {
            signer_name: None,
            ttl: default_pod_certificate_ttl(),
        }
    }
}
