//! CAs that users bring in a Secret: good ones, bad ones, changed ones and short-lived ones.

use k8s_openapi::api::certificates::v1::{ClusterTrustBundle, PodCertificateRequest};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use spiffe_operator::spiffe::{Bundle, pem, verify_x509_svid};
use time::Duration;

use crate::support::{
    Ca, SOON, World, apply, ca, ca_valid_for, control_plane, issued_by, not_a_ca, shared_operator,
    tls_secret, unique, wait_until,
};

/// A world whose CA is to be in a Secret, and the name of that, which does not exist yet.
async fn world_and_secret() -> (World, String) {
    let world = World::without_trust_domain(control_plane().await).await;
    shared_operator().await;
    let secret = unique("ca");
    let authority = json!({ "authority": { "secretRef": { "name": secret } } });
    world.apply_trust_domain(authority).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    (world, secret)
}

/// Writes a CA that is its own root into the Secret.
async fn write(world: &World, secret: &str, ca: &Ca) {
    let object = tls_secret(secret, &ca.pem(), ca.key(), "");
    apply(&world.client, &object).await.unwrap();
}

/// States of the authorities, newest first.
async fn states(world: &World) -> Vec<String> {
    let status = world.read_trust_domain().await.status.unwrap_or_default();
    status.authorities.into_iter().map(|it| it.state).collect()
}

#[tokio::test]
async fn every_fault_of_the_secret_is_named_and_its_repair_is_noticed() {
    let (world, secret) = world_and_secret().await;
    let good = ca("good");
    let (other, plain) = (ca("other"), not_a_ca("plain"));
    let expired = ca_valid_for("expired", Duration::minutes(-5));
    let orphan = issued_by(&ca("absent"), "orphan");
    let faults = [
        ("NotCA", tls_secret(&secret, &plain.pem(), plain.key(), "")),
        (
            "KeyMismatch",
            tls_secret(&secret, &good.pem(), other.key(), ""),
        ),
        (
            "CertificateExpired",
            tls_secret(&secret, &expired.pem(), expired.key(), ""),
        ),
        (
            "InvalidCertificate",
            tls_secret(&secret, "no certificate", good.key(), ""),
        ),
        ("SecretIncomplete", tls_secret(&secret, "", good.key(), "")),
        (
            "InvalidChain",
            tls_secret(&secret, &orphan.pem(), orphan.key(), ""),
        ),
    ];
    let missing = world
        .trust_domain_reason("AuthorityReady", "SecretMissing")
        .await;
    assert!(missing.message.contains(&secret), "{}", missing.message);
    for (reason, object) in faults {
        apply(&world.client, &object).await.unwrap();
        let condition = world.trust_domain_reason("AuthorityReady", reason).await;
        assert_eq!(condition.status, "False");
        assert!(condition.message.contains(&secret), "{}", condition.message);
        let ready = world.trust_domain_reason("Ready", reason).await;
        assert_eq!(ready.status, "False");
    }
    assert!(states(&world).await.is_empty(), "no CA was made instead");
    let bundles = Api::<ClusterTrustBundle>::all(world.client.clone());
    let published = bundles.get_opt(&world.bundle_name()).await.unwrap();
    assert!(published.is_none(), "{published:?}");

    write(&world, &secret, &good).await;
    world.trust_domain_condition("Ready", "True").await;
    world.issue().await;
    let bundle = world.published_bundle().await;
    let roots: Vec<_> = bundle.roots().map(|root| root.to_vec()).collect();
    assert_eq!(roots, [good.der().to_vec()]);
}

#[tokio::test]
async fn a_pem_file_with_text_and_windows_line_ends_is_understood() {
    let (world, secret) = world_and_secret().await;
    let good = ca("odd");
    let text = format!("subject=CN=odd\n\nBag Attributes\n    x: y\n{}", good.pem());
    let odd = text.replace("\r\n", "\n").replace('\n', "\r\n");
    let object = tls_secret(&secret, &odd, good.key(), "");
    apply(&world.client, &object).await.unwrap();
    world.trust_domain_condition("Ready", "True").await;
    world.issue().await;
}

#[tokio::test]
async fn a_ca_below_others_signs_with_its_chain_and_publishes_the_root_alone() {
    let (world, secret) = world_and_secret().await;
    let root = ca("root");
    let middle = issued_by(&root, "middle");
    let lower = issued_by(&middle, "lower");
    let chain = format!("{}{}", lower.pem(), middle.pem());
    let object = tls_secret(&secret, &chain, lower.key(), &root.pem());
    apply(&world.client, &object).await.unwrap();
    world.trust_domain_condition("Ready", "True").await;
    let chain = world.issue().await;
    assert_eq!(chain[1..], [lower.der().clone(), middle.der().clone()]);
    let bundle = world.published_bundle().await;
    assert_eq!(bundle.roots().count(), 1);
    assert_eq!(bundle.to_pem(), pem::encode("CERTIFICATE", root.der()));
}

#[tokio::test]
async fn a_changed_secret_is_a_rotation_that_keeps_the_old_root() {
    let (world, secret) = world_and_secret().await;
    let (first, second) = (ca("first"), ca("second"));
    write(&world, &secret, &first).await;
    world.trust_domain_condition("Ready", "True").await;
    write(&world, &secret, &second).await;
    wait_until("the new CA to be prepared and published", SOON, || async {
        let roots = world.published_bundle().await.roots().count();
        let states = states(&world).await;
        let is_there = roots == 2 && states == ["prepared", "active"];
        is_there
            .then_some(())
            .ok_or(format!("{states:?}, {roots} roots"))
    })
    .await;
    // The new root must reach every pod before its CA signs.
    let trust_domain = world.trust_domain.parse().unwrap();
    let first_alone = Bundle::new(trust_domain, [first.der().clone()], 1).unwrap();
    let chain = world.issue().await;
    let by_first = verify_x509_svid(&chain, &first_alone, Timestamp::now());
    assert!(
        by_first.is_ok(),
        "the old CA signs until then: {by_first:?}"
    );

    let secrets = Api::<Secret>::namespaced(world.client.clone(), "spiffe-system");
    secrets
        .delete(&secret, &DeleteParams::default())
        .await
        .unwrap();
    let condition = world
        .trust_domain_reason("AuthorityReady", "SecretMissing")
        .await;
    assert_eq!(condition.status, "False");
    world.issue().await;
    assert_eq!(states(&world).await, ["prepared", "active"]);
}

#[tokio::test]
async fn certificates_under_a_ca_that_ends_soon_end_with_it_and_the_status_says_so() {
    let (world, secret) = world_and_secret().await;
    write(&world, &secret, &ca_valid_for("short", Duration::hours(3))).await;
    let capped = world.trust_domain_condition("TTLCapped", "True").await;
    assert_eq!(capped.reason, "CAEndsFirst");
    world.trust_domain_condition("Ready", "True").await;
    let pod = world.pod("web", &[("app", "web")]).await;
    let request = world.answer(&pod, &[]).await;
    world.verified_chain(&request).await;
    let status = request.status.unwrap();
    let end = status.not_after.unwrap().0.to_string();
    assert!(capped.message.contains(&end), "{} {end}", capped.message);
}

#[tokio::test]
async fn under_a_ca_with_less_than_an_hour_left_requests_wait_for_the_next_one() {
    let (world, secret) = world_and_secret().await;
    write(
        &world,
        &secret,
        &ca_valid_for("ending", Duration::minutes(40)),
    )
    .await;
    world.trust_domain_condition("TTLCapped", "True").await;
    let pod = world.pod("web", &[("app", "web")]).await;
    let request = world.request(&pod, &[]).await;
    let uid = pod.uid().unwrap();
    let note = world
        .event(&world.namespace, &uid, "LifetimeTooShort")
        .await;
    assert!(!note.is_empty());
    let requests = Api::<PodCertificateRequest>::namespaced(world.client.clone(), &world.namespace);
    let pending = requests.get(&request.name_any()).await.unwrap();
    let conditions = pending.status.unwrap_or_default().conditions;
    assert!(conditions.unwrap_or_default().is_empty());
}
