//! The manifests that let the operator into a nested cluster: a service account with the least
//! rights, or one that may do nothing but act as a user who has them.

use std::fmt::Write as _;

use super::kubeconfig::Impersonation;
use super::rights::{Needs, quoted, rule_yaml};
use crate::rbac::nested::{BUNDLE, IMPERSONATOR, NAME};
use crate::rbac::{Grant, NAMESPACE};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Who is let in, and for what.
#[derive(Clone, Debug)]
pub struct ChildAccess {
    /// What the operator does there.
    pub needs: Needs,
    /// Who has the rights; none: the service account itself.
    pub impersonation: Option<Impersonation>,
}

impl ChildAccess {
    /// The objects in YAML, in an order in which they can be applied, each rule under its reason.
    #[must_use]
    pub fn manifests(&self) -> String {
        let account = format!("  namespace: {NAMESPACE}\n");
        let mut documents = vec![
            object("v1", "Namespace", NAMESPACE, ""),
            object("v1", "ServiceAccount", NAME, &account),
        ];
        let holder = match &self.impersonation {
            None => service_account(),
            Some(who) => {
                documents.push(impersonator(who));
                documents.push(binding("ClusterRole", IMPERSONATOR, "", &service_account()));
                user(who)
            }
        };
        let mut role = head("ClusterRole", NAME, "");
        role.push_str("rules:\n");
        for grant in self.needs.cluster_grants() {
            role.push_str(&rule(grant, grant.names));
        }
        documents.push(role);
        documents.push(binding("ClusterRole", NAME, "", &holder));
        if let Some(bundle) = &self.needs.bundle {
            let namespace = format!("  namespace: {}\n", quoted(&bundle.namespace));
            if bundle.namespace != NAMESPACE {
                let name = quoted(&bundle.namespace);
                documents.push(object("v1", "Namespace", &name, ""));
            }
            let mut role = head("Role", NAME, &namespace);
            role.push_str("rules:\n");
            role.push_str(&rule(&BUNDLE, &[&bundle.name]));
            documents.push(role);
            documents.push(binding("Role", NAME, &namespace, &holder));
        }
        documents.join("---\n")
    }
}

/// The head of an object; `metadata` follows its name.
fn object(api_version: &str, kind: &str, name: &str, metadata: &str) -> String {
    format!("apiVersion: {api_version}\nkind: {kind}\nmetadata:\n  name: {name}\n{metadata}")
}

fn head(kind: &str, name: &str, metadata: &str) -> String {
    object(&format!("{GROUP}/v1"), kind, name, metadata)
}

fn rule(grant: &Grant, names: &[&str]) -> String {
    let rule = rule_yaml(grant.group, grant.resources, names, grant.verbs);
    let mut text = format!("  # {}\n", grant.reason);
    for line in rule.lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// The role by which the service account acts as `who`, and as nobody else.
fn impersonator(who: &Impersonation) -> String {
    let act = |reason, resources| Grant {
        reason,
        group: "",
        resources,
        names: &[],
        verbs: &["impersonate"],
    };
    let users = act(
        "Act as the user who has the rights, as nobody else.",
        &["users"],
    );
    let mut role = head("ClusterRole", IMPERSONATOR, "");
    role.push_str("rules:\n");
    role.push_str(&rule(&users, &[who.user()]));
    let groups: Vec<_> = who.groups().iter().map(String::as_str).collect();
    if !groups.is_empty() {
        let in_groups = act("In these groups, in no others.", &["groups"]);
        role.push_str(&rule(&in_groups, &groups));
    }
    role
}

fn service_account() -> String {
    format!("  - kind: ServiceAccount\n    name: {NAME}\n    namespace: {NAMESPACE}\n")
}

fn user(who: &Impersonation) -> String {
    let name = quoted(who.user());
    format!("  - kind: User\n    apiGroup: {GROUP}\n    name: {name}\n")
}

fn binding(role: &str, name: &str, metadata: &str, subject: &str) -> String {
    let head = head(&format!("{role}Binding"), name, metadata);
    format!(
        "{head}roleRef:\n  apiGroup: {GROUP}\n  kind: {role}\n  name: {name}\nsubjects:\n{subject}"
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role};
    use serde_json::Value;

    use super::*;
    use crate::nested::rights::ConfigMapName;

    fn objects(access: &ChildAccess) -> Vec<Value> {
        serde_saphyr::from_multiple(&access.manifests()).unwrap()
    }

    fn find<K: serde::de::DeserializeOwned>(objects: &[Value], kind: &str, name: &str) -> K {
        let mut of_name = objects
            .iter()
            .filter(|it| it["kind"] == kind && it["metadata"]["name"] == name);
        let found = of_name.next().unwrap_or_else(|| panic!("{kind} {name}"));
        serde_json::from_value(found.clone()).unwrap()
    }

    fn access(impersonation: Option<Impersonation>) -> ChildAccess {
        let bundle = ConfigMapName {
            namespace: "spire-system".into(),
            name: "bundle".into(),
        };
        ChildAccess {
            needs: Needs::remote(Some(bundle)),
            impersonation,
        }
    }

    #[test]
    fn the_service_account_has_the_rights_that_are_needed() {
        let access = access(None);
        let objects = objects(&access);
        let role: ClusterRole = find(&objects, "ClusterRole", NAME);
        let expected: Vec<_> = access.needs.cluster_grants().map(Grant::rule).collect();
        assert_eq!(role.rules, Some(expected));
        let role: Role = find(&objects, "Role", NAME);
        let names = &role.rules.unwrap()[0].resource_names;
        assert_eq!(*names, Some(vec!["bundle".to_owned()]));
        let binding: ClusterRoleBinding = find(&objects, "ClusterRoleBinding", NAME);
        let subject = &binding.subjects.unwrap()[0];
        assert_eq!((&*subject.kind, &*subject.name), ("ServiceAccount", NAME));
        assert!(!access.manifests().contains("impersonat"));
    }

    #[test]
    fn a_service_account_that_impersonates_may_do_nothing_else() {
        let groups = ["spire: \"readers\"".to_owned()];
        let who = Impersonation::of("spire-root", &groups).unwrap();
        let objects = objects(&access(Some(who)));
        let role: ClusterRole = find(&objects, "ClusterRole", IMPERSONATOR);
        let rules = role.rules.unwrap();
        let rules: Vec<_> = rules
            .iter()
            .map(|rule| {
                (
                    rule.resources.clone().unwrap(),
                    rule.resource_names.clone().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            rules,
            [
                (vec!["users".to_owned()], vec!["spire-root".to_owned()]),
                (vec!["groups".to_owned()], groups.to_vec()),
            ]
        );
        for name in [NAME, IMPERSONATOR] {
            let binding: ClusterRoleBinding = find(&objects, "ClusterRoleBinding", name);
            let subject = &binding.subjects.unwrap()[0];
            let expected = if name == NAME {
                ("User", "spire-root")
            } else {
                ("ServiceAccount", NAME)
            };
            assert_eq!((&*subject.kind, &*subject.name), expected);
        }
    }

    #[test]
    fn names_cannot_leave_their_place() {
        let who = Impersonation::of("a\n- kind: x", &[]);
        assert!(who.is_none(), "a line break cannot be sent in a header");
        let who = Impersonation::of("\"\\: # {x}", &[]).unwrap();
        let binding: ClusterRoleBinding =
            find(&objects(&access(Some(who))), "ClusterRoleBinding", NAME);
        assert_eq!(binding.subjects.unwrap()[0].name, "\"\\: # {x}");
    }
}
