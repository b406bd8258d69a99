//! The status of a NestedCluster, from what was seen. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::conditions::{READY, RECONCILING, Report, STALLED, State, merge};
use crate::api::{NestedCluster, NestedClusterStatus};
use crate::clusters::nested::{Contact, Published, Trouble};
use crate::controllers::nested_cluster::parents::Wired;
use crate::controllers::nested_cluster::settings::{NameTaken, name_of};

const REACHABLE: &str = "Reachable";
const CREDENTIALS_VALID: &str = "CredentialsValid";
const REGISTERED: &str = "Registered";
/// The cluster has another NestedCluster; present only then.
const DUPLICATE: &str = "Duplicate";
const BUNDLE_SYNCED: &str = "BundleSynced";

/// How long before its end a credential is warned of.
const EXPIRY_WARNING: SignedDuration = SignedDuration::from_hours(24);
/// How old the time of the last contact may be in the status while nothing else changes.
const CONTACT_AGE: SignedDuration = SignedDuration::from_mins(5);

/// What a reconcile saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Why the object cannot be served, for the user to change.
    pub(super) spec_problem: Option<Problem>,
    /// What is wrong with the kubeconfig that the Secret has now.
    pub(super) kubeconfig_problem: Option<Problem>,
    /// Whether an earlier kubeconfig is still in use.
    pub(super) is_connected: bool,
    /// URL of the API server.
    pub(super) server: Option<String>,
    /// End of the credential.
    pub(super) expires_at: Option<Timestamp>,
    /// What is known of the API server.
    pub(super) contact: Contact,
    /// Another NestedCluster that leads to the same cluster.
    pub(super) twin: Option<String>,
    /// What became of the bundle in the cluster; none without a connection.
    pub(super) published: Option<Published>,
    /// What became of its parents; none where nobody looked.
    pub(super) wired: Option<Wired>,
    /// What the cluster's pods still wait for; none once all were seen.
    pub(super) unseen: Option<String>,
    /// Whether its pods may have any SPIFFE ID.
    pub(super) is_open: bool,
    /// Whether it has servers of its own, which alone are registered.
    pub(super) has_servers: bool,
    pub(super) pods: usize,
    pub(super) entries: usize,
    pub(super) agents: usize,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// CamelCase reason.
    pub(super) reason: &'static str,
    /// What is wrong, and what to do.
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl From<NameTaken> for Problem {
    fn from(taken: NameTaken) -> Self {
        let message = match taken {
            NameTaken::ByTrustDomain(name) => {
                format!("TrustDomain {name} calls its own cluster so (spec.clusterName)")
            }
            NameTaken::ByNestedCluster(name) => {
                format!("NestedCluster {name} has the same cluster name and is older")
            }
        };
        Self::new("ClusterNameTaken", message)
    }
}

/// The status of an object that was just seen for the first time.
pub(super) fn first(object: &NestedCluster, now: Timestamp) -> NestedClusterStatus {
    let message = "the cluster is being connected to";
    let reports = [
        Report::new(READY, State::Unknown, "Reconciling", message),
        Report::new(RECONCILING, true, "Reconciling", message),
    ];
    NestedClusterStatus {
        observed_generation: object.metadata.generation,
        cluster_name: Some(name_of(object)),
        conditions: merge(&[], &reports, object.metadata.generation, now),
        ..NestedClusterStatus::default()
    }
}

/// The status after a reconcile.
pub(super) fn of(object: &NestedCluster, seen: &Seen, now: Timestamp) -> NestedClusterStatus {
    let before = object.status.clone().unwrap_or_default();
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let mut status = NestedClusterStatus {
        observed_generation: object.metadata.generation,
        conditions: merge(
            &before.conditions,
            &conditions(seen, now),
            object.metadata.generation,
            now,
        ),
        cluster_name: Some(name_of(object)),
        cluster_uid: seen.contact.uid.clone().or(before.cluster_uid.clone()),
        server: seen.server.clone().or(before.server.clone()),
        kubernetes_version: seen
            .contact
            .version
            .clone()
            .or(before.kubernetes_version.clone()),
        credential_expires_at: seen.expires_at.map(Time),
        last_contact: before.last_contact.clone(),
        pods: count(seen.pods),
        entries: count(seen.entries),
        agents: count(seen.agents),
        parents: match &seen.wired {
            Some(wired) => wired.parents.clone(),
            None => before.parents.clone(),
        },
    };
    let last = seen.contact.last;
    let is_old =
        |known: &Time| last.is_some_and(|last| last.duration_since(known.0) >= CONTACT_AGE);
    if status != before || before.last_contact.as_ref().is_none_or(is_old) {
        status.last_contact = last.map(Time).or(before.last_contact);
    }
    status
}

fn conditions(seen: &Seen, now: Timestamp) -> Vec<Report> {
    if let Some(problem) = &seen.spec_problem {
        let Problem { reason, message } = problem;
        return vec![
            Report::new(READY, false, reason, message.clone()),
            Report::new(STALLED, true, reason, message.clone()),
        ];
    }
    let mut parts = vec![
        reachable(seen),
        credentials_valid(seen, now),
        registered(seen),
        bundle_synced(seen),
    ];
    parts.extend(seen.wired.as_ref().and_then(Wired::report));
    let first = |state| parts.iter().find(|part| part.state == state);
    let ready = first(State::False).or_else(|| first(State::Unknown));
    let ready = ready.map_or_else(
        || {
            Report::new(
                READY,
                true,
                "Connected",
                "the cluster's pods and agents are served",
            )
        },
        |part| Report {
            kind: READY,
            ..part.clone()
        },
    );
    let mut reports = vec![ready];
    reports.extend(parts);
    if let Some(twin) = &seen.twin {
        let message =
            format!("NestedCluster {twin} leads to the same cluster: its pods count twice");
        reports.push(Report::new(DUPLICATE, true, "SameCluster", message));
    }
    if seen.kubeconfig_problem.is_none() && seen.contact.trouble.is_none() && seen.unseen.is_some()
    {
        let message = seen.unseen.clone().unwrap_or_default();
        reports.push(Report::new(RECONCILING, true, "Reconciling", message));
    }
    reports
}

fn reachable(seen: &Seen) -> Report {
    if !seen.is_connected {
        let message = "there is no kubeconfig that can be used";
        return Report::new(REACHABLE, State::Unknown, "NoKubeConfig", message);
    }
    match &seen.contact.trouble {
        Some(Trouble::Unreachable(words)) => {
            let message = format!("the API server cannot be reached: {words}{}", stays(seen));
            Report::new(REACHABLE, false, "Unreachable", message)
        }
        Some(Trouble::OtherCluster { found }) => {
            let known = seen.contact.uid.as_deref().unwrap_or_default();
            let message = format!(
                "another cluster answers: UID of kube-system is {found}, not {known}; nothing of it \
                 counts. If it has replaced the former one, delete this object and apply it again"
            );
            Report::new(REACHABLE, false, "OtherCluster", message)
        }
        Some(Trouble::Unauthorized(_) | Trouble::Forbidden(_)) => {
            Report::new(REACHABLE, true, "Answers", "the API server answers")
        }
        None if seen.contact.last.is_some() => {
            Report::new(REACHABLE, true, "Answers", "the API server answers")
        }
        None => Report::new(REACHABLE, State::Unknown, "Connecting", "not asked yet"),
    }
}

fn credentials_valid(seen: &Seen, now: Timestamp) -> Report {
    if let Some(Problem { reason, message }) = &seen.kubeconfig_problem {
        let kept = if seen.is_connected {
            "; the kubeconfig before it stays in use"
        } else {
            ""
        };
        return Report::new(CREDENTIALS_VALID, false, reason, format!("{message}{kept}"));
    }
    match &seen.contact.trouble {
        Some(Trouble::Unauthorized(words)) => {
            let message = format!(
                "the API server does not take the credential: {words}{}",
                stays(seen)
            );
            Report::new(CREDENTIALS_VALID, false, "Unauthorized", message)
        }
        Some(Trouble::Forbidden(words)) => {
            let message = format!("the credential lacks a right: {words}{}", stays(seen));
            Report::new(CREDENTIALS_VALID, false, "Forbidden", message)
        }
        _ => match seen.expires_at {
            Some(end) if end <= now => {
                let message = format!("the credential ended at {end}");
                Report::new(CREDENTIALS_VALID, false, "Expired", message)
            }
            Some(end) if end.duration_since(now) < EXPIRY_WARNING => {
                let message =
                    format!("the credential ends at {end}; put a new one into the Secret");
                Report::new(CREDENTIALS_VALID, true, "ExpiresSoon", message)
            }
            _ if seen.contact.is_made() => {
                let message = "the API server takes the credential";
                Report::new(CREDENTIALS_VALID, true, "Accepted", message)
            }
            _ => Report::new(
                CREDENTIALS_VALID,
                State::Unknown,
                "NotAsked",
                "not used yet",
            ),
        },
    }
}

fn registered(seen: &Seen) -> Report {
    match &seen.unseen {
        None => {
            let trust = if seen.has_servers {
                " of its servers, whose CA signs any ID of the trust domain"
            } else if seen.is_open {
                "; without spec.allowedIDs it is trusted as much as this cluster"
            } else {
                ""
            };
            let message = format!("{} entries of {} pods{trust}", seen.entries, seen.pods);
            Report::new(REGISTERED, true, "Registered", message)
        }
        Some(missing) => Report::new(REGISTERED, false, "NotSeen", missing.clone()),
    }
}

fn bundle_synced(seen: &Seen) -> Report {
    let published = seen.published.clone().unwrap_or_default();
    if !published.has_bundle {
        let message = "nothing was published yet";
        return Report::new(BUNDLE_SYNCED, State::Unknown, "NotPublished", message);
    }
    match (published.problem, published.signer_name) {
        (Some(problem), _) => Report::new(BUNDLE_SYNCED, false, "PublishFailed", problem),
        (None, Some(signer_name)) => {
            let message = format!("the ClusterTrustBundle of {signer_name} has the bundle");
            Report::new(BUNDLE_SYNCED, true, "Published", message)
        }
        (None, None) => {
            let message = "the cluster serves no ClusterTrustBundles; pods get no certificates";
            Report::new(BUNDLE_SYNCED, true, "NoClusterTrustBundles", message)
        }
    }
}

/// What becomes of what was seen before.
fn stays(seen: &Seen) -> &'static str {
    if seen.unseen.is_none() {
        "; what was registered before stays in force"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object() -> NestedCluster {
        serde_json::from_value(json!({
            "apiVersion": "spiffe-operator.io/v1alpha1", "kind": "NestedCluster",
            "metadata": {"name": "child01", "generation": 3},
            "spec": {
                "trustDomainRef": {"name": "example"},
                "kubeConfig": {"secretRef": {"name": "child01"}},
            },
        }))
        .unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn connected() -> Seen {
        Seen {
            is_connected: true,
            contact: Contact {
                uid: Some("uid".into()),
                version: Some("v1.37.1".into()),
                last: Some(now()),
                ..Contact::default()
            },
            published: Some(Published {
                signer_name: Some("spiffe-operator.io/e.org".into()),
                problem: None,
                has_bundle: true,
            }),
            pods: 3,
            entries: 2,
            ..Seen::default()
        }
    }

    fn shown(seen: &Seen) -> Vec<String> {
        let status = of(&object(), seen, now());
        let conditions = status.conditions.iter();
        conditions
            .map(|it| format!("{}={} {}", it.type_, it.status, it.reason))
            .collect()
    }

    #[test]
    fn a_cluster_is_ready_when_it_answers_and_was_seen() {
        assert_eq!(
            shown(&connected()),
            [
                "Ready=True Connected",
                "Reachable=True Answers",
                "CredentialsValid=True Accepted",
                "Registered=True Registered",
                "BundleSynced=True Published",
            ]
        );
        let unseen = Seen {
            unseen: Some("not listed yet: pods".into()),
            ..connected()
        };
        assert_eq!(shown(&unseen)[0], "Ready=False NotSeen");
        assert_eq!(shown(&unseen)[5], "Reconciling=True Reconciling");
    }

    #[test]
    fn what_is_wrong_is_said_where_it_belongs() {
        let troubled = |trouble: Trouble| {
            let mut seen = connected();
            seen.contact.trouble = Some(trouble);
            shown(&seen)
        };
        let unreachable = troubled(Trouble::Unreachable("refused".into()));
        assert_eq!(unreachable[0], "Ready=False Unreachable");
        assert_eq!(unreachable[1], "Reachable=False Unreachable");
        assert_eq!(unreachable[3], "Registered=True Registered", "it stays");
        let other = troubled(Trouble::OtherCluster { found: "b".into() });
        assert_eq!(other[1], "Reachable=False OtherCluster");
        let unauthorized = troubled(Trouble::Unauthorized("no".into()));
        assert_eq!(unauthorized[1], "Reachable=True Answers");
        assert_eq!(unauthorized[2], "CredentialsValid=False Unauthorized");
        let forbidden = troubled(Trouble::Forbidden("no".into()));
        assert_eq!(forbidden[2], "CredentialsValid=False Forbidden");
        let taken = Seen {
            spec_problem: Some(NameTaken::ByNestedCluster("a".into()).into()),
            ..connected()
        };
        assert_eq!(
            shown(&taken),
            [
                "Ready=False ClusterNameTaken",
                "Stalled=True ClusterNameTaken"
            ]
        );
        let broken = Seen {
            kubeconfig_problem: Some(Problem::new("InvalidKubeConfig", "users[0]: …")),
            ..connected()
        };
        assert_eq!(shown(&broken)[0], "Ready=False InvalidKubeConfig");
        let none = Seen {
            kubeconfig_problem: Some(Problem::new("NoSecret", "there is no Secret")),
            ..Seen::default()
        };
        assert_eq!(shown(&none)[0], "Ready=False NoSecret");
        assert_eq!(
            shown(&broken)[1],
            "Reachable=True Answers",
            "the one before is in use"
        );
    }

    #[test]
    fn a_credential_that_ends_is_told_of() {
        let ending = |end: &str| {
            let seen = Seen {
                expires_at: Some(end.parse().unwrap()),
                ..connected()
            };
            shown(&seen)[2].clone()
        };
        assert_eq!(
            ending("2026-01-01T00:00:00Z"),
            "CredentialsValid=False Expired"
        );
        assert_eq!(
            ending("2026-01-01T12:00:00Z"),
            "CredentialsValid=True ExpiresSoon"
        );
        assert_eq!(
            ending("2026-02-01T00:00:00Z"),
            "CredentialsValid=True Accepted"
        );
    }

    #[test]
    fn the_last_contact_alone_is_written_seldom() {
        let mut object = object();
        object.status = Some(of(&object, &connected(), now()));
        let later = |seconds| {
            let mut seen = connected();
            seen.contact.last = Some(now() + SignedDuration::from_secs(seconds));
            of(&object, &seen, now()) == *object.status.as_ref().unwrap()
        };
        assert!(later(60));
        assert!(!later(600));
    }
}
