//! An API server that fails as it is told: a proxy before a real one.

use std::{
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
use futures::StreamExt;
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
    /// Answers come this late.
    Slow(Duration),
}

/// The proxy. Its task ends with it.
pub(crate) struct FaultyApiServer {
    fault: watch::Sender<Fault>,
    requests: Arc<AtomicU64>,
    kubeconfig: PathBuf,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Proxy {
    client: Client,
    fault: watch::Receiver<Fault>,
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
        let fault = watch::Sender::new(Fault::None);
        let requests = Arc::new(AtomicU64::new(0));
        let proxy = Proxy {
            client: control_plane.client().await,
            fault: fault.subscribe(),
            requests: Arc::clone(&requests),
        };
        let router = Router::new().fallback(forward).with_state(proxy);
        let serve = async move { axum::serve(listener, router).await.unwrap() };
        Self {
            fault,
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
        self.fault.send_replace(fault);
    }

    /// How many requests have come.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn forward(State(proxy): State<Proxy>, request: Request) -> Response {
    proxy.requests.fetch_add(1, Ordering::Relaxed);
    let mut fault = proxy.fault.clone();
    let query = request.uri().query().unwrap_or_default();
    let watches = query.contains("watch=true");
    let now = *fault.borrow_and_update();
    match now {
        Fault::Status(code) => return status(code),
        Fault::WatchesExpire if watches => return expired().into_response(),
        Fault::WatchesEnd if watches => return StatusCode::OK.into_response(),
        Fault::Slow(delay) => sleep(delay).await,
        Fault::None | Fault::WatchesExpire | Fault::WatchesEnd => {}
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
            let changed = async move { fault.changed().await };
            Response::from_parts(parts, Body::from_stream(body.take_until(changed)))
        }
        Err(_) => status(502),
    }
}

/// An error as the API server words it.
fn status(code: u16) -> Response {
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
        "reason": "Injected", "message": "injected by the test",
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
