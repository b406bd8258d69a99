//! How long it takes from a pod's creation until a stock agent holds the pod's X.509-SVID.
//!
//! Beside the stock server runs a stock spire-controller-manager. The agent syncs as it does unless
//! told otherwise, every 5 s, so pods are made at moments that are spread evenly over that time.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::load::Figures;
use crate::servers::{Cluster, Kind, NODE_TEMPLATE, Server};
use crate::support::{
    Attestor, SpireAgent, SpireControllerManager, SpireServerCli, World, pod, unique,
};

const PODS: u32 = 6;
const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// How often is looked at what the agent has.
const LOOK: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_mins(1);

/// Adds how long pods wait.
pub(crate) async fn measure(kind: Kind, figures: &mut Figures) {
    let cluster = Cluster::start().await;
    let world = &cluster.world;
    let (server, _manager) = match kind {
        Kind::Ours => (Server::ours(Arc::clone(&cluster)).await, None),
        Kind::Stock => {
            let server = Server::stock().await;
            let manager = manager(&cluster, &server).await;
            (server, Some(manager))
        }
    };
    let trust_domain = &server.endpoint.trust_domain;
    let id = |path: &str| format!("spiffe://{trust_domain}{path}");
    let cli = SpireServerCli::new(server.socket.clone()).await;
    let alias = "x509pop:subject:cn:node";
    cli.entry_of(&id("/spire/server"), &id("/node"), alias, "")
        .await;
    let folder = tempfile::tempdir().unwrap();
    let attestor = Attestor::x509pop(&server.ca, "node", folder.path());
    let agent = SpireAgent::start_unhurried(&server.endpoint, &attestor).await;
    let template = "spiffe://{{ .TrustDomain }}/pod/{{ .PodMeta.Name }}";
    let spec = json!({ "spiffeIDTemplate": template });
    world.apply_cluster_spiffe_id("pods", spec).await;

    // The first one shows that all is set up, and when the agent syncs.
    wait_for(world, &agent, &id).await;
    let mut times = Vec::new();
    for number in 0..PODS {
        sleep(SYNC_INTERVAL * number / PODS).await;
        times.push(wait_for(world, &agent, &id).await.as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let what = "pod created until the agent holds its SVID";
    figures.add(&format!("{what}, median, s"), times[times.len() / 2]);
    figures.add(&format!("{what}, longest, s"), times[times.len() - 1]);
}

async fn manager(cluster: &Cluster, server: &Server) -> SpireControllerManager {
    let changes = json!({
        "className": cluster.world.class,
        "parentIDTemplate": NODE_TEMPLATE,
        "entryIDPrefix": "scm",
    });
    SpireControllerManager::start(
        cluster.control_plane.kubeconfig(),
        &server.socket,
        &server.endpoint.trust_domain,
        changes,
    )
    .await
}

/// Makes a pod, and waits until the agent says that it has the pod's X.509-SVID.
async fn wait_for(world: &World, agent: &SpireAgent, id: &impl Fn(&str) -> String) -> Duration {
    let name = unique("pod");
    let expected = format!("spiffe_id=\"{}\"", id(&format!("/pod/{name}")));
    let node = world.node.name_any();
    let spec = json!({ "serviceAccountName": "workload" });
    let labels = [("app", "web")];
    let began = Instant::now();
    pod(&world.client, &world.namespace, &name, &node, &labels, spec).await;
    loop {
        let log = agent.process().log();
        let mut lines = log.lines();
        if lines.any(|line| line.contains("SVID updated") && line.contains(&expected)) {
            return began.elapsed();
        }
        assert!(began.elapsed() < LONG, "no {expected} in: {log}");
        sleep(LOOK).await;
    }
}
