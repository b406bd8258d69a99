//! The end of a NestedCluster: its identities go at once, on every replica; the leader takes away the
//! records of its agents and what was published in the cluster, and then lets the object go.

use std::sync::Arc;

use jiff::SignedDuration;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};

use crate::api::{AttestedAgent, NestedCluster, NestedClusterMode, WiredParent, duration};
use crate::clusters::identities::Identities;
use crate::clusters::incarnation::cluster_uid;
use crate::clusters::nested::withdraw;
use crate::clusters::{CallError, call};
use crate::controllers::nested_cluster::parents::parents;
use crate::controllers::nested_cluster::settings::{ClusterSettings, name_of, wish_of};
use crate::controllers::nested_cluster::worker::{ReconcileError, Worker};
use crate::nested::parent::parent_object_name;
use crate::runtime::clock;
use crate::runtime::events::Severity;

/// Keeps the object until what belongs to it is gone.
const FINALIZER: &str = "spiffe-operator.io/nested-cluster";

impl Worker {
    /// Makes sure that the object cannot go before [`Self::remove`]; whether it is so already.
    pub(super) async fn hold(&self, object: &NestedCluster) -> Result<bool, ReconcileError> {
        let is_held = object.finalizers().iter().any(|it| it == FINALIZER);
        if is_held || !self.leads() {
            return Ok(is_held);
        }
        let mut object = object.clone();
        object.finalizers_mut().push(FINALIZER.into());
        self.replace(&object).await?;
        Ok(false)
    }

    /// Ends the service of an object that is to go, and lets it go.
    pub(super) async fn remove(&mut self, object: &NestedCluster) -> Result<(), ReconcileError> {
        let domain = &object.spec.trust_domain_ref.name;
        let cluster = name_of(object);
        if let Some(connected) = &self.connection {
            self.leaving = Some(connected.connection.context.client.clone());
        }
        self.stand_back(object);
        if !self.leads() || !object.finalizers().iter().any(|it| it == FINALIZER) {
            return Ok(());
        }
        self.own_secret(object).await?;
        // What has the name of another's cluster is the other's.
        let is_served = self.name_taken(object).is_none();
        if is_served {
            self.evict(domain, &cluster).await?;
        }
        let unwired = self.unwire(object).await;
        let withdrawn = if is_served {
            self.withdraw(object).await
        } else {
            Ok(())
        };
        let withdrawn = match (unwired, withdrawn) {
            (Err(unwired), Err(withdrawn)) => Err(format!("{unwired}; {withdrawn}")),
            (unwired, withdrawn) => unwired.and(withdrawn),
        };
        match withdrawn {
            Ok(()) => {}
            Err(problem) if is_over(object) => {
                let left = left(object);
                let note = format!(
                    "left in cluster {cluster}, which could not be cleaned up ({problem}): {left}"
                );
                tracing::warn!(nested_cluster = object.name_any(), note);
                let reference = object.object_ref(&());
                let recorder = &self.context.recorder;
                recorder.publish(
                    reference,
                    Severity::Warning,
                    "CleanupTimedOut",
                    "Remove",
                    &note,
                );
            }
            Err(problem) => return Err(ReconcileError::Withdraw { problem }),
        }
        let mut object = object.clone();
        object.finalizers_mut().retain(|it| it != FINALIZER);
        self.replace(&object).await
    }

    /// Deletes the records of the cluster's agents.
    async fn evict(&self, domain: &str, cluster: &str) -> Result<(), ReconcileError> {
        let records = Api::<AttestedAgent>::all(self.context.client.clone());
        for agent in self.agents(domain, cluster) {
            let deleted = call(records.delete(&agent.name_any(), &DeleteParams::default())).await;
            match deleted {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(source) => return Err(ReconcileError::Agents { source }),
            }
        }
        Ok(())
    }

    /// Takes away what was published in the cluster; what keeps it from that, in words.
    async fn withdraw(&mut self, object: &NestedCluster) -> Result<(), String> {
        let known = object.status.as_ref().and_then(|it| it.cluster_uid.clone());
        let Some(known) = known else {
            // It was never reached.
            return Ok(());
        };
        let client = match &self.leaving {
            Some(client) => client.clone(),
            None => self.client(object).await?,
        };
        self.leaving = Some(client.clone());
        let words = |error: CallError| error.message();
        // Nothing in another cluster is ours.
        if cluster_uid(&client).await.map_err(words)? != known {
            return Ok(());
        }
        let wish = wish_of(&object.spec);
        let has_servers = object.spec.mode == NestedClusterMode::Downstream;
        withdraw(&client, &self.name, wish.as_ref(), has_servers)
            .await
            .map_err(words)
    }

    /// A client of the cluster for an object that was to go before this process.
    async fn client(&mut self, object: &NestedCluster) -> Result<Client, String> {
        let domain = &object.spec.trust_domain_ref.name;
        let domain = self.context.caches.trust_domains.get("", domain);
        let settings =
            ClusterSettings::parse(object, domain.as_deref()).map_err(|error| error.to_string())?;
        // Nobody asks what is seen from now on.
        let nobody = Arc::new(Identities::new(Arc::clone(&self.context.metrics)));
        let connected = self.connect(object, &settings, &nobody).await;
        let problem = connected.map_err(|error| crate::error_chain(&error))?;
        match (problem, self.connection.take()) {
            (None, Some(connected)) => Ok(connected.connection.context.client.clone()),
            (problem, _) => Err(problem.map_or_else(String::new, |problem| problem.message)),
        }
    }

    async fn replace(&self, object: &NestedCluster) -> Result<(), ReconcileError> {
        let objects = Api::<NestedCluster>::all(self.context.client.clone());
        match call(objects.replace(&self.name, &PostParams::default(), object)).await {
            Ok(_) => Ok(()),
            // What is there now comes as news.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            Err(source) => Err(ReconcileError::Write { source }),
        }
    }
}

/// Whether the cluster was waited for long enough.
fn is_over(object: &NestedCluster) -> bool {
    let Some(since) = &object.metadata.deletion_timestamp else {
        return false;
    };
    let patience = duration::parse(&object.spec.cleanup_timeout).unwrap_or_default();
    let patience = SignedDuration::try_from(patience).unwrap_or(SignedDuration::MAX);
    clock::now().duration_since(since.0) >= patience
}

/// What a cluster, and servers that were told of it, may still have of us.
fn left(object: &NestedCluster) -> String {
    let bundles = "ClusterTrustBundles with the label spiffe-operator.io/nested-cluster";
    let mut left = vec![bundles.to_owned()];
    if let Some(copy) = wish_of(&object.spec) {
        left.push(format!("ConfigMap {}/{}", copy.namespace, copy.name));
    }
    for (WiredParent { namespace, name }, _) in parents(object) {
        let name = parent_object_name(&name);
        left.push(format!(
            "here its keys in ConfigMap and Secret {namespace}/{name}"
        ));
    }
    left.join(", ")
}
