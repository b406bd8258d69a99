//! One attempt to answer one request: decide, sign, write once.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ApiResource, PostParams};
use tokio::time::Instant;

use crate::clusters::certificates_api::PodCertificateRequest;
use crate::clusters::pod_certificates::decide::{Answer, Decision, KnownPod, decide};
use crate::clusters::pod_certificates::{Signer, answer, selectors};
use crate::clusters::{CallError, call};
use crate::registration::Entry;
use crate::runtime::clock;
use crate::runtime::context::Context;
use crate::spiffe::RequestedKey;

/// What came of one attempt.
pub(super) enum Outcome {
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

/// One attempt to answer one request.
pub(super) struct Attempt {
    pub(super) context: Context,
    pub(super) signer: Signer,
    pub(super) resource: ApiResource,
    pub(super) request: Arc<PodCertificateRequest>,
}

impl Attempt {
    pub(super) async fn run(self) -> Outcome {
        match self.decide().await {
            Ok(Decision::Issue { entry, key }) => self.issue(entry, &key).await,
            Ok(Decision::Deny(answer)) => {
                let status = answer::denied(&answer, clock::now());
                match self.write(status).await {
                    Ok(true) => Outcome::Denied(answer),
                    Ok(false) => Outcome::Settled,
                    Err(error) => Outcome::Failed(error),
                }
            }
            Ok(Decision::Wait(answer)) => Outcome::Waits(answer),
            Err(error) => Outcome::Failed(error),
        }
    }

    async fn decide(&self) -> Result<Decision, CallError> {
        let spec = &self.request.spec;
        let namespace = self.namespace();
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

    async fn issue(&self, entry: Arc<Entry>, key: &RequestedKey) -> Outcome {
        let Some(authority) = &self.signer.authority else {
            let message = format!(
                "the authority of trust domain {} is not ready; see kubectl describe trustdomain {}",
                self.signer.trust_domain, self.signer.object
            );
            return Outcome::Waits(Answer::new("AuthorityNotReady", message));
        };
        let started = Instant::now();
        let ttl = self.signer.ttl;
        let spec = &self.request.spec;
        let signed = answer::sign(authority, spec, &entry, key, ttl, clock::now());
        self.context.metrics.signed(started.elapsed());
        let signed = match signed {
            Ok(signed) => signed,
            Err(answer) => return Outcome::Waits(answer),
        };
        let until = signed.not_after;
        match self.write(signed.status).await {
            Ok(true) => Outcome::Issued { entry, until },
            Ok(false) => Outcome::Settled,
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Writes the answer; false when there is nothing to answer any more.
    async fn write(&self, status: answer::Status) -> Result<bool, CallError> {
        let name = self.request.metadata.name.as_deref().unwrap_or_default();
        let requests = Api::<PodCertificateRequest>::namespaced_with(
            self.context.client.clone(),
            self.namespace(),
            &self.resource,
        );
        let answered = PodCertificateRequest {
            status: Some(status),
            ..PodCertificateRequest::clone(&self.request)
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

    fn namespace(&self) -> &str {
        self.request
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
    }
}

/// Whether a request has its final answer.
pub(super) fn is_answered(request: &PodCertificateRequest) -> bool {
    let conditions = request
        .status
        .iter()
        .filter_map(|status| status.conditions.as_ref());
    conditions
        .flatten()
        .any(|c| matches!(c.type_.as_str(), "Issued" | "Denied" | "Failed"))
}
