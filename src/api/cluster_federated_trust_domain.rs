//! ClusterFederatedTrustDomain: a trust domain to federate with (spire-controller-manager's kind).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A foreign trust domain and where its bundle is served.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "spire.spiffe.io",
    version = "v1alpha1",
    kind = "ClusterFederatedTrustDomain",
    plural = "clusterfederatedtrustdomains",
    singular = "clusterfederatedtrustdomain",
    shortname = "cftd",
    category = "spiffe",
    status = "ClusterFederatedTrustDomainStatus"
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFederatedTrustDomainSpec {
    /// Name of the foreign trust domain.
    pub trust_domain: String,
    /// URL of the foreign bundle endpoint, `https`.
    #[serde(rename = "bundleEndpointURL")]
    pub bundle_endpoint_url: String,
    /// How the bundle endpoint authenticates itself.
    pub bundle_endpoint_profile: BundleEndpointProfile,
    /// The foreign bundle as a SPIFFE bundle document, to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain_bundle: Option<String>,
    /// The class of trust domains that serve this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
}

/// How a bundle endpoint authenticates itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleEndpointProfile {
    /// The profile.
    #[serde(rename = "type")]
    pub kind: BundleEndpointProfileType,
    /// SPIFFE ID of the endpoint, for the profile `https_spiffe`.
    #[serde(
        default,
        rename = "endpointSPIFFEID",
        skip_serializing_if = "Option::is_none"
    )]
    pub endpoint_spiffe_id: Option<String>,
}

/// Profiles of the SPIFFE federation standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BundleEndpointProfileType {
    /// The endpoint shows an X.509-SVID.
    HttpsSpiffe,
    /// The endpoint shows a Web PKI certificate.
    HttpsWeb,
}

/// What was made of a ClusterFederatedTrustDomain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFederatedTrustDomainStatus {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Standard conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
