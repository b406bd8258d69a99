//! Where a trust domain's bundle is published, and who may say what is in it.

use std::collections::BTreeMap;

use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use spiffe_operator::spiffe::Bundle;

use crate::support::{SOON, World, apply, merge_patch, namespace, wait_until};

/// Waits until the object `name` is as wanted, and gives it.
async fn object_that<K>(api: &Api<K>, name: &str, is_wanted: impl Fn(&K) -> bool) -> K
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    wait_until(&format!("{name} as it should be"), SOON, || async {
        let found = api.get_opt(name).await.map_err(|error| error.to_string())?;
        match found {
            Some(found) if is_wanted(&found) => Ok(found),
            found => Err(format!("{found:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn the_cluster_trust_bundle_is_labelled_and_restored_whatever_befalls_it() {
    let world = World::new().await;
    world
        .trust_domain_condition("BundlePublished", "True")
        .await;
    let bundles = Api::<ClusterTrustBundle>::all(world.client.clone());
    let name = world.bundle_name();
    let good = bundles.get(&name).await.unwrap();
    for (label, value) in [
        ("k8s.spiffe.io/canarying", "live"),
        ("k8s.spiffe.io/workload-trust-domain", &world.trust_domain),
        ("k8s.spiffe.io/peer-trust-domain", &world.trust_domain),
        ("app.kubernetes.io/managed-by", "spiffe-operator"),
    ] {
        assert_eq!(good.labels()[label], value, "{label}");
    }
    let status = world.read_trust_domain().await.status.unwrap();
    assert_eq!(status.cluster_trust_bundle.as_ref(), Some(&name));

    let foreign = crate::support::ca("foreign").pem();
    let is_good = |found: &ClusterTrustBundle| {
        found.spec == good.spec
            && found.annotations() == good.annotations()
            && good
                .labels()
                .iter()
                .all(|it| found.labels().get(it.0) == Some(it.1))
    };
    for change in [
        json!({ "spec": { "trustBundle": foreign } }),
        json!({ "spec": { "trustBundle": good.spec.trust_bundle.clone() + &foreign } }),
        json!({ "metadata": { "labels": { "k8s.spiffe.io/peer-trust-domain": "other.test" } } }),
        json!({ "metadata": { "labels": null } }),
        json!({ "metadata": { "annotations": { "spiffe-operator.io/bundle-sequence": "999" } } }),
    ] {
        merge_patch(&bundles, &name, change).await;
        object_that(&bundles, &name, is_good).await;
    }
    bundles
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    object_that(&bundles, &name, is_good).await;
}

#[tokio::test]
async fn selected_namespaces_have_copies_in_every_form_also_those_that_come_later() {
    let world = World::new().await;
    let selected = [("bundle", world.class.as_str())];
    let selector = json!({ "matchLabels": { "bundle": world.class } });
    let first = namespace(&world.client, &selected).await;
    world
        .apply_trust_domain(json!({ "bundleConfigMaps": {
            "namespaceSelector": selector, "formats": ["pem", "spiffe", "jwks"],
        }}))
        .await;
    let copies = |namespace: &str| Api::<ConfigMap>::namespaced(world.client.clone(), namespace);
    let name = "spiffe-bundle";
    let copy = object_that(&copies(&first), name, |_| true).await;
    let data = copy.data.clone().unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["jwks", "pem", "spiffe"]);
    let trust_domain = || world.trust_domain.parse().unwrap();
    let published = world.published_bundle().await;
    let roots = |bundle: &Bundle| bundle.fingerprints().collect::<Vec<_>>();
    let from_pem = Bundle::from_pem(trust_domain(), data["pem"].as_bytes()).unwrap();
    assert_eq!(roots(&from_pem), roots(&published));
    let document: Value = serde_json::from_str(&data["spiffe"]).unwrap();
    assert_eq!(document["keys"][0]["use"], "x509-svid", "{document}");
    assert!(document["spiffe_sequence"].is_u64(), "{document}");
    let keys: Value = serde_json::from_str(&data["jwks"]).unwrap();
    assert!(keys["keys"].is_array(), "{keys}");

    let second = namespace(&world.client, &selected).await;
    let others = namespace(&world.client, &[]).await;
    let is_copy = |found: &ConfigMap| found.data.as_ref() == Some(&data);
    object_that(&copies(&second), name, is_copy).await;
    assert!(copies(&others).get_opt(name).await.unwrap().is_none());

    merge_patch(
        &copies(&first),
        name,
        json!({ "data": { "pem": "spoilt", "more": "x" } }),
    )
    .await;
    copies(&second)
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
    for namespace in [&first, &second] {
        object_that(&copies(namespace), name, is_copy).await;
    }

    // A namespace that loses its label loses its copy, and one that gains it gains one.
    let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(world.client.clone());
    merge_patch(
        &namespaces,
        &first,
        json!({ "metadata": { "labels": { "bundle": null } } }),
    )
    .await;
    let gained = json!({ "metadata": { "labels": { "bundle": world.class } } });
    merge_patch(&namespaces, &others, gained).await;
    object_that(&copies(&others), name, is_copy).await;
    wait_until("the copy to be removed", SOON, || async {
        let found = copies(&first)
            .get_opt(name)
            .await
            .map_err(|error| error.to_string())?;
        found.map_or(Ok(()), |_| Err("it is there".to_owned()))
    })
    .await;

    // Under another name, the copies of the old name go.
    let renamed = format!("bundle-{}", world.class);
    world
        .apply_trust_domain(json!({ "bundleConfigMaps": {
            "name": renamed, "namespaceSelector": selector,
        }}))
        .await;
    object_that(&copies(&second), &renamed, |_| true).await;
    wait_until("the copy of the old name to be removed", SOON, || async {
        let found = copies(&second)
            .get_opt(name)
            .await
            .map_err(|error| error.to_string())?;
        found.map_or(Ok(()), |_| Err("it is there".to_owned()))
    })
    .await;
}

#[tokio::test]
async fn what_is_somebody_elses_is_left_alone_and_the_status_says_so() {
    let world = World::without_trust_domain(crate::support::control_plane().await).await;
    crate::support::shared_operator().await;
    let selector = json!({ "matchLabels": { "kubernetes.io/metadata.name": world.namespace } });
    let copies = Api::<ConfigMap>::namespaced(world.client.clone(), &world.namespace);
    let theirs = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "spiffe-bundle", "namespace": world.namespace },
        "data": { "pem": "theirs" },
    });
    apply(&world.client, &theirs).await.unwrap();
    let bundles = Api::<ClusterTrustBundle>::all(world.client.clone());
    let foreign = crate::support::ca("foreign").pem();
    let their_bundle = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle",
        "metadata": { "name": world.bundle_name() },
        "spec": { "signerName": world.signer(), "trustBundle": foreign },
    });
    apply(&world.client, &their_bundle).await.unwrap();

    world
        .apply_trust_domain(json!({ "bundleConfigMaps": { "namespaceSelector": selector } }))
        .await;
    let condition = world
        .trust_domain_condition("BundlePublished", "False")
        .await;
    assert!(
        condition.message.contains(&world.bundle_name()),
        "{}",
        condition.message
    );
    assert_eq!(
        bundles
            .get(&world.bundle_name())
            .await
            .unwrap()
            .spec
            .trust_bundle,
        foreign
    );
    bundles
        .delete(&world.bundle_name(), &DeleteParams::default())
        .await
        .unwrap();

    let condition = world
        .trust_domain_reason("BundlePublished", "ConfigMapsNotWritten")
        .await;
    assert!(
        condition.message.contains(&world.namespace),
        "{}",
        condition.message
    );
    world.trust_domain_condition("AuthorityReady", "True").await;
    let kept = copies.get("spiffe-bundle").await.unwrap().data;
    assert_eq!(
        kept,
        Some(BTreeMap::from([("pem".into(), "theirs".into())]))
    );
    copies
        .delete("spiffe-bundle", &DeleteParams::default())
        .await
        .unwrap();
    world
        .trust_domain_condition("BundlePublished", "True")
        .await;
    world.trust_domain_condition("Ready", "True").await;
}
