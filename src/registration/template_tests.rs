//! Tests of [`super`]: Go's own answers, and the two ways to render held against each other.

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;

use super::{super::labels::Interner, *};

struct World {
    cluster: ClusterFacts,
    pod: std::sync::Arc<PodFacts>,
    node: std::sync::Arc<NodeFacts>,
    vectors: Json,
}

impl World {
    /// The pod and node that Go rendered `template_vectors.json` for.
    fn new() -> Self {
        let json: Json = serde_json::from_str(include_str!("template_vectors.json")).unwrap();
        let pod: Pod = serde_json::from_value(json["pod"].clone()).unwrap();
        let node: Node = serde_json::from_value(json["node"].clone()).unwrap();
        let mut keep = FieldSet::default();
        keep.meta.extend(
            go_model::fields("ObjectMeta")
                .iter()
                .filter_map(|field| field.json),
        );
        keep.spec.extend(
            go_model::fields("PodSpec")
                .iter()
                .filter_map(|field| field.json),
        );
        let mut interner = Interner::default();
        Self {
            cluster: ClusterFacts {
                trust_domain: "example.org".parse().unwrap(),
                cluster_name: "west".into(),
                cluster_domain: "cluster.local".into(),
            },
            pod: PodFacts::from_pod(&pod, &keep, &mut interner).unwrap(),
            node: NodeFacts::from_node(&node, &mut interner).unwrap(),
            vectors: json["vectors"].clone(),
        }
    }

    fn data(&self) -> TemplateData<'_> {
        TemplateData {
            cluster: &self.cluster,
            pod: Some(&self.pod),
            node: &self.node,
        }
    }
}

#[test]
fn renders_what_go_renders() {
    let world = World::new();
    let mut differences = Vec::new();
    for vector in world.vectors.as_array().unwrap() {
        let source = vector["template"].as_str().unwrap();
        let ours = match Template::parse(source) {
            Ok(template) => template
                .render(&world.data())
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if ours.as_deref().ok() != vector["output"].as_str() {
            differences.push(format!(
                "{source}\n  Go:   {}\n  ours: {ours:?}",
                vector["output"]
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn plain_templates_need_no_interpreter() {
    for source in [
        "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}",
        "spiffe://{{ .TrustDomain }}/spire/agent/k8s_psat/{{ .ClusterName }}/{{ .NodeMeta.UID }}",
        r#"k8s:pod-label:app:{{ index .PodMeta.Labels "app" }}"#,
        "{{ .PodMeta.Labels.app }}.{{ .ClusterDomain }}",
    ] {
        assert!(FastTemplate::new(source).is_some(), "{source}");
        assert!(
            Template::parse(source)
                .unwrap()
                .needed_pod_fields()
                .is_empty(),
            "{source}"
        );
    }
}

#[test]
fn errors_name_position_and_reason() {
    let unknown = |field: &str, of, line, column| TemplateError::UnknownField {
        field: field.into(),
        of,
        line,
        column,
    };
    for (source, error) in [
        ("{{ .PodMeta.Nope }}", unknown("Nope", "ObjectMeta", 1, 12)),
        (
            "a\n{{ .Nope }}",
            unknown("Nope", "the template's data", 2, 4),
        ),
        (
            "{{ .PodMeta.Name.X }}",
            unknown("X", "a plain value", 1, 17),
        ),
        (
            "{{ .PodSpec.Containers.Name }}",
            unknown("Name", "a list", 1, 23),
        ),
        (
            "{{ range .PodSpec.Volumes }}{{ .Nme }}{{ end }}",
            unknown("Nme", "Volume", 1, 32),
        ),
        (
            "{{ $m := .PodMeta }}{{ $m.uid }}",
            unknown("uid", "ObjectMeta", 1, 26),
        ),
        (
            "{{ with .NodeMeta }}{{ else with .PodSpec }}{{ .X }}{{ end }}",
            unknown("X", "PodSpec", 1, 48),
        ),
        (
            "{{ .PodMeta.ResourceVersion }}",
            unknown("ResourceVersion", "ObjectMeta", 1, 12),
        ),
    ] {
        assert_eq!(Template::parse(source), Err(error), "{source}");
    }
    let Err(TemplateError::Syntax { message }) = Template::parse("x {{ if }}") else {
        panic!("an empty condition does not parse");
    };
    assert!(message.contains('1'), "{message}");
}

#[test]
fn a_parent_id_cannot_use_the_pod() {
    assert_eq!(
        Template::parse_parent("{{ .NodeMeta.Name }}{{ .PodMeta.Name }}"),
        Err(TemplateError::PodInParent {
            field: "PodMeta",
            line: 1,
            column: 24
        })
    );
    assert!(Template::parse_parent("{{ .NodeSpec.PodCIDR }}{{ .ClusterName }}").is_ok());
}

#[test]
fn what_a_template_reads_is_known() {
    let needed = |source: &str| {
        let fields = Template::parse(source).unwrap().needed_pod_fields();
        (
            fields.meta.into_iter().collect::<Vec<_>>(),
            fields.spec.into_iter().collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        needed("{{ .PodMeta.Annotations.x }}"),
        (vec!["annotations"], vec![])
    );
    assert_eq!(
        needed(
            "{{ with .PodSpec }}{{ .HostIPC }}{{ range .Containers }}{{ .Name }}{{ end }}{{ end }}"
        ),
        (vec![], vec!["containers", "hostIPC"])
    );
    let (meta, spec) =
        needed("{{ printf \"%v\" .PodMeta }}{{ $x := .PodSpec }}{{ $x = .PodSpec }}");
    assert!(meta.len() > 5 && spec.len() > 20, "{meta:?} {spec:?}");
    let (meta, spec) =
        needed("{{ define \"x\" }}{{ .PodMeta.Name }}{{ end }}{{ template \"x\" . }}");
    assert!(meta.len() > 5 && spec.len() > 20, "{meta:?} {spec:?}");
}

#[test]
fn a_template_is_bounded() {
    let world = World::new();
    for source in [
        "{{ range 10001 }}{{ end }}",
        "{{ range 1000 }}{{ range 1000 }}{{ end }}{{ end }}",
        "{{ range 1000 }}0123456789{{ end }}",
        r#"{{ $s := "xx" }}{{ range 30 }}{{ $s = print $s $s }}{{ end }}"#,
        r#"{{ define "r" }}{{ template "r" . }}{{ end }}{{ template "r" . }}"#,
    ] {
        assert!(
            Template::parse(source)
                .unwrap()
                .render(&world.data())
                .is_err(),
            "{source}"
        );
    }
}

proptest! {
    #[test]
    fn joining_pieces_gives_what_the_interpreter_gives(pieces in prop::collection::vec(
        prop::sample::select(vec![
            "a", " ", "\n", "}", "{{ .TrustDomain }}", "{{- .ClusterName }}",
            "{{ .ClusterDomain -}}", "{{.PodMeta.Name}}", "{{ .PodMeta.UID }}",
            "{{ .PodMeta.Labels.app }}", "{{ .PodMeta.Labels.none }}", "{{/* } */}}",
            "{{ index .PodMeta.Labels \"app.kubernetes.io/name\" }}",
            "{{ index .NodeMeta.Labels `none` }}", "{{- /* x */ -}}", "{{ .NodeMeta.Name }}",
            "{{ .PodSpec.ServiceAccountName }}", "{{ .PodSpec.NodeName }}", "{{ .NodeMeta.UID }}",
        ]),
        0..12,
    )) {
        let world = World::new();
        let source = pieces.concat();
        let template = Template::parse(&source).unwrap();
        let fast = template.fast.as_ref().expect("only plain pieces");
        prop_assert_eq!(fast.render(&world.data()), template.interpret(&world.data()).ok(), "{}", source);
    }

    #[test]
    fn no_text_makes_the_parser_panic(source in "(\\{\\{|\\}\\}|[ .$a-zA-Z\"`|:=(),/*-]){0,40}") {
        if let Ok(template) = Template::parse(&source) {
            let world = World::new();
            let _ = template.render(&world.data());
        }
    }
}
