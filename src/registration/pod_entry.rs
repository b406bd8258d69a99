//! The entry that a ClusterSPIFFEID makes for one pod.
//!
//! Errors that spire-controller-manager finds come before those that it leaves to spire-server,
//! because only the former leave the pod to a fallback.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    dns_name,
    entry::{Entry, EntryKey, EntrySelector, PodRef, Source, push_new},
    entry_error::{
        EntryError, check_dns_names, check_parent_id, check_workload_id, parse_member_id,
    },
    entry_id::EntryId,
    facts::{NodeFacts, PodFacts},
    settings::Settings,
    spec::ParsedClusterSpiffeId,
    template::{Template, TemplateData},
};
use crate::spiffe::{SpiffeId, TrustDomainName};

/// What an entry is made of, beside the spec.
#[derive(Clone, Copy, Debug)]
pub(super) struct PodSurroundings<'a> {
    pub(super) settings: &'a Settings,
    pub(super) pod: &'a PodFacts,
    /// The selector that only the pod has.
    pub(super) uid_selector: &'a EntrySelector,
    pub(super) node: &'a NodeFacts,
    pub(super) parent_id: &'a SpiffeId,
    /// The foreign trust domains whose bundles are known.
    pub(super) foreign: &'a BTreeSet<TrustDomainName>,
}

/// The parent ID of entries of pods on `node`.
pub(super) fn parent_id(settings: &Settings, node: &NodeFacts) -> Result<SpiffeId, EntryError> {
    let data = TemplateData {
        cluster: &settings.cluster,
        pod: None,
        node,
    };
    let value = run("parentIDTemplate", &settings.parent_id_template, &data)?;
    let id = parse_member_id("parent ID", &value, &settings.cluster.trust_domain)?;
    check_parent_id(&id)?;
    if let Some(bounds) = &settings.bounds {
        bounds.check_parent_id(&id)?;
    }
    Ok(id)
}

/// The entry that `spec` of `source` makes; `services` are those whose names it gets, too.
pub(super) fn make<'s>(
    spec: &ParsedClusterSpiffeId,
    source: &Arc<Source>,
    around: PodSurroundings<'_>,
    services: impl Iterator<Item = &'s str>,
) -> Result<Entry, EntryError> {
    let Settings {
        cluster, bounds, ..
    } = around.settings;
    let data = TemplateData {
        cluster,
        pod: Some(around.pod),
        node: around.node,
    };
    let value = run("spiffeIDTemplate", &spec.spiffe_id, &data)?;
    let spiffe_id = parse_member_id("SPIFFE ID", &value, &cluster.trust_domain)?;
    let mut selectors = Vec::with_capacity(1 + spec.selectors.len());
    selectors.push(around.uid_selector.clone());
    for template in &spec.selectors {
        let value = run("workloadSelectorTemplates", template, &data)?;
        push_new(&mut selectors, EntrySelector::parse(&value)?);
    }
    let mut dns_names = Vec::with_capacity(spec.dns_names.len());
    for template in &spec.dns_names {
        push_new(&mut dns_names, run("dnsNameTemplates", template, &data)?);
    }
    let mut of_services = service_names(services, &around.pod.namespace, &cluster.cluster_domain);
    check_workload_id(&spiffe_id)?;
    check_dns_names(&dns_names)?;
    if let Some(bounds) = bounds {
        bounds.check_id(&spiffe_id)?;
        dns_names
            .iter()
            .try_for_each(|name| bounds.check_dns_name(name))?;
        of_services.retain(|name| bounds.allows_dns_name(name));
    }
    of_services
        .into_iter()
        .for_each(|name| push_new(&mut dns_names, name));
    let parent_id = match &spec.servers {
        Some(servers) => servers.parent_id(cluster, around.pod, around.parent_id)?,
        None => around.parent_id.clone(),
    };
    let key = EntryKey::new(&spiffe_id, &parent_id, &selectors);
    let entry = Entry {
        key,
        id: EntryId::derived(&cluster.cluster_name, &key),
        revision: 0,
        spiffe_id,
        parent_id,
        selectors,
        x509_ttl: spec.x509_ttl,
        jwt_ttl: spec.jwt_ttl,
        dns_names,
        federates_with: known_of(&spec.federates_with, around.foreign),
        admin: spec.admin,
        downstream: spec.downstream,
        store_svid: false,
        hint: spec.hint.clone(),
        source: source.clone(),
        pod: Some(pod_ref(around.pod)),
        registered: None,
    };
    Ok(entry.with_revision())
}

/// Those of `names` that are `known`.
fn known_of(names: &[TrustDomainName], known: &BTreeSet<TrustDomainName>) -> Vec<TrustDomainName> {
    let names = names.iter().filter(|name| known.contains(*name));
    names.cloned().collect()
}

/// The names of `pod`.
pub(super) fn pod_ref(pod: &PodFacts) -> PodRef {
    PodRef {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
    }
}

/// The DNS names of services, sorted as one block. Those that no entry may carry are left out: a
/// service or namespace such as `my--svc` is no reason to refuse the pod its identity.
fn service_names<'s>(
    services: impl Iterator<Item = &'s str>,
    namespace: &str,
    cluster_domain: &str,
) -> Vec<String> {
    let mut names = Vec::new();
    for service in services {
        names.push(service.to_owned());
        names.push(format!("{service}.{namespace}"));
        names.push(format!("{service}.{namespace}.svc"));
        if !cluster_domain.is_empty() {
            names.push(format!("{service}.{namespace}.svc.{cluster_domain}"));
        }
    }
    names.retain(|name| dns_name::check(name).is_ok());
    names.sort_unstable();
    names
}

fn run(
    field: &'static str,
    template: &Template,
    data: &TemplateData<'_>,
) -> Result<String, EntryError> {
    template
        .render(data)
        .map_err(|source| EntryError::Template { field, source })
}
