//! A stock spire-controller-manager that keeps its entries through an administrators' socket.

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::support::{
    Attestor, SOON, Served, SpireAgent, SpireControllerManager, apply, ca, control_plane, merge,
    pod, scripts,
};

/// What the manager has registered, as `entry show` has it, when it is as wanted. What it makes for
/// a moment, to see which fields the server knows, does not count.
async fn entries(
    server: &Served,
    manager: &SpireControllerManager,
    what: &str,
    are_wanted: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    manager
        .process()
        .wait_until(what, SOON, || async {
            let shown = server.cli.json("entry show").await;
            let entries = shown["entries"].as_array().unwrap().iter();
            let own = |entry: &&Value| entry["id"].as_str().unwrap().starts_with("scm.");
            let entries: Vec<_> = entries.filter(own).cloned().collect();
            let wanted = are_wanted(&entries);
            wanted.then_some(entries).ok_or(shown.to_string())
        })
        .await
}

/// Whose entries have a prefix.
async fn manager(server: &Served, class: &str) -> SpireControllerManager {
    manager_with(server, class, json!({ "entryIDPrefix": "scm" })).await
}

async fn manager_with(server: &Served, class: &str, changes: Value) -> SpireControllerManager {
    let kubeconfig = control_plane().await.kubeconfig();
    let mut settings = json!({ "className": class, "gcInterval": 1_000_000_000 });
    merge(&mut settings, changes);
    let (socket, trust_domain) = (server.cli.socket(), &server.trust_domain);
    SpireControllerManager::start(kubeconfig, socket, trust_domain, settings).await
}

async fn the_entries_of_pods_are_kept(server: &Served) {
    let world = &server.world;
    let class = format!("{}-stock", world.class);
    let manager = manager(server, &class).await;
    let others = server
        .cli
        .entry(&server.id("parent"), &server.id("others"), "")
        .await;

    let web = world
        .apply_cluster_spiffe_id("web", json!({ "className": class, "ttl": "600s" }))
        .await;
    let client = &world.client;
    let node = world.node.name_any();
    let spec = json!({ "serviceAccountName": "workload" });
    let of_pod = pod(
        client,
        &world.namespace,
        "web",
        &node,
        &[("app", "web")],
        spec,
    )
    .await;
    let found = entries(server, &manager, "the pod's entry", |entries| {
        entries.len() == 1
    })
    .await;
    let found = &found[0];
    let path = format!("/ns/{}/sa/workload", world.namespace);
    assert_eq!(found["spiffe_id"]["path"], json!(path));
    let parent = format!("/spire/agent/k8s_psat/stock/{}", world.node.uid().unwrap());
    assert_eq!(found["parent_id"]["path"], json!(parent));
    let selector = format!("pod-uid:{}", of_pod.uid().unwrap());
    assert_eq!(
        found["selectors"],
        json!([{ "type": "k8s", "value": selector }])
    );
    assert_eq!(found["x509_svid_ttl"], json!(600));

    // A change is an update of the same entry.
    world
        .apply_cluster_spiffe_id("web", json!({ "className": class, "ttl": "900s" }))
        .await;
    let id = found["id"].clone();
    let is_updated = |entry: &Value| entry["id"] == id && entry["x509_svid_ttl"] == json!(900);
    entries(server, &manager, "the update", |entries| {
        entries.iter().any(is_updated)
    })
    .await;
    world.delete_cluster_spiffe_id(&web).await;
    entries(
        server,
        &manager,
        "the pod's entry to go",
        <[Value]>::is_empty,
    )
    .await;
    leaves_alone(server, &manager, &others).await;
}

/// It has had no trouble, and what is somebody else's is still there.
async fn leaves_alone(server: &Served, manager: &SpireControllerManager, others: &str) {
    server
        .cli
        .says(&format!("entry show -entryID {others}"), &["Found 1 entry"])
        .await;
    let log = manager.process().log();
    assert!(!log.contains("\tERROR\t"), "{log}");
}

async fn static_entries_are_kept(server: &Served) {
    let world = &server.world;
    let class = format!("{}-stock", world.class);
    let manager = manager(server, &class).await;
    let others = server
        .cli
        .entry(&server.id("parent"), &server.id("others"), "")
        .await;
    let client = &world.client;
    let object = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "spire.spiffe.io/v1alpha1",
            "kind": kind,
            "metadata": { "name": format!("{}-fixed", world.class) },
            "spec": spec,
        })
    };
    let foreign = json!({
        "className": class,
        "trustDomain": "foreign.test",
        "bundleEndpointURL": "https://127.0.0.1:1/bundle",
        "bundleEndpointProfile": { "type": "https_web" },
        "trustDomainBundle": bundle_document(server).await,
    });
    apply(client, &object("ClusterFederatedTrustDomain", foreign))
        .await
        .unwrap();
    manager
        .process()
        .wait_until("the federation relationship", SOON, || {
            server.cli.run("federation show -trustDomain foreign.test")
        })
        .await;
    let fixed = json!({
        "className": class,
        "spiffeID": server.id("fixed"),
        "parentID": server.id("parent"),
        "selectors": ["unix:uid:7", "unix:gid:8"],
        "federatesWith": ["foreign.test"],
        "dnsNames": ["fixed.example"],
        "hint": "fixed",
        "downstream": true,
    });
    apply(client, &object("ClusterStaticEntry", fixed))
        .await
        .unwrap();
    let found = entries(server, &manager, "the static entry", |entries| {
        entries.len() == 1
    })
    .await;
    let fixed = found
        .iter()
        .find(|entry| entry["hint"] == json!("fixed"))
        .unwrap();
    assert_eq!(fixed["federates_with"], json!(["foreign.test"]));
    assert_eq!(fixed["dns_names"], json!(["fixed.example"]));
    assert_eq!(fixed["downstream"], json!(true));

    // What somebody takes away is made again.
    let id = fixed["id"].as_str().unwrap();
    server
        .cli
        .run(&format!("entry delete -entryID {id}"))
        .await
        .unwrap();
    let is_new = |entries: &[Value]| entries.len() == 1 && entries[0]["id"] != json!(id);
    entries(server, &manager, "the entry once more", is_new).await;
    leaves_alone(server, &manager, &others).await;
}

/// Applies a ClusterStaticEntry of a class.
async fn declare(server: &Served, class: &str, path: &str) {
    let fixed = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterStaticEntry",
        "metadata": { "name": format!("{class}-{path}") },
        "spec": {
            "className": class,
            "spiffeID": server.id(path),
            "parentID": server.id("parent"),
            "selectors": ["unix:uid:7"],
            "x509SVIDTTL": "600s",
        },
    });
    apply(&server.world.client, &fixed).await.unwrap();
}

/// Waits until the server's entries are those with these paths. What the manager makes for a
/// moment, to see which fields the server knows, does not count.
async fn all_entries_are(server: &Served, manager: &SpireControllerManager, paths: &[&str]) {
    const PROBE: &str = "/spire-controller-manager/unsupported-fields-test";
    let mut wanted: Vec<_> = paths.iter().map(|path| format!("/{path}")).collect();
    wanted.sort();
    manager
        .process()
        .wait_until(&format!("the entries {paths:?}"), SOON, || async {
            let shown = server.cli.json("entry show").await;
            let entries = shown["entries"].as_array().unwrap().iter();
            let path = |entry: &Value| entry["spiffe_id"]["path"].as_str().unwrap().to_owned();
            let mut found: Vec<_> = entries.map(path).filter(|path| path != PROBE).collect();
            found.sort();
            (found == wanted).then_some(()).ok_or(shown.to_string())
        })
        .await;
}

async fn without_a_prefix_all_entries_are_the_managers(server: &Served) {
    let class = format!("{}-stock", server.world.class);
    let cli = &server.cli;
    let generate = format!("token generate -spiffeID {}", server.id("host"));
    let said = cli.run(&generate).await.unwrap();
    let token = said.lines().next().unwrap().trim().strip_prefix("Token: ");
    let token = Attestor::JoinToken(token.unwrap().to_owned());
    let _agent = SpireAgent::start(&server.endpoint, &token).await;
    let (parent, occupied) = (server.id("parent"), server.id("occupied"));
    cli.entry(&parent, &server.id("others"), "").await;
    let create =
        format!("entry create -parentID {parent} -spiffeID {occupied} -selector unix:uid:7");
    cli.run(&create).await.unwrap();
    let by_hand = server.entry_ids(&format!("-spiffeID {occupied}")).await;
    declare(server, &class, "occupied").await;
    declare(server, &class, "new").await;

    let manager = manager_with(server, &class, json!({})).await;
    // What a join token made is no manager's.
    all_entries_are(server, &manager, &["host", "occupied", "new"]).await;
    manager
        .process()
        .wait_until("the entry by hand to be taken over", SOON, || async {
            let shown = cli.json(&format!("entry show -spiffeID {occupied}")).await;
            let entry = &shown["entries"][0];
            let is_taken = entry["id"] == json!(by_hand[0]) && entry["x509_svid_ttl"] == json!(600);
            is_taken.then_some(()).ok_or(shown.to_string())
        })
        .await;
    cli.entry(&parent, &server.id("later"), "").await;
    all_entries_are(server, &manager, &["host", "occupied", "new"]).await;
    let log = manager.process().log();
    assert!(log.contains("Deleted entry"), "{log}");
    assert!(!log.contains("\tERROR\t"), "{log}");
}

/// Whatever a manager holds for its own: what the operator derives from objects follows them alone.
#[tokio::test]
async fn entries_of_the_operators_own_objects_stay_without_a_prefix_too() {
    let server = &Served::by_operator("1h").await;
    let class = format!("{}-stock", server.world.class);
    declare(server, &server.world.class, "ours").await;
    declare(server, &class, "theirs").await;
    server
        .cli
        .entry(&server.id("parent"), &server.id("others"), "")
        .await;
    let manager = manager_with(server, &class, json!({})).await;
    all_entries_are(server, &manager, &["ours", "theirs"]).await;
    manager
        .process()
        .wait_until("the deletion to be refused", SOON, || async {
            let log = manager.process().log();
            let refusals = log.lines().filter(|line| {
                line.contains("Failed to delete entry")
                    && line.contains("must be changed instead")
                    && line.contains(&server.id("ours"))
            });
            (refusals.count() > 1).then_some(()).ok_or(log.clone())
        })
        .await;
    all_entries_are(server, &manager, &["ours", "theirs"]).await;
}

/// The bundle of another trust domain.
async fn bundle_document(server: &Served) -> String {
    let file = server.file("foreign.pem", &ca("foreign").pem());
    let id = "spiffe://document.test";
    server
        .cli
        .run(&format!("bundle set -id {id} -path {file}"))
        .await
        .unwrap();
    let document = server
        .cli
        .run(&format!("bundle list -id {id} -format spiffe"))
        .await
        .unwrap();
    server
        .cli
        .run(&format!("bundle delete -id {id}"))
        .await
        .unwrap();
    document
}

scripts! {
    the_entries_of_pods_are_kept: "1h",
    static_entries_are_kept: "1h",
    without_a_prefix_all_entries_are_the_managers: "1h",
}
