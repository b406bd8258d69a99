//! What ClusterSPIFFEIDs and ClusterStaticEntries make of a real cluster's pods, and what their
//! statuses and events say of it.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spiffe_operator::api::{
    ClusterSPIFFEID, ClusterSpiffeIdStats, ClusterStaticEntry, TrustDomain,
};

use crate::support::{
    ControlPlane, Options, SOON, World, apply, condition, control_plane, merge_patch, namespace,
    pod, release_lease, unique, verdict, wait_until,
};

pub(crate) async fn apply_static_entry(world: &World, changes: Value) -> String {
    let name = unique(&world.class);
    let mut object = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterStaticEntry",
        "metadata": { "name": name },
        "spec": {
            "className": world.class,
            "spiffeID": format!("spiffe://{}/db", world.trust_domain),
            "parentID": format!("spiffe://{}/node", world.trust_domain),
            "selectors": ["unix:uid:1"],
        },
    });
    for (key, value) in changes.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    apply(&world.client, &object).await.unwrap();
    name
}

pub(crate) async fn static_entry(
    world: &World,
    name: &str,
    rendered: bool,
    masked: bool,
    set: bool,
) {
    let objects = Api::<ClusterStaticEntry>::all(world.client.clone());
    wait_until(&format!("the status of {name}"), SOON, || async {
        let object = objects.get(name).await.map_err(|error| error.to_string())?;
        let status = object.status.unwrap_or_default();
        let is_current = status.observed_generation == object.metadata.generation;
        let found = (status.rendered, status.masked, status.set);
        (is_current && found == (rendered, masked, set))
            .then_some(())
            .ok_or_else(|| format!("{status:?}"))
    })
    .await;
}

/// Applies a ClusterSPIFFEID that selects pods of the test's own namespace only, unless changed.
async fn apply_id(world: &World, name: &str, changes: Value) -> String {
    let mut all = json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": world.namespace } },
    });
    for (key, value) in changes.as_object().unwrap() {
        all[key] = value.clone();
    }
    world.apply_cluster_spiffe_id(name, all).await
}

#[tokio::test]
async fn the_first_status_says_that_work_is_under_way() {
    let world = World::new().await;
    let id = apply_id(&world, "web", json!({}));
    first_status_is_unknown::<ClusterSPIFFEID>(&world, id).await;
    let entry = apply_static_entry(&world, json!({}));
    first_status_is_unknown::<ClusterStaticEntry>(&world, entry).await;
}

/// Watches what statuses the object gets that `apply` makes, until it is ready.
async fn first_status_is_unknown<K>(world: &World, apply: impl Future<Output = String>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
{
    let objects = Api::<K>::all(world.client.clone());
    let parameters = kube::runtime::watcher::Config::default();
    let mut seen = Box::pin(kube::runtime::watcher(objects, parameters));
    let name = apply.await;
    let mut statuses = Vec::new();
    let settled = tokio::time::timeout(SOON, async {
        use futures::StreamExt;
        while let Some(event) = seen.next().await {
            use kube::runtime::watcher::Event::{Apply, InitApply};
            let (Apply(object) | InitApply(object)) = event.unwrap() else {
                continue;
            };
            if object.name_any() != name {
                continue;
            }
            let generation = object.meta().generation;
            let status = serde_json::to_value(&object).unwrap()["status"].take();
            let Some(conditions) = status["conditions"].as_array() else {
                continue;
            };
            assert_eq!(status["observedGeneration"].as_i64(), generation);
            let of = |kind: &str| conditions.iter().find(|it| it["type"] == kind);
            let reconciling = of("Reconciling").is_some_and(|it| it["status"] == "True");
            let ready = of("Ready").unwrap()["status"].as_str().unwrap().to_owned();
            let is_ready = ready == "True";
            statuses.push((ready, reconciling));
            if is_ready {
                return;
            }
        }
    });
    settled.await.unwrap();
    assert_eq!(
        statuses.first(),
        Some(&("Unknown".to_owned(), true)),
        "{statuses:?}"
    );
}

#[tokio::test]
async fn pods_that_fail_are_named_and_all_others_are_served() {
    let world = World::new().await;
    // Of what fails before a trust domain is settled only the first ten pods are told.
    world.trust_domain_condition("Ready", "True").await;
    let pods = Api::<Pod>::namespaced(world.client.clone(), &world.namespace);
    let mut failing = Vec::new();
    for at in 0..12 {
        let pod = world.pod(&format!("bad-{at:02}"), &[("app", "web")]).await;
        let annotations = json!({ "metadata": { "annotations": { "role": "a role" } } });
        merge_patch(&pods, &pod.name_any(), annotations).await;
        failing.push(pod);
    }
    let good = world.pod("good", &[("app", "web")]).await;
    merge_patch(
        &pods,
        "good",
        json!({ "metadata": { "annotations": { "role": "web" } } }),
    )
    .await;
    let name = apply_id(&world,
            "web",
            json!({ "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/{{ index .PodMeta.Annotations \"role\" }}" }),
        )
        .await;
    let status = world
        .cluster_spiffe_id_stats(&name, |stats| {
            stats.pod_entry_render_failures == 12 && stats.entries_to_set == 1
        })
        .await;
    assert_eq!(status.stats.pods_selected, 13);
    let named: Vec<_> = status
        .failing_pods
        .iter()
        .map(|pod| pod.name.as_str())
        .collect();
    let first_ten: Vec<_> = failing.iter().take(10).map(ResourceExt::name_any).collect();
    assert_eq!(named, first_ten);
    assert!(
        status.failing_pods[0].message.contains("/a role"),
        "{:?}",
        status.failing_pods[0]
    );
    let failed = condition::<ClusterSPIFFEID>(&world.client, &name, "RenderFailed", "True").await;
    assert!(failed.message.contains("12 pods"), "{}", failed.message);
    condition::<ClusterSPIFFEID>(&world.client, &name, "Ready", "True").await;
    world.verified_chain(&world.answer(&good, &[]).await).await;

    let metric = format!(
        "spiffe_operator_render_failures\
         {{trust_domain=\"{}\",kind=\"ClusterSPIFFEID\",name=\"{name}\"}}",
        world.trust_domain
    );
    let operator = crate::support::shared_operator().await;
    assert_eq!(operator.metric(&metric).await, Some(12.0));

    let uid = failing[0].uid().unwrap();
    let note = world.event(&world.namespace, &uid, "InvalidSPIFFEID").await;
    assert!(note.contains("/a role") && note.contains(&name), "{note}");
    let last = failing[11].uid().unwrap();
    world
        .event(&world.namespace, &last, "InvalidSPIFFEID")
        .await;
    let objects = Api::<ClusterSPIFFEID>::all(world.client.clone());
    let uid = objects.get(&name).await.unwrap().uid().unwrap();
    let note = world.event("default", &uid, "InvalidSPIFFEID").await;
    let pod = format!("pod {}/bad-", world.namespace);
    assert!(note.contains(&pod), "{note}");
    let notes = world.event_notes("default", &uid, "InvalidSPIFFEID").await;
    assert_eq!(notes.len(), 1, "one is told as an example: {notes:?}");

    let repaired = json!({ "metadata": { "annotations": { "role": "web" } } });
    for pod in &failing {
        merge_patch(&pods, &pod.name_any(), repaired.clone()).await;
    }
    let status = world
        .cluster_spiffe_id_stats(&name, |stats| stats.entries_to_set == 13)
        .await;
    assert!(status.failing_pods.is_empty());
    assert!(
        status
            .conditions
            .iter()
            .all(|it| it.type_ != "RenderFailed")
    );
}

#[tokio::test]
async fn what_a_template_may_not_render_is_named_with_what_it_rendered() {
    let world = World::new().await;
    let pod = world.pod("web", &[("app", "web")]).await;
    let long = format!("{}web", "a".repeat(250));
    for (changes, reason, rendered) in [
        (
            json!({ "spiffeIDTemplate": "spiffe://{{ .PodMeta.Name }}.test/x" }),
            "ForeignTrustDomain",
            "spiffe://web.test/x",
        ),
        (
            json!({ "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/{{ .PodMeta.Labels.none }}" }),
            "InvalidSPIFFEID",
            "<no value>",
        ),
        (
            json!({ "dnsNameTemplates": [format!("{}{{{{ .PodMeta.Name }}}}", "a".repeat(250))] }),
            "InvalidDNSName",
            long.as_str(),
        ),
        (
            json!({ "dnsNameTemplates": ["a b.{{ .PodMeta.Name }}"] }),
            "InvalidDNSName",
            "a b.web",
        ),
        (
            json!({ "workloadSelectorTemplates": ["k8s{{ .PodMeta.Name }}"] }),
            "InvalidSelector",
            "k8sweb",
        ),
    ] {
        let name = apply_id(&world, &unique("bad"), changes).await;
        let status = world
            .cluster_spiffe_id_stats(&name, |stats| {
                stats.pod_entry_render_failures + stats.entry_failures == 1
            })
            .await;
        let message = &status.failing_pods[0].message;
        assert!(message.contains(rendered), "{message}");
        let ready = condition::<ClusterSPIFFEID>(&world.client, &name, "Ready", "False").await;
        assert_eq!(ready.reason, "AllPodsFail");
        let uid = pod.uid().unwrap();
        let what = format!("an event with {rendered}");
        wait_until(&what, SOON, || async {
            let notes = world.event_notes(&world.namespace, &uid, reason).await;
            let is_told = notes.iter().any(|note| note.contains(rendered));
            is_told.then_some(()).ok_or_else(|| format!("{notes:?}"))
        })
        .await;
        world.delete_cluster_spiffe_id(&name).await;
    }
    // Upper case and underscores pass, as upstream.
    let name = apply_id(
        &world,
        "ok",
        json!({ "dnsNameTemplates": ["My_Service.Example"] }),
    )
    .await;
    world
        .cluster_spiffe_id_stats(&name, |stats| stats.entries_to_set == 1)
        .await;
    world.verified_chain(&world.answer(&pod, &[]).await).await;
}

#[tokio::test]
async fn of_equal_entries_the_oldest_objects_counts_and_the_others_say_whose_it_is() {
    let world = World::new().await;
    let older = apply_id(&world, "older", json!({ "hint": "older" })).await;
    world.a_second_later().await;
    let younger = apply_id(&world, "younger", json!({ "hint": "younger" })).await;
    let pod = world.pod("web", &[("app", "web")]).await;
    world
        .cluster_spiffe_id_stats(&older, |stats| stats.entries_to_set == 1)
        .await;
    world
        .cluster_spiffe_id_stats(&younger, |stats| stats.entries_masked == 1)
        .await;
    let masked = condition::<ClusterSPIFFEID>(&world.client, &younger, "Masked", "True").await;
    assert!(masked.message.contains(&older), "{}", masked.message);
    let uid = pod.uid().unwrap();
    let note = world.event(&world.namespace, &uid, "Masked").await;
    assert!(note.contains(&older), "{note}");
    let objects = Api::<ClusterSPIFFEID>::all(world.client.clone());
    let uid = objects.get(&younger).await.unwrap().uid().unwrap();
    let note = world.event("default", &uid, "Masked").await;
    assert!(note.contains(&older), "{note}");

    world.delete_cluster_spiffe_id(&older).await;
    world
        .cluster_spiffe_id_stats(&younger, |stats| stats.entries_to_set == 1)
        .await;
    let request = world
        .answer(&pod, &[("spiffe-operator.io/hint", "younger")])
        .await;
    assert_eq!(verdict(&request).type_, "Issued");
    let note = world.event("default", &uid, "IdentityIssued").await;
    assert!(note.contains(&world.usual_id()), "{note}");
}

#[tokio::test]
async fn static_entries_render_mask_and_fail_as_their_statuses_say() {
    let world = World::new().await;
    let first = apply_static_entry(&world, json!({})).await;
    static_entry(&world, &first, true, false, true).await;
    world.a_second_later().await;
    let second = apply_static_entry(&world, json!({ "hint": "second" })).await;
    static_entry(&world, &second, true, true, false).await;
    let masked = condition::<ClusterStaticEntry>(&world.client, &second, "Ready", "False").await;
    assert!(masked.message.contains(&first), "{}", masked.message);
    world.entries_are(1).await;

    let broken = apply_static_entry(
        &world,
        json!({ "spiffeID": "spiffe://other.test/db", "selectors": ["unix:uid:2"] }),
    )
    .await;
    static_entry(&world, &broken, false, false, false).await;
    let stalled = condition::<ClusterStaticEntry>(&world.client, &broken, "Stalled", "True").await;
    assert!(
        stalled.message.contains("other.test"),
        "{}",
        stalled.message
    );

    let objects = Api::<ClusterStaticEntry>::all(world.client.clone());
    objects
        .delete(&first, &DeleteParams::default())
        .await
        .unwrap();
    static_entry(&world, &second, true, false, true).await;
}

#[tokio::test]
async fn an_unknown_federated_trust_domain_is_named_and_costs_nothing_else() {
    let world = World::new().await;
    let changes = json!({ "federatesWith": ["elsewhere.test", "spiffe://other.test"] });
    let name = apply_id(&world, "web", changes.clone()).await;
    let known =
        condition::<ClusterSPIFFEID>(&world.client, &name, "FederationIncomplete", "True").await;
    for domain in ["elsewhere.test", "other.test"] {
        assert!(known.message.contains(domain), "{}", known.message);
    }
    condition::<ClusterSPIFFEID>(&world.client, &name, "Ready", "True").await;
    world.issue().await;
    let name = apply_static_entry(&world, changes).await;
    condition::<ClusterStaticEntry>(&world.client, &name, "FederationIncomplete", "True").await;
    static_entry(&world, &name, true, false, true).await;
}

#[tokio::test]
async fn a_lifetime_that_the_ca_may_cut_short_is_told_until_it_is_not_so() {
    let world = World::without_trust_domain(control_plane().await).await;
    world.apply_trust_domain(json!({ "caTTL": "48h" })).await;
    let id = apply_id(&world, "web", json!({ "ttl": "9h", "jwtTtl": "8h" })).await;
    let exceeds = "TTLExceedsCA";
    let told = condition::<ClusterSPIFFEID>(&world.client, &id, exceeds, "True").await;
    assert!(
        told.message
            .starts_with("ttl of 32400s is more than 28800s: "),
        "{}",
        told.message
    );
    let entry = apply_static_entry(&world, json!({ "jwtSVIDTTL": "9h" })).await;
    let told = condition::<ClusterStaticEntry>(&world.client, &entry, exceeds, "True").await;
    assert!(told.message.starts_with("jwtSVIDTTL "), "{}", told.message);

    world.apply_trust_domain(json!({ "caTTL": "60h" })).await;
    wait_until("nothing to be cut short any more", SOON, || async {
        let ids = Api::<ClusterSPIFFEID>::all(world.client.clone());
        let id = ids.get(&id).await.unwrap().status.unwrap_or_default();
        let entries = Api::<ClusterStaticEntry>::all(world.client.clone());
        let entry = entries
            .get(&entry)
            .await
            .unwrap()
            .status
            .unwrap_or_default();
        let conditions: Vec<_> = id.conditions.into_iter().chain(entry.conditions).collect();
        let is_told = conditions.iter().any(|it| it.type_ == exceeds);
        (!is_told)
            .then_some(())
            .ok_or_else(|| format!("{conditions:?}"))
    })
    .await;
}

#[tokio::test]
async fn classes_namespaces_and_fallbacks_decide_who_is_served() {
    let world = World::new().await;
    let ours = namespace(&world.client, &[("team", &world.class)]).await;
    crate::support::service_account(&world.client, &ours, "workload").await;
    let selector = json!({ "matchLabels": { "team": world.class } });
    let other_class = json!({ "className": format!("{}-other", world.class) });
    let foreign = apply_id(&world, "foreign", other_class).await;
    let both = json!({ "matchExpressions": [{
        "key": "kubernetes.io/metadata.name", "operator": "In", "values": [ours, world.namespace],
    }]});
    let fallback = json!({
        "fallback": true, "hint": "fallback", "namespaceSelector": both,
        "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/fallback/{{ .PodMeta.Name }}",
    });
    let fallback = apply_id(&world, "fallback", fallback).await;
    let inside = pod(
        &world.client,
        &ours,
        "web",
        &world.node.name_any(),
        &[("app", "web")],
        json!({ "serviceAccountName": "workload" }),
    )
    .await;
    world.pod("web", &[("app", "web")]).await;
    world
        .cluster_spiffe_id_stats(&fallback, |stats| stats.entries_to_set == 2)
        .await;
    let main = apply_id(&world, "main", json!({ "namespaceSelector": selector })).await;
    let status = world
        .cluster_spiffe_id_stats(&main, |stats| stats.entries_to_set == 1)
        .await;
    assert_eq!(
        (status.stats.namespaces_selected, status.stats.pods_selected),
        (1, 1)
    );
    let status = world
        .cluster_spiffe_id_stats(&fallback, |stats| stats.entries_to_set == 1)
        .await;
    assert_eq!(
        status.stats.pods_selected, 2,
        "those left to others count too"
    );
    let objects = Api::<ClusterSPIFFEID>::all(world.client.clone());
    let untouched = objects.get(&foreign).await.unwrap();
    assert_eq!(
        untouched.status, None,
        "another class's object gets no status"
    );
    let uid = inside.uid().unwrap();
    let note = world.event(&ours, &uid, "IdentityRemoved").await;
    assert!(note.contains("Superseded"), "{note}");

    let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(world.client.clone());
    for (team, of_main, of_fallback) in [("nobody", 0, 2), (world.class.as_str(), 1, 1)] {
        let labels = json!({ "metadata": { "labels": { "team": team } } });
        merge_patch(&namespaces, &ours, labels).await;
        world
            .cluster_spiffe_id_stats(&main, |stats| stats.entries_to_set == of_main)
            .await;
        world
            .cluster_spiffe_id_stats(&fallback, |stats| stats.entries_to_set == of_fallback)
            .await;
    }

    world
        .apply_trust_domain(json!({ "ignoreNamespaces": [format!("^{ours}$")] }))
        .await;
    let status = world
        .cluster_spiffe_id_stats(&main, |stats| stats.entries_to_set == 0)
        .await;
    assert_eq!(
        (
            status.stats.namespaces_selected,
            status.stats.namespaces_ignored
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn services_give_their_pods_dns_names() {
    let world = World::new().await;
    let changes = json!({
        "autoPopulateDNSNames": true,
        "dnsNameTemplates": ["first.example", "{{ .PodMeta.Name }}.pods"],
    });
    apply_id(&world, "web", changes).await;
    let pod = world.pod("web", &[("app", "web")]).await;
    let ns = world.namespace.clone();
    let slice = |service: &str| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-x"), "namespace": ns,
                "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": ["10.1.2.3"],
                "targetRef": {
                    "kind": "Pod", "namespace": ns, "name": "web", "uid": pod.uid(),
                },
            }],
        })
    };
    for service in ["shop", "cart"] {
        apply(&world.client, &slice(service)).await.unwrap();
    }
    let expected: Vec<String> = ["first.example", "web.pods"]
        .map(String::from)
        .into_iter()
        .chain(["cart", "shop"].into_iter().flat_map(|service| {
            [
                service.to_owned(),
                format!("{service}.{ns}"),
                format!("{service}.{ns}.svc"),
                format!("{service}.{ns}.svc.cluster.local"),
            ]
        }))
        .collect();
    let names = async || {
        let answer = world.answer(&pod, &[]).await;
        let chain = world.verified_chain(&answer).await;
        let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        let names = names.value.general_names.iter();
        names
            .filter_map(|name| match name {
                x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    wait_until("the names of both services", SOON, || async {
        let found = names().await;
        let same = |a: &[String], b: &[String]| {
            let (mut a, mut b) = (a.to_vec(), b.to_vec());
            a.sort();
            b.sort();
            a == b && found.first().is_some_and(|name| name == "first.example")
        };
        same(&found, &expected)
            .then_some(())
            .ok_or(format!("{found:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_pod_loses_its_identity_when_it_has_ended_or_is_no_longer_matched() {
    let world = World::new().await;
    let name = apply_id(&world, "web", json!({})).await;
    let pods = Api::<Pod>::namespaced(world.client.clone(), &world.namespace);
    let kept = world.pod("kept", &[("app", "web")]).await;
    let relabelled = world.pod("relabelled", &[("app", "web")]).await;
    world.pod("finished", &[("app", "web")]).await;
    world
        .cluster_spiffe_id_stats(&name, |stats| stats.entries_to_set == 3)
        .await;

    let ended = json!({ "status": { "phase": "Succeeded" } });
    pods.patch_status("finished", &PatchParams::default(), &Patch::Merge(ended))
        .await
        .unwrap();
    merge_patch(
        &pods,
        "relabelled",
        json!({ "metadata": { "labels": { "app": "db" } } }),
    )
    .await;
    world
        .cluster_spiffe_id_stats(&name, |stats| stats.entries_to_set == 1)
        .await;
    let uid = relabelled.uid().unwrap();
    let note = world.event(&world.namespace, &uid, "IdentityRemoved").await;
    assert!(note.contains("NotSelected"), "{note}");

    // A node that goes takes no identity along.
    let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(world.client.clone());
    nodes
        .delete(&world.node.name_any(), &DeleteParams::default())
        .await
        .unwrap();
    let now = DeleteParams::default().grace_period(0);
    pods.delete("finished", &now).await.unwrap();
    let status = world
        .cluster_spiffe_id_stats(&name, |stats| stats.pods_selected == 1)
        .await;
    assert_eq!(status.stats.entries_to_set, 1);
    pods.delete(&kept.name_any(), &now).await.unwrap();
    world
        .cluster_spiffe_id_stats(&name, |stats| stats.entries_to_set == 0)
        .await;
}

#[tokio::test]
async fn an_object_that_is_served_no_more_says_so_once() {
    let world = World::new().await;
    let moved = apply_id(&world, "moved", json!({})).await;
    let left = apply_id(&world, "left", json!({})).await;
    for name in [&moved, &left] {
        condition::<ClusterSPIFFEID>(&world.client, name, "Ready", "True").await;
    }
    let elsewhere = json!({ "className": format!("{}-elsewhere", world.class) });
    apply_id(&world, "moved", elsewhere).await;
    let ready = condition::<ClusterSPIFFEID>(&world.client, &moved, "Ready", "False").await;
    assert_eq!(ready.reason, "NotServed");
    let objects = Api::<ClusterSPIFFEID>::all(world.client.clone());
    let status = objects.get(&moved).await.unwrap().status.unwrap();
    assert_eq!(status.stats, ClusterSpiffeIdStats::default());

    let trust_domains = Api::<TrustDomain>::all(world.client.clone());
    let parameters = DeleteParams::default();
    trust_domains
        .delete(&world.class, &parameters)
        .await
        .unwrap();
    let ready = condition::<ClusterSPIFFEID>(&world.client, &left, "Ready", "False").await;
    assert_eq!(ready.reason, "NotServed");
    world.apply_trust_domain(json!({})).await;
    condition::<ClusterSPIFFEID>(&world.client, &left, "Ready", "True").await;
}

#[tokio::test]
async fn a_pod_whose_entry_a_static_one_declares_already_gets_its_certificate_by_that() {
    let world = World::new().await;
    let pod = world.pod("web", &[("app", "web")]).await;
    let node = world.node.uid().unwrap();
    let declared = json!({
        "spiffeID": world.usual_id(),
        "parentID": format!(
            "spiffe://{}/spire/agent/k8s_psat/default/{node}", world.trust_domain
        ),
        "selectors": [format!("k8s:pod-uid:{}", pod.uid().unwrap())],
        "dnsNames": ["static.example"],
    });
    let entry = apply_static_entry(&world, declared).await;
    static_entry(&world, &entry, true, false, true).await;
    world.a_second_later().await;
    let name = apply_id(&world, "web", json!({})).await;
    world
        .cluster_spiffe_id_stats(&name, |stats| stats.entries_masked == 1)
        .await;
    let chain = world.verified_chain(&world.answer(&pod, &[]).await).await;
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    assert!(format!("{names:?}").contains("static.example"), "{names:?}");
    let metric = |what: &str| {
        format!(
            "spiffe_operator_{what}{{trust_domain=\"{}\",kind=\"ClusterSPIFFEID\",name=\"{name}\"}}",
            world.trust_domain
        )
    };
    let operator = crate::support::shared_operator().await;
    wait_until("the metric of masked entries", SOON, || async {
        let found = operator.metric(&metric("masked_entries")).await;
        (found == Some(1.0))
            .then_some(())
            .ok_or_else(|| format!("{found:?}"))
    })
    .await;
    assert_eq!(operator.metric(&metric("object_entries")).await, Some(0.0));
}

#[tokio::test]
async fn a_new_leader_tells_what_was_wrong_before() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let first = World::operator(&own).await;
    world.apply_trust_domain(json!({})).await;
    let template = "spiffe://{{ .TrustDomain }}/{{ .PodMeta.Labels.none }}";
    apply_id(&world, "web", json!({ "spiffeIDTemplate": template })).await;
    let uid = world.pod("web", &[("app", "web")]).await.uid().unwrap();
    world.event(&world.namespace, &uid, "InvalidSPIFFEID").await;
    let second = World::operator(&own).await;
    second.ready().await;

    let events = Api::<Event>::namespaced(world.client.clone(), &world.namespace);
    first.signal("KILL");
    first.ended(SOON).await;
    let all = ListParams::default();
    events
        .delete_collection(&DeleteParams::default(), &all)
        .await
        .unwrap();
    release_lease(&world.client).await;
    second.leads().await;
    let note = world.event(&world.namespace, &uid, "InvalidSPIFFEID").await;
    assert!(note.contains("<no value>"), "{note}");
}
