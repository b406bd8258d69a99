//! `config/rbac` and the same in the chart: the service account and its roles, each rule under the
//! reason for it.

use std::fmt::Write as _;

use spiffe_operator::rbac::{ADMINISTRATORS, CLUSTER, Grant, NAME, NAMESPACE, NAMESPACED, VIEWERS};

use crate::{Files, HEADER, crds::kustomization};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Where the manifests go, and what differs there.
struct Place {
    folder: &'static str,
    /// The operator's namespace.
    namespace: &'static str,
    /// The labels of every object.
    labels: &'static str,
}

const KUSTOMIZATION: Place = Place {
    folder: "config/rbac",
    namespace: NAMESPACE,
    labels: "app.kubernetes.io/name: spiffe-operator",
};
const CHART: Place = Place {
    folder: "charts/spiffe-operator/templates/rbac",
    namespace: "{{ .Release.Namespace }}",
    labels: "{{- include \"spiffe-operator.labels\" . | nindent 4 }}",
};

pub(crate) fn files() -> Files {
    let mut files = Files::new();
    for place in [KUSTOMIZATION, CHART] {
        for (name, manifest) in place.manifests() {
            let path = format!("{}/{name}", place.folder);
            files.insert(path.into(), format!("{HEADER}{manifest}"));
        }
    }
    let names = KUSTOMIZATION.manifests().map(|(name, _)| name);
    let path = "config/rbac/kustomization.yaml";
    files.insert(path.into(), kustomization(&names));
    files
}

impl Place {
    /// The manifests by the names of their files.
    fn manifests(&self) -> [(&'static str, String); 7] {
        let aggregated = format!("    {GROUP}/aggregate-to-view: \"true\"\n");
        let in_namespace = format!("  namespace: {}\n", self.namespace);
        [
            (
                "admin_role.yaml",
                self.role(
                    "ClusterRole",
                    "spiffe-admin",
                    "",
                    &[VIEWERS, ADMINISTRATORS],
                ),
            ),
            (
                "cluster_role.yaml",
                self.role("ClusterRole", NAME, "", &[CLUSTER]),
            ),
            ("cluster_role_binding.yaml", self.binding("ClusterRole", "")),
            (
                "role.yaml",
                self.role("Role", NAME, &in_namespace, &[NAMESPACED]),
            ),
            ("role_binding.yaml", self.binding("Role", &in_namespace)),
            (
                "service_account.yaml",
                self.object("v1", "ServiceAccount", NAME, &in_namespace),
            ),
            (
                "view_role.yaml",
                self.role("ClusterRole", "spiffe-view", &aggregated, &[VIEWERS]),
            ),
        ]
    }

    /// The head of an object; `metadata` follows its labels.
    fn object(&self, api_version: &str, kind: &str, name: &str, metadata: &str) -> String {
        let labels = self.labels;
        format!(
            "apiVersion: {api_version}\nkind: {kind}\nmetadata:\n  name: {name}\n  labels:\n    \
             {labels}\n{metadata}"
        )
    }

    fn role(&self, kind: &str, name: &str, metadata: &str, grants: &[&[Grant]]) -> String {
        let mut text = self.object(&format!("{GROUP}/v1"), kind, name, metadata);
        text.push_str("rules:\n");
        for grant in grants.iter().copied().flatten() {
            writeln!(text, "  # {}", grant.reason).unwrap();
            writeln!(text, "  - apiGroups: {}", list(&[grant.group])).unwrap();
            writeln!(text, "    resources: {}", list(grant.resources)).unwrap();
            if !grant.names.is_empty() {
                writeln!(text, "    resourceNames: {}", list(grant.names)).unwrap();
            }
            writeln!(text, "    verbs: {}", list(grant.verbs)).unwrap();
        }
        text
    }

    fn binding(&self, role: &str, metadata: &str) -> String {
        let head = self.object(
            &format!("{GROUP}/v1"),
            &format!("{role}Binding"),
            NAME,
            metadata,
        );
        let namespace = self.namespace;
        format!(
            "{head}roleRef:\n  apiGroup: {GROUP}\n  kind: {role}\n  name: {NAME}\nsubjects:\n  - \
             kind: ServiceAccount\n    name: {NAME}\n    namespace: {namespace}\n"
        )
    }
}

fn list(items: &[&str]) -> String {
    let quoted: Vec<_> = items.iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

#[test]
fn the_roles_grant_what_the_code_says() {
    let files = files();
    for (name, grants) in [
        ("cluster_role", vec![CLUSTER]),
        ("admin_role", vec![VIEWERS, ADMINISTRATORS]),
    ] {
        let text = &files[std::path::Path::new(&format!("config/rbac/{name}.yaml"))];
        let role: k8s_openapi::api::rbac::v1::ClusterRole = serde_saphyr::from_str(text).unwrap();
        let expected: Vec<_> = grants.iter().copied().flatten().map(Grant::rule).collect();
        assert_eq!(role.rules, Some(expected), "{name}");
    }
    let text = &files[std::path::Path::new("config/rbac/role.yaml")];
    let role: k8s_openapi::api::rbac::v1::Role = serde_saphyr::from_str(text).unwrap();
    assert_eq!(
        role.rules,
        Some(NAMESPACED.iter().map(Grant::rule).collect())
    );
    assert_eq!(role.metadata.namespace.as_deref(), Some(NAMESPACE));
}
