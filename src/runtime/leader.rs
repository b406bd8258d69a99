//! Leader election on a `coordination.k8s.io` Lease.
//!
//! [`decide`] is pure. It never compares a remote timestamp with the local clock: a Lease has
//! expired when *this* process has seen the same record for a whole lease duration on its own
//! monotonic clock. Every write carries the `resourceVersion` that was read. What the leader does
//! is not here: tasks read [`Leadership`] and are cancelled when it ends.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::clusters::{CallError, call};
use crate::runtime::clock;

/// How long a leader may go without renewing, as client-go has it.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long the leader tries to renew before it steps down.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks at the Lease.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// The part of a Lease that says who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Identity of the leader; empty when it stepped down.
    pub holder: String,
    /// When it last renewed, by its own clock; compared for change only.
    pub renewed: Option<Timestamp>,
    /// How often leadership changed hands.
    pub transitions: i32,
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Write this process in as the leader.
    Acquire,
    /// Write a new renewal time.
    Renew,
    /// Somebody else leads.
    Wait,
}

/// Decides from the record, and for how long it has not changed.
#[must_use]
pub fn decide(record: Option<&Record>, me: &str, unchanged_for: Duration) -> Decision {
    match record {
        None => Decision::Acquire,
        Some(record) if record.holder == me => Decision::Renew,
        Some(record) if record.holder.is_empty() || unchanged_for >= LEASE_DURATION => {
            Decision::Acquire
        }
        Some(_) => Decision::Wait,
    }
}

/// Whether this process leads now; a clone sees the same.
pub type Leadership = watch::Receiver<bool>;

/// Waits until this process does not lead any more; for ever when it does not lead now.
pub async fn until_lost(leadership: &Leadership) {
    let mut leadership = leadership.clone();
    if !*leadership.borrow() || leadership.wait_for(|leads| !leads).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Competes for the Lease `name` in `namespace` until `shutdown`, then gives it up.
pub async fn compete(
    client: Client,
    namespace: String,
    name: String,
    me: String,
    leading: watch::Sender<bool>,
    shutdown: CancellationToken,
) {
    let mut candidate = Candidate {
        leases: Api::namespaced(client, &namespace),
        name,
        me,
        observed: None,
        renewed_at: None,
    };
    loop {
        let leads = candidate.tick().await;
        if leading.send_if_modified(|old| std::mem::replace(old, leads) != leads) {
            tracing::info!(leads, "leadership changed");
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_PERIOD) => {}
            () = shutdown.cancelled() => break,
        }
    }
    leading.send_replace(false);
    if candidate.renewed_at.is_some() {
        candidate.release().await;
    }
}

struct Candidate {
    leases: Api<Lease>,
    name: String,
    me: String,
    /// The record last seen, and since when.
    observed: Option<(Record, Instant)>,
    /// When this process last renewed; none while it does not lead.
    renewed_at: Option<Instant>,
}

impl Candidate {
    /// Looks at the Lease once and acts; returns whether this process leads. A leader that gets no
    /// answer steps down at its deadline, before others may take over.
    async fn tick(&mut self) -> bool {
        let started = Instant::now();
        let deadline = self.renewed_at.map(|at| at + RENEW_DEADLINE);
        let outcome = match deadline {
            Some(deadline) => timeout_at(deadline, self.try_tick())
                .await
                .unwrap_or(Err(CallError::Timeout)),
            None => self.try_tick().await,
        };
        match outcome {
            Ok(leads) => self.renewed_at = leads.then_some(started),
            Err(error) => {
                tracing::warn!(error = %crate::error_chain(&error), "cannot reach the Lease");
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    self.renewed_at = None;
                }
            }
        }
        self.renewed_at.is_some()
    }

    async fn try_tick(&mut self) -> Result<bool, CallError> {
        let lease = call(self.leases.get_opt(&self.name)).await?;
        let record = lease.as_ref().map(record_of);
        let unchanged_for = self.observe(record.as_ref());
        let outcome = match decide(record.as_ref(), &self.me, unchanged_for) {
            Decision::Wait => return Ok(false),
            Decision::Acquire | Decision::Renew => self.write(lease, record, &self.me).await,
        };
        match outcome {
            Err(error) if error.is_conflict() => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn observe(&mut self, record: Option<&Record>) -> Duration {
        let now = Instant::now();
        match (&self.observed, record) {
            (Some((old, since)), Some(new)) if old == new => now - *since,
            _ => {
                self.observed = record.cloned().map(|record| (record, now));
                Duration::ZERO
            }
        }
    }

    async fn write(
        &self,
        lease: Option<Lease>,
        record: Option<Record>,
        holder: &str,
    ) -> Result<(), CallError> {
        let previous = record.unwrap_or_default();
        let now = MicroTime(clock::now());
        let taken_over = previous.holder != holder;
        let mut spec = lease
            .as_ref()
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        if taken_over {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(previous.transitions.saturating_add(1));
        }
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            renew_time: Some(now),
            ..spec
        };
        match lease {
            Some(lease) => {
                let lease = Lease {
                    spec: Some(spec),
                    ..lease
                };
                call(
                    self.leases
                        .replace(&self.name, &PostParams::default(), &lease),
                )
                .await?;
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    ..Default::default()
                };
                let lease = Lease {
                    metadata,
                    spec: Some(spec),
                };
                call(self.leases.create(&PostParams::default(), &lease)).await?;
            }
        }
        Ok(())
    }

    /// Clears the holder, so that a successor need not wait for the Lease to expire.
    async fn release(&self) {
        let released = async {
            let Some(lease) = call(self.leases.get_opt(&self.name)).await? else {
                return Ok(());
            };
            let record = record_of(&lease);
            if record.holder != self.me {
                return Ok(());
            }
            self.write(Some(lease), Some(record), "").await
        };
        if let Err(error) = released.await {
            tracing::warn!(error = %crate::error_chain(&error), "cannot release the Lease");
        }
    }
}

fn record_of(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    Record {
        holder: spec
            .and_then(|spec| spec.holder_identity.clone())
            .unwrap_or_default(),
        renewed: spec
            .and_then(|spec| spec.renew_time.as_ref())
            .map(|time| time.0),
        transitions: spec
            .and_then(|spec| spec.lease_transitions)
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn held_by(holder: &str) -> Record {
        Record {
            holder: holder.into(),
            ..Record::default()
        }
    }

    #[test]
    fn takes_a_lease_that_nobody_holds() {
        assert_eq!(decide(None, "me", Duration::ZERO), Decision::Acquire);
        assert_eq!(
            decide(Some(&held_by("")), "me", Duration::ZERO),
            Decision::Acquire
        );
    }

    #[test]
    fn renews_its_own_lease() {
        assert_eq!(
            decide(Some(&held_by("me")), "me", LEASE_DURATION),
            Decision::Renew
        );
    }

    #[test]
    fn waits_until_a_foreign_record_stood_still_for_the_lease_duration() {
        let other = held_by("other");
        let almost = LEASE_DURATION.saturating_sub(Duration::from_millis(1));
        assert_eq!(decide(Some(&other), "me", Duration::ZERO), Decision::Wait);
        assert_eq!(decide(Some(&other), "me", almost), Decision::Wait);
        assert_eq!(
            decide(Some(&other), "me", LEASE_DURATION),
            Decision::Acquire
        );
    }

    #[tokio::test]
    async fn only_who_leads_can_lose() {
        let (leading, leadership) = watch::channel(false);
        assert!(until_lost(&leadership).now_or_never().is_none());
        leading.send_replace(true);
        assert!(until_lost(&leadership).now_or_never().is_none());
        let lost = until_lost(&leadership);
        leading.send_replace(false);
        assert!(
            lost.now_or_never().is_none(),
            "it did not lead when it began to wait"
        );
        leading.send_replace(true);
        let mut lost = Box::pin(until_lost(&leadership));
        assert!((&mut lost).now_or_never().is_none());
        leading.send_replace(false);
        lost.await;
    }
}
