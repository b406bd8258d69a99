//! A small set of objects, kept current by a watch of its own.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::clusters::watch::{News, ObjectKey, follow, follow_guarded};
use crate::runtime::metrics::Metrics;

/// The objects of one watch, by namespace and name. The watch ends when this is dropped.
#[derive(Debug)]
pub struct Cache<K> {
    shared: Arc<Shared<K>>,
    _watch: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared<K> {
    objects: Mutex<Objects<K>>,
    /// Counts changes; 0 until the first list is complete.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Objects<K> {
    known: BTreeMap<(String, String), Arc<K>>,
    /// Names seen in the list under way, if one is.
    listing: Option<Vec<(String, String)>>,
}

impl<K> Cache<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Starts to watch the objects of `api`, which `kind` names in logs and metrics.
    #[must_use]
    pub fn start(
        api: Api<K>,
        config: watcher::Config,
        kind: &'static str,
        metrics: Arc<Metrics>,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let sink = Arc::clone(&shared);
        let watch = follow(api, config, kind, metrics, move |news| sink.take(news));
        Self { shared, _watch: AbortOnDropHandle::new(tokio::spawn(watch)) }
    }

    /// As [`Self::start`], for kinds whose stored objects may not decode.
    #[must_use]
    pub fn start_guarded(
        api: Api<kube::core::DeserializeGuard<K>>,
        config: watcher::Config,
        kind: &'static str,
        metrics: Arc<Metrics>,
    ) -> Self
    where
        kube::core::DeserializeGuard<K>: Resource + Clone + DeserializeOwned,
    {
        let shared = Arc::new(Shared::default());
        let sink = Arc::clone(&shared);
        let watch = follow_guarded(api, config, kind, metrics, move |news| sink.take(news));
        Self { shared, _watch: AbortOnDropHandle::new(tokio::spawn(watch)) }
    }
}

impl<K> Cache<K> {
    /// The object; cluster-scoped ones have an empty namespace.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.shared.objects().known.get(&(namespace.into(), name.into())).cloned()
    }

    /// All objects, by namespace and name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        self.shared.objects().known.values().cloned().collect()
    }

    /// Whether a complete list has been seen.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        *self.shared.changes.borrow() > 0
    }

    /// Changes whenever an object does; 0 until a complete list has been seen.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

impl<K> Default for Shared<K> {
    fn default() -> Self {
        Self {
            objects: Mutex::new(Objects { known: BTreeMap::new(), listing: None }),
            changes: watch::Sender::new(0),
        }
    }
}

impl<K> Shared<K> {
    fn objects(&self) -> MutexGuard<'_, Objects<K>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Resource> Shared<K> {
    fn take(&self, news: News<K>) {
        let completes = matches!(news, News::ListCompleted);
        self.objects().take(news);
        if completes || *self.changes.borrow() > 0 {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }
}

impl<K: Resource> Objects<K> {
    fn take(&mut self, news: News<K>) {
        match news {
            News::Applied(object) => {
                let ObjectKey { namespace, name, .. } = object.meta().into();
                self.note_listed(&namespace, &name);
                self.known.insert((namespace, name), Arc::new(object));
            }
            News::Undecodable(key) => self.note_listed(&key.namespace, &key.name),
            News::Deleted(key) => {
                self.known.remove(&(key.namespace, key.name));
            }
            News::ListStarted => self.listing = Some(Vec::new()),
            News::ListCompleted => {
                let mut listed = self.listing.take().unwrap_or_default();
                listed.sort_unstable();
                self.known.retain(|key, _| listed.binary_search(key).is_ok());
            }
        }
    }

    fn note_listed(&mut self, namespace: &str, name: &str) {
        if let Some(listed) = &mut self.listing {
            listed.push((namespace.into(), name.into()));
        }
    }
}
