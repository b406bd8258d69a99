//! What keeps a bundle from being published, or from being taken away too early: lists that fail,
//! namespaces that refuse, objects that others made at the same time.

use std::collections::BTreeMap;

use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use spiffe_operator::api::TrustDomain;

use crate::support::{
    ControlPlane, Fault, FaultyApiServer, Operator, Options, SOON, World, apply, ca, control_plane,
    merge_patch, namespace, release_lease, shared_operator, unique, verdict, wait_until,
};

const COPY: &str = "spiffe-bundle";

/// A world whose operator reaches its own API server through a proxy. Its TrustDomain, not applied
/// yet, is to have copies in the namespaces with the label `bundle: yes`.
async fn world() -> (ControlPlane, World, FaultyApiServer, Operator) {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    own.ensure_namespace("spiffe-system").await;
    let proxy = FaultyApiServer::before(&own).await;
    let operator = Operator::start_as(proxy.kubeconfig(), "spiffe-system", &[]).await;
    (own, world, proxy, operator)
}

fn with_copies() -> Value {
    let selector = json!({ "matchLabels": { "bundle": "yes" } });
    json!({ "bundleConfigMaps": { "namespaceSelector": selector } })
}

fn copies(world: &World, namespace: &str) -> Api<ConfigMap> {
    Api::namespaced(world.client.clone(), namespace)
}

async fn copy(world: &World, namespace: &str) -> ConfigMap {
    let copies = copies(world, namespace);
    wait_until("a copy of the bundle", SOON, || async {
        let found = copies.get_opt(COPY).await.map_err(|it| it.to_string())?;
        found.ok_or_else(|| "none".to_owned())
    })
    .await
}

#[tokio::test]
async fn copies_outlive_a_list_of_namespaces_that_fails() {
    let (own, world, proxy, operator) = world().await;
    let selected = namespace(&world.client, &[("bundle", "yes")]).await;
    world.apply_trust_domain(with_copies()).await;
    let before = copy(&world, &selected).await;
    world.trust_domain_condition("Ready", "True").await;
    operator.signal("KILL");
    operator.ended(SOON).await;
    release_lease(&world.client).await;

    proxy.fail_only("GET /api/v1/namespaces?", Fault::Status(503));
    let operator = Operator::start_as(proxy.kubeconfig(), "spiffe-system", &[]).await;
    operator.leads().await;
    let condition = world
        .trust_domain_reason("BundlePublished", "NamespacesNotSeen")
        .await;
    assert_eq!(condition.status, "Unknown");
    operator.reconciles("TrustDomain", 2).await;
    assert_eq!(copy(&world, &selected).await.uid(), before.uid());

    proxy.fail(Fault::None);
    world
        .trust_domain_reason("BundlePublished", "Published")
        .await;
    let after = copy(&world, &selected).await;
    assert_eq!((after.uid(), after.data), (before.uid(), before.data));
    drop(own);
}

#[tokio::test]
async fn a_namespace_that_refuses_holds_up_no_other() {
    let (_own, world, proxy, operator) = world().await;
    operator.leads().await;
    let mut selected = Vec::new();
    for _ in 0..3 {
        selected.push(namespace(&world.client, &[("bundle", "yes")]).await);
    }
    selected.sort();
    let requests = format!("/namespaces/{}/configmaps/", selected[0]);
    for (code, words, is_retried) in [(500, "failed", true), (403, "refused", false)] {
        proxy.fail_only(&requests, Fault::Status(code));
        for namespace in &selected {
            let _ = copies(&world, namespace)
                .delete(COPY, &DeleteParams::default())
                .await;
        }
        world.apply_trust_domain(with_copies()).await;
        for namespace in &selected[1..] {
            copy(&world, namespace).await;
        }
        let condition = world
            .trust_domain_condition_about("BundlePublished", words)
            .await;
        assert_eq!(condition.status, "False");
        assert_eq!(condition.reason, "ConfigMapsNotWritten");
        let message = &condition.message;
        assert!(
            message.contains(&selected[0]) && message.contains("injected"),
            "{message}"
        );
        assert!(
            !message.contains(&selected[1]) && !message.contains("rule"),
            "{message}"
        );
        assert_eq!(message.contains("tried again"), is_retried, "{message}");
        world
            .trust_domain_reason("Ready", "ConfigMapsNotWritten")
            .await;
        world.trust_domain_condition("AuthorityReady", "True").await;
        proxy.fail(Fault::None);
        world.trust_domain_condition("Ready", "True").await;
    }
}

#[tokio::test]
async fn a_config_map_that_somebody_makes_at_the_same_time_stays_theirs() {
    let (_own, world, proxy, operator) = world().await;
    operator.leads().await;
    let selected = namespace(&world.client, &[("bundle", "yes")]).await;
    let theirs = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": COPY, "namespace": selected },
        "data": { "theirs": "x" },
    });
    apply(&world.client, &theirs).await.unwrap();
    // To the operator it looks as if there were none yet.
    let read = format!("GET /api/v1/namespaces/{selected}/configmaps/");
    proxy.fail_only(&read, Fault::Status(404));
    world.apply_trust_domain(with_copies()).await;
    let condition = world
        .trust_domain_reason("BundlePublished", "ConfigMapsNotWritten")
        .await;
    assert!(
        condition.message.contains("somebody else"),
        "{}",
        condition.message
    );
    proxy.fail(Fault::None);
    let left = wait_until("nothing of ours to be in it", SOON, || async {
        let found = copies(&world, &selected).get(COPY).await.unwrap();
        let is_clean = found.owner_references().is_empty() && found.labels().is_empty();
        if is_clean {
            Ok(found)
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    let data = BTreeMap::from([("theirs".to_owned(), "x".to_owned())]);
    assert_eq!(left.data, Some(data));
    assert!(left.annotations().is_empty(), "{:?}", left.annotations());
}

#[tokio::test]
async fn nothing_is_signed_under_a_signer_name_whose_bundle_is_somebody_elses() {
    let world = World::new().await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    let old = world.bundle_name();
    let path = unique("signer");
    let signer = format!("spiffe-operator.io/{path}");
    let bundle = format!("spiffe-operator.io:{path}:bundle");
    let theirs = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle",
        "metadata": { "name": bundle },
        "spec": { "signerName": signer, "trustBundle": ca("theirs").pem() },
    });
    apply(&world.client, &theirs).await.unwrap();
    world
        .apply_trust_domain(json!({ "podCertificates": { "signerName": signer } }))
        .await;
    world
        .trust_domain_reason("PodCertificates", "BundleNotSeen")
        .await;
    world
        .trust_domain_reason("BundlePublished", "NotOurs")
        .await;
    let pod = world.pod_of_signer("web", &signer).await;
    let (_, request) = world
        .kubelet
        .request(&signer, &pod, &world.service_account, &[])
        .await;
    let uid = pod.uid().unwrap();
    world
        .event(&world.namespace, &uid, "AuthorityNotReady")
        .await;
    let bundles = Api::<ClusterTrustBundle>::all(world.client.clone());
    // What pods trust now stays for as long as nothing takes its place.
    bundles.get(&old).await.unwrap();

    bundles
        .delete(&bundle, &DeleteParams::default())
        .await
        .unwrap();
    let answer = world.kubelet.answer(&request).await;
    assert_eq!(
        verdict(&answer).type_,
        "Issued",
        "{}",
        verdict(&answer).message
    );
    world.trust_domain_condition("Ready", "True").await;
    wait_until("the old bundle to go", SOON, || async {
        let found = bundles.get_opt(&old).await;
        let found = found.map_err(|error| error.to_string())?;
        found.map_or(Ok(()), |_| Err("it is there".to_owned()))
    })
    .await;
}

#[tokio::test]
async fn of_two_trust_domains_with_one_config_map_the_second_is_told() {
    let (first, second) = (
        World::new().await,
        World::without_trust_domain(control_plane().await).await,
    );
    shared_operator().await;
    let namespace = &first.namespace;
    let selector = json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } });
    let copies_there = json!({ "bundleConfigMaps": { "namespaceSelector": selector } });
    first.apply_trust_domain(copies_there.clone()).await;
    let before = copy(&first, namespace).await;
    first.trust_domain_condition("Ready", "True").await;
    second.apply_trust_domain(copies_there).await;
    let condition = second
        .trust_domain_reason("BundlePublished", "ConfigMapsNotWritten")
        .await;
    assert!(
        condition.message.contains(namespace.as_str()),
        "{}",
        condition.message
    );
    assert_eq!(
        copy(&first, namespace).await.resource_version(),
        before.resource_version()
    );
    first.trust_domain_condition("Ready", "True").await;
}

#[tokio::test]
async fn what_goes_with_a_trust_domain_that_is_deleted_does_not_come_back() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let operator = World::operator(&own).await;
    world.apply_trust_domain(json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    let objects = Api::<TrustDomain>::all(world.client.clone());
    // In the foreground: it stays until what belongs to it is gone.
    objects
        .delete(&world.class, &DeleteParams::foreground())
        .await
        .unwrap();
    let bundles = Api::<ClusterTrustBundle>::all(world.client.clone());
    bundles
        .delete(&world.bundle_name(), &DeleteParams::default())
        .await
        .unwrap();
    operator.reconciles("TrustDomain", 3).await;
    assert!(
        bundles
            .get_opt(&world.bundle_name())
            .await
            .unwrap()
            .is_none()
    );
    let done = json!({ "metadata": { "finalizers": null } });
    merge_patch(&objects, &world.class, done).await;
}

#[tokio::test]
async fn copies_of_good_specs_that_cannot_be_written_hold_up_nothing() {
    let (_own, world, proxy, operator) = world().await;
    // What it reads of such objects it has read.
    operator.ready().await;
    proxy.fail_only("/namespaces/spiffe-system/configmaps", Fault::Status(403));
    world.apply_trust_domain(json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.issue().await;

    proxy.fail(Fault::None);
    let kept = Api::<ConfigMap>::namespaced(world.client.clone(), "spiffe-system");
    wait_until("the spec to be kept", SOON, || async {
        let name = format!("{}.trustdomain.last-good", world.class);
        let found = kept
            .get_opt(&name)
            .await
            .map_err(|error| error.to_string())?;
        found.ok_or_else(|| "none".to_owned())
    })
    .await;
}
