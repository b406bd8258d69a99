//! The kinds on a real API server: what it takes, what it refuses and how it says so, and the kinds
//! as spire-controller-manager installs them.

use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use spiffe_operator::{
    api::{
        ClusterSPIFFEID, ClusterSpiffeIdSpec, ClusterSpiffeIdStatus, ClusterStaticEntry,
        ClusterStaticEntryStatus, NestedClusterSpec, TrustDomainSpec,
        conditions::{READY, Report, merge},
        duration,
    },
    nested::AllowedNames,
};

use crate::support::{
    ControlPlane, Options, apply, apply_dry, control_plane, documents, install, unique,
    unique_trust_domain,
};

/// An object and one change to its spec: where, and to what. `null` takes the field away; without a
/// place the whole spec is another.
type Change = (&'static str, Value);

fn cluster_spiffe_id() -> Value {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterSPIFFEID",
        "metadata": { "name": unique("csid") },
        "spec": { "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/a" },
    })
}

fn cluster_static_entry() -> Value {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterStaticEntry",
        "metadata": { "name": unique("cse") },
        "spec": {
            "spiffeID": "spiffe://example.org/a",
            "parentID": "spiffe://example.org/spire/server",
            "selectors": ["unix:uid:0"],
        },
    })
}

fn registration_entry() -> Value {
    json!({
        "apiVersion": "spiffe-operator.io/v1alpha1",
        "kind": "RegistrationEntry",
        "metadata": { "name": unique("entry") },
        "spec": {
            "entryID": "a",
            "spiffeID": "spiffe://example.org/a",
            "parentID": "spiffe://example.org/spire/server",
            "selectors": ["unix:uid:0"],
        },
    })
}

fn federated_trust_domain() -> Value {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterFederatedTrustDomain",
        "metadata": { "name": unique("cftd") },
        "spec": {
            "trustDomain": "partner.example",
            "bundleEndpointURL": "https://partner.example/bundle",
            "bundleEndpointProfile": { "type": "https_web" },
        },
    })
}

fn trust_domain() -> Value {
    json!({
        "apiVersion": "spiffe-operator.io/v1alpha1",
        "kind": "TrustDomain",
        "metadata": { "name": unique("td") },
        "spec": { "trustDomain": unique_trust_domain(), "authority": { "selfSigned": {} } },
    })
}

fn nested_cluster() -> Value {
    json!({
        "apiVersion": "spiffe-operator.io/v1alpha1",
        "kind": "NestedCluster",
        "metadata": { "name": unique("nc") },
        "spec": {
            "trustDomainRef": { "name": "example" },
            "kubeConfig": { "secretRef": { "name": "child01" } },
        },
    })
}

#[tokio::test]
async fn a_cluster_spiffe_id_is_taken_where_it_can_work() {
    let accepted = [
        ("/ttl", json!("1.5h")),
        ("/ttl", json!("0")),
        ("/ttl", json!("300ms")),
        ("/jwtTtl", json!("1h30m10s")),
        ("/hint", json!("ä".repeat(512))),
        ("/namespaceSelector", json!({})),
        (
            "/podSelector",
            json!({ "matchExpressions": [{ "key": "a", "operator": "Exists" }] }),
        ),
        ("/podSelector", json!({ "matchLabels": { "a": "b" } })),
        (
            "/federatesWith",
            json!(["a.example", "spiffe://b.example", "under_score"]),
        ),
        ("/dnsNameTemplates", json!(["{{ .PodMeta.Name }}.x"])),
        ("/className", json!("")),
        ("/spiffeIDTemplate", json!("{{ does not parse")),
        ("/podSelector", json!(null)),
    ];
    let refused = [
        ("/spiffeIDTemplate", json!(""), "at least 1 chars"),
        ("/spiffeIDTemplate", json!(null), "Required value"),
        (
            "/ttl",
            json!("1d"),
            "spec.ttl: Invalid value: \"1d\": must be a duration as Go writes",
        ),
        ("/ttl", json!("-1h"), "zero or more"),
        ("/ttl", json!(""), "must be a duration"),
        ("/ttl", json!("9999999h"), "must be a duration"),
        ("/jwtTtl", json!("3600"), "spec.jwtTtl: Invalid value"),
        ("/hint", json!("ä".repeat(513)), "at most 1024 bytes"),
        (
            "/hint",
            json!("a".repeat(1025)),
            "may not be more than 1024",
        ),
        (
            "/federatesWith",
            json!(["Upper.example"]),
            "spec.federatesWith[0]",
        ),
        (
            "/podSelector",
            json!({ "matchExpressions": [{ "key": "a", "operator": "In" }] }),
            "In and NotIn need values",
        ),
        (
            "/namespaceSelector",
            json!({ "matchExpressions": [{ "key": "a", "operator": "Like" }] }),
            "Unsupported value: \"Like\"",
        ),
    ];
    check(cluster_spiffe_id, &accepted, &refused).await;
}

#[tokio::test]
async fn a_static_entry_is_taken_where_it_can_work() {
    let accepted = [
        (
            "/selectors",
            json!(["k8s:ns:a", "k8s:container-image:r:5000/a"]),
        ),
        ("/x509SVIDTTL", json!("90s")),
        ("/jwtSVIDTTL", json!("0")),
        ("/storeSVID", json!(true)),
        ("/hint", json!("one")),
    ];
    let refused = [
        ("/selectors", json!([]), "should have at least 1 items"),
        ("/selectors", json!(["unix"]), "spec.selectors[0]"),
        ("/selectors", json!([":x"]), "spec.selectors[0]"),
        ("/spiffeID", json!("example.org/a"), "spec.spiffeID"),
        ("/spiffeID", json!("spiffe://example.org"), "spec.spiffeID"),
        (
            "/parentID",
            json!("spiffe://Example.org/a"),
            "spec.parentID",
        ),
        ("/parentID", json!(null), "Required value"),
        ("/x509SVIDTTL", json!("1 day"), "must be a duration"),
        ("/jwtSVIDTTL", json!("-1s"), "zero or more"),
        (
            "/hint",
            json!("a".repeat(1025)),
            "may not be more than 1024",
        ),
        ("/federatesWith", json!([""]), "spec.federatesWith[0]"),
    ];
    check(cluster_static_entry, &accepted, &refused).await;
}

#[tokio::test]
async fn a_registration_entry_is_taken_where_spire_server_takes_it() {
    let accepted = [
        ("/entryID", json!("my.Entry-1_x")),
        ("/selectors", json!(["k8s:ns:a", "unix:uid:1"])),
        ("/x509SVIDTTL", json!("90s")),
        ("/jwtSVIDTTL", json!("2147483647s")),
        ("/dnsNames", json!(["a", "*.b", "A-_1.xn--b"])),
        ("/dnsNames", json!(["a".repeat(63)])),
        ("/spiffeID", json!("spiffe://example.org/.../spire/a.")),
        ("/federatesWith", json!(["f.org"])),
        ("/storeSVID", json!(true)),
        ("/expiresAt", json!(-1)),
        (
            "/additionalAttributes",
            json!({ "disableX509SVIDPrefetch": true, "jwtSVIDIncludeJTI": true }),
        ),
    ];
    let refused = [
        ("/entryID", json!(""), "spec.entryID"),
        ("/entryID", json!("a b"), "spec.entryID"),
        ("/entryID", json!("a".repeat(256)), "spec.entryID"),
        ("/selectors", json!([]), "should have at least 1 items"),
        ("/spiffeID", json!("spiffe://example.org"), "spec.spiffeID"),
        ("/parentID", json!(null), "Required value"),
        ("/x509SVIDTTL", json!("1 day"), "must be a duration"),
        (
            "/jwtSVIDTTL",
            json!("2147483648s"),
            "must be less than 2147483648s",
        ),
        ("/expiresAt", json!("tomorrow"), "spec.expiresAt"),
        (
            "/spiffeID",
            json!("spiffe://example.org/spire/agent/a"),
            "must not lie under /spire",
        ),
        (
            "/spiffeID",
            json!("spiffe://example.org/a/../b"),
            "no path segment",
        ),
        (
            "/parentID",
            json!("spiffe://example.org/."),
            "no path segment",
        ),
        (
            "/parentID",
            json!("spiffe://example.org.uk/a"),
            "must be of the trust domain of spiffeID",
        ),
        ("/dnsNames", json!(["a", "b:80"]), "spec.dnsNames[1]"),
        ("/dnsNames", json!(["-a"]), "spec.dnsNames[0]"),
        ("/dnsNames", json!(["a.*"]), "spec.dnsNames[0]"),
    ];
    check(registration_entry, &accepted, &refused).await;

    let client = control_plane().await.install_crds().await;
    let mut entry = registration_entry();
    entry["spec"]["storeSVID"] = json!(true);
    apply(&client, &entry).await.unwrap();
    let elsewhere = json!("spiffe://example.com/a");
    let mut moved = changed(entry.clone(), "/spiffeID", &elsewhere);
    moved["spec"]["parentID"] = elsewhere;
    let said = refusal(&client, &moved).await;
    assert!(said.contains("must stay in its trust domain"), "{said}");
    let unfetched = json!({ "disableX509SVIDPrefetch": true });
    let said = refusal(
        &client,
        &changed(entry, "/additionalAttributes", &unfetched),
    )
    .await;
    assert!(said.contains("exclude each other"), "{said}");
}

#[tokio::test]
async fn a_federated_trust_domain_is_taken_where_upstream_takes_it() {
    let spiffe = |id: &str| json!({ "type": "https_spiffe", "endpointSPIFFEID": id });
    let accepted = [
        ("/trustDomain", json!("spiffe://partner.example")),
        ("/bundleEndpointURL", json!("https://partner.example:8443")),
        ("/bundleEndpointURL", json!("https://[::1]:8443/a?b=c@d")),
        (
            "/bundleEndpointProfile",
            spiffe("spiffe://any.example/spire/server"),
        ),
        (
            "/bundleEndpointProfile",
            json!({ "type": "https_web", "endpointSPIFFEID": "" }),
        ),
        ("/trustDomainBundle", json!("no JSON")),
    ];
    let refused = [
        ("/trustDomain", json!("Partner!example"), "spec.trustDomain"),
        ("/trustDomain", json!("a".repeat(256)), "spec.trustDomain"),
        (
            "/bundleEndpointURL",
            json!("http://partner.example"),
            "must be an https URL",
        ),
        (
            "/bundleEndpointURL",
            json!("https://"),
            "must be an https URL",
        ),
        (
            "/bundleEndpointURL",
            json!("https://u:p@partner.example"),
            "without user name",
        ),
        (
            "/bundleEndpointURL",
            json!("partner.example"),
            "must be an https URL",
        ),
        (
            "/bundleEndpointProfile",
            json!({ "type": "https" }),
            "Unsupported value",
        ),
        (
            "/bundleEndpointProfile",
            json!({ "type": "https_spiffe" }),
            "SPIFFE ID of the endpoint",
        ),
        (
            "/bundleEndpointProfile",
            spiffe("https://x"),
            "SPIFFE ID of the endpoint",
        ),
        (
            "/bundleEndpointProfile",
            json!({ "type": "https_web", "endpointSPIFFEID": "spiffe://a.example" }),
            "must not be set with the profile https_web",
        ),
    ];
    check(federated_trust_domain, &accepted, &refused).await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn a_trust_domain_is_taken_where_it_can_work() {
    let signer = |name: &str| json!({ "signerName": name });
    let x509pop = |attestor: Value| json!({ "nodeAttestors": { "x509pop": attestor } });
    let bundle = json!({ "kind": "Secret", "name": "cas" });
    let accepted = [
        ("/server", x509pop(json!({ "caBundleRef": bundle }))),
        ("/server", x509pop(json!({ "spiffe": {} }))),
        (
            "/server",
            x509pop(json!({ "spiffe": { "svidPrefix": "" } })),
        ),
        ("/authority", json!({ "secretRef": { "name": "ca" } })),
        ("/trustDomain", json!("a".repeat(255))),
        ("/trustDomain", json!("under_score")),
        ("/caTTL", json!("36h")),
        ("/x509SVID", json!({ "ttl": "28h" })),
        ("/x509SVID", json!({})),
        ("/jwtSVID", json!({ "ttl": "28h", "keyType": "rsa-2048" })),
        ("/jwtSVID", json!({ "issuer": "https://id.example.org" })),
        ("/podCertificates", signer("example.com/a.b-c")),
        ("/bundleConfigMaps", json!({})),
        (
            "/bundleConfigMaps",
            json!({ "formats": ["jwks", "pem"], "name": "a.b" }),
        ),
        ("/clusterName", json!("Prod_1.eu")),
        ("/ignoreNamespaces", json!([])),
        ("/ignoreNamespaces", json!(["("])),
        (
            "/subject",
            json!({ "country": [], "organization": ["A"], "commonName": "B" }),
        ),
    ];
    let refused = [
        (
            "/trustDomain",
            json!("Example.org"),
            "must be a trust domain name",
        ),
        ("/trustDomain", json!(""), "must be a trust domain name"),
        (
            "/trustDomain",
            json!("a".repeat(256)),
            "may not be more than 255",
        ),
        (
            "/authority",
            json!({}),
            "exactly one of selfSigned, secretRef and upstream",
        ),
        ("/authority", json!(null), "Required value"),
        (
            "/authority",
            json!({ "selfSigned": {}, "secretRef": { "name": "ca" } }),
            "exactly one of selfSigned, secretRef and upstream",
        ),
        (
            "/authority",
            json!({ "upstream": { "spire": { "address": "a:1" } } }),
            "exactly one of k8sPSAT, x509pop, joinToken and workloadAPI",
        ),
        (
            "/authority",
            json!({ "upstream": { "spire": {
                "address": "a:1",
                "k8sPSAT": { "cluster": "a" },
                "workloadAPI": { "socketPath": "/a" },
            } } }),
            "exactly one of k8sPSAT, x509pop, joinToken and workloadAPI",
        ),
        (
            "/authority",
            json!({ "upstream": { "spire": {
                "address": "spire.example.org", "k8sPSAT": { "cluster": "a" },
            } } }),
            "spec.authority.upstream.spire.address",
        ),
        (
            "/authority",
            json!({ "upstream": { "spire": {
                "address": "a:1", "k8sPSAT": { "cluster": "a", "tokenFile": "../a" },
            } } }),
            "spec.authority.upstream.spire.k8sPSAT.tokenFile",
        ),
        (
            "/authority",
            json!({ "secretRef": { "name": "A" } }),
            "spec.authority.secretRef.name",
        ),
        ("/className", json!(""), "at least 1 chars"),
        ("/clusterName", json!("a/b"), "spec.clusterName"),
        ("/clusterName", json!(".."), "spec.clusterName"),
        ("/clusterDomain", json!("-"), "spec.clusterDomain"),
        ("/parentIDTemplate", json!(""), "at least 1 chars"),
        ("/ignoreNamespaces", json!([""]), "at least 1 chars"),
        ("/keyType", json!("ec-p521"), "Unsupported value"),
        (
            "/caTTL",
            json!("7d"),
            "spec.caTTL: Invalid value: \"7d\": must be a duration",
        ),
        ("/caTTL", json!("5h"), "spec.x509SVID.ttl: Invalid value"),
        (
            "/caTTL",
            json!("35h"),
            "spec.podCertificates.ttl: Invalid value",
        ),
        (
            "/x509SVID",
            json!({ "ttl": "28h1s" }),
            "must be at most a sixth of caTTL",
        ),
        ("/x509SVID", json!({ "ttl": "0" }), "must be at least 1s"),
        (
            "/jwtSVID",
            json!({ "ttl": "28h1s" }),
            "must be at most a sixth of caTTL",
        ),
        ("/jwtSVID", json!({ "ttl": "0" }), "must be at least 1s"),
        (
            "/jwtSVID",
            json!({ "keyType": "rsa-4096" }),
            "Unsupported value",
        ),
        ("/jwtSVID", json!({ "issuer": "" }), "at least 1 chars"),
        (
            "/podCertificates",
            json!({ "ttl": "59m" }),
            "must be at least 1h",
        ),
        (
            "/podCertificates",
            json!({ "ttl": "28h1s" }),
            "must be at most a sixth of caTTL",
        ),
        ("/podCertificates", signer("name"), "must be a signer name"),
        (
            "/podCertificates",
            signer("local/name"),
            "must be a signer name",
        ),
        (
            "/podCertificates",
            signer("example.com/a/b"),
            "must be a signer name",
        ),
        (
            "/podCertificates",
            signer("kubernetes.io/a"),
            "Kubernetes' own",
        ),
        (
            "/podCertificates",
            signer("x.kubernetes.io/a"),
            "Kubernetes' own",
        ),
        (
            "/bundleConfigMaps",
            json!({ "name": "A_" }),
            "spec.bundleConfigMaps.name",
        ),
        (
            "/bundleConfigMaps",
            json!({ "formats": [] }),
            "should have at least 1 items",
        ),
        (
            "/bundleConfigMaps",
            json!({ "formats": ["pem", "pem"] }),
            "duplicate entries",
        ),
        (
            "/bundleConfigMaps",
            json!({ "formats": ["der"] }),
            "Unsupported value",
        ),
        (
            "/server",
            x509pop(json!({})),
            "exactly one of caBundle, caBundleRef and spiffe",
        ),
        (
            "/server",
            x509pop(json!({ "caBundleRef": bundle, "spiffe": {} })),
            "exactly one of caBundle, caBundleRef and spiffe",
        ),
        (
            "/server",
            x509pop(json!({ "spiffe": { "svidPrefix": "nodes" } })),
            "svidPrefix",
        ),
        ("/deletionPolicy", json!("Keep"), "Unsupported value"),
        (
            "/subject",
            json!({ "country": ["DEU"] }),
            "spec.subject.country[0]",
        ),
        (
            "/subject",
            json!({ "country": ["US", "CH"] }),
            "must have at most 1 item",
        ),
        (
            "/subject",
            json!({ "organization": ["A", "B"] }),
            "must have at most 1 item",
        ),
        (
            "/subject",
            json!({ "organization": [""] }),
            "spec.subject.organization[0]",
        ),
        (
            "/subject",
            json!({ "commonName": "a".repeat(65) }),
            "may not be more than 64",
        ),
    ];
    check(trust_domain, &accepted, &refused).await;
}

#[tokio::test]
async fn only_a_ca_that_the_operator_makes_must_outlive_its_leaves_by_ca_ttl() {
    let client = control_plane().await.install_crds().await;
    let mut object = trust_domain();
    object["spec"]["caTTL"] = json!("1h");
    object["spec"]["authority"] = json!({ "secretRef": { "name": "ca" } });
    apply_dry(&client, &object).await.unwrap();
    // JWT keys are the operator's own in any case.
    object["spec"]["jwtSVID"] = json!({ "ttl": "11m" });
    assert!(refusal(&client, &object).await.contains("a sixth of caTTL"));
    object["spec"]["jwtSVID"] = json!({});
    object["spec"]["authority"] = json!({ "selfSigned": {} });
    assert!(refusal(&client, &object).await.contains("a sixth of caTTL"));
}

#[tokio::test]
async fn a_trust_domain_keeps_its_name() {
    let client = control_plane().await.install_crds().await;
    let mut object = trust_domain();
    apply(&client, &object).await.unwrap();
    object["spec"]["trustDomain"] = json!(unique_trust_domain());
    assert!(
        refusal(&client, &object)
            .await
            .contains("spec.trustDomain: Invalid value")
    );
    assert!(refusal(&client, &object).await.contains("must not change"));
}

#[tokio::test]
async fn the_defaults_of_the_schema_are_those_of_the_types() {
    let client = control_plane().await.install_crds().await;
    let by_type = |spec: &Value| {
        let typed: TrustDomainSpec = serde_json::from_value(spec.clone()).unwrap();
        serde_json::to_value(typed).unwrap()
    };
    let object = trust_domain();
    let stored = apply_dry(&client, &object).await.unwrap().data;
    assert_eq!(stored["spec"], by_type(&object["spec"]));
    let by_type = |spec: &Value| {
        let typed: NestedClusterSpec = serde_json::from_value(spec.clone()).unwrap();
        serde_json::to_value(typed).unwrap()
    };
    let mut object = nested_cluster();
    object["spec"]["bundle"] = json!({ "configMap": {} });
    object["spec"]["agents"] = json!({ "serviceAccountAllowList": ["ns:sa"] });
    let stored = apply_dry(&client, &object).await.unwrap().data;
    assert_eq!(stored["spec"], by_type(&object["spec"]));
}

#[tokio::test]
async fn schema_and_parser_agree_on_durations() {
    let client = control_plane().await.install_crds().await;
    for value in [
        "0",
        "-0",
        "+0",
        "0s",
        "-0s",
        "1h",
        "90m",
        "1.5h",
        "300ms",
        "1h30m10s",
        ".5s",
        "1.s",
        "+2s",
        "1us",
        "1µs",
        "1μs",
        "1ns",
        "1h1h",
        "2562047h47m16.854775807s",
        "9223372036854775807ns",
        "9223372036854775808ns",
        "2562048h",
        "-1h",
        "-1ns",
        "",
        " ",
        "1d",
        "1w",
        "1 h",
        "1h ",
        " 1h",
        "3600",
        "h",
        ".",
        ".s",
        "-",
        "+",
        "1..5s",
        "1.5.5s",
        "1hh",
        "--1h",
        "+-1h",
        "1e3s",
        "1H",
        "1h-1m",
        "1,5h",
        "0x1s",
        "١h",
        "1h\n",
        "00",
        "0.0",
        "00h",
    ] {
        let mut object = cluster_spiffe_id();
        object["spec"]["ttl"] = json!(value);
        let outcome = apply_dry(&client, &object).await;
        let parsed = duration::parse(value);
        assert_eq!(
            outcome.is_ok(),
            parsed.is_ok(),
            "{value:?}: {outcome:?}, {parsed:?}"
        );
    }
}

#[tokio::test]
async fn a_nested_cluster_is_taken_where_it_can_work() {
    let kube_config = |field: &str, value: Value| {
        let mut source = json!({ "secretRef": { "name": "child01" } });
        source[field] = value;
        source
    };
    let with_key = json!({ "secretRef": { "name": "child01", "key": "value.yaml" } });
    let downstream = |downstream: &Value| {
        let mut spec = nested_cluster()["spec"].take();
        spec["mode"] = json!("Downstream");
        spec["downstream"] = downstream.clone();
        spec
    };
    let mut bound_downstream = downstream(&json!({}));
    bound_downstream["allowedIDs"] = json!(["/a"]);
    let accepted = [
        ("/clusterName", json!("Child_01.x")),
        ("/kubeConfig", with_key),
        ("/kubeConfig", kube_config("context", json!("a@b"))),
        (
            "/kubeConfig",
            kube_config(
                "impersonate",
                json!({ "user": "spire-root", "groups": ["g"] }),
            ),
        ),
        (
            "/kubeConfig",
            kube_config("insecureSkipTLSVerify", json!(true)),
        ),
        ("/mode", json!("Downstream")),
        ("", downstream(&json!({}))),
        (
            "",
            downstream(
                &json!({ "attestation": "WorkloadAPI", "ttl": "12h", "serviceAccountAllowList": ["a:b"] }),
            ),
        ),
        ("/credentials", json!("Managed")),
        ("/registration", json!({ "source": "Both" })),
        (
            "/allowedIDs",
            json!(["/a", "/ns/*/sa/web-*", "/a*b*c/*", "/x/**", "/**"]),
        ),
        (
            "/allowedDNSNames",
            json!(["a", "*.web.svc", "**.example.org", "a-*-b.x", "**"]),
        ),
        ("/uniqueIDs", json!("Deny")),
        ("/agents", json!({ "serviceAccountAllowList": ["ns:sa"] })),
        ("/bundle", json!({ "configMap": {} })),
        (
            "/bundle",
            json!({ "configMap": { "namespace": "n", "name": "b", "key": "bundle.crt", "format": "pem" } }),
        ),
        ("/cleanupTimeout", json!("0s")),
    ];
    let refused = [
        ("/trustDomainRef", json!(null), "Required value"),
        ("/kubeConfig", json!(null), "Required value"),
        (
            "/kubeConfig",
            json!({}),
            "spec.kubeConfig.secretRef: Required value",
        ),
        (
            "/kubeConfig",
            json!({ "secretRef": { "name": "Child" } }),
            "spec.kubeConfig.secretRef.name",
        ),
        (
            "/kubeConfig",
            kube_config("impersonate", json!({ "groups": ["g"] })),
            "spec.kubeConfig.impersonate.user: Required value",
        ),
        (
            "/kubeConfig",
            kube_config("impersonate", json!({ "user": "" })),
            "spec.kubeConfig.impersonate.user",
        ),
        ("/clusterName", json!("a/b"), "spec.clusterName"),
        ("/clusterName", json!(".."), "spec.clusterName"),
        ("/clusterName", json!(""), "spec.clusterName"),
        ("/mode", json!("Local"), "Unsupported value: \"Local\""),
        ("/downstream", json!({}), "spec.downstream: Invalid value: "),
        (
            "",
            downstream(&json!({ "serviceAccountAllowList": [] })),
            "spec.downstream.serviceAccountAllowList",
        ),
        (
            "",
            downstream(&json!({ "attestation": "JoinToken" })),
            "Unsupported value: \"JoinToken\"",
        ),
        (
            "",
            bound_downstream,
            "cannot bind a cluster of mode Downstream",
        ),
        ("/credentials", json!("None"), "Unsupported value"),
        ("/uniqueIDs", json!("Allow"), "Unsupported value"),
        (
            "/registration",
            json!({ "source": "All" }),
            "spec.registration.source: Unsupported value",
        ),
        ("/allowedIDs", json!([]), "should have at least 1 items"),
        ("/allowedIDs", json!(["ns/a"]), "spec.allowedIDs[0]"),
        ("/allowedIDs", json!(["/a/"]), "spec.allowedIDs[0]"),
        ("/allowedIDs", json!(["/**/a"]), "spec.allowedIDs[0]"),
        ("/allowedIDs", json!(["/a**"]), "spec.allowedIDs[0]"),
        ("/allowedIDs", json!(["spiffe://a/b"]), "spec.allowedIDs[0]"),
        (
            "/allowedDNSNames",
            json!(["a..b"]),
            "spec.allowedDNSNames[0]",
        ),
        (
            "/allowedDNSNames",
            json!(["a.**"]),
            "spec.allowedDNSNames[0]",
        ),
        ("/allowedDNSNames", json!(["A"]), "spec.allowedDNSNames[0]"),
        (
            "/agents",
            json!({ "serviceAccountAllowList": [] }),
            "spec.agents.serviceAccountAllowList",
        ),
        (
            "/bundle",
            json!({ "configMap": { "format": "der" } }),
            "spec.bundle.configMap.format: Unsupported value",
        ),
        (
            "/bundle",
            json!({ "configMap": { "key": "a/b" } }),
            "spec.bundle.configMap.key",
        ),
        ("/cleanupTimeout", json!("1d"), "must be a duration"),
    ];
    check(nested_cluster, &accepted, &refused).await;
}

#[tokio::test]
async fn schema_and_parser_agree_on_patterns() {
    let client = control_plane().await.install_crds().await;
    for pattern in [
        "", "/", "//", "/a", "/a/", "/a//b", "a", "a/b", "/A.b_c-1", "/*", "/a*", "/*a", "/a*b*c",
        "/**", "/a/**", "/**/a", "/a**", "/**a", "/***", "/a***", "/ä", "/a b", "/a\n", "/{a}",
        "*", "**", "*.a", "**.a", "a.**", "a.*", "a.*.b", "a*b.c", "***", "**.**", "a**.b", ".",
        "a.", ".a", "a..b", "A", "a_b", "-", "ä", "a/b", "a b", "a\n",
    ] {
        let patterns = [pattern.to_owned()];
        for (field, parsed) in [
            ("allowedIDs", AllowedNames::parse(Some(&patterns), None)),
            (
                "allowedDNSNames",
                AllowedNames::parse(None, Some(&patterns)),
            ),
        ] {
            let mut object = nested_cluster();
            object["spec"][field] = json!(patterns);
            let outcome = apply_dry(&client, &object).await;
            assert_eq!(
                outcome.is_ok(),
                parsed.is_ok(),
                "{field} {pattern:?}: {outcome:?}, {parsed:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_nested_cluster_keeps_its_name() {
    let client = control_plane().await.install_crds().await;
    let mut object = nested_cluster();
    apply(&client, &object).await.unwrap();
    object["spec"]["uniqueIDs"] = json!("Deny");
    apply(&client, &object).await.unwrap();
    object["spec"]["clusterName"] = json!("another");
    let said = refusal(&client, &object).await;
    assert!(
        said.contains("spec.clusterName: Invalid value") && said.contains("must not change"),
        "{said}"
    );
    let mut named = nested_cluster();
    named["spec"]["clusterName"] = json!("one");
    apply(&client, &named).await.unwrap();
    for name in [json!("two"), json!(null)] {
        let said = refusal(&client, &changed(named.clone(), "/clusterName", &name)).await;
        assert!(said.contains("must not change"), "{said}");
    }
}

#[tokio::test]
async fn samples_and_what_helm_installs_are_taken() {
    let client = control_plane().await.install_crds().await;
    for path in [
        "config/samples/clusterfederatedtrustdomain.yaml",
        "config/samples/clusterspiffeid.yaml",
        "config/samples/clusterstaticentry.yaml",
        "config/samples/nestedcluster.yaml",
        "config/samples/registrationentry.yaml",
        "config/samples/trustdomain.yaml",
        "tests/it/data/helm-chart.yaml",
    ] {
        for object in documents::<Value>(path) {
            let stored = apply_dry(&client, &object).await.unwrap();
            assert!(
                contains(&stored.data["spec"], &object["spec"]),
                "{path}: {stored:?}"
            );
        }
    }
}

/// Whether all of `part` is in `whole`, which may have defaults besides.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|found| contains(found, value))),
        _ => whole == part,
    }
}

#[tokio::test]
async fn upstreams_own_crds_will_do() {
    let own = ControlPlane::start(Options::default()).await;
    let client = own.client().await;
    install(&client, &documents("tests/it/data/upstream-crds.yaml")).await;

    let ids: Api<ClusterSPIFFEID> = Api::all(client.clone());
    let spec = ClusterSpiffeIdSpec {
        spiffe_id_template: "spiffe://{{ .TrustDomain }}/a".into(),
        pod_selector: Some(serde_json::from_value(json!({ "matchLabels": { "a": "b" } })).unwrap()),
        ..ClusterSpiffeIdSpec::default()
    };
    let id = ids
        .create(
            &PostParams::default(),
            &ClusterSPIFFEID::new("a", spec.clone()),
        )
        .await;
    assert_eq!(id.unwrap().spec, spec);
    let ready = [Report::new(READY, true, "Registered", "all is well")];
    let mut status = ClusterSpiffeIdStatus {
        conditions: merge(&[], &ready, Some(1), jiff::Timestamp::UNIX_EPOCH),
        observed_generation: Some(1),
        ..ClusterSpiffeIdStatus::default()
    };
    status.stats.pods_selected = 3;
    let written: ClusterSPIFFEID = write_status(&ids, "a", &status).await;
    let expected = ClusterSpiffeIdStatus {
        stats: status.stats,
        ..ClusterSpiffeIdStatus::default()
    };
    assert_eq!(
        written.status,
        Some(expected),
        "the counts stay, the rest is pruned"
    );

    apply(&client, &{
        let mut entry = cluster_static_entry();
        entry["metadata"]["name"] = json!("b");
        entry
    })
    .await
    .unwrap();
    let status = ClusterStaticEntryStatus {
        set: true,
        ..Default::default()
    };
    let entries: Api<ClusterStaticEntry> = Api::all(client);
    let written = write_status(&entries, "b", &status).await;
    assert_eq!(
        (written.name_any().as_str(), written.status),
        ("b", Some(status))
    );
}

/// By merge patch: server-side apply refuses fields that the schema does not have.
async fn write_status<K>(api: &Api<K>, name: &str, status: &impl serde::Serialize) -> K
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let patch = json!({ "status": status });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap()
}

/// Tries each change on an object of its own, without storing it.
async fn check(base: fn() -> Value, accepted: &[Change], refused: &[(&str, Value, &str)]) {
    let client = control_plane().await.install_crds().await;
    apply_dry(&client, &base()).await.unwrap();
    for (field, value) in accepted {
        if let Err(error) = apply_dry(&client, &changed(base(), field, value)).await {
            panic!("{field} = {value}: {error}");
        }
    }
    for (field, value, message) in refused {
        let said = refusal(&client, &changed(base(), field, value)).await;
        assert!(said.contains(message), "{field} = {value}: {said}");
    }
}

fn changed(mut object: Value, field: &str, value: &Value) -> Value {
    let spec = object["spec"].as_object_mut().unwrap();
    let name = field.trim_start_matches('/');
    if name.is_empty() {
        spec.clone_from(value.as_object().unwrap());
    } else if value.is_null() {
        spec.remove(name);
    } else {
        spec.insert(name.to_owned(), value.clone());
    }
    object
}

/// What the API server says when it refuses an object.
async fn refusal(client: &Client, object: &Value) -> String {
    match apply_dry(client, object).await {
        Err(kube::Error::Api(status)) => status.message.clone(),
        outcome => panic!("{object} was not refused: {outcome:?}"),
    }
}
