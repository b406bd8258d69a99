//! A cluster of its own for a test to nest: an API server with a node and a namespace, where pods are
//! objects that nothing runs.

use std::{fs, net::SocketAddr};

use axum::http::Uri;

use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Node, Pod, ServiceAccount},
};
use kube::{Api, Client, ResourceExt, api::PostParams, config::Kubeconfig};
use serde_json::{Value, json};
use spiffe_operator::api::NestedCluster;

use super::{
    control_plane::{ControlPlane, Options},
    gate::Gate,
    objects::{apply, documents, merge, namespace, node, pod, service_account},
    pod_certificates::Kubelet,
    served::AGENT_ACCOUNT,
    unique,
    wait::{SOON, wait_until},
    world::World,
};

/// Address of an API server.
fn address(control_plane: &ControlPlane) -> SocketAddr {
    let kubeconfig = Kubeconfig::read_from(control_plane.kubeconfig()).unwrap();
    let cluster = kubeconfig.clusters[0].cluster.as_ref().unwrap();
    let url: Uri = cluster.server.as_ref().unwrap().parse().unwrap();
    url.authority().unwrap().as_str().parse().unwrap()
}

/// The cluster.
pub(crate) struct ChildCluster {
    /// What it is called; also the name of the NestedCluster and of the Secret.
    pub(crate) name: String,
    pub(crate) control_plane: ControlPlane,
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) node: Node,
    /// What stands before its API server, for the operator.
    pub(crate) gate: Gate,
}

impl ChildCluster {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Starts one with further servers or flags.
    pub(crate) async fn start_with(options: Options) -> Self {
        let control_plane = ControlPlane::start(options).await;
        let client = control_plane.client().await;
        let namespace = namespace(&client, &[]).await;
        for account in [AGENT_ACCOUNT, "workload"] {
            service_account(&client, &namespace, account).await;
        }
        Self {
            name: unique("child"),
            node: node(&client).await,
            namespace,
            gate: Gate::before(address(&control_plane)).await,
            client,
            control_plane,
        }
    }

    /// The kubeconfig of its administrator, through the gate.
    pub(crate) fn kubeconfig(&self) -> String {
        let kubeconfig = fs::read_to_string(self.control_plane.kubeconfig()).unwrap();
        let own = address(&self.control_plane).to_string();
        assert!(kubeconfig.contains(&own), "{kubeconfig}");
        kubeconfig.replace(&own, &self.gate.address.to_string())
    }

    /// The kubeconfig of a service account with the rights that `examples/nested-cluster-rights.yaml`
    /// gives, through the gate.
    pub(crate) async fn kubeconfig_with_least_rights(&self) -> String {
        for object in documents::<Value>("examples/nested-cluster-rights.yaml") {
            apply(&self.client, &object).await.unwrap();
        }
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), "spiffe-system");
        let token = accounts
            .create_token_request(
                "spiffe-operator-nested",
                &PostParams::default(),
                &TokenRequest::default(),
            )
            .await
            .unwrap();
        let mut kubeconfig: Value = serde_saphyr::from_str(&self.kubeconfig()).unwrap();
        kubeconfig["users"][0]["user"] = json!({ "token": token.status.unwrap().token });
        kubeconfig.to_string()
    }

    /// Makes a pod on its node, with the label `app` of its own name.
    pub(crate) async fn pod(&self, name: &str, account: &str) -> Pod {
        let spec = json!({ "serviceAccountName": account });
        let node = self.node.name_any();
        pod(
            &self.client,
            &self.namespace,
            name,
            &node,
            &[("app", name)],
            spec,
        )
        .await
    }

    /// Nests it in the trust domain of `world`, with `changes` to the spec.
    pub(crate) async fn nest(&self, world: &World, changes: Value) {
        self.give_kubeconfig(world, &self.kubeconfig()).await;
        self.apply(world, changes).await;
    }

    /// Stores `kubeconfig` where the operator looks for it.
    pub(crate) async fn give_kubeconfig(&self, world: &World, kubeconfig: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": self.name, "namespace": "spiffe-system" },
            "stringData": { "kubeconfig": kubeconfig },
        });
        apply(&world.client, &secret).await.unwrap();
    }

    /// Applies its NestedCluster, with `changes` to the spec.
    pub(crate) async fn apply(&self, world: &World, changes: Value) {
        let agents = format!("{}:{AGENT_ACCOUNT}", self.namespace);
        let mut object = json!({
            "apiVersion": "spiffe-operator.io/v1alpha1",
            "kind": "NestedCluster",
            "metadata": { "name": self.name },
            "spec": {
                "trustDomainRef": { "name": world.class },
                "kubeConfig": { "secretRef": { "name": self.name } },
                "agents": { "serviceAccountAllowList": [agents] },
            },
        });
        merge(&mut object["spec"], changes);
        apply(&world.client, &object).await.unwrap();
    }

    /// Waits until a condition of its NestedCluster has this status and reason.
    pub(crate) async fn condition(&self, world: &World, kind: &str, status: &str, reason: &str) {
        let objects = Api::<NestedCluster>::all(world.client.clone());
        let wanted = format!("{kind}={status} {reason} of {}", self.name);
        wait_until(&wanted, SOON, || async {
            let object = objects.get(&self.name).await;
            let object = object.map_err(|error| error.to_string())?;
            let status_now = object.status.unwrap_or_default();
            let found = status_now.conditions.iter().find(|it| it.type_ == kind);
            let holds = found.is_some_and(|it| it.status == status && it.reason == reason);
            holds.then_some(()).ok_or_else(|| format!("{status_now:?}"))
        })
        .await;
    }

    /// The kubelet of its node.
    pub(crate) async fn kubelet(&self) -> Kubelet {
        Kubelet::new(&self.control_plane, &self.node).await
    }

    /// Waits until it is served.
    pub(crate) async fn is_ready(&self, world: &World) {
        self.condition(world, "Ready", "True", "Connected").await;
    }
}
