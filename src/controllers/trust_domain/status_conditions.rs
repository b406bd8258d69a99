//! The conditions of a TrustDomain that is served, from what was seen. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::conditions::{Report, State};
use crate::controllers::trust_domain::publish::Outcome;
use crate::controllers::trust_domain::rights::rule_to_add;
use crate::controllers::trust_domain::status::{Seen, ServerAbove};
use crate::domains::{DomainSettings, cluster_trust_bundle_name};
use crate::server::Listening;

/// Somebody signs.
pub(super) const AUTHORITY_READY: &str = "AuthorityReady";
/// The roots are where they should be.
pub(super) const BUNDLE_PUBLISHED: &str = "BundlePublished";
/// Pods can ask for certificates.
const POD_CERTIFICATES: &str = "PodCertificates";
/// The API of spire-server is served.
const SERVER_READY: &str = "ServerReady";
/// The server above answers, and we are a server below it.
const UPSTREAM_REACHABLE: &str = "UpstreamReachable";
/// Reason of [`POD_CERTIFICATES`] where the cluster is too old for them.
pub(super) const API_NOT_SERVED: &str = "APINotServed";
/// Certificates live shorter than asked for, because the CA ends before.
const TTL_CAPPED: &str = "TTLCapped";
/// Namespaces named in a message.
const NAMED: usize = 5;

pub(super) fn authority(seen: &Seen, now: Timestamp) -> Report {
    match (&seen.problem, seen.active_until) {
        (Some(problem), _) => Report::new(
            AUTHORITY_READY,
            false,
            problem.reason,
            problem.message.clone(),
        ),
        (None, Some(until)) if until <= now => Report::new(
            AUTHORITY_READY,
            false,
            "Expired",
            format!("the CA, or one above it, ended at {until}; the next one is waited for"),
        ),
        (None, Some(until)) => Report::new(
            AUTHORITY_READY,
            true,
            "Active",
            format!("the CA signs until {until}"),
        ),
        (None, None) => {
            let message = "the first CA waits for its root to be published";
            Report::new(AUTHORITY_READY, State::Unknown, "Preparing", message)
        }
    }
}

/// Whether the server listens, where the object asks for one. An administration socket is asked for
/// by a flag, so without it the server is not what it shall be.
pub(super) fn server(settings: &DomainSettings, seen: &Seen) -> Option<Report> {
    let port = settings.server.as_ref()?.port;
    let Listening {
        port: listens,
        admin_socket,
    } = &seen.listening;
    let report = match (listens, admin_socket) {
        (Some(Err(problem)), _) => {
            let message = format!("{problem}; it is tried again");
            Report::new(SERVER_READY, false, "NotListening", message)
        }
        (_, Some(Err(problem))) => {
            let message = format!("no administration socket: {problem}; it is tried again");
            Report::new(SERVER_READY, false, "NoAdminSocket", message)
        }
        (None, _) => Report::new(
            SERVER_READY,
            State::Unknown,
            "Starting",
            "the server is being started",
        ),
        (Some(Ok(())), _) => {
            let message = format!("SPIRE agents and servers are served on port {port}");
            Report::new(SERVER_READY, true, "Listening", message)
        }
    };
    Some(report)
}

/// How it stands with the server above, where there is one.
pub(super) fn upstream(seen: &Seen) -> Option<Report> {
    Some(match seen.server_above.as_ref()? {
        ServerAbove::Awaited => Report::new(
            UPSTREAM_REACHABLE,
            State::Unknown,
            "Connecting",
            "the server above was not asked yet",
        ),
        ServerAbove::Good => Report::new(
            UPSTREAM_REACHABLE,
            true,
            "Reachable",
            "the server above signs our CAs and gives its bundle",
        ),
        ServerAbove::Bad(problem) => {
            let until = seen.active_until.map_or_else(String::new, |until| {
                format!("; the CA that there is signs until {until}")
            });
            let message = format!("{}{until}", problem.message);
            Report::new(UPSTREAM_REACHABLE, false, problem.reason, message)
        }
    })
}

pub(super) fn bundle(settings: &DomainSettings, seen: &Seen) -> Report {
    let report = |state: State, reason, message: String| {
        Report::new(BUNDLE_PUBLISHED, state, reason, message)
    };
    let name = cluster_trust_bundle_name(&settings.signer_name);
    match &seen.cluster_trust_bundle {
        Some(Outcome::NotOurs) => {
            let message = format!(
                "ClusterTrustBundle {name} was made by somebody else and is left alone; delete it, \
                 or choose another podCertificates.signerName"
            );
            return report(State::False, "NotOurs", message);
        }
        Some(Outcome::Ahead(sequence)) => {
            let message = format!(
                "ClusterTrustBundle {name} holds the later bundle of sequence {sequence} and is \
                 left so"
            );
            return report(State::False, "KeysOutdated", message);
        }
        Some(Outcome::Failed(words)) => {
            let message = format!("ClusterTrustBundle {name}: {words}; it is tried again");
            return report(State::False, "NotWritten", message);
        }
        Some(Outcome::Refused(words) | Outcome::Forbidden(words)) => {
            let message = if seen.missing_rights.is_empty() {
                words.clone()
            } else {
                rule_to_add(&settings.signer_name, &seen.missing_rights)
            };
            return report(State::False, "Refused", message);
        }
        Some(Outcome::Published) | None => {}
    }
    if let Some(Err(words)) = &seen.withdrawn {
        let message = format!(
            "what was published under earlier names could not be taken away: {words}; it is tried \
             again"
        );
        return report(State::False, "NotWithdrawn", message);
    }
    if let Some(problem) = &seen.config_map_problem {
        return report(State::False, "InvalidNamespaceSelector", problem.clone());
    }
    if !seen.troubled_config_maps.is_empty() {
        return report(
            State::False,
            "ConfigMapsNotWritten",
            troubled(settings, seen),
        );
    }
    if seen.sequence.is_none() {
        return report(State::Unknown, "Preparing", "there is no bundle yet".into());
    }
    if settings.bundle_config_maps.is_some() && seen.config_maps.is_none() {
        let message = "the namespaces, or the ConfigMaps in them, have not all been seen yet";
        return report(State::Unknown, "NamespacesNotSeen", message.into());
    }
    let message = match (&seen.cluster_trust_bundle, seen.config_maps) {
        (Some(_), None) => "in a ClusterTrustBundle".to_owned(),
        (Some(_), Some(count)) => format!("in a ClusterTrustBundle and {count} ConfigMaps"),
        (None, Some(count)) => format!("in {count} ConfigMaps"),
        (None, None) => "this cluster serves no ClusterTrustBundles; nothing to publish".to_owned(),
    };
    report(State::True, "Published", message)
}

fn troubled(settings: &DomainSettings, seen: &Seen) -> String {
    let name = settings
        .bundle_config_maps
        .as_ref()
        .map_or("", |copies| copies.name.as_str());
    let named = seen
        .troubled_config_maps
        .iter()
        .take(NAMED)
        .map(|(namespace, outcome)| match outcome {
            Outcome::NotOurs => format!("{namespace} (made by somebody else, left alone)"),
            Outcome::Failed(words) => format!("{namespace} (failed, tried again: {words})"),
            Outcome::Refused(words) => format!("{namespace} (refused: {words})"),
            Outcome::Published | Outcome::Ahead(_) | Outcome::Forbidden(_) => {
                format!("{namespace} (forbidden)")
            }
        });
    let mut message = format!(
        "ConfigMap {name} is not as it should be in {} namespaces: {}",
        seen.troubled_config_maps.len(),
        named.collect::<Vec<_>>().join(", ")
    );
    let forbidden = seen
        .troubled_config_maps
        .iter()
        .find_map(|(_, outcome)| match outcome {
            Outcome::Forbidden(words) => Some(words),
            _ => None,
        });
    if let Some(words) = forbidden {
        let rule = format!(
            "; {words}; the operator may write ConfigMaps named spiffe-bundle only: for another \
             name add this rule to a ClusterRole of the operator: apiGroups: [\"\"], resources: \
             [configmaps], resourceNames: [{name}], verbs: [get, list, watch, create, update, \
             patch, delete]"
        );
        message.push_str(&rule);
    }
    message
}

pub(super) fn pod_certificates(settings: &DomainSettings, seen: &Seen) -> Report {
    if !seen.serves_pod_certificate_requests {
        let message = "this cluster serves no PodCertificateRequests: they come with Kubernetes \
                       1.37, or in 1.35 and 1.36 with the feature gate PodCertificateRequest and \
                       --runtime-config; everything else works";
        return Report::new(POD_CERTIFICATES, false, API_NOT_SERVED, message);
    }
    if !seen.missing_rights.is_empty() {
        let message = rule_to_add(&settings.signer_name, &seen.missing_rights);
        return Report::new(POD_CERTIFICATES, false, "SignerNotAllowed", message);
    }
    if seen.active_until.is_some() && !seen.signs {
        let message = "nothing is signed before the ClusterTrustBundle holds the root of the CA";
        return Report::new(POD_CERTIFICATES, State::Unknown, "BundleNotSeen", message);
    }
    let message = format!("requests for signer {} are answered", settings.signer_name);
    Report::new(POD_CERTIFICATES, true, "Served", message)
}

pub(super) fn ttl_capped(settings: &DomainSettings, seen: &Seen, now: Timestamp) -> Option<Report> {
    let until = seen.active_until?;
    let server = settings.server.as_ref();
    let ttl = server.map_or(Duration::ZERO, |it| it.x509_svid_ttl);
    let ttl = SignedDuration::try_from(ttl.max(settings.pod_certificate_ttl)).ok()?;
    (now.duration_until(until) < ttl).then(|| {
        let message =
            format!("the CA ends at {until}, before certificates that live {ttl:#} would");
        Report::new(TTL_CAPPED, true, "CAEndsFirst", message)
    })
}
