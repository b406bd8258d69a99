//! A stock `spire-agent` as a `DaemonSet` on a real kubelet, as `examples/spire-agent.yaml` has it: a pod
//! that a ClusterSPIFFEID matches gets its identities from the agent's socket, another gets none.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{NodeCluster, SOON_ON_A_NODE, unique, wait_until};

const TRUST_DOMAIN: &str = "example.org";
const SOCKET: &str = "/run/spire/agent/public/api.sock";

/// Makes a pod with the agent's socket, which serves once it has an identity, and waits until it
/// runs.
async fn pod(cluster: &NodeCluster, name: &str, labels: Value) {
    let serve = format!("until workload serve --listen :8443 --socket {SOCKET}; do sleep 1; done");
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "containers": [{
                "name": "workload",
                "image": "localhost/spiffe-workload:dev",
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", serve],
                "volumeMounts": [{ "name": "socket", "mountPath": "/run/spire/agent/public" }],
            }],
            "volumes": [{
                "name": "socket",
                "hostPath": { "path": "/run/spire/agent/public", "type": "Directory" },
            }],
        },
    });
    cluster.apply_text(&object.to_string()).await;
    cluster.ready("default", name).await;
}

#[tokio::test]
async fn a_registered_pod_gets_its_identities_from_the_socket_of_a_stock_agent() {
    let cluster = NodeCluster::start().await;
    cluster.load_program("spire-agent", "localhost/spire-agent:dev");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/spire-agent.yaml");
    let example = fs::read_to_string(example).unwrap();
    let image = "ghcr.io/spiffe/spire-agent:1.15.3";
    assert!(example.contains(image));
    let example = example.replace(image, "localhost/spire-agent:dev");
    cluster.apply_text(&example).await;
    cluster.rolled_out("spire-system", "daemonset/spire-agent");
    let agents = cluster.kubectl("get agents -o wide");
    assert!(agents.contains("k8s_psat"), "{agents}");
    assert!(agents.contains("localhost"), "{agents}");

    let class = unique("socket");
    let registration = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterSPIFFEID",
        "metadata": { "name": class },
        "spec": {
            "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/{{ .PodMeta.Name }}",
            "podSelector": { "matchLabels": { "app": class } },
        },
    });
    cluster.apply_text(&registration.to_string()).await;
    pod(&cluster, "registered", json!({ "app": class })).await;
    pod(&cluster, "stranger", json!({})).await;

    let ask = |pod, audience: &str| {
        let command = [
            "workload",
            "jwt",
            "--audience",
            audience,
            "--socket",
            SOCKET,
        ];
        cluster.exec("default", pod, &command)
    };
    let what = "a JWT-SVID from the agent's socket";
    let token = wait_until(what, SOON_ON_A_NODE, || async { ask("registered", "peer") }).await;
    let verify = [
        "workload",
        "verify-jwt",
        "--audience",
        "peer",
        "--socket",
        SOCKET,
    ];
    let command = [&verify[..], &[token.trim()]].concat();
    let id = cluster.exec("default", "registered", &command).unwrap();
    assert_eq!(id.trim(), format!("spiffe://{TRUST_DOMAIN}/registered"));

    // With its X.509-SVID it speaks mutual TLS to itself.
    let dial = ["workload", "dial", "127.0.0.1:8443", "--socket", SOCKET];
    let answered = wait_until("mutual TLS", SOON_ON_A_NODE, || async {
        cluster.exec("default", "registered", &dial)
    });
    let own = format!("spiffe://{TRUST_DOMAIN}/registered");
    assert_eq!(answered.await, format!("{own} answered: hello {own}\n"));

    let refused = ask("stranger", "peer").unwrap_err();
    // Its client goes on asking for as long as there is none for it.
    assert!(refused.contains("context deadline exceeded"), "{refused}");
    let log = cluster.kubectl("-n spire-system logs daemonset/spire-agent");
    assert!(log.contains("No identity issued"), "{log}");
}
