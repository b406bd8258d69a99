//! NestedClusters: one worker each, so that one that is down never holds up another.
//!
//! Every replica watches every nested cluster and serves its pods and agents; the leader reports
//! ([`status`]), tells stock SPIRE servers of the cluster ([`wire`], by what [`parents`] decides), and
//! takes away what is left when the object goes ([`remove`]). What the object asks for is parsed by
//! [`settings`].

mod own_secret;
mod parents;
mod remove;
mod settings;
mod status;
mod wire;
mod worker;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::api::NestedCluster;
use crate::clusters::cache::Cache;
use crate::controllers::nested_cluster::settings::{name_of, name_taken};
use crate::controllers::nested_cluster::worker::Worker;
use crate::nested::AllowedNames;
use crate::registration::bounds::{ClusterBounds, DeclaredBy, NestedScope};
use crate::runtime::backoff::Backoff;
use crate::runtime::context::Context;
use crate::runtime::health::Health;

/// What readiness waits for.
const NESTED_CLUSTERS: &str = "NestedClusters";

/// Starts a worker for every NestedCluster, now and later.
pub fn start(context: &Context, health: &Health, tasks: &mut JoinSet<()>) {
    health.expect(NESTED_CLUSTERS);
    tasks.spawn(supervise(context.clone(), health.clone()));
}

async fn supervise(context: Context, health: Health) {
    let objects: Api<DeserializeGuard<NestedCluster>> = Api::all(context.client.clone());
    let objects = Arc::new(Cache::start_guarded(
        watcher::watcher(objects, watcher::Config::default()),
        "NestedCluster",
        Arc::clone(&context.metrics),
    ));
    let mut changes = objects.changes();
    let mut trust_domains = context.caches.trust_domains.changes();
    let mut workers: BTreeMap<String, Supervised> = BTreeMap::new();
    loop {
        // Which names trust domains give their own clusters counts from the beginning.
        if objects.is_complete() && context.caches.trust_domains.is_complete() {
            let current: BTreeMap<_, _> = objects
                .all()
                .iter()
                .map(|object| (object.name_any(), Supervised::uid_of(object)))
                .collect();
            let is_gone =
                |name: &String, worker: &Supervised| current.get(name) != Some(&worker.uid);
            let gone = workers.extract_if(.., |name, worker| is_gone(name, worker));
            for (_, worker) in gone.collect::<Vec<_>>() {
                worker.end(&context).await;
            }
            for object in objects.all() {
                workers
                    .entry(object.name_any())
                    .or_insert_with(|| Supervised::start(&context, &objects, &object));
            }
            context.identities.nested_clusters_listed();
            health.done(NESTED_CLUSTERS);
        }
        let starting = !context.caches.trust_domains.is_complete();
        tokio::select! {
            news = changes.changed() => if news.is_err() { return },
            news = trust_domains.changed(), if starting => if news.is_err() { return },
        }
    }
}

/// The worker of one NestedCluster.
struct Supervised {
    uid: String,
    /// TrustDomain object and name of the cluster, neither of which can change.
    domain: String,
    cluster: String,
    work: AbortOnDropHandle<()>,
}

impl Supervised {
    fn uid_of(object: &NestedCluster) -> String {
        object.uid().unwrap_or_default()
    }

    /// From now on the cluster's agents are told to wait until the cluster has been seen.
    fn start(
        context: &Context,
        objects: &Arc<Cache<NestedCluster>>,
        object: &NestedCluster,
    ) -> Self {
        let domain = object.spec.trust_domain_ref.name.clone();
        let cluster = name_of(object);
        let all = objects.all();
        let spec = context.caches.trust_domains.get("", &domain);
        let taken = name_taken(object, spec.as_deref(), all.iter().map(AsRef::as_ref));
        if taken.is_none() {
            let none_yet = NestedScope {
                bounds: ClusterBounds::new(&cluster, AllowedNames::default()),
                declared_by: DeclaredBy::Parent,
            };
            // Fails where the trust domain's spec is broken, which its own status says.
            let uid = Self::uid_of(object);
            let _ = context.identities.nest(&domain, &uid, &none_yet);
        }
        let work = work(context.clone(), Arc::clone(objects), object.name_any());
        Self {
            uid: Self::uid_of(object),
            domain,
            cluster,
            work: AbortOnDropHandle::new(tokio::spawn(work)),
        }
    }

    async fn end(self, context: &Context) {
        let Self {
            uid,
            domain,
            cluster,
            work,
        } = self;
        work.abort();
        // Only once it has ended does it not serve the cluster again.
        let _ = work.await;
        context.attesting.remove(&domain, &cluster, &uid);
        context.identities.unnest(&domain, &cluster, &uid);
    }
}

/// Works on the NestedCluster `name`. A worker that breaks off, which is a bug, is replaced, and
/// holds up no other.
async fn work(context: Context, objects: Arc<Cache<NestedCluster>>, name: String) {
    let mut backoff = Backoff::default();
    loop {
        let worker = Worker::new(context.clone(), Arc::clone(&objects), name.clone());
        // Nothing of the worker is looked at again.
        let _ = AssertUnwindSafe(Box::pin(worker.run()))
            .catch_unwind()
            .await;
        tracing::error!(
            nested_cluster = name,
            "a worker broke off; starting another"
        );
        backoff.failed(());
        backoff.next_due().await;
    }
}
