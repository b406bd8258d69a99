//! ClusterSPIFFEIDs and ClusterStaticEntries: their statuses, their events, and the copies of their
//! last good specs.
//!
//! What they mean is evaluated by [`crate::registration`] as soon as they are seen; here is what
//! follows from its reports. Every replica restores last good specs and knows foreign bundles; the leader writes, and deletes
//! RegistrationEntries that have expired.

mod expire;
mod federation;
mod objects;
mod restore;
mod status;
mod tell;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::clusters::identities::ObjectName;
use crate::controllers::registrations::objects::Keeper;
use crate::runtime::backoff::Backoff;
use crate::runtime::context::Context;
use crate::runtime::health::Health;
use crate::runtime::leader::until_lost;

/// Statuses are written at most once in this time, however often the counts change.
const COALESCE: Duration = Duration::from_millis(300);

/// Starts the controller.
pub fn start(context: &Context, health: &Health, tasks: &mut JoinSet<()>) {
    tasks.spawn(reconcile(context.clone()));
    tasks.spawn(restore::last_good_specs(context.clone()));
    health.expect(federation::FOREIGN_BUNDLES);
    tasks.spawn(federation::foreign_bundles(context.clone(), health.clone()));
    tasks.spawn(expire::registration_entries(context.clone()));
    tasks.spawn(tell::changes(context.clone(), context.identities.changes()));
}

/// Works through objects as their reports change.
async fn reconcile(context: Context) {
    let mut keeper = Keeper::new(context.clone());
    let mut backoff: Backoff<ObjectName> = Backoff::default();
    let mut leadership = context.leadership.clone();
    let mut due: BTreeSet<ObjectName> = BTreeSet::new();
    loop {
        due.extend(backoff.due());
        due.extend(context.identities.take_changed_objects());
        for object in std::mem::take(&mut due) {
            let started = Instant::now();
            let outcome = match context.identities.report(&object) {
                Some(report) => tokio::select! {
                    outcome = keeper.reconcile(&object, report) => outcome,
                    // Whoever leads now looks at everything once.
                    () = until_lost(&context.leadership) => Ok(()),
                },
                None if context.identities.knows(&object) => {
                    backoff.forget(&object);
                    continue;
                }
                None => {
                    keeper.forget(&object);
                    Ok(())
                }
            };
            let failure = outcome.as_ref().err().map(|_| "KubernetesAPI");
            context
                .metrics
                .reconciled(object.kind.as_str(), started.elapsed(), failure);
            match outcome {
                Ok(()) => backoff.forget(&object),
                Err(error) => {
                    let error = crate::error_chain(&error);
                    let kind = object.kind.as_str();
                    tracing::warn!(kind, name = &*object.name, error, "reconcile failed");
                    backoff.failed(object);
                }
            }
        }
        tokio::select! {
            () = context.identities.reports_changed() => {}
            () = backoff.next_due() => {}
            changed = leadership.changed() => {
                if changed.is_err() {
                    return;
                }
                // A new leader looks at everything once.
                due = context.identities.objects();
            }
        }
        sleep(COALESCE).await;
    }
}
