//! One reconcile of a TrustDomain: a table of contents.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::{Api, PostParams};
use kube::{Resource, ResourceExt};

use crate::api::{TrustDomain, TrustDomainSpec, TrustDomainStatus};
use crate::authority::{AuthorityId, Done, Step};
use crate::clusters::{CallError, call};
use crate::controllers::trust_domain::authority::KeepError;
use crate::controllers::trust_domain::claim::conflict;
use crate::controllers::trust_domain::published::{labels, owner_reference};
use crate::controllers::trust_domain::status::{self, Seen};
use crate::controllers::trust_domain::worker::Worker;
use crate::domains::{DomainSettings, SettingsError};
use crate::registration;
use crate::runtime::clock;
use crate::runtime::events::Severity;
use crate::spiffe::BundleError;

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reconciliation {
    /// There is more to do at once.
    Again,
    /// Somebody wrote the object at the same time: there is more to do once that is seen.
    Outdated,
    /// Nothing to do until something changes.
    Settled,
}

/// Why a reconcile must be tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    #[error("the bundle cannot be made")]
    Bundle { source: BundleError },
    #[error("cannot look after the authority")]
    Keep { source: KeepError },
    #[error("cannot read or keep the last good spec")]
    LastGood { source: CallError },
    #[error("a part of the bundle could not be published; the status says which")]
    Publish,
    #[error("cannot ask for the operator's rights")]
    Rights { source: CallError },
    #[error("the registry refuses the spec")]
    Settings { source: registration::SettingsError },
    #[error("cannot write the status")]
    Status { source: CallError },
    #[error("cannot remove expired agents and join tokens")]
    Sweep { source: CallError },
}

impl ReconcileError {
    /// CamelCase reason for metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Bundle { .. } => "Bundle",
            Self::Keep { .. } => "Authority",
            Self::LastGood { .. } => "LastGood",
            Self::Publish => "Publish",
            Self::Rights { .. } => "Rights",
            Self::Settings { .. } => "Settings",
            Self::Status { .. } => "Status",
            Self::Sweep { .. } => "Sweep",
        }
    }
}

impl Worker {
    pub(super) async fn reconcile(&mut self) -> Result<Reconciliation, ReconcileError> {
        let objects = self.all();
        let Some(object) = objects.get(&self.name).cloned() else {
            return Ok(Reconciliation::Settled);
        };
        if !self.shared.secrets.is_complete() || self.context.certificates_api.borrow().is_none() {
            return Ok(Reconciliation::Settled);
        }
        // What belongs to it is being taken away, and must not come back.
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(Reconciliation::Settled);
        }
        if self.leads() && object.status.is_none() {
            return self
                .write_status(&object, status::first(&object, clock::now()))
                .await;
        }
        if let Some(holder) = self.other_holder(&object) {
            self.stop_serving();
            self.stand_back(&object, holder);
            return Ok(Reconciliation::Settled);
        }
        let spec_problem = self.parse(&object.spec).err();
        if spec_problem.is_some() && self.settings.is_none() {
            self.restore_good_spec(&object).await?;
        }
        let kept = self.keep_good_spec(&object).await;
        let outcome = self.reconcile_with(&objects, &object, spec_problem).await;
        // Neither waits for the other: who is banned must be disarmed also where nothing else works,
        // and what is kept for a restart holds up nothing that is needed now.
        let swept = self.sweep(&object).await;
        let outcome = outcome?;
        kept.and(swept).map(|()| outcome)
    }

    /// Serves the spec in force, if there is one and nobody has a better claim.
    async fn reconcile_with(
        &mut self,
        objects: &BTreeMap<String, Arc<TrustDomain>>,
        object: &TrustDomain,
        spec_problem: Option<SettingsError>,
    ) -> Result<Reconciliation, ReconcileError> {
        let Some((_, settings)) = &self.settings else {
            self.stop_serving();
            let problem = spec_problem.map_or_else(String::new, |problem| problem.to_string());
            return self
                .write_status(object, status::invalid(object, &problem, clock::now()))
                .await;
        };
        let settings = Arc::clone(settings);
        if let Some(conflict) = conflict(objects, &self.name) {
            self.stop_serving();
            return self
                .write_status(object, status::conflicting(object, &conflict, clock::now()))
                .await;
        }
        if !Self::is_claimed(object) {
            self.stop_serving();
            return self.claim(object).await;
        }
        if let Some((spec, _)) = &self.settings {
            self.context
                .identities
                .set_domain(&self.name, spec)
                .map_err(|source| ReconcileError::Settings { source })?;
        }
        self.watch_published(&settings);
        let mut seen = Seen::new(spec_problem);
        let outcome = self.serve(object, &settings, &mut seen).await;
        self.describe_identities(&settings, &mut seen);
        if self.leads() {
            let now = clock::now();
            let desired = match &outcome {
                Ok(_) => status::serving(object, &settings, &seen, now),
                Err(error) => status::failing(object, &crate::error_chain(error), now),
            };
            let written = self.write_status(object, desired).await?;
            if outcome.is_ok() && written == Reconciliation::Outdated {
                return Ok(written);
            }
        }
        match outcome {
            Ok(Reconciliation::Settled) if seen.is_unfinished() => Err(ReconcileError::Publish),
            outcome => outcome,
        }
    }

    /// Parses the spec. One that cannot be served leaves the last good one in force.
    fn parse(&mut self, spec: &TrustDomainSpec) -> Result<(), SettingsError> {
        if self.settings.as_ref().is_some_and(|(good, _)| good == spec) {
            return Ok(());
        }
        let settings = DomainSettings::parse(spec)?;
        self.settings = Some((spec.clone(), Arc::new(settings)));
        Ok(())
    }

    /// Puts the last good spec of before this process in force.
    async fn restore_good_spec(&mut self, object: &TrustDomain) -> Result<(), ReconcileError> {
        let uid = object.uid().unwrap_or_default();
        let kept = self
            .last_good
            .load::<TrustDomain, TrustDomainSpec>(&self.name, &uid)
            .await
            .map_err(|source| ReconcileError::LastGood { source })?;
        self.settings = kept.and_then(|spec| {
            let settings = DomainSettings::parse(&spec).ok()?;
            Some((spec, Arc::new(settings)))
        });
        Ok(())
    }

    /// Keeps the spec in force for a restart, also when the object has a broken one by now.
    async fn keep_good_spec(&mut self, object: &TrustDomain) -> Result<(), ReconcileError> {
        let Some((spec, _)) = self.settings.as_ref().filter(|_| self.leads()) else {
            return Ok(());
        };
        if self.kept.as_ref() == Some(spec) {
            return Ok(());
        }
        let owner = owner_reference(object);
        self.last_good
            .save(object, spec, labels(&self.name), owner)
            .await
            .map_err(|source| ReconcileError::LastGood { source })?;
        self.kept = Some(spec.clone());
        Ok(())
    }

    /// Writes `status` if it is news and this process leads.
    pub(super) async fn write_status(
        &self,
        object: &TrustDomain,
        status: TrustDomainStatus,
    ) -> Result<Reconciliation, ReconcileError> {
        if !self.leads() || object.status.as_ref() == Some(&status) {
            return Ok(Reconciliation::Settled);
        }
        let objects = Api::<TrustDomain>::all(self.context.client.clone());
        let mut object = object.clone();
        object.metadata.managed_fields = None;
        object.status = Some(status);
        match call(objects.replace_status(&self.name, &PostParams::default(), &object)).await {
            // The object that the write makes comes back as news.
            Ok(_) => Ok(Reconciliation::Settled),
            Err(error) if error.is_conflict() => Ok(Reconciliation::Outdated),
            Err(error) if error.is_not_found() => Ok(Reconciliation::Settled),
            Err(source) => Err(ReconcileError::Status { source }),
        }
    }

    fn describe_identities(&self, settings: &DomainSettings, seen: &mut Seen) {
        seen.entries = self.context.identities.entry_count(&self.name);
        let (ca, bundle) = seen.expiry();
        self.context
            .metrics
            .set_expiry(settings.trust_domain.as_str(), ca, bundle);
    }

    pub(super) fn tell_steps(&self, object: &TrustDomain, done: &[Done]) {
        let told = done.iter().filter_map(|done| match done {
            Done::Ca(step) => ca_event(step),
            Done::JwtKey { id, step } => jwt_key_event(id, step),
            Done::Pruned(count) => {
                let note =
                    format!("{count} authorities of others have expired and leave the bundle");
                Some(("AppendedPruned", note))
            }
        });
        for (reason, note) in told {
            tracing::info!(
                trust_domain = self.name,
                reason,
                note,
                "authority went forward"
            );
            let reference = object.object_ref(&());
            self.context
                .recorder
                .publish(reference, Severity::Normal, reason, "Rotate", &note);
        }
    }
}

/// The reason and note of the event of a step, if it has one.
fn ca_event(step: &Step) -> Option<(&'static str, String)> {
    Some(match step {
        Step::Activate { fingerprint } => {
            ("CAActivated", format!("CA {fingerprint} signs from now on"))
        }
        Step::ConfirmPublished { .. } => return None,
        Step::Discard { fingerprint } => (
            "CADiscarded",
            format!("CA {fingerprint} never signed and is not needed"),
        ),
        Step::Generate => ("CAPrepared", "a new CA is prepared".to_owned()),
        Step::Import { fingerprint } => ("CAPrepared", format!("CA {fingerprint} is prepared")),
        Step::Prune { fingerprint } => (
            "CAPruned",
            format!("CA {fingerprint} has expired and leaves the bundle"),
        ),
    })
}

fn jwt_key_event(id: &AuthorityId, step: &Step) -> Option<(&'static str, String)> {
    Some(match step {
        Step::Activate { .. } => ("JWTKeyActivated", format!("JWT key {id} signs from now on")),
        Step::ConfirmPublished { .. } | Step::Import { .. } => return None,
        Step::Discard { .. } => (
            "JWTKeyDiscarded",
            format!("JWT key {id} never signed and is not needed"),
        ),
        Step::Generate => ("JWTKeyPrepared", format!("JWT key {id} is prepared")),
        Step::Prune { .. } => (
            "JWTKeyPruned",
            format!("JWT key {id} has expired and leaves the bundle"),
        ),
    })
}
