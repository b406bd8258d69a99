//! When pods are told their identities, and which last good spec counts.

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::registration::Right;
use crate::spiffe::SpiffeId;

fn object<T: DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}

/// A ClusterSPIFFEID with `name` as its UID.
fn cluster_spiffe_id(name: &str, generation: i64, template: &str) -> Arc<ClusterSPIFFEID> {
    Arc::new(object(json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterSPIFFEID",
        "metadata": {
            "name": name, "uid": name, "generation": generation,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"spiffeIDTemplate": template, "fallback": name == "fallback"},
    })))
}

fn pod() -> Pod {
    object(json!({
        "metadata": {
            "name": "p", "namespace": "shop", "uid": "p", "annotations": {"role": "web"},
        },
        "spec": {"containers": [], "nodeName": "node", "serviceAccountName": "sa"},
    }))
}

/// Knows a namespace, a node and a pod, serves the TrustDomain `e`, and has no list complete.
fn starting() -> Identities {
    let identities = Identities::new(Arc::new(Metrics::new()));
    serve(&identities);
    let namespace: Namespace = object(json!({"metadata": {"name": "shop"}}));
    identities.apply_namespace(&namespace);
    let node: Node = object(json!({"metadata": {"name": "node", "uid": "node"}}));
    identities.apply_node(&node);
    identities.apply_pod(&pod());
    identities
}

fn serve(identities: &Identities) {
    let spec = json!({"trustDomain": "e.org", "authority": {"selfSigned": {}}});
    identities.set_domain("e", &object(spec)).unwrap();
}

fn complete_lists(identities: &Identities, cluster_spiffe_ids: &[&str]) {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    identities.retain_namespaces(&names(&["shop"]));
    identities.retain_nodes(&names(&["node"]));
    identities.retain_pods(&names(&["p"]));
    identities.retain_endpoint_slices(&BTreeSet::new());
    identities.retain_cluster_spiffe_ids(&names(cluster_spiffe_ids));
    identities.retain_cluster_static_entries(&BTreeSet::new());
    identities.retain_registration_entries(&BTreeSet::new());
    identities.set_foreign_bundles(ForeignBundles::new());
    identities.nested_clusters_listed();
}

fn process(identities: &Identities) {
    while identities.process_slice() {}
}

fn ids(identities: &Identities) -> Vec<String> {
    let entries = identities.pod("e", "p").entries;
    let ids = entries
        .iter()
        .map(|entry| entry.spiffe_id.path().to_owned());
    ids.collect()
}

#[test]
fn no_pod_is_told_its_identity_before_all_lists_are_complete() {
    let identities = starting();
    let mut changed = identities.changed_pods();
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("fallback", 1, "spiffe://e.org/f"));
    process(&identities);
    let early = identities.pod("e", "p");
    assert!(early.facts.is_some() && early.entries.is_empty());
    assert!(
        early
            .why_none
            .contains("it has not seen all of the cluster yet (not listed yet: "),
        "{}",
        early.why_none
    );
    assert_eq!(identities.take_changed_objects(), BTreeSet::new());
    let fallback = ObjectName {
        kind: SourceKind::ClusterSpiffeId,
        name: "fallback".into(),
    };
    assert!(identities.report(&fallback).is_none() && identities.knows(&fallback));

    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("main", 1, "spiffe://e.org/main"));
    while changed.try_recv().is_ok() {}
    complete_lists(&identities, &["fallback", "main"]);
    assert_eq!(
        ids(&identities),
        [""; 0],
        "a marked pod has not been evaluated"
    );
    process(&identities);
    assert_eq!(ids(&identities), ["/main"]);
    let mut told = BTreeSet::new();
    while let Ok(pod) = changed.try_recv() {
        told.insert(pod.uid.to_string());
    }
    assert_eq!(told, ["p".to_owned()].into(), "who was asked about is told");
    assert_eq!(identities.take_changed_objects().len(), 2);
    assert!(identities.report(&fallback).is_some());
}

#[test]
fn no_pod_is_told_its_identity_before_the_fields_are_known_that_templates_read() {
    let identities = starting();
    let reads_more = "spiffe://e.org/{{ index .PodMeta.Annotations \"role\" }}";
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("main", 1, reads_more));
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("other", 1, "spiffe://e.org/other"));
    complete_lists(&identities, &["main", "other"]);
    process(&identities);
    assert_eq!(ids(&identities), [""; 0]);
    let why = identities.pod("e", "p").why_none;
    assert!(why.contains("pods are being evaluated"), "{why}");
    assert!(
        identities
            .pod_fields()
            .borrow()
            .meta
            .contains("annotations")
    );
    identities.apply_pod(&pod());
    assert_eq!(ids(&identities), ["/web", "/other"]);
}

#[test]
fn no_pod_is_told_its_identity_before_copies_of_broken_specs_were_looked_for() {
    let identities = starting();
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("broken", 2, "{{"));
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("fallback", 1, "spiffe://e.org/f"));
    complete_lists(&identities, &["broken", "fallback"]);
    process(&identities);
    assert_eq!(ids(&identities), [""; 0]);
    let why = identities.pod("e", "p").why_none;
    assert!(
        why.contains("last good specs not looked for yet: broken"),
        "{why}"
    );

    let wanting = identities.wanting_last_good();
    let broken = ObjectName {
        kind: SourceKind::ClusterSpiffeId,
        name: "broken".into(),
    };
    assert_eq!(wanting, [(broken, "broken".to_owned())]);
    identities.restore_cluster_spiffe_id("broken", "broken", Some(spec("spiffe://e.org/kept")));
    process(&identities);
    assert_eq!(ids(&identities), ["/kept"]);

    let without = starting();
    without.apply_cluster_spiffe_id(&cluster_spiffe_id("broken", 2, "{{"));
    without.apply_cluster_spiffe_id(&cluster_spiffe_id("fallback", 1, "spiffe://e.org/f"));
    complete_lists(&without, &["broken", "fallback"]);
    process(&without);
    without.restore_cluster_spiffe_id("broken", "broken", None);
    assert_eq!(ids(&without), ["/f"], "it never was good");
    assert_eq!(without.wanting_last_good(), []);
}

#[test]
fn changes_are_told_from_when_a_trust_domain_is_settled_with_what_is_wrong_then() {
    let identities = starting();
    let mut changes = identities.changes();
    let mut told = || {
        let changes = std::iter::from_fn(|| changes.try_recv().ok());
        changes.map(|it| it.change).collect::<Vec<_>>()
    };
    let bad = "spiffe://e.org/{{ .PodMeta.Labels.none }}";
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("fallback", 1, "spiffe://e.org/f"));
    process(&identities);
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("main", 1, "spiffe://e.org/main"));
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("bad", 1, bad));
    process(&identities);
    assert_eq!(
        told(),
        [],
        "that the fallback no longer counts is no removal"
    );
    complete_lists(&identities, &["bad", "fallback", "main"]);
    process(&identities);
    let wrong = told();
    assert!(
        matches!(wrong.as_slice(), [Change::Failed { source, .. }] if &*source.name == "bad"),
        "{wrong:?}"
    );
    identities.delete_cluster_spiffe_id("main");
    process(&identities);
    let removed = told();
    assert!(
        removed.iter().any(|it| matches!(it, Change::Removed(..))),
        "{removed:?}"
    );
}

#[tokio::test]
async fn copies_of_last_good_specs_are_asked_for_when_an_object_comes_to_need_one() {
    use futures::FutureExt;

    let identities = starting();
    identities.last_good_wanted().await;
    complete_lists(&identities, &[]);
    assert!(identities.last_good_wanted().now_or_never().is_none());
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("broken", 2, "{{"));
    identities.last_good_wanted().await;
    assert_eq!(identities.wanting_last_good().len(), 1);
}

#[test]
fn a_trust_domain_that_comes_later_is_evaluated_before_its_pods_are_told() {
    let identities = starting();
    complete_lists(&identities, &[]);
    identities.remove_domain("e");
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("main", 1, "spiffe://e.org/main"));
    serve(&identities);
    assert_eq!(ids(&identities), [""; 0]);
    process(&identities);
    assert_eq!(ids(&identities), ["/main"]);
}

#[test]
fn a_copy_counts_for_the_object_that_it_was_made_of_and_only_as_long_as_that_is_there() {
    let identities = starting();
    complete_lists(&identities, &[]);
    let copy = || Some(spec("spiffe://e.org/kept"));
    identities.restore_cluster_spiffe_id("gone", "gone", copy());
    assert!(
        identities.objects().is_empty(),
        "a deleted object stays deleted"
    );

    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("c", 2, "{{"));
    identities.restore_cluster_spiffe_id("c", "an earlier one", copy());
    process(&identities);
    assert_eq!(ids(&identities), [""; 0]);

    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("c", 3, "spiffe://e.org/new"));
    identities.restore_cluster_spiffe_id("c", "c", copy());
    process(&identities);
    assert_eq!(ids(&identities), ["/new"], "its spec is good by now");
}

#[test]
fn the_newest_good_spec_counts_for_copies_and_for_trust_domains_that_come_later() {
    let identities = starting();
    complete_lists(&identities, &[]);
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("c", 1, "{{"));
    identities.restore_cluster_spiffe_id("c", "c", Some(spec("spiffe://e.org/kept")));
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("c", 2, "spiffe://e.org/newer"));
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("c", 3, "{{"));
    process(&identities);
    assert_eq!(ids(&identities), ["/newer"]);
    let c = ObjectName {
        kind: SourceKind::ClusterSpiffeId,
        name: "c".into(),
    };
    let Some(ObjectReport::ClusterSpiffeId(reported)) = identities.report(&c) else {
        panic!("there is a report");
    };
    let good = reported.last_good.unwrap();
    assert_eq!(
        (&*good.spec.spiffe_id_template, good.generation),
        ("spiffe://e.org/newer", Some(2)),
        "what a copy is made of, although the object is broken by now"
    );
    identities.remove_domain("e");
    serve(&identities);
    process(&identities);
    assert_eq!(ids(&identities), ["/newer"]);
}

#[test]
fn objects_of_a_trust_domain_that_goes_are_reported_as_not_served() {
    let identities = starting();
    complete_lists(&identities, &[]);
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("c", 1, "spiffe://e.org/c"));
    process(&identities);
    let _ = identities.take_changed_objects();
    identities.remove_domain("e");
    let changed = identities.take_changed_objects();
    let changed: Vec<_> = changed.iter().collect();
    let [object] = changed.as_slice() else {
        panic!("{changed:?}");
    };
    let report = identities.report(object);
    assert!(
        matches!(&report, Some(ObjectReport::ClusterSpiffeId(it)) if it.report.is_none()),
        "{report:?}"
    );
}

fn spec(template: &str) -> ClusterSpiffeIdSpec {
    ClusterSpiffeIdSpec {
        spiffe_id_template: template.into(),
        ..ClusterSpiffeIdSpec::default()
    }
}

#[test]
fn agents_are_told_nothing_before_all_of_the_cluster_was_seen() {
    let identities = starting();
    identities.apply_cluster_spiffe_id(&cluster_spiffe_id("main", 1, "spiffe://e.org/main"));
    process(&identities);
    let agent = "spiffe://e.org/spire/agent/k8s_psat/default/node"
        .parse()
        .unwrap();
    let entries = || identities.authorized_entries("e", &agent, &BTreeSet::new());
    let error = entries().unwrap_err().to_string();
    assert!(error.contains("not listed yet: "), "{error}");
    assert!(identities.entries_after("e", None, 9).is_err());
    let main = "spiffe://e.org/main".parse().unwrap();
    assert!(identities.has_entry("e", &main, Right::Admin).is_err());

    complete_lists(&identities, &["main"]);
    process(&identities);
    let found = entries().unwrap();
    let [entry] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(entry.spiffe_id, main);
    let authorized = |agent: &SpiffeId| {
        let ids = std::slice::from_ref(&entry.id);
        let found = identities.authorized_among("e", agent, &BTreeSet::new(), ids);
        found.unwrap().remove(0)
    };
    assert_eq!(authorized(&agent).as_ref(), Some(entry));
    let other = "spiffe://e.org/spire/agent/k8s_psat/default/other"
        .parse()
        .unwrap();
    assert_eq!(authorized(&other), None, "entries are served by parent");
    assert_eq!(identities.has_entry("e", &main, Right::Admin), Ok(false));
    assert_eq!(
        identities.entry("e", &entry.id).unwrap().as_ref(),
        Some(entry)
    );
    let error = identities.entry("unknown", &entry.id).unwrap_err();
    assert!(error.to_string().contains("unknown"), "{error}");
}
