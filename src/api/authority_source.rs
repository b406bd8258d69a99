//! Where a TrustDomain's CAs come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{UpstreamAuthority, schema};

/// Who signs: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.selfSigned), has(self.secretRef), has(self.upstream)]\
             .filter(set, set).size() == 1",
    "message": "exactly one of selfSigned, secretRef and upstream must be set",
}]))]
#[serde(rename_all = "camelCase")]
pub struct AuthoritySource {
    /// CAs that the operator makes and rotates by itself. Written `selfSigned: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSignedAuthority>,
    /// An existing CA in a Secret of the operator's namespace, for instance from cert-manager. A
    /// change of the Secret is a rotation: the new root is published before the new key signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<AuthoritySecretRef>,
    /// A server above, which signs CAs that the operator makes the keys of: the trust domain is the
    /// server's, and one root holds over all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamAuthority>,
}

/// A CA that the operator makes and rotates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SelfSignedAuthority {}

/// A Secret in the operator's namespace with a CA: `tls.crt` holds the CA's certificate and then
/// its chain, `tls.key` the private key, `ca.crt` the root where the chain does not end in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuthoritySecretRef {
    /// Name of the Secret in the operator's namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}
