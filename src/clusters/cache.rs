//! A small set of objects, kept current by a watch of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::clusters::watch::{News, ObjectKey, decoded, follow};
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

impl<K: Resource + Send + Sync + 'static> Cache<K> {
    /// Keeps what `watcher` reports; `kind` names it in logs and metrics.
    #[must_use]
    pub fn start(
        watcher: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + 'static,
        kind: &'static str,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self::fed_by(|sink| follow(watcher, kind, metrics, move |news| sink.take(news)))
    }

    /// As [`Self::start`], for kinds whose stored objects may not decode.
    #[must_use]
    pub fn start_guarded(
        watcher: impl Stream<Item = Result<watcher::Event<DeserializeGuard<K>>, watcher::Error>>
        + Send
        + 'static,
        kind: &'static str,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self::fed_by(|sink| {
            follow(watcher, kind, metrics, move |news| {
                sink.take(decoded(kind, news));
            })
        })
    }

    fn fed_by<F>(watch: impl FnOnce(Arc<Shared<K>>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shared = Arc::new(Shared::default());
        let watch = tokio::spawn(watch(Arc::clone(&shared)));
        Self {
            shared,
            _watch: AbortOnDropHandle::new(watch),
        }
    }
}

impl<K> Cache<K> {
    /// The object; cluster-scoped ones have an empty namespace.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.shared
            .objects()
            .known
            .get(&(namespace.into(), name.into()))
            .cloned()
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
            objects: Mutex::new(Objects {
                known: BTreeMap::new(),
                listing: None,
            }),
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
                let ObjectKey {
                    namespace, name, ..
                } = object.meta().into();
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
                self.known
                    .retain(|key, _| listed.binary_search(key).is_ok());
            }
        }
    }

    fn note_listed(&mut self, namespace: &str, name: &str) {
        if let Some(listed) = &mut self.listing {
            listed.push((namespace.into(), name.into()));
        }
    }
}
