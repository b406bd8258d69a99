//! Events about registration, on the object and on the pods it fails for. The leader tells.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::clusters::identities::{DomainChange, ObjectReport};
use crate::registration::{Change, EntryError, PodRef, RemovalCause, Source};
use crate::runtime::context::Context;
use crate::runtime::events::Severity;

/// Publishes events as entries change, for ever; a new leader also about what was wrong before, as
/// nobody may have told.
pub(super) async fn changes(context: Context, mut changes: Receiver<DomainChange>) {
    let mut leadership = context.leadership.clone();
    loop {
        tokio::select! {
            turn = leadership.changed() => {
                if turn.is_err() {
                    return;
                }
                if *leadership.borrow_and_update() {
                    troubles(&context);
                }
            }
            change = changes.recv() => match change {
                Ok(change) if *context.leadership.borrow() => tell(&context, &change),
                // More changed than anybody would read events about.
                Err(RecvError::Lagged(_)) if *context.leadership.borrow() => troubles(&context),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
    }
}

fn troubles(context: &Context) {
    let troubles = context.identities.troubles();
    troubles.iter().for_each(|trouble| tell(context, trouble));
}

/// Pods are told each, an object of one example by each reason: its status names more.
fn tell(context: &Context, DomainChange { change, .. }: &DomainChange) {
    let recorder = context.recorder.for_many();
    match change {
        // The node comes with the next news of it; that is waited for, not failed.
        Change::Failed { error, .. } if matches!(**error, EntryError::NodeUnseen { .. }) => {}
        Change::Failed { pod, source, error } => {
            let reason = error.reason();
            let note = format!("{} {}: {error}", source.kind.as_str(), source.name);
            recorder.publish(of_pod(pod), Severity::Warning, reason, "Register", &note);
            let note = format!("pod {}/{}: {error}", pod.namespace, pod.name);
            let source = of_source(source);
            recorder.publish_example(source, Severity::Warning, reason, "Register", &note);
        }
        Change::Masked { entry, by } => {
            let whose = entry.pod.as_ref().map_or_else(String::new, |pod| {
                format!(" of pod {}/{}", pod.namespace, pod.name)
            });
            let note = format!(
                "entry {}{whose} is declared already by {} {}",
                entry.spiffe_id,
                by.kind.as_str(),
                by.name
            );
            let source = of_source(&entry.source);
            recorder.publish_example(source, Severity::Warning, "Masked", "Register", &note);
            if let Some(pod) = &entry.pod {
                recorder.publish(of_pod(pod), Severity::Warning, "Masked", "Register", &note);
            }
        }
        Change::Removed(entry, cause) => {
            tracing::debug!(
                spiffe.id = %entry.spiffe_id,
                cause = cause.reason(),
                "entry removed"
            );
            let ends_with_pod = matches!(cause, RemovalCause::PodGone | RemovalCause::PodFinished);
            if let Some(pod) = entry.pod.as_ref().filter(|_| !ends_with_pod) {
                let note = format!(
                    "{} {} no longer registers {}: {}",
                    entry.source.kind.as_str(),
                    entry.source.name,
                    entry.spiffe_id,
                    cause.reason()
                );
                recorder.publish(
                    of_pod(pod),
                    Severity::Normal,
                    "IdentityRemoved",
                    "Register",
                    &note,
                );
            }
        }
        Change::Set(entry) => tracing::debug!(spiffe.id = %entry.spiffe_id, "entry set"),
    }
}

/// An event on an object whose spec is broken.
pub(super) fn report(context: &Context, report: &ObjectReport) {
    let (reference, error) = match report {
        ObjectReport::ClusterSpiffeId(it) => (
            it.object.object_ref(&()),
            it.report.as_ref().and_then(|report| report.error.as_ref()),
        ),
        ObjectReport::ClusterStaticEntry(it) => (
            it.object.object_ref(&()),
            it.report.as_ref().and_then(|report| report.error.as_ref()),
        ),
    };
    if let Some(error) = error {
        let note = crate::error_chain(error);
        context.recorder.publish(
            reference,
            Severity::Warning,
            error.reason(),
            "Register",
            &note,
        );
    }
}

fn of_pod(pod: &PodRef) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace.to_string()),
        name: Some(pod.name.to_string()),
        uid: Some(pod.uid.to_string()),
        ..ObjectReference::default()
    }
}

fn of_source(source: &Source) -> ObjectReference {
    ObjectReference {
        api_version: Some(source.kind.api_version().into()),
        kind: Some(source.kind.as_str().into()),
        name: Some(source.name.to_string()),
        uid: Some(source.uid.to_string()),
        ..ObjectReference::default()
    }
}
