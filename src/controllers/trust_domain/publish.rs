//! Publishing a bundle: what is wanted is brought about, and drift is repaired, never over
//! somebody else's object.
//!
//! A write in place of an object carries the `resourceVersion` that was read, so that of two writers
//! one wins; the ClusterTrustBundle never goes back to an earlier edition of its lineage.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ApiResource, DeleteParams, PostParams, Preconditions};
use kube::core::TypeMeta;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::authority::Edition;
use crate::clusters::certificates_api::ClusterTrustBundle;
use crate::clusters::{CallError, call};
use crate::controllers::trust_domain::published::{
    Ownership, adopt, cluster_trust_bundle, edition, ownership,
};
use crate::controllers::trust_domain::worker::Watched;
use crate::domains::{DomainSettings, cluster_trust_bundle_name};
use crate::spiffe::{Bundle, Fingerprint};

/// What became of one published object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is as it should be.
    Published,
    /// It holds the bundle of this later sequence number of the same lineage, and is left so.
    Ahead(u64),
    /// It could not be read or written this time.
    Failed(String),
    /// RBAC does not allow it, in the API server's words.
    Forbidden(String),
    /// An object of that name is somebody else's.
    NotOurs,
    /// The API server refuses it for another reason, in its words.
    Refused(String),
}

impl From<CallError> for Outcome {
    fn from(error: CallError) -> Self {
        let words = error.message();
        if error.lacks_right() {
            Self::Forbidden(words)
        } else if error.is_forbidden() || error.is_invalid() {
            Self::Refused(words)
        } else {
            Self::Failed(words)
        }
    }
}

/// The roots that are in the published ClusterTrustBundle of `settings`; none while it is not
/// known.
pub(super) fn published_roots(
    watched: &Watched<ClusterTrustBundle>,
    settings: &DomainSettings,
) -> BTreeSet<Fingerprint> {
    let name = cluster_trust_bundle_name(&settings.signer_name);
    watched
        .cache
        .get("", &name)
        .and_then(|object| {
            let pem = object.spec.trust_bundle.as_bytes();
            Bundle::from_pem(settings.trust_domain.clone(), pem).ok()
        })
        .map(|bundle| bundle.fingerprints().collect())
        .unwrap_or_default()
}

/// The later edition that `published` holds: it is ours, and has roots that `bundle`, of the edition
/// `own`, lacks. Annotations alone make nothing later, for they can be edited by mistake.
pub(super) fn later_edition(
    published: &ClusterTrustBundle,
    owner: &OwnerReference,
    own: &Edition,
    bundle: &Bundle,
) -> Option<Edition> {
    if ownership(&published.metadata, owner) == Ownership::Foreign {
        return None;
    }
    let edition = edition(&published.metadata).filter(|edition| !own.may_replace(edition))?;
    let pem = published.spec.trust_bundle.as_bytes();
    let roots = Bundle::from_pem(bundle.trust_domain().clone(), pem).ok()?;
    let own: BTreeSet<_> = bundle.fingerprints().collect();
    let has_more = roots.fingerprints().any(|root| !own.contains(&root));
    has_more.then_some(edition)
}

/// What is to be published, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Publication<'a> {
    pub(super) client: &'a Client,
    pub(super) owner: &'a OwnerReference,
    pub(super) bundle: &'a Bundle,
    pub(super) edition: &'a Edition,
}

impl Publication<'_> {
    /// Brings about the ClusterTrustBundle.
    pub(super) async fn cluster_trust_bundle(
        &self,
        resource: &ApiResource,
        watched: Option<&Watched<ClusterTrustBundle>>,
        settings: &DomainSettings,
    ) -> Outcome {
        let bundles = Api::<ClusterTrustBundle>::all_with(self.client.clone(), resource);
        let desired = ClusterTrustBundle {
            types: Some(TypeMeta {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
            }),
            ..cluster_trust_bundle(settings, self.owner, self.bundle, self.edition)
        };
        let name = desired.metadata.name.as_deref().unwrap_or_default();
        let known = watched.and_then(|watched| watched.cache.get("", name));
        if known.is_some_and(|known| {
            known.spec == desired.spec && adopt(&known.metadata, &desired.metadata).is_none()
        }) {
            return Outcome::Published;
        }
        match self.bring_about_bundle(&bundles, &desired).await {
            // Somebody else wrote at the same time: what is there now decides.
            Err(error) if error.is_conflict() => {
                let again = self.bring_about_bundle(&bundles, &desired).await;
                again.unwrap_or_else(Outcome::from)
            }
            outcome => outcome.unwrap_or_else(Outcome::from),
        }
    }

    async fn bring_about_bundle(
        &self,
        bundles: &Api<ClusterTrustBundle>,
        desired: &ClusterTrustBundle,
    ) -> Result<Outcome, CallError> {
        let name = desired.metadata.name.as_deref().unwrap_or_default();
        let Some(existing) = call(bundles.get_opt(name)).await? else {
            call(bundles.create(&PostParams::default(), desired)).await?;
            return Ok(Outcome::Published);
        };
        if let Some(later) = later_edition(&existing, self.owner, self.edition, self.bundle) {
            return Ok(Outcome::Ahead(later.sequence));
        }
        self.correct(bundles, existing, desired, |existing| {
            let drifted = existing.spec.trust_bundle != desired.spec.trust_bundle;
            existing
                .spec
                .trust_bundle
                .clone_from(&desired.spec.trust_bundle);
            drifted
        })
        .await
    }

    /// Corrects what is there by `correct`, which says whether it changed anything.
    pub(super) async fn correct<K>(
        &self,
        api: &Api<K>,
        mut existing: K,
        desired: &K,
        correct: impl FnOnce(&mut K) -> bool,
    ) -> Result<Outcome, CallError>
    where
        K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        if ownership(existing.meta(), self.owner) == Ownership::Foreign {
            return Ok(Outcome::NotOurs);
        }
        let adopted = adopt(existing.meta(), desired.meta());
        let drifted = correct(&mut existing);
        if adopted.is_none() && !drifted {
            return Ok(Outcome::Published);
        }
        if let Some(metadata) = adopted {
            *existing.meta_mut() = metadata;
        }
        let name = existing.meta().name.clone().unwrap_or_default();
        call(api.replace(&name, &PostParams::default(), &existing)).await?;
        Ok(Outcome::Published)
    }
}

/// Deletes exactly this object; that it is gone already is as good.
pub(super) async fn remove<K>(api: &Api<K>, object: &K) -> Result<(), CallError>
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
