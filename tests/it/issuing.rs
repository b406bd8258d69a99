//! Pod certificates on a real API server, asked for as a kubelet does.

use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use kube::{Api, ResourceExt};
use serde_json::json;
use spiffe_operator::spiffe::{Bundle, pem, verify_x509_svid};

use crate::support::{World, verdict};

#[tokio::test]
async fn a_registered_pod_gets_an_svid_that_verifies() {
    let world = World::new().await;
    world
        .apply_cluster_spiffe_id("web", json!({ "dnsNameTemplates": ["web.example"] }))
        .await;
    let pod = world.pod("web", &[("app", "web")]).await;
    let request = world.answer(&pod, &[]).await;
    let verdict = verdict(&request);
    assert_eq!(
        (verdict.type_.as_str(), verdict.reason.as_str()),
        ("Issued", "Issued")
    );

    let status = request.status.clone().unwrap();
    let chain = pem::certificates(status.certificate_chain.unwrap().as_bytes()).unwrap();
    let bundles = Api::<ClusterTrustBundle>::all(world.client.clone());
    let published = bundles.get(&world.bundle_name()).await.unwrap();
    let trust_domain = world.trust_domain.parse().unwrap();
    let bundle = Bundle::from_pem(trust_domain, published.spec.trust_bundle.as_bytes()).unwrap();
    let now = k8s_openapi::jiff::Timestamp::now();
    assert_eq!(
        verify_x509_svid(&chain, &bundle, now).unwrap().as_str(),
        world.usual_id()
    );

    let seconds = |time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        time.unwrap().0.as_second()
    };
    let (start, refresh, end) = (
        seconds(status.not_before),
        seconds(status.begin_refresh_at),
        seconds(status.not_after),
    );
    assert_eq!(end - start, 6 * 3600, "the lifetime is the default one");
    assert_eq!(refresh - start, 3 * 3600, "the refresh is half-way");
    let note = world
        .event(&world.namespace, &pod.uid().unwrap(), "IdentityIssued")
        .await;
    assert!(note.contains(&world.usual_id()), "{note}");
}

#[tokio::test]
async fn a_pod_that_nothing_matches_waits_and_is_served_as_soon_as_something_does() {
    let world = World::new().await;
    let pod = world.pod("web", &[("app", "web")]).await;
    let request = world.request(&pod, &[]).await;
    let note = world
        .event(&world.namespace, &pod.uid().unwrap(), "NotRegistered")
        .await;
    assert!(note.contains("no ClusterSPIFFEID"), "{note}");
    world.apply_cluster_spiffe_id("web", json!({})).await;
    assert_eq!(
        verdict(&world.kubelet.answer(&request).await).type_,
        "Issued"
    );
}

#[tokio::test]
async fn dns_names_with_upper_case_underscores_and_wildcards_are_issued() {
    let world = World::new().await;
    let names = [
        "Upper.Example.org",
        "under_score.example.org",
        "*.example.org",
    ];
    world
        .apply_cluster_spiffe_id("web", json!({ "dnsNameTemplates": names }))
        .await;
    let chain = world.issue().await;
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let found = leaf.subject_alternative_name().unwrap().unwrap();
    let found: Vec<_> = found
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect();
    assert_eq!(found, names);
}
