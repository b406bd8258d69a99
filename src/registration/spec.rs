//! Specs of ClusterSPIFFEIDs and ClusterStaticEntries, parsed: what can be known to be wrong without
//! any pod is found here.

use std::{sync::Arc, time::Duration};

use super::{
    downstream::ServerPods,
    entry::{Entry, EntryKey, EntrySelector, Source, push_new},
    entry_error::{
        EntryError, check_dns_names, check_parent_id, check_workload_id, parse_member_id,
    },
    entry_id::EntryId,
    facts::FieldSet,
    selector::{Selector, SelectorError},
    template::{Template, TemplateError},
};
use crate::{
    api::{
        ClusterSpiffeIdSpec, ClusterStaticEntrySpec,
        duration::{self, ParseDurationError},
    },
    spiffe::{ParseTrustDomainError, SpiffeId, TrustDomainName},
};

/// Longest hint, in bytes.
const MAX_HINT: usize = 1024;
/// Longest lifetime in seconds: the SPIRE API has 32 bits for it.
const MAX_TTL: u64 = 2_147_483_647;

/// The spec of a ClusterSPIFFEID.
#[derive(Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "the spec has them")]
pub struct ParsedClusterSpiffeId {
    /// Template of the SPIFFE ID.
    pub spiffe_id: Template,
    /// Templates of DNS names.
    pub dns_names: Vec<Template>,
    /// Templates of selectors.
    pub selectors: Vec<Template>,
    /// Lifetime of X.509-SVIDs in whole seconds.
    pub x509_ttl: Option<Duration>,
    /// Lifetime of JWT-SVIDs in whole seconds.
    pub jwt_ttl: Option<Duration>,
    /// Trust domains whose bundles the workloads get, without repetition.
    pub federates_with: Vec<TrustDomainName>,
    /// Which namespaces.
    pub namespaces: Selector,
    /// Which pods.
    pub pods: Selector,
    /// Whether workloads may call the server's administrative API.
    pub admin: bool,
    /// Whether workloads are downstream servers.
    pub downstream: bool,
    /// Whether names of services are added.
    pub auto_populate_dns_names: bool,
    /// Whether it serves only pods that no other object serves.
    pub fallback: bool,
    /// Hint.
    pub hint: Option<Arc<str>>,
    /// The pods that are servers of a nested cluster, where it serves only those.
    pub servers: Option<ServerPods>,
    /// What templates read of pods beyond what facts always hold.
    pub needed_pod_fields: FieldSet,
}

/// The spec of a ClusterStaticEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedStaticEntry {
    spiffe_id: SpiffeId,
    parent_id: SpiffeId,
    selectors: Vec<EntrySelector>,
    /// Lifetime of X.509-SVIDs in whole seconds.
    pub x509_ttl: Option<Duration>,
    /// Lifetime of JWT-SVIDs in whole seconds.
    pub jwt_ttl: Option<Duration>,
    dns_names: Vec<String>,
    /// Trust domains whose bundles the workload gets, without repetition.
    pub federates_with: Vec<TrustDomainName>,
    admin: bool,
    downstream: bool,
    store_svid: bool,
    hint: Option<Arc<str>>,
}

/// Why a spec cannot be used for anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// No duration.
    #[error("{field}: {source}")]
    Duration {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: ParseDurationError,
    },
    /// Something that no entry may have.
    #[error(transparent)]
    Entry {
        /// What.
        #[from]
        source: EntryError,
    },
    /// No trust domain.
    #[error("federatesWith {value:?}: {source}")]
    FederatesWith {
        /// The value.
        value: String,
        /// What is wrong with it.
        source: ParseTrustDomainError,
    },
    /// A hint that is too long.
    #[error("hint has {length} bytes; 1024 are allowed")]
    HintTooLong {
        /// Its length.
        length: usize,
    },
    /// An entry to be stored whose selectors have several types.
    #[error("storeSVID needs selectors of one type; these have {first:?} and {second:?}")]
    MixedSelectorTypes {
        /// One type.
        first: String,
        /// Another one.
        second: String,
    },
    /// An entry without selectors.
    #[error("selectors: at least one is needed")]
    NoSelectors,
    /// No label selector.
    #[error("{field}: {source}")]
    Selector {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: SelectorError,
    },
    /// No template.
    #[error("{field}: {source}")]
    Template {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: TemplateError,
    },
    /// A lifetime that is too long.
    #[error("{field}: {value:?} is more than 596523h")]
    TtlTooLong {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
    },
}

impl SpecError {
    /// CamelCase reason for conditions, events and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Duration { .. } | Self::TtlTooLong { .. } => "InvalidTTL",
            Self::Entry { source } => source.reason(),
            Self::FederatesWith { .. } => "InvalidFederatesWith",
            Self::HintTooLong { .. } => "HintTooLong",
            Self::MixedSelectorTypes { .. } | Self::NoSelectors => "InvalidSelector",
            Self::Selector { .. } => "InvalidLabelSelector",
            Self::Template { .. } => "InvalidTemplate",
        }
    }
}

impl ParsedClusterSpiffeId {
    /// Parses `spec` for `trust_domain`.
    ///
    /// # Errors
    /// When it would be wrong for every pod.
    pub fn parse(
        spec: &ClusterSpiffeIdSpec,
        trust_domain: &TrustDomainName,
    ) -> Result<Self, SpecError> {
        let spiffe_id = parse_template("spiffeIDTemplate", &spec.spiffe_id_template)?;
        let dns_names = parse_templates("dnsNameTemplates", &spec.dns_name_templates)?;
        let selectors = parse_templates(
            "workloadSelectorTemplates",
            &spec.workload_selector_templates,
        )?;
        spiffe_id
            .beginning(trust_domain)
            .check_id("SPIFFE ID", trust_domain, check_workload_id)?;
        for name in constants(&dns_names, trust_domain) {
            check_dns_names(&[name])?;
        }
        for selector in constants(&selectors, trust_domain) {
            EntrySelector::parse(&selector)?;
        }
        let mut needed_pod_fields = FieldSet::default();
        for template in [&spiffe_id].into_iter().chain(&dns_names).chain(&selectors) {
            needed_pod_fields.extend(&template.needed_pod_fields());
        }
        let label_selector = |field, selector: &Option<_>| {
            Selector::new(selector.as_ref()).map_err(|source| SpecError::Selector { field, source })
        };
        Ok(Self {
            spiffe_id,
            dns_names,
            selectors,
            x509_ttl: parse_ttl("ttl", spec.ttl.as_deref())?,
            jwt_ttl: parse_ttl("jwtTtl", spec.jwt_ttl.as_deref())?,
            federates_with: parse_federates_with(&spec.federates_with)?,
            namespaces: label_selector("namespaceSelector", &spec.namespace_selector)?,
            pods: label_selector("podSelector", &spec.pod_selector)?,
            admin: spec.admin,
            downstream: spec.downstream,
            auto_populate_dns_names: spec.auto_populate_dns_names,
            fallback: spec.fallback,
            hint: parse_hint(spec.hint.as_deref())?,
            servers: None,
            needed_pod_fields,
        })
    }
}

impl ParsedStaticEntry {
    /// Parses `spec` for `trust_domain`.
    ///
    /// # Errors
    /// When spire-server would refuse the entry.
    pub fn parse(
        spec: &ClusterStaticEntrySpec,
        trust_domain: &TrustDomainName,
    ) -> Result<Self, SpecError> {
        let spiffe_id = parse_member_id("SPIFFE ID", &spec.spiffe_id, trust_domain)?;
        check_workload_id(&spiffe_id)?;
        let parent_id = parse_member_id("parent ID", &spec.parent_id, trust_domain)?;
        check_parent_id(&parent_id)?;
        let mut selectors = Vec::new();
        for selector in &spec.selectors {
            push_new(&mut selectors, EntrySelector::parse(selector)?);
        }
        check_selectors(&selectors, spec.store_svid)?;
        check_dns_names(&spec.dns_names)?;
        let mut dns_names = Vec::new();
        spec.dns_names
            .iter()
            .for_each(|name| push_new(&mut dns_names, name.clone()));
        Ok(Self {
            spiffe_id,
            parent_id,
            selectors,
            x509_ttl: parse_ttl("x509SVIDTTL", spec.x509_svid_ttl.as_deref())?,
            jwt_ttl: parse_ttl("jwtSVIDTTL", spec.jwt_svid_ttl.as_deref())?,
            dns_names,
            federates_with: parse_federates_with(&spec.federates_with)?,
            admin: spec.admin,
            downstream: spec.downstream,
            store_svid: spec.store_svid,
            hint: parse_hint(spec.hint.as_deref())?,
        })
    }

    /// The entry as `source` of the cluster `cluster_name` declares it, whatever bundles are known.
    #[must_use]
    pub fn entry(&self, source: Arc<Source>, cluster_name: &str) -> Entry {
        let key = EntryKey::new(&self.spiffe_id, &self.parent_id, &self.selectors);
        let entry = Entry {
            key,
            id: EntryId::derived(cluster_name, &key),
            revision: 0,
            spiffe_id: self.spiffe_id.clone(),
            parent_id: self.parent_id.clone(),
            selectors: self.selectors.clone(),
            x509_ttl: self.x509_ttl,
            jwt_ttl: self.jwt_ttl,
            dns_names: self.dns_names.clone(),
            federates_with: self.federates_with.clone(),
            admin: self.admin,
            downstream: self.downstream,
            store_svid: self.store_svid,
            hint: self.hint.clone(),
            source,
            pod: None,
            registered: None,
        };
        entry.with_revision()
    }
}

fn parse_template(field: &'static str, template: &str) -> Result<Template, SpecError> {
    Template::parse(template).map_err(|source| SpecError::Template { field, source })
}

fn parse_templates(field: &'static str, templates: &[String]) -> Result<Vec<Template>, SpecError> {
    templates
        .iter()
        .map(|template| parse_template(field, template))
        .collect()
}

/// What those templates give that give the same for every pod.
fn constants(templates: &[Template], trust_domain: &TrustDomainName) -> Vec<String> {
    let beginnings = templates
        .iter()
        .map(|template| template.beginning(trust_domain));
    beginnings
        .filter_map(|beginning| beginning.constant().map(str::to_owned))
        .collect()
}

/// The lifetime in whole seconds, as the SPIRE API has it; none where the default applies.
fn parse_ttl(field: &'static str, value: Option<&str>) -> Result<Option<Duration>, SpecError> {
    let Some(value) = value else {
        return Ok(None);
    };
    let seconds = duration::parse(value)
        .map_err(|source| SpecError::Duration { field, source })?
        .as_secs();
    if seconds > MAX_TTL {
        return Err(SpecError::TtlTooLong {
            field,
            value: value.into(),
        });
    }
    Ok((seconds > 0).then_some(Duration::from_secs(seconds)))
}

fn parse_federates_with(values: &[String]) -> Result<Vec<TrustDomainName>, SpecError> {
    let mut names = Vec::new();
    for value in values {
        let name =
            TrustDomainName::from_name_or_id(value).map_err(|source| SpecError::FederatesWith {
                value: value.clone(),
                source,
            })?;
        push_new(&mut names, name);
    }
    Ok(names)
}

fn parse_hint(hint: Option<&str>) -> Result<Option<Arc<str>>, SpecError> {
    match hint {
        Some(hint) if hint.len() > MAX_HINT => Err(SpecError::HintTooLong { length: hint.len() }),
        Some("") | None => Ok(None),
        Some(hint) => Ok(Some(hint.into())),
    }
}

fn check_selectors(selectors: &[EntrySelector], store_svid: bool) -> Result<(), SpecError> {
    let first = selectors.first().ok_or(SpecError::NoSelectors)?.kind();
    match selectors
        .iter()
        .map(EntrySelector::kind)
        .find(|kind| *kind != first)
    {
        Some(second) if store_svid => Err(SpecError::MixedSelectorTypes {
            first: first.into(),
            second: second.into(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
