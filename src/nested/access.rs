//! The manifests that let the operator into a nested cluster: a service account with the least
//! rights, or one that may do nothing but act as a user who has them.

use std::fmt::Write as _;

use super::kubeconfig::Impersonation;
use super::rights::{Needs, quoted, rule_yaml};
use crate::rbac::nested::{BUNDLE, FAREWELL, IMPERSONATOR, NAME, RENEWAL};
use crate::rbac::{Grant, NAMESPACE};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Who is let in, and for what.
#[derive(Clone, Debug)]
pub struct ChildAccess {
    /// What the operator does there.
    pub needs: Needs,
    /// Who has the rights; none: the service account itself.
    pub impersonation: Option<Impersonation>,
    /// Whose the service account is.
    pub account: ChildAccount,
}

/// The service account in a nested cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ChildAccount {
    /// One that its administrator makes.
    #[default]
    Provided,
    /// One with this name that the operator makes for itself. Its tokens are bound to the Secret of the
    /// same name, and it may renew them.
    Managed(String),
}

impl ChildAccount {
    /// Its name, and that of its role.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Provided => NAME,
            Self::Managed(name) => name,
        }
    }

    /// Name of the role by which it acts as somebody else.
    fn impersonator(&self) -> String {
        match self {
            Self::Provided => IMPERSONATOR.into(),
            Self::Managed(name) => format!("{name}-impersonator"),
        }
    }

    /// As the subject of a binding.
    fn subject(&self) -> String {
        let name = self.name();
        format!("  - kind: ServiceAccount\n    name: {name}\n    namespace: {NAMESPACE}\n")
    }
}

impl ChildAccess {
    /// The objects in YAML, in an order in which they can be applied, each rule under its reason.
    #[must_use]
    pub fn manifests(&self) -> String {
        let own = format!("  namespace: {NAMESPACE}\n");
        let name = self.account.name();
        let mut documents = vec![
            object("v1", "Namespace", NAMESPACE, ""),
            object("v1", "ServiceAccount", name, &own),
        ];
        let holder = match &self.impersonation {
            None => self.account.subject(),
            Some(who) => {
                let role = self.account.impersonator();
                documents.push(impersonator(&role, who));
                documents.push(binding("ClusterRole", &role, "", &self.account.subject()));
                user(who)
            }
        };
        let mut role = head("ClusterRole", name, "");
        role.push_str("rules:\n");
        for grant in self.needs.cluster_grants() {
            role.push_str(&rule(grant, grant.names));
        }
        if let ChildAccount::Managed(name) = &self.account {
            role.push_str(&rule(&FAREWELL, &[name]));
        }
        documents.push(role);
        documents.push(binding("ClusterRole", name, "", &holder));
        if let ChildAccount::Managed(name) = &self.account {
            documents.push(object("v1", "Secret", name, &own));
            let renewal = format!("{name}-renewal");
            let mut role = head("Role", &renewal, &own);
            role.push_str("rules:\n");
            for grant in RENEWAL {
                role.push_str(&rule(grant, &[name]));
            }
            documents.push(role);
            documents.push(binding("Role", &renewal, &own, &holder));
        }
        if let Some(bundle) = &self.needs.bundle {
            let namespace = format!("  namespace: {}\n", quoted(&bundle.namespace));
            if bundle.namespace != NAMESPACE {
                let name = quoted(&bundle.namespace);
                documents.push(object("v1", "Namespace", &name, ""));
            }
            let mut role = head("Role", name, &namespace);
            role.push_str("rules:\n");
            role.push_str(&rule(&BUNDLE, &[&bundle.name]));
            documents.push(role);
            documents.push(binding("Role", name, &namespace, &holder));
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

/// The role `name` by which the service account acts as `who`, and as nobody else.
fn impersonator(name: &str, who: &Impersonation) -> String {
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
    let mut role = head("ClusterRole", name, "");
    role.push_str("rules:\n");
    role.push_str(&rule(&users, &[who.user()]));
    let groups: Vec<_> = who.groups().iter().map(String::as_str).collect();
    if !groups.is_empty() {
        let in_groups = act("In these groups, in no others.", &["groups"]);
        role.push_str(&rule(&in_groups, &groups));
    }
    role
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
            account: ChildAccount::Provided,
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
    fn an_account_of_the_operator_may_renew_its_tokens_and_take_itself_away() {
        let access = ChildAccess {
            account: ChildAccount::Managed("mine".into()),
            ..access(None)
        };
        let objects = objects(&access);
        let all = ["ServiceAccount", "Secret", "ClusterRoleBinding"];
        for kind in all {
            find::<Value>(&objects, kind, "mine");
        }
        let role: Role = find(&objects, "Role", "mine-renewal");
        let names = role.rules.unwrap().into_iter();
        assert!(
            names
                .filter_map(|rule| rule.resource_names)
                .all(|it| it == ["mine"])
        );
        let role: ClusterRole = find(&objects, "ClusterRole", "mine");
        let last = role.rules.unwrap().pop().unwrap();
        assert_eq!(last.verbs, ["delete"]);
        assert_eq!(last.resource_names.unwrap(), ["mine"]);
        assert!(!access.manifests().contains(NAME));
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
