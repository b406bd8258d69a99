//! Events on the objects that users look at (`events.k8s.io/v1`).
//!
//! Best effort and bounded: an event that was published within the last minutes is not repeated,
//! and one that cannot be published is logged and dropped. Nothing depends on an event.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
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
    queue: mpsc::Sender<Event>,
    published: Arc<Mutex<BTreeMap<String, Instant>>>,
    instance: String,
}

impl Recorder {
    /// A recorder and the task that publishes what it is given; `instance` names this process.
    #[must_use = "events are published only while the task runs"]
    pub fn new(client: Client, instance: String) -> (Self, impl Future<Output = ()>) {
        let (queue, mut waiting) = mpsc::channel::<Event>(QUEUE);
        let publish = async move {
            while let Some(event) = waiting.recv().await {
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
                if let Err(error) = call(events.create(&PostParams::default(), &event)).await {
                    let error = crate::error_chain(&error);
                    tracing::debug!(%error, reason = event.reason, "cannot publish an event");
                }
            }
        };
        (
            Self {
                queue,
                published: Arc::default(),
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
        let uid = regarding.uid.as_deref().unwrap_or_default();
        if !self.is_new(format!("{uid}\n{reason}\n{note}")) {
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
        if self.queue.try_send(event).is_err() {
            tracing::debug!(reason, "too many events wait; one is dropped");
        }
    }

    fn is_new(&self, key: String) -> bool {
        let now = Instant::now();
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if published.get(&key).is_some_and(|at| now - *at < QUIET) {
            return false;
        }
        if published.len() >= REMEMBERED {
            published.retain(|_, at| now - *at < QUIET);
        }
        if published.len() >= REMEMBERED {
            published.clear();
        }
        published.insert(key, now);
        true
    }
}
