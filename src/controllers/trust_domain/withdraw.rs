//! Taking away what a TrustDomain published under names that it has no more. The status remembers
//! the names; what is somebody else's stays.

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

/// Removes what `before` names and `settings` do not.
///
/// # Errors
/// With the first failure; one copy that cannot be removed keeps no other.
pub(super) async fn withdraw(
    client: &Client,
    cluster_trust_bundles: Option<&ApiResource>,
    before: &TrustDomainStatus,
    settings: &DomainSettings,
    owner: &OwnerReference,
) -> Result<(), CallError> {
    if let (Some(name), Some(resource)) = (&before.cluster_trust_bundle, cluster_trust_bundles)
        && *name != cluster_trust_bundle_name(&settings.signer_name)
    {
        let bundles = Api::<ClusterTrustBundle>::all_with(client.clone(), resource);
        if let Some(bundle) = call(bundles.get_opt(name)).await?
            && ownership(bundle.meta(), owner) == Ownership::Ours
        {
            remove(&bundles, &bundle).await?;
        }
    }
    let current = settings
        .bundle_config_maps
        .as_ref()
        .map(|copies| &copies.name);
    let Some(name) = before
        .bundle_config_map
        .as_ref()
        .filter(|name| Some(*name) != current)
    else {
        return Ok(());
    };
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    let copies = match call(Api::<ConfigMap>::all(client.clone()).list(&named)).await {
        // The right to that name was taken away again.
        Err(error) if error.is_forbidden() => return Ok(()),
        copies => copies?,
    };
    let mut outcome = Ok(());
    for copy in copies {
        let namespace = copy.metadata.namespace.clone().unwrap_or_default();
        if ownership(copy.meta(), owner) == Ownership::Ours {
            let copies = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
            outcome = outcome.and(remove(&copies, &copy).await);
        }
    }
    outcome
}
