//! Replicas that are killed while agents ask: whoever asks once more, at the other one, is served.

use std::cell::Cell;
use std::time::Duration;

use futures::future::join_all;
use prost::Message;
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use serde_json::json;
use spiffe_operator::server::proto::agent::{
    AgentX509svidParams, RenewAgentRequest, RenewAgentResponse,
};
use spiffe_operator::server::proto::entry::{
    GetAuthorizedEntriesRequest, GetAuthorizedEntriesResponse, SyncAuthorizedEntriesRequest,
    SyncAuthorizedEntriesResponse,
};
use spiffe_operator::server::proto::svid::{
    BatchNewX509svidRequest, BatchNewX509svidResponse, NewJwtsvidRequest, NewJwtsvidResponse,
    NewX509svidParams,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::spire_authorization::{record, serve_under};
use crate::spire_entries::Entries;
use crate::support::attesting::{csr, csr_for};
use crate::support::grpc::{Connection, Svid, message, svid, tls_over};
use crate::support::{Ca, ControlPlane, Operator, Options, SOON, World, ca, wait_until};

const ADDRESSES: [&str; 2] = ["127.0.0.1", "127.0.0.2"];
const OK: i32 = 0;
const UNAVAILABLE: i32 = 14;
/// How often each agent is answered, at least, while a replica is down.
const DURING_AN_OUTAGE: u32 = 10;
/// How long an agent waits for an answer, as stock agents do.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an agent asks for, again and again.
#[derive(Clone, Copy, Debug)]
enum Wish {
    X509Svid,
    JwtSvid,
    Entries,
    Sync,
    Renewal,
}

const WISHES: [Wish; 5] = [
    Wish::X509Svid,
    Wish::JwtSvid,
    Wish::Entries,
    Wish::Sync,
    Wish::Renewal,
];

/// How often an agent was answered.
#[derive(Default)]
struct Tally {
    /// By each replica when it was asked first.
    at_once: [Cell<u32>; 2],
    /// By the other one than was asked first.
    at_the_other: Cell<u32>,
}

impl Tally {
    fn all(&self) -> u32 {
        let at_once = self.at_once.iter().map(Cell::get).sum::<u32>();
        at_once + self.at_the_other.get()
    }
}

fn count(counter: &Cell<u32>) {
    counter.set(counter.get() + 1);
}

/// An agent that goes from replica to replica with each request, and keeps its connections.
struct Agent<'a> {
    port: u16,
    svid: Svid,
    entry_id: &'a str,
    connections: [Option<Connection>; 2],
    tally: &'a Tally,
}

impl Agent<'_> {
    /// Asks for ever, the replicas in turn.
    async fn wish(mut self, wish: Wish) {
        for first in [0, 1].into_iter().cycle() {
            self.fulfil(wish, first).await;
        }
    }

    async fn fulfil(&mut self, wish: Wish, first: usize) {
        let entry_id = self.entry_id.to_owned();
        match wish {
            Wish::X509Svid => {
                let csr = csr();
                let params = vec![NewX509svidParams { entry_id, csr }];
                let request = BatchNewX509svidRequest { params };
                let method = "svid.v1.SVID/BatchNewX509SVID";
                let answer: BatchNewX509svidResponse = self.ask(first, method, &request).await;
                assert!(answer.results[0].svid.is_some(), "{answer:?}");
            }
            Wish::JwtSvid => {
                let audience = vec!["them".to_owned()];
                let request = NewJwtsvidRequest { entry_id, audience };
                let method = "svid.v1.SVID/NewJWTSVID";
                let answer: NewJwtsvidResponse = self.ask(first, method, &request).await;
                assert!(answer.svid.is_some(), "{answer:?}");
            }
            Wish::Entries => {
                let request = GetAuthorizedEntriesRequest::default();
                let method = "entry.v1.Entry/GetAuthorizedEntries";
                let answer: GetAuthorizedEntriesResponse = self.ask(first, method, &request).await;
                let ids: Vec<_> = answer.entries.iter().map(|entry| &entry.id).collect();
                assert_eq!(ids, [&entry_id]);
            }
            Wish::Sync => {
                let request = SyncAuthorizedEntriesRequest::default();
                let method = "entry.v1.Entry/SyncAuthorizedEntries";
                let answer: SyncAuthorizedEntriesResponse = self.ask(first, method, &request).await;
                let ids = answer.entry_revisions.iter().map(|entry| &entry.id);
                assert_eq!(ids.collect::<Vec<_>>(), [&entry_id], "{answer:?}");
            }
            Wish::Renewal => {
                let key = KeyPair::generate().unwrap();
                let csr = csr_for(&key);
                let params = Some(AgentX509svidParams { csr });
                let request = RenewAgentRequest { params };
                let method = "agent.v1.Agent/RenewAgent";
                let answer: RenewAgentResponse = self.ask(first, method, &request).await;
                let certificate = answer.svid.unwrap().cert_chain.remove(0);
                self.svid = Svid::of(CertificateDer::from(certificate), key);
                self.connections = [None, None];
            }
        }
    }

    /// The answer of the replica `first`, or else of the other one.
    async fn ask<M: Message + Default>(
        &mut self,
        first: usize,
        method: &str,
        request: &impl Message,
    ) -> M {
        let method = format!("/spire.api.server.{method}");
        let body = message(&request.encode_to_vec());
        let failure = match self.ask_at(first, &method, &body).await {
            Ok(answer) => {
                count(&self.tally.at_once[first]);
                return M::decode(&answer[5..]).unwrap();
            }
            Err(failure) => failure,
        };
        match self.ask_at(1 - first, &method, &body).await {
            Ok(answer) => {
                count(&self.tally.at_the_other);
                M::decode(&answer[5..]).unwrap()
            }
            Err(again) => panic!("{method} fails at {first} ({failure}) and the other ({again})"),
        }
    }

    /// The answer of one replica. That it cannot answer is an error, and that it refuses a panic.
    async fn ask_at(
        &mut self,
        replica: usize,
        method: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, String> {
        let answer = timeout(PATIENCE, self.call(replica, method, body)).await;
        let answer = answer.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        if let Err(failure) = &answer {
            self.connections[replica] = None;
            let is_refusal = failure.to_lowercase().contains("alert");
            assert!(!is_refusal, "the agent's SVID is refused: {failure}");
        }
        answer
    }

    async fn call(&mut self, replica: usize, method: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        let connection = match &mut self.connections[replica] {
            Some(connection) => connection,
            none => {
                let stream = TcpStream::connect((ADDRESSES[replica], self.port));
                let stream = stream.await.map_err(|error| error.to_string())?;
                let stream = tls_over(stream, Some(&self.svid))
                    .await
                    .map_err(|error| error.to_string())?;
                none.insert(
                    Connection::over(stream)
                        .await
                        .map_err(|error| error.to_string())?,
                )
            }
        };
        let answer = connection
            .call(method, body)
            .await
            .map_err(|error| error.to_string())?;
        match answer.code {
            OK => Ok(answer.body),
            UNAVAILABLE => Err(answer.message),
            _ => panic!("{method} at {replica}: {answer:?}"),
        }
    }
}

async fn replica(own: &ControlPlane, index: usize) -> Operator {
    let address = ["--server-address", ADDRESSES[index]];
    Operator::start(own, "spiffe-system", &address).await
}

/// An agent of its own for each wish, each known to both replicas.
async fn agents<'a>(
    world: &World,
    ca: &Ca,
    port: u16,
    entries: &'a [String],
    tallies: &'a [Tally],
) -> Vec<Agent<'a>> {
    let mut agents = Vec::new();
    for (index, wish) in WISHES.into_iter().enumerate() {
        let id = format!("spiffe://{}{}", world.trust_domain, path(wish));
        let svid = svid(ca, &id, time::Duration::hours(1));
        record(world, &id, &svid, false).await;
        let mut agent = Agent {
            port,
            svid,
            entry_id: &entries[index],
            connections: [None, None],
            tally: &tallies[index],
        };
        for replica in [0, 1] {
            is_known(&mut agent, replica).await;
        }
        agents.push(agent);
    }
    agents
}

/// The path of the agent that has this wish.
fn path(wish: Wish) -> String {
    format!("/spire/agent/x509pop/{wish:?}")
}

/// Waits until a replica has the agent's entry.
async fn is_known(agent: &mut Agent<'_>, replica: usize) {
    let method = "/spire.api.server.entry.v1.Entry/GetAuthorizedEntries";
    let agent = tokio::sync::Mutex::new(agent);
    wait_until("the replica to know the agent", SOON, || async {
        let mut agent = agent.lock().await;
        let answer = agent.ask_at(replica, method, &message(&[])).await?;
        let answer = GetAuthorizedEntriesResponse::decode(&answer[5..]).unwrap();
        let is_known = answer.entries.iter().any(|it| it.id == agent.entry_id);
        is_known.then_some(()).ok_or(format!("{answer:?}"))
    })
    .await;
}

#[tokio::test]
async fn no_request_fails_at_both_replicas_while_each_is_killed_in_turn() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    own.ensure_namespace("spiffe-system").await;
    let mut replicas = [replica(&own, 0).await, replica(&own, 1).await];
    let ca = ca("failover");
    let settings = json!({ "rateLimit": { "signing": false } });
    let port = serve_under(&world, &ca, settings).await;
    let socket = replicas[0].admin_socket(&world.class);
    let admin = Entries::connect(&world, socket).await;
    let mut entries = Vec::new();
    for wish in WISHES {
        let mut entry = admin.entry("/web");
        entry.parent_id.as_mut().unwrap().path = path(wish);
        entries.push(admin.create_one(entry).await.id);
    }
    let tallies = WISHES.map(|_| Tally::default());
    let agents = agents(&world, &ca, port, &entries, &tallies).await;
    let wishing = agents.into_iter().zip(WISHES);
    let wishing = join_all(wishing.map(|(agent, wish)| agent.wish(wish)));
    let killing = async {
        for victim in [0, 1, 0, 1] {
            are_served_by(&tallies, 1 - victim).await;
            let before: Vec<_> = tallies.iter().map(counts).collect();
            replicas[victim].signal("KILL");
            replicas[victim].ended(SOON).await;
            goes_on(&tallies, &before).await;
            replicas[victim] = replica(&own, victim).await;
        }
        are_served_by(&tallies, 1).await;
    };
    tokio::select! {
        _ = wishing => unreachable!("agents never end"),
        () = killing => {}
    }
}

/// How often an agent was answered, and how often by the other replica than it asked first.
fn counts(tally: &Tally) -> (u32, u32) {
    (tally.all(), tally.at_the_other.get())
}

/// Waits until each agent was answered by a replica that it asked first, and has nothing under way
/// any more that this one could not answer.
async fn are_served_by(tallies: &[Tally], replica: usize) {
    let before: Vec<_> = tallies.iter().map(|it| it.at_once[replica].get()).collect();
    wait_until("a replica to serve all agents", SOON, || async {
        let now = tallies.iter().map(|it| it.at_once[replica].get());
        let now: Vec<_> = now.collect();
        let mut all = before.iter().zip(&now);
        let is_served = all.all(|(before, now)| now > before);
        is_served.then_some(()).ok_or(format!("{before:?} {now:?}"))
    })
    .await;
}

/// Waits until each agent has been answered for a while without a replica, and has missed it.
async fn goes_on(tallies: &[Tally], before: &[(u32, u32)]) {
    wait_until("agents to be served by the other", SOON, || async {
        let now: Vec<_> = tallies.iter().map(counts).collect();
        let mut all = before.iter().zip(&now);
        let goes_on =
            all.all(|(before, now)| now.0 >= before.0 + DURING_AN_OUTAGE && now.1 > before.1);
        goes_on.then_some(()).ok_or(format!("{before:?} {now:?}"))
    })
    .await;
}
