//! What may be registered in a nested cluster: who declares its entries, and what limits them,
//! whoever declared them. Pure.
//!
//! Whoever rules a cluster can make up any namespace, service account and node in it. So agents of a
//! nested cluster always lie under its name, and its SPIFFE IDs and DNS names can be bound to
//! patterns.

use super::downstream::DownstreamServers;
use super::entry_error::EntryError;
use crate::nested::AllowedNames;
use crate::spiffe::SpiffeId;

/// What may be registered in one nested cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct NestedScope {
    /// Its limits.
    pub bounds: ClusterBounds,
    /// Who declares its entries.
    pub declared_by: DeclaredBy,
}

/// Who declares the entries of a nested cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum DeclaredBy {
    /// ClusterSPIFFEIDs of this cluster.
    Parent,
    /// Nobody but its NestedCluster: it has servers of its own, which alone are registered here.
    Servers(DownstreamServers),
}

impl DeclaredBy {
    /// Whether ClusterSPIFFEIDs of this cluster count there.
    #[must_use]
    pub fn parent(&self) -> bool {
        matches!(self, Self::Parent)
    }
}

/// The limits of one nested cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterBounds {
    cluster_name: String,
    allowed: AllowedNames,
}

impl ClusterBounds {
    /// The limits of the cluster with this name, whose pods may have names that are `allowed`.
    #[must_use]
    pub fn new(cluster_name: &str, allowed: AllowedNames) -> Self {
        Self {
            cluster_name: cluster_name.to_owned(),
            allowed,
        }
    }

    /// Whether its pods may have any SPIFFE ID, so that it is trusted as much as the local cluster.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.allowed.is_open()
    }

    /// Name of the cluster.
    #[must_use]
    pub fn cluster_name(&self) -> &str {
        &self.cluster_name
    }

    /// Checks that an agent with `id` can be one of the cluster's.
    pub(super) fn check_parent_id(&self, id: &SpiffeId) -> Result<(), EntryError> {
        if agents_cluster(id) == Some(&self.cluster_name) {
            return Ok(());
        }
        Err(EntryError::OutOfBounds {
            what: "parent ID",
            value: id.to_string(),
            cluster: self.cluster_name.clone(),
        })
    }

    /// Checks that a workload of the cluster may have `id`.
    pub(super) fn check_id(&self, id: &SpiffeId) -> Result<(), EntryError> {
        if self.allowed.allow_id(id) {
            return Ok(());
        }
        Err(EntryError::OutOfBounds {
            what: "SPIFFE ID",
            value: id.to_string(),
            cluster: self.cluster_name.clone(),
        })
    }

    /// Whether a workload of the cluster may have the DNS name `name`.
    pub(super) fn allows_dns_name(&self, name: &str) -> bool {
        self.allowed.allow_dns_name(name)
    }

    /// Checks that a workload of the cluster may have the DNS name `name`.
    pub(super) fn check_dns_name(&self, name: &str) -> Result<(), EntryError> {
        if self.allows_dns_name(name) {
            return Ok(());
        }
        Err(EntryError::OutOfBounds {
            what: "DNS name",
            value: name.to_owned(),
            cluster: self.cluster_name.clone(),
        })
    }
}

/// Name of the cluster that an agent which attested by `k8s_psat` is in.
#[must_use]
pub fn agents_cluster(agent: &SpiffeId) -> Option<&str> {
    let (cluster, node) = agent
        .path()
        .strip_prefix("/spire/agent/k8s_psat/")?
        .split_once('/')?;
    (!node.is_empty()).then_some(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(path: &str) -> SpiffeId {
        format!("spiffe://e.org{path}").parse().unwrap()
    }

    #[test]
    fn names_that_are_not_allowed_are_refused_with_the_cluster() {
        let (ids, names) = (["/ns/*".to_owned()], ["*.e.org".to_owned()]);
        let allowed = AllowedNames::parse(Some(&ids), Some(&names)).unwrap();
        let bounds = ClusterBounds::new("child01", allowed);
        assert_eq!(bounds.check_id(&id("/ns/shop")), Ok(()));
        assert_eq!(bounds.check_dns_name("web.e.org"), Ok(()));
        for error in [
            bounds.check_id(&id("/other")).unwrap_err(),
            bounds.check_dns_name("web.f.org").unwrap_err(),
        ] {
            assert_eq!(error.reason(), "OutOfBounds");
            assert!(error.to_string().contains("child01"), "{error}");
        }
    }

    #[test]
    fn agents_lie_under_the_name_of_their_cluster() {
        let bounds = ClusterBounds::new("child01", AllowedNames::default());
        for (path, fits) in [
            ("/spire/agent/k8s_psat/child01/node", true),
            ("/spire/agent/k8s_psat/child01/a/b", true),
            ("/spire/agent/k8s_psat/child01", false),
            ("/spire/agent/k8s_psat/child02/node", false),
            ("/spire/agent/k8s_psat/child011/node", false),
            ("/spire/agent/x509pop/child01/node", false),
            ("/spire/server", false),
        ] {
            assert_eq!(bounds.check_parent_id(&id(path)).is_ok(), fits, "{path}");
        }
    }
}
