//! The requests that a signer has not answered yet: when each is attempted, and what is told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::api::ApiResource;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{self, JoinSet};
use tokio::time::Instant;

use crate::clusters::certificates_api::PodCertificateRequest;
use crate::clusters::identities::PodChanged;
use crate::clusters::pod_certificates::attempt::{Attempt, Outcome, is_answered};
use crate::clusters::pod_certificates::{Signer, answer};
use crate::clusters::watch::{News, ObjectKey};
use crate::runtime::backoff::Backoff;
use crate::runtime::context::Context;
use crate::runtime::events::{Recorder, Severity};

/// Requests that are worked on at the same time.
const CONCURRENCY: usize = 32;
/// A request that waits shorter than this gets no event: its pod may just not have been seen yet.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pods remembered as having got their first certificate.
const REMEMBERED: usize = 100_000;

/// Namespace and name of a request.
type RequestName = (String, String);

/// The requests on the signer's desk. Each is attempted by a task of its own, so that none waits for
/// another's API call.
pub(super) struct Desk {
    context: Context,
    signer: watch::Receiver<Signer>,
    resource: ApiResource,
    pending: BTreeMap<RequestName, Pending>,
    /// The requests seen in the list under way.
    listing: Option<BTreeSet<RequestName>>,
    /// The requests to attempt as soon as there is room.
    due: BTreeSet<RequestName>,
    attempts: JoinSet<Outcome>,
    attempted: BTreeMap<task::Id, (RequestName, Pending)>,
    backoff: Backoff<RequestName>,
    /// UIDs of pods and registering objects that have an event about their first certificate.
    greeted: BTreeSet<String>,
}

#[derive(Clone)]
struct Pending {
    request: Arc<PodCertificateRequest>,
    seen: Instant,
    is_attempted: bool,
}

impl Desk {
    pub(super) fn new(
        context: Context,
        signer: watch::Receiver<Signer>,
        resource: ApiResource,
    ) -> Self {
        Self {
            context,
            signer,
            resource,
            pending: BTreeMap::new(),
            listing: None,
            due: BTreeSet::new(),
            attempts: JoinSet::new(),
            attempted: BTreeMap::new(),
            backoff: Backoff::default(),
            greeted: BTreeSet::new(),
        }
    }

    /// Works until the news end.
    pub(super) async fn work(
        mut self,
        mut news: mpsc::UnboundedReceiver<News<PodCertificateRequest>>,
        mut changed_pods: broadcast::Receiver<PodChanged>,
    ) {
        loop {
            self.start_attempts();
            tokio::select! {
                first = news.recv() => {
                    let Some(first) = first else { return };
                    self.take(first);
                    while let Ok(next) = news.try_recv() {
                        self.take(next);
                    }
                }
                changed = changed_pods.recv() => match changed {
                    Ok(pod) => self.due.extend(self.requests_of(&pod)),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.all_are_due(),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                changed = self.signer.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.all_are_due();
                }
                Some(ended) = self.attempts.join_next_with_id() => self.note(ended),
                () = self.backoff.next_due() => self.due.extend(self.backoff.due()),
            }
        }
    }

    fn take(&mut self, news: News<PodCertificateRequest>) {
        match news {
            News::Applied(request) => {
                let ObjectKey {
                    namespace, name, ..
                } = (&request.metadata).into();
                let name = (namespace, name);
                if let Some(listed) = &mut self.listing {
                    listed.insert(name.clone());
                }
                if is_answered(&request) {
                    self.forget(&name);
                    return;
                }
                let request = Arc::new(request);
                self.pending
                    .entry(name.clone())
                    .and_modify(|pending| pending.request = Arc::clone(&request))
                    .or_insert(Pending {
                        request,
                        seen: Instant::now(),
                        is_attempted: false,
                    });
                self.due.insert(name);
            }
            News::Deleted(key) | News::Undecodable(key) => {
                self.forget(&(key.namespace, key.name));
            }
            News::ListStarted => self.listing = Some(BTreeSet::new()),
            News::ListCompleted => {
                let listed = self.listing.take().unwrap_or_default();
                let gone = self.pending.keys().filter(|name| !listed.contains(*name));
                for name in gone.cloned().collect::<Vec<_>>() {
                    self.forget(&name);
                }
            }
        }
    }

    fn forget(&mut self, name: &RequestName) {
        self.pending.remove(name);
        self.due.remove(name);
        self.backoff.forget(name);
    }

    fn requests_of(&self, pod: &PodChanged) -> Vec<RequestName> {
        let of_pod = |pending: &Pending| *pending.request.spec.pod_uid == *pod.uid;
        self.pending
            .iter()
            .filter(|(_, p)| of_pod(p))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn all_are_due(&mut self) {
        self.due.extend(self.pending.keys().cloned());
    }

    /// Starts as many attempts as there is room for. A request that is being attempted stays due.
    fn start_attempts(&mut self) {
        let room = CONCURRENCY.saturating_sub(self.attempts.len());
        let pending = &mut self.pending;
        let next = self.due.iter().filter(|name| {
            let pending = pending.get(*name);
            pending.is_some_and(|pending| !pending.is_attempted)
        });
        for name in next.take(room).cloned().collect::<Vec<_>>() {
            self.due.remove(&name);
            let Some(pending) = pending.get_mut(&name) else {
                continue;
            };
            pending.is_attempted = true;
            let attempt = Attempt {
                context: self.context.clone(),
                signer: self.signer.borrow().clone(),
                resource: self.resource.clone(),
                request: Arc::clone(&pending.request),
            };
            let id = self.attempts.spawn(attempt.run()).id();
            self.attempted.insert(id, (name, pending.clone()));
        }
    }

    /// Takes in how an attempt ended. The news of its own answer may have come before.
    fn note(&mut self, ended: Result<(task::Id, Outcome), task::JoinError>) {
        let id = ended
            .as_ref()
            .map_or_else(task::JoinError::id, |(id, _)| *id);
        let Some((name, attempted)) = self.attempted.remove(&id) else {
            return;
        };
        if let Some(pending) = self.pending.get_mut(&name) {
            pending.is_attempted = false;
        }
        match ended {
            Ok((_, outcome)) => self.note_outcome(&name, &attempted, outcome),
            Err(error) => {
                tracing::error!(k8s.request = ?name, %error, "an attempt to answer broke off");
                self.try_again_later(&name);
            }
        }
    }

    fn note_outcome(&mut self, name: &RequestName, attempted: &Pending, outcome: Outcome) {
        let recorder = &self.context.recorder;
        let metrics = &self.context.metrics;
        let trust_domain = self.signer.borrow().trust_domain.clone();
        let trust_domain = trust_domain.as_str();
        let pod = answer::pod_reference(&attempted.request);
        match outcome {
            Outcome::Issued { entry, until } => {
                metrics.issued(attempted.seen.elapsed());
                metrics.pod_certificate(trust_domain, "issued");
                if self.greeted.len() >= REMEMBERED {
                    self.greeted.clear();
                }
                let mut greet = |recorder: &Recorder, uid: &str, object, note: &str| {
                    let is_told = self.greeted.contains(uid)
                        || recorder.publish(
                            object,
                            Severity::Normal,
                            "IdentityIssued",
                            "Sign",
                            note,
                        );
                    if is_told {
                        self.greeted.insert(uid.to_owned());
                    }
                };
                let note = format!("X.509-SVID {} until {until}", entry.spiffe_id);
                greet(recorder, &attempted.request.spec.pod_uid, pod, &note);
                let note = format!(
                    "first identity issued: {} to pod {}/{}",
                    entry.spiffe_id, name.0, attempted.request.spec.pod_name
                );
                let object = answer::source_reference(&entry.source);
                greet(
                    &self.context.home_recorder,
                    &entry.source.uid,
                    object,
                    &note,
                );
                self.forget(name);
            }
            Outcome::Denied(answer) => {
                metrics.pod_certificate(trust_domain, "denied");
                let note = format!("{}: {}", answer.reason, answer.message);
                recorder.publish(pod, Severity::Warning, "IdentityDenied", "Sign", &note);
                self.forget(name);
            }
            Outcome::Waits(answer) => {
                self.tell_waiting(attempted, answer.reason, &answer.message);
                self.try_again_later(name);
            }
            Outcome::Settled => self.forget(name),
            Outcome::Failed(error) => {
                metrics.pod_certificate(trust_domain, "failed");
                self.tell_waiting(attempted, "SigningFailed", &error.message());
                let error = crate::error_chain(&error);
                tracing::warn!(k8s.request = ?name, error, "cannot answer a request; trying again");
                self.try_again_later(name);
            }
        }
    }

    /// Unless it is gone or answered by now.
    fn try_again_later(&mut self, name: &RequestName) {
        if self.pending.contains_key(name) {
            self.backoff.failed(name.clone());
        }
    }

    /// Tells the pod what keeps its request waiting. All replicas find out; the leader tells.
    fn tell_waiting(&self, pending: &Pending, reason: &str, message: &str) {
        if pending.seen.elapsed() < PATIENCE || !*self.context.leadership.borrow() {
            return;
        }
        let pod = answer::pod_reference(&pending.request);
        let recorder = &self.context.recorder;
        recorder.publish(pod, Severity::Warning, reason, "Sign", message);
    }
}
