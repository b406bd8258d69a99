//! Serving one trust domain: the TCP port, the administration socket, and what keeps them going.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::runtime::backoff::Backoff;
use crate::server::admin_socket;
use crate::server::authorization::AuthorizationLayer;
use crate::server::connection::{self, Connection};
use crate::server::context::ServerContext;
use crate::server::{identity, listener, services};

/// A connection on which nothing was heard for so long is asked whether it lives,
const KEEPALIVE_INTERVAL: Duration = Duration::from_mins(1);
/// and is closed when it does not answer within this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time until a call is answered; streams may go on for longer.
const CALL_TIMEOUT: Duration = Duration::from_mins(1);
/// What a connection may cost of a caller who is known.
const KNOWN: Bounds = Bounds {
    streams: 128,
    window: None,
};
/// What a connection may cost of a caller without a certificate, who asks for the bundle and
/// attests.
const ANONYMOUS: Bounds = Bounds {
    streams: 8,
    window: Some(64 * 1024 - 1),
};
/// Longest list of headers in bytes.
const MAX_HEADERS: u32 = 16 * 1024;
/// Finished handshakes that wait for the server.
const BACKLOG: usize = 64;

/// What one connection may cost.
#[derive(Clone, Copy)]
struct Bounds {
    /// Most calls at a time.
    streams: u32,
    /// Most bytes that were not read yet; none for what the library thinks fit.
    window: Option<u32>,
}

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The TCP port.
    pub tcp: SocketAddr,
    /// The administration socket, if there is one.
    pub admin_socket: Option<PathBuf>,
}

/// Whether a server listens, in words for the user; none while that is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// On the TCP port.
    pub port: Option<Result<(), String>>,
    /// On the administration socket, where there is to be one.
    pub admin_socket: Option<Result<(), String>>,
}

/// Serves until dropped. `listening` says whether it does.
pub async fn run(
    context: Arc<ServerContext>,
    addresses: Addresses,
    listening: watch::Sender<Listening>,
) {
    let (tls, configured) = watch::channel(None);
    let admin = async {
        match &addresses.admin_socket {
            Some(path) => serve_admin_socket(&context, path, &listening).await,
            None => std::future::pending().await,
        }
    };
    // Each goes on for ever.
    tokio::select! {
        () = identity::keep(Arc::clone(&context), tls) => {}
        _ = serve_tcp(&context, addresses.tcp, &configured, &listening) => {}
        _ = admin => {}
    }
}

async fn serve_tcp(
    context: &Arc<ServerContext>,
    address: SocketAddr,
    tls: &watch::Receiver<Option<Arc<rustls::ServerConfig>>>,
    listening: &watch::Sender<Listening>,
) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                listening.send_modify(|it| it.port = Some(Ok(())));
                tracing::info!(trust_domain = %context.trust_domain, %address, "Starting Server APIs");
                serve_listener(context, listener, tls.clone()).await;
            }
            Err(error) => {
                let problem = format!("cannot listen on {address}: {error}");
                tracing::warn!(trust_domain = %context.trust_domain, problem, "no server");
                listening.send_modify(|it| it.port = Some(Err(problem)));
            }
        }
        backoff.failed(());
        backoff.next_due().await;
    }
}

async fn serve_listener(
    context: &Arc<ServerContext>,
    listener: TcpListener,
    tls: watch::Receiver<Option<Arc<rustls::ServerConfig>>>,
) {
    let (anonymous, of_anonymous) = mpsc::channel(BACKLOG);
    let (peers, of_peers) = mpsc::channel(BACKLOG);
    let routes = services::over_tcp(context);
    let end = CancellationToken::new();
    let _guard = end.clone().drop_guard();
    let senders = listener::Senders { anonymous, peers };
    tokio::select! {
        () = serve(context, routes.clone(), of_anonymous, ANONYMOUS) => {}
        () = serve(context, routes, of_peers, KNOWN) => {}
        () = listener::accept(listener, tls, senders, end) => {}
    }
}

async fn serve_admin_socket(
    context: &Arc<ServerContext>,
    path: &std::path::Path,
    listening: &watch::Sender<Listening>,
) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        match admin_socket::bind(path) {
            Ok(listener) => {
                listening.send_modify(|it| it.admin_socket = Some(Ok(())));
                let trust_domain = context.trust_domain.as_str();
                tracing::info!(trust_domain, path = %path.display(), "Starting Server APIs");
                serve_socket(context, listener).await;
            }
            Err(error) => {
                let problem = crate::error_chain(&error);
                let trust_domain = context.trust_domain.as_str();
                tracing::warn!(trust_domain, problem, "no administration socket");
                listening.send_modify(|it| it.admin_socket = Some(Err(problem)));
            }
        }
        backoff.failed(());
        backoff.next_due().await;
    }
}

async fn serve_socket(context: &Arc<ServerContext>, listener: UnixListener) {
    let (sender, connections) = mpsc::channel(BACKLOG);
    let routes = services::on_admin_socket(context);
    let end = CancellationToken::new();
    let _guard = end.clone().drop_guard();
    tokio::select! {
        () = serve(context, routes, connections, KNOWN) => {}
        () = admin_socket::accept(listener, sender, end) => {}
    }
}

/// Serves `routes` to `connections` until they end.
async fn serve<S>(
    context: &Arc<ServerContext>,
    routes: Routes,
    connections: mpsc::Receiver<io::Result<Connection<S>>>,
    bounds: Bounds,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let server = transport(bounds)
        .layer(AuthorizationLayer {
            context: Arc::clone(context),
        })
        .add_routes(routes)
        .serve_with_incoming(ReceiverStream::new(connections));
    if let Err(error) = server.await {
        let error = crate::error_chain(&error);
        tracing::warn!(trust_domain = %context.trust_domain, error, "the server ended");
    }
}

/// HTTP/2 within `bounds`.
fn transport(bounds: Bounds) -> Server {
    Server::builder()
        // With a grace of its own it would ask nobody, and cut off what is under way.
        .max_connection_age(connection::MAX_AGE)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(bounds.streams)
        .initial_stream_window_size(bounds.window)
        .initial_connection_window_size(bounds.window)
        .timeout(CALL_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use h2::client::handshake;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;
    use tonic::codegen::http::Uri;
    use tonic::transport::Endpoint;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tower::service_fn;

    use super::*;
    use crate::server::caller::Caller;

    /// A client's end of a connection whose only service is that for health.
    fn connect() -> DuplexStream {
        let (client, server) = duplex(64 * 1024);
        let (_, health) = tonic_health::server::health_reporter();
        let server = Connection::new(server, Caller::Local, CancellationToken::new());
        let incoming = stream::iter([Ok::<_, io::Error>(server)]).chain(stream::pending());
        let serve = transport(KNOWN)
            .add_service(health)
            .serve_with_incoming(incoming);
        tokio::spawn(serve);
        client
    }

    /// Whether a time has passed, and not much more.
    fn is_about(passed: Duration, expected: Duration) -> bool {
        (expected..expected + Duration::from_secs(2)).contains(&passed)
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_lives_as_long_as_in_spire() {
        let begun = Instant::now();
        let (client, driver) = handshake(connect()).await.unwrap();
        // It answers when it is asked whether it lives.
        driver.await.unwrap();
        let passed = begun.elapsed();
        assert!(is_about(passed, connection::MAX_AGE), "{passed:?}");
        assert!(client.ready().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_begun_may_go_on_for_a_while() {
        let begun = Instant::now();
        let mut stream = Some(TokioIo::new(connect()));
        let connect = service_fn(move |_: Uri| {
            let stream = stream.take();
            async { stream.ok_or_else(|| io::Error::other("it has ended")) }
        });
        let endpoint = Endpoint::from_static("http://server.test");
        let channel = endpoint.connect_with_connector(connect).await.unwrap();
        let request = HealthCheckRequest::default();
        let watching = HealthClient::new(channel).watch(request).await.unwrap();
        let mut watching = watching.into_inner();
        watching.message().await.unwrap().unwrap();
        watching.message().await.unwrap_err();
        let passed = begun.elapsed();
        let longest = connection::MAX_AGE + connection::GRACE;
        assert!(is_about(passed, longest), "{passed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_any_more_is_let_go() {
        let begun = Instant::now();
        let mut client = connect();
        // The beginning of HTTP/2 with empty settings.
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        client.write_all(preface).await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        let passed = begun.elapsed();
        let longest = KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT;
        assert!(is_about(passed, longest), "{passed:?}");
    }
}
