//! A trust domain as agents and administrators see it, whoever serves it: the same script can be put
//! to a stock spire-server and to ours, and so show that what it expects is what SPIRE does.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    authorities::{Ca, ca},
    control_plane::control_plane,
    operator::{Operator, shared_operator},
    spire::{Endpoint, free_port},
    spire_server::{SpireServer, SpireServerCli},
    wait::{SOON, wait_until},
    world::World,
};

/// Name of the cluster in whose pods agents may run.
pub(crate) const CLUSTER: &str = "here";
/// Service account of agents that are pods of the world's namespace.
pub(crate) const AGENT_ACCOUNT: &str = "spire-agent";

/// The trust domain of a world, served with every node attestor.
pub(crate) struct Served {
    pub(crate) world: World,
    pub(crate) trust_domain: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) cli: SpireServerCli,
    /// Who signs certificates that agents may attest with.
    pub(crate) x509pop_ca: Ca,
    /// For files of a test.
    pub(crate) folder: TempDir,
    _stock: Option<SpireServer>,
}

impl Served {
    /// By a stock spire-server; X.509-SVIDs of agents live for `agent_ttl`.
    pub(crate) async fn by_stock(agent_ttl: &str) -> Self {
        let control_plane = control_plane().await;
        let world = World::without_trust_domain(control_plane).await;
        let folder = tempfile::tempdir().unwrap();
        let x509pop_ca = ca("nodes");
        let nodes = folder.path().join("nodes.pem");
        fs::write(&nodes, x509pop_ca.pem()).unwrap();
        let plugins = format!(
            r#"NodeAttestor "x509pop" {{ plugin_data {{ ca_bundle_path = "{}" }} }}
  NodeAttestor "k8s_psat" {{ plugin_data {{ clusters = {{ "{CLUSTER}" = {{
    service_account_allow_list = ["{}:{AGENT_ACCOUNT}"]
    kube_config_file = "{}"
  }} }} }} }}"#,
            nodes.display(),
            world.namespace,
            control_plane.kubeconfig().display()
        );
        let settings =
            format!("agent_ttl = \"{agent_ttl}\"\n  ratelimit {{ attestation = false }}");
        let stock = SpireServer::start(&world.trust_domain, &settings, &plugins).await;
        Self {
            trust_domain: world.trust_domain.clone(),
            endpoint: stock.endpoint().await,
            cli: stock.cli().clone(),
            world,
            x509pop_ca,
            folder,
            _stock: Some(stock),
        }
    }

    /// By the operator that runs on the shared control plane.
    pub(crate) async fn by_operator(agent_ttl: &str) -> Self {
        let world = World::without_trust_domain(control_plane().await).await;
        Self::of(world, shared_operator().await, agent_ttl).await
    }

    /// By the operator that runs on the shared control plane, which takes as many attestations as it
    /// does unless somebody says otherwise.
    pub(crate) async fn by_operator_with_usual_limits() -> Self {
        let world = World::without_trust_domain(control_plane().await).await;
        Self::with(world, shared_operator().await, json!({})).await
    }

    /// The trust domain of `world` by `operator`.
    pub(crate) async fn of(world: World, operator: &Operator, agent_ttl: &str) -> Self {
        let server = json!({ "agentTTL": agent_ttl, "rateLimit": { "attestation": false } });
        Self::with(world, operator, server).await
    }

    async fn with(world: World, operator: &Operator, mut server: Value) -> Self {
        let x509pop_ca = ca("nodes");
        let port = free_port();
        let agents = format!("{}:{AGENT_ACCOUNT}", world.namespace);
        server["port"] = port.into();
        server["nodeAttestors"] = json!({
            "joinToken": {},
            "x509pop": { "caBundle": x509pop_ca.pem() },
            "k8sPSAT": { "serviceAccountAllowList": [agents] },
        });
        let changes = json!({ "clusterName": CLUSTER, "server": server });
        world.apply_trust_domain(changes).await;
        let cli = SpireServerCli::new(operator.admin_socket(&world.class)).await;
        wait_until("the server to have a bundle", SOON, || {
            cli.run("bundle show")
        })
        .await;
        let trust_domain = world.trust_domain.clone();
        let endpoint = Endpoint {
            bundle: cli.bundle(&trust_domain).await,
            trust_domain: trust_domain.clone(),
            port,
        };
        Self {
            world,
            trust_domain,
            endpoint,
            cli,
            x509pop_ca,
            folder: tempfile::tempdir().unwrap(),
            _stock: None,
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

/// Makes each script a test of a stock server and one of ours, with the lifetime of agents' SVIDs.
macro_rules! scripts {
    ($($script:ident: $agent_ttl:literal,)*) => {
        mod stock {
            $(#[tokio::test]
            async fn $script() {
                super::$script(&crate::support::Served::by_stock($agent_ttl).await).await;
            })*
        }

        mod ours {
            $(#[tokio::test]
            async fn $script() {
                super::$script(&crate::support::Served::by_operator($agent_ttl).await).await;
            })*
        }
    };
}
pub(crate) use scripts;
