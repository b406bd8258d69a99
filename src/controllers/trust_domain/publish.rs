//! Publishing a bundle: what is wanted is brought about, and drift is repaired, never over
//! somebody else's object.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ApiResource, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::TypeMeta;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::BundleConfigMapSettings;
use crate::clusters::certificates_api::ClusterTrustBundle;
use crate::clusters::{CallError, call};
use crate::controllers::trust_domain::published::{
    self, MANAGED_BY, Ownership, adopt, cluster_trust_bundle, ownership,
};
use crate::controllers::trust_domain::worker::Watched;
use crate::domains::{DomainSettings, cluster_trust_bundle_name};
use crate::spiffe::{Bundle, Fingerprint};

/// What became of one published object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is as it should be.
    Published,
    /// An object of that name is somebody else's.
    NotOurs,
    /// The API server refuses it, in its words.
    Refused(String),
}

/// The roots that are in the published ClusterTrustBundle of `settings`; none while it is not
/// known.
pub(super) fn published_roots(
    watched: Option<&Watched<ClusterTrustBundle>>,
    settings: &DomainSettings,
) -> BTreeSet<Fingerprint> {
    let name = cluster_trust_bundle_name(&settings.signer_name);
    watched
        .and_then(|watched| watched.cache.get("", &name))
        .and_then(|object| {
            let pem = object.spec.trust_bundle.as_bytes();
            Bundle::from_pem(settings.trust_domain.clone(), pem).ok()
        })
        .map(|bundle| bundle.fingerprints().collect())
        .unwrap_or_default()
}

/// Brings about the ClusterTrustBundle.
pub(super) async fn publish_cluster_trust_bundle(
    client: &Client,
    resource: &ApiResource,
    settings: &DomainSettings,
    owner: &OwnerReference,
    bundle: &Bundle,
) -> Result<Outcome, CallError> {
    let bundles = Api::<ClusterTrustBundle>::all_with(client.clone(), resource);
    let desired = ClusterTrustBundle {
        types: Some(TypeMeta {
            api_version: resource.api_version.clone(),
            kind: resource.kind.clone(),
        }),
        ..cluster_trust_bundle(settings, owner, bundle)
    };
    bring_about(&bundles, desired, owner, |existing, desired| {
        let drifted = existing.spec.trust_bundle != desired.spec.trust_bundle;
        existing
            .spec
            .trust_bundle
            .clone_from(&desired.spec.trust_bundle);
        drifted
    })
    .await
}

/// Brings about the ConfigMap in every namespace of `wanted`, and takes away ours elsewhere. Gives
/// what became of those that are not as they should be, by namespace.
pub(super) async fn publish_config_maps(
    client: &Client,
    watched: &Watched<ConfigMap>,
    settings: &BundleConfigMapSettings,
    wanted: &BTreeSet<String>,
    owner: &OwnerReference,
    bundle: &Bundle,
) -> Result<Vec<(String, Outcome)>, CallError> {
    let mut troubled = Vec::new();
    for namespace in wanted {
        let config_maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
        let desired =
            published::config_map(&settings.name, namespace, &settings.formats, owner, bundle);
        let known = watched.cache.get(namespace, &settings.name);
        if known.is_some_and(|known| {
            known.data == desired.data && adopt(&known.metadata, &desired.metadata).is_none()
        }) {
            continue;
        }
        let outcome = bring_about(&config_maps, desired, owner, |existing, desired| {
            let drifted = existing.data != desired.data || existing.binary_data.is_some();
            existing.data.clone_from(&desired.data);
            existing.binary_data = None;
            drifted
        })
        .await?;
        if outcome != Outcome::Published {
            troubled.push((namespace.clone(), outcome));
        }
    }
    for stale in watched.cache.all() {
        let namespace = stale.metadata.namespace.clone().unwrap_or_default();
        if wanted.contains(&namespace) || ownership(&stale.metadata, owner) == Ownership::Foreign {
            continue;
        }
        remove(
            &Api::<ConfigMap>::namespaced(client.clone(), &namespace),
            &*stale,
        )
        .await?;
    }
    Ok(troubled)
}

/// Creates `desired`, or corrects what is there by `correct`, which says whether it changed
/// anything.
async fn bring_about<K>(
    api: &Api<K>,
    desired: K,
    owner: &OwnerReference,
    correct: impl FnOnce(&mut K, &K) -> bool,
) -> Result<Outcome, CallError>
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let name = desired.meta().name.clone().unwrap_or_default();
    let existing = match call(api.get_opt(&name)).await {
        Err(error) if error.is_forbidden() => return Ok(Outcome::Refused(error.message())),
        existing => existing?,
    };
    let written = match existing {
        // RBAC knows the name of what is applied, but not of what is posted.
        None => {
            call(api.patch(
                &name,
                &PatchParams::apply(MANAGED_BY),
                &Patch::Apply(desired),
            ))
            .await
        }
        Some(existing) if ownership(existing.meta(), owner) == Ownership::Foreign => {
            return Ok(Outcome::NotOurs);
        }
        Some(mut existing) => {
            let adopted = adopt(existing.meta(), desired.meta());
            let drifted = correct(&mut existing, &desired);
            if adopted.is_none() && !drifted {
                return Ok(Outcome::Published);
            }
            if let Some(metadata) = adopted {
                *existing.meta_mut() = metadata;
            }
            call(api.replace(&name, &PostParams::default(), &existing)).await
        }
    };
    match written {
        Ok(_) => Ok(Outcome::Published),
        Err(error) if error.is_forbidden() || error.is_invalid() || error.is_not_found() => {
            Ok(Outcome::Refused(error.message()))
        }
        Err(error) => Err(error),
    }
}

/// Deletes exactly this object; that it is gone already is as good.
async fn remove<K>(api: &Api<K>, object: &K) -> Result<(), CallError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let metadata = object.meta();
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
        }),
        ..DeleteParams::default()
    };
    match call(api.delete(metadata.name.as_deref().unwrap_or_default(), &parameters)).await {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        other => other.map(|_| ()),
    }
}
