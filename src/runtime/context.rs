//! What every task gets: clients, metrics, events, and who leads. Built once, passed down.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clusters::certificates_api::CertificatesApi;
use crate::clusters::identities::Identities;
use crate::clusters::incarnation::Incarnation;
use crate::clusters::nested::AttestingClusters;
use crate::clusters::pod_certificates::Signers;
use crate::runtime::events::Recorder;
use crate::runtime::leader::Leadership;
use crate::runtime::logging::LogControl;
use crate::runtime::metrics::Metrics;
use crate::store::Caches;

/// Shared by all tasks.
#[derive(Clone)]
pub struct Context {
    /// Client of the cluster.
    pub client: Client,
    /// The operator's own namespace.
    pub namespace: String,
    /// Who is registered.
    pub identities: Arc<Identities>,
    /// What is watched of agents and foreign trust domains.
    pub caches: Caches,
    /// Events on what is in the cluster.
    pub recorder: Recorder,
    /// Events on what registers pods, in the operator's own cluster.
    pub home_recorder: Recorder,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Whether this process leads.
    pub leadership: Leadership,
    /// Which cluster a list must come from.
    pub incarnation: Incarnation,
    /// The nested clusters whose pods may attest as agents.
    pub attesting: AttestingClusters,
    /// Who signs for each TrustDomain.
    pub signers: Signers,
    /// What the cluster serves of `certificates.k8s.io`; none before it was asked.
    pub certificates_api: watch::Receiver<Option<CertificatesApi>>,
    /// Where trust domains are served.
    pub server: ServerAddresses,
    /// Folder with tokens of the operator's service account, for servers above.
    pub token_folder: PathBuf,
    /// The log filter.
    pub logs: LogControl,
    /// Ends when the process shall end.
    pub shutdown: CancellationToken,
}

/// Where trust domains are served to SPIRE agents, servers and tools.
#[derive(Clone, Debug)]
pub struct ServerAddresses {
    /// IP address of all servers; each has a port of its own.
    pub ip: IpAddr,
    /// Path of the administration socket, with `{name}` for the name of the TrustDomain.
    pub admin_socket: Option<String>,
}
