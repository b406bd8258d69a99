//! One reconcile of a registering object: keep its last good spec, write its status.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use kube::api::{Api, PostParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{
    ClusterSPIFFEID, ClusterSpiffeIdSpec, ClusterSpiffeIdStatus, ClusterStaticEntry,
    ClusterStaticEntrySpec, ClusterStaticEntryStatus,
};
use crate::clusters::identities::{LastGood, ObjectName, ObjectReport, Reported};
use crate::clusters::{CallError, call};
use crate::controllers::registrations::{status, tell};
use crate::controllers::trust_domain::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::runtime::clock;
use crate::runtime::context::Context;
use crate::store::LastGoodStore;

/// A kind whose objects declare entries.
trait Registering:
    Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
    type Spec: Serialize;
    type Status: Clone + Debug + PartialEq;

    fn status(&self) -> Option<&Self::Status>;
    fn set_status(&mut self, status: Self::Status);
    fn conditions(status: &mut Self::Status) -> &mut Vec<Condition>;
    /// A status that says nothing but this.
    fn status_of(&self, conditions: Vec<Condition>) -> Self::Status;
}

/// What outlives a reconcile.
pub(super) struct Keeper {
    context: Context,
    last_good: LastGoodStore,
    memory: BTreeMap<ObjectName, Memory>,
}

/// What is remembered of an object.
#[derive(Default)]
struct Memory {
    /// UID and generation whose spec was kept as good.
    kept: Option<(String, Option<i64>)>,
    /// The status written last without its times, and what came back: a foreign schema prunes what
    /// it does not know, which must not be written again and again. As text, because two kinds share
    /// this.
    written: Option<(String, String)>,
    /// UID of the object while it is served.
    served: Option<String>,
}

impl Keeper {
    pub(super) fn new(context: Context) -> Self {
        let last_good = LastGoodStore::new(context.client.clone(), &context.namespace);
        Self {
            context,
            last_good,
            memory: BTreeMap::new(),
        }
    }

    /// The object is gone.
    pub(super) fn forget(&mut self, name: &ObjectName) {
        self.memory.remove(name);
    }

    pub(super) async fn reconcile(
        &mut self,
        name: &ObjectName,
        report: ObjectReport,
    ) -> Result<(), CallError> {
        if self.leads() {
            tell::report(&self.context, &report);
        }
        let now = clock::now();
        match report {
            ObjectReport::ClusterSpiffeId(Reported {
                object,
                last_good,
                report,
            }) => {
                let desired = report.map(|it| status::of_cluster_spiffe_id(&object, &it, now));
                self.reconcile_object(name, &object, last_good, desired)
                    .await
            }
            ObjectReport::ClusterStaticEntry(Reported {
                object,
                last_good,
                report,
            }) => {
                let desired = report.map(|it| status::of_cluster_static_entry(&object, &it, now));
                self.reconcile_object(name, &object, last_good, desired)
                    .await
            }
        }
    }

    /// `desired` is none when the object is not served.
    async fn reconcile_object<K: Registering>(
        &mut self,
        name: &ObjectName,
        object: &Arc<K>,
        last_good: Option<LastGood<K::Spec>>,
        desired: Option<K::Status>,
    ) -> Result<(), CallError> {
        let Some(desired) = desired else {
            return self.leave(name, object).await;
        };
        self.memory.entry(name.clone()).or_default().served = object.uid();
        let kept = match last_good {
            Some(good) => self.keep(name, &**object, &good).await,
            None => Ok(()),
        };
        // Users are told also while the copy cannot be kept.
        self.write_status(name, object, desired).await.and(kept)
    }

    /// Says once of an object that was served that it is not any more. What else its status said is
    /// no longer true; from then on the status is somebody else's.
    async fn leave<K: Registering>(
        &mut self,
        name: &ObjectName,
        object: &Arc<K>,
    ) -> Result<(), CallError> {
        let Some(memory) = self.memory.get_mut(name) else {
            return Ok(());
        };
        let was_served = memory.served.is_some() && memory.served == object.uid();
        let mut status = object.status().cloned();
        let is_said = status
            .as_mut()
            .is_some_and(|status| status::is_not_served(K::conditions(status)));
        if !was_served || is_said {
            memory.served = None;
            return Ok(());
        }
        if !self.leads() {
            return Ok(());
        }
        let conditions = status.as_mut().map(K::conditions);
        let before = conditions.map_or(&[][..], |conditions| conditions.as_slice());
        let conditions = status::not_served(before, object.meta().generation, clock::now());
        self.write_status(name, object, object.status_of(conditions))
            .await?;
        self.memory.remove(name);
        Ok(())
    }

    /// Keeps the spec as the last good one.
    async fn keep<K: Registering>(
        &mut self,
        name: &ObjectName,
        object: &K,
        good: &LastGood<K::Spec>,
    ) -> Result<(), CallError> {
        let now = (object.uid().unwrap_or_default(), good.generation);
        let memory = self.memory.entry(name.clone()).or_default();
        if memory.kept.as_ref() == Some(&now) || !*self.context.leadership.borrow() {
            return Ok(());
        }
        let Some(owner) = object.owner_ref(&()) else {
            return Ok(());
        };
        let labels = BTreeMap::from([(MANAGED_BY_LABEL.into(), MANAGED_BY.into())]);
        self.last_good
            .save(object, &*good.spec, labels, owner)
            .await?;
        memory.kept = Some(now);
        Ok(())
    }

    /// Writes the status where it is news; a new object first gets one that says so (kstatus).
    async fn write_status<K: Registering>(
        &mut self,
        name: &ObjectName,
        object: &Arc<K>,
        desired: K::Status,
    ) -> Result<(), CallError> {
        let memory = self.memory.entry(name.clone()).or_default();
        let current = format!("{:?}", object.status());
        let wanted = untimed::<K>(&desired);
        let settled = object.status() == Some(&desired)
            || memory.written.as_ref() == Some(&(wanted.clone(), current));
        if settled || !*self.context.leadership.borrow() {
            return Ok(());
        }
        let objects = Api::<K>::all(self.context.client.clone());
        let mut object = K::clone(object);
        object.meta_mut().managed_fields = None;
        let parameters = PostParams::default();
        if object.status().is_none() {
            let first = status::first(object.meta().generation, clock::now());
            object.set_status(object.status_of(first));
            let written = call(objects.replace_status(&name.name, &parameters, &object)).await;
            match written {
                Ok(written) => object = written,
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        object.set_status(desired);
        match call(objects.replace_status(&name.name, &parameters, &object)).await {
            Ok(written) => {
                memory.written = Some((wanted, format!("{:?}", written.status())));
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn leads(&self) -> bool {
        *self.context.leadership.borrow()
    }
}

fn untimed<K: Registering>(status: &K::Status) -> String {
    let mut status = status.clone();
    for condition in K::conditions(&mut status) {
        condition.last_transition_time = Time(jiff::Timestamp::UNIX_EPOCH);
    }
    format!("{status:?}")
}

impl Registering for ClusterSPIFFEID {
    type Spec = ClusterSpiffeIdSpec;
    type Status = ClusterSpiffeIdStatus;

    fn status(&self) -> Option<&Self::Status> {
        self.status.as_ref()
    }

    fn set_status(&mut self, status: Self::Status) {
        self.status = Some(status);
    }

    fn conditions(status: &mut Self::Status) -> &mut Vec<Condition> {
        &mut status.conditions
    }

    fn status_of(&self, conditions: Vec<Condition>) -> Self::Status {
        ClusterSpiffeIdStatus {
            conditions,
            observed_generation: self.metadata.generation,
            ..ClusterSpiffeIdStatus::default()
        }
    }
}

impl Registering for ClusterStaticEntry {
    type Spec = ClusterStaticEntrySpec;
    type Status = ClusterStaticEntryStatus;

    fn status(&self) -> Option<&Self::Status> {
        self.status.as_ref()
    }

    fn set_status(&mut self, status: Self::Status) {
        self.status = Some(status);
    }

    fn conditions(status: &mut Self::Status) -> &mut Vec<Condition> {
        &mut status.conditions
    }

    fn status_of(&self, conditions: Vec<Condition>) -> Self::Status {
        ClusterStaticEntryStatus {
            conditions,
            observed_generation: self.metadata.generation,
            ..ClusterStaticEntryStatus::default()
        }
    }
}
