//! The rules of registration, one by one.

use std::{sync::Arc, time::Duration};

use serde_json::{Value as Json, json};

use super::*;
use crate::{
    api::{ClusterSPIFFEID, ClusterSpiffeIdSpec, ClusterStaticEntry},
    registration::{
        Entry, EntryError, FieldSet, InForce, Interner, MatchOutcome, NodeFacts, Obstacle,
        PodFacts, RemovalCause, Settings,
    },
};

const PLAIN: &str =
    "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}";

/// A registry that has seen the namespace `shop` and the node `node-1`.
struct Fixture {
    registry: Registry,
    interner: Interner,
}

impl Fixture {
    fn new() -> Self {
        let mut fixture = Self {
            registry: Registry::new(settings(&json!({}))),
            interner: Interner::default(),
        };
        fixture.namespace("shop", &json!({"team": "a"}));
        fixture.node("node-1", "node-uid-1");
        fixture
    }

    fn namespace(&mut self, name: &str, labels: &Json) {
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        self.registry
            .apply_namespace(&serde_json::from_value(namespace).unwrap());
    }

    fn node(&mut self, name: &str, uid: &str) {
        let node = serde_json::from_value(json!({"metadata": {"name": name, "uid": uid}})).unwrap();
        self.registry
            .apply_node(NodeFacts::from_node(&node, &mut self.interner).unwrap());
    }

    /// A pod in `shop` on `node-1` with its name as UID; `json` changes that.
    fn pod(&mut self, name: &str, json: &Json) -> Vec<Change> {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": "web"}},
            "spec": {"containers": [], "nodeName": "node-1", "serviceAccountName": "web"},
        });
        for (part, fields) in json.as_object().unwrap() {
            for (field, value) in fields.as_object().unwrap() {
                pod[part][field] = value.clone();
            }
        }
        let pod = serde_json::from_value(pod).unwrap();
        let keep = self.registry.needed_pod_fields();
        self.registry
            .apply_pod(PodFacts::from_pod(&pod, &keep, &mut self.interner).unwrap())
    }

    fn declare(&mut self, name: &str, spec: Json) -> Vec<Change> {
        self.declare_at(name, "2026-01-01T00:00:00Z", spec)
    }

    #[expect(clippy::needless_pass_by_value, reason = "reads better in tests")]
    fn declare_at(&mut self, name: &str, created: &str, spec: Json) -> Vec<Change> {
        self.registry
            .apply_cluster_spiffe_id(&cluster_spiffe_id(name, created, &spec), None);
        self.finish()
    }

    fn finish(&mut self) -> Vec<Change> {
        let (changes, more) = self.registry.process(usize::MAX);
        assert!(!more);
        changes
    }

    fn ids(&self, pod: &str) -> Vec<String> {
        let entries = self.registry.entries_of_pod(pod);
        entries
            .iter()
            .map(|entry| entry.spiffe_id.path().to_owned())
            .collect()
    }

    fn entry(&self, pod: &str) -> Arc<Entry> {
        let entries = self.registry.entries_of_pod(pod);
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries[0].clone()
    }

    fn report(&self, name: &str) -> crate::registration::ClusterSpiffeIdReport {
        self.registry.report_of_cluster_spiffe_id(name).unwrap()
    }
}

fn settings(json: &Json) -> Settings {
    let mut spec = json!({
        "trustDomain": "e.org",
        "clusterName": "west",
        "clusterDomain": "cluster.local",
        "authority": {"selfSigned": {}},
    });
    spec.as_object_mut()
        .unwrap()
        .extend(json.as_object().unwrap().clone());
    Settings::parse(&serde_json::from_value(spec).unwrap()).unwrap()
}

fn cluster_spiffe_id(name: &str, created: &str, spec: &Json) -> ClusterSPIFFEID {
    let mut full = json!({"spiffeIDTemplate": PLAIN});
    full.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterSPIFFEID",
        "metadata": {"name": name, "uid": name, "creationTimestamp": created, "generation": 1},
        "spec": full,
    }))
    .unwrap()
}

fn removals(changes: &[Change]) -> Vec<RemovalCause> {
    changes
        .iter()
        .filter_map(|change| match change {
            Change::Removed(_, cause) => Some(*cause),
            _ => None,
        })
        .collect()
}

#[test]
fn a_selected_pod_gets_an_entry_with_everything_in_it() {
    let mut fixture = Fixture::new();
    fixture.declare(
        "c",
        json!({
            "ttl": "1h", "jwtTtl": "5m", "hint": "main", "admin": true, "downstream": true,
            "dnsNameTemplates": ["{{ .PodMeta.Name }}.shop", "x"],
            "workloadSelectorTemplates": ["k8s:sa:{{ .PodSpec.ServiceAccountName }}"],
        }),
    );
    let changes = fixture.pod("p", &json!({}));
    let entry = fixture.entry("p");
    assert_eq!(changes, [Change::Set(entry.clone())]);
    assert_eq!(entry.spiffe_id.as_str(), "spiffe://e.org/ns/shop/sa/web");
    assert_eq!(
        entry.parent_id.as_str(),
        "spiffe://e.org/spire/agent/k8s_psat/west/node-uid-1"
    );
    let selectors: Vec<_> = entry
        .selectors
        .iter()
        .map(crate::registration::EntrySelector::as_str)
        .collect();
    assert_eq!(selectors, ["k8s:pod-uid:p", "k8s:sa:web"]);
    assert_eq!(entry.dns_names, ["p.shop", "x"]);
    assert_eq!(entry.x509_ttl, Some(Duration::from_hours(1)));
    assert_eq!(entry.jwt_ttl, Some(Duration::from_mins(5)));
    assert!(entry.admin && entry.downstream && !entry.store_svid);
    assert_eq!(
        (entry.hint.as_deref(), &*entry.source.name),
        (Some("main"), "c")
    );
    assert_eq!(entry.pod.as_ref().map(|pod| &*pod.name), Some("p"));
}

#[test]
fn an_event_that_changes_nothing_gives_no_changes() {
    let mut fixture = Fixture::new();
    fixture.declare("c", json!({}));
    fixture.pod("p", &json!({}));
    let revision = fixture.registry.revision();
    fixture.registry.take_changed_reports();
    assert_eq!(
        fixture.pod("p", &json!({"status": {"phase": "Running"}})),
        []
    );
    assert_eq!(
        fixture.pod(
            "p",
            &json!({"metadata": {"labels": {"app": "web", "x": "y"}}})
        ),
        []
    );
    assert_eq!(fixture.declare("c", json!({"hint": ""})), []);
    fixture.node("node-1", "node-uid-1");
    fixture.namespace("shop", &json!({"team": "b"}));
    assert_eq!(fixture.finish(), []);
    assert_eq!(fixture.registry.revision(), revision);
}

#[test]
fn namespace_and_pod_selectors_both_have_to_match() {
    let mut fixture = Fixture::new();
    fixture.declare(
        "c",
        json!({
            "namespaceSelector": {"matchLabels": {"team": "a"}},
            "podSelector": {"matchLabels": {"app": "web"}},
        }),
    );
    fixture.pod("p", &json!({}));
    fixture.pod("q", &json!({"metadata": {"labels": {"app": "db"}}}));
    assert_eq!((fixture.ids("p").len(), fixture.ids("q").len()), (1, 0));
    assert_eq!(
        removals(&fixture.pod("p", &json!({"metadata": {"labels": {}}}))),
        [RemovalCause::NotSelected]
    );
    fixture.pod("p", &json!({}));
    fixture.namespace("shop", &json!({"team": "b"}));
    assert_eq!(removals(&fixture.finish()), [RemovalCause::NotSelected]);
    assert_eq!(fixture.report("c").stats.namespaces_selected, 0);
}

#[test]
fn pods_in_ignored_and_unseen_namespaces_get_nothing() {
    let mut fixture = Fixture::new();
    fixture.declare("c", json!({}));
    fixture.namespace("kube-system", &json!({}));
    fixture.pod("p", &json!({"metadata": {"namespace": "kube-system"}}));
    fixture.pod("q", &json!({"metadata": {"namespace": "later"}}));
    assert_eq!(fixture.registry.entry_count(), 0);
    assert_eq!(
        fixture.registry.pod_report("p").unwrap().obstacle,
        Some(Obstacle::NamespaceIgnored)
    );
    assert_eq!(
        fixture.registry.pod_report("q").unwrap().obstacle,
        Some(Obstacle::NamespaceUnseen)
    );
    let stats = fixture.report("c").stats;
    assert_eq!(
        (
            stats.namespaces_selected,
            stats.namespaces_ignored,
            stats.pods_selected
        ),
        (2, 1, 0)
    );
    fixture.namespace("later", &json!({}));
    fixture.finish();
    assert_eq!(fixture.ids("q"), ["/ns/later/sa/web"]);
}

#[test]
fn a_finished_pod_loses_its_identity_and_a_terminating_one_keeps_it() {
    let mut fixture = Fixture::new();
    fixture.declare("c", json!({}));
    fixture.pod("p", &json!({}));
    let terminating = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    assert_eq!(fixture.pod("p", &terminating), []);
    let changes = fixture.pod("p", &json!({"status": {"phase": "Failed"}}));
    assert_eq!(removals(&changes), [RemovalCause::PodFinished]);
    assert_eq!(
        fixture.registry.pod_report("p").unwrap().obstacle,
        Some(Obstacle::Finished)
    );
    assert_eq!(fixture.report("c").stats.pods_selected, 1);
}

#[test]
fn an_unscheduled_pod_is_no_failure_and_an_unseen_node_is_one() {
    let mut fixture = Fixture::new();
    fixture.declare("c", json!({}));
    assert_eq!(fixture.pod("p", &json!({"spec": {"nodeName": ""}})), []);
    assert_eq!(fixture.report("c").stats.pod_entry_render_failures, 0);
    assert_eq!(
        fixture.registry.pod_report("p").unwrap().obstacle,
        Some(Obstacle::Unscheduled)
    );
    let changes = fixture.pod("p", &json!({"spec": {"nodeName": "node-2"}}));
    let [Change::Failed { error, .. }] = changes.as_slice() else {
        panic!("{changes:?}");
    };
    assert_eq!(
        **error,
        EntryError::NodeUnseen {
            node: "node-2".into()
        }
    );
    assert_eq!(fixture.report("c").stats.pod_entry_render_failures, 1);
    fixture.node("node-2", "two");
    assert_eq!(fixture.finish().len(), 1);
    assert_eq!(fixture.report("c").stats.pod_entry_render_failures, 0);
}

#[test]
fn a_node_that_is_gone_takes_no_identity_away() {
    let mut fixture = Fixture::new();
    fixture.declare("c", json!({}));
    fixture.pod("p", &json!({}));
    fixture.registry.delete_node("node-1");
    assert_eq!(fixture.finish(), []);
    fixture.declare("c", json!({"hint": "new"}));
    assert_eq!(fixture.entry("p").hint.as_deref(), Some("new"));
    fixture.node("node-1", "reinstalled");
    fixture.finish();
    assert!(
        fixture
            .entry("p")
            .parent_id
            .as_str()
            .ends_with("/reinstalled")
    );
}

#[test]
fn fallbacks_serve_only_pods_that_nothing_else_serves() {
    let mut fixture = Fixture::new();
    for name in ["f1", "f2"] {
        let template = format!("spiffe://e.org/{name}/{{{{ .PodMeta.Name }}}}");
        fixture.declare(
            name,
            json!({"fallback": true, "spiffeIDTemplate": template}),
        );
    }
    fixture.pod("p", &json!({}));
    assert_eq!(fixture.ids("p"), ["/f1/p", "/f2/p"]);
    let changes = fixture.declare("c", json!({"podSelector": {"matchLabels": {"app": "web"}}}));
    assert_eq!(removals(&changes), [RemovalCause::Superseded; 2]);
    assert_eq!(fixture.ids("p"), ["/ns/shop/sa/web"]);
    assert_eq!(fixture.report("f1").stats.pods_selected, 1);
    let foreign = json!({"spiffeIDTemplate": "spiffe://{{ .PodMeta.Name }}/foreign"});
    fixture.declare("c", foreign);
    assert_eq!(
        fixture.ids("p"),
        ["/f1/p", "/f2/p"],
        "a failed render leaves the pod to fallbacks"
    );
    let refused = json!({"dnsNameTemplates": ["{{ .PodMeta.Name }} is no name"]});
    fixture.declare("c", refused);
    assert_eq!(fixture.ids("p").len(), 0, "a refused entry does not");
    let stats = fixture.report("c").stats;
    assert_eq!(
        (stats.entry_failures, stats.pod_entry_render_failures),
        (1, 0)
    );
    fixture.registry.delete_cluster_spiffe_id("c");
    fixture.finish();
    assert_eq!(fixture.ids("p").len(), 2);
}

#[test]
fn a_masked_fallback_owner_still_counts_as_serving() {
    let mut fixture = Fixture::new();
    fixture.declare_at("old", "2026-01-01T00:00:00Z", json!({}));
    fixture.declare_at("young", "2026-01-02T00:00:00Z", json!({}));
    let fallback = json!({"fallback": true, "spiffeIDTemplate": "spiffe://e.org/f"});
    fixture.declare("f", fallback);
    fixture.pod("p", &json!({}));
    assert_eq!(fixture.ids("p"), ["/ns/shop/sa/web"]);
}

#[test]
fn of_equal_entries_that_of_the_oldest_object_counts() {
    let mut fixture = Fixture::new();
    fixture.declare_at("young", "2026-01-02T00:00:00Z", json!({"hint": "young"}));
    fixture.pod("p", &json!({}));
    let changes = fixture.declare_at("old", "2026-01-01T00:00:00Z", json!({"hint": "old"}));
    assert_eq!(fixture.entry("p").hint.as_deref(), Some("old"));
    assert!(
        matches!(changes.as_slice(), [Change::Masked { by, .. }, Change::Set(_)] if &*by.name == "old"),
        "{changes:?}"
    );
    let report = fixture.report("young");
    assert_eq!(
        (report.stats.entries_masked, report.stats.entries_to_set),
        (1, 0)
    );
    assert_eq!(&*report.masked_by[0].name, "old");
    let report = fixture.registry.pod_report("p").unwrap();
    assert!(matches!(report.matches[0].1, MatchOutcome::Issued(_)));
    assert!(matches!(report.matches[1].1, MatchOutcome::Masked { .. }));
    fixture.registry.delete_cluster_spiffe_id("old");
    let changes = fixture.finish();
    assert_eq!(
        (changes.len(), removals(&changes).len()),
        (1, 0),
        "it is only replaced"
    );
    assert_eq!(fixture.entry("p").hint.as_deref(), Some("young"));
    assert_eq!(fixture.report("young").masked_by, []);
}

#[test]
fn static_entries_and_cluster_spiffe_ids_compete() {
    let mut fixture = Fixture::new();
    fixture.declare_at("c", "2026-01-02T00:00:00Z", json!({}));
    fixture.pod("p", &json!({}));
    let static_entry = |created: &str, spiffe_id: &str| -> ClusterStaticEntry {
        serde_json::from_value(json!({
            "apiVersion": "spire.spiffe.io/v1alpha1",
            "kind": "ClusterStaticEntry",
            "metadata": {"name": "s", "uid": "s", "creationTimestamp": created, "generation": 3},
            "spec": {
                "spiffeID": spiffe_id,
                "parentID": "spiffe://e.org/spire/agent/k8s_psat/west/node-uid-1",
                "selectors": ["k8s:pod-uid:p"],
                "federatesWith": ["f.org", "e.org"],
            },
        }))
        .unwrap()
    };
    let id = "spiffe://e.org/ns/shop/sa/web";
    let registry = &mut fixture.registry;
    registry.apply_cluster_static_entry(&static_entry("2026-01-03T00:00:00Z", id), None);
    let report = registry.report_of_cluster_static_entry("s").unwrap();
    assert!(report.rendered() && !report.set());
    assert_eq!(
        report.masked_by.map(|by| by.name.to_string()),
        Some("c".into())
    );
    assert_eq!(
        report
            .unknown_federated
            .iter()
            .map(crate::spiffe::TrustDomainName::as_str)
            .collect::<Vec<_>>(),
        ["f.org"]
    );
    registry.apply_cluster_static_entry(&static_entry("2026-01-01T00:00:00Z", id), None);
    assert!(registry.report_of_cluster_static_entry("s").unwrap().set());
    let of_pod = registry.entries_of_pod("p");
    assert_eq!(
        (of_pod.len(), &*of_pod[0].source.name),
        (1, "s"),
        "the entry that counts is the pod's, too"
    );
    let troubles = registry.troubles();
    assert!(
        matches!(troubles.as_slice(), [Change::Masked { entry, by }]
            if &*entry.source.name == "c" && &*by.name == "s"),
        "{troubles:?}"
    );
    let broken = static_entry("2026-01-01T00:00:00Z", "spiffe://f.org/x");
    assert_eq!(registry.apply_cluster_static_entry(&broken, None), []);
    let report = registry.report_of_cluster_static_entry("s").unwrap();
    assert_eq!(
        (report.in_force, report.rendered(), report.set()),
        (InForce::LastGood(Some(3)), false, true)
    );
    assert_eq!(report.error.unwrap().reason(), "ForeignTrustDomain");
    registry.delete_cluster_static_entry("s");
    assert_eq!(&*registry.entries_of_pod("p")[0].source.name, "c");
    assert_eq!(registry.troubles(), []);
    assert!(registry.report_of_cluster_static_entry("s").is_none());
}

#[test]
fn objects_of_another_class_do_not_count() {
    let mut fixture = Fixture::new();
    fixture.pod("p", &json!({}));
    fixture.declare("c", json!({"className": "other"}));
    assert_eq!(fixture.ids("p").len(), 0);
    assert!(fixture.registry.report_of_cluster_spiffe_id("c").is_none());
    fixture
        .registry
        .set_settings(settings(&json!({"className": "other"})));
    fixture.finish();
    assert_eq!(fixture.ids("p").len(), 1);
    let changes = fixture.declare("c", json!({}));
    assert_eq!(removals(&changes), [RemovalCause::ObjectGone]);
}

#[test]
fn services_add_dns_names_behind_those_of_templates() {
    let mut fixture = Fixture::new();
    fixture.declare(
        "c",
        json!({"autoPopulateDNSNames": true, "dnsNameTemplates": ["z", "web.shop"]}),
    );
    fixture.pod("p", &json!({}));
    let slice = |name: &str, service: &str| {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop",
                "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["1.1.1.1"], "targetRef": {"kind": "Pod", "uid": "p"}}],
        }))
        .unwrap()
    };
    fixture.registry.apply_endpoint_slice(&slice("s", "web"));
    fixture.finish();
    let web = [
        "z",
        "web.shop",
        "web",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
    ];
    assert_eq!(fixture.entry("p").dns_names, web);
    fixture.registry.apply_endpoint_slice(&slice("s2", "web"));
    fixture
        .registry
        .apply_endpoint_slice(&slice("s3", "my--svc"));
    assert_eq!(fixture.finish(), [], "names that no entry may carry");
    fixture.registry.delete_endpoint_slice("shop", "s");
    assert_eq!(fixture.finish(), []);
    fixture.registry.delete_endpoint_slice("shop", "s2");
    fixture.finish();
    assert_eq!(fixture.entry("p").dns_names, ["z", "web.shop"]);
}

#[test]
fn failures_name_pod_and_value_and_leave_other_pods_alone() {
    let mut fixture = Fixture::new();
    fixture.declare(
        "c",
        json!({"spiffeIDTemplate": "spiffe://e.org/{{ .PodSpec.ServiceAccountName }}"}),
    );
    fixture.pod("good", &json!({}));
    for number in (0..12).rev() {
        let bad = json!({"spec": {"serviceAccountName": "no id"}});
        fixture.pod(&format!("bad-{number:02}"), &bad);
    }
    let report = fixture.report("c");
    assert_eq!(
        (
            report.stats.pod_entry_render_failures,
            report.stats.entries_to_set
        ),
        (12, 1)
    );
    assert_eq!(report.failing.len(), 10);
    assert_eq!(report.failing[0].name, "bad-00");
    let troubles = fixture.registry.troubles();
    assert_eq!(troubles.len(), 10);
    assert!(matches!(&troubles[0], Change::Failed { pod, .. } if &*pod.name == "bad-00"));
    assert!(
        report.failing[0].message.contains("spiffe://e.org/no id"),
        "{}",
        report.failing[0].message
    );
    let changes = fixture.pod("good", &json!({"spec": {"serviceAccountName": "no id"}}));
    assert_eq!(
        removals(&changes),
        [RemovalCause::Failed],
        "its own change is a fact"
    );
}

#[test]
fn a_broken_spec_leaves_the_last_good_one_in_force() {
    let mut fixture = Fixture::new();
    fixture.pod("p", &json!({}));
    fixture.declare("c", json!({}));
    assert_eq!(
        fixture.declare("c", json!({"spiffeIDTemplate": "{{ .Nope }}"})),
        []
    );
    let report = fixture.report("c");
    assert_eq!(report.in_force, InForce::LastGood(Some(1)));
    assert_eq!(report.error.unwrap().reason(), "InvalidTemplate");
    fixture.pod("q", &json!({}));
    assert_eq!(fixture.ids("q").len(), 1, "also for pods that come later");

    fixture.declare("never-good", json!({"ttl": "1d"}));
    assert_eq!(fixture.report("never-good").in_force, InForce::Nothing);

    let broken = cluster_spiffe_id("restarted", "2026-01-01T00:00:00Z", &json!({"ttl": "1d"}));
    let last_good = ClusterSpiffeIdSpec {
        spiffe_id_template: "spiffe://e.org/kept".into(),
        ..ClusterSpiffeIdSpec::default()
    };
    fixture
        .registry
        .apply_cluster_spiffe_id(&broken, Some(&last_good));
    fixture.finish();
    assert_eq!(
        fixture.report("restarted").in_force,
        InForce::LastGood(None)
    );
    assert_eq!(fixture.ids("p"), ["/ns/shop/sa/web", "/kept"]);
}

#[test]
fn a_spec_that_is_wrong_for_every_pod_leaves_the_last_good_one_in_force() {
    let mut fixture = Fixture::new();
    fixture.pod("p", &json!({}));
    fixture.declare("c", json!({}));
    for (changes, reason) in [
        (
            json!({"spiffeIDTemplate": "spiffe://f.org/{{ .PodMeta.Name }}"}),
            "ForeignTrustDomain",
        ),
        (
            json!({"spiffeIDTemplate": "ns/{{ .PodMeta.Namespace }}"}),
            "InvalidSPIFFEID",
        ),
        (json!({"dnsNameTemplates": ["no name!"]}), "InvalidDNSName"),
    ] {
        assert_eq!(fixture.declare("c", changes), []);
        assert_eq!(fixture.report("c").error.unwrap().reason(), reason);
        assert_eq!(fixture.ids("p"), ["/ns/shop/sa/web"]);
    }
}

#[test]
fn a_fallback_waits_while_it_is_not_known_whether_another_object_serves_the_pod() {
    let mut fixture = Fixture::new();
    let fallback = json!({"fallback": true, "spiffeIDTemplate": "spiffe://e.org/fallback"});
    fixture.declare("f", fallback);
    fixture.pod("early", &json!({}));
    let plain = FieldSet::default();
    let reads_more = json!({"spiffeIDTemplate": "spiffe://e.org/{{ .PodSpec.HostNetwork }}"});
    assert_eq!(fixture.declare("c", reads_more), []);
    assert_eq!(fixture.ids("early"), ["/fallback"], "what there was stays");
    let late = serde_json::from_value(json!({
        "metadata": {"name": "late", "namespace": "shop", "uid": "late"},
        "spec": {"containers": [], "nodeName": "node-1"},
    }));
    let late = PodFacts::from_pod(&late.unwrap(), &plain, &mut fixture.interner).unwrap();
    assert_eq!(fixture.registry.apply_pod(late), []);
    assert!(!fixture.registry.is_settled());
    fixture.pod("early", &json!({}));
    fixture.pod("late", &json!({}));
    assert!(fixture.registry.is_settled());
    assert_eq!(
        (fixture.ids("early"), fixture.ids("late")),
        (vec!["/false".to_owned()], vec!["/false".to_owned()])
    );

    let reads_more = json!({"spiffeIDTemplate": "spiffe://e.org/{{ .PodMeta.GenerateName }}x"});
    fixture.registry.delete_cluster_spiffe_id("c");
    fixture.finish();
    fixture.declare("d", reads_more);
    fixture.registry.delete_cluster_spiffe_id("d");
    fixture.finish();
    assert!(
        fixture.registry.is_settled(),
        "nothing is waited for any more"
    );
    assert_eq!(fixture.ids("early"), ["/fallback"]);
}

#[test]
fn a_new_object_of_the_same_name_inherits_nothing() {
    let mut fixture = Fixture::new();
    fixture.pod("p", &json!({}));
    fixture.declare("c", json!({}));
    let mut other = cluster_spiffe_id("c", "2026-02-01T00:00:00Z", &json!({"ttl": "1d"}));
    other.metadata.uid = Some("other".into());
    fixture.registry.apply_cluster_spiffe_id(&other, None);
    assert_eq!(removals(&fixture.finish()), [RemovalCause::ObjectGone]);
}

#[test]
fn a_template_that_reads_more_of_pods_waits_for_it_and_keeps_what_there_was() {
    let mut fixture = Fixture::new();
    fixture.declare("c", json!({}));
    fixture.pod("p", &json!({}));
    let reads_more = json!({"spiffeIDTemplate": "spiffe://e.org/{{ .PodSpec.HostNetwork }}"});
    assert_eq!(fixture.declare("c", reads_more), []);
    assert!(fixture.registry.missing_pod_detail());
    assert_eq!(fixture.report("c").waiting_pods, 1);
    assert_eq!(fixture.ids("p"), ["/ns/shop/sa/web"]);
    let expected = FieldSet {
        spec: ["hostNetwork"].into(),
        ..FieldSet::default()
    };
    assert_eq!(fixture.registry.needed_pod_fields(), expected);
    assert_eq!(
        removals(&fixture.pod("p", &json!({}))),
        [RemovalCause::Rewritten]
    );
    assert!(!fixture.registry.missing_pod_detail());
    assert_eq!(fixture.ids("p"), ["/false"]);
}

#[test]
fn a_pod_that_goes_takes_its_entries_with_it() {
    let mut fixture = Fixture::new();
    fixture.declare("c", json!({}));
    fixture.pod("p", &json!({}));
    assert_eq!(
        removals(&fixture.registry.delete_pod("p")),
        [RemovalCause::PodGone]
    );
    assert_eq!(fixture.registry.delete_pod("p"), []);
    assert_eq!(
        (fixture.registry.entry_count(), fixture.registry.pod_count()),
        (0, 0)
    );
    assert_eq!(fixture.registry.pod_report("p"), None);
}

#[test]
fn a_change_of_many_pods_is_done_in_slices() {
    let mut fixture = Fixture::new();
    for number in 0..10 {
        fixture.pod(&format!("p{number}"), &json!({}));
    }
    let object = cluster_spiffe_id("c", "2026-01-01T00:00:00Z", &json!({}));
    fixture.registry.apply_cluster_spiffe_id(&object, None);
    let (changes, more) = fixture.registry.process(4);
    assert_eq!((changes.len(), more), (4, true));
    let (changes, more) = fixture.registry.process(100);
    assert_eq!((changes.len(), more), (6, false));
}

#[test]
fn foreign_trust_domains_are_reported_and_entries_do_without() {
    let mut fixture = Fixture::new();
    fixture.declare(
        "c",
        json!({"federatesWith": ["f.org", "spiffe://f.org", "e.org", "g.org"]}),
    );
    fixture.pod("p", &json!({}));
    let unknown: Vec<_> = fixture
        .report("c")
        .unknown_federated
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(unknown, ["f.org", "g.org"]);
    assert_eq!(fixture.entry("p").federates_with, []);
}

#[test]
fn entries_are_made_again_when_a_foreign_bundle_comes_or_goes_and_no_others() {
    let mut fixture = Fixture::new();
    fixture.declare("c", json!({"federatesWith": ["g.org", "f.org"]}));
    let other = json!({"federatesWith": ["h.org"], "spiffeIDTemplate": "spiffe://e.org/other"});
    fixture.declare("d", other);
    fixture.pod("p", &json!({}));
    fixture.registry.take_changed_reports();
    let first = fixture.registry.entries_of_pod("p")[0].clone();
    let known = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    for (bundles, unknown) in [
        (&["f.org"][..], &["g.org"][..]),
        (&["f.org", "g.org"], &[]),
        (&[], &["g.org", "f.org"]),
    ] {
        let at_once = fixture.registry.set_foreign_bundles(known(bundles));
        assert_eq!(at_once, [], "pods have their turn");
        let changes = fixture.finish();
        let [Change::Set(entry)] = changes.as_slice() else {
            panic!("{changes:?}");
        };
        let mut names: Vec<_> = entry
            .federates_with
            .iter()
            .map(ToString::to_string)
            .collect();
        names.sort();
        assert_eq!(names, bundles);
        assert_eq!(entry.id, first.id);
        let is_new = entry.revision != first.revision;
        assert_eq!(is_new, !bundles.is_empty(), "a function of content");
        let missing = fixture.report("c").unknown_federated;
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        assert_eq!(missing, unknown);
        let reports = fixture.registry.take_changed_reports();
        assert_eq!(reports, [(SourceKind::ClusterSpiffeId, "c".into())].into());
    }
    let unrelated = fixture.registry.set_foreign_bundles(known(&["i.org"]));
    assert_eq!((unrelated, fixture.finish()), (vec![], vec![]));
}

#[test]
fn reports_that_change_are_named_once() {
    let mut fixture = Fixture::new();
    fixture.declare("c", json!({}));
    fixture.declare("d", json!({"podSelector": {"matchLabels": {"app": "db"}}}));
    fixture.registry.take_changed_reports();
    fixture.pod("p", &json!({}));
    let changed = fixture.registry.take_changed_reports();
    assert_eq!(changed, [(SourceKind::ClusterSpiffeId, "c".into())].into());
    assert_eq!(fixture.registry.take_changed_reports().len(), 0);
}

#[test]
fn a_parent_id_that_cannot_be_is_a_failure_of_the_nodes_pods() {
    let mut fixture = Fixture::new();
    fixture.registry.set_settings(settings(
        &json!({"parentIDTemplate": "spiffe://{{ .NodeMeta.Name }}/x"}),
    ));
    fixture.declare("c", json!({}));
    let changes = fixture.pod("p", &json!({}));
    let [Change::Failed { error, .. }] = changes.as_slice() else {
        panic!("{changes:?}");
    };
    assert_eq!(error.reason(), "ForeignTrustDomain");
    assert!(error.to_string().contains("spiffe://node-1/x"), "{error}");
}
