//! The wiring of `spiffe-operator run`: starts every task, and ends them in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clusters::certificates_api;
use crate::clusters::identities::Identities;
use crate::clusters::incarnation::Incarnation;
use crate::clusters::nested::AttestingClusters;
use crate::clusters::observe;
use crate::clusters::pod_certificates::Signers;
use crate::controllers;
use crate::runtime::client::{ClientError, client};
use crate::runtime::context::{Context, ServerAddresses};
use crate::runtime::events::Recorder;
use crate::runtime::health::Health;
use crate::runtime::http::{Endpoints, serve};
use crate::runtime::leader::{self, Leadership};
use crate::runtime::logging::LogControl;
use crate::runtime::metrics::Metrics;
use crate::store::Caches;

/// Name of the Lease.
const LEASE: &str = "spiffe-operator";
/// How long tasks may take to end.
const GRACE: Duration = Duration::from_secs(8);

/// What `run` needs to know.
pub struct Config {
    /// Kubeconfig file.
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    pub context: Option<String>,
    /// The operator's own namespace.
    pub namespace: String,
    /// Address of the HTTP endpoints.
    pub http_address: SocketAddr,
    /// Where trust domains are served.
    pub server: ServerAddresses,
    /// Folder with tokens of the operator's service account, for servers above.
    pub token_folder: PathBuf,
    /// Name of this process in the Lease and in events.
    pub identity: String,
    /// The log filter.
    pub logs: LogControl,
}

/// Why the operator could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// There is no client for the cluster.
    #[error(transparent)]
    Client {
        /// Why.
        #[from]
        source: ClientError,
    },
    /// The HTTP address cannot be listened on.
    #[error("cannot listen on {address}; choose another --http-address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A task that works for as long as the process does has ended: a bug. The process ends too, so
    /// that it is started anew.
    #[error("a task broke off, which is a bug; the log says more")]
    TaskEnded,
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals {
        /// Why.
        source: std::io::Error,
    },
}

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or a part of it broke off.
pub async fn run(config: Config) -> Result<(), RunError> {
    let Config {
        kubeconfig,
        context,
        namespace,
        http_address,
        server,
        token_folder,
        identity,
        logs,
    } = config;
    let client = client(kubeconfig.as_deref(), context.as_deref()).await?;
    let listen = |source| RunError::Listen {
        address: http_address,
        source,
    };
    let listener = TcpListener::bind(http_address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone())?;

    // Services end by themselves at shutdown; the other tasks are dropped.
    let mut services = JoinSet::new();
    let mut tasks = JoinSet::new();
    let health = Health::default();
    let metrics = Arc::new(Metrics::new());
    let (recorder, publish_events) = Recorder::new(client.clone(), identity.clone());
    tasks.spawn(publish_events);

    let (leading, leadership) = watch::channel(false);
    let competing = leader::compete(
        client.clone(),
        namespace.clone(),
        LEASE.into(),
        identity.clone(),
        leading,
        shutdown.clone(),
    );
    services.spawn(competing);
    tasks.spawn(report_leadership(Arc::clone(&metrics), leadership.clone()));
    let (discovered, certificates_api) = watch::channel(None);
    tasks.spawn(certificates_api::keep_discovering(
        client.clone(),
        discovered,
    ));

    let caches = Caches::start(&client, &namespace, &metrics);
    let context = Context {
        client,
        caches,
        namespace: namespace.clone(),
        identities: Arc::new(Identities::new(Arc::clone(&metrics))),
        home_recorder: recorder.clone(),
        recorder,
        metrics: Arc::clone(&metrics),
        leadership,
        certificates_api,
        incarnation: Incarnation::Any,
        attesting: AttestingClusters::default(),
        signers: Signers::default(),
        server,
        token_folder,
        logs: logs.clone(),
        shutdown: shutdown.clone(),
    };
    observe::pods(&context, &health, &mut tasks);
    observe::registrations(&context, &health, &mut tasks);
    controllers::start(&context, &health, &mut tasks);

    // Now that it is known what readiness waits for.
    let endpoints = Endpoints {
        health,
        metrics,
        logs,
    };
    let serving = serve(listener, endpoints, shutdown.clone());
    services.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "HTTP endpoints ended");
        }
    });
    tracing::info!(%address, namespace, identity, "listening");

    let outcome = until_the_end(&shutdown, [&mut tasks, &mut services]).await;
    shutdown.cancel();
    tracing::info!("stopping");
    tasks.shutdown().await;
    let ended = async { while services.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::warn!("the Lease or open HTTP connections did not end in time");
    }
    outcome
}

/// Waits for `shutdown`, or for the end of a task, none of which ends before.
async fn until_the_end(
    shutdown: &CancellationToken,
    [tasks, services]: [&mut JoinSet<()>; 2],
) -> Result<(), RunError> {
    let ended = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(()),
        Some(ended) = tasks.join_next() => ended,
        Some(ended) = services.join_next() => ended,
    };
    let error = ended.err().map(|error| error.to_string());
    tracing::error!(error, "a task broke off");
    Err(RunError::TaskEnded)
}

/// Cancels `shutdown` on the first SIGTERM or SIGINT.
fn stop_on_signals(shutdown: CancellationToken) -> Result<(), RunError> {
    let failed = |source| RunError::Signals { source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}

/// Keeps the metric that says who leads.
async fn report_leadership(metrics: Arc<Metrics>, mut leadership: Leadership) {
    loop {
        metrics.set_leader(*leadership.borrow_and_update());
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_process_ends_when_a_task_breaks_off_and_not_before() {
        let shutdown = CancellationToken::new();
        let (mut tasks, mut services) = (JoinSet::new(), JoinSet::new());
        tasks.spawn(std::future::pending());
        services.spawn(shutdown.clone().cancelled_owned());
        services.spawn(async { panic!("a bug") });
        let outcome = until_the_end(&shutdown, [&mut tasks, &mut services]).await;
        assert!(matches!(outcome, Err(RunError::TaskEnded)), "{outcome:?}");
        shutdown.cancel();
        let outcome = until_the_end(&shutdown, [&mut tasks, &mut services]).await;
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}
