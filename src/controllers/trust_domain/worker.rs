//! The loop of one TrustDomain: when to reconcile, and what outlives a reconcile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::api::{TrustDomain, TrustDomainSpec};
use crate::authority::Authority;
use crate::clusters::cache::Cache;
use crate::clusters::certificates_api::ClusterTrustBundle;
use crate::clusters::pod_certificates::{Signer, SignerRunner};
use crate::controllers::trust_domain::authority::AuthorityKeeper;
use crate::controllers::trust_domain::reconcile::Reconciliation;
use crate::controllers::trust_domain::rights::Rights;
use crate::controllers::trust_domain::server::ServerRunner;
use crate::controllers::trust_domain::upstream::UpstreamRunner;
use crate::domains::{DomainSettings, cluster_trust_bundle_name};
use crate::runtime::backoff::Backoff;
use crate::runtime::context::Context;
use crate::runtime::leader::until_lost;
use crate::spiffe::Fingerprint;
use crate::store::{Caches, LastGoodStore};

/// Changes that come within this time are worked on together.
const COALESCE: Duration = Duration::from_millis(50);
/// A reconcile comes after this time even when nothing is known to have changed. SPIRE looks at its
/// CA every 10 s.
const PERIOD: Duration = Duration::from_secs(10);

/// One TrustDomain object.
pub(super) struct Worker {
    pub(super) context: Context,
    pub(super) shared: Caches,
    /// Name of the object.
    pub(super) name: String,
    pub(super) last_good: LastGoodStore,
    /// The last spec that could be parsed, and what came of it.
    pub(super) settings: Option<(TrustDomainSpec, Arc<DomainSettings>)>,
    /// The spec that was last kept as good.
    pub(super) kept: Option<TrustDomainSpec>,
    pub(super) authority: AuthorityKeeper,
    pub(super) rights: Rights,
    /// The ClusterTrustBundle of the current signer name.
    pub(super) cluster_trust_bundle: Option<Watched<ClusterTrustBundle>>,
    /// Signer name and root of the CA that was last seen in that signer's ClusterTrustBundle.
    pub(super) published: Option<(String, Fingerprint)>,
    /// The authority that served at the last reconcile.
    pub(super) serving: Option<Arc<Authority>>,
    /// The copies of the bundle.
    pub(super) config_maps: Option<Watched<ConfigMap>>,
    /// Whether the copies could not be listed when that was last tried.
    pub(super) copies_are_hidden: bool,
    /// Whether this process led at the last reconcile.
    pub(super) led: bool,
    signer: SignerRunner,
    pub(super) server: ServerRunner,
    pub(super) upstream: UpstreamRunner,
}

/// A cache and what it watches.
pub(super) struct Watched<K> {
    pub(super) key: String,
    pub(super) cache: Cache<K>,
    /// What changed since the reconcile before: also what changed during it.
    changes: watch::Receiver<u64>,
}

/// What of a TrustDomain counts as news.
#[derive(PartialEq)]
struct News {
    uid: Option<String>,
    generation: Option<i64>,
    annotations: Option<BTreeMap<String, String>>,
    is_being_deleted: bool,
    has_status: bool,
    operator_namespace: Option<String>,
}

impl News {
    fn of(object: &TrustDomain) -> Self {
        let TrustDomain {
            metadata, status, ..
        } = object;
        Self {
            uid: metadata.uid.clone(),
            generation: metadata.generation,
            annotations: metadata.annotations.clone(),
            is_being_deleted: metadata.deletion_timestamp.is_some(),
            has_status: status.is_some(),
            operator_namespace: status.as_ref().and_then(|it| it.operator_namespace.clone()),
        }
    }
}

impl Worker {
    pub(super) fn new(context: Context, name: String) -> Self {
        let last_good = LastGoodStore::new(context.client.clone(), &context.namespace);
        let authority = AuthorityKeeper::new(context.client.clone(), &context.namespace, &name);
        Self {
            shared: context.caches.clone(),
            context,
            name,
            last_good,
            settings: None,
            kept: None,
            authority,
            rights: Rights::default(),
            cluster_trust_bundle: None,
            published: None,
            serving: None,
            config_maps: None,
            copies_are_hidden: false,
            led: false,
            signer: SignerRunner::default(),
            server: ServerRunner::default(),
            upstream: UpstreamRunner::default(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let shared = self.shared.clone();
        let mut trust_domains = self.shared.trust_domains.changes();
        let mut secrets = self.shared.secrets.changes();
        let mut leadership = self.context.leadership.clone();
        let mut certificates_api = self.context.certificates_api.clone();
        let mut namespaces = self.context.identities.namespaces_changed();
        loop {
            let started = Instant::now();
            let mut seen = Some(news(&shared));
            let outcome = tokio::select! {
                outcome = self.reconcile() => outcome,
                // Whoever leads now completes what is begun, as after a crash.
                () = until_lost(&leadership) => continue,
            };
            let failure = match outcome {
                Ok(outcome @ (Reconciliation::Settled | Reconciliation::Outdated)) => {
                    seen = seen.filter(|_| outcome == Reconciliation::Settled);
                    backoff.forget(&());
                    None
                }
                Ok(Reconciliation::Again) => {
                    sleep(COALESCE).await;
                    continue;
                }
                Err(error) => {
                    let name = &self.name;
                    let chain = crate::error_chain(&error);
                    tracing::warn!(trust_domain = name, error = chain, "reconcile failed");
                    backoff.failed(());
                    Some(error.reason())
                }
            };
            self.context
                .metrics
                .reconciled("TrustDomain", started.elapsed(), failure);
            let has_copies = self.config_maps.is_some();
            tokio::select! {
                () = next_news(&shared, &mut trust_domains, seen.as_ref()) => {}
                _ = secrets.changed() => {}
                _ = leadership.changed() => {}
                _ = certificates_api.changed() => {}
                () = self.server.changed() => {}
                () = self.upstream.changed() => {}
                () = next_change(self.cluster_trust_bundle.as_mut()) => {}
                () = next_change(self.config_maps.as_mut()) => {}
                _ = namespaces.changed(), if has_copies => {}
                () = backoff.next_due() => {}
                () = sleep_until(started + PERIOD) => {}
            }
            sleep(COALESCE).await;
        }
    }

    pub(super) fn leads(&self) -> bool {
        *self.context.leadership.borrow()
    }

    /// Runs the signer with what is known now, or ends it.
    pub(super) fn sign_with(
        &mut self,
        settings: &DomainSettings,
        authority: Option<Arc<Authority>>,
    ) {
        let signer = Signer {
            object: self.name.clone(),
            trust_domain: settings.trust_domain.clone(),
            signer_name: settings.signer_name.clone(),
            ttl: settings.pod_certificate_ttl,
            authority,
        };
        self.context.signers.set(&self.name, Some(signer.clone()));
        let api = self.context.certificates_api.borrow().clone();
        let resource = api.and_then(|api| api.pod_certificate_requests);
        self.signer.run(&self.context, signer, resource);
    }

    /// Serves nobody any more: another TrustDomain has the better claim.
    pub(super) fn stop_serving(&mut self) {
        self.signer.stop();
        self.context.signers.set(&self.name, None);
        self.server.stop();
        self.upstream.stop();
        self.published = None;
        self.serving = None;
        self.cluster_trust_bundle = None;
        self.config_maps = None;
        self.context.identities.remove_domain(&self.name);
    }

    /// Watches what the settings say is published.
    pub(super) fn watch_published(&mut self, settings: &DomainSettings) {
        let client = &self.context.client;
        let metrics = &self.context.metrics;
        let api = self.context.certificates_api.borrow().clone();
        let bundle = api
            .and_then(|api| api.cluster_trust_bundles)
            .map(|resource| {
                (
                    format!("{} {}", resource.api_version, settings.signer_name),
                    resource,
                )
            });
        rewatch(&mut self.cluster_trust_bundle, bundle, |resource| {
            let bundles = Api::<ClusterTrustBundle>::all_with(client.clone(), &resource);
            let name = cluster_trust_bundle_name(&settings.signer_name);
            let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let watch = watcher::watcher(bundles, config);
            Cache::start(watch, "ClusterTrustBundle", Arc::clone(metrics))
        });
        let copies = settings
            .bundle_config_maps
            .as_ref()
            .map(|copies| (copies.name.clone(), ()));
        let name = copies
            .as_ref()
            .map(|(name, ())| name.clone())
            .unwrap_or_default();
        rewatch(&mut self.config_maps, copies, |()| {
            let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let watch = watcher::watcher(Api::<ConfigMap>::all(client.clone()), config);
            Cache::start(watch, "ConfigMap", Arc::clone(metrics))
        });
    }

    /// All TrustDomains by name.
    pub(super) fn all(&self) -> BTreeMap<String, Arc<TrustDomain>> {
        let objects = self.shared.trust_domains.all().into_iter();
        objects
            .map(|it| (it.metadata.name.clone().unwrap_or_default(), it))
            .collect()
    }
}

/// Starts, keeps or ends a watch so that it watches what `wanted` says.
fn rewatch<K, T>(
    watched: &mut Option<Watched<K>>,
    wanted: Option<(String, T)>,
    start: impl FnOnce(T) -> Cache<K>,
) {
    match wanted {
        None => *watched = None,
        Some((key, _)) if watched.as_ref().is_some_and(|current| current.key == key) => {}
        Some((key, target)) => {
            let cache = start(target);
            let changes = cache.changes();
            *watched = Some(Watched {
                key,
                cache,
                changes,
            });
        }
    }
}

/// Waits until the TrustDomains differ from those `seen` by more than their statuses; where none
/// are given, until any changes.
async fn next_news(
    shared: &Caches,
    changes: &mut watch::Receiver<u64>,
    seen: Option<&BTreeMap<String, News>>,
) {
    while changes.changed().await.is_ok() {
        if seen.is_none_or(|seen| news(shared) != *seen) {
            return;
        }
    }
}

/// What of all TrustDomains counts for the work on one. The statuses that workers write do not, or
/// each would wake all others.
fn news(shared: &Caches) -> BTreeMap<String, News> {
    let objects = shared.trust_domains.all().into_iter();
    objects
        .map(|it| (it.metadata.name.clone().unwrap_or_default(), News::of(&it)))
        .collect()
}

async fn next_change<K>(watched: Option<&mut Watched<K>>) {
    if let Some(watched) = watched
        && watched.changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
