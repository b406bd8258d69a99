//! Specs that admission cannot refuse: the object says what is wrong, and the last good spec stays
//! in force, also for an operator that is started anew.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use spiffe_operator::api::{ClusterSPIFFEID, ClusterStaticEntry};

use crate::registration::{apply_static_entry, static_entry};
use crate::support::{
    ControlPlane, Options, SOON, World, condition, condition_that, control_plane, merge_patch,
    release_lease, shared_operator, unique, wait_until,
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

#[tokio::test]
async fn a_static_entry_whose_spec_breaks_stays_in_force_over_a_restart() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let operator = World::operator(&own).await;
    world.apply_trust_domain(json!({})).await;
    let entry = apply_static_entry(&world, json!({})).await;
    static_entry(&world, &entry, true, false, true).await;
    let entries = Api::<ClusterStaticEntry>::all(world.client.clone());
    let foreign = json!({ "spec": { "spiffeID": "spiffe://elsewhere.test/db" } });
    merge_patch(&entries, &entry, foreign).await;
    let stalled = condition::<ClusterStaticEntry>(&world.client, &entry, "Stalled", "True").await;
    assert!(stalled.message.contains("stays in force"), "{stalled:?}");

    operator.signal("KILL");
    operator.ended(SOON).await;
    release_lease(&world.client).await;
    // Another spec, as broken, so that the status that is found is the second operator's.
    let other = json!({ "spec": { "spiffeID": "spiffe://elsewhere.test/web" } });
    merge_patch(&entries, &entry, other).await;
    let generation = entries.get(&entry).await.unwrap().metadata.generation;
    let _operator = World::operator(&own).await;
    let what = "Stalled by its newer spec";
    let stalled = condition_that::<ClusterStaticEntry>(&world.client, &entry, what, |it| {
        it.type_ == "Stalled" && it.observed_generation == generation
    })
    .await;
    assert!(stalled.message.contains("stays in force"), "{stalled:?}");
    world.entries_are(1).await;
}

#[tokio::test]
async fn an_object_whose_good_spec_cannot_be_kept_gets_its_status_all_the_same() {
    let world = World::new().await;
    let name = format!("{}-web", world.class);
    let copy = format!("{name}.clusterspiffeid.last-good");
    let immutable = json!({ "metadata": { "name": copy }, "immutable": true });
    let immutable: ConfigMap = serde_json::from_value(immutable).unwrap();
    let config_maps = Api::<ConfigMap>::namespaced(world.client.clone(), "spiffe-system");
    let parameters = PostParams::default();
    config_maps.create(&parameters, &immutable).await.unwrap();
    world.apply_cluster_spiffe_id("web", json!({})).await;
    condition::<ClusterSPIFFEID>(&world.client, &name, "Ready", "True").await;
    let left = config_maps.get(&copy).await.unwrap();
    assert_eq!(left.data, None, "the copy could not be written");
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

#[tokio::test]
async fn a_template_that_never_was_good_registers_nobody_and_says_where_it_is_wrong() {
    let world = World::new().await;
    for (template, position) in [
        (
            "spiffe://{{ .TrustDomain }}/{{ .PodMeta.Nme }}",
            "line 1, column",
        ),
        ("https://{{ .TrustDomain }}/{{ .PodMeta.Name }}", "https://"),
    ] {
        let broken = json!({ "spiffeIDTemplate": template });
        let id = world
            .apply_cluster_spiffe_id(&unique("broken"), broken)
            .await;
        let stalled = is_stalled(&world, &id).await;
        assert!(stalled.contains(position), "{stalled}");
        assert!(stalled.contains("no entries are made"), "{stalled}");
        let pod = world.pod(&unique("web"), &[("app", "web")]).await;
        let request = world.request(&pod, &[]).await;
        let uid = pod.uid().unwrap();
        world.event(&world.namespace, &uid, "NotRegistered").await;
        world.entries_are(0).await;
        let status = world.kubelet.read(&request).await.status;
        let conditions = status.unwrap_or_default().conditions.unwrap_or_default();
        assert!(conditions.is_empty(), "{conditions:?}");
        world.delete_cluster_spiffe_id(&id).await;
    }
}

#[tokio::test]
async fn an_operator_started_anew_gives_pods_the_identity_they_had() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let first = World::operator(&own).await;
    world.apply_trust_domain(json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    // Older, so that it would be chosen if it were in force.
    let fallback = json!({
        "fallback": true,
        "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/fallback",
    });
    world.apply_cluster_spiffe_id("fallback", fallback).await;
    let pod = world.pod("web", &[("app", "web")]).await;
    let id = async || {
        let chain = world.verified_chain(&world.answer(&pod, &[]).await).await;
        spiffe_id(&chain[0])
    };
    assert_eq!(
        id().await,
        format!("spiffe://{}/fallback", world.trust_domain)
    );

    // Only a standby sees the good spec before it is broken.
    first.signal("KILL");
    first.ended(SOON).await;
    let second = World::operator(&own).await;
    let good = "spiffe://{{ .TrustDomain }}/kept/{{ .PodMeta.Name }}{{ .PodMeta.GenerateName }}";
    let name = world
        .apply_cluster_spiffe_id("main", json!({ "spiffeIDTemplate": good }))
        .await;
    let kept = format!("spiffe://{}/kept/web", world.trust_domain);
    wait_until("the entry of main", SOON, || async {
        let id = id().await;
        (id == kept).then_some(()).ok_or(id)
    })
    .await;
    let foreign = json!({ "spiffeIDTemplate": "spiffe://elsewhere.test/{{ .PodMeta.Name }}" });
    world.apply_cluster_spiffe_id("main", foreign).await;
    release_lease(&world.client).await;
    second.leads().await;
    let stalled = is_stalled(&world, &name).await;
    assert!(stalled.contains("spiffe://elsewhere.test/…"), "{stalled}");
    assert!(stalled.contains("stays in force"), "{stalled}");
    assert_eq!(id().await, kept);

    let config_maps = Api::<ConfigMap>::namespaced(world.client.clone(), "spiffe-system");
    let copy = format!("{name}.clusterspiffeid.last-good");
    wait_until("the copy of the good spec", SOON, || async {
        let copy = config_maps.get(&copy).await;
        copy.map_err(|error| error.to_string())
    })
    .await;
    second.signal("KILL");
    second.ended(SOON).await;
    // Asked while nobody is there, so that it is answered as early as can be.
    let requests = [
        world.request(&pod, &[]).await,
        world.request(&pod, &[]).await,
    ];
    let _third = World::operator(&own).await;
    for request in requests {
        let answer = world.kubelet.answer(&request).await;
        let chain = world.verified_chain(&answer).await;
        assert_eq!(spiffe_id(&chain[0]), kept);
    }
}

/// The URI of a certificate.
fn spiffe_id(certificate: &[u8]) -> String {
    let (_, leaf) = x509_parser::parse_x509_certificate(certificate).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
    uris.next().unwrap()
}
