//! What users see: pods of a real kubelet, served by the operator in its own pod, from its image,
//! with the rights and restrictions of `config/default`.

use serde_json::{Value, json};
use spiffe_operator::{
    api::{CaKeyType, CaSubject},
    authority::{CertificateAuthority, PrivateKey, SvidRequest},
    spiffe::{RequestedKey, TrustDomainName},
};
use tokio::sync::OnceCell;

use crate::support::{self, NodeCluster, SOON, apply, unique, unique_trust_domain, wait_until};

/// Where pods find their credentials.
const FOLDER: &str = "/run/secrets/workload-spiffe-credentials";
/// The trust domain of the examples, which serves objects without a class.
const TRUST_DOMAIN: &str = "example.org";

#[tokio::test]
async fn a_pod_reads_key_certificate_and_bundle_from_its_volume() {
    let cluster = cluster().await;
    let namespace = namespace(cluster, "files").await;
    register(
        cluster,
        &namespace,
        json!({ "autoPopulateDNSNames": false }),
    )
    .await;
    make_pod(cluster, &namespace, "web", json!({})).await;
    cluster.ready(&namespace, "web").await;

    let bundle = format!("{FOLDER}/{TRUST_DOMAIN}.spiffe-trust-bundle.pem");
    let credentials = format!("{FOLDER}/credential-bundle.pem");
    let exec = |command: &[&str]| cluster.exec(&namespace, "web", command);
    assert!(
        exec(&["cat", &credentials])
            .unwrap()
            .starts_with("-----BEGIN PRIVATE KEY-----")
    );
    let shown = exec(&["workload", "show"]).unwrap();
    let id = format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/default");
    assert!(shown.contains(&id), "{shown}");
    // Two foreign verifiers, each against the pod's own copy of the bundle.
    let untrusted = ["-untrusted", &credentials, &credentials];
    let verified = exec(
        &[
            &["openssl", "verify", "-x509_strict", "-CAfile", &bundle],
            &untrusted[..],
        ]
        .concat(),
    );
    assert!(
        verified.as_ref().is_ok_and(|said| said.contains(": OK")),
        "{verified:?}"
    );
    let verified = exec(&[
        "workload",
        "verify",
        "--trust-domain",
        TRUST_DOMAIN,
        &bundle,
        &credentials,
    ]);
    assert_eq!(verified.unwrap().trim(), id);
    let told = cluster.event(&namespace, "web", "IdentityIssued").await;
    assert!(told.contains(&id), "{told}");
}

#[tokio::test]
async fn pods_speak_mutual_tls_through_a_service_and_refuse_strangers() {
    let cluster = cluster().await;
    cluster
        .apply("examples/cluster-spiffe-id.yaml", false)
        .await;
    cluster
        .apply("examples/server-and-client.yaml", false)
        .await;
    let rollout = "rollout status deployment/server deployment/client --timeout=120s";
    cluster.kubectl(&format!("-n spiffe-demo {rollout}"));

    let id = |name| format!("spiffe://{TRUST_DOMAIN}/ns/spiffe-demo/sa/{name}");
    let address = "server.spiffe-demo.svc.cluster.local:8443";
    let dial = |from, peer: &str| {
        let command = ["workload", "dial", address, "--id", peer];
        cluster.exec("spiffe-demo", from, &command)
    };
    let answered = wait_until("the Service to reach the server", SOON, || async {
        dial("deploy/client", &id("server"))
    });
    let expected = format!("{} answered: hello {}\n", id("server"), id("client"));
    assert_eq!(answered.await, expected);
    let shown = cluster
        .exec("spiffe-demo", "deploy/server", &["workload", "show"])
        .unwrap();
    assert!(
        shown.contains("server.spiffe-demo.svc.cluster.local"),
        "{shown}"
    );
    // The server serves the client only, and the client wants the server only.
    assert!(dial("deploy/server", &id("server")).is_err());
    assert!(dial("deploy/client", &id("client")).is_err());
}

#[tokio::test]
async fn an_unregistered_pod_waits_with_an_event_and_starts_once_registered() {
    let cluster = cluster().await;
    let namespace = namespace(cluster, "waits").await;
    make_pod(cluster, &namespace, "latecomer", json!({})).await;
    let told = cluster
        .event(&namespace, "latecomer", "NotRegistered")
        .await;
    assert!(told.contains("ClusterSPIFFEID"), "{told}");
    let pod = cluster.get(&namespace, "pod latecomer").unwrap();
    assert_eq!(pod["status"]["phase"], "Pending");

    register(cluster, &namespace, json!({})).await;
    cluster.ready(&namespace, "latecomer").await;
}

#[tokio::test]
async fn a_pod_chooses_among_its_own_identities_and_waits_for_others() {
    let cluster = cluster().await;
    let namespace = namespace(cluster, "hints").await;
    register(cluster, &namespace, json!({})).await;
    let billing = format!("spiffe://{TRUST_DOMAIN}/{namespace}/billing");
    let second = json!({ "spiffeIDTemplate": billing, "hint": "billing" });
    register(cluster, &namespace, second).await;
    let hint = |hint: &str| json!({ "userAnnotations": { "spiffe-operator.io/hint": hint } });
    make_pod(cluster, &namespace, "right", hint("billing")).await;
    make_pod(cluster, &namespace, "wrong", hint("admin")).await;

    cluster.ready(&namespace, "right").await;
    let shown = cluster
        .exec(&namespace, "right", &["workload", "show"])
        .unwrap();
    assert!(shown.contains(&billing), "{shown}");
    let told = cluster.event(&namespace, "wrong", "IdentityNotOwn").await;
    assert!(told.contains("admin") && told.contains(&billing), "{told}");
    let pod = cluster.get(&namespace, "pod wrong").unwrap();
    assert_eq!(pod["status"]["phase"], "Pending");
}

#[tokio::test]
async fn a_denied_pod_says_why() {
    let cluster = cluster().await;
    let namespace = namespace(cluster, "denied").await;
    register(cluster, &namespace, json!({})).await;
    let unknown = json!({ "userAnnotations": { "example.com/colour": "blue" } });
    make_pod(cluster, &namespace, "web", unknown).await;
    let told = cluster.event(&namespace, "web", "IdentityDenied").await;
    assert!(told.contains("InvalidUnverifiedUserAnnotations"), "{told}");
    assert!(told.contains("example.com/colour"), "{told}");
    // The kubelet's own event repeats it.
    let told = cluster.event(&namespace, "web", "Denied").await;
    assert!(told.contains("example.com/colour"), "{told}");
}

#[tokio::test]
async fn the_operator_runs_without_root_and_cannot_write_its_file_system() {
    let cluster = cluster().await;
    let pods = cluster
        .get(
            "spiffe-system",
            "pods -l app.kubernetes.io/name=spiffe-operator",
        )
        .unwrap();
    let pod = &pods["items"][0];
    assert_eq!(
        pod["status"]["containerStatuses"][0]["restartCount"], 0,
        "{pod}"
    );
    let restrictions = &pod["spec"]["containers"][0]["securityContext"];
    assert_eq!(restrictions["capabilities"]["drop"], json!(["ALL"]));
    // A second container in the operator's process namespace looks at its first process.
    let name = pod["metadata"]["name"].as_str().unwrap();
    let look = "grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' /proc/1/status; \
                grep -E '^[^ ]+ / ' /proc/1/mounts; tr '\\0' ' ' < /proc/1/cmdline";
    let container = unique("look");
    let image = "--image=localhost/spiffe-workload:dev";
    cluster
        .try_kubectl(&[
            "-n",
            "spiffe-system",
            "debug",
            name,
            image,
            "--image-pull-policy=IfNotPresent",
            "--profile=restricted",
            "--target=operator",
            "--container",
            &container,
            "--",
            "sh",
            "-c",
            look,
        ])
        .unwrap();
    let seen = wait_until("the look at the operator's process", SOON, || async {
        let seen = cluster.try_kubectl(&["-n", "spiffe-system", "logs", name, "-c", &container])?;
        if seen.contains("spiffe-operator run") {
            Ok(seen)
        } else {
            Err(seen)
        }
    })
    .await;
    let line = |start: &str| {
        seen.lines()
            .find(|line| line.starts_with(start))
            .unwrap_or(&seen)
    };
    assert_eq!(
        line("Uid:").split_whitespace().nth(1),
        Some("65532"),
        "{seen}"
    );
    assert_eq!(
        line("CapEff:").split_whitespace().nth(1),
        Some("0000000000000000"),
        "{seen}"
    );
    assert_eq!(
        line("NoNewPrivs:").split_whitespace().nth(1),
        Some("1"),
        "{seen}"
    );
    assert_eq!(
        line("Seccomp:").split_whitespace().nth(1),
        Some("2"),
        "{seen}"
    );
    assert!(line("overlay / ").contains(" ro,"), "{seen}");
}

#[tokio::test]
async fn a_trust_domain_made_again_goes_on_with_the_same_root() {
    let cluster = cluster().await;
    let client = cluster.control_plane().client().await;
    let (name, trust_domain) = (unique("again"), unique_trust_domain());
    let object = json!({
        "apiVersion": "spiffe-operator.io/v1alpha1",
        "kind": "TrustDomain",
        "metadata": { "name": name },
        "spec": {
            "trustDomain": trust_domain,
            "className": name,
            "authority": { "selfSigned": {} },
        },
    });
    let bundle = format!("clustertrustbundle spiffe-operator.io:{trust_domain}:bundle");
    let published =
        || async { Ok(cluster.get("default", &bundle)?["spec"]["trustBundle"].clone()) };
    apply(&client, &object).await.unwrap();
    let first = wait_until("the bundle", SOON, published).await;
    assert!(
        first
            .as_str()
            .is_some_and(|pem| pem.contains("CERTIFICATE")),
        "{first}"
    );

    cluster.kubectl(&format!("delete trustdomain {name} --timeout=60s"));
    wait_until("the bundle to go with its owner", SOON, || async {
        match cluster.get("default", &bundle) {
            Ok(still) => Err(still.to_string()),
            Err(said) if said.contains("NotFound") => Ok(()),
            Err(said) => Err(said),
        }
    })
    .await;
    apply(&client, &object).await.unwrap();
    assert_eq!(wait_until("the bundle again", SOON, published).await, first);
}

/// The kubelet fetches a new certificate where the old one says `beginRefreshAt`. The operator
/// says half of the lifetime, which is half an hour at the least, so here the test itself signs the
/// pod's first certificate, with the earliest `beginRefreshAt` that the API server accepts: 10
/// minutes after a `notBefore` that is 5 minutes ago. The second one is the operator's. The kubelet
/// adds up to 5 minutes by chance and looks every one or two, so this takes 6 to 12 minutes.
#[tokio::test]
#[ignore = "takes 6 to 12 minutes; run it with `make test-slow`"]
async fn a_certificate_is_renewed_in_a_running_pod() {
    let cluster = start().await;
    let namespace = namespace(&cluster, "renewed").await;
    register(&cluster, &namespace, json!({})).await;
    let replicas = |count: u8| {
        let scale = format!("scale deployment/spiffe-operator --replicas={count}");
        cluster.kubectl(&format!("-n spiffe-system {scale}"));
    };
    replicas(0);
    wait_until("the operator to be gone", SOON, || async {
        let pods = cluster.get("spiffe-system", "pods")?;
        if pods["items"] == json!([]) {
            Ok(())
        } else {
            Err(pods.to_string())
        }
    })
    .await;
    make_pod(&cluster, &namespace, "web", json!({})).await;
    let request = wait_until("the kubelet's request", SOON, || async {
        let requests = cluster.get(&namespace, "podcertificaterequests")?;
        Some(requests["items"][0].clone())
            .filter(Value::is_object)
            .ok_or_else(|| requests.to_string())
    })
    .await;
    sign_with_early_refresh(&cluster, &request);
    cluster.ready(&namespace, "web").await;
    let show = || cluster.exec(&namespace, "web", &["workload", "show"]);
    let first = show().unwrap();
    assert!(first.contains("spiffe://example.org/first"), "{first}");

    replicas(1);
    let id = format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/default");
    let renewal = std::time::Duration::from_mins(15);
    wait_until(
        "a certificate of the operator's in the pod",
        renewal,
        || async {
            show().and_then(|shown| {
                if shown.contains(&id) {
                    Ok(())
                } else {
                    Err(shown)
                }
            })
        },
    )
    .await;
    let pod = cluster.get(&namespace, "pod web").unwrap();
    assert_eq!(
        pod["status"]["containerStatuses"][0]["restartCount"], 0,
        "{pod}"
    );
}

/// Signs a request by a CA that is gone after it.
fn sign_with_early_refresh(cluster: &NodeCluster, request: &Value) {
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap();
    let after = |minutes: i64| now + jiff::SignedDuration::from_mins(minutes);
    let trust_domain: TrustDomainName = TRUST_DOMAIN.parse().unwrap();
    let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
    let subject = CaSubject::default();
    let ca = CertificateAuthority::self_signed(&trust_domain, &subject, key, after(-6), after(120))
        .unwrap();
    let csr = serde_json::from_value::<k8s_openapi::ByteString>(
        request["spec"]["stubPKCS10Request"].clone(),
    );
    let key = RequestedKey::from_pkcs10(&csr.unwrap().0).unwrap();
    // The API server wants `notBefore` within 5 minutes of its own clock.
    let start = now - jiff::SignedDuration::from_secs(4 * 60 + 50);
    let svid = ca
        .sign(&SvidRequest {
            id: &"spiffe://example.org/first".parse().unwrap(),
            dns_names: &[],
            public_key: key.public_key(),
            not_before: start,
            not_after: start + jiff::SignedDuration::from_hours(1),
        })
        .unwrap();
    let status = json!({ "status": {
        "conditions": [{
            "type": "Issued",
            "status": "True",
            "reason": "Issued",
            "message": "signed by the test",
            "lastTransitionTime": now.to_string(),
        }],
        "certificateChain": svid.to_pem(),
        "notBefore": svid.not_before.to_string(),
        "beginRefreshAt": (start + jiff::SignedDuration::from_mins(10)).to_string(),
        "notAfter": svid.not_after.to_string(),
    }});
    let name = request["metadata"]["name"].as_str().unwrap();
    let namespace = request["metadata"]["namespace"].as_str().unwrap();
    let patch = status.to_string();
    cluster
        .try_kubectl(&[
            "-n",
            namespace,
            "patch",
            "podcertificaterequest",
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])
        .unwrap();
}

/// The cluster that the tests of this process share.
async fn cluster() -> &'static NodeCluster {
    static SHARED: OnceCell<NodeCluster> = OnceCell::const_new();
    SHARED.get_or_init(start).await
}

/// A cluster with the operator and the trust domain of the examples.
async fn start() -> NodeCluster {
    let cluster = NodeCluster::start().await;
    cluster.apply("examples/trust-domain.yaml", false).await;
    cluster.kubectl("wait --for=condition=Ready trustdomain/example --timeout=60s");
    cluster
}

/// A namespace of the test's own, with its service account.
async fn namespace(cluster: &NodeCluster, purpose: &str) -> String {
    let client = cluster.control_plane().client().await;
    let namespace = support::namespace(&client, &[("purpose", purpose)]).await;
    wait_until("the default service account", SOON, || async {
        cluster.get(&namespace, "serviceaccount default")
    })
    .await;
    namespace
}

/// Registers the pods of a namespace; `spec` is merged into the ClusterSPIFFEID's spec.
async fn register(cluster: &NodeCluster, namespace: &str, spec: Value) {
    let template = "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}";
    let mut object = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterSPIFFEID",
        "metadata": { "name": unique(namespace) },
        "spec": {
            "spiffeIDTemplate": template,
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
        },
    });
    merge(&mut object["spec"], spec);
    apply(&cluster.control_plane().client().await, &object)
        .await
        .unwrap();
}

/// Makes a pod that waits; `projection` is merged into its `podCertificate` source.
async fn make_pod(cluster: &NodeCluster, namespace: &str, name: &str, projection: Value) {
    let signer = format!("spiffe-operator.io/{TRUST_DOMAIN}");
    let mut certificate = json!({
        "signerName": signer,
        "keyType": "ECDSAP256",
        "credentialBundlePath": "credential-bundle.pem",
    });
    merge(&mut certificate, projection);
    let bundle = json!({
        "signerName": signer,
        "labelSelector": { "matchLabels": {
            "k8s.spiffe.io/workload-trust-domain": TRUST_DOMAIN,
            "k8s.spiffe.io/canarying": "live",
        }},
        "path": format!("{TRUST_DOMAIN}.spiffe-trust-bundle.pem"),
    });
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": "localhost/spiffe-workload:dev",
                "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "infinity"],
                "volumeMounts": [{ "name": "spiffe", "mountPath": FOLDER, "readOnly": true }],
            }],
            "volumes": [{ "name": "spiffe", "projected": { "sources": [
                { "podCertificate": certificate },
                { "clusterTrustBundle": bundle },
            ]}}],
        },
    });
    apply(&cluster.control_plane().client().await, &object)
        .await
        .unwrap();
}

fn merge(target: &mut Value, further: Value) {
    if let (Some(target), Value::Object(further)) = (target.as_object_mut(), further) {
        target.extend(further);
    }
}
