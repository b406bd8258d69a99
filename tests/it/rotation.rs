//! Rotation on a real API server, from the first step to the last, and what interrupts it: a leader
//! that is killed between two writes, one that lags behind, a Secret restored from an old backup.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use spiffe_operator::authority::DOCUMENT;
use spiffe_operator::spiffe::{Bundle, Fingerprint, verify_x509_svid};
use time::Duration;

use crate::support::{
    Ca, ControlPlane, Fault, FaultyApiServer, Operator, Options, SOON, World, apply, ca,
    ca_valid_for, control_plane, merge_patch, release_lease, shared_operator, tls_secret, unique,
    wait_until,
};

/// A CA that is due to be replaced, as it stands in a journal.
fn aged_authority(aged: &Ca, origin: &str) -> Value {
    let then = Timestamp::now() - SignedDuration::from_hours(24);
    json!({
        "id": "aged", "state": "active", "origin": origin,
        "preparedAt": then, "publishedAt": then, "activatedAt": then,
        "certificates": aged.pem(),
    })
}

fn key_entry(ca: &Ca) -> (String, ByteString) {
    let name = format!("{}.key", Fingerprint::of(ca.der()));
    (name, ByteString(ca.key().serialize_pem().into_bytes()))
}

/// A world whose authority was made by an earlier TrustDomain and has 12 hours of a month left.
async fn world_with_aged_authority() -> (World, Ca) {
    let world = World::without_trust_domain(control_plane().await).await;
    shared_operator().await;
    let aged = ca_valid_for("aged", Duration::hours(12));
    let document = json!({
        "version": 1, "trustDomain": world.trust_domain, "lineage": "first", "sequence": 1,
        "authorities": [aged_authority(&aged, "selfSigned")],
    });
    let mut data = BTreeMap::from([key_entry(&aged)]);
    data.insert(
        DOCUMENT.to_owned(),
        ByteString(document.to_string().into_bytes()),
    );
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "spiffe-operator.io/authority",
        "metadata": { "name": secret_name(&world), "namespace": "spiffe-system" },
        "data": data,
    });
    apply(&world.client, &secret).await.unwrap();
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    (world, aged)
}

fn secret_name(world: &World) -> String {
    format!("{}.authority", world.class)
}

fn secrets(world: &World) -> Api<Secret> {
    Api::namespaced(world.client.clone(), "spiffe-system")
}

/// The journal's document.
async fn document(world: &World) -> Value {
    let secret = secrets(world).get(&secret_name(world)).await.unwrap();
    serde_json::from_slice(&secret.data.unwrap()[DOCUMENT].0).unwrap()
}

async fn write_document(world: &World, document: &Value) {
    let bytes = ByteString(document.to_string().into_bytes());
    let change = json!({ "data": { DOCUMENT: bytes } });
    merge_patch(&secrets(world), &secret_name(world), change).await;
}

/// Has the authority that is prepared be published for longer than pods take to see it.
async fn let_the_new_root_reach_all_pods(world: &World) {
    let mut document = wait_until("the publication to be confirmed", SOON, || async {
        let document = document(world).await;
        let authorities = document["authorities"].as_array().unwrap();
        let newest = authorities.last().unwrap();
        (newest["state"] == "prepared" && newest["publishedAt"].is_string())
            .then_some(document.clone())
            .ok_or_else(|| newest.to_string())
    })
    .await;
    let earlier = Timestamp::now() - SignedDuration::from_mins(6);
    let authorities = document["authorities"].as_array_mut().unwrap();
    authorities.last_mut().unwrap()["publishedAt"] = json!(earlier);
    write_document(world, &document).await;
}

/// Waits until the authorities have these states, the newest first, and gives their IDs.
async fn states_are(world: &World, wanted: &[&str]) -> Vec<String> {
    wait_until(&format!("authorities {wanted:?}"), SOON, || async {
        let status = world.read_trust_domain().await.status.unwrap_or_default();
        let found: Vec<_> = status
            .authorities
            .iter()
            .map(|it| it.state.clone())
            .collect();
        (found == wanted)
            .then(|| status.authorities.iter().map(|it| it.id.clone()).collect())
            .ok_or(format!("{found:?}"))
    })
    .await
}

async fn roots_are(world: &World, count: usize) {
    let bundles = Api::<ClusterTrustBundle>::all(world.client.clone());
    wait_until(&format!("{count} roots"), SOON, || async {
        let found = bundles.get_opt(&world.bundle_name()).await.unwrap();
        let pem = found.map(|it| it.spec.trust_bundle).unwrap_or_default();
        let roots = pem.matches("BEGIN CERTIFICATE").count();
        (roots == count).then_some(()).ok_or(format!("{roots}"))
    })
    .await;
}

fn verifies_by(world: &World, ca: &Ca, chain: &[CertificateDer<'static>]) -> bool {
    let trust_domain = world.trust_domain.parse().unwrap();
    let alone = Bundle::new(trust_domain, [ca.der().clone()], 1).unwrap();
    verify_x509_svid(chain, &alone, Timestamp::now()).is_ok()
}

async fn assert_verifies(world: &World, chain: &[CertificateDer<'static>]) {
    let published = world.published_bundle().await;
    verify_x509_svid(chain, &published, Timestamp::now()).unwrap();
}

#[tokio::test]
async fn a_ca_that_ends_is_replaced_by_one_that_was_published_before() {
    let (world, aged) = world_with_aged_authority().await;
    let uid = world.read_trust_domain().await.uid().unwrap();
    let prepared = states_are(&world, &["prepared", "active"]).await;
    roots_are(&world, 2).await;
    let before = world.issue().await;
    assert!(
        verifies_by(&world, &aged, &before),
        "the old CA signs until then"
    );

    let_the_new_root_reach_all_pods(&world).await;
    let active = states_are(&world, &["active", "old"]).await;
    assert_eq!(active, prepared);
    world.event("default", &uid, "CAActivated").await;
    let after = world.issue().await;
    assert!(!verifies_by(&world, &aged, &after), "the new CA signs");
    assert_verifies(&world, &before).await;
    roots_are(&world, 2).await;
    let secret = secrets(&world).get(&secret_name(&world)).await.unwrap();
    assert!(
        !secret.data.unwrap().contains_key(&key_entry(&aged).0),
        "a CA that signs no more keeps no key"
    );
}

#[tokio::test]
async fn a_ca_in_a_changed_secret_takes_over_and_the_old_root_stays() {
    let world = World::without_trust_domain(control_plane().await).await;
    shared_operator().await;
    let secret = unique("ca");
    let (first, second) = (ca("first"), ca("second"));
    let write = async |ca: &Ca| {
        let object = tls_secret(&secret, &ca.pem(), ca.key(), "");
        apply(&world.client, &object).await.unwrap();
    };
    write(&first).await;
    let authority = json!({ "authority": { "secretRef": { "name": secret } } });
    world.apply_trust_domain(authority).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    states_are(&world, &["active"]).await;
    let before = world.issue().await;
    assert!(verifies_by(&world, &first, &before));

    write(&second).await;
    states_are(&world, &["prepared", "active"]).await;
    let_the_new_root_reach_all_pods(&world).await;
    states_are(&world, &["active", "old"]).await;
    let after = world.issue().await;
    assert!(verifies_by(&world, &second, &after));
    assert_verifies(&world, &before).await;
}

#[tokio::test]
async fn a_secret_restored_from_an_old_backup_takes_no_root_away() {
    let (world, aged) = world_with_aged_authority().await;
    let backup = {
        let mut document = document(&world).await;
        document["sequence"] = json!(1);
        document["authorities"] = json!([aged_authority(&aged, "selfSigned")]);
        document
    };
    states_are(&world, &["prepared", "active"]).await;
    roots_are(&world, 2).await;
    let newest = wait_until("the publication to be confirmed", SOON, || async {
        let document = document(&world).await;
        (document["authorities"][1]["publishedAt"].is_string())
            .then_some(document.clone())
            .ok_or_else(|| document.to_string())
    })
    .await;
    write_document(&world, &backup).await;
    let condition = world
        .trust_domain_reason("AuthorityReady", "KeysOutdated")
        .await;
    assert_eq!(condition.status, "False");
    assert!(
        condition.message.contains(&secret_name(&world)),
        "{}",
        condition.message
    );
    world
        .trust_domain_reason("BundlePublished", "KeysOutdated")
        .await;
    roots_are(&world, 2).await;
    world.issue().await;
    assert_eq!(
        document(&world).await,
        backup,
        "nothing is done on top of it"
    );

    write_document(&world, &newest).await;
    world.trust_domain_condition("Ready", "True").await;
    roots_are(&world, 2).await;
}

#[tokio::test]
async fn a_new_leader_that_lags_behind_never_takes_the_bundle_back() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let first = World::operator(&own).await;
    first.leads().await;
    let proxy = FaultyApiServer::before(&own).await;
    let second = Operator::start_as(proxy.kubeconfig(), "spiffe-system", &[]).await;
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    let expiry = format!(
        "spiffe_operator_ca_expiration_timestamp_seconds{{trust_domain=\"{}\"}}",
        world.trust_domain
    );
    wait_until("the standby to know the authority", SOON, || async {
        let end = second.metric(&expiry).await.unwrap_or_default();
        (end > 0.0).then_some(()).ok_or(format!("{end}"))
    })
    .await;

    proxy.fail_only("/secrets?", Fault::WatchesHang);
    let aged = ca_valid_for("aged", Duration::hours(12));
    let mut document = document(&world).await;
    document["sequence"] = json!(2);
    let authorities = document["authorities"].as_array_mut().unwrap();
    authorities[0]["state"] = json!("old");
    authorities.push(aged_authority(&aged, "selfSigned"));
    let bytes = ByteString(document.to_string().into_bytes());
    let mut data = BTreeMap::from([key_entry(&aged)]);
    data.insert(DOCUMENT.to_owned(), bytes);
    merge_patch(
        &secrets(&world),
        &secret_name(&world),
        json!({ "data": data }),
    )
    .await;
    states_are(&world, &["prepared", "active", "old"]).await;
    roots_are(&world, 3).await;
    let bundles = Api::<ClusterTrustBundle>::all(world.client.clone());
    let published = bundles.get(&world.bundle_name()).await.unwrap();

    first.signal("KILL");
    first.ended(SOON).await;
    release_lease(&world.client).await;
    second.leads().await;
    second.reconciles("TrustDomain", 2).await;
    let now = bundles.get(&world.bundle_name()).await.unwrap();
    assert_eq!(now.resource_version(), published.resource_version());
    world.issue().await;
}

#[tokio::test]
async fn a_leader_killed_between_two_writes_leaves_what_the_next_one_completes() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    own.ensure_namespace("spiffe-system").await;
    let proxy = FaultyApiServer::before(&own).await;
    proxy.fail_only("POST /apis/certificates.k8s.io", Fault::Status(500));
    let operator = Operator::start_as(proxy.kubeconfig(), "spiffe-system", &[]).await;
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    // The Secret is written, the ClusterTrustBundle cannot be.
    let failing = world
        .trust_domain_reason("BundlePublished", "NotWritten")
        .await;
    assert!(failing.message.contains("injected"), "{}", failing.message);
    operator.signal("KILL");
    operator.ended(SOON).await;
    let written = document(&world).await;
    let bundles = Api::<ClusterTrustBundle>::all(world.client.clone());
    assert!(
        bundles
            .get_opt(&world.bundle_name())
            .await
            .unwrap()
            .is_none()
    );

    release_lease(&world.client).await;
    let _operator = World::operator(&own).await;
    let active = states_are(&world, &["active"]).await;
    assert_eq!(written["authorities"][0]["id"], active[0]);
    world.trust_domain_condition("Ready", "True").await;
    world.issue().await;
}

#[tokio::test]
async fn of_two_replicas_one_answers_each_request() {
    const REQUESTS: u32 = 40;
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let replicas = [World::operator(&own).await, World::operator(&own).await];
    for replica in &replicas {
        replica.ready().await;
    }
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    let mut requests = Vec::new();
    for _ in 0..REQUESTS {
        let pod = world.pod(&unique("web"), &[("app", "web")]).await;
        requests.push(world.request(&pod, &[]).await);
    }
    for request in &requests {
        world
            .verified_chain(&world.kubelet.answer(request).await)
            .await;
    }
    let issued = format!(
        "spiffe_operator_pod_certificates_total{{trust_domain=\"{}\",result=\"issued\"}}",
        world.trust_domain
    );
    wait_until("each request to be counted", SOON, || async {
        let mut sum = 0.0;
        for replica in &replicas {
            sum += replica.metric(&issued).await.unwrap_or_default();
        }
        assert!(sum <= f64::from(REQUESTS), "{sum} answers");
        (sum >= f64::from(REQUESTS))
            .then_some(())
            .ok_or(format!("{sum}"))
    })
    .await;
}
