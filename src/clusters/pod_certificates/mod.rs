//! The pod-certificate signer of one trust domain in one cluster.
//!
//! It watches the PodCertificateRequests that name its signer, decides about each ([`decide()`]) and
//! writes the answer once. It runs on every replica: the first answer wins, and an answer that came
//! too late harms nothing. A request that cannot be answered yet is tried again when its pod, its
//! entries or the authority change, and from time to time.
//!
//! Invariants: the identity comes from a registered entry; nothing transient is ever `Denied`.

mod answer;
mod decide;
mod selectors;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ApiResource, PostParams};
use kube::runtime::watcher::{self, watcher};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::authority::Authority;
use crate::clusters::certificates_api::PodCertificateRequest;
use crate::clusters::identities::PodChanged;
use crate::clusters::pod_certificates::decide::{Answer, Decision, KnownPod, decide};
use crate::clusters::watch::{News, ObjectKey, follow};
use crate::clusters::{CallError, call};
use crate::registration::Entry;
use crate::runtime::backoff::Backoff;
use crate::runtime::clock;
use crate::runtime::context::Context;
use crate::runtime::events::Severity;
use crate::spiffe::{RequestedKey, TrustDomainName};

/// Requests that are worked on at the same time.
const CONCURRENCY: usize = 32;
/// A request that waits shorter than this gets no event: its pod may just not have been seen yet.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pods remembered as having got their first certificate.
const REMEMBERED: usize = 100_000;

/// What the signer needs to know of its trust domain.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Name of the TrustDomain object.
    pub object: String,
    /// The trust domain.
    pub trust_domain: TrustDomainName,
    /// The signer name to answer for.
    pub signer_name: String,
    /// Lifetime where the entry has none.
    pub ttl: Duration,
    /// Who signs; none while the authority is not ready.
    pub authority: Option<Arc<Authority>>,
}

impl Signer {
    /// Whether both would give the same answers.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let authority = |signer: &Self| {
            let authority = signer.authority.as_ref()?;
            let certificate = authority.ca().certificates().certificate();
            Some((
                certificate.fingerprint().clone(),
                authority.bundle().sequence(),
            ))
        };
        (&self.object, &self.signer_name, self.ttl)
            == (&other.object, &other.signer_name, other.ttl)
            && authority(self) == authority(other)
    }
}

/// Answers the requests for `signer` until dropped. Its signer name must not change.
pub async fn run(context: Context, signer: watch::Receiver<Signer>, resource: ApiResource) {
    let signer_name = signer.borrow().signer_name.clone();
    let requests = Api::<PodCertificateRequest>::all_with(context.client.clone(), &resource);
    let config = watcher::Config::default().fields(&format!("spec.signerName={signer_name}"));
    let (news_sender, news) = mpsc::unbounded_channel();
    let metrics = Arc::clone(&context.metrics);
    let watch = follow(
        watcher(requests, config),
        "PodCertificateRequest",
        metrics,
        move |news| {
            // Fails only once the signer is gone, and the watch with it.
            let _ = news_sender.send(news);
        },
    );
    let _watch = AbortOnDropHandle::new(tokio::spawn(watch));
    let changed_pods = context.identities.changed_pods();
    let desk = Desk {
        context,
        signer,
        resource,
        pending: BTreeMap::new(),
        listing: None,
        backoff: Backoff::default(),
        greeted: BTreeSet::new(),
    };
    desk.work(news, changed_pods).await;
}

/// Namespace and name of a request.
type RequestName = (String, String);

/// The requests on the signer's desk.
struct Desk {
    context: Context,
    signer: watch::Receiver<Signer>,
    resource: ApiResource,
    pending: BTreeMap<RequestName, Pending>,
    /// The requests seen in the list under way.
    listing: Option<BTreeSet<RequestName>>,
    backoff: Backoff<RequestName>,
    /// UIDs of pods and registering objects that have an event about their first certificate.
    greeted: BTreeSet<String>,
}

struct Pending {
    request: Arc<PodCertificateRequest>,
    seen: Instant,
    told: Option<Answer>,
}

/// What came of one attempt.
enum Outcome {
    Issued {
        entry: Arc<Entry>,
        until: jiff::Timestamp,
    },
    Denied(Answer),
    Waits(Answer),
    /// Somebody else answered, or the request is gone.
    Settled,
    Failed(CallError),
}

impl Desk {
    async fn work(
        mut self,
        mut news: mpsc::UnboundedReceiver<News<PodCertificateRequest>>,
        mut changed_pods: broadcast::Receiver<PodChanged>,
    ) {
        loop {
            let mut due = BTreeSet::new();
            tokio::select! {
                first = news.recv() => {
                    let Some(first) = first else { return };
                    self.take(first, &mut due);
                    while let Ok(next) = news.try_recv() {
                        self.take(next, &mut due);
                    }
                }
                changed = changed_pods.recv() => match changed {
                    Ok(pod) => due.extend(self.requests_of(&pod)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        due.extend(self.pending.keys().cloned());
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                changed = self.signer.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    due.extend(self.pending.keys().cloned());
                }
                () = self.backoff.next_due() => due.extend(self.backoff.due()),
            }
            self.attempt_all(due).await;
        }
    }

    fn take(&mut self, news: News<PodCertificateRequest>, due: &mut BTreeSet<RequestName>) {
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
                        told: None,
                    });
                due.insert(name);
            }
            News::Deleted(key) | News::Undecodable(key) => {
                let name = (key.namespace, key.name);
                self.forget(&name);
                due.remove(&name);
            }
            News::ListStarted => self.listing = Some(BTreeSet::new()),
            News::ListCompleted => {
                let listed = self.listing.take().unwrap_or_default();
                self.pending.retain(|name, _| listed.contains(name));
            }
        }
    }

    fn forget(&mut self, name: &RequestName) {
        self.pending.remove(name);
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

    async fn attempt_all(&mut self, due: BTreeSet<RequestName>) {
        let signer = self.signer.borrow_and_update().clone();
        let requests = due.into_iter().filter_map(|name| {
            let request = Arc::clone(&self.pending.get(&name)?.request);
            Some((name, request))
        });
        let attempts = requests
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(name, request)| {
                let attempt = Attempt {
                    context: &self.context,
                    signer: &signer,
                    resource: &self.resource,
                };
                async move { (name, attempt.run(&request).await) }
            });
        let outcomes: Vec<_> = futures::stream::iter(attempts)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for (name, outcome) in outcomes {
            self.note(&signer, name, outcome);
        }
    }

    fn note(&mut self, signer: &Signer, name: RequestName, outcome: Outcome) {
        let Some(pending) = self.pending.get_mut(&name) else {
            return;
        };
        let recorder = &self.context.recorder;
        let metrics = &self.context.metrics;
        let trust_domain = signer.trust_domain.as_str();
        let pod = answer::pod_reference(&pending.request);
        match outcome {
            Outcome::Issued { entry, until } => {
                metrics.issued(pending.seen.elapsed());
                metrics.pod_certificate(trust_domain, "issued");
                if self.greeted.len() >= REMEMBERED {
                    self.greeted.clear();
                }
                if self.greeted.insert(pending.request.spec.pod_uid.clone()) {
                    let note = format!("X.509-SVID {} until {until}", entry.spiffe_id);
                    recorder.publish(pod, Severity::Normal, "IdentityIssued", "Sign", &note);
                }
                if self.greeted.insert(entry.source.uid.to_string()) {
                    let note = format!(
                        "first identity issued: {} to pod {}/{}",
                        entry.spiffe_id, name.0, pending.request.spec.pod_name
                    );
                    let object = answer::source_reference(&entry.source);
                    recorder.publish(object, Severity::Normal, "IdentityIssued", "Sign", &note);
                }
                self.forget(&name);
            }
            Outcome::Denied(answer) => {
                metrics.pod_certificate(trust_domain, "denied");
                let note = format!("{}: {}", answer.reason, answer.message);
                recorder.publish(pod, Severity::Warning, "IdentityDenied", "Sign", &note);
                self.forget(&name);
            }
            Outcome::Waits(answer) => {
                self.backoff.failed(name);
                if pending.seen.elapsed() >= PATIENCE && pending.told.as_ref() != Some(&answer) {
                    let message = &answer.message;
                    recorder.publish(pod, Severity::Warning, answer.reason, "Sign", message);
                    pending.told = Some(answer);
                }
            }
            Outcome::Settled => self.forget(&name),
            Outcome::Failed(error) => {
                metrics.pod_certificate(trust_domain, "failed");
                let error = crate::error_chain(&error);
                tracing::warn!(k8s.request = ?name, error, "cannot answer a request; trying again");
                self.backoff.failed(name);
            }
        }
    }
}

/// One attempt to answer one request.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    context: &'a Context,
    signer: &'a Signer,
    resource: &'a ApiResource,
}

impl Attempt<'_> {
    async fn run(&self, request: &PodCertificateRequest) -> Outcome {
        match self.decide(request).await {
            Ok(Decision::Issue { entry, key }) => self.issue(request, entry, &key).await,
            Ok(Decision::Deny(answer)) => {
                let status = answer::denied(&answer, clock::now());
                match self.write(request, status).await {
                    Ok(true) => Outcome::Denied(answer),
                    Ok(false) => Outcome::Settled,
                    Err(error) => Outcome::Failed(error),
                }
            }
            Ok(Decision::Wait(answer)) => Outcome::Waits(answer),
            Err(error) => Outcome::Failed(error),
        }
    }

    async fn decide(&self, request: &PodCertificateRequest) -> Result<Decision, CallError> {
        let spec = &request.spec;
        let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
        let known = self
            .context
            .identities
            .pod(&self.signer.object, &spec.pod_uid);
        let uid = &spec.pod_uid;
        let needs_live = known
            .entries
            .iter()
            .any(|entry| selectors::need_live_pod(&entry.selectors, uid));
        let live = if needs_live {
            let pods = Api::<Pod>::namespaced(self.context.client.clone(), namespace);
            call(pods.get_opt(&spec.pod_name)).await?
        } else {
            None
        };
        let same_pod = |pod: &&Pod| pod.metadata.uid.as_ref() == Some(uid);
        let pod = KnownPod {
            facts: known.facts.as_deref(),
            live: live.as_ref().filter(same_pod),
            entries: known.entries,
            why_none: known.why_none,
        };
        Ok(decide(spec, namespace, &pod))
    }

    async fn issue(
        &self,
        request: &PodCertificateRequest,
        entry: Arc<Entry>,
        key: &RequestedKey,
    ) -> Outcome {
        let Some(authority) = &self.signer.authority else {
            let message = format!(
                "the authority of trust domain {} is not ready; see kubectl describe trustdomain {}",
                self.signer.trust_domain, self.signer.object
            );
            return Outcome::Waits(Answer::new("AuthorityNotReady", message));
        };
        let started = Instant::now();
        let ttl = self.signer.ttl;
        let signed = answer::sign(authority, &request.spec, &entry, key, ttl, clock::now());
        self.context.metrics.signed(started.elapsed());
        let signed = match signed {
            Ok(signed) => signed,
            Err(answer) => return Outcome::Waits(answer),
        };
        let until = signed.not_after;
        match self.write(request, signed.status).await {
            Ok(true) => Outcome::Issued { entry, until },
            Ok(false) => Outcome::Settled,
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Writes the answer; false when there is nothing to answer any more.
    async fn write(
        &self,
        request: &PodCertificateRequest,
        status: answer::Status,
    ) -> Result<bool, CallError> {
        let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
        let name = request.metadata.name.as_deref().unwrap_or_default();
        let requests = Api::<PodCertificateRequest>::namespaced_with(
            self.context.client.clone(),
            namespace,
            self.resource,
        );
        let answered = PodCertificateRequest {
            status: Some(status),
            ..request.clone()
        };
        match call(requests.replace_status(name, &PostParams::default(), &answered)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            // Another replica answered, or the object changed: look at what is there now.
            Err(error) if error.is_conflict() || error.is_invalid() => {
                match call(requests.get_opt(name)).await? {
                    Some(current) if is_answered(&current) => Ok(false),
                    None => Ok(false),
                    Some(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a request has its final answer.
fn is_answered(request: &PodCertificateRequest) -> bool {
    let conditions = request
        .status
        .iter()
        .filter_map(|status| status.conditions.as_ref());
    conditions
        .flatten()
        .any(|c| matches!(c.type_.as_str(), "Issued" | "Denied" | "Failed"))
}
