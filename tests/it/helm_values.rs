//! What the chart makes of its values, and how it refuses those that are wrong.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{CHART, apply_dry, control_plane, documents, helm, unique};

const KUBECONFIG: &str = "\
clusters: [{name: a, cluster: {server: 'https://child.example'}}]
users: [{name: a, user: {token: secret}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
";

/// What helm makes of values, besides those that every release needs.
async fn rendered(flags: &[&str]) -> Result<Vec<Value>, String> {
    let common = [
        "template",
        "spiffe",
        CHART,
        "--namespace",
        "spiffe-system",
        "--set",
        "trustDomain=example.org",
    ];
    let manifests = helm(&[&common, flags].concat()).await?;
    Ok(serde_saphyr::from_multiple(&manifests).unwrap())
}

/// The object of a kind with this name.
fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects
        .iter()
        .filter(|it| it["kind"] == kind && it["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// `text` in lines of 40 characters, as `base64` without `-w0` has them.
fn in_lines(text: &str) -> String {
    let lines = text.as_bytes().chunks(40).map(String::from_utf8_lossy);
    let lines: Vec<_> = lines.collect();
    lines.join("\n") + "\n"
}

/// The flag of helm that sets `kubeConfigs.child01.<key>`.
fn child(key: &str, value: &str) -> String {
    format!("kubeConfigs.child01.{key}={value}")
}

#[tokio::test]
async fn the_chart_passes_helms_own_lint() {
    let said = helm(&["lint", "--strict", CHART]).await.unwrap();
    assert!(!said.contains("[WARNING]"), "{said}");
}

#[tokio::test]
async fn every_form_of_a_kubeconfig_makes_the_same_secret_and_nested_cluster() {
    let once = base64(KUBECONFIG);
    let without_padding = once.trim_end_matches('=').replace('+', "-");
    let forms = [
        ("--set", child("kubeConfigBase64", &once)),
        ("--set", child("kubeConfigBase64", &in_lines(&once))),
        ("--set", child("kubeConfigBase64", &base64(&once))),
        (
            "--set",
            child("kubeConfigBase64", &base64(&in_lines(&once))),
        ),
        ("--set", child("kubeConfigBase64", &without_padding)),
        (
            "--set",
            format!("external-spire-server.kubeConfigs.child01.kubeConfigBase64={once}"),
        ),
        (
            "--set-json",
            child("kubeConfig", &json!(KUBECONFIG).to_string()),
        ),
    ];
    for (flag, value) in &forms {
        let objects = rendered(&[flag, value]).await.unwrap();
        let secret = find(&objects, "Secret", "child01.kubeconfig");
        assert_eq!(secret["metadata"]["namespace"], "spiffe-system");
        assert_eq!(secret["data"], json!({ "kubeconfig": once }), "{value}");
        let cluster = find(&objects, "NestedCluster", "child01");
        let expected = json!({
            "trustDomainRef": { "name": "example.org" },
            "kubeConfig": { "secretRef": { "name": "child01.kubeconfig", "key": "kubeconfig" } },
        });
        assert_eq!(cluster["spec"], expected, "{value}");
    }
}

#[tokio::test]
async fn further_keys_go_where_the_spec_has_them() {
    let values = json!({
        "child01": {
            "secretRef": { "name": "mine", "key": "config" },
            "kubeConfig": "",
            "impersonate": { "user": "spire-root" },
            "insecureSkipTLSVerify": true,
            "context": "here",
            "trustDomainRef": { "name": "other" },
            "allowedIDs": ["/child01/**"],
            "mode": "Remote",
        },
        "gone": null,
    });
    let flag = format!("kubeConfigs={values}");
    let objects = rendered(&["--set-json", &flag]).await.unwrap();
    assert!(!objects.iter().any(|it| it["kind"] == "Secret"));
    let spec = &find(&objects, "NestedCluster", "child01")["spec"];
    let expected = json!({
        "trustDomainRef": { "name": "other" },
        "kubeConfig": {
            "secretRef": { "name": "mine", "key": "config" },
            "impersonate": { "user": "spire-root" },
            "insecureSkipTLSVerify": true,
            "context": "here",
        },
        "allowedIDs": ["/child01/**"],
        "mode": "Remote",
    });
    assert_eq!(*spec, expected);
}

/// Asserts that each of these values is refused with this text.
async fn are_refused(cases: &[(&str, &str)]) {
    for (value, expected) in cases {
        let problem = rendered(&["--set", value]).await.unwrap_err();
        assert!(problem.contains(expected), "{value}: {problem}");
    }
}

#[tokio::test]
async fn a_kubeconfig_that_is_none_is_refused_by_a_sentence_that_names_the_value() {
    let once = base64(KUBECONFIG);
    let thrice = base64(&base64(&once));
    let path = "external-spire-server.kubeConfigs.child01.kubeConfigBase64";
    let in_base64 = |text: &str| child("kubeConfigBase64", &base64(text));
    are_refused(&[
        (&format!("{path}=#"), &format!("{path} is no base64")),
        (&format!("{path}={}", &once[1..]), &format!("{path} is no")),
        (
            &child("kubeConfigBase64", "clusters: a"),
            "kubeConfigBase64 is no base64",
        ),
        (
            &child("kubeConfigBase64", ""),
            "kubeConfigs.child01 has no kubeconfig",
        ),
        (
            &child("mode", "Remote"),
            "kubeConfigs.child01 has no kubeconfig",
        ),
        (
            &in_base64("hello: world"),
            "kubeConfigs.child01.kubeConfigBase64 is no kubeconfig: that is YAML or JSON with \
             clusters, users and contexts, and this has no clusters, users, contexts",
        ),
        (
            &in_base64("clusters: [{}]\nusers: [{}]"),
            "and this has no contexts",
        ),
        (&in_base64("\0\u{1}"), "kubeConfigBase64 is no kubeconfig"),
        (
            &child("kubeConfigBase64", &thrice),
            "is in base64 more than twice",
        ),
        (
            &child("kubeConfig", &once),
            "belongs into kubeConfigs.child01.kubeConfigBase64",
        ),
        (
            &child("kubeConfig", "path/to/file"),
            "child01.kubeConfig is no kubeconfig",
        ),
    ])
    .await;
    let flag = in_base64("token: secret");
    let problem = rendered(&["--set", &flag]).await.unwrap_err();
    for secret in ["secret", &base64("token: secret")] {
        assert!(!problem.contains(secret), "{problem}");
    }
}

#[tokio::test]
async fn clashing_and_unknown_values_are_refused_by_a_sentence_that_names_them() {
    let secret = child("secretRef.name", "a");
    let once = base64(KUBECONFIG);
    let two_forms = format!("{secret},{}", child("kubeConfigBase64", &once));
    are_refused(&[
        (
            &two_forms,
            "kubeConfigs.child01 has kubeConfigBase64 and secretRef: give one of them",
        ),
        (
            &format!("{secret},external-spire-server.{secret}"),
            "external-spire-server.kubeConfigs.child01 and kubeConfigs.child01 are the same",
        ),
        (
            "kubeConfigs.Child_01.secretRef.name=a",
            "kubeConfigs.Child_01: \"Child_01\" is no name of a nested cluster",
        ),
        (
            "clusterName=here,kubeConfigs.here.secretRef.name=a",
            "kubeConfigs.here: \"here\" is the name of this cluster (clusterName)",
        ),
        (
            &format!("trustDomain=,{secret}"),
            "kubeConfigs.child01 belongs to no trust domain: set trustDomain",
        ),
        // The API server would drop them, and the limits would not be in force.
        (
            &child("allowedIds", "{/a}"),
            "additional properties 'allowedIds' not allowed",
        ),
        (
            &child("agents.audiences", "{a}"),
            "additional properties 'audiences' not allowed",
        ),
        (
            "kubeconfigs.child01.kubeConfig=a",
            "additional properties 'kubeconfigs' not",
        ),
        (
            "external-spire-server.kubeconfigs.a.b=c",
            "additional properties 'kubeconfigs'",
        ),
        (
            "trustDomainSpec.caTtl=1h",
            "additional properties 'caTtl' not allowed",
        ),
        (
            "kubeConfigs.child01=text",
            "/kubeConfigs/child01': got string",
        ),
        (&child("mode", "Sideways"), "/kubeConfigs/child01/mode'"),
        ("trustDomain=Example.org", "/trustDomain'"),
    ])
    .await;
}

#[tokio::test]
async fn an_api_server_takes_all_that_is_rendered() {
    let control_plane = control_plane().await;
    let client = control_plane.install_crds().await;
    control_plane.ensure_namespace("spiffe-system").await;
    // Another test may have a NestedCluster of the usual name, which stays in its trust domain.
    let nested = format!(
        "kubeConfigs.{}.kubeConfigBase64={}",
        unique("child"),
        base64(KUBECONFIG)
    );
    let server = json!({ "server": { "port": 8443 }, "caTTL": "48h" });
    let server = format!("trustDomainSpec={server}");
    for flags in [
        &["--set", "replicas=1"][..],
        &["--set", "trustDomain="],
        &["--set", "kubeConfigs=null,external-spire-server=null"],
        &["--set", &nested, "--set-json", &server],
        &[
            "--set",
            "serverService.type=LoadBalancer,serverService.annotations.a=b",
        ],
        &["--set", "image.pullSecrets[0].name=registry"],
    ] {
        for object in rendered(flags).await.unwrap() {
            let taken = apply_dry(&client, &object).await;
            assert!(taken.is_ok(), "{object}: {taken:?}");
        }
    }
}

#[tokio::test]
async fn the_chart_installs_what_the_kustomization_does() {
    let objects = rendered(&["--set", "replicas=1"]).await.unwrap();
    let of_kustomization = [
        "manager/deployment",
        "manager/service",
        "manager/server_service",
        "manager/pod_disruption_budget",
        "rbac/cluster_role",
        "rbac/role",
        "rbac/cluster_role_binding",
        "rbac/role_binding",
        "rbac/service_account",
        "rbac/admin_role",
        "rbac/view_role",
    ];
    for file in of_kustomization {
        let [expected] = &*documents::<Value>(&format!("config/{file}.yaml")) else {
            panic!("not one object: {file}");
        };
        let [kind, name] = [&expected["kind"], &expected["metadata"]["name"]];
        let kind = kind.as_str().unwrap();
        let mut found = find(&objects, kind, name.as_str().unwrap()).clone();
        if let Some(spec) = found["spec"].as_object_mut() {
            // What Kubernetes makes of a Service anyway.
            spec.remove("type");
        }
        for part in ["spec", "rules", "roleRef", "subjects"] {
            assert_eq!(found[part], expected[part], "{part} of {file}");
        }
        for (label, value) in expected["metadata"]["labels"].as_object().unwrap() {
            assert_eq!(found["metadata"]["labels"][label], *value, "{file}");
        }
    }
}

#[tokio::test]
async fn the_default_registration_counts_only_where_no_other_does() {
    let objects = rendered(&["--set", "trustDomainSpec.className=mine"])
        .await
        .unwrap();
    let expected = json!({
        "className": "mine",
        "fallback": true,
        "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/\
                             {{ .PodSpec.ServiceAccountName }}",
    });
    let default = find(&objects, "ClusterSPIFFEID", "spiffe-operator-default");
    assert_eq!(default["spec"], expected);
    for none in ["defaultClusterSPIFFEID=false", "trustDomain="] {
        let objects = rendered(&["--set", none]).await.unwrap();
        assert!(!objects.iter().any(|it| it["kind"] == "ClusterSPIFFEID"));
    }
}
