//! A nested cluster as a stock SPIRE server beside the operator is told of it: an entry of the node
//! attestor `k8s_psat`, a kubeconfig, and a token that the kubeconfig names by `tokenFile`.
//!
//! Each is a file of its own, named after the cluster. The operator keeps the entry in a ConfigMap
//! and the rest in a Secret; a sidecar makes one `plugin_data_file` of all entries. So a new token
//! changes a file that SPIRE reads at each attestation, and nothing else.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::kubeconfig::{ChildKubeconfig, Credential};
use crate::domains::K8sPsatSettings;

/// The file that the server's `plugin_data_file` of `k8s_psat` names.
pub const PLUGIN_DATA_FILE: &str = "k8s_psat.json";
/// End of the name of a file with an entry of `k8s_psat`.
pub const ENTRY: &str = ".json";
/// End of the name of a file with a kubeconfig.
pub const KUBECONFIG: &str = ".kubeconfig";
/// End of the name of a file with a token.
pub const TOKEN: &str = ".token";
/// Where SPIRE is told which kubeconfig an entry has.
pub const KUBE_CONFIG_FILE: &str = "kube_config_file";

/// Name of the ConfigMap and of the Secret by which the server `parent` is told of nested clusters.
#[must_use]
pub fn parent_object_name(parent: &str) -> String {
    format!("{parent}-nested-clusters")
}

/// What a stock SPIRE server is told of one nested cluster: texts by the names of files.
#[derive(Clone)]
pub struct Wiring {
    /// For the ConfigMap.
    pub config: BTreeMap<String, String>,
    /// For the Secret.
    pub secret: BTreeMap<String, SecretString>,
}

impl fmt::Debug for Wiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiring")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Wiring {
    fn eq(&self, other: &Self) -> bool {
        let has = |(name, text): (&String, &SecretString)| {
            let found = other.secret.get(name);
            found.is_some_and(|found| found.expose_secret() == text.expose_secret())
        };
        self.config == other.config
            && self.secret.len() == other.secret.len()
            && self.secret.iter().all(has)
    }
}

impl Eq for Wiring {}

/// Why a cluster cannot be wired.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The credential is made anew for each call by what a server does not have.
    #[error("a SPIRE server cannot use this credential: give a token or a client certificate")]
    Credential,
    /// The kubeconfig cannot be written down.
    #[error("the kubeconfig cannot be written")]
    Kubeconfig {
        /// Why.
        #[from]
        source: serde_json::Error,
    },
}

impl Wiring {
    /// What is told of the cluster that `kubeconfig` leads to, and whose pods are agents as `agents`
    /// says.
    ///
    /// # Errors
    /// When the credential cannot be handed on.
    pub fn of(kubeconfig: &ChildKubeconfig, agents: &K8sPsatSettings) -> Result<Self, WiringError> {
        let cluster = &agents.cluster;
        let (credential, token) = handed_on(&kubeconfig.credential, cluster)?;
        let kubeconfig = ChildKubeconfig {
            credential,
            ..kubeconfig.clone()
        };
        let document = serde_json::to_string(&kubeconfig.to_kubeconfig())?;
        let kubeconfig = (
            format!("{cluster}{KUBECONFIG}"),
            SecretString::from(document),
        );
        let token = token.map(|token| (format!("{cluster}{TOKEN}"), token));
        Ok(Self {
            config: BTreeMap::from([(format!("{cluster}{ENTRY}"), entry(agents))]),
            secret: [kubeconfig].into_iter().chain(token).collect(),
        })
    }
}

/// The credential as the kubeconfig of a server has it, and the token that goes into a file beside
/// it.
fn handed_on(
    credential: &Credential,
    cluster: &str,
) -> Result<(Credential, Option<SecretString>), WiringError> {
    match credential {
        Credential::Token(token) => {
            // Looked for in the kubeconfig's folder.
            let file = Credential::TokenFile(format!("{cluster}{TOKEN}"));
            Ok((file, Some(token.text.clone())))
        }
        Credential::ClientCertificate(_) => Ok((credential.clone(), None)),
        Credential::TokenFile(_) | Credential::EksToken(_) | Credential::Plugin(_) => {
            Err(WiringError::Credential)
        }
    }
}

fn entry(agents: &K8sPsatSettings) -> String {
    let entry = json!({
        "service_account_allow_list": agents.service_accounts,
        "audience": agents.audiences,
        "allowed_node_label_keys": agents.node_label_keys,
        "allowed_pod_label_keys": agents.pod_label_keys,
        "use_pod_uid_for_agent_id": agents.id_by_pod,
    });
    entry.to_string()
}

/// Reads an entry of `k8s_psat`.
///
/// # Errors
/// When it is no JSON object.
pub fn read_entry(bytes: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    serde_json::from_slice(bytes)
}

/// The data of the plugin `k8s_psat` for these clusters. The kubeconfigs of those that name none lie in
/// `folder`.
#[must_use]
pub fn plugin_data(entries: BTreeMap<String, Map<String, Value>>, folder: &str) -> String {
    let clusters = entries.into_iter().map(|(cluster, mut entry)| {
        let file = || format!("{folder}/{cluster}{KUBECONFIG}").into();
        entry.entry(KUBE_CONFIG_FILE).or_insert_with(file);
        (cluster, Value::Object(entry))
    });
    let clusters: Map<_, _> = clusters.collect();
    format!("{:#}\n", json!({ "clusters": clusters }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::K8sPsatAttestor;
    use crate::nested::kubeconfig::ReadOptions;

    fn agents() -> K8sPsatSettings {
        let attestor: K8sPsatAttestor = serde_json::from_value(json!({
            "serviceAccountAllowList": ["spire:b", "spire:a"],
            "allowedNodeLabelKeys": ["zone"],
        }))
        .unwrap();
        K8sPsatSettings::parse("child.01", &attestor).unwrap()
    }

    fn wiring(user: &Value) -> Result<Wiring, WiringError> {
        let document = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": "https://child01.test:6443"}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        });
        let options = ReadOptions::default();
        let read = ChildKubeconfig::read(document.to_string().as_bytes(), &options);
        Wiring::of(&read.unwrap(), &agents())
    }

    #[test]
    fn a_token_is_a_file_beside_a_kubeconfig_that_names_it() {
        let told = wiring(&json!({"token": "abc", "as": "spire-root"})).unwrap();
        insta::assert_json_snapshot!(told.config);
        let names: Vec<_> = told.secret.keys().collect();
        assert_eq!(names, ["child.01.kubeconfig", "child.01.token"]);
        assert_eq!(told.secret["child.01.token"].expose_secret(), "abc");
        let kubeconfig = told.secret["child.01.kubeconfig"].expose_secret();
        let kubeconfig: Value = serde_json::from_str(kubeconfig).unwrap();
        insta::assert_json_snapshot!(kubeconfig);

        let renewed = wiring(&json!({"token": "abd", "as": "spire-root"})).unwrap();
        assert_ne!(told, renewed);
        assert_eq!(told.config, renewed.config, "no reload");
        let file = "child.01.kubeconfig";
        assert_eq!(
            told.secret[file].expose_secret(),
            renewed.secret[file].expose_secret()
        );
    }

    #[test]
    fn what_a_server_cannot_use_is_refused() {
        let exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1beta1", "command": "aws",
            "args": ["eks", "get-token", "--cluster-name", "c", "--region", "eu-north-1"],
        });
        let refused = wiring(&json!({"exec": exec})).unwrap_err();
        assert!(matches!(refused, WiringError::Credential));
    }

    #[test]
    fn all_entries_are_one_document() {
        let told = wiring(&json!({"token": "abc"})).unwrap();
        let one = read_entry(told.config["child.01.json"].as_bytes()).unwrap();
        // The server's own cluster, which the operator does not write.
        let own = br#"{"service_account_allow_list":["spire:agent"],"kube_config_file":""}"#;
        let own = read_entry(own).unwrap();
        let entries = BTreeMap::from([("child.01".to_owned(), one), ("a".into(), own)]);
        insta::assert_snapshot!(plugin_data(entries, "/run/spire"));
        assert_eq!(
            plugin_data(BTreeMap::new(), "/"),
            "{\n  \"clusters\": {}\n}\n"
        );
        assert!(read_entry(b"[]").is_err());
    }
}
