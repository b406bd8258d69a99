//! A Secret that was made for one NestedCluster goes with it, and not before.
//!
//! The kubeconfig in it is needed to take away what was made in the cluster, also by an operator that
//! starts after the NestedCluster was deleted. Whoever makes the Secret, such as the chart, leaves its
//! deletion to us by an annotation: the NestedCluster becomes its owner, and Kubernetes deletes it once
//! the NestedCluster is gone. A Secret without the annotation is left alone.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::{Api, Resource, ResourceExt};

use crate::api::NestedCluster;
use crate::clusters::call;
use crate::controllers::nested_cluster::worker::{ReconcileError, Worker};

/// On a Secret: name of the NestedCluster with which it goes.
const DELETE_WITH: &str = "spiffe-operator.io/delete-with";

impl Worker {
    /// Makes the Secret with the kubeconfig go with `object`, if it asks for that.
    pub(super) async fn own_secret(&self, object: &NestedCluster) -> Result<(), ReconcileError> {
        let namespace = &self.context.namespace;
        let name = &object.spec.kube_config.secret_ref.name;
        let known = self.context.caches.secrets.get(namespace, name);
        let is_to_do = known.is_some_and(|known| owners(&known.metadata, object).is_some());
        if !is_to_do || !self.leads() {
            return Ok(());
        }
        let secrets = Api::<Secret>::namespaced(self.context.client.clone(), namespace);
        let found = call(secrets.get_opt(name)).await;
        let Some(mut secret) = found.map_err(|source| ReconcileError::Secret { source })? else {
            return Ok(());
        };
        let Some(owners) = owners(&secret.metadata, object) else {
            return Ok(());
        };
        secret.metadata.owner_references = Some(owners);
        match call(secrets.replace(name, &PostParams::default(), &secret)).await {
            Ok(_) => Ok(()),
            // What is there now comes as news.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            Err(source) => Err(ReconcileError::Own { source }),
        }
    }
}

/// The owners that a Secret must have to go with `object`; none if nothing is to be done.
fn owners(secret: &ObjectMeta, object: &NestedCluster) -> Option<Vec<OwnerReference>> {
    let name = object.name_any();
    let asked_for = secret.annotations.as_ref()?.get(DELETE_WITH)?;
    let owner = object.owner_ref(&())?;
    let mut owners = secret.owner_references.clone().unwrap_or_default();
    if *asked_for != name || owners.iter().any(|it| it.uid == owner.uid) {
        return None;
    }
    // One of the same name that is gone.
    owners.retain(|it| it.kind != owner.kind || it.name != name);
    owners.push(owner);
    Some(owners)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(uid: &str) -> NestedCluster {
        serde_json::from_value(json!({
            "apiVersion": "spiffe-operator.io/v1alpha1", "kind": "NestedCluster",
            "metadata": {"name": "child01", "uid": uid},
            "spec": {
                "trustDomainRef": {"name": "example"},
                "kubeConfig": {"secretRef": {"name": "child01.kubeconfig"}},
            },
        }))
        .unwrap()
    }

    fn secret(metadata: Value) -> ObjectMeta {
        serde_json::from_value(metadata).unwrap()
    }

    #[test]
    fn a_secret_goes_with_the_object_that_it_names_and_no_other() {
        let asks = |name: &str| secret(json!({"annotations": {DELETE_WITH: name}}));
        let mut asking = asks("child01");
        let added = owners(&asking, &object("1")).unwrap();
        let [owner] = &*added else {
            panic!("{added:?}");
        };
        assert_eq!((&*owner.kind, &*owner.uid), ("NestedCluster", "1"));
        // Nothing waits for it.
        assert_eq!(owner.block_owner_deletion, None);

        asking.owner_references = Some(added);
        assert_eq!(owners(&asking, &object("1")), None);
        let renewed = owners(&asking, &object("2")).unwrap();
        let uids: Vec<_> = renewed.iter().map(|it| &*it.uid).collect();
        assert_eq!(uids, ["2"]);

        assert_eq!(owners(&asks("child02"), &object("1")), None);
        assert_eq!(owners(&ObjectMeta::default(), &object("1")), None);
    }
}
