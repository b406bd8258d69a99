//! TrustDomain: who signs, for which objects, with which lifetimes, published where.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A SPIFFE trust domain that this operator serves.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "spiffe-operator.io",
    version = "v1alpha1",
    kind = "TrustDomain",
    plural = "trustdomains",
    singular = "trustdomain",
    shortname = "td",
    category = "spiffe",
    status = "TrustDomainStatus"
)]
#[serde(rename_all = "camelCase")]
pub struct TrustDomainSpec {
    /// Name of the trust domain, such as `example.org`. Immutable.
    pub trust_domain: String,
    /// Serves the objects of `spire.spiffe.io` that have this class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Serves the objects without a class, too.
    #[serde(default)]
    pub watch_classless: bool,
    /// Name of this cluster, `.ClusterName` in templates and part of agents' IDs.
    #[serde(default = "default_cluster_name")]
    pub cluster_name: String,
    /// DNS domain of this cluster, `.ClusterDomain` in templates.
    #[serde(default = "default_cluster_domain")]
    pub cluster_domain: String,
    /// Go template of the parent ID of pods' entries. Default:
    /// `spiffe://{{ .TrustDomain }}/spire/agent/k8s_psat/{{ .ClusterName }}/{{ .NodeMeta.UID }}`.
    #[serde(
        default,
        rename = "parentIDTemplate",
        skip_serializing_if = "Option::is_none"
    )]
    pub parent_id_template: Option<String>,
    /// Regular expressions of namespaces whose pods get no identity; an expression matches
    /// anywhere in the name.
    #[serde(default = "default_ignore_namespaces")]
    pub ignore_namespaces: Vec<String>,
    /// Who signs.
    pub authority: AuthoritySource,
    /// Key type of the CA.
    #[serde(default)]
    pub key_type: CaKeyType,
    /// Lifetime of the CA, a Go duration.
    #[serde(default = "default_ca_ttl", rename = "caTTL")]
    pub ca_ttl: String,
    /// Subject of the CA's certificate.
    #[serde(default)]
    pub subject: CaSubject,
    /// X.509-SVIDs that agents and servers hand out.
    #[serde(default, rename = "x509SVID")]
    pub x509_svid: X509SvidSettings,
    /// Certificates that pods get from the kubelet.
    #[serde(default)]
    pub pod_certificates: PodCertificateSettings,
    /// The ClusterTrustBundle that carries the trust domain's roots.
    #[serde(default)]
    pub cluster_trust_bundle: ClusterTrustBundleSettings,
    /// A ConfigMap with the bundle in every selected namespace. Unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_config_maps: Option<BundleConfigMapSettings>,
    /// What becomes of the keys when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Who signs: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthoritySource {
    /// A CA that the operator makes and rotates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSignedAuthority>,
    /// An existing CA in a Secret of the operator's namespace, for instance from cert-manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<AuthoritySecretRef>,
}

/// A CA that the operator makes and rotates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SelfSignedAuthority {}

/// A Secret in the operator's namespace with a CA: `tls.crt` holds the CA's certificate and then
/// its chain, `tls.key` the private key, `ca.crt` the root where the chain does not end in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuthoritySecretRef {
    /// Name of the Secret.
    pub name: String,
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
    /// Countries (C).
    #[serde(default = "default_subject_country")]
    pub country: Vec<String>,
    /// Organizations (O).
    #[serde(default = "default_subject_organization")]
    pub organization: Vec<String>,
    /// Common name (CN).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
}

/// Lifetimes of X.509-SVIDs for agents and servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct X509SvidSettings {
    /// Lifetime, a Go duration.
    #[serde(default = "default_x509_svid_ttl")]
    pub ttl: String,
}

/// Certificates that pods get through PodCertificateRequests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCertificateSettings {
    /// Signer name that pods ask for. Default: `spiffe-operator.io/<trust domain>`, with a hash in
    /// place of a trust domain that is no legal signer name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer_name: Option<String>,
    /// Lifetime, a Go duration of at least 1h; never more than the pod's `maxExpirationSeconds`.
    #[serde(default = "default_pod_certificate_ttl")]
    pub ttl: String,
}

/// The ClusterTrustBundle of a trust domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterTrustBundleSettings {}

/// Copies of the bundle in namespaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleConfigMapSettings {
    /// Name of the ConfigMap in each namespace. The operator's RBAC allows the default only.
    #[serde(default = "default_bundle_config_map_name")]
    pub name: String,
    /// Namespaces that get a copy. Unset or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Forms of the bundle, each a key of the ConfigMap.
    #[serde(default = "default_bundle_formats")]
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
    /// Standard conditions, `Ready` first among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Signer name to use in `podCertificate` and `clusterTrustBundle` volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer_name: Option<String>,
    /// Name of the ClusterTrustBundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_trust_bundle: Option<String>,
    /// Sequence number of the bundle; it grows with every change of the authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle_sequence: Option<u64>,
    /// The X.509 authorities, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<AuthorityStatus>,
    /// Registered entries.
    pub entries: i64,
    /// Keys in the JWK set.
    pub jwt_keys: i64,
}

/// One X.509 authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// Subject key identifier in hexadecimal digits.
    pub id: String,
    /// `prepared`, `active`, `old` or `tainted`.
    pub state: String,
    /// End of its certificate's validity.
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

impl Default for PodCertificateSettings {
    fn default() -> Self {
        Self {
            signer_name: None,
            ttl: default_pod_certificate_ttl(),
        }
    }
}
