//! Answers to a PodCertificateRequest as the API wants them, and whom events are about.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1beta1::{
    PodCertificateRequestSpec, PodCertificateRequestStatus,
};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::authority::{Authority, MIN_LIFETIME, SvidRequest, pod_certificate_times};
use crate::clusters::certificates_api::PodCertificateRequest;
use crate::clusters::pod_certificates::decide::Answer;
use crate::registration::{Entry, Source};
use crate::spiffe::RequestedKey;

/// Status of a request.
pub(super) type Status = PodCertificateRequestStatus;

/// What kube-apiserver fills in where a pod says nothing.
const DEFAULT_MAX_EXPIRATION_SECONDS: u32 = 86_400;

/// A status with a certificate.
pub(super) struct Signed {
    pub(super) status: Status,
    pub(super) not_after: Timestamp,
}

/// Signs for `entry`. The lifetime is the entry's or else `ttl`, at least an hour, and at most what
/// the pod allows and the CA has left.
///
/// # Errors
/// What keeps the request waiting.
pub(super) fn sign(
    authority: &Authority,
    spec: &PodCertificateRequestSpec,
    entry: &Entry,
    key: &RequestedKey,
    ttl: Duration,
    now: Timestamp,
) -> Result<Signed, Answer> {
    let ca = authority.ca();
    let ttl = SignedDuration::try_from(entry.x509_ttl.unwrap_or(ttl)).unwrap_or(MIN_LIFETIME);
    let max_expiration_seconds = spec
        .max_expiration_seconds
        .and_then(|seconds| u32::try_from(seconds).ok())
        .unwrap_or(DEFAULT_MAX_EXPIRATION_SECONDS);
    let times = pod_certificate_times(
        now,
        ttl.max(MIN_LIFETIME),
        max_expiration_seconds,
        ca.not_after(),
    )
    .map_err(|error| Answer::new("LifetimeTooShort", error.to_string()))?;
    let svid = ca
        .sign(&SvidRequest {
            id: &entry.spiffe_id,
            dns_names: &entry.dns_names,
            public_key: key.public_key(),
            not_before: times.not_before,
            not_after: times.not_after,
        })
        .map_err(|error| Answer::new("SigningFailed", crate::error_chain(&error)))?;
    let message = format!("X.509-SVID {}", entry.spiffe_id);
    let status = Status {
        conditions: Some(vec![condition("Issued", "Issued", &message, now)]),
        certificate_chain: Some(svid.to_pem()),
        not_before: Some(Time(times.not_before)),
        begin_refresh_at: Some(Time(times.begin_refresh_at)),
        not_after: Some(Time(times.not_after)),
    };
    Ok(Signed {
        status,
        not_after: times.not_after,
    })
}

/// A status that says no for ever.
pub(super) fn denied(answer: &Answer, now: Timestamp) -> Status {
    Status {
        conditions: Some(vec![condition(
            "Denied",
            answer.reason,
            &answer.message,
            now,
        )]),
        ..Status::default()
    }
}

/// The pod that a request is for.
pub(super) fn pod_reference(request: &PodCertificateRequest) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: request.metadata.namespace.clone(),
        name: Some(request.spec.pod_name.clone()),
        uid: Some(request.spec.pod_uid.clone()),
        ..ObjectReference::default()
    }
}

/// The object that an entry comes from.
pub(super) fn source_reference(source: &Source) -> ObjectReference {
    ObjectReference {
        api_version: Some("spire.spiffe.io/v1alpha1".into()),
        kind: Some(source.kind.as_str().into()),
        name: Some(source.name.to_string()),
        uid: Some(source.uid.to_string()),
        ..ObjectReference::default()
    }
}

fn condition(kind: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    Condition {
        type_: kind.into(),
        status: "True".into(),
        reason: reason.into(),
        message: crate::truncate(message, 32_768).into(),
        last_transition_time: Time(now),
        observed_generation: None,
    }
}
