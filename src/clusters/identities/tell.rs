//! What the registry knows, in words and numbers for people. Pure.

use crate::api::TrustDomainSpec;
use crate::clusters::identities::ObjectReport;
use crate::registration::report::{MatchOutcome, Obstacle, PodReport};
use crate::registration::{Change, PodRef};
use crate::runtime::metrics::ObjectCounts;

/// The pod that a change concerns.
pub(super) fn pod_of(change: &Change) -> Option<&PodRef> {
    match change {
        Change::Set(entry) | Change::Removed(entry, _) | Change::Masked { entry, .. } => {
            entry.pod.as_ref()
        }
        Change::Failed { pod, .. } => Some(pod),
    }
}

/// The counts of an object that is served.
pub(super) fn counts(report: &ObjectReport) -> Option<ObjectCounts> {
    match report {
        ObjectReport::ClusterSpiffeId(reported) => {
            let report = reported.report.as_ref()?;
            let stats = &report.stats;
            Some(ObjectCounts {
                entries: stats.entries_to_set,
                render_failures: stats.pod_entry_render_failures + stats.entry_failures,
                masked: stats.entries_masked,
            })
        }
        ObjectReport::ClusterStaticEntry(reported) => {
            let report = reported.report.as_ref()?;
            Some(ObjectCounts {
                entries: i64::from(report.set()),
                render_failures: i64::from(!report.rendered()),
                masked: i64::from(report.masked_by.is_some()),
            })
        }
    }
}

/// Why a pod has no entry, and what the user can do.
pub(super) fn why_none(report: Option<&PodReport>, spec: &TrustDomainSpec) -> String {
    let trust_domain = &spec.trust_domain;
    let Some(report) = report else {
        return "the pod has not been seen yet".into();
    };
    let namespace = &report.pod.namespace;
    match report.obstacle {
        Some(Obstacle::Finished) => return "the pod has run to its end".into(),
        Some(Obstacle::NamespaceIgnored) => {
            return format!(
                "trust domain {trust_domain} ignores namespace {namespace} (spec.ignoreNamespaces)"
            );
        }
        Some(Obstacle::NamespaceUnseen) => {
            return format!("namespace {namespace} has not been seen yet");
        }
        Some(Obstacle::Unscheduled) | None => {}
    }
    let failures = report
        .matches
        .iter()
        .filter_map(|(source, outcome)| match outcome {
            MatchOutcome::Failed(error) => {
                Some(format!("{} {}: {error}", source.kind.as_str(), source.name))
            }
            MatchOutcome::Masked { by, .. } => Some(format!(
                "{} {} is masked by {} {}",
                source.kind.as_str(),
                source.name,
                by.kind.as_str(),
                by.name
            )),
            MatchOutcome::Waiting(_) => Some(format!("{} is being evaluated", source.name)),
            MatchOutcome::Issued(_) | MatchOutcome::NotRunning | MatchOutcome::Superseded => None,
        });
    let failures = failures.collect::<Vec<_>>();
    if !failures.is_empty() {
        return failures.join("; ");
    }
    let class = match spec.class_name.as_deref().unwrap_or_default() {
        "" => String::new(),
        class => format!(" of class {class}"),
    };
    format!(
        "no ClusterSPIFFEID{class} of trust domain {trust_domain} matches this pod; apply one whose \
         podSelector and namespaceSelector do"
    )
}
