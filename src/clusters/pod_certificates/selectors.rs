//! Whether an entry's selectors hold for a pod as a whole, before any of its containers runs.

use k8s_openapi::api::core::v1::Pod;

use crate::registration::EntrySelector;

/// What the selectors of an entry say of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All hold.
    Holds,
    /// One does not hold.
    Fails,
    /// One speaks of containers, images or processes.
    Undecidable,
}

/// Whether deciding about `selectors` takes more than the pod's UID.
#[must_use]
pub(super) fn need_live_pod(selectors: &[EntrySelector], uid: &str) -> bool {
    selectors.iter().any(|selector| !is_pod_uid(selector, uid))
}

/// Judges `selectors` for the pod with `uid`; `live` is that pod, read from the API.
#[must_use]
pub(super) fn verdict(selectors: &[EntrySelector], uid: &str, live: Option<&Pod>) -> Verdict {
    let mut all = Verdict::Holds;
    for selector in selectors
        .iter()
        .filter(|selector| !is_pod_uid(selector, uid))
    {
        match live.map_or(Verdict::Undecidable, |pod| judge(selector, pod)) {
            Verdict::Holds => {}
            Verdict::Fails => return Verdict::Fails,
            Verdict::Undecidable => all = Verdict::Undecidable,
        }
    }
    all
}

fn is_pod_uid(selector: &EntrySelector, uid: &str) -> bool {
    selector.kind() == "k8s" && selector.value().strip_prefix("pod-uid:") == Some(uid)
}

/// The selectors of SPIRE's `k8s` workload attestor that are known before a container runs.
fn judge(selector: &EntrySelector, pod: &Pod) -> Verdict {
    let Some((name, value)) = selector.value().split_once(':') else {
        return Verdict::Undecidable;
    };
    if selector.kind() != "k8s" {
        return Verdict::Undecidable;
    }
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let equals = |actual: Option<&str>| actual == Some(value);
    let owners = || metadata.owner_references.iter().flatten();
    let holds = match name {
        "pod-uid" => equals(metadata.uid.as_deref()),
        "pod-name" => equals(metadata.name.as_deref()),
        "ns" => equals(metadata.namespace.as_deref()),
        "sa" => equals(spec.and_then(|spec| spec.service_account_name.as_deref())),
        "node-name" => equals(spec.and_then(|spec| spec.node_name.as_deref())),
        "pod-label" => metadata
            .labels
            .iter()
            .flatten()
            .any(|(key, label)| format!("{key}:{label}") == value),
        "pod-owner" => owners().any(|owner| format!("{}:{}", owner.kind, owner.name) == value),
        "pod-owner-uid" => owners().any(|owner| format!("{}:{}", owner.kind, owner.uid) == value),
        _ => return Verdict::Undecidable,
    };
    if holds {
        Verdict::Holds
    } else {
        Verdict::Fails
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selector(text: &str) -> EntrySelector {
        EntrySelector::parse(text).unwrap()
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "web-1", "namespace": "shop", "uid": "u1",
                "labels": {"app": "web"},
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "r1"}
                ]
            },
            "spec": {"serviceAccountName": "web", "nodeName": "n1", "containers": []}
        }))
        .unwrap()
    }

    #[test]
    fn the_uid_alone_needs_no_live_pod() {
        let own = [selector("k8s:pod-uid:u1")];
        assert!(!need_live_pod(&own, "u1"));
        assert_eq!(verdict(&own, "u1", None), Verdict::Holds);
        assert!(need_live_pod(&own, "u2"));
    }

    #[test]
    fn judges_what_is_known_of_the_pod() {
        for (text, expected) in [
            ("k8s:ns:shop", Verdict::Holds),
            ("k8s:ns:other", Verdict::Fails),
            ("k8s:sa:web", Verdict::Holds),
            ("k8s:pod-name:web-1", Verdict::Holds),
            ("k8s:node-name:n2", Verdict::Fails),
            ("k8s:pod-label:app:web", Verdict::Holds),
            ("k8s:pod-label:app:db", Verdict::Fails),
            ("k8s:pod-owner:ReplicaSet:web", Verdict::Holds),
            ("k8s:pod-owner-uid:ReplicaSet:r1", Verdict::Holds),
            ("k8s:pod-uid:u2", Verdict::Fails),
            ("k8s:container-name:main", Verdict::Undecidable),
            ("k8s:pod-image:nginx", Verdict::Undecidable),
            ("unix:uid:0", Verdict::Undecidable),
        ] {
            let selectors = [selector("k8s:pod-uid:u1"), selector(text)];
            assert_eq!(verdict(&selectors, "u1", Some(&pod())), expected, "{text}");
        }
    }

    #[test]
    fn one_that_fails_outweighs_one_that_cannot_be_decided() {
        let selectors = [selector("k8s:container-name:a"), selector("k8s:ns:other")];
        assert_eq!(verdict(&selectors, "u1", Some(&pod())), Verdict::Fails);
    }
}
