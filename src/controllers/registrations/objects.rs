//! One reconcile of a registering object: restore its last good spec, keep a new one, write its
//! status.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use kube::api::{Api, PostParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{
    ClusterSPIFFEID, ClusterSpiffeIdSpec, ClusterSpiffeIdStatus, ClusterStaticEntry,
    ClusterStaticEntrySpec, ClusterStaticEntryStatus,
};
use crate::clusters::identities::{Identities, ObjectName, ObjectReport};
use crate::clusters::{CallError, call};
use crate::controllers::registrations::{status, tell};
use crate::controllers::trust_domain::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::registration::report::InForce;
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
    type Spec: Clone + Serialize + DeserializeOwned;
    type Status: Clone + Debug + PartialEq;

    fn spec(&self) -> &Self::Spec;
    fn status(&self) -> Option<&Self::Status>;
    fn set_status(&mut self, status: Self::Status);
    /// The status of an object that was just seen for the first time; none when it has one.
    fn first_status(&self) -> Option<Self::Status>;
    fn restore(identities: &Identities, object: &Arc<Self>, last_good: Self::Spec);
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
    /// The status written last, and what came back: a foreign schema prunes what it does not know,
    /// which must not be written again and again. As text, because two kinds share this.
    written: Option<(String, String)>,
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
        match report {
            ObjectReport::ClusterSpiffeId(object, report) => {
                let broken = report.error.is_some().then_some(report.in_force);
                let desired = status::of_cluster_spiffe_id(&object, &report, clock::now());
                self.reconcile_object(name, &object, broken, desired).await
            }
            ObjectReport::ClusterStaticEntry(object, report) => {
                let broken = report.error.is_some().then_some(report.in_force);
                let desired = status::of_cluster_static_entry(&object, &report, clock::now());
                self.reconcile_object(name, &object, broken, desired).await
            }
        }
    }

    /// `broken` says which spec is in force in place of one that cannot be evaluated.
    async fn reconcile_object<K: Registering>(
        &mut self,
        name: &ObjectName,
        object: &Arc<K>,
        broken: Option<InForce>,
        desired: K::Status,
    ) -> Result<(), CallError> {
        match broken {
            Some(InForce::Nothing) => {
                let uid = object.uid().unwrap_or_default();
                let kept = self.last_good.load::<K, K::Spec>(&name.name, &uid).await?;
                if let Some(spec) = kept {
                    K::restore(&self.context.identities, object, spec);
                    // The report that follows from it comes by itself.
                    return Ok(());
                }
            }
            Some(_) => {}
            None => self.keep(name, &**object).await?,
        }
        self.write_status(name, object, desired).await
    }

    /// Keeps the spec as the last good one.
    async fn keep<K: Registering>(
        &mut self,
        name: &ObjectName,
        object: &K,
    ) -> Result<(), CallError> {
        let now = (object.uid().unwrap_or_default(), object.meta().generation);
        let memory = self.memory.entry(name.clone()).or_default();
        if memory.kept.as_ref() == Some(&now) || !*self.context.leadership.borrow() {
            return Ok(());
        }
        let Some(owner) = object.owner_ref(&()) else {
            return Ok(());
        };
        let labels = BTreeMap::from([(MANAGED_BY_LABEL.into(), MANAGED_BY.into())]);
        self.last_good
            .save(object, object.spec(), labels, owner)
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
        let wanted = format!("{:?}", Some(&desired));
        let settled =
            current == wanted || memory.written.as_ref() == Some(&(wanted.clone(), current));
        if settled || !*self.context.leadership.borrow() {
            return Ok(());
        }
        let objects = Api::<K>::all(self.context.client.clone());
        let mut object = K::clone(object);
        object.meta_mut().managed_fields = None;
        let parameters = PostParams::default();
        if let Some(first) = object.first_status() {
            object.set_status(first);
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

impl Registering for ClusterSPIFFEID {
    type Spec = ClusterSpiffeIdSpec;
    type Status = ClusterSpiffeIdStatus;

    fn spec(&self) -> &Self::Spec {
        &self.spec
    }

    fn status(&self) -> Option<&Self::Status> {
        self.status.as_ref()
    }

    fn set_status(&mut self, status: Self::Status) {
        self.status = Some(status);
    }

    fn first_status(&self) -> Option<Self::Status> {
        self.status.is_none().then(|| ClusterSpiffeIdStatus {
            conditions: status::first(self.metadata.generation, clock::now()),
            observed_generation: self.metadata.generation,
            ..ClusterSpiffeIdStatus::default()
        })
    }

    fn restore(identities: &Identities, object: &Arc<Self>, last_good: Self::Spec) {
        identities.apply_cluster_spiffe_id(object, Some(last_good));
    }
}

impl Registering for ClusterStaticEntry {
    type Spec = ClusterStaticEntrySpec;
    type Status = ClusterStaticEntryStatus;

    fn spec(&self) -> &Self::Spec {
        &self.spec
    }

    fn status(&self) -> Option<&Self::Status> {
        self.status.as_ref()
    }

    fn set_status(&mut self, status: Self::Status) {
        self.status = Some(status);
    }

    fn first_status(&self) -> Option<Self::Status> {
        self.status.is_none().then(|| ClusterStaticEntryStatus {
            conditions: status::first(self.metadata.generation, clock::now()),
            observed_generation: self.metadata.generation,
            ..ClusterStaticEntryStatus::default()
        })
    }

    fn restore(identities: &Identities, object: &Arc<Self>, last_good: Self::Spec) {
        identities.apply_cluster_static_entry(object, Some(last_good));
    }
}
