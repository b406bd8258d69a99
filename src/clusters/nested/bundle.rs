//! The trust domain's bundle in a nested cluster, and the signer of its pods' certificates.
//!
//! The leader publishes; every replica watches what is there, and signs once the root that its CA is
//! under is in the cluster's ClusterTrustBundle. What is published is applied without force, so that
//! nothing of anybody else is overwritten; drift comes back by the watches and is repaired.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundleSpec;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ApiResource, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams};
use kube::core::TypeMeta;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::api::{BundleFormat, NestedBundleConfigMap};
use crate::clusters::cache::Cache;
use crate::clusters::certificates_api::{CertificatesApi, ClusterTrustBundle};
use crate::clusters::pod_certificates::{Signer, SignerRunner};
use crate::clusters::{CallError, call};
use crate::domains::{cluster_trust_bundle_labels, cluster_trust_bundle_name, label_value};
use crate::runtime::context::Context;
use crate::spiffe::{Bundle, Fingerprint};

/// Who applies what is published.
const FIELD_MANAGER: &str = "spiffe-operator-nested";
/// Label with the name of the NestedCluster that something was published for.
const OWNER_LABEL: &str = "spiffe-operator.io/nested-cluster";
/// What could not be published is tried again after this time.
const RETRY: Duration = Duration::from_secs(5);

/// What is to be published in a nested cluster besides the ClusterTrustBundle.
pub type Wish = Option<NestedBundleConfigMap>;

/// What became of the bundle in a nested cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The signer name, where the cluster has ClusterTrustBundles.
    pub signer_name: Option<String>,
    /// Why the bundle, or a part of it, is not there; none when all is.
    pub problem: Option<String>,
    /// Whether the trust domain has a bundle.
    pub has_bundle: bool,
}

/// Publishes as `owner`, and signs, until dropped.
pub(super) async fn serve(
    context: Context,
    owner: String,
    mut signer: watch::Receiver<Option<Signer>>,
    mut wish: watch::Receiver<Wish>,
    told: watch::Sender<Published>,
) {
    let mut runner = SignerRunner::default();
    let mut watched = Watched::default();
    let mut api = context.certificates_api.clone();
    let mut leadership = context.leadership.clone();
    loop {
        let signer_now = signer.borrow_and_update().clone();
        let wish_now = wish.borrow_and_update().clone();
        let Some(api_now) = api.borrow_and_update().clone() else {
            if api.changed().await.is_err() {
                return;
            }
            continue;
        };
        let resource = api_now.cluster_trust_bundles.as_ref();
        if let Some(signer) = &signer_now {
            watched.watch(&context, resource, signer, wish_now.as_ref());
        }
        let changed = watched.changed();
        let mut published = Published::default();
        match signer_now {
            Some(signer) => {
                let authority = signer.authority.clone();
                if let Some(authority) = &authority {
                    published = publish(
                        &context,
                        &watched,
                        &owner,
                        resource,
                        &signer,
                        authority.bundle(),
                        wish_now.as_ref(),
                    )
                    .await;
                }
                let root = authority.map(|it| Fingerprint::of(it.ca().certificates().root()));
                let may_sign = resource.is_none()
                    || root.is_some_and(|root| watched.roots(&signer).contains(&root));
                let signer = Signer {
                    authority: signer.authority.filter(|_| may_sign),
                    ..signer
                };
                runner.run(&context, signer, api_now.pod_certificate_requests);
            }
            None => runner.stop(),
        }
        let failed = published.problem.is_some();
        told.send_if_modified(|old| {
            let changed = *old != published;
            *old = published;
            changed
        });
        tokio::select! {
            changed = signer.changed() => if changed.is_err() { return },
            changed = wish.changed() => if changed.is_err() { return },
            _ = api.changed() => {}
            _ = leadership.changed() => {}
            () = changed => {}
            () = sleep(RETRY), if failed => {}
        }
    }
}

/// Removes what was published for the NestedCluster `name` in the cluster that `client` reaches. Where
/// it `has_servers`, there was no ClusterTrustBundle.
///
/// # Errors
/// When the cluster does not answer, or refuses.
pub async fn withdraw(
    client: &Client,
    name: &str,
    wish: Option<&NestedBundleConfigMap>,
    has_servers: bool,
) -> Result<(), CallError> {
    let api = if has_servers {
        CertificatesApi::default()
    } else {
        CertificatesApi::discover(client).await?
    };
    if let Some(resource) = &api.cluster_trust_bundles {
        let bundles = Api::<ClusterTrustBundle>::all_with(client.clone(), resource);
        let owned = ListParams::default().labels(&format!("{OWNER_LABEL}={}", label_value(name)));
        for found in call(bundles.list(&owned)).await? {
            let name = found.metadata.name.unwrap_or_default();
            let deleted = call(bundles.delete(&name, &DeleteParams::default())).await;
            deleted.map(|_| ()).or_else(gone_is_good)?;
        }
    }
    if let Some(wish) = wish {
        let copies = Api::<ConfigMap>::namespaced(client.clone(), &wish.namespace);
        if let Some(found) = call(copies.get_opt(&wish.name)).await?
            && is_applied(&found.metadata)
            && is_of(&found.metadata, name)
        {
            let deleted = call(copies.delete(&wish.name, &DeleteParams::default())).await;
            deleted.map(|_| ()).or_else(gone_is_good)?;
        }
    }
    Ok(())
}

fn gone_is_good(error: CallError) -> Result<(), CallError> {
    if error.is_not_found() {
        Ok(())
    } else {
        Err(error)
    }
}

/// Whether an object was published for the NestedCluster `name`.
fn is_of(metadata: &ObjectMeta, name: &str) -> bool {
    let labels = metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(OWNER_LABEL)) == Some(&label_value(name))
}

/// Whether nobody but the operator has written an object, going by its managed fields.
fn is_applied(metadata: &ObjectMeta) -> bool {
    let mut managers = metadata.managed_fields.iter().flatten();
    managers.all(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

/// What is watched of that which is published.
#[derive(Default)]
struct Watched {
    bundles: Option<(String, Cache<ClusterTrustBundle>)>,
    copies: Option<(String, Cache<ConfigMap>)>,
}

impl Watched {
    fn watch(
        &mut self,
        context: &Context,
        resource: Option<&ApiResource>,
        signer: &Signer,
        wish: Option<&NestedBundleConfigMap>,
    ) {
        let name = cluster_trust_bundle_name(&signer.signer_name);
        let key = resource.map(|resource| format!("{} {name}", resource.api_version));
        if self.bundles.as_ref().map(|(key, _)| key) != key.as_ref() {
            self.bundles = resource.zip(key).map(|(resource, key)| {
                let all = Api::<ClusterTrustBundle>::all_with(context.client.clone(), resource);
                let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
                let metrics = Arc::clone(&context.metrics);
                (
                    key,
                    Cache::start(watcher(all, config), "ClusterTrustBundle", metrics),
                )
            });
        }
        let key = wish.map(|wish| format!("{}/{}", wish.namespace, wish.name));
        if self.copies.as_ref().map(|(key, _)| key) != key.as_ref() {
            self.copies = wish.zip(key).map(|(wish, key)| {
                let all = Api::<ConfigMap>::namespaced(context.client.clone(), &wish.namespace);
                let named = format!("metadata.name={}", wish.name);
                let config = watcher::Config::default().fields(&named);
                let metrics = Arc::clone(&context.metrics);
                (
                    key,
                    Cache::start(watcher(all, config), "ConfigMap", metrics),
                )
            });
        }
    }

    /// Waits until something changes that was not there at this call.
    fn changed(&self) -> impl Future<Output = ()> + use<> {
        let bundles = self.bundles.as_ref().map(|(_, cache)| cache.changes());
        let copies = self.copies.as_ref().map(|(_, cache)| cache.changes());
        async move {
            tokio::select! {
                () = next(bundles) => {}
                () = next(copies) => {}
            }
        }
    }

    /// The roots that pods find.
    fn roots(&self, signer: &Signer) -> Vec<Fingerprint> {
        let name = cluster_trust_bundle_name(&signer.signer_name);
        let found = self
            .bundles
            .as_ref()
            .and_then(|(_, cache)| cache.get("", &name));
        let bundle = found.and_then(|found| {
            let pem = found.spec.trust_bundle.as_bytes();
            Bundle::from_pem(signer.trust_domain.clone(), pem).ok()
        });
        bundle
            .map(|bundle| bundle.fingerprints().collect())
            .unwrap_or_default()
    }
}

async fn next(changes: Option<watch::Receiver<u64>>) {
    if let Some(mut changes) = changes
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Brings about what is wished, as the leader; otherwise only looks.
async fn publish(
    context: &Context,
    watched: &Watched,
    owner: &str,
    resource: Option<&ApiResource>,
    signer: &Signer,
    bundle: &Bundle,
    wish: Option<&NestedBundleConfigMap>,
) -> Published {
    let mut problems = Vec::new();
    if let (Some(resource), Some((_, cache))) = (resource, &watched.bundles) {
        let desired = cluster_trust_bundle(owner, resource, signer, bundle);
        let name = cluster_trust_bundle_name(&signer.signer_name);
        let found = cache.get("", &name);
        if !found.is_some_and(|found| is_as_desired(&found, &desired)) {
            let api = Api::<ClusterTrustBundle>::all_with(context.client.clone(), resource);
            problems.extend(apply(context, cache.is_complete(), &api, &name, &desired).await);
        }
    }
    if let (Some(wish), Some((_, cache))) = (wish, &watched.copies) {
        let desired = config_map(owner, wish, bundle);
        let found = cache.get(&wish.namespace, &wish.name);
        let holds = |found: Arc<ConfigMap>| {
            let (found, desired) = (found.data.as_ref(), desired.data.as_ref());
            let mut desired = desired.into_iter().flatten();
            desired.all(|(key, value)| found.and_then(|found| found.get(key)) == Some(value))
        };
        if !found.is_some_and(holds) {
            let api = Api::<ConfigMap>::namespaced(context.client.clone(), &wish.namespace);
            problems.extend(apply(context, cache.is_complete(), &api, &wish.name, &desired).await);
        }
    }
    Published {
        signer_name: resource.map(|_| signer.signer_name.clone()),
        problem: (!problems.is_empty()).then(|| problems.join("; ")),
        has_bundle: true,
    }
}

/// Applies an object that is not as it should be; what stands in the way.
async fn apply<K>(
    context: &Context,
    is_seen: bool,
    api: &Api<K>,
    name: &str,
    desired: &K,
) -> Option<String>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    if !is_seen {
        return Some(format!("{name} has not been looked for yet"));
    }
    if !*context.leadership.borrow() {
        return Some(format!("{name} is not as the leader will make it"));
    }
    let parameters = PatchParams::apply(FIELD_MANAGER);
    match call(api.patch(name, &parameters, &Patch::Apply(desired))).await {
        Ok(_) => None,
        Err(error) => Some(format!("{name}: {}", error.message())),
    }
}

fn cluster_trust_bundle(
    owner: &str,
    resource: &ApiResource,
    signer: &Signer,
    bundle: &Bundle,
) -> ClusterTrustBundle {
    let mut all_labels = labels(owner);
    all_labels.extend(cluster_trust_bundle_labels(&signer.trust_domain));
    ClusterTrustBundle {
        types: Some(TypeMeta {
            api_version: resource.api_version.clone(),
            kind: resource.kind.clone(),
        }),
        metadata: ObjectMeta {
            name: Some(cluster_trust_bundle_name(&signer.signer_name)),
            labels: Some(all_labels),
            ..ObjectMeta::default()
        },
        spec: ClusterTrustBundleSpec {
            signer_name: Some(signer.signer_name.clone()),
            trust_bundle: bundle.to_pem(),
        },
        status: None,
    }
}

/// Whether a ClusterTrustBundle has what pods look for. Further labels are somebody else's.
fn is_as_desired(found: &ClusterTrustBundle, desired: &ClusterTrustBundle) -> bool {
    let labels = found.metadata.labels.clone().unwrap_or_default();
    let mut desired_labels = desired.metadata.labels.iter().flatten();
    found.spec == desired.spec
        && desired_labels.all(|(name, value)| labels.get(name) == Some(value))
}

fn labels(owner: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            "app.kubernetes.io/managed-by".into(),
            "spiffe-operator".into(),
        ),
        (OWNER_LABEL.into(), owner.into()),
    ])
}

fn config_map(owner: &str, wish: &NestedBundleConfigMap, bundle: &Bundle) -> ConfigMap {
    let (key, text) = match wish.format {
        BundleFormat::Jwks => ("bundle.jwks", bundle.to_jwks()),
        BundleFormat::Pem => ("bundle.crt", bundle.to_pem()),
        BundleFormat::Spiffe => ("bundle.spiffe", bundle.to_document()),
    };
    let key = wish.key.as_deref().unwrap_or(key);
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(wish.name.clone()),
            namespace: Some(wish.namespace.clone()),
            labels: Some(labels(owner)),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(key.to_owned(), text)])),
        ..ConfigMap::default()
    }
}
