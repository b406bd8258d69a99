//! A release of the chart on a real API server: one value makes a nested cluster, and takes it away.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::{
    certificates::v1::ClusterTrustBundle,
    core::v1::{ConfigMap, Secret},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use spiffe_operator::api::{
    NestedCluster, NestedClusterStatus, TrustDomain, custom_resource_definitions,
};

use crate::support::{
    CHART, ChildCluster, ControlPlane, Operator, Options, Release, SOON, apply, condition,
    documents, helm, install, release_lease, run_program, wait_until,
};

/// Time enough for the garbage collector, which looks for new kinds every 30 s.
const COLLECTED: Duration = Duration::from_secs(90);

/// The parent cluster, where nothing is installed before helm does it.
struct Parent {
    control_plane: ControlPlane,
    client: Client,
}

impl Parent {
    async fn start() -> Self {
        let options = Options {
            controller_manager: true,
            ..Options::default()
        };
        let control_plane = ControlPlane::start(options).await;
        Self {
            client: control_plane.client().await,
            control_plane,
        }
    }

    fn release(&self) -> Release<'_> {
        Release {
            kubeconfig: self.control_plane.kubeconfig(),
        }
    }

    /// Starts the operator with the rights that the release gives it.
    async fn operator(&self) -> Operator {
        let control_plane = &self.control_plane;
        let path = control_plane
            .kubeconfig_of("spiffe-system", "spiffe-operator")
            .await;
        Operator::start_as(&path, "spiffe-system", &[]).await
    }

    /// The status of the NestedCluster, once it is as wanted.
    async fn status(
        &self,
        name: &str,
        is_wanted: impl Fn(&NestedClusterStatus) -> bool,
    ) -> NestedClusterStatus {
        let objects = Api::<NestedCluster>::all(self.client.clone());
        wait_until("the status of the NestedCluster", SOON, || async {
            let object = objects.get(name).await.map_err(|error| error.to_string())?;
            let status = object.status.unwrap_or_default();
            if is_wanted(&status) {
                return Ok(status);
            }
            Err(format!("{status:?}"))
        })
        .await
    }

    async fn is_ready(&self, name: &str) {
        condition::<NestedCluster>(&self.client, name, "Ready", "True").await;
    }

    /// Waits until the Secret with the kubeconfig goes with the NestedCluster.
    async fn owns_secret(&self, child: &ChildCluster) {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), "spiffe-system");
        let name = format!("{}.kubeconfig", child.name);
        wait_until("the Secret to have an owner", SOON, || async {
            let secret = secrets.get_metadata(&name).await.unwrap();
            let owners = secret.owner_references();
            let is_owned = owners.iter().any(|it| it.name == child.name);
            is_owned.then_some(()).ok_or_else(|| format!("{owners:?}"))
        })
        .await;
    }

    /// Waits until NestedCluster and Secret are gone, after which the cluster has nothing of us.
    async fn is_without(&self, child: &ChildCluster) {
        let objects = Api::<NestedCluster>::all(self.client.clone());
        let secrets = Api::<Secret>::namespaced(self.client.clone(), "spiffe-system");
        let secret = format!("{}.kubeconfig", child.name);
        wait_until("NestedCluster and Secret to be gone", COLLECTED, || async {
            let object = objects.get_opt(&child.name).await.unwrap();
            let secret = secrets.get_metadata_opt(&secret).await.unwrap();
            match (object, secret) {
                (None, None) => Ok(()),
                left => Err(format!("{left:?}")),
            }
        })
        .await;
        assert_eq!(published(child).await, Vec::<String>::new());
    }
}

/// What of the bundle is in the cluster.
async fn published(child: &ChildCluster) -> Vec<String> {
    let every = ListParams::default();
    let bundles = Api::<ClusterTrustBundle>::all(child.client.clone());
    let copies = Api::<ConfigMap>::namespaced(child.client.clone(), "spire-system");
    let bundles = bundles.list(&every).await.unwrap().into_iter();
    let copies = copies.list(&every).await.unwrap().into_iter();
    let bundles = bundles.map(|it| it.name_any());
    bundles.chain(copies.map(|it| it.name_any())).collect()
}

/// The flags that give helm the kubeconfig of a nested cluster, as scripts have them.
fn value(child: &ChildCluster, kubeconfig: &str) -> [String; 2] {
    let kubeconfig = STANDARD.encode(kubeconfig);
    let path = format!("external-spire-server.kubeConfigs.{}", child.name);
    [
        format!("--set={path}.kubeConfigBase64={kubeconfig}"),
        format!("--set-json={path}.bundle={}", json!({ "configMap": {} })),
    ]
}

#[tokio::test]
async fn one_value_makes_a_nested_cluster_and_takes_it_away() {
    let (parent, child) = tokio::join!(Parent::start(), ChildCluster::start());
    child.pod("web", "workload").await;
    let least_rights = child.kubeconfig_with_least_rights().await;
    let release = parent.release();
    let [base64, bundle] = value(&child, &child.kubeconfig());
    let own = ["--set=trustDomain=example.org", "--set=clusterName=root"];
    let flags = [&own[..], &[&base64, &bundle]].concat();
    release.upgrade(&flags).await.unwrap();

    let operator = parent.operator().await;
    condition::<TrustDomain>(&parent.client, "example.org", "Ready", "True").await;
    parent.is_ready(&child.name).await;
    // The default registration makes the entry.
    let status = parent.status(&child.name, |it| it.entries == 1).await;
    assert_eq!(
        published(&child).await,
        [
            "spiffe-operator.io:example.org:bundle",
            "spire-bundle-upstream"
        ]
    );

    // Another kubeconfig counts at once.
    let [base64, _] = value(&child, &least_rights);
    release.upgrade(&[&base64]).await.unwrap();
    let until = status.credential_expires_at;
    parent
        .status(&child.name, |it| it.credential_expires_at != until)
        .await;
    parent.is_ready(&child.name).await;

    let path = format!("external-spire-server.kubeConfigs.{}", child.name);
    let none = format!("--set={path}=null");
    release.upgrade(&[&none]).await.unwrap();
    parent.is_without(&child).await;

    // Nor is anything left by an operator that was not there when the value went.
    release.upgrade(&[&base64, &bundle]).await.unwrap();
    parent.is_ready(&child.name).await;
    parent.owns_secret(&child).await;
    drop(operator);
    let none = ["--set=kubeConfigs=null,external-spire-server=null"];
    release.upgrade(&none).await.unwrap();
    let objects = Api::<NestedCluster>::all(parent.client.clone());
    let going = objects.get(&child.name).await.unwrap();
    assert!(going.metadata.deletion_timestamp.is_some(), "{going:?}");
    assert!(!published(&child).await.is_empty());
    release_lease(&parent.client).await;
    let _operator = parent.operator().await;
    parent.is_without(&child).await;
}

#[tokio::test]
async fn the_job_of_the_chart_brings_the_kinds_up_to_date() {
    let control_plane = ControlPlane::start(Options::default()).await;
    let client = control_plane.client().await;
    let upstream = documents("tests/it/data/upstream-crds.yaml");
    install(&client, &upstream).await;
    control_plane.ensure_namespace("spiffe-system").await;
    let show = ["--show-only", "templates/crds.yaml"];
    let manifests = ["template", "spiffe", CHART, "--namespace", "spiffe-system"];
    let manifests = helm(&[&manifests[..], &show].concat()).await.unwrap();
    let mut manifests: Vec<Value> = serde_saphyr::from_multiple(&manifests).unwrap();
    let job = manifests.pop().unwrap();
    for right in &manifests {
        apply(&client, right).await.unwrap();
    }

    let pod = &job["spec"]["template"]["spec"];
    let account = pod["serviceAccountName"].as_str().unwrap();
    let kubeconfig = control_plane.kubeconfig_of("spiffe-system", account).await;
    let program = env!("CARGO_BIN_EXE_spiffe-operator");
    let words: Vec<String> = serde_json::from_value(pod["containers"][0]["args"].clone()).unwrap();
    let kubeconfig = format!("KUBECONFIG={}", kubeconfig.display());
    let words = [kubeconfig, program.to_owned()].into_iter().chain(words);
    let words: Vec<_> = words.collect();
    // RBAC takes a moment to hear of a new binding.
    let applied = wait_until("the kinds to be applied", SOON, || {
        run_program("/usr/bin/env".as_ref(), &words)
    })
    .await;

    let found = Api::<CustomResourceDefinition>::all(client);
    for expected in custom_resource_definitions() {
        let name = expected.name_any();
        assert!(applied.lines().any(|line| line == name), "{applied}");
        let found = found.get(&name).await.unwrap();
        let [found] = &*found.spec.versions else {
            panic!("{found:?}");
        };
        let expected = &expected.spec.versions[0];
        assert_eq!(found.schema, expected.schema, "{name}");
        let columns = &found.additional_printer_columns;
        assert_eq!(*columns, expected.additional_printer_columns, "{name}");
    }
}
