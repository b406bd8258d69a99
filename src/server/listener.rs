//! The TCP port: connections become callers, by a TLS handshake that is bounded in time.
//!
//! Connections cost memory before anybody has shown who they are, so of those there are never more
//! than a fixed number ([`super::turns`]). A well-meaning client is done within milliseconds, and
//! tries again otherwise.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::server::caller::{Caller, PeerSvid};
use crate::server::connection::Connection;
use crate::server::origin::Origin;
use crate::server::turns::{self, Turns};

/// Longest time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most handshakes at a time.
const MAX_HANDSHAKES: usize = 1024;
/// Most connections at a time of callers without a certificate.
const MAX_ANONYMOUS: usize = 1024;
/// Pause after a connection could not be accepted, as where no file descriptor is left.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection over TCP whose handshake is done.
pub(super) type TlsConnection = Connection<TlsStream<TcpStream>>;
/// Where finished connections go.
pub(super) type Sender = mpsc::Sender<io::Result<TlsConnection>>;

/// Where finished connections go, by who calls.
#[derive(Clone)]
pub(super) struct Senders {
    /// Those of callers without a certificate.
    pub(super) anonymous: Sender,
    /// Those of callers with an X.509-SVID.
    pub(super) peers: Sender,
}

/// Accepts connections for ever, each with the TLS configuration of its moment; without one they
/// are closed at once. All connections end with `end`.
pub(super) async fn accept(
    listener: TcpListener,
    tls: watch::Receiver<Option<Arc<ServerConfig>>>,
    connections: Senders,
    end: CancellationToken,
) {
    let anonymous = Arc::new(Turns::new(MAX_ANONYMOUS));
    let mut handshakes: VecDeque<(Origin, AbortOnDropHandle<()>)> = VecDeque::new();
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(config) = tls.borrow().clone() else {
            continue;
        };
        let handshake = handshake(
            TlsAcceptor::from(config),
            stream,
            address,
            Arc::clone(&anonymous),
            connections.clone(),
            end.child_token(),
        );
        handshakes.retain(|(_, handshake)| !handshake.is_finished());
        let handshake = AbortOnDropHandle::new(tokio::spawn(handshake));
        let origin = address.ip().into();
        drop(turns::add(
            &mut handshakes,
            MAX_HANDSHAKES,
            origin,
            handshake,
        ));
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    anonymous: Arc<Turns>,
    connections: Senders,
    end: CancellationToken,
) {
    // Without it small answers wait for acknowledgements; that it cannot be set harms nothing.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!(%address, "TLS handshake took too long");
            return;
        }
    };
    let address = address.ip();
    let leaf = stream.get_ref().1.peer_certificates();
    let peer = match leaf.and_then(|chain| chain.first()) {
        None => None,
        Some(leaf) => match PeerSvid::read(leaf) {
            Some(svid) => Some(Arc::new(svid)),
            None => return,
        },
    };
    let (caller, connections) = match peer {
        None => (Caller::Anonymous { address }, connections.anonymous),
        Some(svid) => (Caller::Peer { address, svid }, connections.peers),
    };
    let is_anonymous = caller.svid().is_none();
    // From here on `end` is cancelled when the connection is dropped, wherever that is.
    let connection = Connection::new(stream, caller, end.clone());
    if is_anonymous {
        anonymous.count(address.into(), &end);
    }
    // Fails only once the server ends.
    let _ = connections.send(Ok(connection)).await;
}
