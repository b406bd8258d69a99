//! Several operators: replicas that take over from each other, and strangers that stand back.

use std::time::Duration;

use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use spiffe_operator::api::{ClusterSPIFFEID, TrustDomain};
use spiffe_operator::authority::DOCUMENT;

use crate::support::{
    ControlPlane, LEASE_EXPIRED, Operator, Options, SOON, World, condition, release_lease,
    wait_until,
};

#[tokio::test]
async fn a_replica_signs_at_once_and_leads_soon_when_the_leader_is_killed() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let first = World::operator(&own).await;
    first.leads().await;
    let second = World::operator(&own).await;
    second.ready().await;
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    world.issue().await;
    let before = authorities(&world).await;

    first.signal("KILL");
    first.ended(SOON).await;
    let held_by = lease_holder(&world.client).await;
    world.issue().await;
    assert_eq!(
        lease_holder(&world.client).await,
        held_by,
        "issuing did not wait for the Lease to change hands"
    );
    second.leads().await;
    assert_ne!(lease_holder(&world.client).await, held_by);
    assert_eq!(authorities(&world).await, before);
    // What only the leader does goes on, too.
    let id = world.apply_cluster_spiffe_id("late", json!({})).await;
    condition::<ClusterSPIFFEID>(&world.client, &id, "Ready", "True").await;
}

#[tokio::test]
async fn an_operator_that_is_told_to_stop_gives_the_lease_up_and_ends_well() {
    let own = ControlPlane::start(Options::default()).await;
    own.install_crds().await;
    let client = own.client().await;
    let operator = World::operator(&own).await;
    operator.leads().await;
    let standby = World::operator(&own).await;
    operator.signal("TERM");
    // One more, while it stops or after, harms nothing.
    operator.try_signal("INT");
    let status = operator.ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", operator.log());
    assert_ne!(lease_holder(&client).await, operator.identity());
    standby.leads().await;
}

#[tokio::test]
async fn replicas_that_start_together_never_make_two_authorities() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    for _ in 0..4 {
        world.apply_trust_domain(json!({})).await;
        let (first, second) = tokio::join!(World::operator(&own), World::operator(&own));
        world.trust_domain_condition("Ready", "True").await;
        world.issue().await;
        assert_one_authority(&world, "spiffe-system").await;
        for operator in [first, second] {
            operator.signal("KILL");
            operator.ended(SOON).await;
        }
        forget_everything(&world).await;
    }
}

#[tokio::test]
async fn of_operators_in_two_namespaces_one_serves_and_the_other_stands_back() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    own.ensure_namespace("first").await;
    own.ensure_namespace("second").await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.apply_trust_domain(json!({})).await;
    let (first, second) = tokio::join!(
        Operator::start(&own, "first", &[]),
        Operator::start(&own, "second", &[])
    );
    world.trust_domain_condition("Ready", "True").await;
    let trust_domain = world.read_trust_domain().await;
    let holder = trust_domain
        .status
        .as_ref()
        .unwrap()
        .operator_namespace
        .clone()
        .unwrap();
    let (serving, other, standing_back) = match holder.as_str() {
        "first" => (first, "second", second),
        _ => (second, "first", first),
    };
    let uid = trust_domain.uid().unwrap();
    let note = world
        .event("default", &uid, "ServedByAnotherOperator")
        .await;
    assert!(note.contains(&format!("namespace {holder}")), "{note}");
    assert!(note.contains("kubectl patch trustdomain"), "{note}");
    world.issue().await;
    assert_one_authority(&world, &holder).await;
    let secrets = Api::<Secret>::namespaced(world.client.clone(), other);
    let theirs = secrets.list(&ListParams::default()).await.unwrap();
    assert!(theirs.items.is_empty());

    // Nor is a spec fought over that only one of them ever saw when it was good.
    world
        .apply_trust_domain(json!({ "ignoreNamespaces": ["("] }))
        .await;
    world.trust_domain_reason("Ready", "InvalidSpec").await;
    drop(standing_back);
    let again = Operator::start(&own, other, &[]).await;
    again.ready().await;
    world.issue().await;
    wait_until("both entries in the status", SOON, || async {
        let entries = world.read_trust_domain().await.status.unwrap().entries;
        (entries == 2).then_some(()).ok_or(entries.to_string())
    })
    .await;
    let version = world.read_trust_domain().await.resource_version();
    tokio::join!(
        serving.reconciles("TrustDomain", 2),
        again.reconciles("TrustDomain", 2)
    );
    assert_eq!(world.read_trust_domain().await.resource_version(), version);
}

async fn authorities(world: &World) -> Vec<String> {
    let status = world.read_trust_domain().await.status.unwrap();
    status.authorities.into_iter().map(|it| it.id).collect()
}

/// One authority in the status, the Secret and the bundle.
async fn assert_one_authority(world: &World, namespace: &str) {
    assert_eq!(authorities(world).await.len(), 1);
    assert_eq!(world.published_bundle().await.roots().count(), 1);
    let secrets = Api::<Secret>::namespaced(world.client.clone(), namespace);
    let secret = secrets.get(&format!("{}.authority", world.class)).await;
    let data = secret.unwrap().data.unwrap();
    let keys = data.keys().filter(|key| *key != DOCUMENT);
    let (jwt, ca): (Vec<_>, Vec<_>) = keys.partition(|key| key.starts_with("jwt-"));
    assert_eq!((ca.len(), jwt.len()), (1, 1), "{:?}", data.keys());
}

/// Removes the trust domain, all that was made of it, and the Lease.
async fn forget_everything(world: &World) {
    let parameters = DeleteParams::default();
    let client = &world.client;
    let objects = Api::<TrustDomain>::all(client.clone());
    objects.delete(&world.class, &parameters).await.unwrap();
    let bundles = Api::<ClusterTrustBundle>::all(client.clone());
    bundles
        .delete(&world.bundle_name(), &parameters)
        .await
        .unwrap();
    let secrets = Api::<Secret>::namespaced(client.clone(), "spiffe-system");
    let secret = format!("{}.authority", world.class);
    secrets.delete(&secret, &parameters).await.unwrap();
    release_lease(client).await;
}

async fn lease_holder(client: &Client) -> String {
    let leases = Api::<Lease>::namespaced(client.clone(), "spiffe-system");
    wait_until("a Lease with a holder", LEASE_EXPIRED, || async {
        let lease = leases
            .get("spiffe-operator")
            .await
            .map_err(|e| e.to_string())?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        holder.ok_or_else(|| "nobody holds it".to_owned())
    })
    .await
}
