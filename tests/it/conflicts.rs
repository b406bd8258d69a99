//! TrustDomains that claim the same thing: the older one is served, the younger waits for it to go.

use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use spiffe_operator::api::TrustDomain;

use crate::support::{World, apply, condition_that, unique, unique_trust_domain, verdict};

/// Applies a TrustDomain that is younger than the one of `world`.
async fn apply_younger(world: &World, spec: Value) -> String {
    let name = unique("younger");
    let object = json!({
        "apiVersion": "spiffe-operator.io/v1alpha1",
        "kind": "TrustDomain",
        "metadata": { "name": name },
        "spec": spec,
    });
    apply(&world.client, &object).await.unwrap();
    name
}

/// Waits until `name` says that it waits for the TrustDomain of `world`, and checks that it has
/// neither keys nor a bundle.
async fn assert_waits(world: &World, name: &str, signer: &str, claim: &str) {
    let what = "Stalled for a conflict";
    let stalled = condition_that::<TrustDomain>(&world.client, name, what, |condition| {
        condition.type_ == "Stalled" && condition.reason == "Conflict"
    })
    .await;
    assert_eq!(stalled.status, "True");
    let message = &stalled.message;
    assert!(
        message.contains(&world.class) && message.contains(claim),
        "{message}"
    );
    let objects = Api::<TrustDomain>::all(world.client.clone());
    let status = objects.get(name).await.unwrap().status.unwrap();
    assert!(status.authorities.is_empty(), "{:?}", status.authorities);
    let ready = status
        .conditions
        .iter()
        .find(|it| it.type_ == "Ready")
        .unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "Conflict")
    );
    let secrets = Api::<Secret>::namespaced(world.client.clone(), "spiffe-system");
    let keys = secrets.get_opt(&format!("{name}.authority")).await.unwrap();
    assert!(keys.is_none());
    if signer != world.signer() {
        let bundles = Api::<ClusterTrustBundle>::all(world.client.clone());
        let bundle = format!("{}:bundle", signer.replace('/', ":"));
        assert!(bundles.get_opt(&bundle).await.unwrap().is_none());
    }
}

async fn delete(world: &World, name: &str) {
    let objects = Api::<TrustDomain>::all(world.client.clone());
    objects
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
}

async fn older() -> World {
    let world = World::new().await;
    world.trust_domain_condition("Ready", "True").await;
    world
}

#[tokio::test]
async fn the_younger_of_one_trust_domain_signs_nothing_until_the_older_one_goes() {
    let world = older().await;
    let signer = format!("spiffe-operator.io/{}", unique("signer"));
    let class = unique("class");
    let spec = json!({
        "trustDomain": world.trust_domain,
        "className": class,
        "authority": { "selfSigned": {} },
        "podCertificates": { "signerName": signer },
    });
    let younger = apply_younger(&world, spec).await;
    assert_waits(&world, &younger, &signer, "same trust domain").await;
    world.trust_domain_condition("Ready", "True").await;

    world
        .apply_cluster_spiffe_id("web", json!({ "className": class }))
        .await;
    let pod = world.pod_of_signer("web", &signer).await;
    let (_, request) = world
        .kubelet
        .request(&signer, &pod, &world.service_account, &[])
        .await;
    delete(&world, &world.class).await;
    condition_that::<TrustDomain>(&world.client, &younger, "Ready", |condition| {
        condition.type_ == "Ready" && condition.status == "True"
    })
    .await;
    let answer = world.kubelet.answer(&request).await;
    let issued = answer.status.unwrap().conditions.unwrap().remove(0);
    assert_eq!(issued.type_, "Issued", "{}", issued.message);
}

#[tokio::test]
async fn the_younger_of_one_signer_name_waits() {
    let world = older().await;
    let spec = json!({
        "trustDomain": unique_trust_domain(),
        "className": unique("class"),
        "authority": { "selfSigned": {} },
        "podCertificates": { "signerName": world.signer() },
    });
    let younger = apply_younger(&world, spec).await;
    assert_waits(&world, &younger, &world.signer(), "signer name").await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.issue().await;
}

#[tokio::test]
async fn the_younger_of_one_class_waits() {
    let world = older().await;
    let trust_domain = unique_trust_domain();
    let spec = json!({
        "trustDomain": trust_domain,
        "className": world.class,
        "authority": { "selfSigned": {} },
    });
    let signer = format!("spiffe-operator.io/{trust_domain}");
    let younger = apply_younger(&world, spec).await;
    assert_waits(&world, &younger, &signer, "class").await;
}

#[tokio::test]
async fn a_broken_spec_holds_its_trust_domain_against_younger_ones() {
    let world = older().await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world
        .apply_trust_domain(json!({ "ignoreNamespaces": ["("] }))
        .await;
    world.trust_domain_reason("Ready", "InvalidSpec").await;
    let signer = format!("spiffe-operator.io/{}", unique("signer"));
    let spec = json!({
        "trustDomain": world.trust_domain,
        "className": unique("class"),
        "authority": { "selfSigned": {} },
        "podCertificates": { "signerName": signer },
    });
    let younger = apply_younger(&world, spec).await;
    assert_waits(&world, &younger, &signer, "same trust domain").await;
    world.issue().await;
}

#[tokio::test]
async fn an_older_one_that_takes_a_signer_name_signs_only_once_the_bundle_is_its_own() {
    let world = older().await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    let trust_domain = unique_trust_domain();
    let signer = format!("spiffe-operator.io/{trust_domain}");
    let spec = json!({
        "trustDomain": trust_domain,
        "className": unique("class"),
        "authority": { "selfSigned": {} },
    });
    // While it is not in conflict it is served, and of the same second that would count.
    world.a_second_later().await;
    let younger = apply_younger(&world, spec).await;
    condition_that::<TrustDomain>(&world.client, &younger, "Ready", |condition| {
        condition.type_ == "Ready" && condition.status == "True"
    })
    .await;

    world
        .apply_trust_domain(json!({ "podCertificates": { "signerName": signer } }))
        .await;
    condition_that::<TrustDomain>(&world.client, &younger, "Stalled", |condition| {
        condition.type_ == "Stalled" && condition.reason == "Conflict"
    })
    .await;
    world
        .trust_domain_reason("BundlePublished", "NotOurs")
        .await;
    world
        .trust_domain_reason("PodCertificates", "BundleNotSeen")
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
    let bundle = format!("spiffe-operator.io:{trust_domain}:bundle");
    bundles
        .delete(&bundle, &DeleteParams::default())
        .await
        .unwrap();
    let answer = world.kubelet.answer(&request).await;
    let verdict = verdict(&answer);
    assert_eq!(verdict.type_, "Issued", "{}", verdict.message);
    assert!(
        verdict.message.contains(&world.trust_domain),
        "{}",
        verdict.message
    );
    world.trust_domain_condition("Ready", "True").await;
    delete(&world, &younger).await;
}
