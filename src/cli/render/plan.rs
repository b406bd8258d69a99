//! What registration makes of objects. Pure.
//!
//! What only a running cluster has is made up, with a note where it matters: UIDs, times of
//! creation, and namespaces that are not among the objects.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::Resource;
use serde::Serialize;

use super::read::Objects;
use crate::{
    api::TrustDomain,
    registration::{
        ClusterSpiffeIdReport, Entry, InForce, Interner, MatchOutcome, NodeFacts, Obstacle,
        PodFacts, PodReport, Registry, Settings, StaticEntryReport,
    },
};

/// The label that the API server puts on every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What registration makes of a set of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RenderReport {
    /// Each trust domain.
    pub trust_domains: Vec<RenderedTrustDomain>,
    /// What was left out or made up, and is no failure.
    pub notes: Vec<String>,
    /// What could not be read.
    pub errors: Vec<String>,
}

/// What one trust domain makes of the objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RenderedTrustDomain {
    /// Name of the trust domain.
    pub trust_domain: String,
    /// Why it makes nothing at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Each pod, by namespace and name.
    pub pods: Vec<RenderedPod>,
    /// Each object that it serves, by kind and name.
    pub objects: Vec<RenderedObject>,
    /// The entries of ClusterStaticEntries that are in force.
    pub static_entries: Vec<RenderedEntry>,
}

/// What a pod gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RenderedPod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What keeps it from having any entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// What came of each object that selects it.
    pub matches: Vec<RenderedMatch>,
}

/// What came of an object for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RenderedMatch {
    /// The object, as kind and name.
    pub source: String,
    /// How it came out.
    pub outcome: Outcome,
    /// Why, where it is not simply issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The entry, in force or masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<RenderedEntry>,
}

/// How an object came out for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// It failed.
    Failed,
    /// Its entry is in force.
    Issued,
    /// Another object declares the same entry and counts.
    Masked,
    /// There is nothing to do for this pod now.
    Skipped,
}

/// An entry, as it would be registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RenderedEntry {
    /// SPIFFE ID.
    #[serde(rename = "spiffeID")]
    pub spiffe_id: String,
    /// Parent ID.
    #[serde(rename = "parentID")]
    pub parent_id: String,
    /// Selectors.
    pub selectors: Vec<String>,
    /// DNS names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Lifetime of X.509-SVIDs in seconds, where it is not the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x509_ttl_seconds: Option<u64>,
    /// Lifetime of JWT-SVIDs in seconds, where it is not the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_ttl_seconds: Option<u64>,
    /// Hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether it may call the administrative API.
    pub admin: bool,
    /// Whether it is a downstream server.
    pub downstream: bool,
    /// Whether agents store the SVID.
    #[serde(rename = "storeSVID")]
    pub store_svid: bool,
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RenderedObject {
    /// Kind.
    pub kind: &'static str,
    /// Name.
    pub name: String,
    /// What is wrong with its spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How many entries are in force.
    pub entries: i64,
    /// How many entries are masked.
    pub masked: i64,
    /// How many pods it failed for.
    pub failures: i64,
    /// Trust domains in `federatesWith` whose bundles are not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown_federated: Vec<String>,
}

impl RenderReport {
    /// Whether anything failed. Being masked or not selected is no failure.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        !self.errors.is_empty()
            || self.trust_domains.iter().any(|domain| {
                domain.error.is_some()
                    || domain
                        .objects
                        .iter()
                        .any(|object| object.error.is_some() || object.failures > 0)
            })
    }
}

/// What registration makes of `objects`.
#[must_use]
pub fn render(objects: &Objects) -> RenderReport {
    let mut objects = objects.clone();
    complete(&mut objects);
    let domains = objects.trust_domains.iter();
    RenderReport {
        trust_domains: domains
            .map(|domain| render_trust_domain(domain, &objects))
            .collect(),
        notes: objects.notes.clone(),
        errors: objects.errors.clone(),
    }
}

fn render_trust_domain(domain: &TrustDomain, objects: &Objects) -> RenderedTrustDomain {
    let trust_domain = domain.spec.trust_domain.clone();
    let settings = match Settings::parse(&domain.spec) {
        Ok(settings) => settings,
        Err(error) => {
            let error = Some(error.to_string());
            return RenderedTrustDomain {
                trust_domain,
                error,
                ..RenderedTrustDomain::default()
            };
        }
    };
    let mut registry = Registry::new(settings);
    let uids = fill(&mut registry, objects);
    let mut pods: Vec<_> = uids
        .iter()
        .filter_map(|uid| registry.pod_report(uid))
        .map(rendered_pod)
        .collect();
    pods.sort_by(|left, right| (&left.namespace, &left.name).cmp(&(&right.namespace, &right.name)));
    let static_entries = registry.entries().filter(|entry| entry.pod.is_none());
    RenderedTrustDomain {
        trust_domain,
        error: None,
        pods,
        static_entries: static_entries.map(|entry| rendered_entry(entry)).collect(),
        objects: rendered_objects(&registry, objects),
    }
}

/// Gives all objects to the registry, and says which pods it knows.
fn fill(registry: &mut Registry, objects: &Objects) -> BTreeSet<String> {
    let mut interner = Interner::default();
    for object in &objects.cluster_spiffe_ids {
        registry.apply_cluster_spiffe_id(object, None);
    }
    for object in &objects.cluster_static_entries {
        registry.apply_cluster_static_entry(object, None);
    }
    objects
        .namespaces
        .iter()
        .for_each(|namespace| registry.apply_namespace(namespace));
    for node in &objects.nodes {
        if let Some(facts) = NodeFacts::from_node(node, &mut interner) {
            registry.apply_node(facts);
        }
    }
    objects
        .endpoint_slices
        .iter()
        .for_each(|slice| registry.apply_endpoint_slice(slice));
    let needed = registry.needed_pod_fields();
    let mut uids = BTreeSet::new();
    for pod in &objects.pods {
        if let Some(facts) = PodFacts::from_pod(pod, &needed, &mut interner) {
            uids.insert(facts.uid.to_string());
            registry.apply_pod(facts);
        }
    }
    registry.process(usize::MAX);
    uids
}

/// Makes up what only a cluster has.
fn complete(objects: &mut Objects) {
    objects.cluster_spiffe_ids.iter_mut().for_each(date);
    objects.cluster_static_entries.iter_mut().for_each(date);
    for node in &mut objects.nodes {
        let name = node.metadata.name.clone();
        node.metadata.uid = node.metadata.uid.take().or(name);
    }
    for pod in &mut objects.pods {
        complete_pod(pod);
    }
    for slice in &mut objects.endpoint_slices {
        slice
            .metadata
            .namespace
            .get_or_insert_with(|| "default".into());
    }
    let known: BTreeSet<_> = objects
        .namespaces
        .iter()
        .filter_map(|namespace| namespace.metadata.name.clone())
        .collect();
    let named = objects
        .pods
        .iter()
        .filter_map(|pod| pod.metadata.namespace.clone());
    let missing: BTreeSet<_> = named.filter(|name| !known.contains(name)).collect();
    for name in missing {
        objects.notes.push(format!(
            "namespace {name} is not among the objects; it is taken to have no labels of its own"
        ));
        let metadata = ObjectMeta {
            name: Some(name),
            ..ObjectMeta::default()
        };
        objects.namespaces.push(Namespace {
            metadata,
            ..Namespace::default()
        });
    }
    for namespace in &mut objects.namespaces {
        if let Some(name) = namespace.metadata.name.clone() {
            let labels = namespace.metadata.labels.get_or_insert_default();
            labels.insert(NAME_LABEL.into(), name);
        }
    }
}

/// What is not in the cluster yet will be younger than what is.
fn date<K: Resource>(object: &mut K) {
    let created = &mut object.meta_mut().creation_timestamp;
    created.get_or_insert(Time(Timestamp::MAX));
}

fn complete_pod(pod: &mut Pod) {
    let metadata = &mut pod.metadata;
    let namespace = metadata
        .namespace
        .get_or_insert_with(|| "default".into())
        .clone();
    let name = metadata.name.clone().unwrap_or_default();
    metadata
        .uid
        .get_or_insert_with(|| format!("{namespace}.{name}"));
    if let Some(spec) = &mut pod.spec {
        spec.service_account_name
            .get_or_insert_with(|| "default".into());
    }
}

fn rendered_pod(report: PodReport) -> RenderedPod {
    RenderedPod {
        namespace: report.pod.namespace.to_string(),
        name: report.pod.name.to_string(),
        obstacle: report.obstacle.map(|obstacle| describe(obstacle).into()),
        matches: report
            .matches
            .into_iter()
            .map(|(source, outcome)| rendered_match(source.to_string(), outcome))
            .collect(),
    }
}

fn rendered_match(source: String, outcome: MatchOutcome) -> RenderedMatch {
    let (outcome, message, entry) = match outcome {
        MatchOutcome::Failed(error) => (Outcome::Failed, Some(error.to_string()), None),
        MatchOutcome::Issued(entry) => (Outcome::Issued, None, Some(entry)),
        MatchOutcome::Masked { entry, by } => (
            Outcome::Masked,
            Some(format!("masked by {by}, which is older")),
            Some(entry),
        ),
        MatchOutcome::NotRunning => (Outcome::Skipped, Some("the pod does not run".into()), None),
        MatchOutcome::Superseded => (
            Outcome::Skipped,
            Some("a fallback; another object serves the pod".into()),
            None,
        ),
        MatchOutcome::Waiting(entry) => {
            (Outcome::Skipped, Some("waits for more data".into()), entry)
        }
    };
    RenderedMatch {
        source,
        outcome,
        message,
        entry: entry.map(|entry| rendered_entry(&entry)),
    }
}

fn rendered_entry(entry: &Entry) -> RenderedEntry {
    RenderedEntry {
        spiffe_id: entry.spiffe_id.to_string(),
        parent_id: entry.parent_id.to_string(),
        selectors: entry.selectors.iter().map(ToString::to_string).collect(),
        dns_names: entry.dns_names.clone(),
        x509_ttl_seconds: entry.x509_ttl.map(|ttl| ttl.as_secs()),
        jwt_ttl_seconds: entry.jwt_ttl.map(|ttl| ttl.as_secs()),
        hint: entry.hint.as_deref().map(str::to_owned),
        admin: entry.admin,
        downstream: entry.downstream,
        store_svid: entry.store_svid,
    }
}

fn rendered_objects(registry: &Registry, objects: &Objects) -> Vec<RenderedObject> {
    let name = |metadata: &ObjectMeta| metadata.name.clone().unwrap_or_default();
    let cluster_spiffe_ids = objects.cluster_spiffe_ids.iter().filter_map(|object| {
        let name = name(&object.metadata);
        let report = registry.report_of_cluster_spiffe_id(&name)?;
        Some(rendered_cluster_spiffe_id(name, report))
    });
    let static_entries = objects.cluster_static_entries.iter().filter_map(|object| {
        let name = name(&object.metadata);
        let report = registry.report_of_cluster_static_entry(&name)?;
        Some(rendered_static_entry(name, report))
    });
    let mut rendered: Vec<_> = cluster_spiffe_ids.chain(static_entries).collect();
    rendered.sort_by(|left, right| (left.kind, &left.name).cmp(&(right.kind, &right.name)));
    rendered
}

fn rendered_cluster_spiffe_id(name: String, report: ClusterSpiffeIdReport) -> RenderedObject {
    RenderedObject {
        kind: "ClusterSPIFFEID",
        name,
        error: report.error.map(|error| error.to_string()),
        entries: report.stats.entries_to_set,
        masked: report.stats.entries_masked,
        failures: report.stats.pod_entry_render_failures + report.stats.entry_failures,
        unknown_federated: report
            .unknown_federated
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

fn rendered_static_entry(name: String, report: StaticEntryReport) -> RenderedObject {
    let is_masked = report.in_force != InForce::Nothing && report.masked_by.is_some();
    RenderedObject {
        kind: "ClusterStaticEntry",
        name,
        entries: i64::from(report.set()),
        masked: i64::from(is_masked),
        failures: i64::from(report.error.is_some()),
        error: report.error.map(|error| error.to_string()),
        unknown_federated: report
            .unknown_federated
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

fn describe(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Finished => "it has run to its end",
        Obstacle::NamespaceIgnored => "the trust domain ignores its namespace",
        Obstacle::NamespaceUnseen => "its namespace is not among the objects",
        Obstacle::Unscheduled => "it has no node (spec.nodeName)",
    }
}
