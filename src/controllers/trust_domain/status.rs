//! The status of a TrustDomain, from what was seen. Pure.

use jiff::Timestamp;

use crate::api::conditions::{READY, RECONCILING, Report, STALLED, State, merge};
use crate::api::{AuthorityStatus, TrustDomain, TrustDomainStatus};
use crate::authority::{Journal, UpstreamBundleError};
use crate::controllers::trust_domain::authority::Problem;
use crate::controllers::trust_domain::publish::Outcome;
use crate::controllers::trust_domain::status_conditions::{
    API_NOT_SERVED, authority, bundle, pod_certificates, server, ttl_capped, upstream,
};
use crate::domains::{Conflict, DomainSettings, SettingsError, cluster_trust_bundle_name};
use crate::server::Listening;
use crate::upstream::UpstreamProblem;

/// What a reconcile saw.
#[derive(Debug)]
pub(super) struct Seen {
    spec_problem: Option<SettingsError>,
    pub(super) problem: Option<Problem>,
    pub(super) missing_rights: Vec<&'static str>,
    /// Whether the active CA signs on this replica.
    pub(super) signs: bool,
    /// Whether what was published under earlier names is gone, or why not; none if that was not
    /// tried.
    pub(super) withdrawn: Option<Result<(), String>>,
    pub(super) serves_pod_certificate_requests: bool,
    pub(super) cluster_trust_bundle: Option<Outcome>,
    /// Namespaces that shall have a copy of the bundle, once they are known.
    pub(super) config_maps: Option<usize>,
    pub(super) config_map_problem: Option<String>,
    pub(super) troubled_config_maps: Vec<(String, Outcome)>,
    pub(super) entries: usize,
    /// Whether the server listens on this replica.
    pub(super) listening: Listening,
    authorities: Vec<AuthorityStatus>,
    jwt_authorities: Vec<AuthorityStatus>,
    jwt_keys: usize,
    pub(super) sequence: Option<u64>,
    pub(super) active_until: Option<Timestamp>,
    bundle_until: Option<Timestamp>,
    /// How it stands with the server above, where there is one.
    pub(super) server_above: Option<ServerAbove>,
}

/// How it stands with a server above.
#[derive(Debug)]
pub(super) enum ServerAbove {
    /// It was not asked yet.
    Awaited,
    /// It does what it is asked for.
    Good,
    /// It does not.
    Bad(Problem),
}

impl Seen {
    pub(super) fn new(spec_problem: Option<SettingsError>) -> Self {
        Self {
            spec_problem,
            problem: None,
            missing_rights: Vec::new(),
            signs: false,
            withdrawn: None,
            serves_pod_certificate_requests: true,
            cluster_trust_bundle: None,
            config_maps: None,
            config_map_problem: None,
            troubled_config_maps: Vec::new(),
            entries: 0,
            listening: Listening::default(),
            authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            jwt_keys: 0,
            sequence: None,
            active_until: None,
            bundle_until: None,
            server_above: None,
        }
    }

    /// Takes note of the authority.
    pub(super) fn journal(&mut self, journal: &Journal) {
        self.authorities = journal.status();
        self.jwt_authorities = journal.jwt_status();
        self.jwt_keys = journal.jwt_key_count();
        self.sequence = Some(journal.sequence());
        self.active_until = journal.ledger().active().map(|record| record.not_after);
        self.bundle_until = journal.ledger().records().iter().map(|r| r.not_after).max();
    }

    /// Takes note of what came of asking the server above, and of why its bundle was not followed.
    /// Where no CA is active, that is what is wrong with the authority.
    pub(super) fn upstream(
        &mut self,
        outcome: Option<Result<(), UpstreamProblem>>,
        refused: Option<UpstreamBundleError>,
        is_active: bool,
    ) {
        let problem = match (&outcome, refused) {
            (Some(Err(problem)), _) => Some(Problem {
                reason: problem.reason(),
                message: problem.to_string(),
            }),
            (_, Some(refused)) => Some(Problem {
                reason: "InvalidBundle",
                message: refused.to_string(),
            }),
            _ => None,
        };
        if !is_active && let Some(problem) = &problem {
            self.problem.get_or_insert_with(|| problem.clone());
        }
        self.server_above = Some(match (problem, outcome) {
            (Some(problem), _) => ServerAbove::Bad(problem),
            (None, Some(_)) => ServerAbove::Good,
            (None, None) => ServerAbove::Awaited,
        });
    }

    /// Whether something that may go well at the next attempt did not.
    pub(super) fn is_unfinished(&self) -> bool {
        let copies = self.troubled_config_maps.iter().map(|(_, outcome)| outcome);
        let mut outcomes = copies.chain(&self.cluster_trust_bundle);
        matches!(self.withdrawn, Some(Err(_)))
            || outcomes.any(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// When the active CA and the last root expire, in Unix seconds.
    pub(super) fn expiry(&self) -> (Option<i64>, Option<i64>) {
        let [active, bundle] =
            [self.active_until, self.bundle_until].map(|it| it.map(Timestamp::as_second));
        (active, bundle)
    }
}

/// The status of an object that was just seen for the first time.
pub(super) fn first(object: &TrustDomain, now: Timestamp) -> TrustDomainStatus {
    let reports = [
        Report::new(
            READY,
            State::Unknown,
            "Reconciling",
            "the trust domain is being set up",
        ),
        Report::new(
            RECONCILING,
            true,
            "Reconciling",
            "the trust domain is being set up",
        ),
    ];
    with_conditions(object, TrustDomainStatus::default(), &reports, now)
}

/// The status of an object whose spec never could be served.
pub(super) fn invalid(object: &TrustDomain, problem: &str, now: Timestamp) -> TrustDomainStatus {
    stalled(object, "InvalidSpec", problem, now)
}

/// The status of an object that an older one keeps from being served.
pub(super) fn conflicting(
    object: &TrustDomain,
    conflict: &Conflict,
    now: Timestamp,
) -> TrustDomainStatus {
    stalled(object, "Conflict", &conflict.to_string(), now)
}

/// The status of an object that could not be looked after: what was seen before may still hold.
pub(super) fn failing(object: &TrustDomain, problem: &str, now: Timestamp) -> TrustDomainStatus {
    let message = format!("{problem}; it is tried again");
    let reports = [
        Report::new(READY, State::Unknown, "ReconcileFailed", message.clone()),
        Report::new(RECONCILING, true, "ReconcileFailed", message),
    ];
    let before = object.status.clone().unwrap_or_default();
    let others = before.conditions.clone().into_iter().filter(|condition| {
        condition.type_ != STALLED && reports.iter().all(|new| new.kind != condition.type_)
    });
    let mut status = with_conditions(object, before, &reports, now);
    status.conditions.extend(others);
    status
}

/// The status of an object that is served.
pub(super) fn serving(
    object: &TrustDomain,
    settings: &DomainSettings,
    seen: &Seen,
    now: Timestamp,
) -> TrustDomainStatus {
    let mut reports = vec![
        authority(seen, now),
        bundle(settings, seen),
        pod_certificates(settings, seen),
    ];
    reports.extend(server(settings, seen));
    // What is wrong comes before what is only waited for, which may be its consequence.
    let unmet = [State::False, State::Unknown].iter().find_map(|state| {
        // Nobody can do anything about an API that is not there, and everything else works.
        let counts = |report: &&Report| report.reason != API_NOT_SERVED;
        reports
            .iter()
            .filter(counts)
            .find(|report| report.state == *state)
    });
    let ready = match (&seen.spec_problem, unmet) {
        (Some(problem), _) => {
            let message = format!("{problem}; the last good spec stays in force");
            Report::new(READY, false, "InvalidSpec", message)
        }
        (None, Some(unmet)) => Report::new(READY, unmet.state, unmet.reason, unmet.message.clone()),
        (None, None) if !seen.serves_pod_certificate_requests => {
            let message = "pods are registered and the bundle is published; this cluster serves \
                           no PodCertificateRequests";
            Report::new(READY, true, "Ready", message)
        }
        (None, None) => Report::new(READY, true, "Ready", "pods can get certificates"),
    };
    let waits = ready.state != State::True && seen.problem.is_none();
    if seen.spec_problem.is_some() {
        reports.push(Report::new(
            STALLED,
            true,
            ready.reason,
            ready.message.clone(),
        ));
    } else if waits && seen.missing_rights.is_empty() {
        reports.push(Report::new(
            RECONCILING,
            true,
            ready.reason,
            ready.message.clone(),
        ));
    }
    reports.extend(ttl_capped(settings, seen, now));
    // What signs goes on without the server above.
    reports.extend(upstream(seen));
    reports.insert(0, ready);
    let status = TrustDomainStatus {
        signer_name: Some(settings.signer_name.clone()),
        bundle_sequence: seen.sequence,
        authorities: seen.authorities.clone(),
        entries: i64::try_from(seen.entries).unwrap_or(i64::MAX),
        jwt_authorities: seen.jwt_authorities.clone(),
        jwt_keys: i64::try_from(seen.jwt_keys).unwrap_or(i64::MAX),
        ..object.status.clone().unwrap_or_default()
    };
    let status = with_names(status, settings, seen);
    // What was known of an authority stays known when its keys are lost: consent names it.
    let status = match (&object.status, seen.authorities.is_empty()) {
        (Some(before), true) => TrustDomainStatus {
            authorities: before.authorities.clone(),
            jwt_authorities: before.jwt_authorities.clone(),
            jwt_keys: before.jwt_keys,
            bundle_sequence: before.bundle_sequence,
            ..status
        },
        _ => status,
    };
    with_conditions(object, status, &reports, now)
}

/// Names under which something may be published stay until what was there before is withdrawn.
fn with_names(
    before: TrustDomainStatus,
    settings: &DomainSettings,
    seen: &Seen,
) -> TrustDomainStatus {
    if seen.withdrawn != Some(Ok(())) {
        return before;
    }
    let cluster_trust_bundle = seen
        .cluster_trust_bundle
        .is_some()
        .then(|| cluster_trust_bundle_name(&settings.signer_name));
    let copies = settings.bundle_config_maps.as_ref();
    TrustDomainStatus {
        cluster_trust_bundle,
        bundle_config_map: copies.map(|copies| copies.name.clone()),
        ..before
    }
}

fn stalled(
    object: &TrustDomain,
    reason: &'static str,
    message: &str,
    now: Timestamp,
) -> TrustDomainStatus {
    let reports = [
        Report::new(READY, false, reason, message),
        Report::new(STALLED, true, reason, message),
    ];
    with_conditions(
        object,
        object.status.clone().unwrap_or_default(),
        &reports,
        now,
    )
}

fn with_conditions(
    object: &TrustDomain,
    status: TrustDomainStatus,
    reports: &[Report],
    now: Timestamp,
) -> TrustDomainStatus {
    let before = object
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    let generation = object.metadata.generation;
    TrustDomainStatus {
        conditions: merge(before, reports, generation, now),
        observed_generation: generation,
        ..status
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controllers::trust_domain::status_conditions::{AUTHORITY_READY, BUNDLE_PUBLISHED};

    fn object(spec: &serde_json::Value) -> TrustDomain {
        let mut all = json!({
            "trustDomain": "example.org", "authority": { "selfSigned": {} },
        });
        for (key, value) in spec.as_object().unwrap() {
            all[key] = value.clone();
        }
        serde_json::from_value(json!({
            "apiVersion": "spiffe-operator.io/v1alpha1", "kind": "TrustDomain",
            "metadata": { "name": "td" }, "spec": all,
            "status": { "clusterTrustBundle": "before", "bundleConfigMap": "copies-before" },
        }))
        .unwrap()
    }

    fn serving(object: &TrustDomain, seen: &Seen) -> TrustDomainStatus {
        let settings = DomainSettings::parse(&object.spec).unwrap();
        super::serving(object, &settings, seen, Timestamp::UNIX_EPOCH)
    }

    fn condition<'a>(
        status: &'a TrustDomainStatus,
        kind: &str,
    ) -> &'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
        let mut conditions = status.conditions.iter();
        conditions.find(|it| it.type_ == kind).unwrap()
    }

    #[test]
    fn names_are_remembered_until_what_bears_them_is_withdrawn() {
        let object = object(&json!({ "bundleConfigMaps": { "name": "copies" } }));
        let names = |withdrawn| {
            let mut seen = Seen::new(None);
            seen.withdrawn = withdrawn;
            seen.cluster_trust_bundle = Some(Outcome::Published);
            let status = serving(&object, &seen);
            (
                status.cluster_trust_bundle.unwrap(),
                status.bundle_config_map.unwrap(),
            )
        };
        let before = ("before".to_owned(), "copies-before".to_owned());
        assert_eq!(names(None), before);
        assert_eq!(names(Some(Err("timeout".into()))), before);
        let now = "spiffe-operator.io:example.org:bundle".to_owned();
        assert_eq!(names(Some(Ok(()))), (now, "copies".to_owned()));
    }

    #[test]
    fn an_active_ca_that_has_ended_is_not_ready() {
        let object = object(&json!({}));
        let mut seen = Seen::new(None);
        seen.active_until = Timestamp::from_second(1).ok();
        let status = serving(&object, &seen);
        assert_eq!(condition(&status, AUTHORITY_READY).reason, "Active");
        seen.active_until = Some(Timestamp::UNIX_EPOCH);
        let status = serving(&object, &seen);
        let ready = condition(&status, AUTHORITY_READY);
        assert_eq!((&*ready.status, &*ready.reason), ("False", "Expired"));
    }

    #[test]
    fn a_socket_that_cannot_be_made_shows_beside_a_port_that_is_served() {
        let object = object(&json!({ "server": {} }));
        let reason = |port, admin_socket| {
            let mut seen = Seen::new(None);
            seen.listening = Listening { port, admin_socket };
            condition(&serving(&object, &seen), "ServerReady").clone()
        };
        let (good, bad) = (|| Some(Ok(())), || Some(Err("/a is read-only".to_owned())));
        assert_eq!(reason(None, good()).reason, "Starting");
        assert_eq!(reason(good(), None).reason, "Listening");
        assert_eq!(reason(good(), good()).reason, "Listening");
        assert_eq!(reason(bad(), bad()).reason, "NotListening");
        let shown = reason(good(), bad());
        assert_eq!((&*shown.status, &*shown.reason), ("False", "NoAdminSocket"));
        assert!(shown.message.contains("/a is read-only"), "{shown:?}");
    }

    #[test]
    fn only_rbac_is_answered_with_a_rule_to_add() {
        let object = object(&json!({ "bundleConfigMaps": {} }));
        let message = |outcome: Outcome| {
            let mut seen = Seen::new(None);
            seen.withdrawn = Some(Ok(()));
            seen.troubled_config_maps = vec![("shop".to_owned(), outcome)];
            let status = serving(&object, &seen);
            condition(&status, BUNDLE_PUBLISHED).message.clone()
        };
        let words = || "no".to_owned();
        assert!(message(Outcome::Forbidden(words())).contains("add this rule"));
        for outcome in [
            Outcome::Refused(words()),
            Outcome::Failed(words()),
            Outcome::NotOurs,
        ] {
            let message = message(outcome);
            assert!(
                message.contains("shop") && !message.contains("rule"),
                "{message}"
            );
        }
    }
}
