//! Statuses of registering objects, from the registry's reports. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::conditions::{READY, RECONCILING, Report, STALLED, State, merge};
use crate::api::{
    ClusterSPIFFEID, ClusterSpiffeIdStatus, ClusterStaticEntry, ClusterStaticEntryStatus,
};
use crate::registration::report::InForce;
use crate::registration::{
    ClusterSpiffeIdReport, ExceedingTtl, Source, SpecError, StaticEntryReport,
};
use crate::spiffe::TrustDomainName;

/// Trust domains in `federatesWith` have no known bundle; present only then.
const FEDERATION_INCOMPLETE: &str = "FederationIncomplete";
/// Entries are declared by an older object already; present only then.
const MASKED: &str = "Masked";
/// No entry can be made for some pods; present only then.
const RENDER_FAILED: &str = "RenderFailed";

/// SVIDs may live shorter than the object says; present only then.
const TTL_EXCEEDS_CA: &str = "TTLExceedsCA";

/// Reason of an object that no TrustDomain serves any more.
const NOT_SERVED: &str = "NotServed";

/// Conditions of an object that was just seen for the first time.
pub(super) fn first(generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let reports = [
        Report::new(
            READY,
            State::Unknown,
            "Reconciling",
            "the object is being evaluated",
        ),
        Report::new(
            RECONCILING,
            true,
            "Reconciling",
            "the object is being evaluated",
        ),
    ];
    merge(&[], &reports, generation, now)
}

/// Conditions of an object that was served and is not any more.
pub(super) fn not_served(
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let message = "no TrustDomain serves the object any more: its className is that of none, or the \
                   TrustDomain is gone or Stalled";
    let report = Report::new(READY, false, NOT_SERVED, message);
    merge(before, &[report], generation, now)
}

/// Whether conditions say just that.
pub(super) fn is_not_served(conditions: &[Condition]) -> bool {
    let says_so = |it: &Condition| it.type_ == READY && it.reason == NOT_SERVED;
    conditions.iter().any(says_so)
}

/// The status of a ClusterSPIFFEID.
pub(super) fn of_cluster_spiffe_id(
    object: &ClusterSPIFFEID,
    report: &ClusterSpiffeIdReport,
    now: Timestamp,
) -> ClusterSpiffeIdStatus {
    let stats = &report.stats;
    let failing = stats.pod_entry_render_failures + stats.entry_failures;
    let mut conditions = Vec::new();
    if let Some(error) = &report.error {
        conditions.extend(broken(error, report.in_force));
    } else if report.waiting_pods > 0 {
        let message = format!("{} pods are being read anew", report.waiting_pods);
        conditions.push(Report::new(
            READY,
            State::Unknown,
            "Reconciling",
            message.clone(),
        ));
        conditions.push(Report::new(RECONCILING, true, "Reconciling", message));
    } else if failing > 0 && stats.entries_to_set + stats.entries_masked == 0 {
        let message = format!("no entry can be made for any pod: it fails for {failing}");
        conditions.push(Report::new(READY, false, "AllPodsFail", message));
    } else {
        let message = format!("{} entries in force", stats.entries_to_set);
        conditions.push(Report::new(READY, true, "Registered", message));
    }
    if failing > 0 {
        let first = report.failing.first();
        let example = first.map_or_else(String::new, |pod| {
            format!("; {}/{}: {}", pod.namespace, pod.name, pod.message)
        });
        let message =
            format!("no entry can be made for {failing} pods (status.failingPods){example}");
        conditions.push(Report::new(RENDER_FAILED, true, "PodsFail", message));
    }
    conditions.extend(masked(stats.entries_masked, &report.masked_by));
    conditions.extend(federation(&report.unknown_federated));
    conditions.extend(exceeding(&report.exceeding_ttls));
    let before = object
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    ClusterSpiffeIdStatus {
        stats: stats.clone(),
        failing_pods: report.failing.clone(),
        observed_generation: object.metadata.generation,
        conditions: merge(before, &conditions, object.metadata.generation, now),
    }
}

/// The status of a ClusterStaticEntry.
pub(super) fn of_cluster_static_entry(
    object: &ClusterStaticEntry,
    report: &StaticEntryReport,
    now: Timestamp,
) -> ClusterStaticEntryStatus {
    let mut conditions = Vec::new();
    if let Some(error) = &report.error {
        conditions.extend(broken(error, report.in_force));
    } else if let Some(by) = &report.masked_by {
        let message = format!("{} declares the same entry and is older", describe(by));
        conditions.push(Report::new(READY, false, "Masked", message));
    } else {
        conditions.push(Report::new(
            READY,
            true,
            "Registered",
            "the entry is in force",
        ));
    }
    conditions.extend(masked(
        i64::from(report.masked_by.is_some()),
        report.masked_by.as_slice(),
    ));
    conditions.extend(federation(&report.unknown_federated));
    conditions.extend(exceeding(&report.exceeding_ttls));
    let before = object
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    ClusterStaticEntryStatus {
        rendered: report.rendered(),
        masked: report.masked_by.is_some(),
        set: report.set(),
        observed_generation: object.metadata.generation,
        conditions: merge(before, &conditions, object.metadata.generation, now),
    }
}

fn broken(error: &SpecError, in_force: InForce) -> [Report; 2] {
    let consequence = match in_force {
        InForce::Nothing => "no entries are made until it is corrected".to_owned(),
        InForce::LastGood(Some(generation)) => {
            format!("the last good spec (generation {generation}) stays in force")
        }
        InForce::Current | InForce::LastGood(None) => "the last good spec stays in force".into(),
    };
    let message = format!("{}; {consequence}", crate::error_chain(error));
    [
        Report::new(READY, false, error.reason(), message.clone()),
        Report::new(STALLED, true, error.reason(), message),
    ]
}

fn masked(count: i64, by: &[Arc<Source>]) -> Option<Report> {
    let by = by
        .iter()
        .map(|source| describe(source))
        .collect::<Vec<_>>()
        .join(", ");
    let message = format!("{count} entries are declared already by an older object: {by}");
    (count > 0).then(|| Report::new(MASKED, true, "DeclaredByOlder", message))
}

fn federation(unknown: &[TrustDomainName]) -> Option<Report> {
    let names = unknown
        .iter()
        .map(TrustDomainName::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let message = format!("no bundle is known of {names}; entries are made without it");
    (!unknown.is_empty())
        .then(|| Report::new(FEDERATION_INCOMPLETE, true, "UnknownTrustDomain", message))
}

fn exceeding(ttls: &[ExceedingTtl]) -> Option<Report> {
    let each = ttls.iter().map(|it| {
        let (field, ttl, certain) = (it.field, it.ttl.as_secs(), it.certain.as_secs());
        format!("{field} of {ttl}s is more than {certain}s")
    });
    let each = each.collect::<Vec<_>>().join(", ");
    let message = format!(
        "{each}: what is signed ends with its authority, which may have no more left (a sixth of the \
         TrustDomain's caTTL, 7 days at most)"
    );
    (!ttls.is_empty()).then(|| Report::new(TTL_EXCEEDS_CA, true, "MayBeCutShort", message))
}

fn describe(source: &Source) -> String {
    format!("{} {}", source.kind.as_str(), source.name)
}
