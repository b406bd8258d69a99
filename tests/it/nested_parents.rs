//! Stock SPIRE servers that are told of nested clusters: by objects of the operator, a sidecar of ours
//! and a signal.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use spiffe_operator::api::NestedCluster;
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::interval};

use crate::support::{
    AGENT_ACCOUNT, Attestor, ChildCluster, Passage, Process, SOON, SpireAgent, SpireServer, World,
    apply, control_plane, free_port, merge_patch, run_program, shared_operator, unique,
    unique_trust_domain, wait_until,
};

/// What the server is called in NestedClusters.
const NAME: &str = "spire-server";
/// The ConfigMap and the Secret.
const OBJECT: &str = "spire-server-nested-clusters";

/// A stock server that reads its clusters from a file, the sidecar beside it, and the kubelet that
/// mounts for the sidecar what the operator wrote.
struct Parent {
    server: SpireServer,
    sidecar: Process,
    kubelet: JoinHandle<()>,
    folder: TempDir,
}

impl Drop for Parent {
    fn drop(&mut self) {
        self.kubelet.abort();
    }
}

impl Parent {
    async fn start(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["config", "secret", "target"] {
            fs::create_dir(path(name)).unwrap();
        }
        let program = Path::new(env!("CARGO_BIN_EXE_spiffe-operator"));
        let arguments = |further: &[&str]| {
            let folders = ["config", "secret", "target"];
            let flags = folders.map(|name| format!("--{name}-dir={}", path(name).display()));
            let words = ["parent", "sidecar"].into_iter().map(str::to_owned);
            let further = further.iter().copied().map(str::to_owned);
            words.chain(flags).chain(further).collect::<Vec<_>>()
        };
        run_program(program, arguments(&["--once"])).await.unwrap();
        let plugins = format!(
            r#"NodeAttestor "k8s_psat" {{ plugin_data_file = "{}" }}"#,
            path("target/k8s_psat.json").display()
        );
        let settings = "ratelimit { attestation = false }";
        let server = SpireServer::start(&unique_trust_domain(), settings, &plugins).await;
        let log = path("sidecar.log");
        Self {
            server,
            sidecar: Process::start("the sidecar", program, arguments(&[]), log),
            kubelet: tokio::spawn(mount(
                world.client.clone(),
                world.namespace.clone(),
                folder.path().to_owned(),
            )),
            folder,
        }
    }

    /// What the server reads.
    fn target(&self, file: &str) -> PathBuf {
        self.folder.path().join("target").join(file)
    }

    /// The clusters in the file that the server reads.
    fn clusters(&self) -> Vec<String> {
        let text = fs::read_to_string(self.target("k8s_psat.json")).unwrap();
        let data: Value = serde_json::from_str(&text).unwrap();
        data["clusters"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    }

    /// How often the server took new plugin data.
    fn reloads(&self) -> usize {
        self.server
            .process()
            .log()
            .matches("Plugin reconfigured")
            .count()
    }

    async fn has_reloaded(&self, times: usize) {
        let what = format!("the server to have taken new data {times} times");
        wait_until(&what, SOON, || async {
            let reloads = self.reloads();
            (reloads == times)
                .then_some(())
                .ok_or_else(|| format!("{reloads}; {}", self.sidecar.log()))
        })
        .await;
    }

    async fn agents(&self) -> Vec<String> {
        let listed = self.server.cli().json("agent list").await;
        let agents = listed["agents"].as_array().into_iter().flatten();
        let path = |agent: &Value| agent["id"]["path"].as_str().unwrap().to_owned();
        agents.map(path).collect()
    }
}

/// Mounts the objects of a server's namespace for ever, as a kubelet does: each version is a folder,
/// and a link is swapped.
async fn mount(client: Client, namespace: String, root: PathBuf) {
    let mut period = interval(Duration::from_millis(100));
    let config_maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
    let secrets = Api::<Secret>::namespaced(client, &namespace);
    let mut mounted = [BTreeMap::new(), BTreeMap::new()];
    for version in 0.. {
        period.tick().await;
        let Ok(config) = config_maps.get_opt(OBJECT).await else {
            continue;
        };
        let Ok(secret) = secrets.get_opt(OBJECT).await else {
            continue;
        };
        let config = config.and_then(|it| it.data).unwrap_or_default();
        let config = config
            .into_iter()
            .map(|(key, text)| (key, text.into_bytes()));
        let secret = secret.and_then(|it| it.data).unwrap_or_default();
        let secret = secret.into_iter().map(|(key, bytes)| (key, bytes.0));
        let found: [BTreeMap<_, _>; 2] = [config.collect(), secret.collect()];
        for ((found, mounted), name) in found.iter().zip(&mut mounted).zip(["config", "secret"]) {
            if found != mounted {
                swap(&root.join(name), version, found);
                mounted.clone_from(found);
            }
        }
    }
}

fn swap(folder: &Path, version: u32, files: &BTreeMap<String, Vec<u8>>) {
    let data = folder.join(format!("..{version}"));
    fs::create_dir(&data).unwrap();
    for (name, bytes) in files {
        fs::write(data.join(name), bytes).unwrap();
    }
    symlink(format!("..{version}"), folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    for name in files.keys().filter(|name| !folder.join(name).is_symlink()) {
        symlink(format!("..data/{name}"), folder.join(name)).unwrap();
    }
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_symlink() && !path.exists() {
            fs::remove_file(path).unwrap();
        }
    }
}

/// The world of the shared operator, with its TrustDomain.
async fn world() -> World {
    let world = World::without_trust_domain(control_plane().await).await;
    shared_operator().await;
    world.apply_trust_domain(json!({})).await;
    world
}

/// `spec.parents` with the server of `world`.
fn parents(world: &World) -> Value {
    json!([{ "namespace": world.namespace, "name": NAME }])
}

/// Applies a NestedCluster of this name, with this kubeconfig.
async fn nest(world: &World, name: &str, kubeconfig: &str, parents: Value) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": name, "namespace": "spiffe-system" },
        "stringData": { "kubeconfig": kubeconfig },
    });
    apply(&world.client, &secret).await.unwrap();
    let object = json!({
        "apiVersion": "spiffe-operator.io/v1alpha1", "kind": "NestedCluster",
        "metadata": { "name": name },
        "spec": {
            "trustDomainRef": { "name": world.class },
            "kubeConfig": { "secretRef": { "name": name } },
            "agents": { "serviceAccountAllowList": ["spire:agent"] },
            "parents": parents,
        },
    });
    apply(&world.client, &object).await.unwrap();
}

/// Waits until the condition `Wired` of a NestedCluster has this status and reason; its message.
async fn wired(world: &World, name: &str, status: &str, reason: &str) -> String {
    let objects = Api::<NestedCluster>::all(world.client.clone());
    let what = format!("Wired={status} {reason} of {name}");
    wait_until(&what, SOON, || async {
        let object = objects.get(name).await.map_err(|error| error.to_string())?;
        let status_now = object.status.unwrap_or_default();
        let mut conditions = status_now.conditions.iter();
        let found = conditions
            .find(|it| (&*it.type_, &*it.status, &*it.reason) == ("Wired", status, reason));
        let message = found.map(|it| it.message.clone());
        message.ok_or_else(|| format!("{status_now:?}"))
    })
    .await
}

/// Deletes a NestedCluster and waits until it is gone.
async fn remove(world: &World, name: &str) {
    let objects = Api::<NestedCluster>::all(world.client.clone());
    objects
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
    wait_until(&format!("{name} to be gone"), SOON, || async {
        let found = objects.get_opt(name).await.unwrap();
        found.map_or(Ok(()), |found| Err(format!("{:?}", found.status)))
    })
    .await;
}

/// The keys of the ConfigMap and of the Secret beside a server; none where it is not there.
async fn keys(world: &World, object: &str) -> [Option<Vec<String>>; 2] {
    let config_maps = Api::<ConfigMap>::namespaced(world.client.clone(), &world.namespace);
    let secrets = Api::<Secret>::namespaced(world.client.clone(), &world.namespace);
    let config = config_maps.get_opt(object).await.unwrap();
    let secret = secrets.get_opt(object).await.unwrap();
    [
        config.map(|it| it.data.unwrap_or_default().into_keys().collect()),
        secret.map(|it| it.data.unwrap_or_default().into_keys().collect()),
    ]
}

/// The kubeconfig of a cluster that nobody can reach.
fn unreachable() -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "k", "cluster": {
            "server": format!("https://127.0.0.1:{}", free_port()),
        } }],
        "users": [{ "name": "u", "user": { "token": "abc" } }],
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
    })
    .to_string()
}

/// The token in a kubeconfig.
fn token(kubeconfig: &str) -> String {
    let kubeconfig: Value = serde_json::from_str(kubeconfig).unwrap();
    let token = &kubeconfig["users"][0]["user"]["token"];
    token.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_stock_server_attests_agents_of_a_child_that_was_added_while_it_ran() {
    let world = world().await;
    let parent = Parent::start(&world).await;
    let endpoint = parent.server.endpoint().await;
    let process = parent.server.process().id().to_owned();
    let child = ChildCluster::start().await;
    let pod = child.pod("agent", AGENT_ACCOUNT).await;
    let folder = tempfile::tempdir().unwrap();
    let attest = || {
        Attestor::k8s_psat(
            &child.client,
            &child.name,
            &pod,
            "spire-server",
            folder.path(),
        )
    };
    let refused = SpireAgent::launch(&endpoint, &attest().await).await;
    let unknown = format!("not configured for cluster \\\"{}\\\"", child.name);
    refused.says(&unknown).await;

    let kubeconfig = child.kubeconfig_with_least_rights().await;
    child.give_kubeconfig(&world, &kubeconfig).await;
    child
        .apply(&world, json!({ "parents": parents(&world) }))
        .await;
    wired(&world, &child.name, "True", "Wired").await;
    parent.has_reloaded(1).await;
    let mut agent = SpireAgent::start(&endpoint, &attest().await).await;
    let node = child.node.uid().unwrap();
    let id = format!("/spire/agent/k8s_psat/{}/{node}", child.name);
    assert_eq!(parent.agents().await, [id]);

    // What is broken or down never enters.
    let broken = [unique("broken"), unique("down")];
    nest(&world, &broken[0], "no: kubeconfig", parents(&world)).await;
    nest(&world, &broken[1], &unreachable(), parents(&world)).await;
    for name in &broken {
        wired(&world, name, "False", "NotReached").await;
    }
    assert_eq!(parent.clusters(), [child.name.as_str()]);

    // What goes down stays as it is.
    child.gate.set(Passage::Closed);
    child
        .condition(&world, "Reachable", "False", "Unreachable")
        .await;
    wired(&world, &child.name, "True", "Wired").await;
    assert_eq!(parent.clusters(), [child.name.as_str()]);
    child.gate.set(Passage::Open);
    child
        .condition(&world, "Reachable", "True", "Answers")
        .await;

    // A new token is there without a reload.
    let renewed = child.kubeconfig_with_least_rights().await;
    assert_ne!(token(&renewed), token(&kubeconfig));
    child.give_kubeconfig(&world, &renewed).await;
    let file = parent.target(&format!("{}.token", child.name));
    wait_until("the new token", SOON, || async {
        let found = fs::read_to_string(&file).unwrap();
        (found == token(&renewed)).then_some(()).ok_or(found)
    })
    .await;
    let _ = attest().await;
    agent.relaunch_without_data().await;
    agent.healthy().await;
    assert_eq!(parent.reloads(), 1);

    remove(&world, &child.name).await;
    parent.has_reloaded(2).await;
    assert!(parent.clusters().is_empty());
    wait_until("the credential to be gone", SOON, || async {
        (!file.exists())
            .then_some(())
            .ok_or("it is there".to_owned())
    })
    .await;
    assert_eq!(keys(&world, OBJECT).await, [None, None]);
    let refused = SpireAgent::launch(&endpoint, &attest().await).await;
    refused.says(&unknown).await;
    assert_eq!(parent.server.process().id(), process);
    assert!(parent.server.process().status().is_none());
    for name in &broken {
        remove(&world, name).await;
    }
}

#[tokio::test]
async fn children_of_one_server_do_not_touch_what_is_anothers() {
    let world = world().await;
    let kubeconfig = fs::read_to_string(control_plane().await.kubeconfig()).unwrap();
    let [first, second] = [unique("first"), unique("second")];
    for name in [&first, &second] {
        nest(&world, name, &kubeconfig, parents(&world)).await;
        wired(&world, name, "True", "Wired").await;
    }
    let entry = |name: &str| format!("{name}.json");
    // The administrator of the tests has a client certificate: no token.
    let file = |name: &str| format!("{name}.kubeconfig");
    let both = [
        Some(vec![entry(&first), entry(&second)]),
        Some(vec![file(&first), file(&second)]),
    ];
    assert_eq!(keys(&world, OBJECT).await, both);

    // An object that somebody made is left alone.
    let theirs = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "theirs-nested-clusters", "namespace": world.namespace },
        "data": { "a": "b" },
    });
    apply(&world.client, &theirs).await.unwrap();
    let objects = Api::<NestedCluster>::all(world.client.clone());
    let with_theirs = json!([
        { "namespace": world.namespace, "name": NAME },
        { "namespace": world.namespace, "name": "theirs" },
    ]);
    let change = |parents: &Value| json!({ "spec": { "parents": parents } });
    merge_patch(&objects, &first, change(&with_theirs)).await;
    let message = wired(&world, &first, "False", "NotOurs").await;
    assert!(message.contains("theirs-nested-clusters"), "{message}");
    let found = keys(&world, "theirs-nested-clusters").await;
    assert_eq!(found[0], Some(vec!["a".to_owned()]));
    assert_eq!(keys(&world, OBJECT).await, both);

    // A server that is named no more forgets the cluster, and keeps the other one.
    merge_patch(&objects, &first, change(&json!([]))).await;
    wait_until("the server to be forgotten", SOON, || async {
        let status = objects.get(&first).await.unwrap().status.unwrap();
        let has = status.conditions.iter().any(|it| it.type_ == "Wired");
        let is_over = !has && status.parents.is_empty();
        is_over.then_some(()).ok_or_else(|| format!("{status:?}"))
    })
    .await;
    let one = [Some(vec![entry(&second)]), Some(vec![file(&second)])];
    assert_eq!(keys(&world, OBJECT).await, one);
    remove(&world, &first).await;
    assert_eq!(keys(&world, OBJECT).await, one);

    // With the last one the objects go.
    remove(&world, &second).await;
    assert_eq!(keys(&world, OBJECT).await, [None, None]);
    let namespaced = Api::<ConfigMap>::namespaced(world.client.clone(), &world.namespace);
    let left = namespaced.list(&ListParams::default()).await.unwrap();
    let names: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["theirs-nested-clusters"]);
}
