//! What the operator must be allowed to do in a nested cluster, which of that an API server's rules
//! allow, and the rules that would grant the rest.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, ResourceRule};
use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::rbac::{Grant, nested};

/// What the operator does in a nested cluster, besides registering its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// It attests agents.
    pub agents: bool,
    /// It signs the certificates of pods.
    pub pod_certificates: bool,
    /// It publishes ClusterTrustBundles.
    pub trust_bundles: bool,
    /// It publishes the bundle in this ConfigMap.
    pub bundle: Option<ConfigMapName>,
}

/// Name of a ConfigMap, with its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMapName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl Needs {
    /// Everything: the cluster is served from here (`mode: Remote`).
    #[must_use]
    pub fn remote(bundle: Option<ConfigMapName>) -> Self {
        Self {
            agents: true,
            pod_certificates: true,
            trust_bundles: true,
            bundle,
        }
    }

    /// What is left where the cluster has servers of its own (`mode: Downstream`).
    #[must_use]
    pub fn downstream(bundle: Option<ConfigMapName>) -> Self {
        Self {
            agents: true,
            bundle,
            ..Self::default()
        }
    }

    /// What is needed in the whole cluster.
    pub fn cluster_grants(&self) -> impl Iterator<Item = &'static Grant> {
        [
            (true, nested::PODS),
            (self.agents, nested::AGENTS),
            (self.pod_certificates, nested::POD_CERTIFICATES),
            (self.trust_bundles, nested::TRUST_BUNDLES),
        ]
        .into_iter()
        .filter(|(needed, _)| *needed)
        .flat_map(|(_, grants)| grants)
    }

    /// Each single right that is needed.
    #[must_use]
    pub fn rights(&self) -> Vec<Right> {
        let mut rights: Vec<Right> = self
            .cluster_grants()
            .flat_map(|grant| single(grant, grant.names.first().copied(), None))
            .collect();
        if let Some(bundle) = &self.bundle {
            let (name, namespace) = (Some(&*bundle.name), Some(&*bundle.namespace));
            rights.extend(single(&nested::BUNDLE, name, namespace));
        }
        rights
    }
}

fn single<'a>(
    grant: &'a Grant,
    name: Option<&'a str>,
    namespace: Option<&'a str>,
) -> impl Iterator<Item = Right> + 'a {
    grant.resources.iter().flat_map(move |resource| {
        grant.verbs.iter().map(move |verb| Right {
            on: Target {
                namespace: namespace.map(str::to_owned),
                group: grant.group,
                resource,
                name: name.map(str::to_owned),
            },
            verb,
        })
    })
}

/// What a right is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The namespace; none: the whole cluster.
    pub namespace: Option<String>,
    /// The API group, "" for the core one.
    pub group: &'static str,
    /// The resource, or `resource/subresource`.
    pub resource: &'static str,
    /// The name to which it is bound; none: all.
    pub name: Option<String>,
}

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// On what.
    pub on: Target,
    /// What may be done.
    pub verb: &'static str,
}

impl Right {
    /// As a review of access asks for it.
    #[must_use]
    pub fn attributes(&self) -> ResourceAttributes {
        let (resource, subresource) = match self.on.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (self.on.resource, None),
        };
        ResourceAttributes {
            group: Some(self.on.group.into()),
            resource: Some(resource.into()),
            subresource,
            name: self.on.name.clone(),
            namespace: self.on.namespace.clone(),
            verb: Some(self.verb.into()),
            ..ResourceAttributes::default()
        }
    }

    /// Whether `rule` allows it, as RBAC reads rules. A subresource on every resource (`*/status`)
    /// is left to the API server.
    fn is_allowed_by(&self, rule: &ResourceRule) -> bool {
        let has = |list: Option<&[String]>, word: &str| {
            let mut list = list.unwrap_or_default().iter();
            list.any(|item| item == word || item == "*")
        };
        let names = rule.resource_names.as_deref().unwrap_or_default();
        has(Some(&rule.verbs), self.verb)
            && has(rule.api_groups.as_deref(), self.on.group)
            && has(rule.resources.as_deref(), self.on.resource)
            && (names.is_empty() || self.on.name.as_ref().is_some_and(|it| names.contains(it)))
    }
}

/// `list pods`, `patch configmaps spire-system/spire-bundle-upstream`.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.on)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource)?;
        if !self.group.is_empty() {
            write!(f, " of {}", self.group)?;
        }
        match (&self.namespace, &self.name) {
            (None, None) => Ok(()),
            (None, Some(name)) => write!(f, " named {name}"),
            (Some(namespace), None) => write!(f, " in {namespace}"),
            (Some(namespace), Some(name)) => write!(f, " {namespace}/{name}"),
        }
    }
}

/// Those of `rights` that no rule allows: the answer of one review of rules in the namespace of the
/// rights.
#[must_use]
pub fn unmet(rights: Vec<Right>, rules: &[ResourceRule]) -> Vec<Right> {
    let is_unmet = |right: &Right| !rules.iter().any(|rule| right.is_allowed_by(rule));
    rights.into_iter().filter(is_unmet).collect()
}

/// What is missing on one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// On what.
    pub on: Target,
    /// What may not be done there.
    pub verbs: Vec<&'static str>,
}

impl Missing {
    /// Rights that are missing, by target.
    #[must_use]
    pub fn of(rights: &[Right]) -> Vec<Self> {
        let mut targets = BTreeMap::<&Target, Vec<&'static str>>::new();
        for right in rights {
            targets.entry(&right.on).or_default().push(right.verb);
        }
        let targets = targets.into_iter();
        targets
            .map(|(on, verbs)| Self {
                on: on.clone(),
                verbs,
            })
            .collect()
    }

    /// The rule that grants it: of a ClusterRole, or of a Role in the namespace of the target.
    #[must_use]
    pub fn rule(&self) -> PolicyRule {
        PolicyRule {
            api_groups: Some(vec![self.on.group.into()]),
            resources: Some(vec![self.on.resource.into()]),
            resource_names: self.on.name.clone().map(|name| vec![name]),
            verbs: self.verbs.iter().map(ToString::to_string).collect(),
            ..PolicyRule::default()
        }
    }

    /// The same in YAML, as an item of `rules`.
    #[must_use]
    pub fn yaml(&self) -> String {
        let names: Vec<_> = self.on.name.iter().map(String::as_str).collect();
        rule_yaml(self.on.group, &[self.on.resource], &names, &self.verbs)
    }
}

/// `list, watch pods`.
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verbs.join(", "), self.on)
    }
}

/// A rule of a role in YAML, as an item of `rules`.
pub(super) fn rule_yaml(group: &str, resources: &[&str], names: &[&str], verbs: &[&str]) -> String {
    let resource_names = if names.is_empty() {
        String::new()
    } else {
        format!("  resourceNames: {}\n", list(names))
    };
    format!(
        "- apiGroups: {}\n  resources: {}\n{resource_names}  verbs: {}\n",
        list(&[group]),
        list(resources),
        list(verbs)
    )
}

fn list(items: &[&str]) -> String {
    let quoted: Vec<_> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", quoted.join(", "))
}

/// A string of YAML, whatever is in it: one of JSON is one.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> ConfigMapName {
        ConfigMapName {
            namespace: "spire-system".into(),
            name: "spire-bundle-upstream".into(),
        }
    }

    fn as_granted(rule: PolicyRule) -> ResourceRule {
        ResourceRule {
            api_groups: rule.api_groups,
            resources: rule.resources,
            resource_names: rule.resource_names,
            verbs: rule.verbs,
        }
    }

    #[test]
    fn what_is_not_done_needs_no_right() {
        let needs = |needs: Needs| {
            let rights = needs.rights();
            let names = rights.iter().map(ToString::to_string);
            names.collect::<Vec<_>>().join("; ")
        };
        let least = needs(Needs::default());
        assert!(least.starts_with("get pods; list pods; watch pods; "));
        for word in ["tokenreviews", "certificates.k8s.io", "configmaps"] {
            assert!(!least.contains(word), "{least}");
        }
        let all = needs(Needs::remote(Some(bundle())));
        for words in [
            "create tokenreviews of authentication.k8s.io",
            "sign signers of certificates.k8s.io named spiffe-operator.io/*",
            "patch configmaps spire-system/spire-bundle-upstream",
        ] {
            assert!(all.contains(words), "{all}");
        }
    }

    #[test]
    fn the_rules_that_grant_what_is_missing_grant_it() {
        let rights = Needs::remote(Some(bundle())).rights();
        assert_eq!(unmet(rights.clone(), &[]), rights);
        let missing = Missing::of(&rights);
        let rules: Vec<_> = missing.iter().map(|it| as_granted(it.rule())).collect();
        assert_eq!(unmet(rights.clone(), &rules), []);
        // Each of them is needed.
        for (left_out, missing) in missing.iter().enumerate() {
            let mut rules = rules.clone();
            rules.remove(left_out);
            assert_ne!(unmet(rights.clone(), &rules), [], "{missing}");
        }
        let everything = ResourceRule {
            api_groups: Some(vec!["*".into()]),
            resources: Some(vec!["*".into()]),
            resource_names: None,
            verbs: vec!["*".into()],
        };
        assert_eq!(unmet(rights, &[everything]), []);
    }

    #[test]
    fn a_rule_for_other_names_allows_nothing() {
        let rights = Needs::default().rights();
        let rule = as_granted(PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["pods".into(), "namespaces".into()]),
            resource_names: Some(vec!["kube-system".into()]),
            verbs: vec!["*".into()],
            ..PolicyRule::default()
        });
        assert_eq!(unmet(rights.clone(), &[rule]), rights);
    }

    #[test]
    fn what_is_missing_is_told_with_its_rule() {
        let rights = Needs::remote(Some(bundle())).rights();
        let of = |resource: &str| {
            let rights: Vec<_> = rights
                .iter()
                .filter(|right| right.on.resource == resource && right.verb != "get")
                .cloned()
                .collect();
            let [missing] = &Missing::of(&rights)[..] else {
                panic!("{rights:?}")
            };
            format!("{missing}\n{}", missing.yaml())
        };
        assert_eq!(
            of("pods"),
            "list, watch pods\n- apiGroups: [\"\"]\n  resources: [\"pods\"]\n  verbs: [\"list\", \"watch\"]\n"
        );
        assert_eq!(
            of("configmaps"),
            "list, watch, create, patch, delete configmaps spire-system/spire-bundle-upstream\n\
             - apiGroups: [\"\"]\n  resources: [\"configmaps\"]\n  \
             resourceNames: [\"spire-bundle-upstream\"]\n  \
             verbs: [\"list\", \"watch\", \"create\", \"patch\", \"delete\"]\n"
        );
        let rules: Vec<PolicyRule> =
            serde_saphyr::from_str(&Missing::of(&rights)[0].yaml()).unwrap();
        assert_eq!(rules, [Missing::of(&rights)[0].rule()]);
    }
}
