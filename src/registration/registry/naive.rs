//! The rules of registration once more, from scratch and without any index, as a test's yardstick.
//!
//! It shares with the registry only what is tested elsewhere: templates, label selectors and the
//! rules of a single entry.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    api::ClusterSpiffeIdStats,
    registration::{
        Entry, EntryError, EntryId, EntryKey, EntrySelector, Labels, NodeFacts,
        ParsedClusterSpiffeId, ParsedStaticEntry, PodFacts, PodRef, Settings, Source, dns_name,
        template::TemplateData,
    },
    spiffe::{SpiffeId, TrustDomainName},
};

/// Everything there is. CRs of another class, and such that never were right, are not in it.
#[derive(Default)]
pub(super) struct World {
    pub(super) pods: BTreeMap<String, Arc<PodFacts>>,
    pub(super) namespaces: BTreeMap<String, Labels>,
    /// The last that was known of each node.
    pub(super) nodes: BTreeMap<String, Arc<NodeFacts>>,
    /// Namespace and name of a slice: its service and the UIDs of its pods.
    pub(super) slices: BTreeMap<(String, String), (String, Vec<String>)>,
    /// The last good spec of each.
    pub(super) cluster_spiffe_ids: BTreeMap<String, (Arc<Source>, Arc<ParsedClusterSpiffeId>)>,
    pub(super) static_entries: BTreeMap<String, (Arc<Source>, Arc<ParsedStaticEntry>)>,
    /// Entries of RegistrationEntries.
    pub(super) registered: BTreeMap<String, Arc<Entry>>,
    /// The foreign trust domains whose bundles are known.
    pub(super) foreign: BTreeSet<TrustDomainName>,
    /// Seconds since 1970.
    pub(super) now: i64,
}

/// What comes of it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rendered {
    pub(super) entries: BTreeMap<EntryKey, Entry>,
    pub(super) stats: BTreeMap<String, ClusterSpiffeIdStats>,
    pub(super) failing: BTreeMap<String, Vec<(String, String, String)>>,
    /// The keys of the entries that were made for each pod, by its UID.
    pub(super) of_pods: BTreeMap<String, BTreeSet<EntryKey>>,
}

impl Rendered {
    /// What an agent may fetch.
    pub(super) fn authorized(
        &self,
        agent: &SpiffeId,
        node: &BTreeSet<EntrySelector>,
    ) -> BTreeSet<EntryId> {
        let has = |entry: &Entry| entry.selectors.iter().all(|it| node.contains(it));
        let (aliases, others): (Vec<_>, Vec<_>) = self
            .entries
            .values()
            .partition(|entry| entry.parent_id.path() == "/spire/server");
        let aliases = aliases.into_iter().filter(|entry| has(entry));
        let mut parents: BTreeSet<_> = aliases.map(|entry| &entry.spiffe_id).collect();
        parents.insert(agent);
        let mut found = BTreeSet::new();
        loop {
            let before = found.len();
            for entry in &others {
                if parents.contains(&entry.parent_id) {
                    found.insert(entry.id.clone());
                    parents.insert(&entry.spiffe_id);
                }
            }
            if found.len() == before {
                return found;
            }
        }
    }
}

impl World {
    pub(super) fn render(&self, settings: &Settings) -> Rendered {
        let mut rendered = Rendered::default();
        let mut all: Vec<Entry> = self
            .static_entries
            .values()
            .map(|(source, spec)| {
                let mut entry = spec.entry(source.clone(), &settings.cluster.cluster_name);
                entry.federates_with = self.known_of(&spec.federates_with);
                entry.with_revision()
            })
            .collect();
        let counts = |entry: &&Arc<Entry>| entry.expires_at().is_none_or(|at| at > self.now);
        let registered = self.registered.values().filter(counts);
        all.extend(registered.map(|entry| {
            let mut entry = (**entry).clone();
            entry
                .federates_with
                .retain(|name| name.as_str() == "e.org" || self.foreign.contains(name));
            entry.with_revision()
        }));
        for name in self.cluster_spiffe_ids.keys() {
            rendered.failing.insert(name.clone(), Vec::new());
            rendered
                .stats
                .insert(name.clone(), self.namespace_stats(name, settings));
        }
        for pod in self.pods.values() {
            let mut served = false;
            for fallback in [false, true] {
                let served_before = served;
                for (name, (source, spec)) in &self.cluster_spiffe_ids {
                    if spec.fallback != fallback || !self.selects(spec, pod, settings) {
                        continue;
                    }
                    let stats = rendered.stats.get_mut(name).unwrap();
                    stats.pods_selected += 1;
                    if (fallback && served_before) || pod.finished || pod.node.is_empty() {
                        continue;
                    }
                    match self.entry(settings, pod, source, spec) {
                        Ok(entry) => {
                            served = true;
                            let of_pod = rendered.of_pods.entry(pod.uid.to_string()).or_default();
                            of_pod.insert(entry.key);
                            all.push(entry);
                        }
                        Err(error) => {
                            served |= error.is_refusal();
                            if error.is_refusal() {
                                stats.entry_failures += 1;
                            } else {
                                stats.pod_entry_render_failures += 1;
                            }
                            rendered.failing.get_mut(name).unwrap().push((
                                pod.namespace.to_string(),
                                pod.name.to_string(),
                                error.to_string(),
                            ));
                        }
                    }
                }
            }
        }
        all.sort_by(|left, right| left.source.cmp(&right.source));
        for entry in all {
            let stats = rendered.stats.get_mut(&*entry.source.name);
            let stats = stats.filter(|_| entry.pod.is_some());
            let is_masked = rendered.entries.contains_key(&entry.key);
            if let Some(stats) = stats {
                if is_masked {
                    stats.entries_masked += 1;
                } else {
                    stats.entries_to_set += 1;
                }
            }
            rendered.entries.entry(entry.key).or_insert(entry);
        }
        for failing in rendered.failing.values_mut() {
            failing.sort();
            failing.truncate(10);
        }
        rendered
    }

    fn known_of(&self, names: &[TrustDomainName]) -> Vec<TrustDomainName> {
        let mut known = names.to_vec();
        known.retain(|name| self.foreign.contains(name));
        known
    }

    fn namespace_stats(&self, name: &str, settings: &Settings) -> ClusterSpiffeIdStats {
        let spec = &self.cluster_spiffe_ids[name].1;
        let selected: Vec<_> = self
            .namespaces
            .iter()
            .filter(|(_, labels)| spec.namespaces.matches(labels))
            .collect();
        let ignored = selected
            .iter()
            .filter(|(name, _)| settings.ignores_namespace(name))
            .count();
        ClusterSpiffeIdStats {
            namespaces_selected: i64::try_from(selected.len()).unwrap(),
            namespaces_ignored: i64::try_from(ignored).unwrap(),
            ..ClusterSpiffeIdStats::default()
        }
    }

    fn selects(&self, spec: &ParsedClusterSpiffeId, pod: &PodFacts, settings: &Settings) -> bool {
        self.namespaces
            .get(&*pod.namespace)
            .is_some_and(|labels| spec.namespaces.matches(labels))
            && !settings.ignores_namespace(&pod.namespace)
            && spec.pods.matches(&pod.labels)
    }

    fn entry(
        &self,
        settings: &Settings,
        pod: &PodFacts,
        source: &Arc<Source>,
        spec: &ParsedClusterSpiffeId,
    ) -> Result<Entry, EntryError> {
        let node = self
            .nodes
            .get(&*pod.node)
            .ok_or_else(|| EntryError::NodeUnseen {
                node: pod.node.to_string(),
            })?;
        let trust_domain = &settings.cluster.trust_domain;
        let member = |what, value: String| {
            let id: SpiffeId = value.parse().map_err(|source| EntryError::SpiffeId {
                what,
                value: value.clone(),
                source,
            })?;
            if id.is_member_of(trust_domain) {
                return Ok(id);
            }
            Err(EntryError::ForeignTrustDomain {
                what,
                value,
                trust_domain: trust_domain.clone(),
            })
        };
        let mut data = TemplateData {
            cluster: &settings.cluster,
            pod: None,
            node,
        };
        let parent = settings.parent_id_template.render(&data).unwrap();
        let parent_id = member("parent ID", parent)?;
        data.pod = Some(pod);
        let spiffe_id = member("SPIFFE ID", spec.spiffe_id.render(&data).unwrap())?;
        let mut selectors = vec![EntrySelector::pod_uid(&pod.uid)];
        for template in &spec.selectors {
            selectors.push(EntrySelector::parse(&template.render(&data).unwrap())?);
        }
        let mut names: Vec<_> = spec
            .dns_names
            .iter()
            .map(|template| template.render(&data).unwrap())
            .collect();
        if spec.auto_populate_dns_names {
            names.extend(self.service_names(pod, &settings.cluster.cluster_domain));
        }
        if spiffe_id.path().is_empty() {
            return Err(EntryError::NoPath {
                what: "SPIFFE ID",
                value: spiffe_id.to_string(),
            });
        }
        for name in &names {
            dns_name::check(name).map_err(|source| EntryError::DnsName {
                value: name.clone(),
                source,
            })?;
        }
        let key = EntryKey::new(&spiffe_id, &parent_id, &selectors);
        let entry = Entry {
            key,
            id: EntryId::derived(&settings.cluster.cluster_name, &key),
            revision: 0,
            spiffe_id,
            parent_id,
            selectors: first_of_each(selectors),
            x509_ttl: spec.x509_ttl,
            jwt_ttl: spec.jwt_ttl,
            dns_names: first_of_each(names),
            federates_with: self.known_of(&spec.federates_with),
            admin: spec.admin,
            downstream: spec.downstream,
            store_svid: false,
            hint: spec.hint.clone(),
            source: source.clone(),
            pod: Some(PodRef {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
            }),
            registered: None,
        };
        Ok(entry.with_revision())
    }

    fn service_names(&self, pod: &PodFacts, cluster_domain: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .slices
            .iter()
            .filter(|((namespace, _), (_, pods))| {
                **namespace == *pod.namespace && pods.iter().any(|uid| **uid == *pod.uid)
            })
            .flat_map(|((namespace, _), (service, _))| {
                [
                    service.clone(),
                    format!("{service}.{namespace}"),
                    format!("{service}.{namespace}.svc"),
                    format!("{service}.{namespace}.svc.{cluster_domain}"),
                ]
            })
            .filter(|name| dns_name::check(name).is_ok())
            .collect();
        names.sort();
        names
    }
}

fn first_of_each<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut firsts = Vec::new();
    for item in items {
        if !firsts.contains(&item) {
            firsts.push(item);
        }
    }
    firsts
}
