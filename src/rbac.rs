//! What the operator may do in the Kubernetes API, and why: the one list from which the manifests
//! in `config/rbac` and in the chart are generated.
//!
//! A right that is not here is not held, so code that needs another one adds it here with its
//! reason. Rights are as narrow as RBAC allows: by name where names are fixed, in the operator's
//! own namespace where that is enough, and no verb that nothing calls. A ClusterTrustBundle bears
//! its signer's name as a prefix, which RBAC cannot match; there `attest` binds what may be written.
//!
//! Some API servers (`OpenShift`'s among them) run the admission plugin
//! `OwnerReferencesPermissionEnforcement`. Whoever changes the owners of an object needs the right to
//! delete it there, which is why `delete` is held where nothing is deleted.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::nested::parent::parent_object_name;

/// Name of the service account, the roles and their bindings.
pub const NAME: &str = "spiffe-operator";
/// The namespace the operator lives in unless it is told otherwise.
pub const NAMESPACE: &str = "spiffe-system";
/// Signer names that the operator may sign for.
pub const SIGNERS: &str = "spiffe-operator.io/*";
/// The one ConfigMap that the operator may write outside its namespace. It must be listed and
/// watched by the field `metadata.name`, and made by server-side apply: the API server learns the
/// name of an object that is posted only after it has asked RBAC.
pub const BUNDLE_CONFIG_MAP: &str = "spiffe-bundle";

/// The kinds of `spire.spiffe.io`.
const SPIRE_KINDS: &[&str] = &[
    "clusterfederatedtrustdomains",
    "clusterspiffeids",
    "clusterstaticentries",
];
/// The kinds of `spiffe-operator.io`.
const OWN_KINDS: &[&str] = &[
    "attestedagents",
    "nestedclusters",
    "registrationentries",
    "trustdomains",
];
const READ: &[&str] = &["get", "list", "watch"];
const OBSERVE: &[&str] = &["list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete"];

/// Some rights and the reason for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What they are for, one sentence.
    pub reason: &'static str,
    /// The API group, "" for the core one.
    pub group: &'static str,
    /// Resources and subresources.
    pub resources: &'static [&'static str],
    /// Names to which the rights are bound; none: all.
    pub names: &'static [&'static str],
    /// What may be done, in the order of reading and writing.
    pub verbs: &'static [&'static str],
}

impl Grant {
    const fn new(
        reason: &'static str,
        group: &'static str,
        resources: &'static [&'static str],
        verbs: &'static [&'static str],
    ) -> Self {
        Self {
            reason,
            group,
            resources,
            names: &[],
            verbs,
        }
    }

    const fn only(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
    }

    /// The rule as Kubernetes writes it.
    #[must_use]
    pub fn rule(&self) -> PolicyRule {
        let strings = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
        PolicyRule {
            api_groups: Some(strings(&[self.group])),
            resources: Some(strings(self.resources)),
            resource_names: (!self.names.is_empty()).then(|| strings(self.names)),
            verbs: strings(self.verbs),
            ..PolicyRule::default()
        }
    }
}

/// What the operator may do in the whole cluster.
pub const CLUSTER: &[Grant] = &[
    Grant::new(
        "Which pods get which identity; one that asks may be newer than the watch.",
        "",
        &["pods"],
        READ,
    ),
    Grant::new(
        "Selectors and templates see namespaces.",
        "",
        &["namespaces"],
        OBSERVE,
    ),
    Grant::new(
        "Selectors and templates see nodes; that of an agent which attests may be newer than the \
         watch.",
        "",
        &["nodes"],
        READ,
    ),
    Grant::new(
        "Agents that attest as pods show tokens of their service accounts.",
        "authentication.k8s.io",
        &["tokenreviews"],
        &["create"],
    ),
    Grant::new(
        "A pod's certificate can carry the names of the services that select it.",
        "discovery.k8s.io",
        &["endpointslices"],
        OBSERVE,
    ),
    Grant::new(
        "The registrations that users apply.",
        "spire.spiffe.io",
        &["clusterspiffeids", "clusterstaticentries"],
        OBSERVE,
    ),
    Grant::new(
        "Entries that are made, changed and deleted through the SPIRE server API.",
        "spiffe-operator.io",
        &["registrationentries"],
        &["get", "list", "watch", "create", "update", "delete"],
    ),
    Grant::new(
        "The trust domains and nested clusters that users apply.",
        "spiffe-operator.io",
        &["nestedclusters", "trustdomains"],
        OBSERVE,
    ),
    Grant::new(
        "Keep a nested cluster's object until what belongs to it is gone.",
        "spiffe-operator.io",
        &["nestedclusters"],
        &["update"],
    ),
    Grant::new(
        "The record of each attested agent.",
        "spiffe-operator.io",
        &["attestedagents"],
        &["get", "list", "watch", "create", "update", "delete"],
    ),
    Grant::new(
        "Tell users what was made of their registrations.",
        "spire.spiffe.io",
        &["clusterspiffeids/status", "clusterstaticentries/status"],
        &["update"],
    ),
    Grant::new(
        "Tell users what was made of their trust domains and nested clusters.",
        "spiffe-operator.io",
        &["nestedclusters/status", "trustdomains/status"],
        &["update"],
    ),
    Grant::new(
        "Pods ask for their certificates through these.",
        "certificates.k8s.io",
        &["podcertificaterequests"],
        READ,
    ),
    Grant::new(
        "Answer them with a certificate.",
        "certificates.k8s.io",
        &["podcertificaterequests/status"],
        &["update"],
    ),
    Grant::new(
        "Sign those requests, and vouch for the roots of the same signers, no others.",
        "certificates.k8s.io",
        &["signers"],
        &["sign", "attest"],
    )
    .only(&[SIGNERS]),
    Grant::new(
        "Publish the roots of each trust domain to pods.",
        "certificates.k8s.io",
        &["clustertrustbundles"],
        &["get", "list", "watch", "create", "update", "delete"],
    ),
    Grant::new(
        "Keep a copy of the bundle in the namespaces that a trust domain selects.",
        "",
        &["configmaps"],
        &[
            "get", "list", "watch", "create", "update", "patch", "delete",
        ],
    )
    .only(&[BUNDLE_CONFIG_MAP]),
    Grant::new(
        "Say on a pod and on a registration what happened to it.",
        "events.k8s.io",
        &["events"],
        &["create"],
    ),
];

/// What the operator may do in its own namespace.
pub const NAMESPACED: &[Grant] = &[
    Grant::new(
        "Keys and the journal of each authority live in a Secret, and users bring CAs and kubeconfigs in \
         Secrets.",
        "",
        &["secrets"],
        &["get", "list", "watch", "create", "update", "delete"],
    ),
    Grant::new(
        "Last good specs of registrations that were broken by a change, and foreign bundles, live in \
         ConfigMaps.",
        "",
        &["configmaps"],
        &["get", "list", "watch", "create", "update", "delete"],
    ),
    Grant::new(
        "One replica at a time does what must happen once.",
        "coordination.k8s.io",
        &["leases"],
        &["get", "create", "update"],
    ),
];

/// What the operator may do with the ConfigMap and the Secret of a stock SPIRE server that it tells of
/// nested clusters. Users add it where they want that.
const PARENT: Grant = Grant::new(
    "Tell a SPIRE server of nested clusters.",
    "",
    &["configmaps", "secrets"],
    &["get", "create", "patch", "delete"],
);

/// The Role and its binding by which the operator of `operator_namespace` may tell the server `parent`
/// in `namespace` of nested clusters.
#[must_use]
pub fn parent_rights(
    namespace: &str,
    parent: &str,
    operator_namespace: &str,
) -> (Role, RoleBinding) {
    let metadata = ObjectMeta {
        name: Some(format!("{NAME}-{}", parent_object_name(parent))),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    let on_both = PolicyRule {
        resource_names: Some(vec![parent_object_name(parent)]),
        ..PARENT.rule()
    };
    let binding = RoleBinding {
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: "Role".into(),
            name: metadata.name.clone().unwrap_or_default(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: NAME.into(),
            namespace: Some(operator_namespace.to_owned()),
            ..Subject::default()
        }]),
        metadata: metadata.clone(),
    };
    let role = Role {
        rules: Some(vec![on_both]),
        metadata,
    };
    (role, binding)
}

/// What the aggregated roles `view`, `edit` and `admin` gain.
pub const VIEWERS: &[Grant] = &[
    Grant::new(
        "See who gets which identity.",
        "spire.spiffe.io",
        SPIRE_KINDS,
        READ,
    ),
    Grant::new(
        "See the trust domains, their clusters and agents, and what was registered through their servers.",
        "spiffe-operator.io",
        OWN_KINDS,
        READ,
    ),
];

/// What the role `spiffe-admin` adds to looking. It is aggregated to nothing: whoever writes these
/// objects decides who is who.
pub const ADMINISTRATORS: &[Grant] = &[
    Grant::new(
        "Decide who gets which identity.",
        "spire.spiffe.io",
        SPIRE_KINDS,
        WRITE,
    ),
    Grant::new(
        "Decide who signs and which clusters belong to a trust domain, and evict or ban agents.",
        "spiffe-operator.io",
        OWN_KINDS,
        WRITE,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::custom_resource_definitions;

    fn all() -> impl Iterator<Item = &'static Grant> {
        [CLUSTER, NAMESPACED, VIEWERS, ADMINISTRATORS]
            .into_iter()
            .flatten()
    }

    #[test]
    fn nothing_is_granted_by_wildcard_but_the_signers_path() {
        for grant in all() {
            let words = grant.resources.iter().chain(grant.verbs).chain(grant.names);
            for word in words.filter(|word| word.contains('*')) {
                assert_eq!(*word, SIGNERS, "{grant:?}");
            }
            assert_ne!(grant.group, "*", "{grant:?}");
        }
    }

    #[test]
    fn every_reason_is_a_sentence() {
        for grant in all() {
            assert!(
                grant.reason.ends_with('.') && !grant.reason.contains('\n'),
                "{grant:?}"
            );
        }
    }

    #[test]
    fn every_kind_can_be_seen_by_viewers_and_written_by_administrators() {
        for definition in custom_resource_definitions() {
            let (group, plural) = (definition.spec.group, definition.spec.names.plural);
            for grants in [VIEWERS, ADMINISTRATORS] {
                let granted = grants
                    .iter()
                    .any(|grant| grant.group == group && grant.resources.contains(&&*plural));
                assert!(granted, "{plural}.{group}");
            }
        }
    }

    #[test]
    fn rights_beside_a_parent_are_bound_to_one_name() {
        let (role, binding) = parent_rights("spire", "spire-server", "spiffe-system");
        let texts = [
            serde_saphyr::to_string(&role),
            serde_saphyr::to_string(&binding),
        ];
        insta::assert_snapshot!(texts.map(Result::unwrap).join("---\n"));
    }

    #[test]
    fn secrets_are_readable_in_the_own_namespace_only() {
        assert!(
            !CLUSTER
                .iter()
                .any(|grant| grant.resources.contains(&"secrets"))
        );
    }
}
