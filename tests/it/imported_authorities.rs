//! CAs that users bring in a Secret: good ones, bad ones, changed ones and short-lived ones.

use std::io::Write as _;
use std::process::{Command, Stdio};

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{ClusterTrustBundle, PodCertificateRequest};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use rcgen::{BasicConstraints, IsCa, KeyPair, SanType};
use serde_json::json;
use spiffe_operator::authority::DOCUMENT;
use spiffe_operator::spiffe::{Bundle, pem, verify_x509_svid};
use time::{Duration, OffsetDateTime};

use crate::support::{
    Ca, ControlPlane, Operator, Options, SOON, World, apply, ca, ca_valid_for, ca_with,
    control_plane, issued_by, merge_patch, not_a_ca, release_lease, renewed, shared_operator,
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

/// The key under a passphrase.
fn encrypted(key: &KeyPair) -> String {
    let mut openssl = Command::new("openssl")
        .args(["pkcs8", "-topk8", "-passout", "pass:secret"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = openssl.stdin.take().unwrap();
    input.write_all(key.serialize_pem().as_bytes()).unwrap();
    drop(input);
    let output = openssl.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn chains_and_keys_that_cannot_serve_are_named() {
    let (world, secret) = world_and_secret().await;
    let below = |root: &Ca, middle: &Ca| {
        let lower = issued_by(middle, "lower");
        let chain = format!("{}{}", lower.pem(), middle.pem());
        tls_secret(&secret, &chain, lower.key(), &root.pem())
    };
    let short = ca_with(None, "short", |it| {
        it.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let root = ca("root");
    let expired = ca_with(Some(&root), "expired", |it| {
        it.not_after = OffsetDateTime::now_utc() - Duration::minutes(5);
    });
    let foreign = ca_with(None, "foreign", |it| {
        let uri = "spiffe://other.test".try_into().unwrap();
        it.subject_alt_names.push(SanType::URI(uri));
    });
    let with_key = |key: String| {
        let mut object = tls_secret(&secret, &root.pem(), root.key(), "");
        object["data"]["tls.key"] = json!(ByteString(key.into_bytes()));
        object
    };
    let one = root.key().serialize_pem();
    let cases = [
        (
            "InvalidChain",
            "allows 0 CAs",
            below(&short, &issued_by(&short, "middle")),
        ),
        (
            "CertificateExpired",
            "the chain above",
            below(&root, &expired),
        ),
        (
            "OtherTrustDomain",
            "spiffe://other.test",
            tls_secret(&secret, &foreign.pem(), foreign.key(), ""),
        ),
        ("InvalidKey", "passphrase", with_key(encrypted(root.key()))),
        (
            "InvalidKey",
            "more than one",
            with_key(one.clone() + &ca("other").key().serialize_pem()),
        ),
    ];
    for (reason, words, object) in cases {
        apply(&world.client, &object).await.unwrap();
        let condition = world
            .trust_domain_condition_about("AuthorityReady", words)
            .await;
        assert_eq!((&*condition.status, &*condition.reason), ("False", reason));
    }
    assert!(states(&world).await.is_empty(), "no CA was made instead");
    apply(&world.client, &with_key(one)).await.unwrap();
    world.trust_domain_condition("Ready", "True").await;
    world.issue().await;
}

#[tokio::test]
async fn certificates_end_with_the_root_where_that_ends_before_the_ca() {
    let (world, secret) = world_and_secret().await;
    let root = ca_valid_for("root", Duration::hours(3));
    let lower = issued_by(&root, "lower");
    let object = tls_secret(&secret, &lower.pem(), lower.key(), &root.pem());
    apply(&world.client, &object).await.unwrap();
    let capped = world.trust_domain_condition("TTLCapped", "True").await;
    let pod = world.pod("web", &[("app", "web")]).await;
    let request = world.answer(&pod, &[]).await;
    world.verified_chain(&request).await;
    let end = request.status.unwrap().not_after.unwrap().0;
    let (_, parsed) = x509_parser::parse_x509_certificate(root.der()).unwrap();
    assert_eq!(end.as_second(), parsed.validity().not_after.timestamp());
    assert!(
        capped.message.contains(&end.to_string()),
        "{}",
        capped.message
    );
    let status = world.read_trust_domain().await.status.unwrap();
    assert_eq!(status.authorities[0].not_after, end.to_string());
}

#[tokio::test]
async fn another_root_above_the_same_ca_is_a_rotation() {
    let (world, secret) = world_and_secret().await;
    let root = ca("root");
    let lower = issued_by(&root, "lower");
    let write = async |root: &Ca| {
        let object = tls_secret(&secret, &lower.pem(), lower.key(), &root.pem());
        apply(&world.client, &object).await.unwrap();
    };
    write(&root).await;
    world.trust_domain_condition("Ready", "True").await;
    let renewed = renewed(&root, "root");
    write(&renewed).await;
    wait_until("both roots to be published", SOON, || async {
        let states = states(&world).await;
        let bundle = world.published_bundle().await;
        let has_both = [&root, &renewed]
            .iter()
            .all(|wanted| bundle.roots().any(|found| found == wanted.der()));
        (has_both && states == ["prepared", "active"])
            .then_some(())
            .ok_or(format!("{states:?}"))
    })
    .await;
    world.issue().await;
}

#[tokio::test]
async fn a_lost_journal_needs_no_consent_while_the_ca_is_in_its_secret_and_no_key_is_logged() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    own.ensure_namespace("spiffe-system").await;
    let debug = ["--log", "debug"];
    let first = Operator::start(&own, "spiffe-system", &debug).await;
    let (secret, good) = (unique("ca"), ca("good"));
    write(&world, &secret, &good).await;
    let authority = json!({ "authority": { "secretRef": { "name": secret } } });
    world.apply_trust_domain(authority).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    let before = world.issue().await;
    let known = world.read_trust_domain().await.status.unwrap().authorities;

    first.signal("KILL");
    first.ended(SOON).await;
    let secrets = Api::<Secret>::namespaced(world.client.clone(), "spiffe-system");
    let journal = format!("{}.authority", world.class);
    secrets
        .delete(&journal, &DeleteParams::default())
        .await
        .unwrap();
    release_lease(&world.client).await;
    let second = Operator::start(&own, "spiffe-system", &debug).await;
    wait_until("the journal to be begun anew", SOON, || async {
        let found = secrets
            .get_opt(&journal)
            .await
            .map_err(|it| it.to_string())?;
        found.map(|_| ()).ok_or_else(|| "none".to_owned())
    })
    .await;
    world.issue().await;
    world.trust_domain_condition("Ready", "True").await;
    let status = world.read_trust_domain().await.status.unwrap();
    assert_eq!(status.authorities, known);
    let published = world.published_bundle().await;
    verify_x509_svid(&before, &published, Timestamp::now()).unwrap();

    // A key of another form, and one that is cut off.
    let data = secrets.get(&journal).await.unwrap().data.unwrap();
    let entry = data.keys().find(|key| *key != DOCUMENT).unwrap();
    let mut cut = data[entry].0.clone();
    cut.truncate(cut.len() / 2);
    let change = json!({ "data": { entry: ByteString(cut) } });
    merge_patch(&secrets, &journal, change).await;
    world
        .trust_domain_reason("AuthorityReady", "KeysDamaged")
        .await;
    let other = ca("other");
    let object = tls_secret(&secret, &good.pem(), other.key(), "");
    apply(&world.client, &object).await.unwrap();
    merge_patch(&secrets, &journal, json!({ "data": data })).await;
    world
        .trust_domain_reason("AuthorityReady", "KeyMismatch")
        .await;

    let logs = first.log() + &second.log();
    assert!(logs.contains("authority went forward"), "{logs}");
    for key in [good.key(), other.key()] {
        let pem = key.serialize_pem();
        let encoded = serde_json::to_string(&ByteString(pem.clone().into_bytes())).unwrap();
        let lines = pem.lines().filter(|line| !line.starts_with("---"));
        for secret in lines.chain([&encoded[40..100]]) {
            assert!(
                !logs.contains(secret.trim_end_matches('=')),
                "a key was logged"
            );
        }
    }
}
