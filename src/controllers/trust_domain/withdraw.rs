//! Taking away what a TrustDomain published under names that it has no more, once what takes its
//! place is there. The status remembers the names; what is somebody else's stays.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ApiResource, ListParams};
use kube::{Client, Resource};

use crate::api::TrustDomainStatus;
use crate::clusters::certificates_api::ClusterTrustBundle;
use crate::clusters::{CallError, call};
use crate::controllers::trust_domain::publish::remove;
use crate::controllers::trust_domain::published::{Ownership, ownership};
use crate::domains::{DomainSettings, cluster_trust_bundle_name};

/// Removes the ClusterTrustBundle that `before` names and `settings` do not.
pub(super) async fn withdraw_bundle(
    client: &Client,
    resource: &ApiResource,
    before: &TrustDomainStatus,
    settings: &DomainSettings,
    owner: &OwnerReference,
) -> Result<(), CallError> {
    let current = cluster_trust_bundle_name(&settings.signer_name);
    let old = before.cluster_trust_bundle.as_ref();
    let Some(name) = old.filter(|name| **name != current) else {
        return Ok(());
    };
    let bundles = Api::<ClusterTrustBundle>::all_with(client.clone(), resource);
    match call(bundles.get_opt(name)).await? {
        Some(bundle) if ownership(bundle.meta(), owner) == Ownership::Ours => {
            remove(&bundles, &bundle).await
        }
        _ => Ok(()),
    }
}

/// Removes the copies that `before` names and `settings` do not, but for those in the namespaces
/// `keep`. Says whether none is left.
pub(super) async fn withdraw_copies(
    client: &Client,
    before: &TrustDomainStatus,
    settings: &DomainSettings,
    owner: &OwnerReference,
    keep: &BTreeSet<&str>,
) -> Result<bool, CallError> {
    let current = settings
        .bundle_config_maps
        .as_ref()
        .map(|copies| &copies.name);
    let old = before.bundle_config_map.as_ref();
    let Some(name) = old.filter(|name| Some(*name) != current) else {
        return Ok(true);
    };
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    let copies = match call(Api::<ConfigMap>::all(client.clone()).list(&named)).await {
        // The right to that name was taken away again.
        Err(error) if error.is_forbidden() => return Ok(true),
        copies => copies?,
    };
    let mut outcome = Ok(true);
    for copy in copies {
        let namespace = copy.metadata.namespace.clone().unwrap_or_default();
        if ownership(copy.meta(), owner) == Ownership::Foreign {
            continue;
        }
        if keep.contains(&*namespace) {
            outcome = outcome.map(|_| false);
            continue;
        }
        let copies = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
        if let Err(error) = remove(&copies, &copy).await {
            outcome = outcome.and(Err(error));
        }
    }
    outcome
}
