//! Specs that admission cannot refuse: the object says what is wrong, and the last good spec stays
//! in force, also for an operator that is started anew.

use kube::Api;
use serde_json::json;
use spiffe_operator::api::ClusterSPIFFEID;

use crate::support::{
    ControlPlane, Options, SOON, World, condition_that, control_plane, release_lease,
    shared_operator,
};

#[tokio::test]
async fn a_trust_domain_that_never_was_good_is_not_served() {
    let world = World::without_trust_domain(control_plane().await).await;
    shared_operator().await;
    for (field, broken) in [
        ("ignoreNamespaces", json!(["("])),
        ("parentIDTemplate", json!("spiffe://{{ .TrustDomain")),
    ] {
        world.apply_trust_domain(json!({ field: broken })).await;
        let stalled = world.trust_domain_condition_about("Stalled", field).await;
        assert_eq!(
            (stalled.status.as_str(), stalled.reason.as_str()),
            ("True", "InvalidSpec")
        );
    }
    let status = world.read_trust_domain().await.status.unwrap();
    assert!(status.authorities.is_empty(), "{:?}", status.authorities);
    world.apply_trust_domain(json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
}

#[tokio::test]
async fn broken_specs_take_nothing_away_even_from_an_operator_started_anew() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let operator = World::operator(&own).await;
    world.apply_trust_domain(json!({})).await;
    let id = world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    condition_that::<ClusterSPIFFEID>(&world.client, &id, "Ready", |condition| {
        condition.type_ == "Ready" && condition.status == "True"
    })
    .await;

    world
        .apply_trust_domain(json!({ "ignoreNamespaces": ["("] }))
        .await;
    let broken =
        json!({ "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/{{ .PodMeta.Nothing }}" });
    world.apply_cluster_spiffe_id("web", broken).await;
    let ready = world.trust_domain_reason("Ready", "InvalidSpec").await;
    assert!(
        ready.message.contains("last good spec stays in force"),
        "{}",
        ready.message
    );
    let stalled = is_stalled(&world, &id).await;
    assert!(stalled.contains("last good spec"), "{stalled}");
    world.issue().await;

    operator.signal("KILL");
    operator.ended(SOON).await;
    release_lease(&world.client).await;
    let _operator = World::operator(&own).await;
    world.issue().await;
    world.trust_domain_reason("Ready", "InvalidSpec").await;
    let stalled = is_stalled(&world, &id).await;
    assert!(stalled.contains("last good spec"), "{stalled}");

    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    world.issue().await;
}

/// Waits until the ClusterSPIFFEID says that its spec is broken, and gives the message.
async fn is_stalled(world: &World, name: &str) -> String {
    let objects = Api::<ClusterSPIFFEID>::all(world.client.clone());
    let generation = objects.get(name).await.unwrap().metadata.generation;
    let what = "Stalled by its current spec";
    let stalled = condition_that::<ClusterSPIFFEID>(&world.client, name, what, |condition| {
        condition.type_ == "Stalled" && condition.observed_generation == generation
    });
    stalled.await.message
}
