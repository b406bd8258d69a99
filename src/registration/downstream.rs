//! The servers of a nested cluster that get a CA from this one: which pods they are, and the entry
//! that each gets. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{
    entry::{Source, SourceKind},
    entry_error::{EntryError, check_parent_id, parse_member_id},
    facts::PodFacts,
    spec::{ParsedClusterSpiffeId, SpecError},
    template::ClusterFacts,
};
use crate::api::ClusterSpiffeIdSpec;
use crate::spiffe::{SpiffeId, TrustDomainName};

/// SPIFFE ID of the servers of a cluster.
const ID: &str = "spiffe://{{ .TrustDomain }}/nested/{{ .ClusterName }}";
/// What an agent finds out about them by the workload attestor `k8s`, besides the UID of the pod.
const SELECTORS: [&str; 2] = [
    "k8s:ns:{{ .PodMeta.Namespace }}",
    "k8s:sa:{{ .PodSpec.ServiceAccountName }}",
];

/// The servers of a nested cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct DownstreamServers {
    pub(super) source: Arc<Source>,
    pub(super) spec: Arc<ParsedClusterSpiffeId>,
}

/// The pods that are servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPods {
    /// Their service accounts, each `namespace:name`.
    pub service_accounts: BTreeSet<String>,
    /// Who fetches their SVIDs.
    pub fetched_by: SvidFetcher,
}

/// Who fetches the SVID of a downstream server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SvidFetcher {
    /// The agent on its node.
    NodeAgent,
    /// The server itself, as an agent that is told apart by its pod.
    Server,
}

impl DownstreamServers {
    /// The servers that run in `pods`, as the NestedCluster `name` with `uid` declares them.
    /// `created` is when it was created, in seconds since 1970, and `ttl` the lifetime of their
    /// X.509-SVIDs, a Go duration.
    ///
    /// # Errors
    /// When `ttl` is no lifetime.
    pub fn new(
        (name, uid, created): (&str, &str, i64),
        pods: ServerPods,
        ttl: Option<&str>,
        trust_domain: &TrustDomainName,
    ) -> Result<Self, SpecError> {
        let spec = ClusterSpiffeIdSpec {
            spiffe_id_template: ID.into(),
            workload_selector_templates: SELECTORS.map(Into::into).into(),
            ttl: ttl.map(Into::into),
            downstream: true,
            ..ClusterSpiffeIdSpec::default()
        };
        let parsed = ParsedClusterSpiffeId::parse(&spec, trust_domain)?;
        Ok(Self {
            source: Arc::new(Source {
                kind: SourceKind::NestedCluster,
                name: name.into(),
                uid: uid.into(),
                created,
                deleted: None,
            }),
            spec: Arc::new(ParsedClusterSpiffeId {
                servers: Some(pods),
                ..parsed
            }),
        })
    }
}

impl ServerPods {
    /// Whether `pod` is one of them.
    pub(super) fn contain(&self, pod: &PodFacts) -> bool {
        let account = format!("{}:{}", pod.namespace, pod.service_account);
        self.service_accounts.contains(&account)
    }

    /// The agent that fetches the SVID of `pod`, where `node_agent` is that of its node.
    pub(super) fn parent_id(
        &self,
        cluster: &ClusterFacts,
        pod: &PodFacts,
        node_agent: &SpiffeId,
    ) -> Result<SpiffeId, EntryError> {
        match self.fetched_by {
            SvidFetcher::NodeAgent => Ok(node_agent.clone()),
            SvidFetcher::Server => {
                let ClusterFacts {
                    trust_domain,
                    cluster_name,
                    ..
                } = cluster;
                let id = format!(
                    "spiffe://{trust_domain}/spire/agent/k8s_psat/{cluster_name}/pod/{}",
                    pod.uid
                );
                let id = parse_member_id("parent ID", &id, trust_domain)?;
                check_parent_id(&id)?;
                Ok(id)
            }
        }
    }
}
