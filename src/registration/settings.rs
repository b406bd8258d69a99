//! What a TrustDomain says about registration, parsed.

use regex::Regex;

use super::{
    bounds::{ClusterBounds, DeclaredBy, NestedScope},
    downstream::DownstreamServers,
    entry_error::{EntryError, check_parent_id},
    lifetimes::Lifetimes,
    template::{ClusterFacts, Template, TemplateError},
};
use crate::{
    api::TrustDomainSpec,
    spiffe::{ParseTrustDomainError, TrustDomainName},
};

/// The parent ID of pods' entries where the trust domain names none.
pub const DEFAULT_PARENT_ID_TEMPLATE: &str =
    "spiffe://{{ .TrustDomain }}/spire/agent/k8s_psat/{{ .ClusterName }}/{{ .NodeMeta.UID }}";

/// How one trust domain registers the pods of one cluster.
#[derive(Debug)]
pub struct Settings {
    /// What templates see of the trust domain and the cluster.
    pub cluster: ClusterFacts,
    /// The class of the objects it serves.
    pub class_name: String,
    /// Whether it serves objects without a class, too.
    pub watch_classless: bool,
    /// Template of the parent ID of pods' entries.
    pub parent_id_template: Template,
    /// Namespaces whose pods get no identity; an expression matches anywhere in the name.
    pub ignore_namespaces: Vec<Regex>,
    /// The limits of the cluster, if it is a nested one.
    pub bounds: Option<ClusterBounds>,
    /// The servers of a nested cluster, where nothing else of it is registered here.
    pub servers: Option<DownstreamServers>,
    /// How long SVIDs live for certain.
    pub lifetimes: Lifetimes,
}

/// Why a TrustDomain cannot register anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// No regular expression.
    #[error("ignoreNamespaces: {message}")]
    IgnoreNamespaces {
        /// What is wrong with it.
        message: String,
    },
    /// A template of a parent ID that is wrong for every node.
    #[error("parentIDTemplate: {source}")]
    ParentId {
        /// What is wrong with it.
        source: EntryError,
    },
    /// No template of a parent ID.
    #[error("parentIDTemplate: {source}")]
    ParentIdTemplate {
        /// What is wrong with it.
        source: TemplateError,
    },
    /// No trust domain name.
    #[error("trustDomain: {source}")]
    TrustDomain {
        /// What is wrong with it.
        source: ParseTrustDomainError,
    },
}

impl Settings {
    /// Parses what `spec` says about registration.
    ///
    /// # Errors
    /// When a name, template or regular expression does not parse, or no node can have a parent ID
    /// by the template.
    pub fn parse(spec: &TrustDomainSpec) -> Result<Self, SettingsError> {
        let trust_domain: TrustDomainName = spec
            .trust_domain
            .parse()
            .map_err(|source| SettingsError::TrustDomain { source })?;
        let parent = spec
            .parent_id_template
            .as_deref()
            .filter(|template| !template.is_empty());
        let parent_id_template =
            Template::parse_parent(parent.unwrap_or(DEFAULT_PARENT_ID_TEMPLATE))
                .map_err(|source| SettingsError::ParentIdTemplate { source })?;
        parent_id_template
            .beginning(&trust_domain)
            .check_id("parent ID", &trust_domain, check_parent_id)
            .map_err(|source| SettingsError::ParentId { source })?;
        let ignore_namespaces = spec
            .ignore_namespaces
            .iter()
            .map(|expression| Regex::new(expression))
            .collect::<Result<_, _>>()
            .map_err(|error| SettingsError::IgnoreNamespaces {
                message: error.to_string(),
            })?;
        Ok(Self {
            cluster: ClusterFacts {
                trust_domain,
                cluster_name: spec.cluster_name.clone(),
                cluster_domain: spec.cluster_domain.clone(),
            },
            class_name: spec.class_name.clone().unwrap_or_default(),
            watch_classless: spec.watch_classless,
            parent_id_template,
            ignore_namespaces,
            bounds: None,
            servers: None,
            lifetimes: Lifetimes::of(spec),
        })
    }

    /// The same for the pods of a nested cluster.
    #[must_use]
    pub fn within(mut self, scope: &NestedScope) -> Self {
        let NestedScope {
            bounds,
            declared_by,
        } = scope;
        bounds
            .cluster_name()
            .clone_into(&mut self.cluster.cluster_name);
        self.bounds = Some(bounds.clone());
        if let DeclaredBy::Servers(servers) = declared_by {
            // They often run in a namespace whose other pods are to have no identity.
            self.ignore_namespaces.clear();
            self.servers = Some(servers.clone());
        }
        self
    }

    /// Whether it serves an object of this class.
    #[must_use]
    pub fn serves(&self, class_name: Option<&str>) -> bool {
        let class_name = class_name.unwrap_or_default();
        class_name == self.class_name || (class_name.is_empty() && self.watch_classless)
    }

    /// Whether pods of this namespace get no identity.
    #[must_use]
    pub fn ignores_namespace(&self, namespace: &str) -> bool {
        self.ignore_namespaces
            .iter()
            .any(|expression| expression.is_match(namespace))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
    fn parse(json: serde_json::Value) -> Result<Settings, SettingsError> {
        let mut spec = json!({"trustDomain": "e.org", "authority": {"selfSigned": {}}});
        spec.as_object_mut()
            .unwrap()
            .extend(json.as_object().unwrap().clone());
        Settings::parse(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_class_is_served_if_it_is_the_same_or_if_there_is_none_and_that_is_wanted() {
        for (own, classless, other, served) in [
            ("", false, None, true),
            ("", false, Some(""), true),
            ("", false, Some("a"), false),
            ("a", false, Some("a"), true),
            ("a", false, Some("b"), false),
            ("a", false, None, false),
            ("a", true, None, true),
            ("a", true, Some(""), true),
            ("a", true, Some("b"), false),
        ] {
            let settings = parse(json!({"className": own, "watchClassless": classless})).unwrap();
            assert_eq!(
                settings.serves(other),
                served,
                "{own} {classless} {other:?}"
            );
        }
    }

    #[test]
    fn ignored_namespaces_match_anywhere() {
        let settings = parse(json!({"ignoreNamespaces": ["kube-system", "^a$", "b+"]})).unwrap();
        for (namespace, ignored) in [
            ("kube-system", true),
            ("my-kube-system-2", true),
            ("a", true),
            ("ac", false),
            ("abc", true),
        ] {
            assert_eq!(
                settings.ignores_namespace(namespace),
                ignored,
                "{namespace}"
            );
        }
    }

    #[test]
    fn refuses_what_does_not_parse() {
        use SettingsError as E;
        let error = |spec| parse(spec).unwrap_err();
        let parent_id = |template: &str| error(json!({"parentIDTemplate": template}));
        assert!(matches!(
            error(json!({"trustDomain": "E.org"})),
            E::TrustDomain { .. }
        ));
        assert!(matches!(
            error(json!({"ignoreNamespaces": ["("]})),
            E::IgnoreNamespaces { .. }
        ));
        for template in ["{{ .PodMeta.Name }}", "{{ "] {
            let error = parent_id(template);
            assert!(matches!(error, E::ParentIdTemplate { .. }), "{error}");
        }
        for template in [
            "node/{{ .NodeMeta.UID }}",
            "spiffe://f.org/{{ .NodeMeta.UID }}",
        ] {
            let error = parent_id(template);
            assert!(matches!(error, E::ParentId { .. }), "{error}");
        }
    }
}
