//! A server above, which signs the CAs of a TrustDomain.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{CaBundleKind, schema};

/// A server that signs our CAs: exactly one of the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpstreamAuthority {
    /// A spire-server, or whatever has its API, such as a TrustDomain with a `server` elsewhere.
    pub spire: SpireUpstream,
}

/// A spire-server above. Exactly one of `k8sPSAT`, `x509pop`, `joinToken` and `workloadAPI` says how
/// the operator shows there who it is. By the first three it becomes an agent of that server, of an
/// ID of its own, and an entry there with `downstream`, whose parent is that agent, makes it a
/// server below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.k8sPSAT), has(self.x509pop), has(self.joinToken), has(self.workloadAPI)]\
             .filter(set, set).size() == 1",
    "message": "exactly one of k8sPSAT, x509pop, joinToken and workloadAPI must be set",
}]))]
#[serde(rename_all = "camelCase")]
pub struct SpireUpstream {
    /// Where the server listens, `host:port`, such as `spire.example.org:8081`.
    #[schemars(schema_with = "host_and_port")]
    pub address: String,
    /// The trust domain's bundle, by which the server is known. It is looked at before each
    /// connection, and trusted besides what the server has told since: keep it current, as the server
    /// above does with the ConfigMap `spire-bundle-upstream`. Not used with `workloadAPI`, which
    /// brings the bundle.
    #[serde(default)]
    pub bundle: UpstreamBundleRef,
    /// Shows a token of the operator's own service account, as an agent that is a pod does.
    #[serde(default, rename = "k8sPSAT", skip_serializing_if = "Option::is_none")]
    pub k8s_psat: Option<UpstreamK8sPsat>,
    /// Shows a certificate, of which it holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x509pop: Option<UpstreamX509Pop>,
    /// Shows a join token, once. What it gets for that is kept in a Secret and renewed; a token is
    /// needed again when the server was away for the rest of the life of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_token: Option<UpstreamJoinToken>,
    /// Has an agent beside it show who it is, and takes the first X.509-SVID of the agent's Workload
    /// API.
    #[serde(
        default,
        rename = "workloadAPI",
        skip_serializing_if = "Option::is_none"
    )]
    pub workload_api: Option<UpstreamWorkloadApi>,
    /// Which entry with `downstream` to take, where the agent has several. Unset: the only one.
    #[serde(default, rename = "spiffeID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::spiffe_id")]
    pub spiffe_id: Option<String>,
}

/// A key of a ConfigMap or Secret in the operator's namespace with a bundle: certificates in PEM, or a
/// SPIFFE bundle document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpstreamBundleRef {
    /// `ConfigMap` or `Secret`.
    #[serde(default = "default_kind")]
    pub kind: CaBundleKind,
    /// Name of the object.
    #[serde(default = "default_name")]
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Key in its data.
    #[serde(default = "default_key")]
    #[schemars(schema_with = "schema::config_map_key")]
    pub key: String,
}

/// How the operator shows a token of its service account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamK8sPsat {
    /// By which name the server knows this cluster.
    #[schemars(schema_with = "schema::path_segment")]
    pub cluster: String,
    /// Name of the file with the token, in the folder that the flag `--token-folder` says. The
    /// kubelet puts it there and renews it; its audience must be one that the server takes.
    #[serde(default = "default_token_file")]
    #[schemars(schema_with = "schema::path_segment")]
    pub token_file: String,
}

/// How the operator shows a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamX509Pop {
    /// A Secret of the type `kubernetes.io/tls`: `tls.crt` has the certificate and those above it,
    /// `tls.key` its key, ECDSA on P-256 or RSA.
    pub secret_ref: UpstreamSecretRef,
}

/// How the operator shows a join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamJoinToken {
    /// A Secret that has the token under the key `token`.
    pub secret_ref: UpstreamSecretRef,
}

/// An agent beside the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamWorkloadApi {
    /// Path of the agent's Unix socket.
    #[schemars(schema_with = "absolute_path")]
    pub socket_path: String,
}

/// A Secret in the operator's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpstreamSecretRef {
    /// Name of the Secret in the operator's namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

impl Default for UpstreamBundleRef {
    fn default() -> Self {
        Self {
            kind: default_kind(),
            name: default_name(),
            key: default_key(),
        }
    }
}

fn default_kind() -> CaBundleKind {
    CaBundleKind::ConfigMap
}

fn default_name() -> String {
    "spire-bundle-upstream".into()
}

fn default_key() -> String {
    "bundle.spiffe".into()
}

fn default_token_file() -> String {
    "spire-server".into()
}

/// A DNS name, an IPv4 address, or an IPv6 address in brackets, and a port. Whether these are any is
/// left to the parser.
fn host_and_port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 260,
        "pattern": r"^([a-zA-Z0-9._-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$",
    })
}

/// The path of a socket, as long as one can be.
fn absolute_path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 107, "pattern": "^/" })
}
