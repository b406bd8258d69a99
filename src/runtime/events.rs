//! Events on the objects that users look at (`events.k8s.io/v1`).
//!
//! Best effort and bounded: an event that was published within the last minutes is not repeated,
//! and one that cannot be published is logged and dropped. Nothing depends on an event.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clusters::call;

/// Name under which events are reported.
const CONTROLLER: &str = "spiffe-operator.io/operator";
/// An equal event is not repeated within this time.
const QUIET: Duration = Duration::from_mins(10);
/// Longest note the API accepts, in bytes.
const MAX_NOTE_LENGTH: usize = 1024;
/// Events that may wait to be published; more are dropped.
const QUEUE: usize = 1024;
/// Events remembered so as not to repeat them.
const REMEMBERED: usize = 16_384;

/// Whether an event reports success or a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// All is well.
    Normal,
    /// The user should look.
    Warning,
}

/// Publishes events in the background. Clones share one queue.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<(Digest, Event)>,
    published: Published,
    instance: String,
}

/// Of what makes events equal: object, reason and note.
type Digest = u64;

/// When each event was published, or began to wait for it.
#[derive(Clone, Default)]
struct Published(Arc<Mutex<BTreeMap<Digest, Instant>>>);

impl Recorder {
    /// A recorder and the task that publishes what it is given; `instance` names this process.
    #[must_use = "events are published only while the task runs"]
    pub fn new(client: Client, instance: String) -> (Self, impl Future<Output = ()>) {
        let (queue, mut waiting) = mpsc::channel::<(Digest, Event)>(QUEUE);
        let published = Published::default();
        let done = published.clone();
        let publish = async move {
            while let Some((digest, event)) = waiting.recv().await {
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
                if let Err(error) = call(events.create(&PostParams::default(), &event)).await {
                    done.forget(digest);
                    let error = crate::error_chain(&error);
                    tracing::debug!(%error, reason = event.reason, "cannot publish an event");
                }
            }
        };
        (
            Self {
                queue,
                published,
                instance,
            },
            publish,
        )
    }

    /// Publishes an event on `regarding`, unless an equal one was published lately.
    pub fn publish(
        &self,
        regarding: ObjectReference,
        severity: Severity,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        let mut hasher = DefaultHasher::new();
        (&regarding.uid, reason, note).hash(&mut hasher);
        let digest = hasher.finish();
        if !self.published.note(digest) {
            return;
        }
        let now = Timestamp::now();
        let name = regarding.name.as_deref().unwrap_or("object");
        let event = Event {
            metadata: ObjectMeta {
                // The API keeps the events of cluster-scoped objects in `default`.
                namespace: Some(
                    regarding
                        .namespace
                        .clone()
                        .unwrap_or_else(|| "default".into()),
                ),
                name: Some(format!(
                    "{}.{:x}{:04x}",
                    crate::truncate(name, 200),
                    now.as_nanosecond(),
                    rand::random::<u16>()
                )),
                ..Default::default()
            },
            action: Some(action.into()),
            reason: Some(reason.into()),
            note: Some(crate::truncate(note, MAX_NOTE_LENGTH).into()),
            type_: Some(match severity {
                Severity::Normal => "Normal".into(),
                Severity::Warning => "Warning".into(),
            }),
            event_time: Some(MicroTime(now)),
            regarding: Some(regarding),
            reporting_controller: Some(CONTROLLER.into()),
            reporting_instance: Some(crate::truncate(&self.instance, 128).into()),
            ..Default::default()
        };
        if self.queue.try_send((digest, event)).is_err() {
            self.published.forget(digest);
            tracing::debug!(reason, "too many events wait; one is dropped");
        }
    }
}

impl Published {
    /// Notes an event; false when an equal one was noted lately.
    fn note(&self, digest: Digest) -> bool {
        let now = Instant::now();
        let mut published = self.lock();
        if published.get(&digest).is_some_and(|at| now - *at < QUIET) {
            return false;
        }
        if published.len() >= REMEMBERED {
            published.retain(|_, at| now - *at < QUIET);
        }
        if published.len() >= REMEMBERED {
            published.clear();
        }
        published.insert(digest, now);
        true
    }

    /// The event was not published after all.
    fn forget(&self, digest: Digest) {
        self.lock().remove(&digest);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_equal_event_is_repeated_only_after_a_while_or_when_it_was_lost() {
        let published = Published::default();
        assert!(published.note(1));
        assert!(!published.note(1));
        assert!(published.note(2));
        published.forget(1);
        assert!(published.note(1));
        tokio::time::advance(QUIET).await;
        assert!(published.note(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let published = Published::default();
        for digest in (0..).take(REMEMBERED + 1) {
            assert!(published.note(digest));
        }
        assert!(published.lock().len() <= REMEMBERED);
    }
}
