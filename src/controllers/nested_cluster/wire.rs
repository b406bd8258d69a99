//! Tells stock SPIRE servers of this cluster of a nested cluster: by a ConfigMap and a Secret beside
//! each server, and by nothing else of it.
//!
//! All nested clusters of a server share the two objects. Each has its own keys, and applies them as
//! a field manager of its own, so that none can touch what another one wrote. Only what was made for
//! this purpose, which a label says, is ever written or deleted.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::api::{NestedCluster, SpireParent, WiredParent};
use crate::clusters::nested::Trouble;
use crate::clusters::{CallError, call};
use crate::controllers::nested_cluster::parents::{
    Standing, Step, Wired, agents_of, parents, step,
};
use crate::controllers::nested_cluster::status::Problem;
use crate::controllers::nested_cluster::worker::{Connected, Worker};
use crate::domains::label_value;
use crate::nested::parent::{Wiring, parent_object_name};
use crate::rbac::parent_rights;

/// Marks the objects, with the name of the server.
const PARENT_LABEL: &str = "spiffe-operator.io/parent";
/// Beginning of the name under which a nested cluster's keys are applied.
const FIELD_MANAGER: &str = "spiffe-operator-parent-";
/// What was written is written again after this time, in case somebody changed it.
const REPAIR: Duration = Duration::from_mins(1);
/// What could not be written is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// What was last written for each server, and what came of it.
#[derive(Default)]
pub(super) struct Wires(BTreeMap<WiredParent, Done>);

struct Done {
    wiring: Wiring,
    at: Instant,
    outcome: Result<(), Problem>,
}

impl Worker {
    /// Brings all servers to what `object` wishes, as the leader.
    pub(super) async fn wire(&mut self, object: &NestedCluster) -> Wired {
        let mut wired = Wired::default();
        if !self.leads() {
            self.wires = Wires::default();
            return wired;
        }
        let told = object.status.as_ref().map(|status| status.parents.clone());
        let told = told.unwrap_or_default();
        for (parent, wish) in parents(object) {
            let is_told = told.contains(&parent);
            let step = match wish {
                Some(wish) => self.step(object, wish, is_told),
                None => Step::TakeOut(None),
            };
            let (is_told, problem) = self.carry_out(&parent, step, is_told).await;
            if is_told {
                wired.parents.push(parent.clone());
            }
            wired
                .problems
                .extend(problem.map(|problem| (parent, problem)));
        }
        wired
    }

    /// Takes the cluster out of all servers; what keeps it from that, in words.
    pub(super) async fn unwire(&mut self, object: &NestedCluster) -> Result<(), String> {
        let mut problems = Vec::new();
        for (parent, _) in parents(object) {
            let WiredParent { namespace, name } = &parent;
            if let Err(problem) = self.take_out(&parent).await {
                problems.push(format!(
                    "SPIRE server {namespace}/{name}: {}",
                    problem.message
                ));
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems.join("; "))
        }
    }

    fn step(&self, object: &NestedCluster, wish: &SpireParent, is_told: bool) -> Step {
        match agents_of(object, wish) {
            Ok(agents) => step(standing(self.connection.as_ref()), &agents, is_told),
            Err(problem) => Step::Keep(Some(problem)),
        }
    }

    /// Does what is to be done about one server, which `is_told` of the cluster; whether it is then,
    /// and what is wrong.
    async fn carry_out(
        &mut self,
        parent: &WiredParent,
        step: Step,
        is_told: bool,
    ) -> (bool, Option<Problem>) {
        match step {
            Step::Keep(problem) => (is_told, problem),
            Step::TakeOut(reason) => match self.take_out(parent).await {
                Ok(()) => (false, reason),
                Err(problem) => (is_told, Some(problem)),
            },
            Step::Write(wiring) => match self.tell(parent, wiring).await {
                Ok(()) => (true, None),
                Err(problem) => (is_told, Some(problem)),
            },
        }
    }

    /// Tells a server, unless it was told the same a moment ago.
    async fn tell(&mut self, parent: &WiredParent, wiring: Wiring) -> Result<(), Problem> {
        let now = Instant::now();
        if let Some(done) = self.wires.0.get(parent)
            && done.wiring == wiring
            && now < done.at + done.outcome.as_ref().map_or(RETRY, |()| REPAIR)
        {
            return done.outcome.clone();
        }
        // The credential first: an entry without it would be of no use.
        let outcome = match self.apply::<Secret>(parent, &wiring).await {
            Ok(()) => self.apply::<ConfigMap>(parent, &wiring).await,
            failed => failed,
        };
        let outcome = outcome.map_err(|problem| self.problem(parent, problem));
        let done = Done {
            wiring,
            at: now,
            outcome: outcome.clone(),
        };
        self.wires.0.insert(parent.clone(), done);
        outcome
    }

    async fn take_out(&mut self, parent: &WiredParent) -> Result<(), Problem> {
        self.wires.0.remove(parent);
        // The entry first, so that no server is left with one that has no credential.
        let outcome = match self.withdraw_from::<ConfigMap>(parent).await {
            Ok(()) => self.withdraw_from::<Secret>(parent).await,
            failed => failed,
        };
        outcome.map_err(|error| self.problem(parent, WireError::Call(error)))
    }

    async fn apply<K: Held>(&self, parent: &WiredParent, wiring: &Wiring) -> Result<(), WireError> {
        let objects = self.objects_of::<K>(parent);
        let name = parent_object_name(&parent.name);
        let found = call(objects.get_metadata_opt(&name)).await?;
        if found.is_some_and(|found| !is_ours(&found.metadata)) {
            return Err(WireError::NotOurs { kind: K::KIND });
        }
        let object = K::of(metadata(parent), Some(wiring));
        call(objects.patch(&name, &self.manager(), &Patch::Apply(object))).await?;
        Ok(())
    }

    /// Takes the keys of the cluster out of an object, and deletes it when they were the last.
    async fn withdraw_from<K: Held>(&self, parent: &WiredParent) -> Result<(), CallError> {
        let objects = self.objects_of::<K>(parent);
        let name = parent_object_name(&parent.name);
        let Some(found) = call(objects.get_metadata_opt(&name)).await? else {
            return Ok(());
        };
        if !is_ours(&found.metadata) {
            return Ok(());
        }
        // With the UID nothing is made where it was deleted meanwhile.
        let labelled = ObjectMeta {
            uid: found.metadata.uid,
            ..metadata(parent)
        };
        let bare = ObjectMeta {
            labels: None,
            ..labelled.clone()
        };
        let without = |metadata| Patch::Apply(K::of(metadata, None));
        let left = call(objects.patch(&name, &self.manager(), &without(labelled))).await?;
        if !left.is_empty() {
            // Others keep the label.
            let released = call(objects.patch(&name, &self.manager(), &without(bare))).await;
            return released.map(|_| ()).or_else(gone_is_good);
        }
        let preconditions = Preconditions {
            uid: left.meta().uid.clone(),
            resource_version: left.meta().resource_version.clone(),
        };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let deleted = call(objects.delete(&name, &parameters)).await;
        // What changed meanwhile has keys of others.
        deleted.map(|_| ()).or_else(gone_is_good)
    }

    fn objects_of<K: Held>(&self, parent: &WiredParent) -> Api<K> {
        Api::namespaced(self.context.client.clone(), &parent.namespace)
    }

    fn manager(&self) -> PatchParams {
        PatchParams::apply(&format!("{FIELD_MANAGER}{}", label_value(&self.name)))
    }

    fn problem(&self, parent: &WiredParent, error: WireError) -> Problem {
        let WiredParent { namespace, name } = parent;
        let object = parent_object_name(name);
        let error = match error {
            WireError::NotOurs { kind } => {
                let message = format!(
                    "{kind} {namespace}/{object} is somebody else's: it lacks the label {PARENT_LABEL}"
                );
                return Problem::new("NotOurs", message);
            }
            WireError::Call(error) => error,
        };
        let words = error.message();
        if error.lacks_right() {
            let (role, binding) = parent_rights(namespace, name, &self.context.namespace);
            let manifests = [
                serde_saphyr::to_string(&role),
                serde_saphyr::to_string(&binding),
            ];
            let manifests = manifests.map(Result::unwrap_or_default).join("---\n");
            let message = format!("{words}; apply this:\n{manifests}");
            return Problem::new("Forbidden", message);
        }
        let reason = if error.is_not_found() {
            "NoNamespace"
        } else if error.is_conflict() {
            "Conflict"
        } else {
            "WriteFailed"
        };
        Problem::new(reason, words)
    }
}

/// Why a server was not told.
#[derive(Debug)]
enum WireError {
    /// An object of that name is somebody else's.
    NotOurs { kind: &'static str },
    /// A call failed.
    Call(CallError),
}

impl From<CallError> for WireError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// How far the cluster can be told of, going by the connection to it.
fn standing(connected: Option<&Connected>) -> Standing<'_> {
    let Some(connected) = connected else {
        return Standing::NotReached;
    };
    let contact = connected.connection.contact.borrow();
    match contact.trouble {
        Some(Trouble::OtherCluster { .. }) => Standing::OtherCluster,
        _ if contact.is_made() => Standing::Reached(&connected.kubeconfig),
        _ => Standing::NotReached,
    }
}

fn gone_is_good(error: CallError) -> Result<(), CallError> {
    if error.is_not_found() || error.is_conflict() {
        Ok(())
    } else {
        Err(error)
    }
}

fn is_ours(metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(PARENT_LABEL))
}

fn metadata(parent: &WiredParent) -> ObjectMeta {
    let labels = [
        ("app.kubernetes.io/managed-by", "spiffe-operator".to_owned()),
        (PARENT_LABEL, label_value(&parent.name)),
    ];
    ObjectMeta {
        name: Some(parent_object_name(&parent.name)),
        namespace: Some(parent.namespace.clone()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
        ..ObjectMeta::default()
    }
}

/// An object that holds a part of what a server is told.
trait Held:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
{
    /// What it is called.
    const KIND: &'static str;
    /// The object with the keys that are its part of `wiring`, or with none.
    fn of(metadata: ObjectMeta, wiring: Option<&Wiring>) -> Self;
    /// Whether it has no keys.
    fn is_empty(&self) -> bool;
}

impl Held for ConfigMap {
    const KIND: &'static str = "ConfigMap";

    fn of(metadata: ObjectMeta, wiring: Option<&Wiring>) -> Self {
        Self {
            metadata,
            data: wiring.map(|wiring| wiring.config.clone()),
            ..Self::default()
        }
    }

    fn is_empty(&self) -> bool {
        self.data.as_ref().is_none_or(BTreeMap::is_empty)
    }
}

impl Held for Secret {
    const KIND: &'static str = "Secret";

    fn of(metadata: ObjectMeta, wiring: Option<&Wiring>) -> Self {
        let data = wiring.map(|wiring| {
            let texts = wiring.secret.iter();
            let texts = texts.map(|(name, text)| {
                let bytes = text.expose_secret().as_bytes().to_vec();
                (name.clone(), ByteString(bytes))
            });
            texts.collect()
        });
        Self {
            metadata,
            data,
            ..Self::default()
        }
    }

    fn is_empty(&self) -> bool {
        self.data.as_ref().is_none_or(BTreeMap::is_empty)
    }
}
