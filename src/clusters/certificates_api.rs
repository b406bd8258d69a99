//! Which version of `certificates.k8s.io` a cluster serves, and its two kinds in one Rust type each.
//!
//! `v1beta1` comes first wherever it is served: the `pkixPublicKey` of older kubelets cannot be
//! seen through `v1` (`k8s-openapi`'s `v1beta1` types hold every field of both versions).

use std::time::Duration;

use k8s_openapi::api::certificates::v1beta1::{
    ClusterTrustBundleSpec, PodCertificateRequestSpec, PodCertificateRequestStatus,
};
use kube::Client;
use kube::api::ApiResource;
use kube::core::{NotUsed, Object};
use tokio::sync::watch;

use crate::clusters::{CallError, call};
use crate::runtime::backoff::Backoff;

/// How often an API server is asked what it serves.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);

const GROUP: &str = "certificates.k8s.io";
/// Versions in the order of preference.
const VERSIONS: [&str; 2] = ["v1beta1", "v1"];

/// A pod's request for a certificate.
pub type PodCertificateRequest = Object<PodCertificateRequestSpec, PodCertificateRequestStatus>;
/// A set of root certificates that pods can mount.
pub type ClusterTrustBundle = Object<ClusterTrustBundleSpec, NotUsed>;

/// What a cluster serves of the group; none where it lacks the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificatesApi {
    /// PodCertificateRequests.
    pub pod_certificate_requests: Option<ApiResource>,
    /// ClusterTrustBundles.
    pub cluster_trust_bundles: Option<ApiResource>,
}

impl CertificatesApi {
    /// Asks the API server.
    ///
    /// # Errors
    /// When it cannot be asked; that a version is not served is no error.
    pub async fn discover(client: &Client) -> Result<Self, CallError> {
        let mut api = Self::default();
        for version in VERSIONS {
            let group_version = format!("{GROUP}/{version}");
            let resources = match call(client.list_api_group_resources(&group_version)).await {
                Ok(list) => list.resources,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            let find = |kind: &str, plural: &str| {
                resources
                    .iter()
                    .any(|resource| resource.name == plural)
                    .then(|| ApiResource {
                        group: GROUP.into(),
                        version: version.into(),
                        api_version: group_version.clone(),
                        kind: kind.into(),
                        plural: plural.into(),
                    })
            };
            api.pod_certificate_requests = api
                .pod_certificate_requests
                .or_else(|| find("PodCertificateRequest", "podcertificaterequests"));
            api.cluster_trust_bundles = api
                .cluster_trust_bundles
                .or_else(|| find("ClusterTrustBundle", "clustertrustbundles"));
        }
        Ok(api)
    }
}

/// Keeps `found` current, for ever: an API server may be upgraded.
pub async fn keep_discovering(client: Client, found: watch::Sender<Option<CertificatesApi>>) {
    let mut backoff = Backoff::default();
    loop {
        match CertificatesApi::discover(&client).await {
            Ok(api) => {
                backoff.forget(&());
                found.send_if_modified(|old| {
                    let changed = old.as_ref() != Some(&api);
                    *old = Some(api);
                    changed
                });
            }
            Err(error) => {
                let error = crate::error_chain(&error);
                tracing::warn!(error, "cannot ask the API server what it serves");
                backoff.failed(());
            }
        }
        tokio::select! {
            () = backoff.next_due() => {}
            () = tokio::time::sleep(DISCOVERY_PERIOD) => {}
        }
    }
}
