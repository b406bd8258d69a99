//! `spiffe-operator render` as users type it.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::support::{ControlPlane, Options, World, pod};

const REGISTRATION: &str = "
apiVersion: spiffe-operator.io/v1alpha1
kind: TrustDomain
metadata: {name: example}
spec: {trustDomain: example.org, authority: {selfSigned: {}}}
---
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata: {name: all}
spec:
  spiffeIDTemplate: spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/{{ .PodMeta.Name }}
";
const PODS: &str = "
apiVersion: v1
kind: Node
metadata: {name: node-1}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {nodeName: node-1, containers: []}
";
const ID: &str = "spiffe://example.org/ns/shop/web";

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-operator"));
    command.arg("render").args(arguments).env_clear();
    command
}

fn render(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn rendered_from(input: &str, arguments: &[&str]) -> Output {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A folder with the two texts in files.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("registration.yaml", REGISTRATION), ("pods.yml", PODS)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// The SPIFFE ID of the only pod, from JSON.
fn only_id(report: &Value) -> &Value {
    assert_eq!(report["trustDomains"].as_array().unwrap().len(), 1);
    let pods = report["trustDomains"][0]["pods"].as_array().unwrap();
    assert_eq!(pods.len(), 1, "{report:#}");
    assert_eq!(pods[0]["matches"].as_array().unwrap().len(), 1);
    &pods[0]["matches"][0]["entry"]["spiffeID"]
}

#[test]
fn files_folders_and_standard_input_are_read() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let all = folder.path().to_str().unwrap();
    let table = render(&[all]);
    assert!(table.status.success(), "{table:?}");
    for word in ["shop/web", "ClusterSPIFFEID all", "Issued", ID] {
        assert!(text(&table).contains(word), "{}", text(&table));
    }
    let files = render(&[&path("pods.yml"), &path("registration.yaml")]);
    assert_eq!(text(&files), text(&table));
    let piped = rendered_from(PODS, &[&path("registration.yaml"), "-"]);
    assert_eq!(text(&piped), text(&table));
    // What comes later takes the place of what has the same name.
    let again = REGISTRATION.replace("/ns/", "/again/");
    let piped = rendered_from(&again, &[all, "-", "-o", "json"]);
    let report: Value = serde_json::from_str(&text(&piped)).unwrap();
    assert_eq!(only_id(&report), "spiffe://example.org/again/shop/web");
}

#[test]
fn the_example_registers_every_pod_that_it_selects() {
    let example = |name: &str| format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let registered = |labels: &str| {
        let pod = format!(
            "apiVersion: v1
kind: Namespace
metadata: {{name: spiffe-demo, labels: {{kubernetes.io/metadata.name: spiffe-demo}}}}
---
apiVersion: v1
kind: Node
metadata: {{name: node-1}}
---
apiVersion: v1
kind: Pod
metadata: {{name: pod-1, namespace: spiffe-demo, labels: {labels}}}
spec: {{nodeName: node-1, serviceAccountName: web, containers: []}}
"
        );
        let files = ["trust-domain.yaml", "cluster-spiffe-id.yaml"].map(example);
        let report = rendered_from(&pod, &[&files[0], &files[1], "-", "-o", "json"]);
        let report: Value = serde_json::from_str(&text(&report)).unwrap();
        assert_eq!(
            only_id(&report),
            "spiffe://example.org/ns/spiffe-demo/sa/web"
        );
        report["trustDomains"][0]["pods"][0]["matches"][0]["entry"]["dnsNames"].clone()
    };
    let with_app = registered("{spiffe: 'true', app: server}");
    assert_eq!(with_app, json!(["server.spiffe-demo.svc.cluster.local"]));
    let without = registered("{spiffe: 'true'}");
    assert_eq!(without, json!(["pod-1.spiffe-demo.svc.cluster.local"]));
}

#[test]
fn each_format_says_the_same() {
    let folder = folder();
    let all = folder.path().to_str().unwrap();
    let json = text(&render(&[all, "--output", "json"]));
    let yaml = text(&render(&[all, "-o", "yaml"]));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), json);
    assert_eq!(only_id(&json), ID);
    let by_environment = command(&[all])
        .env("SPIFFE_OPERATOR_OUTPUT", "json")
        .output()
        .unwrap();
    let by_environment: Value = serde_json::from_str(&text(&by_environment)).unwrap();
    assert_eq!(by_environment, json);
}

#[test]
fn the_trust_domain_may_come_from_flags_or_the_environment() {
    let (_, registration) = REGISTRATION.split_once("---").unwrap();
    let objects = format!("{registration}---{PODS}");
    let missing = rendered_from(&objects, &["-"]);
    assert_eq!(missing.status.code(), Some(1));
    let said = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("--trust-domain"), "{said}");

    let flags = rendered_from(
        &objects,
        &["-", "-o", "json", "--trust-domain", "flags.org"],
    );
    let report: Value = serde_json::from_str(&text(&flags)).unwrap();
    assert_eq!(only_id(&report), "spiffe://flags.org/ns/shop/web");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("objects.yaml");
    std::fs::write(&file, &objects).unwrap();
    let environment = command(&[file.to_str().unwrap(), "-o", "json"])
        .env("SPIFFE_OPERATOR_TRUST_DOMAIN", "environment.org")
        .env("SPIFFE_OPERATOR_IGNORE_NAMESPACES", "^none$,^shop$")
        // What `run` has, too, does not disturb.
        .env("SPIFFE_OPERATOR_CONTEXT", "any")
        .output()
        .unwrap();
    let report: Value = serde_json::from_str(&text(&environment)).unwrap();
    let domain = &report["trustDomains"][0];
    assert_eq!(domain["trustDomain"], "environment.org");
    let obstacle = domain["pods"][0]["obstacle"].as_str().unwrap();
    assert!(obstacle.contains("namespace"), "{obstacle}");
}

#[test]
fn a_failure_gives_the_status_1_and_says_what_failed() {
    let broken = REGISTRATION.replace(".PodMeta.Name }}", ".PodMeta.Nam }}");
    let refused = REGISTRATION.replace("/ns/", "/not an id/");
    for (objects, word) in [
        (format!("{broken}---{PODS}"), "Nam"),
        (format!("{refused}---{PODS}"), "not an id"),
        (format!("{REGISTRATION}---{PODS}---\nkind: [\n"), "Errors:"),
    ] {
        let output = rendered_from(&objects, &["-"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output).contains(word), "{}", text(&output));
    }
    let absent = render(&["/nowhere/objects.yaml"]);
    assert_eq!(absent.status.code(), Some(1));
    let said = String::from_utf8(absent.stderr).unwrap();
    assert!(said.contains("/nowhere/objects.yaml"), "{said}");
    let nowhere = render(&["--from-cluster"]);
    assert_eq!(nowhere.status.code(), Some(1));
    let said = String::from_utf8(nowhere.stderr).unwrap();
    assert!(said.contains("KUBECONFIG"), "{said}");
}

#[tokio::test]
async fn a_file_is_shown_as_if_it_had_been_applied_to_the_cluster() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    world.apply_trust_domain(json!({})).await;
    let name = world
        .apply_cluster_spiffe_id(
            "web",
            json!({ "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/old" }),
        )
        .await;
    let (namespace, node) = (&world.namespace, world.node.name_any());
    pod(
        &world.client,
        namespace,
        "web",
        &node,
        &[("app", "web")],
        json!({}),
    )
    .await;
    let over = |files: &[&str]| {
        let arguments = [&["--from-cluster", "-o", "json"], files].concat();
        let output = command(&arguments)
            .env("KUBECONFIG", own.kubeconfig())
            .output()
            .unwrap();
        let report: Value = serde_json::from_str(&text(&output)).unwrap();
        assert!(output.status.success(), "{report:#}");
        only_id(&report).as_str().unwrap().to_owned()
    };
    assert_eq!(over(&[]), format!("spiffe://{}/old", world.trust_domain));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new.json");
    let new = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterSPIFFEID",
        "metadata": { "name": name },
        "spec": { "className": world.class, "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/new" },
    });
    std::fs::write(&file, new.to_string()).unwrap();
    let shown = over(&[file.to_str().unwrap()]);
    assert_eq!(shown, format!("spiffe://{}/new", world.trust_domain));
    // Nothing of it was written.
    assert_eq!(over(&[]), format!("spiffe://{}/old", world.trust_domain));
}
