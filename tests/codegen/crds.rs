//! `crds/`: one file a kind, for `kubectl apply -f crds/`, the same for the chart, and `config/crd` for
//! kustomize.

use std::fmt::Write as _;

use spiffe_operator::api::custom_resource_definitions;

use crate::{Files, HEADER};

pub(crate) fn files() -> Files {
    let mut files = Files::new();
    let mut names = Vec::new();
    for definition in custom_resource_definitions() {
        let name = format!(
            "{}_{}.yaml",
            definition.spec.group, definition.spec.names.plural
        );
        // By way of a JSON value, whose keys are sorted.
        let value = serde_json::to_value(&definition).unwrap();
        let yaml = serde_saphyr::to_string(&value).unwrap();
        for folder in ["crds", "charts/spiffe-operator/crds"] {
            files.insert(format!("{folder}/{name}").into(), format!("{HEADER}{yaml}"));
        }
        names.push(name);
    }
    // kustomize reads no file outside its folder, but it reads folders; without an extension
    // `kubectl apply -f crds/` passes over it.
    files.insert("crds/Kustomization".into(), kustomization(&names));
    files.insert(
        "config/crd/kustomization.yaml".into(),
        kustomization(&["../../crds"]),
    );
    files
}

/// A kustomization of `resources`.
pub(crate) fn kustomization<S: std::fmt::Display>(resources: &[S]) -> String {
    let mut text = format!(
        "{HEADER}apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n"
    );
    for resource in resources {
        writeln!(text, "  - {resource}").unwrap();
    }
    text
}

#[test]
fn the_yaml_says_what_the_code_says() {
    let files = files();
    for definition in custom_resource_definitions() {
        let path = format!(
            "crds/{}_{}.yaml",
            definition.spec.group, definition.spec.names.plural
        );
        let read: serde_json::Value =
            serde_saphyr::from_str(&files[std::path::Path::new(&path)]).unwrap();
        assert_eq!(read, serde_json::to_value(&definition).unwrap(), "{path}");
    }
}
