//! A watch that never gives up and never takes an error for a fact.
//!
//! [`follow`] turns kube's watcher into [`News`]. An object that vanished during a gap
//! is reported only once a complete list has been seen; a failed list or watch reports nothing.

use std::pin::pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};

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

/// Follows a watcher for ever. `kind` names its objects in logs and metrics.
pub async fn follow<K: Resource>(
    watcher: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send,
    kind: &'static str,
    metrics: Arc<Metrics>,
    mut on_news: impl FnMut(News<K>),
) {
    let mut events = pin!(watcher.default_backoff());
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

/// News of a kind whose stored objects may not decode because an older or foreign schema let them
/// through, for use in [`follow`]'s callback. One such object never stalls the others.
pub fn decoded<K: Resource>(kind: &'static str, news: News<DeserializeGuard<K>>) -> News<K> {
    match news {
        News::Applied(DeserializeGuard(Ok(object))) => News::Applied(object),
        News::Applied(DeserializeGuard(Err(invalid))) => {
            let key = ObjectKey::from(&invalid.metadata);
            tracing::error!(
                kind,
                name = key.name,
                error = invalid.error,
                "cannot decode an object"
            );
            News::Undecodable(key)
        }
        News::Deleted(key) => News::Deleted(key),
        News::Undecodable(key) => News::Undecodable(key),
        News::ListStarted => News::ListStarted,
        News::ListCompleted => News::ListCompleted,
    }
}
