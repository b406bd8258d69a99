//! What the operator may do in a nested cluster: the one list from which the manifests for there
//! are made, and by which a credential is checked.

use super::{Grant, OBSERVE, READ, SIGNERS};

/// Name of the service account in a nested cluster, the roles and their bindings.
pub const NAME: &str = "spiffe-operator-nested";
/// Name of the role by which the service account acts as somebody else, and of its binding.
pub const IMPERSONATOR: &str = "spiffe-operator-nested-impersonator";

/// To register pods.
pub const PODS: &[Grant] = &[
    Grant::new(
        "Which pods get which identity, and whether the pod of an agent is still there.",
        "",
        &["pods"],
        READ,
    ),
    Grant::new(
        "Which cluster it is, by the UID of kube-system. Selectors and templates see namespaces.",
        "",
        &["namespaces"],
        READ,
    ),
    Grant::new(
        "Selectors and templates see nodes, and agents are named after them.",
        "",
        &["nodes"],
        READ,
    ),
    Grant::new(
        "A pod's certificate can carry the names of the services that select it.",
        "discovery.k8s.io",
        &["endpointslices"],
        OBSERVE,
    ),
    Grant::new(
        "Say on a pod what happened to it.",
        "events.k8s.io",
        &["events"],
        &["create"],
    ),
];

/// To attest agents.
pub const AGENTS: &[Grant] = &[Grant::new(
    "Agents that attest as pods show tokens of their service accounts.",
    "authentication.k8s.io",
    &["tokenreviews"],
    &["create"],
)];

/// To sign the certificates of pods.
pub const POD_CERTIFICATES: &[Grant] = &[
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
        "Sign for the signers of this operator, no others.",
        "certificates.k8s.io",
        &["signers"],
        &["sign"],
    )
    .only(&[SIGNERS]),
];

/// To publish the roots for them.
pub const TRUST_BUNDLES: &[Grant] = &[
    Grant::new(
        "Publish the roots of the trust domain to pods.",
        "certificates.k8s.io",
        &["clustertrustbundles"],
        &["list", "watch", "create", "patch", "delete"],
    ),
    Grant::new(
        "Vouch for the roots of the signers of this operator, no others.",
        "certificates.k8s.io",
        &["signers"],
        &["attest"],
    )
    .only(&[SIGNERS]),
];

/// To renew a token that the operator made for itself: on its own service account and the Secret that
/// its tokens are bound to, whose names are bound later.
pub const RENEWAL: &[Grant] = &[
    Grant::new(
        "Renew the token of this service account.",
        "",
        &["serviceaccounts/token"],
        &["create"],
    ),
    Grant::new(
        "Know the Secret that its tokens are bound to; its deletion revokes them.",
        "",
        &["secrets"],
        &["get"],
    ),
];

/// To take this role away at the end, and with it all that was made.
pub const FAREWELL: Grant = Grant::new(
    "Delete this role, and with it all that was made for the operator.",
    "rbac.authorization.k8s.io",
    &["clusterroles"],
    &["delete"],
);

/// To publish the bundle in a ConfigMap, whose name is bound later.
pub const BUNDLE: Grant = Grant::new(
    "Keep the ConfigMap of bundle.configMap as the bundle is.",
    "",
    &["configmaps"],
    &["get", "list", "watch", "create", "patch", "delete"],
);
