//! `spiffe-operator run`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::error_chain;
use crate::runtime::context::ServerAddresses;
use crate::runtime::logging::{self, LogFormat};
use crate::runtime::run::{Config, run};

/// Namespace where the operator keeps its state when it does not run in a pod.
const DEFAULT_NAMESPACE: &str = "spiffe-system";
/// Where a pod finds its own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Flags of `run`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Kubeconfig file. Default: $KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long, env = "SPIFFE_OPERATOR_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig. Default: its current one.
    #[arg(long, env = "SPIFFE_OPERATOR_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    /// Namespace of the operator's Secrets, ConfigMaps and Lease. Default: the pod's own, else
    /// spiffe-system.
    #[arg(long, env = "SPIFFE_OPERATOR_NAMESPACE", value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Address of /livez, /readyz and /metrics; port 0 takes a free one.
    #[arg(
        long,
        env = "SPIFFE_OPERATOR_HTTP_ADDRESS",
        default_value = "0.0.0.0:8080",
        value_name = "IP:PORT"
    )]
    http_address: SocketAddr,
    /// Address on which every TrustDomain with a `server` is served, each on its own port.
    #[arg(
        long,
        env = "SPIFFE_OPERATOR_SERVER_ADDRESS",
        default_value = "0.0.0.0",
        value_name = "IP"
    )]
    server_address: IpAddr,
    /// Unix socket for the command line of spire-server and for spire-controller-manager, such as
    /// /tmp/spire-server/private/api.sock; `{name}` in it stands for the name of the TrustDomain, and
    /// is needed where there are several. Whoever can open it may do everything. Default: none.
    #[arg(long, env = "SPIFFE_OPERATOR_ADMIN_SOCKET", value_name = "FILE")]
    admin_socket: Option<String>,
    /// Folder with the files that `authority.upstream.spire.k8sPSAT.tokenFile` of a TrustDomain names:
    /// tokens of the operator's service account, which the kubelet puts there.
    #[arg(
        long,
        env = "SPIFFE_OPERATOR_TOKEN_FOLDER",
        default_value = "/var/run/secrets/tokens",
        value_name = "FOLDER"
    )]
    token_folder: PathBuf,
    /// Name of this process in the Lease and in events; it must differ between replicas. Default:
    /// the host's name and a random part.
    #[arg(long, env = "SPIFFE_OPERATOR_IDENTITY", value_name = "NAME")]
    identity: Option<String>,
    /// What to log: a level, or module=level pairs.
    #[arg(
        long,
        env = "SPIFFE_OPERATOR_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    log: String,
    /// Form of log lines.
    #[arg(long, env = "SPIFFE_OPERATOR_LOG_FORMAT", default_value = "json")]
    log_format: LogFormat,
}

/// Runs the operator until it is told to stop.
pub(super) fn execute(arguments: Arguments) -> Result<ExitCode, String> {
    let Arguments {
        kubeconfig,
        context,
        namespace,
        http_address,
        server_address,
        admin_socket,
        token_folder,
        identity,
        log,
        log_format,
    } = arguments;
    let logs = logging::start(&log, log_format)
        .map_err(|error| format!("--log {log:?}: {}", error_chain(&error)))?;
    // As programs in Go do: each connection of an agent is a file. Less than that works, too.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let config = Config {
        kubeconfig,
        context,
        namespace: namespace.unwrap_or_else(own_namespace),
        http_address,
        server: ServerAddresses {
            ip: server_address,
            admin_socket,
        },
        token_folder,
        identity: identity.unwrap_or_else(default_identity),
        logs,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let outcome = runtime.block_on(run(config));
    runtime.shutdown_background();
    outcome
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error| error_chain(&error))
}

fn own_namespace() -> String {
    match std::fs::read_to_string(NAMESPACE_FILE) {
        Ok(namespace) if !namespace.trim().is_empty() => namespace.trim().to_owned(),
        _ => DEFAULT_NAMESPACE.into(),
    }
}

fn default_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{:08x}", host.trim(), rand::random::<u32>())
}
