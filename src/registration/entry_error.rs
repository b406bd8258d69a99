//! What makes an entry valid, by the rules of spire-server and spire-controller-manager.

use super::{dns_name, template::RunTemplateError};
use crate::spiffe::{ParseSpiffeIdError, SpiffeId, TrustDomainName};

/// Why no entry can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// A DNS name that no entry may carry.
    #[error("DNS name {value:?}: {source}")]
    DnsName {
        /// The rendered name.
        value: String,
        /// What is wrong with it.
        source: dns_name::DnsNameError,
    },
    /// An ID of another trust domain.
    #[error("{what} {value:?} is not in the trust domain {trust_domain}")]
    ForeignTrustDomain {
        /// `SPIFFE ID` or `parent ID`.
        what: &'static str,
        /// The rendered ID.
        value: String,
        /// The trust domain that it must be in.
        trust_domain: TrustDomainName,
    },
    /// The pod's node has not been seen yet.
    #[error("node {node:?} has not been seen yet")]
    NodeUnseen {
        /// Its name.
        node: String,
    },
    /// An ID without a path.
    #[error("{what} {value:?} needs a path")]
    NoPath {
        /// `SPIFFE ID` or `parent ID`.
        what: &'static str,
        /// The rendered ID.
        value: String,
    },
    /// An ID under `/spire`, which belongs to servers and agents.
    #[error("SPIFFE ID {value:?} lies under /spire, which is reserved for servers and agents")]
    ReservedPath {
        /// The rendered ID.
        value: String,
    },
    /// No selector.
    #[error("{value:?} is no selector; write type:value")]
    Selector {
        /// The rendered selector.
        value: String,
    },
    /// No SPIFFE ID.
    #[error("{what} {value:?}: {source}")]
    SpiffeId {
        /// `SPIFFE ID` or `parent ID`.
        what: &'static str,
        /// The rendered ID.
        value: String,
        /// What is wrong with it.
        source: ParseSpiffeIdError,
    },
    /// A template that fails.
    #[error("{field}: {source}")]
    Template {
        /// The field that holds the template.
        field: &'static str,
        /// What failed.
        source: RunTemplateError,
    },
}

impl EntryError {
    /// CamelCase reason for conditions, events and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::DnsName { .. } => "InvalidDNSName",
            Self::ForeignTrustDomain { .. } => "ForeignTrustDomain",
            Self::NodeUnseen { .. } => "NodeUnseen",
            Self::NoPath { .. } | Self::SpiffeId { .. } => "InvalidSPIFFEID",
            Self::ReservedPath { .. } => "ReservedSPIFFEID",
            Self::Selector { .. } => "InvalidSelector",
            Self::Template { .. } => "TemplateFailed",
        }
    }

    /// Whether spire-controller-manager would make the entry and leave it to the server to refuse
    /// it. Such a pod counts as served, so that no fallback applies to it.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::DnsName { .. } | Self::NoPath { .. } | Self::ReservedPath { .. }
        )
    }
}

impl EntryError {
    /// The same error about another value.
    pub(super) fn about(mut self, shown: String) -> Self {
        match &mut self {
            Self::DnsName { value, .. }
            | Self::ForeignTrustDomain { value, .. }
            | Self::NoPath { value, .. }
            | Self::ReservedPath { value }
            | Self::Selector { value }
            | Self::SpiffeId { value, .. } => *value = shown,
            Self::NodeUnseen { .. } | Self::Template { .. } => {}
        }
        self
    }
}

/// Parses an ID; `what` names it in errors.
pub(super) fn parse_id(what: &'static str, value: &str) -> Result<SpiffeId, EntryError> {
    value.parse().map_err(|source| EntryError::SpiffeId {
        what,
        value: value.into(),
        source,
    })
}

/// Parses an ID that must belong to `trust_domain`; `what` names it in errors.
pub(super) fn parse_member_id(
    what: &'static str,
    value: &str,
    trust_domain: &TrustDomainName,
) -> Result<SpiffeId, EntryError> {
    let id = parse_id(what, value)?;
    if !id.is_member_of(trust_domain) {
        return Err(EntryError::ForeignTrustDomain {
            what,
            value: value.into(),
            trust_domain: trust_domain.clone(),
        });
    }
    Ok(id)
}

/// Checks that a workload may have `id`.
pub(super) fn check_workload_id(id: &SpiffeId) -> Result<(), EntryError> {
    if id.path().is_empty() {
        return Err(EntryError::NoPath {
            what: "SPIFFE ID",
            value: id.to_string(),
        });
    }
    if is_reserved(id) {
        return Err(EntryError::ReservedPath {
            value: id.to_string(),
        });
    }
    Ok(())
}

/// Whether `id` is of a server or an agent, and so of no entry.
pub(super) fn is_reserved(id: &SpiffeId) -> bool {
    id.path() == "/spire" || id.path().starts_with("/spire/")
}

/// Checks that an agent or server may have `id`.
pub(super) fn check_parent_id(id: &SpiffeId) -> Result<(), EntryError> {
    if id.path().is_empty() {
        return Err(EntryError::NoPath {
            what: "parent ID",
            value: id.to_string(),
        });
    }
    Ok(())
}

/// Checks the DNS names of an entry.
pub(super) fn check_dns_names(names: &[String]) -> Result<(), EntryError> {
    names.iter().try_for_each(|name| {
        dns_name::check(name).map_err(|source| EntryError::DnsName {
            value: name.clone(),
            source,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: &str) -> SpiffeId {
        value.parse().unwrap()
    }

    #[test]
    fn ids_that_spire_server_refuses_are_refused() {
        let refusal = |value: &str| check_workload_id(&id(value)).map_err(|error| error.reason());
        assert_eq!(refusal("spiffe://e.org"), Err("InvalidSPIFFEID"));
        assert_eq!(refusal("spiffe://e.org/spire"), Err("ReservedSPIFFEID"));
        assert_eq!(
            refusal("spiffe://e.org/spire/agent"),
            Err("ReservedSPIFFEID")
        );
        assert_eq!(refusal("spiffe://e.org/spires"), Ok(()));
        assert!(check_parent_id(&id("spiffe://e.org")).is_err());
        assert_eq!(check_parent_id(&id("spiffe://e.org/spire/server")), Ok(()));
        let domain = "e.org".parse().unwrap();
        let foreign = parse_member_id("SPIFFE ID", "spiffe://f.org/a", &domain).unwrap_err();
        assert_eq!(foreign.reason(), "ForeignTrustDomain");
        assert!(foreign.to_string().contains("spiffe://f.org/a"));
        let unparsable = parse_member_id("SPIFFE ID", "<no value>", &domain).unwrap_err();
        assert!(unparsable.to_string().contains("<no value>"));
    }
}
