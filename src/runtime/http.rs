//! The process's own HTTP endpoints: `/livez`, `/readyz`, `/metrics`, and `/loglevel` for callers
//! on the same host (or through `kubectl port-forward`).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, put};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::runtime::health::Health;
use crate::runtime::logging::LogControl;
use crate::runtime::metrics::Metrics;

/// Longest log filter that is accepted, in bytes.
const MAX_BODY: usize = 4096;

/// What the endpoints show.
#[derive(Clone)]
pub struct Endpoints {
    /// Readiness.
    pub health: Health,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The log filter.
    pub logs: LogControl,
}

/// Serves until `shutdown`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    endpoints: Endpoints,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/loglevel", put(set_log_level))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(endpoints)
        .into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, routes)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

async fn ready(State(endpoints): State<Endpoints>) -> impl IntoResponse {
    match endpoints.health.missing() {
        missing if missing.is_empty() => (StatusCode::OK, "ok".to_owned()),
        missing => {
            let message = format!("waiting for: {}\n", missing.join(", "));
            (StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }
}

async fn metrics(State(endpoints): State<Endpoints>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        endpoints.metrics.encode(),
    )
}

async fn set_log_level(
    State(endpoints): State<Endpoints>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    filter: String,
) -> impl IntoResponse {
    if !peer.ip().is_loopback() {
        let message = "only from this host; use kubectl port-forward\n".to_owned();
        return (StatusCode::FORBIDDEN, message);
    }
    match endpoints.logs.set(filter.trim()) {
        Ok(()) => {
            tracing::info!(filter = filter.trim(), "log filter replaced");
            (StatusCode::OK, "ok\n".to_owned())
        }
        Err(error) => (
            StatusCode::BAD_REQUEST,
            format!("{}\n", crate::error_chain(&error)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_log_level_is_for_callers_on_this_host() {
        let status = async |peer: &str| {
            let endpoints = Endpoints {
                health: Health::default(),
                metrics: Arc::new(Metrics::new()),
                logs: LogControl::detached(),
            };
            let peer = ConnectInfo(peer.parse().unwrap());
            let answer = set_log_level(State(endpoints), peer, "loud".into()).await;
            answer.into_response().status()
        };
        for (peer, expected) in [
            ("127.0.0.1:1", StatusCode::BAD_REQUEST),
            ("[::1]:1", StatusCode::BAD_REQUEST),
            ("10.0.0.1:1", StatusCode::FORBIDDEN),
            ("[fd00::1]:1", StatusCode::FORBIDDEN),
        ] {
            assert_eq!(status(peer).await, expected, "{peer}");
        }
    }
}
