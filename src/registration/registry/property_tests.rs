//! The registry against a render of everything from scratch, after random histories.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{prelude::*, sample::select};
use serde_json::{Value as Json, json};

use super::{
    naive::{Rendered, World},
    *,
};
use crate::{
    api::{ClusterSPIFFEID, ClusterStaticEntry, TrustDomainSpec},
    registration::{
        Entry, EntryId, EntryKey, EntrySelector, FieldSet, Interner, NodeFacts,
        ParsedClusterSpiffeId, ParsedStaticEntry, PodFacts, Registered, Source, SourceKind,
    },
};

/// A thing that can happen.
#[derive(Clone, Debug)]
enum Event {
    Pod(Json),
    PodGone(String),
    Namespace(String, Json),
    NamespaceGone(String),
    Node(Json),
    NodeGone(String),
    Slice(Json),
    SliceGone(String, String),
    ClusterSpiffeId(Json),
    ClusterSpiffeIdGone(String),
    StaticEntry(Json),
    StaticEntryGone(String),
    RegistrationEntry(Json),
    RegistrationEntryGone(String),
    /// It is that late now, unless it is later.
    Clock(i64),
    Settings(Json),
    /// The bundles of these foreign trust domains are known, and no others.
    ForeignBundles(Vec<&'static str>),
    /// Marked pods get so much of their turn.
    Process(usize),
    /// All marked pods get their turn, and everything is compared.
    Compare,
}

impl Event {
    /// Which object it is about.
    fn subject(&self) -> String {
        let meta = |json: &Json| {
            format!(
                "{} {}",
                json["metadata"]["namespace"], json["metadata"]["name"]
            )
        };
        match self {
            Self::Pod(json) => format!("pod {}", json["metadata"]["uid"]),
            Self::Namespace(name, _) => format!("namespace {name}"),
            Self::Node(json) => format!("node {}", meta(json)),
            Self::Slice(json) => format!("slice {}", meta(json)),
            Self::ClusterSpiffeId(json) => format!("csid {}", meta(json)),
            Self::StaticEntry(json) => format!("cse {}", meta(json)),
            Self::RegistrationEntry(json) => format!("re {}", meta(json)),
            Self::ForeignBundles(_) => "foreign bundles".into(),
            other => format!("{other:?}"),
        }
    }
}

fn settings(json: &Json) -> Settings {
    let mut spec = json!({
        "trustDomain": "e.org",
        "clusterName": "west",
        "clusterDomain": "cluster.local",
        "className": "ours",
        "watchClassless": true,
        "ignoreNamespaces": ["^n2$"],
        "authority": {"selfSigned": {}},
    });
    spec.as_object_mut()
        .unwrap()
        .extend(json.as_object().unwrap().clone());
    let spec: TrustDomainSpec = serde_json::from_value(spec).unwrap();
    Settings::parse(&spec).unwrap()
}

/// What the registry and the yardstick are told, and the sum of what the registry said.
struct Both {
    registry: Registry,
    world: World,
    /// Objects as they were seen last, with the last good spec of each.
    cluster_spiffe_ids: BTreeMap<String, (ClusterSPIFFEID, Option<Arc<ParsedClusterSpiffeId>>)>,
    static_entries: BTreeMap<String, (ClusterStaticEntry, Option<Arc<ParsedStaticEntry>>)>,
    nodes_gone: Vec<String>,
    settings: Json,
    interner: Interner,
    sum: BTreeMap<EntryKey, Arc<Entry>>,
    set_or_removed: u64,
}

impl Both {
    fn new() -> Self {
        Self {
            registry: Registry::new(settings(&json!({}))),
            world: World::default(),
            cluster_spiffe_ids: BTreeMap::new(),
            static_entries: BTreeMap::new(),
            nodes_gone: Vec::new(),
            settings: json!({}),
            interner: Interner::default(),
            sum: BTreeMap::new(),
            set_or_removed: 0,
        }
    }

    fn take(&mut self, event: &Event) {
        let changes = match event {
            Event::Pod(json) => {
                let pod = serde_json::from_value(json.clone()).unwrap();
                let keep = FieldSet {
                    spec: ["hostNetwork"].into(),
                    ..FieldSet::default()
                };
                let facts = PodFacts::from_pod(&pod, &keep, &mut self.interner).unwrap();
                self.world.pods.insert(facts.uid.to_string(), facts.clone());
                self.registry.apply_pod(facts)
            }
            Event::PodGone(uid) => {
                self.world.pods.remove(uid);
                self.registry.delete_pod(uid)
            }
            Event::ClusterSpiffeId(json) => {
                self.take_cluster_spiffe_id(json);
                Vec::new()
            }
            Event::ClusterSpiffeIdGone(name) => {
                self.cluster_spiffe_ids.remove(name);
                self.registry.delete_cluster_spiffe_id(name);
                Vec::new()
            }
            Event::StaticEntry(json) => self.take_static_entry(json),
            Event::StaticEntryGone(name) => {
                self.static_entries.remove(name);
                self.registry.delete_cluster_static_entry(name)
            }
            Event::RegistrationEntry(json) => {
                let entry = registration_entry_of(json);
                let name = entry.source.name.to_string();
                self.world.registered.insert(name, entry.clone());
                self.registry
                    .apply_registration_entry(&entry, self.world.now)
            }
            Event::RegistrationEntryGone(name) => {
                self.world.registered.remove(name);
                self.registry.delete_registration_entry(name)
            }
            Event::Clock(now) => {
                self.world.now = self.world.now.max(*now);
                self.registry.expire_entries(self.world.now)
            }
            Event::Settings(json) => {
                self.settings = json.clone();
                self.registry.set_settings(settings(json))
            }
            Event::ForeignBundles(names) => {
                let known = names.iter().map(|name| name.parse().unwrap());
                self.world.foreign = known.collect();
                self.registry
                    .set_foreign_bundles(self.world.foreign.clone())
            }
            Event::Process(budget) => self.registry.process(*budget).0,
            Event::Compare => {
                self.compare();
                Vec::new()
            }
            other => {
                self.take_surroundings(other);
                Vec::new()
            }
        };
        self.add(changes);
        let world = &mut self.world;
        self.nodes_gone.retain(|node| {
            let is_used = world.pods.values().any(|pod| *pod.node == **node);
            if !is_used {
                world.nodes.remove(node);
            }
            is_used
        });
    }

    fn take_surroundings(&mut self, event: &Event) {
        match event {
            Event::Namespace(name, labels) => {
                let object = json!({"metadata": {"name": name, "labels": labels}});
                let object: k8s_openapi::api::core::v1::Namespace =
                    serde_json::from_value(object).unwrap();
                let labels = self.interner.labels(object.metadata.labels.as_ref());
                self.world.namespaces.insert(name.clone(), labels);
                self.registry.apply_namespace(&object);
            }
            Event::NamespaceGone(name) => {
                self.world.namespaces.remove(name);
                self.registry.delete_namespace(name);
            }
            Event::Node(json) => {
                let node = serde_json::from_value(json.clone()).unwrap();
                let facts = NodeFacts::from_node(&node, &mut self.interner).unwrap();
                self.nodes_gone.retain(|name| **name != *facts.name);
                self.world
                    .nodes
                    .insert(facts.name.to_string(), facts.clone());
                self.registry.apply_node(facts);
            }
            Event::NodeGone(name) => {
                if self.world.nodes.contains_key(name) {
                    self.nodes_gone.push(name.clone());
                }
                self.registry.delete_node(name);
            }
            Event::Slice(json) => {
                let meta = &json["metadata"];
                let text = |json: &Json| json.as_str().unwrap().to_owned();
                let service = text(&meta["labels"]["kubernetes.io/service-name"]);
                let endpoints = json["endpoints"].as_array().unwrap().iter();
                let pods = endpoints
                    .map(|endpoint| text(&endpoint["targetRef"]["uid"]))
                    .collect();
                let name = (text(&meta["namespace"]), text(&meta["name"]));
                self.world.slices.insert(name, (service, pods));
                self.registry
                    .apply_endpoint_slice(&serde_json::from_value(json.clone()).unwrap());
            }
            Event::SliceGone(namespace, name) => {
                self.world.slices.remove(&(namespace.clone(), name.clone()));
                self.registry.delete_endpoint_slice(namespace, name);
            }
            _ => {}
        }
    }

    fn take_cluster_spiffe_id(&mut self, json: &Json) {
        let object: ClusterSPIFFEID = serde_json::from_value(json.clone()).unwrap();
        self.registry.apply_cluster_spiffe_id(&object, None);
        let name = object.metadata.name.clone().unwrap();
        let before = self.cluster_spiffe_ids.remove(&name);
        let kept = before
            .filter(|(before, _)| before.metadata.uid == object.metadata.uid)
            .and_then(|(_, good)| good);
        let good = ParsedClusterSpiffeId::parse(&object.spec, &"e.org".parse().unwrap())
            .ok()
            .map(Arc::new)
            .or(kept);
        self.cluster_spiffe_ids.insert(name, (object, good));
    }

    fn take_static_entry(&mut self, json: &Json) -> Vec<Change> {
        let object: ClusterStaticEntry = serde_json::from_value(json.clone()).unwrap();
        let changes = self.registry.apply_cluster_static_entry(&object, None);
        let name = object.metadata.name.clone().unwrap();
        let before = self.static_entries.remove(&name);
        let kept = before
            .filter(|(before, _)| before.metadata.uid == object.metadata.uid)
            .and_then(|(_, good)| good);
        let trust_domain = "e.org".parse().unwrap();
        let parsed = ParsedStaticEntry::parse(&object.spec, &trust_domain);
        self.static_entries
            .insert(name, (object, parsed.ok().map(Arc::new).or(kept)));
        changes
    }

    fn add(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Set(entry) => {
                    let old = self.sum.insert(entry.key, entry.clone());
                    assert_ne!(old, Some(entry), "a change that changes nothing");
                    self.set_or_removed += 1;
                }
                Change::Removed(entry, _) => {
                    assert_eq!(
                        self.sum.remove(&entry.key),
                        Some(entry),
                        "removed what was not set"
                    );
                    self.set_or_removed += 1;
                }
                Change::Failed { .. } | Change::Masked { .. } => {}
            }
        }
    }

    /// Lets the registry finish and compares everything.
    fn compare(&mut self) {
        loop {
            let (changes, more) = self.registry.process(1000);
            self.add(changes);
            if !more {
                break;
            }
        }
        let settings = settings(&self.settings);
        self.world.cluster_spiffe_ids.clear();
        self.world.static_entries.clear();
        for (name, (object, good)) in &self.cluster_spiffe_ids {
            let is_served = settings.serves(object.spec.class_name.as_deref());
            assert_eq!(
                self.registry.report_of_cluster_spiffe_id(name).is_some(),
                is_served
            );
            if let (Some(good), true) = (good, is_served) {
                let source = source(SourceKind::ClusterSpiffeId, &object.metadata);
                self.world
                    .cluster_spiffe_ids
                    .insert(name.clone(), (source, good.clone()));
            }
        }
        for (name, (object, good)) in &self.static_entries {
            if let (Some(good), true) = (good, settings.serves(object.spec.class_name.as_deref())) {
                let source = source(SourceKind::ClusterStaticEntry, &object.metadata);
                self.world
                    .static_entries
                    .insert(name.clone(), (source, good.clone()));
            }
        }
        let expected = self.world.render(&settings);
        let state: BTreeMap<_, _> = self
            .registry
            .entries()
            .map(|entry| (entry.key, (**entry).clone()))
            .collect();
        assert_eq!(state, expected.entries);
        let sum: BTreeMap<_, _> = self
            .sum
            .iter()
            .map(|(key, entry)| (*key, (**entry).clone()))
            .collect();
        assert_eq!(sum, expected.entries, "the sum of the changes");
        assert_eq!(self.registry.revision(), self.set_or_removed);
        for (name, stats) in &expected.stats {
            let report = self.registry.report_of_cluster_spiffe_id(name).unwrap();
            assert_eq!(&report.stats, stats, "{name}");
            let mut unknown = self.world.cluster_spiffe_ids[name].1.federates_with.clone();
            unknown.retain(|it| it.as_str() != "e.org" && !self.world.foreign.contains(it));
            assert_eq!(report.unknown_federated, unknown, "{name}");
            let failing: Vec<_> = report
                .failing
                .into_iter()
                .map(|pod| (pod.namespace, pod.name, pod.message))
                .collect();
            assert_eq!(failing, expected.failing[name], "{name}");
        }
        self.compare_queries(&expected);
        for uid in self.world.pods.keys() {
            let of_pod = self.registry.entries_of_pod(uid);
            let keys: Vec<_> = of_pod.iter().map(|entry| entry.key).collect();
            let distinct: BTreeSet<_> = keys.iter().copied().collect();
            assert_eq!(keys.len(), distinct.len(), "{uid}");
            let expected = expected.of_pods.get(uid).cloned().unwrap_or_default();
            assert_eq!(distinct, expected, "{uid}");
            assert!(of_pod.iter().all(|entry| state[&entry.key] == **entry));
        }
        assert!(
            self.registry
                .tallies
                .keys()
                .all(|name| self.cluster_spiffe_ids.contains_key(&**name))
        );
    }
}

impl Both {
    /// Compares what agents and tools find.
    fn compare_queries(&mut self, expected: &Rendered) {
        let registry = &mut self.registry;
        let entries: BTreeMap<_, _> = expected
            .entries
            .values()
            .map(|entry| (&entry.id, entry))
            .collect();
        assert_eq!(entries.len(), expected.entries.len(), "IDs are distinct");
        let listed: Vec<_> = registry.entries_after(None).map(|it| &it.id).collect();
        assert!(
            listed
                .iter()
                .eq(&entries.keys().copied().collect::<Vec<_>>())
        );
        for (at, (id, entry)) in entries.iter().enumerate() {
            assert!(entry.revision > 0);
            assert_eq!(registry.entry(id).map(|it| &**it), Some(*entry));
            assert_eq!(registry.same_entry(entry).map(|it| &**it), Some(*entry));
            let rest = registry.entries_after(Some(id)).count();
            assert_eq!(rest, entries.len() - at - 1);
            for right in [Right::Admin, Right::Downstream] {
                let gives = |other: &Entry| {
                    other.spiffe_id == entry.spiffe_id
                        && match right {
                            Right::Admin => other.admin,
                            Right::Downstream => other.downstream,
                        }
                };
                let expected = entries.values().any(|other| gives(other));
                assert_eq!(registry.gives_right(&entry.spiffe_id, right), expected);
            }
        }
        let ids: Vec<_> = entries.keys().copied().cloned().collect();
        for agent in ["k8s_psat/west/node-uid-0", "x509pop/other"] {
            let agent = format!("spiffe://e.org/spire/agent/{agent}")
                .parse()
                .unwrap();
            for selectors in [&[][..], &["n:a"], &["n:a", "n:b"]] {
                let selectors: BTreeSet<_> = selectors
                    .iter()
                    .map(|selector| EntrySelector::parse(selector).unwrap())
                    .collect();
                let found = registry.authorized_entries(&agent, &selectors);
                let found_ids: BTreeSet<_> = found.iter().map(|it| it.id.clone()).collect();
                assert_eq!(found.len(), found_ids.len(), "each once");
                assert_eq!(found_ids, expected.authorized(&agent, &selectors));
                let among = registry.authorized_among(&agent, &selectors, &ids);
                let among: BTreeSet<_> = among
                    .into_iter()
                    .flatten()
                    .map(|it| it.id.clone())
                    .collect();
                assert_eq!(among, found_ids);
                let written = registry.authorized_blocks(&agent, &selectors, write);
                let mut written: Vec<_> = written.iter().map(|it| it.to_vec()).collect();
                written.sort();
                let mut anew = write(&mut found.iter().map(|it| &**it));
                anew.sort();
                assert!(written.iter().eq(anew.iter().map(|it| &**it)));
            }
        }
    }
}

/// A block for each entry.
fn write(entries: &mut dyn Iterator<Item = &Entry>) -> Vec<Arc<[u8]>> {
    let blocks = entries.map(|it| format!("{} {}", it.id, it.revision));
    blocks.map(|block| block.as_bytes().into()).collect()
}

/// The entry that a RegistrationEntry with this JSON makes.
fn registration_entry_of(json: &Json) -> Arc<Entry> {
    let object: ClusterStaticEntry = serde_json::from_value(json.clone()).unwrap();
    let spec = ParsedStaticEntry::parse(&object.spec, &"e.org".parse().unwrap()).unwrap();
    let source = source(SourceKind::RegistrationEntry, &object.metadata);
    let id = EntryId::chosen(&source.name).unwrap();
    let registered = Registered {
        generation: 1,
        expires_at: json["expiresAt"].as_i64(),
        attributes: None,
    };
    let entry = Entry {
        id,
        registered: Some(Box::new(registered)),
        ..spec.entry(source, "")
    };
    Arc::new(entry.with_revision())
}

fn source(
    kind: SourceKind,
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> Arc<Source> {
    Arc::new(Source {
        kind,
        name: meta.name.as_deref().unwrap().into(),
        uid: meta.uid.as_deref().unwrap().into(),
        created: meta.creation_timestamp.as_ref().unwrap().0.as_second(),
        deleted: meta
            .deletion_timestamp
            .as_ref()
            .map(|time| time.0.as_second()),
    })
}

fn labels() -> impl Strategy<Value = Json> {
    select(vec![
        json!({}),
        json!({"a": "1"}),
        json!({"a": "2"}),
        json!({"a": "1", "b": "1"}),
    ])
}

fn label_selector() -> impl Strategy<Value = Json> {
    let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    select(vec![
        Json::Null,
        Json::Null,
        Json::Null,
        json!({}),
        json!({}),
        json!({}),
        json!({"matchLabels": {"a": "1"}}),
        json!({"matchLabels": {"a": "2"}}),
        expression("a", "In", &["1", "2"]),
        expression("b", "NotIn", &["1"]),
        expression("b", "Exists", &[]),
        expression("b", "DoesNotExist", &[]),
    ])
}

fn time() -> impl Strategy<Value = &'static str> {
    select(vec!["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])
}

fn pod() -> impl Strategy<Value = Event> {
    (
        0..6u8,
        labels(),
        select(vec!["", "node0", "node0", "node1", "node1", "node2"]),
        select(vec!["sa", "sa", "sa", "other", "bad sa"]),
        select(vec![
            "Running",
            "Running",
            "Running",
            "Pending",
            "Succeeded",
            "Failed",
        ]),
        any::<bool>(),
    )
        .prop_map(|(number, labels, node, account, phase, host_network)| {
            Event::Pod(json!({
                "metadata": {
                    "name": format!("p{number}"),
                    "namespace": format!("n{}", number % 3),
                    "uid": format!("uid-{number}"),
                    "labels": labels,
                },
                "spec": {
                    "containers": [],
                    "nodeName": node,
                    "serviceAccountName": account,
                    "hostNetwork": host_network,
                },
                "status": {"phase": phase},
            }))
        })
}

fn cluster_spiffe_id() -> impl Strategy<Value = Event> {
    let templates = select(vec![
        "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}",
        "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}",
        "spiffe://e.org/pod/{{ .PodMeta.Name }}",
        "spiffe://e.org/pod/{{ .PodMeta.Name }}",
        "spiffe://e.org/uid/{{ .PodMeta.UID }}",
        "spiffe://e.org/uid/{{ .PodMeta.UID }}",
        "spiffe://e.org/label/{{ .PodMeta.Labels.a }}",
        "spiffe://e.org/host/{{ .PodSpec.HostNetwork }}",
        "spiffe://e.org{{ with index .PodMeta.Labels \"b\" }}/b{{ end }}",
        "spiffe://{{ if .PodSpec.HostNetwork }}f.org{{ else }}e.org{{ end }}/x",
        "{{ .Nope }}",
        "{{",
    ]);
    let extras = select(vec![
        json!({}),
        json!({}),
        json!({"dnsNameTemplates": ["{{ .PodMeta.Name }}", "{{ .PodMeta.Name }}"]}),
        json!({"dnsNameTemplates": ["{{ .PodMeta.Labels.b }}"]}),
        json!({"autoPopulateDNSNames": true}),
        json!({"autoPopulateDNSNames": true}),
        json!({"autoPopulateDNSNames": true}),
        json!({"autoPopulateDNSNames": true, "dnsNameTemplates": ["s1.n0"]}),
        json!({"workloadSelectorTemplates": ["k8s:x:{{ .PodMeta.Labels.a }}", "k8s:pod-uid:{{ .PodMeta.UID }}"]}),
        json!({"workloadSelectorTemplates": ["{{ index .PodMeta.Labels \"a\" }}:x"]}),
        json!({"federatesWith": ["f.org"]}),
        json!({"federatesWith": ["g.org", "e.org", "f.org"]}),
        json!({"ttl": "1d"}),
        json!({"ttl": "1h", "hint": "h", "admin": true}),
    ]);
    let class = select(vec![Json::Null, Json::Null, json!("ours"), json!("theirs")]);
    let deleted = select(vec![
        None,
        None,
        Some("2026-02-01T00:00:00Z"),
        Some("2026-02-02T00:00:00Z"),
    ]);
    (
        (0..4u8, 0..2u8, time(), deleted),
        (templates, extras, class),
        (label_selector(), label_selector(), any::<bool>()),
    )
        .prop_map(
            |(
                (number, generation, created, deleted),
                (template, extras, class),
                (namespaces, pods, fallback),
            )| {
                let mut spec = json!({
                    "spiffeIDTemplate": template,
                    "className": class,
                    "namespaceSelector": namespaces,
                    "podSelector": pods,
                    "fallback": fallback,
                });
                spec.as_object_mut()
                    .unwrap()
                    .extend(extras.as_object().unwrap().clone());
                Event::ClusterSpiffeId(json!({
                    "apiVersion": "spire.spiffe.io/v1alpha1",
                    "kind": "ClusterSPIFFEID",
                    "metadata": {
                        "name": format!("csid-{number}"),
                        "uid": format!("{number}-{generation}"),
                        "creationTimestamp": created,
                        "deletionTimestamp": deleted,
                    },
                    "spec": spec,
                }))
            },
        )
}

/// An object with the spec of a ClusterStaticEntry.
fn one_entry() -> impl Strategy<Value = Json> {
    let ids = select(vec![
        "spiffe://e.org/ns/n0/sa/sa",
        "spiffe://e.org/label/1",
        "spiffe://e.org/alias",
        "spiffe://e.org/alias",
    ]);
    let parents = select(vec![
        "spiffe://e.org/spire/agent/k8s_psat/west/node-uid-0",
        "spiffe://e.org/spire/agent/k8s_psat/west/node-uid-0",
        "spiffe://e.org/spire/server",
        "spiffe://e.org/spire/server",
        "spiffe://e.org/alias",
        "spiffe://e.org/label/1",
    ]);
    let selectors = (0..6u8, select(vec![0, 0, 1, 2, 2])).prop_map(|(pod, kind)| match kind {
        0 => vec![format!("k8s:pod-uid:uid-{pod}")],
        1 => vec!["n:b".to_owned(), "n:a".to_owned()],
        _ => vec!["n:a".to_owned()],
    });
    let federates_with = select(vec![
        json!([]),
        json!(["f.org"]),
        json!(["e.org", "g.org", "f.org"]),
    ]);
    let contents = (ids, parents, selectors, federates_with);
    (contents, time(), any::<(bool, bool)>()).prop_map(
        |((id, parent, selectors, federates_with), created, (admin, downstream))| {
            json!({
                "metadata": {"creationTimestamp": created},
                "spec": {
                    "spiffeID": id,
                    "parentID": parent,
                    "selectors": selectors,
                    "federatesWith": federates_with,
                    "admin": admin,
                    "downstream": downstream,
                },
            })
        },
    )
}

fn static_entry() -> impl Strategy<Value = Event> {
    let ids = select(vec![
        None,
        None,
        None,
        None,
        Some("spiffe://f.org/foreign"),
        Some("nonsense"),
    ]);
    let class = select(vec![Json::Null, json!("ours"), json!("theirs")]);
    (0..4u8, ids, class, one_entry()).prop_map(|(number, id, class, mut object)| {
        object["apiVersion"] = json!("spire.spiffe.io/v1alpha1");
        object["kind"] = json!("ClusterStaticEntry");
        object["metadata"]["name"] = json!(format!("cse-{number}"));
        object["metadata"]["uid"] = json!(format!("0{number}"));
        object["spec"]["className"] = class;
        if let Some(id) = id {
            object["spec"]["spiffeID"] = json!(id);
        }
        Event::StaticEntry(object)
    })
}

fn registration_entry() -> impl Strategy<Value = Event> {
    let expiry = select(vec![None, None, Some(100), Some(200)]);
    (0..4u8, expiry, one_entry()).prop_map(|(number, expiry, mut object)| {
        object["apiVersion"] = json!("spire.spiffe.io/v1alpha1");
        object["kind"] = json!("ClusterStaticEntry");
        object["metadata"]["name"] = json!(format!("re-{number}"));
        object["metadata"]["uid"] = json!(format!("1{number}"));
        object["expiresAt"] = json!(expiry);
        Event::RegistrationEntry(object)
    })
}

fn slice() -> impl Strategy<Value = Event> {
    let pods = prop::collection::vec(0..6u8, 0..4);
    (
        0..3u8,
        0..3u8,
        select(vec!["s1", "s1", "s2", "s2", "Bad_svc!"]),
        pods,
    )
        .prop_map(|(namespace, name, service, pods)| {
            // Most of them pods of the slice's own namespace.
            let in_namespace = |pod: u8| {
                if pod < 4 {
                    namespace + 3 * (pod % 2)
                } else {
                    pod
                }
            };
            let endpoints: Vec<_> = pods
                .into_iter()
                .map(in_namespace)
                .map(|pod| {
                    json!({"addresses": ["1.1.1.1"],
                        "targetRef": {"kind": "Pod", "uid": format!("uid-{pod}")}})
                })
                .collect();
            Event::Slice(json!({
                "metadata": {
                    "namespace": format!("n{namespace}"),
                    "name": format!("slice-{name}"),
                    "labels": {"kubernetes.io/service-name": service},
                },
                "addressType": "IPv4",
                "endpoints": endpoints,
            }))
        })
}

fn node() -> impl Strategy<Value = Event> {
    (0..3u8, select(vec!["", "", "", "-new", " bad"])).prop_map(|(number, suffix)| {
        Event::Node(json!({"metadata": {
            "name": format!("node{number}"),
            "uid": format!("node-uid-{number}{suffix}"),
        }}))
    })
}

fn namespace() -> impl Strategy<Value = Event> {
    (0..3u8, labels()).prop_map(|(number, labels)| Event::Namespace(format!("n{number}"), labels))
}

fn foreign_bundles() -> impl Strategy<Value = Event> {
    select(vec![
        vec![],
        vec!["f.org"],
        vec!["g.org"],
        vec!["f.org", "g.org"],
    ])
    .prop_map(Event::ForeignBundles)
}

fn event() -> impl Strategy<Value = Event> {
    let settings = select(vec![
        json!({}),
        json!({"className": "theirs"}),
        json!({"watchClassless": false, "ignoreNamespaces": []}),
        json!({"parentIDTemplate": "spiffe://e.org/node/{{ .NodeMeta.Name }}"}),
    ]);
    prop_oneof![
        8 => pod(),
        1 => (0..6u8).prop_map(|number| Event::PodGone(format!("uid-{number}"))),
        3 => namespace(),
        1 => (0..3u8).prop_map(|number| Event::NamespaceGone(format!("n{number}"))),
        3 => node(),
        1 => (0..3u8).prop_map(|number| Event::NodeGone(format!("node{number}"))),
        3 => slice(),
        1 => (0..3u8, 0..3u8).prop_map(|(namespace, name)| {
            Event::SliceGone(format!("n{namespace}"), format!("slice-{name}"))
        }),
        6 => cluster_spiffe_id(),
        2 => (0..4u8).prop_map(|number| Event::ClusterSpiffeIdGone(format!("csid-{number}"))),
        2 => static_entry(),
        1 => (0..4u8).prop_map(|number| Event::StaticEntryGone(format!("cse-{number}"))),
        3 => registration_entry(),
        1 => (0..4u8).prop_map(|number| Event::RegistrationEntryGone(format!("re-{number}"))),
        1 => select(vec![100, 200]).prop_map(Event::Clock),
        1 => settings.prop_map(Event::Settings),
        3 => foreign_bundles(),
        3 => (0..4usize).prop_map(Event::Process),
        8 => Just(Event::Compare),
    ]
}

/// Events after which pods of all namespaces run on nodes that are known.
fn running_cluster() -> Vec<Event> {
    let namespaces = (0..3).map(|at| Event::Namespace(format!("n{at}"), json!({})));
    let nodes = (0..2).map(|at| {
        Event::Node(json!({"metadata": {
            "name": format!("node{at}"),
            "uid": format!("node-uid-{at}"),
        }}))
    });
    let pods = (0..6).map(|at| {
        Event::Pod(json!({
            "metadata": {
                "name": format!("p{at}"),
                "namespace": format!("n{}", at % 3),
                "uid": format!("uid-{at}"),
                "labels": {"a": "1"},
            },
            "spec": {"containers": [], "nodeName": format!("node{}", at % 2), "serviceAccountName": "sa"},
        }))
    });
    namespaces.chain(nodes).chain(pods).collect()
}

fn arrival() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => pod(),
        2 => namespace(),
        2 => node(),
        2 => slice(),
        4 => cluster_spiffe_id(),
        2 => static_entry(),
        2 => registration_entry(),
        1 => foreign_bundles(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn after_any_history_the_entries_are_those_of_a_render_from_scratch(
        is_running in any::<bool>(),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut both = Both::new();
        let first = if is_running { running_cluster() } else { Vec::new() };
        for event in first.iter().chain(&events) {
            both.take(event);
        }
        both.compare();
    }

    #[test]
    fn the_order_of_arrival_does_not_matter(
        (events, shuffled) in prop::collection::vec(arrival(), 0..40)
            .prop_map(|events| {
                let by_subject: BTreeMap<_, _> =
                    events.into_iter().map(|event| (event.subject(), event)).collect();
                by_subject.into_values().collect::<Vec<_>>()
            })
            .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
    ) {
        let finish = |events: &[Event]| {
            let mut both = Both::new();
            for event in events {
                both.take(event);
            }
            both.compare();
            both.registry.entries().cloned().collect::<Vec<_>>()
        };
        prop_assert_eq!(finish(&events), finish(&shuffled));
    }
}
