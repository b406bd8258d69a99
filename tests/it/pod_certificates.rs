//! What the signer gives, what it refuses for ever, and what it leaves waiting.

use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::PodCertificateRequest;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType};
use serde_json::{Value, json};

use crate::support::{
    ControlPlane, Kubelet, Options, SOON, World, certificate_pod, pod, unique, verdict, wait_until,
};

/// What a projection's `userAnnotations` say.
type Annotations<'a> = &'a [(&'a str, &'a str)];

/// An empty request, but for what `change` adds.
fn csr(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    change(&mut parameters);
    parameters.serialize_request(key).unwrap().der().to_vec()
}

/// Asks for a new pod with `csr` and `annotations`, and gives the pod and the answer.
async fn ask(
    world: &World,
    csr: &[u8],
    annotations: &[(&str, &str)],
) -> (Pod, PodCertificateRequest) {
    let pod = world.pod(&unique("web"), &[("app", "web")]).await;
    let signer = world.signer();
    let request = wait_until("the request to be taken", SOON, || async {
        world
            .kubelet
            .request_with_csr(
                &signer,
                &pod,
                &world.service_account,
                annotations,
                csr.to_vec(),
            )
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    let answer = world.kubelet.answer(&request).await;
    (pod, answer)
}

#[tokio::test]
async fn what_can_never_become_right_is_denied_and_the_pod_says_why() {
    let world = World::new().await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    let key = KeyPair::generate().unwrap();
    let empty = csr(&key, |_| ());
    let with_subject = csr(&key, |it| {
        it.distinguished_name.push(DnType::CommonName, "root");
    });
    let with_id = csr(&key, |it| {
        let id = "spiffe://example.org/admin".try_into().unwrap();
        it.subject_alt_names.push(SanType::URI(id));
    });
    let own_id = world.usual_id();
    let id = "spiffe-operator.io/spiffe-id";
    let hint = "spiffe-operator.io/hint";
    let malformed = "InvalidUnverifiedUserAnnotations";
    let cases: [(&[u8], Annotations, &str, &str); 7] = [
        (&with_subject, &[], "RequestNotEmpty", "a subject"),
        (&with_id, &[], "RequestNotEmpty", "extensions"),
        (
            &empty,
            &[("example.com/id", "x")],
            malformed,
            "unknown key example.com/id",
        ),
        (
            &empty,
            &[(id, "spiffe://Example.org/x")],
            malformed,
            "Example.org",
        ),
        (&empty, &[(id, "web")], malformed, "\"web\""),
        (&empty, &[(hint, "")], malformed, "is empty"),
        (
            &empty,
            &[(id, &own_id), (hint, "main")],
            malformed,
            "not both",
        ),
    ];
    for (csr, annotations, reason, words) in cases {
        let (pod, answer) = ask(&world, csr, annotations).await;
        let verdict = verdict(&answer);
        assert_eq!(
            (verdict.type_.as_str(), verdict.reason.as_str()),
            ("Denied", reason),
            "{annotations:?}: {}",
            verdict.message
        );
        assert!(verdict.message.contains(words), "{}", verdict.message);
        assert!(answer.status.unwrap().certificate_chain.is_none());
        let uid = pod.uid().unwrap();
        let note = world.event(&world.namespace, &uid, "IdentityDenied").await;
        assert!(note.contains(reason) && note.contains(words), "{note}");
    }
}

#[tokio::test]
async fn every_key_type_of_a_volume_gets_a_certificate_for_exactly_that_key() {
    let world = World::new().await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let (_, answer) = ask(&world, &csr(&key, |_| ()), &[]).await;
        assert_certifies(&world, &answer, &key).await;
    }
    for size in [rcgen::RsaKeySize::_3072, rcgen::RsaKeySize::_4096] {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
        let (_, answer) = ask(&world, &csr(&key, |_| ()), &[]).await;
        assert_certifies(&world, &answer, &key).await;
    }
}

async fn assert_certifies(world: &World, answer: &PodCertificateRequest, key: &KeyPair) {
    let chain = world.verified_chain(answer).await;
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
}

#[tokio::test]
async fn keys_that_are_too_weak_get_no_certificate() {
    let world = World::new().await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    for key in [
        "rsa:1024",
        "rsa:2048",
        "ec -pkeyopt ec_paramgen_curve:secp224r1",
    ] {
        let arguments =
            format!("req -new -batch -nodes -outform DER -out csr -keyout key -newkey {key}");
        let made = std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .args(["-subj", "/"])
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let csr = std::fs::read(folder.path().join("csr")).unwrap();
        let pod = world.pod(&unique("web"), &[("app", "web")]).await;
        // A first request that is good, so that admission is known to know the pod.
        world.verified_chain(&world.answer(&pod, &[]).await).await;
        let signer = world.signer();
        let asked = world
            .kubelet
            .request_with_csr(&signer, &pod, &world.service_account, &[], csr)
            .await;
        match asked {
            Err(error) => assert!(error.to_string().contains("stubPKCS10Request"), "{error}"),
            Ok(request) => {
                let verdict = verdict(&world.kubelet.answer(&request).await);
                assert_eq!(verdict.reason, "UnsupportedKeyType", "{key}");
            }
        }
    }
}

#[tokio::test]
async fn oversized_requests_are_refused_and_hold_up_nobody() {
    let world = World::new().await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    let key = KeyPair::generate().unwrap();
    let large = csr(&key, |it| {
        it.distinguished_name
            .push(DnType::CommonName, "x".repeat(20_000));
    });
    let pod = world.pod("large", &[("app", "web")]).await;
    world.verified_chain(&world.answer(&pod, &[]).await).await;
    let signer = world.signer();
    let refused = world
        .kubelet
        .request_with_csr(&signer, &pod, &world.service_account, &[], large)
        .await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("stubPKCS10Request"), "{error}");
    // As much as the API server lets through.
    let hint = "h".repeat(200_000);
    let annotations = [("spiffe-operator.io/hint", hint.as_str())];
    let (pod, answer) = ask(&world, &csr(&key, |_| ()), &annotations).await;
    let verdict = verdict(&answer);
    assert_eq!(verdict.reason, "InvalidUnverifiedUserAnnotations");
    let uid = pod.uid().unwrap();
    let note = world.event(&world.namespace, &uid, "IdentityDenied").await;
    assert!(note.contains("1024"), "{note}");
    world.issue().await;
}

#[tokio::test]
async fn an_identity_that_is_not_the_pods_is_waited_for_and_its_own_are_named() {
    let world = World::new().await;
    world
        .apply_cluster_spiffe_id("web", json!({ "hint": "main" }))
        .await;
    let mut pods = 0;
    for (key, value) in [
        ("spiffe-operator.io/hint", "db"),
        (
            "spiffe-operator.io/spiffe-id",
            &format!("spiffe://{}/db", world.trust_domain),
        ),
    ] {
        let pod = world.pod(&unique("web"), &[("app", "web")]).await;
        let request = world.request(&pod, &[(key, value)]).await;
        let uid = pod.uid().unwrap();
        let note = world.event(&world.namespace, &uid, "IdentityNotOwn").await;
        for words in [value, &world.usual_id(), "main"] {
            assert!(note.contains(words), "{note}");
        }
        let id = world
            .apply_cluster_spiffe_id(
                "db",
                json!({ "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/db", "hint": "db" }),
            )
            .await;
        let answer = world.kubelet.answer(&request).await;
        assert!(
            verdict(&answer).message.ends_with("/db"),
            "{:?}",
            verdict(&answer)
        );
        world.verified_chain(&answer).await;
        world.delete_cluster_spiffe_id(&id).await;
        // Else the next pod has that identity, too.
        pods += 1;
        world.entries_are(pods).await;
    }
}

#[tokio::test]
async fn of_several_identities_the_oldest_objects_is_given_unless_another_is_asked_for() {
    let world = World::new().await;
    let hinted = |path: &str, hint: &str| {
        let template = format!("spiffe://{{{{ .TrustDomain }}}}/{path}");
        json!({ "spiffeIDTemplate": template, "hint": hint })
    };
    // By name and by path the second comes first.
    world
        .apply_cluster_spiffe_id("z", hinted("z", "first"))
        .await;
    world.a_second_later().await;
    world
        .apply_cluster_spiffe_id("a", hinted("a", "second"))
        .await;
    let pod = world.pod("web", &[("app", "web")]).await;
    world.entries_are(2).await;
    let a = format!("spiffe://{}/a", world.trust_domain);
    let z = format!("spiffe://{}/z", world.trust_domain);
    let cases: [(Annotations, &str); 4] = [
        (&[], &z),
        (&[("spiffe-operator.io/hint", "second")], &a),
        (&[("spiffe-operator.io/spiffe-id", &a)], &a),
        (&[("spiffe-operator.io/hint", "first")], &z),
    ];
    for (annotations, id) in cases {
        let answer = world.answer(&pod, annotations).await;
        world.verified_chain(&answer).await;
        let message = verdict(&answer).message;
        assert!(message.ends_with(id), "{annotations:?}: {message}");
    }
}

#[tokio::test]
async fn only_entries_that_hold_for_the_pod_as_a_whole_are_given() {
    let world = World::new().await;
    let selectors = |selector: &str| json!({ "workloadSelectorTemplates": [selector] });
    let id = world
        .apply_cluster_spiffe_id("web", selectors("k8s:container-name:main"))
        .await;
    let pod = world.pod("web", &[("app", "web")]).await;
    let request = world.request(&pod, &[]).await;
    let uid = pod.uid().unwrap();
    let note = world.event(&world.namespace, &uid, "NotEligible").await;
    assert!(note.contains("containers"), "{note}");
    world.delete_cluster_spiffe_id(&id).await;
    let namespace = "k8s:ns:{{ .PodMeta.Namespace }}";
    world
        .apply_cluster_spiffe_id("own", selectors(namespace))
        .await;
    world
        .verified_chain(&world.kubelet.answer(&request).await)
        .await;
}

#[tokio::test]
async fn lifetimes_are_right_to_the_second() {
    let world = World::new().await;
    let hours = SignedDuration::from_hours;
    for (entry_ttl, max_seconds, lifetime) in [
        (None, 86_400, hours(6)),
        (Some("2h"), 86_400, hours(2)),
        (Some("48h"), 86_400, hours(24)),
        (Some("5m"), 86_400, hours(1)),
        (Some("6h"), 3600, hours(1)),
        (Some("6h"), 3601, SignedDuration::from_secs(3601)),
    ] {
        let changes = entry_ttl.map_or(json!({}), |ttl| json!({ "ttl": ttl }));
        world.apply_cluster_spiffe_id("web", changes).await;
        let pod = world.pod(&unique("web"), &[("app", "web")]).await;
        let answer = wait_until("a certificate of the new lifetime", SOON, || async {
            let answer = world.answer_within(&pod, max_seconds).await;
            let status = answer.status.clone().unwrap();
            let (start, end) = (status.not_before.unwrap().0, status.not_after.unwrap().0);
            // The change of the entry may not have been seen yet.
            if start.duration_until(end) == lifetime {
                Ok(answer)
            } else {
                Err(format!(
                    "{entry_ttl:?}, at most {max_seconds} s: {start} to {end}"
                ))
            }
        })
        .await;
        let status = answer.status.clone().unwrap();
        let (start, refresh) = (
            status.not_before.unwrap().0,
            status.begin_refresh_at.unwrap().0,
        );
        assert_eq!(
            start.duration_until(refresh).as_secs(),
            lifetime.as_secs() / 2
        );
        let signed = answer.status.as_ref().unwrap().conditions.clone().unwrap()[0]
            .last_transition_time
            .0;
        assert_eq!(start.duration_until(signed).as_secs(), 60, "back-dating");
        world.verified_chain(&answer).await;
    }
}

/// A trust domain on an API server of its own, started with `arguments`.
async fn world_on(arguments: &[&str]) -> (ControlPlane, World) {
    let own = ControlPlane::start(Options {
        apiserver_args: arguments.iter().map(ToString::to_string).collect(),
        ..Options::default()
    })
    .await;
    let world = World::without_trust_domain(&own).await;
    (own, world)
}

#[tokio::test]
async fn where_v1beta1_is_served_older_kubelets_bare_keys_are_answered_too() {
    let arguments = ["--runtime-config=certificates.k8s.io/v1beta1=true"];
    let (own, world) = world_on(&arguments).await;
    let _operator = World::operator(&own).await;
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.issue().await;

    let kubelet = Kubelet::new(&own, &world.node)
        .await
        .with_version("v1beta1");
    let key = KeyPair::generate().unwrap();
    let pod = world.pod("old", &[("app", "web")]).await;
    let uid = pod.uid().unwrap();
    let proof = |signed: &[u8]| {
        let signature = rcgen::SigningKey::sign(&key, signed).unwrap();
        json!({
            "pkixPublicKey": ByteString(key.subject_public_key_info()),
            "proofOfPossession": ByteString(signature),
        })
    };
    let signer = world.signer();
    let ask = async |key: Value| {
        let account = &world.service_account;
        wait_until("the request to be taken", SOON, || async {
            kubelet
                .request_with(&signer, &pod, account, key.clone())
                .await
                .map_err(|error| error.to_string())
        })
        .await
    };
    let answer = kubelet.answer(&ask(proof(uid.as_bytes())).await).await;
    assert_certifies(&world, &answer, &key).await;
}

#[tokio::test]
async fn a_cluster_without_pod_certificates_is_told_so_and_has_all_else() {
    let arguments = [
        "--feature-gates=PodCertificateRequest=false",
        "--runtime-config=certificates.k8s.io/v1/podcertificaterequests=false",
    ];
    let (own, world) = world_on(&arguments).await;
    let operator = World::operator(&own).await;
    world
        .apply_trust_domain(json!({ "bundleConfigMaps": {} }))
        .await;
    let id = world.apply_cluster_spiffe_id("web", json!({})).await;
    let served = world
        .trust_domain_reason("PodCertificates", "APINotServed")
        .await;
    assert_eq!(served.status, "False");
    assert!(served.message.contains("1.37"), "{}", served.message);
    world.trust_domain_condition("Ready", "True").await;
    world
        .trust_domain_condition("BundlePublished", "True")
        .await;
    assert_eq!(world.published_bundle().await.roots().count(), 1);
    let labels = [("app", "web")];
    let spec = json!({ "serviceAccountName": "workload" });
    pod(
        &world.client,
        &world.namespace,
        "web",
        &world.node.name_any(),
        &labels,
        spec,
    )
    .await;
    world
        .cluster_spiffe_id_stats(&id, |stats| stats.entries_to_set == 1)
        .await;
    operator.ready().await;
}

#[tokio::test]
async fn requests_for_other_signers_are_left_alone() {
    let world = World::new().await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    let pod = world.pod_of_signer("other", "example.com/signer").await;
    let (_, request) = world
        .kubelet
        .request("example.com/signer", &pod, &world.service_account, &[])
        .await;
    // By the time that a later request is answered, the earlier one would be.
    world.issue().await;
    assert!(
        world
            .kubelet
            .read(&request)
            .await
            .status
            .is_none_or(|it| it.conditions.is_none())
    );
}

#[tokio::test]
async fn a_pod_of_another_trust_domain_in_the_same_cluster_waits() {
    let (mine, other) = (World::new().await, World::new().await);
    mine.apply_cluster_spiffe_id("web", json!({})).await;
    let spec = certificate_pod(&other.signer(), "workload");
    let node = mine.node.name_any();
    let labels = [("app", "web")];
    let pod = pod(&mine.client, &mine.namespace, "web", &node, &labels, spec).await;
    let (_, request) = mine
        .kubelet
        .request(&other.signer(), &pod, &mine.service_account, &[])
        .await;
    let uid = pod.uid().unwrap();
    let told = mine.event(&mine.namespace, &uid, "NotRegistered").await;
    assert!(told.contains(&other.trust_domain), "{told}");
    assert!(
        mine.kubelet
            .read(&request)
            .await
            .status
            .is_none_or(|it| it.conditions.is_none())
    );
}
