//! ClusterFederatedTrustDomain: a trust domain to federate with (spire-controller-manager's kind).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

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
    status = "ClusterFederatedTrustDomainStatus",
    doc = "A foreign trust domain and where its bundle is served.",
    printcolumn = r#"{ "name": "Trust Domain", "type": "string", "jsonPath": ".spec.trustDomain" }"#,
    printcolumn = r#"{ "name": "Endpoint URL", "type": "string", "jsonPath": ".spec.bundleEndpointURL" }"#
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFederatedTrustDomainSpec {
    /// Name of the foreign trust domain, such as `example.org`: lower-case letters, digits, dots,
    /// hyphens and underscores.
    #[schemars(schema_with = "schema::trust_domain")]
    pub trust_domain: String,
    /// URL of the foreign bundle endpoint: `https`, with a host, without user name or password.
    #[serde(rename = "bundleEndpointURL")]
    #[schemars(schema_with = "schema::https_url")]
    pub bundle_endpoint_url: String,
    /// How the bundle endpoint authenticates itself.
    pub bundle_endpoint_profile: BundleEndpointProfile,
    /// The foreign bundle as a SPIFFE bundle document, to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain_bundle: Option<String>,
    /// The class of trust domains that serve this object. Unset: those that watch objects without
    /// a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
}

/// How a bundle endpoint authenticates itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.type == 'https_spiffe' || !has(self.endpointSPIFFEID) \
                 || self.endpointSPIFFEID == ''",
        "fieldPath": ".endpointSPIFFEID",
        "message": "must not be set with the profile https_web, whose endpoint shows a \
                    certificate of the Web PKI",
    },
    {
        "rule": format!(
            "self.type != 'https_spiffe' || (has(self.endpointSPIFFEID) \
             && self.endpointSPIFFEID.matches('{}'))",
            schema::SPIFFE_ID
        ),
        "fieldPath": ".endpointSPIFFEID",
        "message": "must be the SPIFFE ID of the endpoint with the profile https_spiffe, such as \
                    \"spiffe://example.org/bundle\"",
    },
]))]
#[serde(rename_all = "camelCase")]
pub struct BundleEndpointProfile {
    /// `https_web`: the endpoint shows a certificate of the Web PKI. `https_spiffe`: it shows an
    /// X.509-SVID.
    #[serde(rename = "type")]
    pub kind: BundleEndpointProfileType,
    /// SPIFFE ID that the endpoint shows. Needed for `https_spiffe`, not allowed for `https_web`.
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
    /// What holds and what does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
