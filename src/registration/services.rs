//! Which services select a pod, from EndpointSlices: the same answer as Endpoints give, ready or
//! not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::discovery::v1::EndpointSlice;

/// The label that names a slice's service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Services by pod, and slices as they were seen.
#[derive(Debug, Default)]
pub(super) struct Services {
    slices: BTreeMap<SliceName, Slice>,
    by_pod: BTreeMap<PodInNamespace, BTreeMap<Arc<str>, BTreeSet<SliceName>>>,
}

type SliceName = (Arc<str>, Arc<str>);
/// A namespace and the UID of a pod in it: a slice speaks for pods of its own namespace only.
type PodInNamespace = (Arc<str>, Arc<str>);

#[derive(Debug)]
struct Slice {
    service: Arc<str>,
    pods: BTreeSet<Arc<str>>,
}

impl Services {
    /// The services that select a pod, by name.
    pub(super) fn of_pod<'a>(
        &'a self,
        namespace: &Arc<str>,
        uid: &Arc<str>,
    ) -> impl Iterator<Item = &'a str> + use<'a> {
        let found = self.by_pod.get(&(namespace.clone(), uid.clone()));
        found
            .into_iter()
            .flat_map(|services| services.keys().map(|service| &**service))
    }

    /// Takes in a slice and says whose services changed.
    pub(super) fn apply(&mut self, slice: &EndpointSlice) -> BTreeSet<Arc<str>> {
        let meta = &slice.metadata;
        let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) else {
            return BTreeSet::new();
        };
        let slice_name: SliceName = (namespace.as_str().into(), name.as_str().into());
        let old_service = self.slices.get(&slice_name).map(|old| old.service.clone());
        let lost = self.delete(namespace, name);
        let service = meta
            .labels
            .as_ref()
            .and_then(|labels| labels.get(SERVICE_LABEL));
        let Some(service) = service.filter(|service| !service.is_empty()) else {
            return lost;
        };
        let service: Arc<str> = service.as_str().into();
        let pods = pods_of(slice);
        let mut gained = BTreeSet::new();
        for pod in &pods {
            let key = (slice_name.0.clone(), pod.clone());
            let slices = self
                .by_pod
                .entry(key)
                .or_default()
                .entry(service.clone())
                .or_default();
            if slices.is_empty() {
                gained.insert(pod.clone());
            }
            slices.insert(slice_name.clone());
        }
        self.slices.insert(
            slice_name,
            Slice {
                service: service.clone(),
                pods,
            },
        );
        if old_service == Some(service) {
            // What was lost and gained again has not changed.
            lost.symmetric_difference(&gained).cloned().collect()
        } else {
            lost.union(&gained).cloned().collect()
        }
    }

    /// Forgets a slice and says whose services changed.
    pub(super) fn delete(&mut self, namespace: &str, name: &str) -> BTreeSet<Arc<str>> {
        let mut changed = BTreeSet::new();
        let slice_name: SliceName = (namespace.into(), name.into());
        let Some(slice) = self.slices.remove(&slice_name) else {
            return changed;
        };
        for pod in slice.pods {
            let key = (slice_name.0.clone(), pod.clone());
            let Some(services) = self.by_pod.get_mut(&key) else {
                continue;
            };
            if let Some(slices) = services.get_mut(&slice.service) {
                slices.remove(&slice_name);
                if slices.is_empty() {
                    services.remove(&slice.service);
                    changed.insert(pod);
                }
            }
            if services.is_empty() {
                self.by_pod.remove(&key);
            }
        }
        changed
    }
}

fn pods_of(slice: &EndpointSlice) -> BTreeSet<Arc<str>> {
    let targets = slice
        .endpoints
        .iter()
        .flatten()
        .filter_map(|endpoint| endpoint.target_ref.as_ref());
    targets
        .filter(|target| target.kind.as_deref() == Some("Pod"))
        .filter_map(|target| target.uid.as_deref().map(Arc::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(name: &str, service: &str, pods: &[&str]) -> EndpointSlice {
        let endpoints: Vec<_> = pods
            .iter()
            .map(|uid| {
                json!({"addresses": ["1.2.3.4"], "conditions": {"ready": false},
                "targetRef": {"kind": "Pod", "uid": uid}})
            })
            .collect();
        serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": name, "labels": {SERVICE_LABEL: service}},
            "addressType": "IPv4",
            "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn services(services: &Services, pod: &str) -> Vec<String> {
        services
            .of_pod(&"n".into(), &pod.into())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_pod_has_the_services_of_all_slices_that_name_it() {
        let mut all = Services::default();
        let changed = |uids: &[&str]| {
            uids.iter()
                .map(|uid| Arc::from(*uid))
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(
            all.apply(&slice("s1", "web", &["a", "b"])),
            changed(&["a", "b"])
        );
        assert_eq!(all.apply(&slice("s2", "web", &["b"])), changed(&[]));
        assert_eq!(all.apply(&slice("s3", "db", &["b"])), changed(&["b"]));
        assert_eq!(services(&all, "b"), ["db", "web"]);
        assert_eq!(all.apply(&slice("s1", "web", &["a", "b"])), changed(&[]));
        assert_eq!(all.apply(&slice("s1", "web", &["b"])), changed(&["a"]));
        assert_eq!(all.apply(&slice("s1", "web", &["a", "b"])), changed(&["a"]));
        assert_eq!(all.apply(&slice("s1", "api", &["b"])), changed(&["a", "b"]));
        assert_eq!(services(&all, "b"), ["api", "db", "web"]);
        assert_eq!(all.delete("n", "s2"), changed(&["b"]));
        assert_eq!(all.delete("n", "s2"), changed(&[]));
        assert_eq!(services(&all, "b"), ["api", "db"]);
        assert_eq!(
            (
                services(&all, "a").len(),
                all.of_pod(&"m".into(), &"b".into()).count()
            ),
            (0, 0)
        );
    }

    #[test]
    fn a_slice_that_changes_service_changes_its_pods() {
        let mut all = Services::default();
        all.apply(&slice("s", "old", &["a"]));
        assert_eq!(all.apply(&slice("s", "new", &["a"])), ["a".into()].into());
        assert_eq!(services(&all, "a"), ["new"]);
    }
}
