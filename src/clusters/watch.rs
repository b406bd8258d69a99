//! A watch that never gives up and never takes an error for a fact.
//!
//! [`follow`] turns kube's watcher into three kinds of news. An object that vanished during a gap
//! is reported only once a complete list has been seen; a failed list or watch reports nothing.

use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::runtime::metrics::Metrics;

/// Which object a piece of news is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace; empty for a cluster-scoped object.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID, which no other object ever has.
    pub uid: String,
}

impl From<&ObjectMeta> for ObjectKey {
    fn from(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// What a watch reports.
#[derive(Debug)]
pub enum News<K> {
    /// An object is there, new or changed.
    Applied(K),
    /// An object is gone.
    Deleted(ObjectKey),
    /// An object is there but does not decode: whatever was known of it still holds.
    Undecodable(ObjectKey),
    /// A complete list starts: everything that is there follows as [`News::Applied`].
    ListStarted,
    /// The list is complete: what was not in it is gone.
    ListCompleted,
}

/// Follows the objects of `api` for ever. `kind` names them in logs and metrics.
pub async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    kind: &'static str,
    metrics: Arc<Metrics>,
    mut on_news: impl FnMut(News<K>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut lists: u64 = 0;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                on_news(News::Applied(object));
            }
            Ok(watcher::Event::Delete(object)) => on_news(News::Deleted(object.meta().into())),
            Ok(watcher::Event::Init) => {
                on_news(News::ListStarted);
                if lists > 0 {
                    metrics.watch_restarted(kind);
                }
                lists += 1;
            }
            Ok(watcher::Event::InitDone) => on_news(News::ListCompleted),
            Err(error) => {
                metrics.watch_failed(kind);
                tracing::warn!(kind, error = %crate::error_chain(&error), "watch failed");
            }
        }
    }
}

/// As [`follow`], for kinds whose stored objects may not decode because an older or foreign schema
/// let them through. One such object never stalls the others.
pub async fn follow_guarded<K>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    kind: &'static str,
    metrics: Arc<Metrics>,
    mut on_news: impl FnMut(News<K>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    DeserializeGuard<K>: Resource + Clone + DeserializeOwned,
{
    follow(api, config, kind, metrics, |news| {
        on_news(match news {
            News::Applied(DeserializeGuard(Ok(object))) => News::Applied(object),
            News::Applied(DeserializeGuard(Err(invalid))) => {
                let key = ObjectKey::from(&invalid.metadata);
                tracing::error!(kind, name = key.name, error = invalid.error, "cannot decode");
                News::Undecodable(key)
            }
            News::Deleted(key) => News::Deleted(key),
            News::Undecodable(key) => News::Undecodable(key),
            News::ListStarted => News::ListStarted,
            News::ListCompleted => News::ListCompleted,
        });
    })
    .await;
}
