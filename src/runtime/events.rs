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
/// Room in the queue that is not for events that come by the thousand.
const RESERVED: usize = QUEUE / 2;
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
    /// Room to be left in the queue for others.
    reserved: usize,
}

/// Of what makes events equal: object and reason, and mostly the note.
type Digest = u64;

/// When each event was published, or began to wait for it.
#[derive(Clone, Default)]
struct Published(Arc<Mutex<BTreeMap<Digest, Instant>>>);

impl Recorder {
    /// A recorder and the task that publishes what it is given; `instance` names this process.
    #[must_use = "events are published only while the task runs"]
    pub fn new(client: Client, instance: String) -> (Self, impl Future<Output = ()> + use<>) {
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
                reserved: 0,
            },
            publish,
        )
    }

    /// A recorder for another cluster, and the task that publishes what it is given.
    #[must_use = "events are published only while the task runs"]
    pub fn of_cluster(&self, client: Client) -> (Self, impl Future<Output = ()> + use<>) {
        Self::new(client, self.instance.clone())
    }

    /// The same for events that may come by the thousand: they are dropped while half of the queue
    /// is taken, so that they do not cost the others.
    #[must_use]
    pub fn for_many(&self) -> Self {
        Self {
            reserved: RESERVED,
            ..self.clone()
        }
    }

    /// Publishes an event on `regarding`, unless an equal one was published lately. False when it
    /// had to be dropped, because too many wait.
    #[expect(clippy::must_use_candidate, reason = "nothing depends on an event")]
    pub fn publish(
        &self,
        regarding: ObjectReference,
        severity: Severity,
        reason: &str,
        action: &str,
        note: &str,
    ) -> bool {
        let digest = digest((&regarding.uid, reason, note));
        self.publish_unless_noted(digest, regarding, severity, reason, action, note)
    }

    /// Publishes an event whose note is an example of many: not when another one with this reason
    /// was published on `regarding` lately.
    pub fn publish_example(
        &self,
        regarding: ObjectReference,
        severity: Severity,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        let digest = digest((&regarding.uid, reason));
        self.publish_unless_noted(digest, regarding, severity, reason, action, note);
    }

    fn publish_unless_noted(
        &self,
        digest: Digest,
        regarding: ObjectReference,
        severity: Severity,
        reason: &str,
        action: &str,
        note: &str,
    ) -> bool {
        if !self.published.note(digest) {
            return true;
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
        let has_room = self.queue.capacity() > self.reserved;
        if has_room && self.queue.try_send((digest, event)).is_ok() {
            return true;
        }
        self.published.forget(digest);
        tracing::debug!(reason, "too many events wait; one is dropped");
        false
    }
}

fn digest(of: impl Hash) -> Digest {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
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

    /// A recorder whose events nobody publishes.
    fn recorder() -> (Recorder, impl Future<Output = ()>) {
        let config = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
        Recorder::new(Client::try_from(config).unwrap(), "test".into())
    }

    fn object(uid: &str) -> ObjectReference {
        ObjectReference {
            uid: Some(uid.into()),
            ..ObjectReference::default()
        }
    }

    #[tokio::test]
    async fn events_that_come_by_the_thousand_leave_room_for_others() {
        let (recorder, _publish) = recorder();
        let many = recorder.for_many();
        let warn = |to: &Recorder, uid: &str| {
            to.publish(object(uid), Severity::Warning, "Reason", "Do", "note")
        };
        for at in 0..RESERVED {
            assert!(warn(&many, &at.to_string()));
        }
        assert!(!warn(&many, "one more"));
        for at in RESERVED..QUEUE {
            assert!(warn(&recorder, &at.to_string()));
        }
        assert!(!warn(&recorder, "one more"), "the queue is full");
        assert!(warn(&recorder, "0"), "an equal one waits already");
    }

    #[tokio::test]
    async fn of_many_with_one_reason_one_is_published_as_an_example() {
        let (recorder, _publish) = recorder();
        let publish = |uid: &str, reason: &str, note: &str| {
            recorder.publish_example(object(uid), Severity::Warning, reason, "Do", note);
            QUEUE - recorder.queue.capacity()
        };
        assert_eq!(publish("a", "Reason", "pod 1"), 1);
        assert_eq!(publish("a", "Reason", "pod 2"), 1);
        assert_eq!(publish("a", "Other", "pod 2"), 2);
        assert_eq!(publish("b", "Reason", "pod 1"), 3);
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
