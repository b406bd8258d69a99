//! What goes when a TrustDomain goes, and that nothing ever stands in the way.

use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use spiffe_operator::api::TrustDomain;

use crate::support::{ControlPlane, LEASE_EXPIRED, Options, SOON, World, condition, wait_until};

/// What a trust domain leaves in the cluster, by kind and name.
async fn left_over(world: &World) -> Vec<String> {
    let client = &world.client;
    let list = ListParams::default();
    let secrets = Api::<Secret>::namespaced(client.clone(), "spiffe-system");
    let config_maps = Api::<ConfigMap>::all(client.clone());
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=spiffe-operator");
    let bundles = Api::<ClusterTrustBundle>::all(client.clone());
    let mut found = Vec::new();
    for secret in secrets.list(&list).await.unwrap() {
        assert!(secret.finalizers().is_empty());
        found.push(format!("Secret {}", secret.name_any()));
    }
    for copy in config_maps.list(&ours).await.unwrap() {
        assert!(copy.finalizers().is_empty());
        found.push(format!("ConfigMap {}", copy.name_any()));
    }
    for bundle in bundles.list(&list).await.unwrap() {
        if bundle.name_any() == world.bundle_name() {
            assert!(bundle.finalizers().is_empty());
            found.push("ClusterTrustBundle".to_owned());
        }
    }
    found.sort();
    found.dedup();
    found
}

async fn apply_and_delete(world: &World, policy: &str) {
    world
        .apply_trust_domain(json!({ "deletionPolicy": policy, "bundleConfigMaps": {} }))
        .await;
    world.trust_domain_condition("Ready", "True").await;
    let made = left_over(world).await;
    let secret = format!("Secret {}.authority", world.class);
    for name in ["ClusterTrustBundle", "ConfigMap spiffe-bundle", &secret] {
        assert!(
            made.iter().any(|made| made == name),
            "{made:?} lacks {name}"
        );
    }
    let objects = Api::<TrustDomain>::all(world.client.clone());
    assert!(
        objects
            .get(&world.class)
            .await
            .unwrap()
            .finalizers()
            .is_empty()
    );
    objects
        .delete(&world.class, &DeleteParams::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_deleted_trust_domain_takes_along_all_but_the_keys_that_are_to_be_retained() {
    let own = ControlPlane::start(Options {
        controller_manager: true,
        ..Options::default()
    })
    .await;
    let world = World::without_trust_domain(&own).await;
    let operator = World::operator(&own).await;
    let keys = format!("Secret {}.authority", world.class);
    apply_and_delete(&world, "Retain").await;
    wait_until("all but the keys to go", LEASE_EXPIRED, || async {
        let found = left_over(&world).await;
        (found == [keys.clone()])
            .then_some(())
            .ok_or(format!("{found:?}"))
    })
    .await;
    let (_, metrics) = operator.http("GET", "/metrics", "").await;
    let line = metrics
        .lines()
        .find(|line| line.contains(&world.trust_domain));
    assert_eq!(line, None, "metrics of a trust domain that is gone");

    apply_and_delete(&world, "Delete").await;
    // Whether or not an operator runs.
    operator.signal("KILL");
    operator.ended(SOON).await;
    wait_until("everything to go", LEASE_EXPIRED, || async {
        let found = left_over(&world).await;
        found.is_empty().then_some(()).ok_or(format!("{found:?}"))
    })
    .await;
}

#[tokio::test]
async fn the_kinds_may_go_and_come_back_while_the_operator_runs() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let operator = World::operator(&own).await;
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    world.issue().await;
    let root = world.published_bundle().await.to_pem();

    let definitions = Api::<CustomResourceDefinition>::all(world.client.clone());
    let list = ListParams::default();
    for definition in definitions.list(&list).await.unwrap() {
        let parameters = DeleteParams::default();
        definitions
            .delete(&definition.name_any(), &parameters)
            .await
            .unwrap();
    }
    wait_until("the kinds to be gone", SOON, || async {
        let left = definitions
            .list(&list)
            .await
            .map_err(|e| e.to_string())?
            .items;
        left.is_empty()
            .then_some(())
            .ok_or(format!("{} are left", left.len()))
    })
    .await;
    let pod = world.pod("web", &[("app", "web")]).await;
    let request = world.request(&pod, &[]).await;

    own.install_crds().await;
    assert_eq!(operator.http("GET", "/livez", "").await.0, 200);
    assert_eq!(operator.http("GET", "/readyz", "").await.0, 200);
    world.apply_trust_domain(json!({})).await;
    let id = world.apply_cluster_spiffe_id("web", json!({})).await;
    // The watches come back with the pause that errors cause.
    let answer = world.kubelet.late_answer(&request, LEASE_EXPIRED).await;
    world.verified_chain(&answer).await;
    condition::<spiffe_operator::api::ClusterSPIFFEID>(&world.client, &id, "Ready", "True").await;
    assert_eq!(
        world.published_bundle().await.to_pem(),
        root,
        "the authority was retained"
    );
}
