//! Strangers who hold as many calls of the server open as they can: agents sync and attest meanwhile,
//! and the server's memory stays flat.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use prost::Message as _;
use serde_json::json;
use spiffe_operator::server::proto::agent::attest_agent_request::{Params, Step};
use spiffe_operator::server::proto::agent::{
    AgentX509svidParams, AttestAgentRequest, CreateJoinTokenRequest,
};
use spiffe_operator::server::proto::types::AttestationData;
use time::Duration;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_util::bytes::Bytes;

use crate::spire_authorization::{record, serve_under};
use crate::spire_hostile::{GROWTH, forget_most_resident, most_resident};
use crate::support::grpc::{Connection, Svid, call, message, svid, tls, tls_over};
use crate::support::{ControlPlane, Options, SOON, World, ca, wait_until};

const GET_BUNDLE: &str = "/spire.api.server.bundle.v1.Bundle/GetBundle";
const ATTEST_AGENT: &str = "/spire.api.server.agent.v1.Agent/AttestAgent";
const CREATE_JOIN_TOKEN: &str = "/spire.api.server.agent.v1.Agent/CreateJoinToken";
const SYNC: &str = "/spire.api.server.entry.v1.Entry/GetAuthorizedEntries";
/// Connections from each address of strangers.
const CONNECTIONS: usize = 50;
/// Calls on each of them.
const CALLS: usize = 8;
/// Calls of all strangers.
const ALL: usize = 6 * CONNECTIONS * CALLS;
/// How many calls of strangers the server holds at a time.
const HELD: usize = 512;

#[tokio::test]
async fn strangers_who_hold_calls_open_stop_no_agent() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let operator = World::operator(&own).await;
    let ca = ca("strangers");
    let server = json!({ "nodeAttestors": { "joinToken": {} } });
    let port = serve_under(&world, &ca, server).await;
    let id = format!("spiffe://{}/spire/agent/x509pop/a", world.trust_domain);
    let agent = svid(&ca, &id, Duration::hours(1));
    record(&world, &id, &agent, false).await;
    wait_until("the agent to sync", SOON, || sync(port, &agent)).await;
    forget_most_resident(&operator);

    let calls = Arc::new(Calls::default());
    let mut strangers = JoinSet::new();
    // A message that does not come, half of a big one, and one that waits for its turn.
    let half = message(&vec![0; 250 * 1024]);
    let half = Bytes::copy_from_slice(&half[..150 * 1024]);
    let whole = Bytes::from(message(&attestation(&vec![b'a'; 60 * 1024])));
    for (last, method, bytes) in [
        (2, GET_BUNDLE, &Bytes::new()),
        (3, GET_BUNDLE, &Bytes::new()),
        (4, ATTEST_AGENT, &half),
        (5, ATTEST_AGENT, &half),
        (6, ATTEST_AGENT, &half),
        (7, ATTEST_AGENT, &whole),
    ] {
        let address = IpAddr::from([127, 0, 0, last]);
        for _ in 0..CONNECTIONS {
            let (calls, bytes) = (Arc::clone(&calls), bytes.clone());
            strangers.spawn(hold(address, port, method, bytes, calls));
        }
    }
    // All have come, and been replaced by others.
    let socket = operator.admin_socket(&world.class);
    let mut once = 0;
    for round in 1..=6 {
        wait_until("calls to be held", SOON, || async {
            let (begun, held) = calls.count();
            (begun >= round * ALL && held >= HELD)
                .then_some(())
                .ok_or_else(|| format!("{begun} begun, {held} held"))
        })
        .await;
        for _ in 0..5 {
            sync(port, &agent).await.unwrap();
        }
        attest(port, &socket).await;
        if round == 2 {
            once = most_resident(&operator);
        }
    }
    let again = most_resident(&operator);
    assert!(again < once + GROWTH, "{once} KiB, then {again} KiB");
}

/// The calls of all strangers.
#[derive(Default)]
struct Calls {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

/// A call that has begun, until it is dropped.
struct Begun<'a>(&'a Calls);

impl Calls {
    fn begin(&self) -> Begun<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Begun(self)
    }

    /// How many have begun, and how many of them are held open.
    fn count(&self) -> (usize, usize) {
        let ended = self.ended.load(Ordering::SeqCst);
        let begun = self.begun.load(Ordering::SeqCst);
        (begun, begun - ended)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// Makes calls from `address` that end only when the server ends them, again and again.
async fn hold(address: IpAddr, port: u16, method: &'static str, bytes: Bytes, all: Arc<Calls>) {
    loop {
        tokio::task::yield_now().await;
        let Ok(stream) = connect(address, port).await else {
            continue;
        };
        let Ok(stream) = tls_over(stream, None).await else {
            continue;
        };
        let Ok(connection) = Connection::over(stream).await else {
            continue;
        };
        let calls = (0..CALLS).map(|_| async {
            let (response, mut sender) = connection.begin(method).await?;
            sender.reserve_capacity(bytes.len());
            let _ = sender.send_data(bytes.clone(), false);
            let _begun = all.begin();
            let mut answer = response.await?.into_body();
            while let Some(more) = answer.data().await {
                more?;
            }
            Ok::<_, h2::Error>(sender)
        });
        join_all(calls).await;
    }
}

async fn connect(address: IpAddr, port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((address, 0).into())?;
    socket
        .connect(SocketAddr::from(([127, 0, 0, 1], port)))
        .await
}

/// What an agent asks for every few seconds.
async fn sync(port: u16, agent: &Svid) -> Result<(), String> {
    for method in [GET_BUNDLE, SYNC] {
        let stream = tls(port, Some(agent)).await.map_err(|it| it.to_string())?;
        let answer = call(stream, method, &message(&[])).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.code != 0 {
            return Err(format!("{method}: {answer:?}"));
        }
    }
    Ok(())
}

/// Attests an agent by a token that is made for it.
pub(crate) async fn attest(port: u16, socket: &std::path::Path) {
    let request = CreateJoinTokenRequest {
        ttl: 60,
        ..CreateJoinTokenRequest::default()
    };
    let stream = UnixStream::connect(socket).await.unwrap();
    let body = message(&request.encode_to_vec());
    let made = call(stream, CREATE_JOIN_TOKEN, &body).await.unwrap();
    assert_eq!(made.code, 0, "{made:?}");
    let token = spiffe_operator::server::proto::types::JoinToken::decode(&made.body[5..]).unwrap();
    let stream = tls(port, None).await.unwrap();
    let body = message(&attestation(token.value.as_bytes()));
    let answer = call(stream, ATTEST_AGENT, &body).await.unwrap();
    assert_eq!(answer.code, 0, "{answer:?}");
}

fn attestation(token: &[u8]) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default();
    let csr = csr.serialize_request(&key).unwrap().der().to_vec();
    let params = Params {
        data: Some(AttestationData {
            r#type: "join_token".into(),
            payload: token.to_vec(),
        }),
        params: Some(AgentX509svidParams { csr }),
    };
    let step = Some(Step::Params(params));
    AttestAgentRequest { step }.encode_to_vec()
}
