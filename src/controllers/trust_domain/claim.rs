//! Who may serve a TrustDomain: of several objects that clash the oldest, of several operators the
//! one that wrote its namespace into the object first.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{Resource, ResourceExt};

use crate::api::{TrustDomain, TrustDomainStatus};
use crate::controllers::trust_domain::reconcile::{ReconcileError, Reconciliation};
use crate::controllers::trust_domain::worker::Worker;
use crate::domains::{Claim, Conflict, conflicts, default_signer_name};
use crate::runtime::events::Severity;
use crate::spiffe::TrustDomainName;

/// Whether an older TrustDomain has the better claim to what the one with `name` wants.
pub(super) fn conflict(
    objects: &BTreeMap<String, Arc<TrustDomain>>,
    name: &str,
) -> Option<Conflict> {
    conflicts(objects.values().filter_map(|object| claim_of(object))).remove(name)
}

impl Worker {
    /// The namespace of the other operator that serves the object.
    pub(super) fn other_holder<'a>(&self, object: &'a TrustDomain) -> Option<&'a str> {
        let holder = object.status.as_ref()?.operator_namespace.as_deref()?;
        (holder != self.context.namespace).then_some(holder)
    }

    /// Says that the operator in the namespace `holder` serves the object.
    pub(super) fn stand_back(&self, object: &TrustDomain, holder: &str) {
        let note = format!(
            "the operator in namespace {holder} serves this trust domain; the one in {} stands \
             back; if the other one is gone for good, move its Secrets and let go: kubectl patch \
             trustdomain {} --subresource=status --type=merge -p \
             '{{\"status\":{{\"operatorNamespace\":null}}}}'",
            self.context.namespace, self.name
        );
        self.context.recorder.publish(
            object.object_ref(&()),
            Severity::Warning,
            "ServedByAnotherOperator",
            "Claim",
            &note,
        );
    }

    /// Whether some operator has claimed the object.
    pub(super) fn is_claimed(object: &TrustDomain) -> bool {
        let status = object.status.as_ref();
        status.is_some_and(|status| status.operator_namespace.is_some())
    }

    /// Claims an object that no operator serves yet. The write fails if another one is faster.
    pub(super) async fn claim(
        &self,
        object: &TrustDomain,
    ) -> Result<Reconciliation, ReconcileError> {
        let operator_namespace = Some(self.context.namespace.clone());
        let status = TrustDomainStatus {
            operator_namespace,
            ..object.status.clone().unwrap_or_default()
        };
        self.write_status(object, status).await
    }
}

/// A spec that cannot be served claims what it names, too: its last good one may be in force.
fn claim_of(object: &TrustDomain) -> Option<Claim> {
    let spec = &object.spec;
    let trust_domain: TrustDomainName = spec.trust_domain.parse().ok()?;
    let signer_name = spec.pod_certificates.signer_name.clone();
    Some(Claim {
        object: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        created: object.creation_timestamp().map(|time| time.0),
        is_served: Worker::is_claimed(object),
        signer_name: signer_name.unwrap_or_else(|| default_signer_name(&trust_domain)),
        trust_domain: trust_domain.to_string(),
        class_name: spec.class_name.clone().unwrap_or_default(),
        watch_classless: spec.watch_classless,
        server_port: spec.server.as_ref().map(|server| server.port),
    })
}
