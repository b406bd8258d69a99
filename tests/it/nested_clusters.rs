//! Nested clusters: pods and agents of another API server, by one object and a kubeconfig.

use k8s_openapi::{
    api::{
        certificates::v1::ClusterTrustBundle,
        core::v1::{ConfigMap, Pod, ServiceAccount},
    },
    jiff::Timestamp,
};
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::{Value, json};
use spiffe_operator::{
    api::NestedCluster,
    spiffe::{Bundle, pem, verify_x509_svid},
};

use crate::support::{
    AGENT_ACCOUNT, Attestor, ChildCluster, Passage, SOON, Served, SpireAgent, World, apply,
    certificate_pod, merge_patch, pod, verdict, wait_until,
};

/// Lets the pods with the label `app: web` in the namespaces of `children` have an ID with the
/// cluster's name. Gives the name of the ClusterSPIFFEID.
async fn register(world: &World, children: &[&ChildCluster]) -> String {
    let name = format!("{}-web", world.class);
    let namespaces: Vec<_> = children.iter().map(|child| &child.namespace).collect();
    let object = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterSPIFFEID",
        "metadata": { "name": name },
        "spec": {
            "className": world.class,
            "spiffeIDTemplate":
                "spiffe://{{ .TrustDomain }}/{{ .ClusterName }}/{{ .PodMeta.Name }}",
            "namespaceSelector": { "matchExpressions": [{
                "key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces,
            }] },
            "podSelector": { "matchLabels": { "app": "web" } },
        },
    });
    apply(&world.client, &object).await.unwrap();
    name
}

/// Waits until the server has an entry for `id`, and gives it.
async fn entry(server: &Served, id: &str) -> Value {
    wait_until(&format!("an entry for {id}"), SOON, || async {
        let shown = server.cli.json(&format!("entry show -spiffeID {id}")).await;
        let found = shown["entries"].as_array().and_then(|all| all.first());
        found.cloned().ok_or_else(|| shown.to_string())
    })
    .await
}

#[tokio::test]
async fn a_nested_cluster_is_served_as_soon_as_one_object_names_it() {
    let server = Served::by_operator("1h").await;
    let world = &server.world;
    let child = ChildCluster::start().await;
    register(world, &[&child]).await;
    child.pod("web", "workload").await;
    child.nest(world, json!({})).await;
    child.is_ready(world).await;

    let id = server.id(&format!("{}/web", child.name));
    let found = entry(&server, &id).await;
    let agent_path = format!(
        "/spire/agent/k8s_psat/{}/{}",
        child.name,
        child.node.uid().unwrap()
    );
    assert_eq!(found["parent_id"]["path"], agent_path);

    let pod = child.pod("agent", AGENT_ACCOUNT).await;
    let folder = server.folder.path();
    let client = &child.client;
    let attestor = Attestor::k8s_psat(client, &child.name, &pod, "spire-server", folder).await;
    let agent = SpireAgent::start(&server.endpoint, &attestor).await;
    assert_eq!(server.agents("").await, [server.id(&agent_path[1..])]);
    agent.says(&id).await;

    // What changes there changes here.
    let pods = Api::<Pod>::namespaced(client.clone(), &child.namespace);
    let now = DeleteParams::default().grace_period(0);
    pods.delete("web", &now).await.unwrap();
    wait_until("the entry to be gone", SOON, || async {
        let shown = server.cli.json("entry show").await;
        let left = shown["entries"]
            .as_array()
            .is_some_and(|all| !all.is_empty());
        (!left).then_some(()).ok_or_else(|| shown.to_string())
    })
    .await;
}

#[tokio::test]
async fn pods_of_a_nested_cluster_get_certificates_and_what_it_has_goes_with_the_object() {
    let server = Served::by_operator("1h").await;
    let world = &server.world;
    let child = ChildCluster::start().await;
    register(world, &[&child]).await;
    let kubeconfig = child.kubeconfig_with_least_rights().await;
    child.give_kubeconfig(world, &kubeconfig).await;
    let bundle = json!({ "bundle": { "configMap": {} } });
    child.apply(world, bundle).await;
    child.is_ready(world).await;

    // What pods choose the bundle by comes back, too.
    let bundles = Api::<ClusterTrustBundle>::all(child.client.clone());
    let label = "k8s.spiffe.io/workload-trust-domain";
    let without = json!({ "metadata": { "labels": { label: null } } });
    merge_patch(&bundles, &world.bundle_name(), without).await;
    wait_until("the label of the bundle", SOON, || async {
        let bundle = bundles.get(&world.bundle_name()).await.unwrap();
        let found = bundle.labels().get(label);
        (found == Some(&server.trust_domain))
            .then_some(())
            .ok_or_else(|| format!("{found:?}"))
    })
    .await;

    // What stock agents of the cluster begin with.
    let copies = Api::<ConfigMap>::namespaced(child.client.clone(), "spire-system");
    let bundle_there = || async {
        let copy = copies.get("spire-bundle-upstream").await;
        let copy = copy.map_err(|error| error.to_string())?;
        let document = copy.data.unwrap_or_default().remove("bundle.spiffe");
        let document = document.ok_or("no key")?;
        let trust_domain = server.trust_domain.parse().unwrap();
        let bundle = Bundle::from_document(trust_domain, document.as_bytes());
        bundle.map_err(|error| error.to_string())
    };
    let bundle = wait_until("the bundle in the child", SOON, bundle_there).await;
    assert!(bundle.roots().eq(server.endpoint.bundle.roots()));
    let now = DeleteParams::default();
    copies.delete("spire-bundle-upstream", &now).await.unwrap();
    wait_until("the bundle to be there again", SOON, bundle_there).await;

    let spec = certificate_pod(&world.signer(), "workload");
    let node = child.node.name_any();
    let labels = [("app", "web")];
    let made = pod(&child.client, &child.namespace, "web", &node, &labels, spec).await;
    let accounts = Api::<ServiceAccount>::namespaced(child.client.clone(), &child.namespace);
    let account = accounts.get("workload").await.unwrap();
    let kubelet = child.kubelet().await;
    let (_, request) = kubelet.request(&world.signer(), &made, &account, &[]).await;
    let answered = kubelet.answer(&request).await;
    let verdict = verdict(&answered);
    assert_eq!(verdict.type_, "Issued", "{}", verdict.message);
    let chain = answered.status.unwrap().certificate_chain.unwrap();
    let chain = pem::certificates(chain.as_bytes()).unwrap();
    let svid = verify_x509_svid(&chain, &server.endpoint.bundle, Timestamp::now()).unwrap();
    assert_eq!(svid.as_str(), server.id(&format!("{}/web", child.name)));

    let objects = Api::<NestedCluster>::all(world.client.clone());
    objects.delete(&child.name, &now).await.unwrap();
    wait_until("the object to be gone", SOON, || async {
        let found = objects.get_opt(&child.name).await.unwrap();
        found.map_or(Ok(()), |found| Err(format!("{found:?}")))
    })
    .await;
    assert!(
        bundles
            .get_opt(&world.bundle_name())
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        copies
            .get_opt("spire-bundle-upstream")
            .await
            .unwrap()
            .is_none()
    );
    let shown = server.cli.json("entry show").await;
    assert!(
        shown["entries"].as_array().is_none_or(Vec::is_empty),
        "{shown}"
    );
}

#[tokio::test]
async fn of_a_cluster_with_servers_nothing_but_those_is_served() {
    let server = Served::by_operator("1h").await;
    let world = &server.world;
    let child = ChildCluster::start().await;
    register(world, &[&child]).await;
    child.pod("web", "workload").await;
    let pod = child.pod("server", "workload").await;
    let accounts = [format!("{}:workload", child.namespace)];
    let downstream = json!({
        "mode": "Downstream",
        "downstream": { "serviceAccountAllowList": accounts, "ttl": "2h" },
    });
    child.nest(world, downstream).await;
    child.is_ready(world).await;
    // What its servers begin with.
    let copies = Api::<ConfigMap>::namespaced(child.client.clone(), &child.namespace);
    let copy = copies.get("spire-bundle-upstream").await.unwrap();
    assert!(copy.data.unwrap().contains_key("bundle.spiffe"));
    let bundles = Api::<ClusterTrustBundle>::all(child.client.clone());
    let found = bundles.get_opt(&world.bundle_name()).await.unwrap();
    assert!(found.is_none(), "it is for the servers to publish");

    // A server attests as an agent of its own, beside that of its node.
    let folder = server.folder.path();
    let client = &child.client;
    let by_token = Attestor::k8s_psat(client, &child.name, &pod, "spire-server", folder).await;
    let agent = SpireAgent::start(&server.endpoint, &by_token).await;
    let node_agent = child.pod("agent", AGENT_ACCOUNT).await;
    let by_token =
        Attestor::k8s_psat(client, &child.name, &node_agent, "spire-server", folder).await;
    let _node_agent = SpireAgent::start(&server.endpoint, &by_token).await;
    let ids = [
        "pod/".to_owned() + &pod.uid().unwrap(),
        child.node.uid().unwrap(),
    ];
    let agent_id = |id: &String| server.id(&format!("spire/agent/k8s_psat/{}/{id}", child.name));
    let mut attested = server.agents("").await;
    attested.sort_unstable();
    let mut expected: Vec<_> = ids.iter().map(agent_id).collect();
    expected.sort_unstable();
    assert_eq!(attested, expected);
    let id = server.id(&format!("nested/{}", child.name));
    agent.says(&id).await;

    let shown = server.cli.json("entry show").await;
    let entries = shown["entries"].as_array().unwrap();
    let of = |pod: &str| {
        let named = |entry: &&Value| entry.to_string().contains(pod);
        entries
            .iter()
            .find(named)
            .unwrap_or_else(|| panic!("{shown}"))
    };
    assert_eq!(entries.len(), 2, "both pods have the account: {shown}");
    let entry = of(&pod.uid().unwrap());
    assert_eq!(
        entry["spiffe_id"]["path"],
        format!("/nested/{}", child.name)
    );
    assert_eq!(entry["downstream"], true);
    assert_eq!(entry["x509_svid_ttl"], 7200);
    assert_eq!(
        entry["parent_id"]["path"],
        format!(
            "/spire/agent/k8s_psat/{}/pod/{}",
            child.name,
            pod.uid().unwrap()
        )
    );
}

#[tokio::test]
async fn a_cluster_that_is_down_keeps_what_it_has_and_holds_up_no_other() {
    let server = Served::by_operator("1h").await;
    let world = &server.world;
    let (first, second) = tokio::join!(ChildCluster::start(), ChildCluster::start());
    register(world, &[&first, &second]).await;
    first.pod("web", "workload").await;
    first.gate.set(Passage::Hanging);
    first.nest(world, json!({})).await;
    second.nest(world, json!({})).await;
    second.is_ready(world).await;
    second.pod("web", "workload").await;
    entry(&server, &server.id(&format!("{}/web", second.name))).await;
    first
        .condition(world, "Reachable", "False", "Unreachable")
        .await;
    first.gate.set(Passage::Open);
    first.is_ready(world).await;
    let id = server.id(&format!("{}/web", first.name));
    entry(&server, &id).await;

    for passage in [Passage::Closed, Passage::Hanging] {
        first.gate.set(passage);
        first
            .condition(world, "Reachable", "False", "Unreachable")
            .await;
        first
            .condition(world, "Registered", "True", "Registered")
            .await;
        entry(&server, &id).await;
        second.is_ready(world).await;
        first.gate.set(Passage::Open);
        first.is_ready(world).await;
    }

    // A kubeconfig that is none: the one before stays in use.
    first.give_kubeconfig(world, "no: kubeconfig").await;
    first
        .condition(world, "CredentialsValid", "False", "InvalidKubeConfig")
        .await;
    first.condition(world, "Reachable", "True", "Answers").await;
    // Another cluster behind the same address takes nothing away.
    let kubeconfig = second.kubeconfig();
    first.give_kubeconfig(world, &kubeconfig).await;
    first
        .condition(world, "Reachable", "False", "OtherCluster")
        .await;
    entry(&server, &id).await;
    first.give_kubeconfig(world, &first.kubeconfig()).await;
    first.is_ready(world).await;
}
