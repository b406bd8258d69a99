//! An API server that fails as it is told: a proxy before a real one.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use kube::Client;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use super::ControlPlane;

/// How requests fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// They do not.
    None,
    /// All are answered with this HTTP status.
    Status(u16),
    /// Watches end at once with the error that their version is too old (410).
    WatchesExpire,
    /// Watches end at once without an error.
    WatchesEnd,
    /// Watches stay open and say nothing.
    WatchesHang,
    /// The same, and those that began so say nothing even when nothing fails any more.
    WatchesDie,
    /// Answers come this late.
    Slow(Duration),
}

/// The proxy. Its task ends with it.
pub(crate) struct FaultyApiServer {
    failing: watch::Sender<Failing>,
    requests: Arc<AtomicU64>,
    kubeconfig: PathBuf,
    _task: AbortOnDropHandle<()>,
}

/// Which requests fail, and how.
#[derive(Clone)]
struct Failing {
    fault: Fault,
    /// Part of their method, path and query, such as `GET /api/v1/namespaces?`; empty for all.
    requests: String,
}

#[derive(Clone)]
struct Proxy {
    client: Client,
    failing: watch::Receiver<Failing>,
    requests: Arc<AtomicU64>,
}

impl FaultyApiServer {
    /// Passes requests on to `control_plane` with the rights of its administrator.
    pub(crate) async fn before(control_plane: &ControlPlane) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubeconfig = control_plane.dir().join("faulty.kubeconfig");
        let content = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "faulty",
                "cluster": { "server": format!("http://{}", listener.local_addr().unwrap()) },
            }],
            "users": [{ "name": "anybody", "user": {} }],
            "contexts": [{ "name": "faulty", "context": { "cluster": "faulty", "user": "anybody" } }],
            "current-context": "faulty",
        });
        std::fs::write(&kubeconfig, content.to_string()).unwrap();
        let failing = watch::Sender::new(Failing {
            fault: Fault::None,
            requests: String::new(),
        });
        let requests = Arc::new(AtomicU64::new(0));
        let proxy = Proxy {
            client: control_plane.client().await,
            failing: failing.subscribe(),
            requests: Arc::clone(&requests),
        };
        let router = Router::new().fallback(forward).with_state(proxy);
        let serve = async move { axum::serve(listener, router).await.unwrap() };
        Self {
            failing,
            requests,
            kubeconfig,
            _task: AbortOnDropHandle::new(tokio::spawn(serve)),
        }
    }

    /// A kubeconfig of the proxy.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Fails like this from now on; watches that are open end.
    pub(crate) fn fail(&self, fault: Fault) {
        self.fail_only("", fault);
    }

    /// The same for those requests only whose method, path and query contain `requests`.
    pub(crate) fn fail_only(&self, requests: &str, fault: Fault) {
        let requests = requests.to_owned();
        self.failing.send_replace(Failing { fault, requests });
    }

    /// How many requests have come.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn forward(State(proxy): State<Proxy>, request: Request) -> Response {
    proxy.requests.fetch_add(1, Ordering::Relaxed);
    let mut failing = proxy.failing.clone();
    let query = request.uri().query().unwrap_or_default();
    let watches = query.contains("watch=true");
    let name = format!("{} {}", request.method(), request.uri());
    let now = failing.borrow_and_update().clone();
    let changed = async move { failing.changed().await };
    match now.fault {
        _ if !name.contains(&now.requests) => {}
        Fault::Status(code) => return status(code),
        Fault::WatchesExpire if watches => return expired().into_response(),
        Fault::WatchesEnd if watches => return StatusCode::OK.into_response(),
        Fault::WatchesHang if watches => {
            let silence = stream::pending::<Result<Vec<u8>, Infallible>>();
            return Body::from_stream(silence.take_until(changed)).into_response();
        }
        Fault::WatchesDie if watches => {
            let silence = stream::pending::<Result<Vec<u8>, Infallible>>();
            return Body::from_stream(silence).into_response();
        }
        Fault::Slow(delay) => sleep(delay).await,
        _ => {}
    }
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(header::HOST);
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let request = Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
    match proxy.client.send(request).await {
        Ok(answer) => {
            let (mut parts, body) = answer.into_parts();
            parts.headers.remove(header::TRANSFER_ENCODING);
            parts.headers.remove(header::CONNECTION);
            let body = Body::new(body).into_data_stream();
            Response::from_parts(parts, Body::from_stream(body.take_until(changed)))
        }
        Err(_) => status(502),
    }
}

/// An error as the API server words it.
fn status(code: u16) -> Response {
    let reason = match code {
        404 => "NotFound",
        _ => "Injected",
    };
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
        "reason": reason, "message": "injected by the test",
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::RETRY_AFTER, "1"),
    ];
    let code = StatusCode::from_u16(code).unwrap();
    (code, headers, body.to_string()).into_response()
}

fn expired() -> impl IntoResponse {
    let event = json!({ "type": "ERROR", "object": {
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old resource version",
    }});
    (
        [(header::CONTENT_TYPE, "application/json")],
        format!("{event}\n"),
    )
}
