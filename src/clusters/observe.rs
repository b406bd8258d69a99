//! The watches of a cluster, into the registries.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::api::{ClusterSPIFFEID, ClusterStaticEntry, RegistrationEntry};
use crate::clusters::identities::Identities;
use crate::clusters::watch::{News, ObjectKey, decoded, follow};
use crate::runtime::clock::now;
use crate::runtime::context::Context;
use crate::runtime::health::Health;

/// What readiness waits for.
const PODS: &str = "pods";
const NAMESPACES: &str = "namespaces";
const NODES: &str = "nodes";
const ENDPOINT_SLICES: &str = "EndpointSlices";
const CLUSTER_SPIFFE_IDS: &str = "ClusterSPIFFEIDs";
const CLUSTER_STATIC_ENTRIES: &str = "ClusterStaticEntries";
const REGISTRATION_ENTRIES: &str = "RegistrationEntries";
/// How often entries are looked at that expire.
const EXPIRY_PERIOD: Duration = Duration::from_secs(1);

/// Starts the watches of a cluster's pods and of what is around them, and the work they cause.
pub fn pods(context: &Context, health: &Health, tasks: &mut JoinSet<()>) {
    [PODS, NAMESPACES, NODES, ENDPOINT_SLICES]
        .into_iter()
        .for_each(|name| health.expect(name));
    let identities = Arc::clone(&context.identities);
    tasks.spawn(async move { identities.process().await });
    tasks.spawn(watch_pods(context.clone(), health.clone()));
    tasks.spawn(namespaces(context.clone(), health.clone()));
    tasks.spawn(nodes(context.clone(), health.clone()));
    tasks.spawn(endpoint_slices(context.clone(), health.clone()));
}

/// Starts the watches of what registers pods, in the operator's own cluster.
pub fn registrations(context: &Context, health: &Health, tasks: &mut JoinSet<()>) {
    [
        CLUSTER_SPIFFE_IDS,
        CLUSTER_STATIC_ENTRIES,
        REGISTRATION_ENTRIES,
    ]
    .into_iter()
    .for_each(|name| health.expect(name));
    tasks.spawn(cluster_spiffe_ids(context.clone(), health.clone()));
    tasks.spawn(cluster_static_entries(context.clone(), health.clone()));
    tasks.spawn(registration_entries(context.clone(), health.clone()));
    tasks.spawn(expire_entries(Arc::clone(&context.identities)));
}

/// Watches all objects of a kind; a list is told, and that it is complete, once it is known to come
/// from the right cluster.
fn watch_all<K>(context: &Context) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let incarnation = context.incarnation.clone();
    let api = Api::<K>::all(context.client.clone());
    watcher(api, watcher::Config::default()).then(move |event| {
        let incarnation = incarnation.clone();
        async move {
            if matches!(event, Ok(Event::Init | Event::InitDone)) {
                incarnation.confirmed().await;
            }
            event
        }
    })
}

/// What was seen in the list under way, if there is one.
struct Listing<T> {
    seen: Option<BTreeSet<T>>,
}

impl<T: Ord> Listing<T> {
    fn new() -> Self {
        Self { seen: None }
    }

    fn start(&mut self) {
        self.seen = Some(BTreeSet::new());
    }

    fn see(&mut self, key: impl FnOnce() -> T) {
        if let Some(seen) = &mut self.seen {
            seen.insert(key());
        }
    }

    fn complete(&mut self) -> BTreeSet<T> {
        self.seen.take().unwrap_or_default()
    }
}

/// Watches pods; starts over with a list when templates come to read more of them.
async fn watch_pods(context: Context, health: Health) {
    let mut fields = context.identities.pod_fields();
    loop {
        fields.borrow_and_update();
        let mut listing = Listing::new();
        let identities = &context.identities;
        let watch = follow(
            watch_all::<Pod>(&context),
            "Pod",
            Arc::clone(&context.metrics),
            |news| match news {
                News::Applied(pod) => {
                    listing.see(|| pod.metadata.uid.clone().unwrap_or_default());
                    identities.apply_pod(&pod);
                }
                News::Deleted(key) => identities.delete_pod(&key.uid),
                News::Undecodable(key) => listing.see(|| key.uid),
                News::ListStarted => listing.start(),
                News::ListCompleted => {
                    identities.retain_pods(&listing.complete());
                    health.done(PODS);
                }
            },
        );
        tokio::select! {
            () = watch => return,
            changed = fields.changed() => if changed.is_err() { return },
        }
    }
}

async fn namespaces(context: Context, health: Health) {
    let identities = &context.identities;
    let mut listing = Listing::new();
    follow(
        watch_all::<Namespace>(&context),
        "Namespace",
        Arc::clone(&context.metrics),
        |news| match news {
            News::Applied(namespace) => {
                listing.see(|| namespace.metadata.name.clone().unwrap_or_default());
                identities.apply_namespace(&namespace);
            }
            News::Deleted(key) => identities.delete_namespace(&key.name),
            News::Undecodable(key) => listing.see(|| key.name),
            News::ListStarted => listing.start(),
            News::ListCompleted => {
                identities.retain_namespaces(&listing.complete());
                health.done(NAMESPACES);
            }
        },
    )
    .await;
}

async fn nodes(context: Context, health: Health) {
    let identities = &context.identities;
    let mut listing = Listing::new();
    follow(
        watch_all::<Node>(&context),
        "Node",
        Arc::clone(&context.metrics),
        |news| match news {
            News::Applied(node) => {
                listing.see(|| node.metadata.name.clone().unwrap_or_default());
                identities.apply_node(&node);
            }
            News::Deleted(key) => identities.delete_node(&key.name),
            News::Undecodable(key) => listing.see(|| key.name),
            News::ListStarted => listing.start(),
            News::ListCompleted => {
                identities.retain_nodes(&listing.complete());
                health.done(NODES);
            }
        },
    )
    .await;
}

async fn endpoint_slices(context: Context, health: Health) {
    let identities = &context.identities;
    let mut listing = Listing::new();
    follow(
        watch_all::<EndpointSlice>(&context),
        "EndpointSlice",
        Arc::clone(&context.metrics),
        |news| match news {
            News::Applied(slice) => {
                let key = ObjectKey::from(&slice.metadata);
                listing.see(|| (key.namespace, key.name));
                identities.apply_endpoint_slice(&slice);
            }
            News::Deleted(key) => identities.delete_endpoint_slice(&key.namespace, &key.name),
            News::Undecodable(key) => listing.see(|| (key.namespace, key.name)),
            News::ListStarted => listing.start(),
            News::ListCompleted => {
                identities.retain_endpoint_slices(&listing.complete());
                health.done(ENDPOINT_SLICES);
            }
        },
    )
    .await;
}

async fn cluster_spiffe_ids(context: Context, health: Health) {
    const KIND: &str = "ClusterSPIFFEID";
    let api = Api::<DeserializeGuard<ClusterSPIFFEID>>::all(context.client.clone());
    let identities = Arc::<Identities>::clone(&context.identities);
    let mut listing = Listing::new();
    let watcher = watcher(api, watcher::Config::default());
    follow(
        watcher,
        KIND,
        Arc::clone(&context.metrics),
        |news| match decoded(KIND, news) {
            News::Applied(object) => {
                listing.see(|| object.metadata.name.clone().unwrap_or_default());
                identities.apply_cluster_spiffe_id(&Arc::new(object));
            }
            News::Deleted(key) => identities.delete_cluster_spiffe_id(&key.name),
            News::Undecodable(key) => listing.see(|| key.name),
            News::ListStarted => listing.start(),
            News::ListCompleted => {
                identities.retain_cluster_spiffe_ids(&listing.complete());
                health.done(CLUSTER_SPIFFE_IDS);
            }
        },
    )
    .await;
}

async fn cluster_static_entries(context: Context, health: Health) {
    const KIND: &str = "ClusterStaticEntry";
    let api = Api::<DeserializeGuard<ClusterStaticEntry>>::all(context.client.clone());
    let identities = Arc::<Identities>::clone(&context.identities);
    let mut listing = Listing::new();
    let watcher = watcher(api, watcher::Config::default());
    follow(
        watcher,
        KIND,
        Arc::clone(&context.metrics),
        |news| match decoded(KIND, news) {
            News::Applied(object) => {
                listing.see(|| object.metadata.name.clone().unwrap_or_default());
                identities.apply_cluster_static_entry(&Arc::new(object));
            }
            News::Deleted(key) => identities.delete_cluster_static_entry(&key.name),
            News::Undecodable(key) => listing.see(|| key.name),
            News::ListStarted => listing.start(),
            News::ListCompleted => {
                identities.retain_cluster_static_entries(&listing.complete());
                health.done(CLUSTER_STATIC_ENTRIES);
            }
        },
    )
    .await;
}

async fn registration_entries(context: Context, health: Health) {
    const KIND: &str = "RegistrationEntry";
    let api = Api::<DeserializeGuard<RegistrationEntry>>::all(context.client.clone());
    let identities = Arc::<Identities>::clone(&context.identities);
    let mut listing = Listing::new();
    let watcher = watcher(api, watcher::Config::default());
    follow(watcher, KIND, Arc::clone(&context.metrics), |news| {
        if let News::Applied(DeserializeGuard(Err(invalid))) = &news {
            identities.skip_registration_entry(invalid.metadata.resource_version.as_deref());
        }
        match decoded(KIND, news) {
            News::Applied(object) => {
                listing.see(|| object.metadata.name.clone().unwrap_or_default());
                identities.apply_registration_entry(&object, now().as_second());
            }
            News::Deleted(key) => identities.delete_registration_entry(&key.name),
            News::Undecodable(key) => listing.see(|| key.name),
            News::ListStarted => {
                listing.start();
                identities.list_registration_entries();
            }
            News::ListCompleted => {
                identities.retain_registration_entries(&listing.complete());
                health.done(REGISTRATION_ENTRIES);
            }
        }
    })
    .await;
}

/// Lets entries whose time is over count no more.
async fn expire_entries(identities: Arc<Identities>) {
    loop {
        tokio::time::sleep(EXPIRY_PERIOD).await;
        identities.expire_entries(now().as_second());
    }
}
