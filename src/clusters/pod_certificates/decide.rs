//! What becomes of one PodCertificateRequest: issued, denied or left pending. Pure.
//!
//! `Denied` is final for the life of a pod, so it is only for what can never become right; all
//! else waits, with a message that says what is missing. The identity comes from the pod's
//! registered entry; what the requester wrote only chooses among the pod's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::certificates::v1beta1::PodCertificateRequestSpec;
use k8s_openapi::api::core::v1::Pod;

use crate::clusters::pod_certificates::selectors::{self, Verdict};
use crate::domains::{HINT_ANNOTATION, SPIFFE_ID_ANNOTATION};
use crate::registration::{Entry, PodFacts};
use crate::spiffe::{CsrError, MAX_ID_LENGTH, RequestedKey, SpiffeId};

/// Longest hint that an entry can have, in bytes (the CRDs' limit, which is SPIRE's).
const MAX_HINT_LENGTH: usize = 1024;

/// What to do about a request.
#[derive(Debug)]
pub(super) enum Decision {
    /// Sign for this entry and this key.
    Issue {
        /// The registered entry whose identity the certificate carries.
        entry: Arc<Entry>,
        /// The key, its possession proved.
        key: RequestedKey,
    },
    /// It can never become right.
    Deny(Answer),
    /// Something is missing that may still come.
    Wait(Answer),
}

/// A reason for machines and a message for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// CamelCase reason.
    pub reason: &'static str,
    /// What is wrong or missing, and what the user can do.
    pub message: String,
}

impl Answer {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// What is known of the pod that a request names.
#[derive(Debug, Default)]
pub(super) struct KnownPod<'a> {
    /// The pod, once it has been seen.
    pub facts: Option<&'a PodFacts>,
    /// The whole pod, where an entry's selectors ask for more than its UID.
    pub live: Option<&'a Pod>,
    /// The pod's entries, the one of the oldest object first.
    pub entries: Vec<Arc<Entry>>,
    /// Why it has no entry, in words for the user.
    pub why_none: String,
}

/// Decides about the request `spec` in `namespace`.
#[must_use]
pub(super) fn decide(
    spec: &PodCertificateRequestSpec,
    namespace: &str,
    pod: &KnownPod<'_>,
) -> Decision {
    let wanted = match Wanted::parse(spec.unverified_user_annotations.as_ref()) {
        Ok(wanted) => wanted,
        Err(message) => {
            return Decision::Deny(Answer::new("InvalidUnverifiedUserAnnotations", message));
        }
    };
    if shows_no_key(spec) {
        let message = "the key of this request cannot be seen through the version of the API that \
                       is watched; certificates.k8s.io/v1beta1 shows the keys of kubelets before \
                       1.36, and is looked for every 30 s";
        return Decision::Wait(Answer::new("KeyNotVisible", message));
    }
    let key = match requested_key(spec) {
        Ok(key) => key,
        Err(error) => return Decision::Deny(refusal(&error)),
    };
    let Some(facts) = pod.facts else {
        return Decision::Wait(Answer::new("PodNotSeen", "the pod has not been seen yet"));
    };
    // The request can be seen before the news that the pod was given a node.
    if facts.node.is_empty() {
        let message = "the pod has not been seen on a node yet";
        return Decision::Wait(Answer::new("PodNotSeen", message));
    }
    if !names_pod(spec, namespace, facts) {
        let message = "the request names another pod, service account or node than its pod UID";
        return Decision::Deny(Answer::new("PodMismatch", message));
    }
    if pod.entries.is_empty() {
        return Decision::Wait(Answer::new("NotRegistered", &*pod.why_none));
    }
    match choose(&wanted, pod) {
        Ok(entry) => Decision::Issue { entry, key },
        Err(answer) => Decision::Wait(answer),
    }
}

/// Which of the pod's identities the projection asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Oldest,
    Id(SpiffeId),
    Hint(&'a str),
}

impl<'a> Wanted<'a> {
    fn parse(annotations: Option<&'a BTreeMap<String, String>>) -> Result<Self, String> {
        let mut wanted = Self::Oldest;
        for (key, value) in annotations.into_iter().flatten() {
            let next = match key.as_str() {
                SPIFFE_ID_ANNOTATION => {
                    check_length(key, value, MAX_ID_LENGTH)?;
                    let id = value.parse();
                    Self::Id(id.map_err(|error| format!("{key}: {value:?} {error}"))?)
                }
                HINT_ANNOTATION => {
                    check_length(key, value, MAX_HINT_LENGTH)?;
                    Self::Hint(value)
                }
                _ => {
                    return Err(format!(
                        "unknown key {key}; known are {SPIFFE_ID_ANNOTATION} and {HINT_ANNOTATION}"
                    ));
                }
            };
            if wanted != Self::Oldest {
                return Err(format!(
                    "give {SPIFFE_ID_ANNOTATION} or {HINT_ANNOTATION}, not both"
                ));
            }
            wanted = next;
        }
        Ok(wanted)
    }

    fn is_met_by(&self, entry: &Entry) -> bool {
        match self {
            Self::Oldest => true,
            Self::Id(id) => entry.spiffe_id == *id,
            Self::Hint(hint) => entry.hint.as_deref() == Some(hint),
        }
    }
}

/// Nothing longer can be registered, nor be repeated in a message.
fn check_length(key: &str, value: &str, most: usize) -> Result<(), String> {
    match value.len() {
        0 => Err(format!("{key}: is empty")),
        length if length > most => Err(format!(
            "{key}: has {length} bytes; {most} are the most that an entry can have"
        )),
        _ => Ok(()),
    }
}

/// Version `v1` of the API leaves `pkixPublicKey` out, which is all that kubelets before 1.36 send.
fn shows_no_key(spec: &PodCertificateRequestSpec) -> bool {
    spec.stub_pkc_s10_request.0.is_empty()
        && spec.pkix_public_key.is_none()
        && spec.proof_of_possession.is_none()
}

fn requested_key(spec: &PodCertificateRequestSpec) -> Result<RequestedKey, CsrError> {
    match (&spec.pkix_public_key, &spec.proof_of_possession) {
        (Some(key), Some(proof)) if spec.stub_pkc_s10_request.0.is_empty() => {
            RequestedKey::from_public_key(&key.0, &proof.0, spec.pod_uid.as_bytes())
        }
        _ => RequestedKey::from_pkcs10(&spec.stub_pkc_s10_request.0),
    }
}

fn refusal(error: &CsrError) -> Answer {
    Answer::new(error.reason(), error.to_string())
}

fn names_pod(spec: &PodCertificateRequestSpec, namespace: &str, pod: &PodFacts) -> bool {
    *pod.uid == *spec.pod_uid
        && *pod.namespace == *namespace
        && *pod.name == *spec.pod_name
        && *pod.service_account == *spec.service_account_name
        && *pod.node == *spec.node_name
}

fn choose(wanted: &Wanted<'_>, pod: &KnownPod<'_>) -> Result<Arc<Entry>, Answer> {
    let uid = pod.facts.map_or("", |facts| &facts.uid);
    let verdict = |entry: &Entry| selectors::verdict(&entry.selectors, uid, pod.live);
    let own = pod
        .entries
        .iter()
        .filter(|entry| wanted.is_met_by(entry))
        .collect::<Vec<_>>();
    if let Some(entry) = own.iter().find(|entry| verdict(entry) == Verdict::Holds) {
        return Ok(Arc::clone(entry));
    }
    if own.is_empty() {
        let asked = match wanted {
            Wanted::Id(id) => format!("the SPIFFE ID {id}"),
            Wanted::Hint(hint) => format!("the hint {hint:?}"),
            Wanted::Oldest => "any identity".to_owned(),
        };
        let message = format!(
            "asks for {asked}; the pod's own identities are {}",
            own_ids(pod)
        );
        return Err(Answer::new("IdentityNotOwn", message));
    }
    let message = format!(
        "no entry of this pod can be decided for the pod as a whole; entries with selectors of \
         containers or processes are served by agents only: {}",
        own_ids(pod)
    );
    Err(Answer::new("NotEligible", message))
}

fn own_ids(pod: &KnownPod<'_>) -> String {
    let describe = |entry: &Arc<Entry>| match &entry.hint {
        Some(hint) => format!("{} (hint {hint:?})", entry.spiffe_id),
        None => entry.spiffe_id.to_string(),
    };
    pod.entries
        .iter()
        .map(describe)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;
    use crate::registration::{FieldSet, Interner};

    fn request() -> PodCertificateRequestSpec {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = parameters.serialize_request(&key).unwrap();
        PodCertificateRequestSpec {
            pod_uid: "u1".into(),
            pod_name: "web".into(),
            service_account_name: "default".into(),
            node_name: "n1".into(),
            stub_pkc_s10_request: ByteString(csr.der().to_vec()),
            ..PodCertificateRequestSpec::default()
        }
    }

    fn pod_on(node: &str) -> Arc<PodFacts> {
        let pod = serde_json::from_value::<Pod>(json!({
            "metadata": { "name": "web", "namespace": "shop", "uid": "u1" },
            "spec": { "serviceAccountName": "default", "nodeName": node, "containers": [] },
        }));
        PodFacts::from_pod(
            &pod.unwrap(),
            &FieldSet::default(),
            &mut Interner::default(),
        )
        .unwrap()
    }

    #[test]
    fn a_request_that_overtakes_the_news_of_its_pod_waits() {
        for facts in [None, Some(pod_on(""))] {
            let pod = KnownPod {
                facts: facts.as_deref(),
                ..KnownPod::default()
            };
            let decision = decide(&request(), "shop", &pod);
            assert!(
                matches!(&decision, Decision::Wait(answer) if answer.reason == "PodNotSeen"),
                "{decision:?}"
            );
        }
    }

    #[test]
    fn a_request_for_another_node_than_the_pods_is_denied() {
        let facts = pod_on("n2");
        let pod = KnownPod {
            facts: Some(&facts),
            ..KnownPod::default()
        };
        let decision = decide(&request(), "shop", &pod);
        assert!(
            matches!(&decision, Decision::Deny(answer) if answer.reason == "PodMismatch"),
            "{decision:?}"
        );
    }

    #[test]
    fn a_key_that_the_watched_version_does_not_show_is_waited_for() {
        let mut request = request();
        request.stub_pkc_s10_request = ByteString::default();
        let decision = decide(&request, "shop", &KnownPod::default());
        assert!(
            matches!(&decision, Decision::Wait(answer) if answer.reason == "KeyNotVisible"),
            "{decision:?}"
        );
        request.pkix_public_key = Some(ByteString(vec![1]));
        let decision = decide(&request, "shop", &KnownPod::default());
        assert!(matches!(decision, Decision::Deny(_)), "{decision:?}");
    }

    #[test]
    fn annotations_longer_than_any_entrys_are_denied_and_not_repeated() {
        let id = |length: usize| format!("spiffe://e.org/{}", "a".repeat(length - 15));
        for (key, good, long) in [
            (HINT_ANNOTATION, "h".repeat(1024), "h".repeat(1025)),
            (SPIFFE_ID_ANNOTATION, id(2048), id(2049)),
        ] {
            let mut request = request();
            let mut decide_with = |value: &str| {
                request.unverified_user_annotations = Some([(key.into(), value.into())].into());
                decide(&request, "shop", &KnownPod::default())
            };
            let decision = decide_with(&good);
            assert!(matches!(decision, Decision::Wait(_)), "{decision:?}");
            let Decision::Deny(answer) = decide_with(&long) else {
                panic!("{key} was not denied");
            };
            assert_eq!(answer.reason, "InvalidUnverifiedUserAnnotations");
            assert!(answer.message.len() < 200, "{}", answer.message);
            assert!(answer.message.contains(&long.len().to_string()));
        }
    }
}
