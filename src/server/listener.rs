//! The TCP port: connections become callers, by a TLS handshake that is bounded in time.
//!
//! Connections cost memory before anybody has shown who they are, so of those there are never more
//! than a fixed number: where one more comes, the oldest of the address that has most goes. A well-meaning client is done within
//! milliseconds, and tries again otherwise.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
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

/// Accepts connections for ever, each with the TLS configuration of its moment; without one they
/// are closed at once. All connections end with `end`.
pub(super) async fn accept(
    listener: TcpListener,
    tls: watch::Receiver<Option<Arc<ServerConfig>>>,
    connections: Sender,
    end: CancellationToken,
) {
    let anonymous = Arc::new(Anonymous::default());
    let mut handshakes: VecDeque<(IpAddr, AbortOnDropHandle<()>)> = VecDeque::new();
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
        if handshakes.len() >= MAX_HANDSHAKES {
            remove_one(&mut handshakes);
        }
        let handshake = AbortOnDropHandle::new(tokio::spawn(handshake));
        handshakes.push_back((address.ip(), handshake));
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    anonymous: Arc<Anonymous>,
    connections: Sender,
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
    let leaf = stream.get_ref().1.peer_certificates();
    let caller = match leaf.and_then(|chain| chain.first()) {
        None => {
            anonymous.admit(address.ip(), &end);
            Caller::Anonymous {
                address: address.ip(),
            }
        }
        Some(leaf) => match PeerSvid::read(leaf) {
            Some(svid) => Caller::Peer {
                address: address.ip(),
                svid: Arc::new(svid),
            },
            None => return,
        },
    };
    // Fails only once the server ends.
    let _ = connections
        .send(Ok(Connection::new(stream, caller, end)))
        .await;
}

/// The connections of callers without a certificate, oldest first.
#[derive(Default)]
struct Anonymous {
    open: Mutex<VecDeque<(IpAddr, CancellationToken)>>,
}

impl Anonymous {
    /// Lets one more in, which ends when `end` is cancelled; of too many one goes.
    fn admit(&self, address: IpAddr, end: &CancellationToken) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, end)| !end.is_cancelled());
        if open.len() >= MAX_ANONYMOUS
            && let Some(removed) = remove_one(&mut open)
        {
            removed.cancel();
        }
        open.push_back((address, end.clone()));
    }
}

/// Takes the oldest of the address that has most, so that nobody drives out others.
fn remove_one<T>(items: &mut VecDeque<(IpAddr, T)>) -> Option<T> {
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (address, _) in items.iter() {
        *counts.entry(*address).or_default() += 1;
    }
    let (most, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    let oldest = items.iter().position(|(address, _)| *address == most)?;
    items.remove(oldest).map(|(_, item)| item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_most_loses_the_oldest() {
        let address = |last| IpAddr::from([127, 0, 0, last]);
        let items = [(1, "old"), (2, "a"), (2, "b"), (3, "new"), (2, "c")];
        let mut items: VecDeque<_> = items.map(|(last, item)| (address(last), item)).into();
        assert_eq!(remove_one(&mut items), Some("a"));
        assert_eq!(remove_one(&mut items), Some("b"));
        assert_eq!(items.len(), 3);
    }
}
