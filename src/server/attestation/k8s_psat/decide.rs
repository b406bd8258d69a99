//! Which pod of a cluster is an agent, and what is known of it then. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Deserialize;
use tonic::{Code, Status};

use crate::domains::K8sPsatSettings;
use crate::server::attestation::{Evidence, refusal};
use crate::spiffe::TrustDomainName;

/// The attestor's name.
pub const NAME: &str = "k8s_psat";

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// Longest name of a Kubernetes object.
const MAX_NAME: usize = 253;

/// What an agent sends.
#[derive(Deserialize)]
pub struct Payload {
    /// Name of the cluster.
    #[serde(default)]
    pub cluster: String,
    /// Token of the service account.
    #[serde(default)]
    pub(super) token: String,
}

impl Payload {
    /// Reads what an agent sends.
    ///
    /// # Errors
    /// When it is malformed, or something is missing.
    pub fn read(payload: &[u8]) -> Result<Self, Status> {
        let refused = |message: String| refusal(NAME, Code::InvalidArgument, message);
        let payload: Self = serde_json::from_slice(payload)
            .map_err(|error| refused(format!("failed to unmarshal data payload: {error}")))?;
        if payload.cluster.is_empty() {
            return Err(refused("missing cluster in attestation data".into()));
        }
        if payload.token.is_empty() {
            return Err(refused("missing token in attestation data".into()));
        }
        Ok(payload)
    }
}

/// The pod that a token is bound to. All of it are names that fit into a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenOwner {
    pub(super) namespace: String,
    pub(super) service_account: String,
    pub(super) pod_name: String,
    pub(super) pod_uid: String,
}

pub(super) fn not_configured(cluster: &str) -> Status {
    let message = format!("not configured for cluster {cluster:?}");
    refusal(NAME, Code::InvalidArgument, message)
}

/// Whose token it is, when that is a service account of agents.
pub(super) fn token_owner(
    settings: &K8sPsatSettings,
    status: &TokenReviewStatus,
) -> Result<TokenOwner, Status> {
    let cluster = &settings.cluster;
    let internal = |what: &str, problem: &str| {
        let message = format!("{what} for cluster {cluster:?}: {problem}");
        refusal(NAME, Code::Internal, message)
    };
    let unable = |problem: &str| internal("unable to validate token with TokenReview API", problem);
    if let Some(error) = status.error.as_deref().filter(|error| !error.is_empty()) {
        let problem = format!("token review API response contains an error: {error}");
        return Err(unable(&problem));
    }
    if status.authenticated != Some(true) {
        let message =
            format!("token not authenticated according to TokenReview API for cluster {cluster:?}");
        return Err(refusal(NAME, Code::PermissionDenied, message));
    }
    let audiences = status.audiences.as_deref().unwrap_or_default();
    let wanted = &settings.audiences;
    if !wanted.is_empty() && !audiences.iter().any(|found| wanted.contains(found)) {
        return Err(unable("token audience is not one that was asked for"));
    }
    let user = status.user.clone().unwrap_or_default();
    let name_of =
        |problem: &str| internal("fail to parse username from token review status", problem);
    let username = user.username.unwrap_or_default();
    let Some(account) = username.strip_prefix("system:serviceaccount:") else {
        return Err(name_of("not a service account"));
    };
    let Some((namespace, service_account)) = account.split_once(':') else {
        return Err(name_of("unexpected username format"));
    };
    if !is_object_name(namespace) || !is_object_name(service_account) {
        return Err(name_of("unexpected username format"));
    }
    if !settings.service_accounts.contains(account) {
        let message =
            format!("{account:?} is not an allowed service account for cluster {cluster:?}");
        return Err(refusal(NAME, Code::PermissionDenied, message));
    }
    let extra = user.extra.unwrap_or_default();
    let only = |key: &str| match extra.get(key).map(Vec::as_slice) {
        None => Err("it is missing".to_owned()),
        Some([value]) if is_object_name(value) => Ok(value.clone()),
        Some([_]) => Err("it is malformed".to_owned()),
        Some(values) => Err(format!("expected 1 but got: {}", values.len())),
    };
    let field = |what: &str, key: &str| {
        only(key).map_err(|problem| {
            internal(
                &format!("fail to get {what} from token review status"),
                &problem,
            )
        })
    };
    Ok(TokenOwner {
        namespace: namespace.into(),
        service_account: service_account.into(),
        pod_name: field("pod name", POD_NAME)?,
        pod_uid: field("pod UID", POD_UID)?,
    })
}

/// Name of the node of the owner's pod, when `pod` is that pod and no other of its name.
pub(super) fn node_name<'a>(
    settings: &K8sPsatSettings,
    owner: &TokenOwner,
    pod: &'a Pod,
) -> Result<&'a str, Status> {
    let cluster = &settings.cluster;
    if pod.metadata.uid.as_ref() != Some(&owner.pod_uid) {
        let message = format!("the pod of the token is gone in cluster {cluster:?}");
        return Err(refusal(NAME, Code::PermissionDenied, message));
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.filter(|node| is_object_name(node)).ok_or_else(|| {
        let message = format!("the pod of the token is on no node in cluster {cluster:?}");
        refusal(NAME, Code::PermissionDenied, message)
    })
}

/// What is known of the agent in the owner's pod, which runs on `node`.
pub(super) fn evidence(
    trust_domain: &TrustDomainName,
    settings: &K8sPsatSettings,
    owner: &TokenOwner,
    pod: &Pod,
    node: &Node,
) -> Result<Evidence, Status> {
    let K8sPsatSettings { cluster, .. } = settings;
    let internal = |message: String| refusal(NAME, Code::Internal, message);
    let node_uid = node.metadata.uid.as_deref().unwrap_or_default();
    if node_uid.is_empty() {
        return Err(internal(format!(
            "node UID is empty for cluster {cluster:?}"
        )));
    }
    let account = format!("{}:{}", owner.namespace, owner.service_account);
    let suffix = if settings.tells_by_pod(&account) {
        format!("pod/{}", owner.pod_uid)
    } else if node_uid.contains('/') {
        return Err(internal(format!(
            "node UID is malformed for cluster {cluster:?}"
        )));
    } else {
        node_uid.to_owned()
    };
    let id = format!(
        "{}/spire/agent/{NAME}/{cluster}/{suffix}",
        trust_domain.id()
    );
    let id = id
        .parse()
        .map_err(|error| internal(format!("invalid agent ID: {error}")))?;
    let spec = pod.spec.clone().unwrap_or_default();
    let node_name = spec.node_name.unwrap_or_default();
    let host_ip = pod.status.as_ref().and_then(|it| it.host_ip.as_deref());
    let facts = [
        ("cluster", cluster.as_str()),
        ("agent_ns", &owner.namespace),
        ("agent_sa", &owner.service_account),
        ("agent_pod_name", &owner.pod_name),
        ("agent_pod_uid", &owner.pod_uid),
        ("agent_node_ip", host_ip.unwrap_or_default()),
        ("agent_node_name", &node_name),
        ("agent_node_uid", node_uid),
    ];
    let mut selectors: Vec<_> = facts
        .iter()
        .map(|(kind, value)| format!("{NAME}:{kind}:{value}"))
        .collect();
    let node_labels = node.metadata.labels.as_ref();
    let pod_labels = pod.metadata.labels.as_ref();
    selectors.extend(labels(
        "agent_node_label",
        node_labels,
        &settings.node_label_keys,
    ));
    selectors.extend(labels(
        "agent_pod_label",
        pod_labels,
        &settings.pod_label_keys,
    ));
    Ok(Evidence {
        id,
        attestation_type: NAME,
        can_reattest: true,
        selectors,
        cluster: Some(cluster.clone()),
        node_name: Some(node_name),
        alias: None,
    })
}

fn labels(
    kind: &str,
    labels: Option<&BTreeMap<String, String>>,
    allowed: &BTreeSet<String>,
) -> Vec<String> {
    let labels = labels.into_iter().flatten();
    labels
        .filter(|(key, _)| allowed.contains(*key))
        .map(|(key, value)| format!("{NAME}:{kind}:{key}:{value}"))
        .collect()
}

/// Whether `name` can be that of an object, and so stand in a path as one segment.
fn is_object_name(name: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name.chars().all(is_legal)
        && name.chars().any(|c| c != '.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn settings() -> K8sPsatSettings {
        K8sPsatSettings {
            cluster: "prod".into(),
            service_accounts: BTreeSet::from(["spire:agent".into()]),
            audiences: vec!["spire-server".into()],
            node_label_keys: BTreeSet::from(["zone".into()]),
            pod_label_keys: BTreeSet::from(["app".into()]),
            id_by_pod: false,
            by_pod: BTreeSet::new(),
        }
    }

    fn review(changes: &Value) -> TokenReviewStatus {
        let mut status = json!({
            "authenticated": true,
            "audiences": ["spire-server", "other"],
            "user": {
                "username": "system:serviceaccount:spire:agent",
                "extra": { POD_NAME: ["agent-x"], POD_UID: ["pod-uid"] },
            },
        });
        for (key, value) in changes.as_object().unwrap() {
            status[key] = value.clone();
        }
        serde_json::from_value(status).unwrap()
    }

    fn owner() -> TokenOwner {
        token_owner(&settings(), &review(&json!({}))).unwrap()
    }

    fn pod(uid: &str, node: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "uid": uid, "labels": { "app": "agent", "other": "x" } },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "hostIP": "10.0.0.1" },
        }))
        .unwrap()
    }

    fn node(uid: &str) -> Node {
        let metadata = json!({ "uid": uid, "labels": { "zone": "a", "other": "x" } });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    fn trust_domain() -> TrustDomainName {
        "example.org".parse().unwrap()
    }

    #[test]
    fn the_payload_names_a_cluster_and_has_a_token() {
        for (payload, problem) in [
            ("", "failed to unmarshal data payload"),
            ("[1]", "failed to unmarshal data payload"),
            ("{\"cluster\":1}", "failed to unmarshal data payload"),
            ("{}", "missing cluster in attestation data"),
            (
                "{\"cluster\":\"prod\"}",
                "missing token in attestation data",
            ),
        ] {
            let status = Payload::read(payload.as_bytes()).err().unwrap();
            assert_eq!(status.code(), Code::InvalidArgument);
            let expected = format!("nodeattestor(k8s_psat): {problem}");
            assert!(status.message().starts_with(&expected), "{status:?}");
        }
    }

    proptest! {
        /// Whatever is sent is read as it was meant, or refused.
        #[test]
        fn any_payload_is_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cluster in ".{0,20}",
            token in ".{0,40}",
        ) {
            if let Err(status) = Payload::read(&bytes) {
                prop_assert_eq!(status.code(), Code::InvalidArgument);
            }
            let sent = json!({ "cluster": cluster, "token": token }).to_string();
            match Payload::read(sent.as_bytes()) {
                Ok(read) => prop_assert_eq!((read.cluster, read.token), (cluster, token)),
                Err(status) => {
                    prop_assert_eq!(status.code(), Code::InvalidArgument);
                    prop_assert!(cluster.is_empty() || token.is_empty());
                }
            }
        }

        /// Whatever an API server says of a token, who is let in is an agent with an ID below the
        /// attestor's.
        #[test]
        fn whatever_is_said_of_a_token_leads_nowhere_else(
            name in "[a-z./%ü]{0,8}", uid in "[a-z./%ü]{0,8}", node_uid in "[a-z./%ü]{0,8}",
        ) {
            for id_by_pod in [false, true] {
                let settings = K8sPsatSettings { id_by_pod, ..settings() };
                let said = review(&json!({ "user": {
                    "username": "system:serviceaccount:spire:agent",
                    "extra": { POD_NAME: [name], POD_UID: [uid] },
                } }));
                let Ok(owner) = token_owner(&settings, &said) else { continue };
                let found = evidence(
                    &trust_domain(), &settings, &owner, &pod(&uid, "node"), &node(&node_uid),
                );
                let Ok(found) = found else { continue };
                let path = found.id.path().strip_prefix("/spire/agent/k8s_psat/prod/");
                let last = if id_by_pod { format!("pod/{uid}") } else { node_uid.clone() };
                prop_assert_eq!(path, Some(&*last));
            }
        }
    }

    #[test]
    fn a_token_must_be_that_of_a_pod_of_an_allowed_service_account() {
        use Code::{Internal, PermissionDenied};
        let user = |username: &str, extra: Value| json!({ "user": { "username": username, "extra": extra } });
        let account = "system:serviceaccount:spire:agent";
        let bound = json!({ POD_NAME: ["agent-x"], POD_UID: ["pod-uid"] });
        for (changes, code, problem) in [
            (
                json!({ "error": "bad token" }),
                Internal,
                "contains an error: bad token",
            ),
            (
                json!({ "authenticated": false }),
                PermissionDenied,
                "token not authenticated",
            ),
            (
                json!({ "authenticated": null }),
                PermissionDenied,
                "token not authenticated",
            ),
            (json!({ "audiences": ["other"] }), Internal, "audience"),
            (json!({ "audiences": null }), Internal, "audience"),
            (
                user("admin", bound.clone()),
                Internal,
                "not a service account",
            ),
            (
                user("system:serviceaccount:spire", bound.clone()),
                Internal,
                "format",
            ),
            (
                user("system:serviceaccount:a:b:c", bound.clone()),
                Internal,
                "format",
            ),
            (
                user("system:serviceaccount::agent", bound.clone()),
                Internal,
                "format",
            ),
            (
                user("system:serviceaccount:a/b:agent", bound.clone()),
                Internal,
                "format",
            ),
            (
                user("system:serviceaccount:spire:other", bound),
                PermissionDenied,
                "\"spire:other\" is not an allowed service account for cluster \"prod\"",
            ),
            (user(account, json!({})), Internal, "fail to get pod name"),
            (
                user(account, json!({ POD_NAME: ["a", "b"] })),
                Internal,
                "expected 1 but got: 2",
            ),
            (
                user(account, json!({ POD_NAME: ["../x"] })),
                Internal,
                "malformed",
            ),
            (
                user(account, json!({ POD_NAME: ["a"] })),
                Internal,
                "fail to get pod UID",
            ),
            (
                user(account, json!({ POD_NAME: ["a"], POD_UID: [""] })),
                Internal,
                "malformed",
            ),
            (
                user(account, json!({ POD_NAME: ["a"], POD_UID: [".."] })),
                Internal,
                "malformed",
            ),
        ] {
            let status = token_owner(&settings(), &review(&changes)).unwrap_err();
            assert_eq!(status.code(), code, "{status:?}");
            assert!(status.message().contains(problem), "{status:?}");
        }
        assert_eq!(owner().pod_uid, "pod-uid");
        let any_audience = K8sPsatSettings {
            audiences: Vec::new(),
            ..settings()
        };
        assert!(token_owner(&any_audience, &review(&json!({ "audiences": null }))).is_ok());
    }

    #[test]
    fn a_pod_that_took_the_name_of_another_is_no_agent() {
        let settings = settings();
        assert_eq!(
            node_name(&settings, &owner(), &pod("pod-uid", "n1")).unwrap(),
            "n1"
        );
        for pod in [
            pod("later-uid", "n1"),
            pod("pod-uid", ""),
            pod("pod-uid", "a/b"),
            Pod::default(),
        ] {
            let status = node_name(&settings, &owner(), &pod).unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied);
        }
    }

    #[test]
    fn an_agent_is_told_apart_by_its_node_or_its_pod() {
        let pod = pod("pod-uid", "n1");
        let by_node = evidence(
            &trust_domain(),
            &settings(),
            &owner(),
            &pod,
            &node("node-uid"),
        );
        let by_node = by_node.unwrap();
        assert_eq!(by_node.id.path(), "/spire/agent/k8s_psat/prod/node-uid");
        assert!(by_node.can_reattest);
        assert_eq!(
            by_node.selectors,
            [
                "k8s_psat:cluster:prod",
                "k8s_psat:agent_ns:spire",
                "k8s_psat:agent_sa:agent",
                "k8s_psat:agent_pod_name:agent-x",
                "k8s_psat:agent_pod_uid:pod-uid",
                "k8s_psat:agent_node_ip:10.0.0.1",
                "k8s_psat:agent_node_name:n1",
                "k8s_psat:agent_node_uid:node-uid",
                "k8s_psat:agent_node_label:zone:a",
                "k8s_psat:agent_pod_label:app:agent",
            ]
        );
        let settings = K8sPsatSettings {
            id_by_pod: true,
            ..settings()
        };
        let by_pod = evidence(
            &trust_domain(),
            &settings,
            &owner(),
            &pod,
            &node("node-uid"),
        );
        assert_eq!(
            by_pod.unwrap().id.path(),
            "/spire/agent/k8s_psat/prod/pod/pod-uid"
        );
    }

    #[test]
    fn what_an_api_server_says_cannot_lead_to_another_id() {
        for uid in ["", "a/b", "..", "pod/x", "a b"] {
            let pod = pod("pod-uid", "n1");
            let refused = evidence(&trust_domain(), &settings(), &owner(), &pod, &node(uid));
            assert_eq!(refused.unwrap_err().code(), Code::Internal, "{uid}");
        }
    }
}
