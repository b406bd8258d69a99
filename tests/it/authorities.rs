//! The authority that a trust domain makes for itself: its status, its Secret, and what happens when
//! that is lost, damaged, or written by others.

use std::collections::BTreeMap;
use std::pin::pin;

use futures::TryStreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use spiffe_operator::api::TrustDomain;
use tokio::time::timeout;

use crate::support::{
    ControlPlane, Options, SOON, World, control_plane, merge_patch, release_lease, shared_operator,
    wait_until,
};

#[tokio::test]
async fn the_status_says_first_that_work_is_under_way_and_then_who_signs() {
    let world = World::without_trust_domain(control_plane().await).await;
    shared_operator().await;
    let objects = Api::<TrustDomain>::all(world.client.clone());
    let by_name = WatchParams::default().fields(&format!("metadata.name={}", world.class));
    let news = objects.watch(&by_name, "0").await.unwrap();
    world.apply_trust_domain(json!({})).await;

    let mut news = pin!(news);
    let mut seen = Vec::new();
    let until_ready = async {
        while let Some(event) = news.try_next().await.unwrap() {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event {
                seen.extend(object.status);
            }
            if seen.last().is_some_and(|status| is_true(status, "Ready")) {
                return;
            }
        }
    };
    timeout(SOON, until_ready).await.unwrap();
    let (first, last) = (seen.first().unwrap(), seen.last().unwrap());
    let ready = first.conditions.iter().find(|it| it.type_ == "Ready");
    let ready = ready.expect("the first status has Ready");
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("Unknown", "Reconciling")
    );
    assert!(is_true(first, "Reconciling"));
    assert_eq!(first.observed_generation, Some(1));

    for kind in [
        "Ready",
        "AuthorityReady",
        "BundlePublished",
        "PodCertificates",
    ] {
        assert!(is_true(last, kind), "{kind}: {:?}", last.conditions);
    }
    assert!(!is_true(last, "Reconciling") && !is_true(last, "Stalled"));
    assert_eq!(last.signer_name, Some(world.signer()));
    assert_eq!(last.cluster_trust_bundle, Some(world.bundle_name()));
    assert_eq!(last.operator_namespace.as_deref(), Some("spiffe-system"));
    // The first root, and the first JWT key.
    assert_eq!(last.bundle_sequence, Some(2));
    let [authority] = last.authorities.as_slice() else {
        panic!("one authority: {:?}", last.authorities)
    };
    assert_eq!(
        (authority.state.as_str(), authority.id.len()),
        ("active", 40)
    );
}

#[tokio::test]
async fn a_lost_secret_is_written_again_with_the_same_authority() {
    let world = ready_world().await;
    let before = authority_ids(&world).await;
    let secrets = secrets(&world.client);
    let name = secret_name(&world);
    let lost = secrets.get(&name).await.unwrap();
    secrets
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    let again = wait_until("the Secret to be back", SOON, || async {
        let found = secrets.get_opt(&name).await.map_err(|e| e.to_string())?;
        found.ok_or_else(|| "no Secret".to_owned())
    })
    .await;
    assert_ne!(again.uid(), lost.uid());
    assert_eq!(again.data, lost.data);
    assert_eq!(authority_ids(&world).await, before);
    world.issue().await;
}

#[tokio::test]
async fn a_damaged_secret_is_reported_while_signing_goes_on_until_it_is_restored() {
    let world = ready_world().await;
    let secrets = secrets(&world.client);
    let name = secret_name(&world);
    let good = secrets.get(&name).await.unwrap().data.unwrap();
    let damaged: BTreeMap<_, _> = good
        .keys()
        .map(|key| (key.clone(), ByteString(b"junk".to_vec())))
        .collect();
    write_data(&secrets, &name, &damaged).await;
    let condition = world
        .trust_domain_reason("AuthorityReady", "KeysDamaged")
        .await;
    assert_eq!(condition.status, "False");
    assert!(condition.message.contains(&name), "{}", condition.message);
    world.issue().await;
    let found = secrets.get(&name).await.unwrap().data.unwrap();
    assert_eq!(found, damaged, "a damaged Secret is left to people");

    write_data(&secrets, &name, &good).await;
    world.trust_domain_condition("AuthorityReady", "True").await;
    assert_eq!(secrets.get(&name).await.unwrap().data.unwrap(), good);
}

#[tokio::test]
async fn what_another_writer_does_to_the_secret_is_never_undone() {
    let world = ready_world().await;
    let before = authority_ids(&world).await;
    let secrets = secrets(&world.client);
    let name = secret_name(&world);
    let annotate = async |round: u32| {
        let change = json!({ "metadata": { "annotations": { format!("note-{round}"): "x" } } });
        merge_patch(&secrets, &name, change).await;
    };
    // Each change of the policy has the operator write the Secret, between two writes of ours.
    for round in 0..6 {
        let policy = if round % 2 == 0 { "Delete" } else { "Retain" };
        annotate(2 * round).await;
        world
            .apply_trust_domain(json!({ "deletionPolicy": policy }))
            .await;
        annotate(2 * round + 1).await;
    }
    wait_until("the Secret to belong to nobody", SOON, || async {
        let secret = secrets.get(&name).await.map_err(|e| e.to_string())?;
        let owners = secret.owner_references().to_vec();
        owners.is_empty().then_some(()).ok_or(format!("{owners:?}"))
    })
    .await;
    let annotations = secrets.get(&name).await.unwrap().annotations().clone();
    assert_eq!(annotations.len(), 12, "{annotations:?}");
    assert_eq!(authority_ids(&world).await, before);
}

#[tokio::test]
async fn a_trust_domain_created_again_goes_on_with_the_authority_that_was_retained() {
    let world = ready_world().await;
    let first_chain = world.issue().await;
    let before = authority_ids(&world).await;
    let bundle = world.published_bundle().await;
    let old = world.read_trust_domain().await;
    delete_trust_domain(&world).await;
    world.apply_trust_domain(json!({})).await;
    world.trust_domain_condition("Ready", "True").await;

    let new = world.read_trust_domain().await;
    assert_ne!(new.uid(), old.uid());
    assert_eq!(authority_ids(&world).await, before);
    let chain = world.issue().await;
    assert_ne!(chain, first_chain);
    let published = world.published_bundle().await;
    assert_eq!(
        published.fingerprints().collect::<Vec<_>>(),
        bundle.fingerprints().collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn keys_belong_to_the_trust_domain_only_under_the_policy_delete() {
    let world = World::without_trust_domain(control_plane().await).await;
    shared_operator().await;
    let delete = json!({ "deletionPolicy": "Delete" });
    let uid = world.apply_trust_domain(delete).await.uid().unwrap();
    world.trust_domain_condition("Ready", "True").await;
    let owners = async || -> Vec<String> {
        let secret = secrets(&world.client).get(&secret_name(&world)).await;
        let owners = secret.unwrap().owner_references().to_vec();
        owners
            .into_iter()
            .map(|owner: OwnerReference| owner.uid)
            .collect()
    };
    assert_eq!(owners().await, [uid]);
    world
        .apply_trust_domain(json!({ "deletionPolicy": "Retain" }))
        .await;
    wait_until("the Secret to be released", SOON, || async {
        let owners = owners().await;
        owners.is_empty().then_some(()).ok_or(format!("{owners:?}"))
    })
    .await;
}

#[tokio::test]
async fn keys_lost_while_nobody_watched_are_replaced_only_with_consent() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let operator = World::operator(&own).await;
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    let before = authority_ids(&world).await;
    let bundle = world.published_bundle().await;

    operator.signal("KILL");
    operator.ended(SOON).await;
    let secrets = secrets(&world.client);
    let name = secret_name(&world);
    secrets
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    release_lease(&world.client).await;
    let operator = World::operator(&own).await;
    let condition = world
        .trust_domain_reason("AuthorityReady", "KeysLost")
        .await;
    assert_eq!(condition.status, "False");
    let consent = format!(
        "kubectl annotate trustdomain {} spiffe-operator.io/replace-authority={}",
        world.class, before[0]
    );
    assert!(
        condition.message.contains(&consent),
        "{}",
        condition.message
    );

    let pod = world.pod("web", &[("app", "web")]).await;
    let request = world.request(&pod, &[]).await;
    let note = world
        .event(&world.namespace, &pod.uid().unwrap(), "AuthorityNotReady")
        .await;
    assert!(note.contains(&world.class), "{note}");
    assert!(secrets.get_opt(&name).await.unwrap().is_none());
    assert_eq!(authority_ids(&world).await, before);
    assert_eq!(
        world
            .published_bundle()
            .await
            .fingerprints()
            .collect::<Vec<_>>(),
        bundle.fingerprints().collect::<Vec<_>>()
    );

    annotate_trust_domain(&world, "somebody-else").await;
    operator.reconciles("TrustDomain", 2).await;
    assert!(secrets.get_opt(&name).await.unwrap().is_none());
    annotate_trust_domain(&world, &before[0]).await;
    let answer = world.kubelet.answer(&request).await;
    world.verified_chain(&answer).await;
    wait_until("the new authority in the status", SOON, || async {
        let now = authority_ids(&world).await;
        (now != before).then_some(()).ok_or(format!("{now:?}"))
    })
    .await;
}

#[tokio::test]
async fn an_authority_with_a_large_rsa_key_holds_up_nobody_else() {
    let slow = World::without_trust_domain(control_plane().await).await;
    let operator = shared_operator().await;
    slow.apply_trust_domain(json!({ "keyType": "rsa-4096" }))
        .await;
    slow.apply_cluster_spiffe_id("web", json!({})).await;
    let world = ready_world().await;
    world.issue().await;
    assert_eq!(operator.http("GET", "/livez", "").await.0, 200);
    slow.issue().await;
}

#[tokio::test]
async fn authorities_of_every_other_key_type_issue_what_verifies() {
    for key_type in ["ec-p384", "rsa-2048"] {
        let world = World::without_trust_domain(control_plane().await).await;
        shared_operator().await;
        world
            .apply_trust_domain(json!({ "keyType": key_type }))
            .await;
        world.apply_cluster_spiffe_id("web", json!({})).await;
        world.trust_domain_condition("Ready", "True").await;
        world.issue().await;
        let bundle = world.published_bundle().await;
        let root = bundle.roots().next().unwrap().clone();
        let (_, parsed) = x509_parser::parse_x509_certificate(&root).unwrap();
        let bits = parsed.public_key().parsed().unwrap().key_size();
        assert_eq!(
            bits,
            if key_type == "ec-p384" { 384 } else { 2048 },
            "{key_type}"
        );
    }
}

/// A world that signs.
async fn ready_world() -> World {
    let world = World::new().await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    world
}

fn is_true(status: &spiffe_operator::api::TrustDomainStatus, kind: &str) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|condition| condition.type_ == kind && condition.status == "True")
}

async fn authority_ids(world: &World) -> Vec<String> {
    let status = world.read_trust_domain().await.status.unwrap();
    status.authorities.into_iter().map(|it| it.id).collect()
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), "spiffe-system")
}

fn secret_name(world: &World) -> String {
    format!("{}.authority", world.class)
}

async fn write_data(secrets: &Api<Secret>, name: &str, data: &BTreeMap<String, ByteString>) {
    let change: Value = json!({ "data": data });
    merge_patch(secrets, name, change).await;
}

async fn annotate_trust_domain(world: &World, authority: &str) {
    let change = json!({ "metadata": { "annotations": {
        "spiffe-operator.io/replace-authority": authority,
    }}});
    let objects = Api::<TrustDomain>::all(world.client.clone());
    merge_patch(&objects, &world.class, change).await;
}

async fn delete_trust_domain(world: &World) {
    let objects = Api::<TrustDomain>::all(world.client.clone());
    let parameters = DeleteParams::default();
    objects.delete(&world.class, &parameters).await.unwrap();
}
