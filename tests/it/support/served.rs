//! A trust domain as agents and administrators see it, whoever serves it: the same script can be put
//! to a stock spire-server and to ours, and so show that what it expects is what SPIRE does.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    authorities::{Ca, ca},
    spire::Endpoint,
    spire_server::{SpireServer, SpireServerCli},
    unique_trust_domain,
};

/// Name of the cluster of `k8s_psat`.
pub(crate) const CLUSTER: &str = "here";
/// Service account, in any namespace that a test has, whose pods may attest.
pub(crate) const AGENT_ACCOUNT: &str = "spire-agent";

/// A served trust domain.
pub(crate) struct Served {
    pub(crate) trust_domain: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) cli: SpireServerCli,
    /// Who signs certificates that agents may attest with.
    pub(crate) x509pop_ca: Ca,
    /// For files of a test.
    pub(crate) folder: TempDir,
    _stock: Option<SpireServer>,
}

/// How a trust domain is served, beside the usual.
#[derive(Clone, Debug, Default)]
pub(crate) struct Serving<'a> {
    /// Lifetime of agents' X.509-SVIDs.
    pub(crate) agent_ttl: Option<&'a str>,
    /// Attests by `k8s_psat` the agents of this cluster in this namespace.
    pub(crate) cluster: Option<(&'a Path, &'a str)>,
}

impl Served {
    /// By a stock spire-server.
    pub(crate) async fn by_stock(serving: &Serving<'_>) -> Self {
        let trust_domain = unique_trust_domain();
        let folder = tempfile::tempdir().unwrap();
        let x509pop_ca = ca("nodes");
        let nodes = folder.path().join("nodes.pem");
        fs::write(&nodes, x509pop_ca.pem()).unwrap();
        let x509pop = format!(
            r#"NodeAttestor "x509pop" {{ plugin_data {{ ca_bundle_path = "{}" }} }}"#,
            nodes.display()
        );
        let k8s_psat = serving.cluster.map(|(kubeconfig, namespace)| {
            format!(
                r#"NodeAttestor "k8s_psat" {{ plugin_data {{ clusters = {{ "{CLUSTER}" = {{
    service_account_allow_list = ["{namespace}:{AGENT_ACCOUNT}"]
    kube_config_file = "{}"
  }} }} }} }}"#,
                kubeconfig.display()
            )
        });
        let plugins = [Some(x509pop), k8s_psat].into_iter().flatten();
        let plugins = plugins.collect::<Vec<_>>().join("\n  ");
        let ttl = serving.agent_ttl.unwrap_or("1h");
        let settings = format!("agent_ttl = \"{ttl}\"\nratelimit {{ attestation = false }}");
        let stock = SpireServer::start(&trust_domain, &settings, &plugins).await;
        Self {
            endpoint: stock.endpoint().await,
            cli: stock.cli().clone(),
            _stock: Some(stock),
            trust_domain,
            x509pop_ca,
            folder,
        }
    }

    /// An ID of the trust domain.
    pub(crate) fn id(&self, path: &str) -> String {
        format!("spiffe://{}/{path}", self.trust_domain)
    }

    /// The ID of an agent that has attested with a join token.
    pub(crate) fn join_token_agent(&self, token: &str) -> String {
        self.id(&format!("spire/agent/join_token/{token}"))
    }

    /// Writes a file for a command to read, and gives its path.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The ID of the authority of a kind (`x509`, `jwt`) in a state (`active`, `prepared`, `old`).
    pub(crate) async fn authority(&self, kind: &str, state: &str) -> Option<String> {
        let shown = self.cli.json(&format!("localauthority {kind} show")).await;
        shown[state]["authority_id"].as_str().map(str::to_owned)
    }

    /// The IDs of the entries that a filter of `entry show` finds.
    pub(crate) async fn entry_ids(&self, filter: &str) -> Vec<String> {
        let shown = self.cli.json(&format!("entry show {filter}")).await;
        let entries = shown["entries"].as_array().unwrap();
        let id = |entry: &Value| entry["id"].as_str().unwrap().to_owned();
        entries.iter().map(id).collect()
    }

    /// The IDs of the agents that a filter of `agent list` finds.
    pub(crate) async fn agents(&self, filter: &str) -> Vec<String> {
        let listed = self.cli.json(&format!("agent list {filter}")).await;
        let agents = listed["agents"].as_array().into_iter().flatten();
        let id = |agent: &Value| {
            let id = &agent["id"];
            let part = |name: &str| id[name].as_str().unwrap().to_owned();
            format!("spiffe://{}{}", part("trust_domain"), part("path"))
        };
        agents.map(id).collect()
    }
}
