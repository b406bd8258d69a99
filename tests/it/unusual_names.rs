//! Trust domains whose names no signer name may hold.

use kube::ResourceExt;
use serde_json::json;

use crate::support::{World, control_plane, shared_operator, unique, verdict};

/// Issues for a trust domain, and gives its signer name.
async fn signer_name_of(trust_domain: String) -> String {
    let mut world = World::without_trust_domain(control_plane().await).await;
    shared_operator().await;
    world.trust_domain = trust_domain;
    world.apply_trust_domain(json!({})).await;
    let template = "spiffe://{{ .TrustDomain }}/web";
    world
        .apply_cluster_spiffe_id("web", json!({ "spiffeIDTemplate": template }))
        .await;
    world.trust_domain_condition("Ready", "True").await;
    let status = world.read_trust_domain().await.status.unwrap();
    let signer = status.signer_name.unwrap();
    let bundle = format!("{}:bundle", signer.replace('/', ":"));
    assert_eq!(status.cluster_trust_bundle, Some(bundle));

    let pod = world.pod_of_signer("web", &signer).await;
    let (_, request) = world
        .kubelet
        .request(&signer, &pod, &world.service_account, &[])
        .await;
    let answer = world.kubelet.answer(&request).await;
    let verdict = verdict(&answer);
    assert_eq!(verdict.type_, "Issued", "{}", verdict.message);
    let id = format!("spiffe://{}/web", world.trust_domain);
    assert!(verdict.message.contains(&id), "{}", verdict.message);
    let uid = pod.uid().unwrap();
    let note = world.event(&world.namespace, &uid, "IdentityIssued").await;
    assert!(note.contains(&id), "{note}");
    signer
}

fn assert_is_hashed(signer: &str) {
    let hash = signer.strip_prefix("spiffe-operator.io/h-").expect(signer);
    assert_eq!(hash.len(), 32);
}

#[tokio::test]
async fn a_trust_domain_with_an_underscore_has_a_hashed_signer_name() {
    let trust_domain = format!("{}_x.test", unique("under"));
    assert_is_hashed(&signer_name_of(trust_domain).await);
}

#[tokio::test]
async fn the_longest_trust_domain_in_one_label_has_a_hashed_signer_name() {
    let name = unique("long");
    let filler = "a".repeat(255 - name.len());
    assert_is_hashed(&signer_name_of(format!("{name}{filler}")).await);
}

#[tokio::test]
async fn the_longest_trust_domain_in_many_labels_is_served() {
    let name = unique("long");
    let trust_domain = name.clone() + &".a".repeat(255)[..255 - name.len()];
    let trust_domain = trust_domain.trim_end_matches('.').to_owned();
    let signer = signer_name_of(trust_domain.clone()).await;
    assert_eq!(signer, format!("spiffe-operator.io/{trust_domain}"));
}
