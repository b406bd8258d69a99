//! Tests of [`super`].

use std::fs;

use super::{plan::Outcome, *};

const OBJECTS: &str = r#"
# A cluster in one file.
apiVersion: spiffe-operator.io/v1alpha1
kind: TrustDomain
metadata: {name: example}
spec:
  trustDomain: example.org
  clusterName: west
  authority: {selfSigned: {}}
---
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata: {name: default, uid: "1", creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  spiffeIDTemplate: "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}"
  dnsNameTemplates: ["{{ .PodMeta.Name }}"]
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: node-1, uid: n1}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: other}}
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: shop}
  spec: {nodeName: node-1, serviceAccountName: web, containers: []}
- apiVersion: v1
  kind: Pod
  metadata: {name: pending, namespace: shop}
  spec: {containers: []}
"#;

fn render(text: &str) -> RenderReport {
    let source = read::Source {
        name: "all.yaml".into(),
        text: text.into(),
    };
    render_objects(read::objects(&[source]), &TrustDomainArguments::default()).unwrap()
}

#[test]
fn shows_what_each_pod_would_get() {
    let report = render(OBJECTS);
    assert!(!report.has_failures(), "{report:?}");
    insta::assert_snapshot!(print::to_text(&report, OutputFormat::Table).unwrap());
}

#[test]
fn yaml_and_json_say_the_same() {
    let report = render(OBJECTS);
    let json = print::to_text(&report, OutputFormat::Json).unwrap();
    let yaml = print::to_text(&report, OutputFormat::Yaml).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json,
        serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap()
    );
    let entry = &json["trustDomains"][0]["pods"][1]["matches"][0]["entry"];
    assert_eq!(entry["spiffeID"], "spiffe://example.org/ns/shop/sa/web");
    assert_eq!(
        entry["parentID"],
        "spiffe://example.org/spire/agent/k8s_psat/west/n1"
    );
}

#[test]
fn a_pod_that_fails_or_a_spec_that_is_broken_is_a_failure() {
    let failing = OBJECTS.replace("/sa/", "/not an id/");
    let report = render(&failing);
    assert!(report.has_failures());
    let web = &report.trust_domains[0].pods[1];
    assert_eq!(web.matches[0].outcome, Outcome::Failed);
    assert!(
        web.matches[0]
            .message
            .as_ref()
            .unwrap()
            .contains("not an id")
    );
    let broken = render(&OBJECTS.replace(".PodMeta.Namespace", ".PodMeta.Nope"));
    assert!(broken.has_failures());
    let error = broken.trust_domains[0].objects[0].error.as_ref().unwrap();
    assert!(error.contains("Nope"), "{error}");
    assert!(render(&OBJECTS.replace("trustDomain: example.org", "trustDomain: E")).has_failures());
}

#[test]
fn a_malformed_document_is_named_and_the_others_are_read() {
    let text = format!(
        "{OBJECTS}---\nkind: [\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: x}}\nspec: 3\n---\nfoo: bar\n"
    );
    let report = render(&text);
    assert!(report.has_failures());
    assert_eq!(report.errors.len(), 3, "{:?}", report.errors);
    for (error, place) in report
        .errors
        .iter()
        .zip(["document 4", "document 5", "document 6"])
    {
        assert!(error.starts_with(&format!("all.yaml, {place}")), "{error}");
    }
    assert_eq!(report.trust_domains[0].pods.len(), 2);
}

#[test]
fn json_is_read_like_yaml() {
    let pod = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": []}}
    ]} {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}} {"#;
    let objects = read::objects(&[read::Source {
        name: "-".into(),
        text: pod.into(),
    }]);
    assert_eq!(
        (
            objects.pods.len(),
            objects.nodes.len(),
            objects.errors.len()
        ),
        (1, 1, 1)
    );
}

#[test]
fn flags_stand_in_for_a_trust_domain() {
    let text = OBJECTS.split_once("---\n").unwrap().1;
    let objects = read::objects(&[read::Source {
        name: "all".into(),
        text: text.into(),
    }]);
    let problem = render_objects(objects.clone(), &TrustDomainArguments::default()).unwrap_err();
    assert!(problem.contains("--trust-domain"), "{problem}");
    let arguments = TrustDomainArguments {
        trust_domain: Some("flags.org".into()),
        cluster_name: Some("east".into()),
        parent_id_template: Some("spiffe://{{ .TrustDomain }}/{{ .ClusterName }}".into()),
        ignore_namespaces: vec!["^nothing$".into()],
        ..TrustDomainArguments::default()
    };
    let report = render_objects(objects, &arguments).unwrap();
    let entry = report.trust_domains[0].pods[1].matches[0]
        .entry
        .as_ref()
        .unwrap();
    assert_eq!(entry.spiffe_id, "spiffe://flags.org/ns/shop/sa/web");
    assert_eq!(entry.parent_id, "spiffe://flags.org/east");
}

/// What a cluster with [`OBJECTS`] would give after the files were applied to it.
fn render_over(files: &str) -> RenderReport {
    let objects = |text: &str| {
        let (name, text) = ("-".into(), text.into());
        read::objects(&[read::Source { name, text }])
    };
    let mut cluster = objects(OBJECTS);
    cluster.apply(objects(files));
    render_objects(cluster, &TrustDomainArguments::default()).unwrap()
}

#[test]
fn a_file_takes_the_place_of_what_the_cluster_has() {
    let report = render_over(
        "apiVersion: spire.spiffe.io/v1alpha1\nkind: ClusterSPIFFEID\nmetadata: {name: default}\n\
         spec: {spiffeIDTemplate: \"spiffe://example.org/new\"}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop, labels: {a: b}}\n\
         spec: {containers: []}\n",
    );
    let domain = &report.trust_domains[0];
    assert_eq!((domain.objects.len(), domain.pods.len()), (1, 2));
    let [found] = domain.pods[1].matches.as_slice() else {
        panic!("{report:?}")
    };
    // The pod of the file is on the node that the cluster's pod is on.
    assert_eq!(found.outcome, Outcome::Issued);
    assert_eq!(
        found.entry.as_ref().unwrap().spiffe_id,
        "spiffe://example.org/new"
    );
}

#[test]
fn a_file_that_replaces_nothing_is_younger_than_what_the_cluster_has() {
    let twin = |name: &str| {
        let (_, rest) = OBJECTS.split_once("kind: ClusterSPIFFEID\n").unwrap();
        let spec = rest
            .split_once("spec:")
            .unwrap()
            .1
            .split_once("---")
            .unwrap()
            .0;
        format!(
            "apiVersion: spire.spiffe.io/v1alpha1\nkind: ClusterSPIFFEID\n\
             metadata: {{name: {name}}}\nspec:{spec}"
        )
    };
    let sources = |report: &RenderReport| {
        let matches = report.trust_domains[0].pods[1].matches.clone();
        let mut found: Vec<_> = matches.into_iter().map(|m| (m.source, m.outcome)).collect();
        found.sort_by_key(|(source, _)| source.clone());
        found
    };
    let expected = [
        ("ClusterSPIFFEID another".to_owned(), Outcome::Masked),
        ("ClusterSPIFFEID default".to_owned(), Outcome::Issued),
    ];
    assert_eq!(sources(&render_over(&twin("another"))), expected);
    // One that replaces an object is as old as that one.
    let both = format!("{}---\n{}", twin("another"), twin("default"));
    assert_eq!(sources(&render_over(&both)), expected);
}

#[test]
fn of_two_documents_with_one_name_the_later_counts() {
    let again = OBJECTS.replace("/sa/", "/again/");
    let report = render_over(&again);
    assert_eq!(report.trust_domains.len(), 1);
    let entry = report.trust_domains[0].pods[1].matches[0].entry.as_ref();
    assert_eq!(
        entry.unwrap().spiffe_id,
        "spiffe://example.org/ns/shop/again/web"
    );
}

#[test]
fn folders_give_their_yaml_and_json_files_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.yml", "a.yaml", "c.json", "d.txt"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    let paths = [folder.path().to_owned(), "-".into()];
    let sources = read::sources(&paths, "stdin".as_bytes()).unwrap();
    let texts: Vec<_> = sources.iter().map(|source| source.text.as_str()).collect();
    assert_eq!(texts, ["a.yaml", "b.yml", "c.json", "stdin"]);
    let missing = read::sources(&["/nonexistent".into()], io::empty()).unwrap_err();
    assert!(missing.contains("/nonexistent"), "{missing}");
}
