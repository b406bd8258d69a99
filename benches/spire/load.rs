//! What is measured of a server, in the order in which it is.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use spiffe_operator::server::proto::entry::entry_client::EntryClient;
use spiffe_operator::server::proto::entry::{BatchCreateEntryRequest, EntryRevision};
use spiffe_operator::server::proto::svid::svid_client::SvidClient;
use spiffe_operator::server::proto::svid::{
    BatchNewX509svidRequest, NewJwtsvidRequest, NewX509svidParams,
};
use spiffe_operator::server::proto::types::{Entry, Selector, Spiffeid};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::client::{Node, Svid, connect, csr, sync};
use crate::servers::{Kind, Server};
use crate::support::wait_until;

/// Entries of 100 each under groups of agents: 20,000 in all.
const GROUPS: usize = 200;
const ENTRIES_A_GROUP: usize = 100;
/// An agent of many entries is in this many groups, any other in one.
const GROUPS_OF_MANY: usize = 10;
/// Calls that are under way at the same time.
const CONCURRENCY: usize = 16;
/// As spire-controller-manager does.
const ENTRIES_A_CALL: usize = 50;
const LONG: Duration = Duration::from_mins(3);

/// How much is asked.
pub(crate) struct Load {
    pub(crate) agents: usize,
    /// How long each rate is measured.
    pub(crate) seconds: u64,
}

/// What was measured, by name.
#[derive(Default)]
pub(crate) struct Figures(Vec<(String, f64)>);

impl Figures {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        let found = self.0.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| *value)
    }

    pub(crate) fn add(&mut self, name: &str, value: f64) {
        println!("{name:<58} {value:>12.2}");
        self.0.push((name.to_owned(), value));
    }
}

/// How long a thing took, and what it cost the server.
struct Spent<'a> {
    server: &'a Server,
    cpu: Duration,
    began: Instant,
}

impl<'a> Spent<'a> {
    fn from_now(server: &'a Server) -> Self {
        Self {
            server,
            cpu: server.cpu(),
            began: Instant::now(),
        }
    }

    /// Adds the rate of `count` things and what a thousand of them cost.
    fn add_rate(&self, figures: &mut Figures, things: &str, count: usize) {
        let elapsed = self.began.elapsed();
        figures.add(
            &format!("{things} per s"),
            count as f64 / elapsed.as_secs_f64(),
        );
        self.add_cost(figures, things, count);
    }

    fn add_cost(&self, figures: &mut Figures, things: &str, count: usize) {
        let cpu = self.server.cpu().saturating_sub(self.cpu);
        let cost = cpu.as_secs_f64() * 1000.0 / count as f64;
        figures.add(&format!("CPU s for 1,000 {things}"), cost);
    }
}

impl Load {
    /// Puts the whole load on a server that starts for it.
    pub(crate) async fn on(&self, kind: Kind) -> Figures {
        let server = Server::start(kind).await;
        let mut figures = Figures::default();
        // What follows from the start is done within this time.
        tokio::time::sleep(Duration::from_secs(3)).await;
        add_memory(&mut figures, "at rest, no entries", &server);
        self.register(&server, &mut figures).await;

        let few = self
            .attest(&server, &mut figures, "few", "attestations (x509pop)")
            .await;
        let many = self
            .attest(
                &server,
                &mut figures,
                "many",
                "attestations, second thousand",
            )
            .await;
        let (channels, entries) = self
            .sync_all(&server, &mut figures, &few, ENTRIES_A_GROUP)
            .await;
        let signing = &channels[..channels.len().min(CONCURRENCY)];
        self.x509(&server, &mut figures, signing, &entries, 1).await;
        self.x509(&server, &mut figures, signing, &entries, 100)
            .await;
        self.jwt(&server, &mut figures, signing, &entries).await;
        let of_many = ENTRIES_A_GROUP * GROUPS_OF_MANY;
        let kept = self.sync_all(&server, &mut figures, &many, of_many).await;
        add_memory(&mut figures, "under load", &server);
        figures.add("RSS at its peak, MB", server.memory("VmHWM"));
        drop(kept);
        figures
    }

    /// Makes entries and the aliases by which agents reach them.
    async fn register(&self, server: &Server, figures: &mut Figures) {
        let socket = format!("unix://{}", server.socket.display());
        let channel = Endpoint::try_from(socket).unwrap().connect().await.unwrap();
        let trust_domain = &server.endpoint.trust_domain;
        let id = |path: String| {
            Some(Spiffeid {
                trust_domain: trust_domain.clone(),
                path,
            })
        };
        let entry = |parent: String, path: String, selectors: &[(&str, String)]| Entry {
            parent_id: id(parent),
            spiffe_id: id(path),
            selectors: selectors
                .iter()
                .map(|(kind, value)| Selector {
                    r#type: (*kind).to_owned(),
                    value: value.clone(),
                })
                .collect(),
            ..Entry::default()
        };
        let group = |group: usize| format!("/group/{group}");
        let aliases = (0..GROUPS).flat_map(|number| {
            let many = number / GROUPS_OF_MANY;
            ["few", "many"]
                .into_iter()
                .zip([number, many])
                .map(move |(kind, of)| {
                    let selector = ("x509pop", format!("subject:cn:{kind}-{of}"));
                    entry("/spire/server".to_owned(), group(number), &[selector])
                })
        });
        let workloads = (0..GROUPS).flat_map(|number| {
            (0..ENTRIES_A_GROUP).map(move |workload| {
                let path = format!("/ns/group-{number}/sa/workload-{workload}");
                let selectors = [
                    ("k8s", format!("ns:group-{number}")),
                    ("k8s", format!("sa:workload-{workload}")),
                ];
                entry(group(number), path, &selectors)
            })
        });
        let all: Vec<_> = aliases.chain(workloads).collect();
        let count = all.len();
        let spent = Spent::from_now(server);
        let calls = all.chunks(ENTRIES_A_CALL).map(|entries| {
            let entries = entries.to_vec();
            let mut client = EntryClient::new(channel.clone());
            async move {
                let request = BatchCreateEntryRequest {
                    entries,
                    output_mask: None,
                };
                let answer = client.batch_create_entry(request).await?.into_inner();
                for result in answer.results {
                    let status = result.status.unwrap_or_default();
                    assert_eq!(status.code, 0, "{}", status.message);
                }
                Ok::<_, tonic::Status>(())
            }
        });
        let calls: Vec<_> = calls.collect();
        stream::iter(calls)
            .map(Ok::<_, tonic::Status>)
            .try_for_each_concurrent(4, |call| call)
            .await
            .unwrap();
        spent.add_rate(figures, "entries created in batches of 50", count);
        tokio::time::sleep(Duration::from_secs(6)).await;
        add_memory(figures, "at rest, 20,000 entries", server);
    }

    /// Attests `agents` agents of a kind, whose groups are dealt out among them.
    async fn attest(
        &self,
        server: &Server,
        figures: &mut Figures,
        kind: &str,
        things: &str,
    ) -> Vec<Svid> {
        let groups = if kind == "few" {
            GROUPS
        } else {
            GROUPS / GROUPS_OF_MANY
        };
        let name = |agent: usize| format!("{kind}-{}", agent % groups);
        let nodes: Vec<_> = (0..self.agents)
            .map(|it| Node::new(&server.ca, &name(it)))
            .collect();
        let spent = Spent::from_now(server);
        let svids = stream::iter(&nodes)
            .map(|node| node.attest(&server.endpoint))
            .buffered(CONCURRENCY)
            .collect::<Vec<_>>()
            .await;
        spent.add_rate(figures, things, self.agents);
        svids
    }

    /// Lets every agent sync for the first time and then twice more, over connections that stay
    /// open. Gives the connections, and what each agent knows then.
    async fn sync_all(
        &self,
        server: &Server,
        figures: &mut Figures,
        svids: &[Svid],
        wanted: usize,
    ) -> (Vec<Channel>, Vec<Vec<EntryRevision>>) {
        let channels: Vec<_> = stream::iter(svids)
            .map(|svid| connect(&server.endpoint, Some(svid)))
            .buffered(CONCURRENCY)
            .collect()
            .await;
        // A server may know of agents and entries a while later.
        let seen = |channel: Channel| async move {
            let count = sync(&channel, &[]).await.entries.len();
            (count == wanted)
                .then_some(())
                .ok_or(format!("{count} entries"))
        };
        for at in [0, channels.len() - 1] {
            wait_until("the entries of an agent", LONG, || {
                seen(channels[at].clone())
            })
            .await;
        }
        let nothing = vec![Vec::new(); channels.len()];
        let what = format!("first syncs of {wanted} entries");
        let known = measure_syncs(server, figures, &what, &channels, &nothing, Some(wanted)).await;
        for time in ["", " again"] {
            let what = format!("syncs without a change{time}, {wanted} entries");
            measure_syncs(server, figures, &what, &channels, &known, None).await;
        }
        (channels, known)
    }

    async fn x509(
        &self,
        server: &Server,
        figures: &mut Figures,
        channels: &[Channel],
        known: &[Vec<EntryRevision>],
        batch: usize,
    ) {
        let csrs: Arc<Vec<_>> = Arc::new((0..batch).map(|_| csr().1).collect());
        let what = format!("X.509-SVIDs in batches of {batch}");
        let calls = self.for_a_while(server, figures, &what, batch, channels, |agent, channel| {
            let params = known[agent].iter().take(batch).zip(csrs.iter());
            let params = params.map(|(entry, csr)| NewX509svidParams {
                entry_id: entry.id.clone(),
                csr: csr.clone(),
            });
            let request = BatchNewX509svidRequest {
                params: params.collect(),
            };
            async move {
                let answer = SvidClient::new(channel).batch_new_x509svid(request).await;
                let results = answer.expect("SVIDs").into_inner().results;
                assert!(results.iter().all(|it| it.svid.is_some()), "{results:?}");
            }
        });
        calls.await;
    }

    async fn jwt(
        &self,
        server: &Server,
        figures: &mut Figures,
        channels: &[Channel],
        known: &[Vec<EntryRevision>],
    ) {
        let calls = self.for_a_while(
            server,
            figures,
            "JWT-SVIDs",
            1,
            channels,
            |agent, channel| {
                let request = NewJwtsvidRequest {
                    entry_id: known[agent][0].id.clone(),
                    audience: vec!["them".to_owned()],
                };
                async move {
                    let answer = SvidClient::new(channel).new_jwtsvid(request).await;
                    assert!(answer.expect("a JWT-SVID").into_inner().svid.is_some());
                }
            },
        );
        calls.await;
    }

    /// Calls over each channel, one call after the other, until the time is over.
    async fn for_a_while<F>(
        &self,
        server: &Server,
        figures: &mut Figures,
        things: &str,
        things_a_call: usize,
        channels: &[Channel],
        call: impl Fn(usize, Channel) -> F,
    ) where
        F: Future<Output = ()>,
    {
        let spent = Spent::from_now(server);
        let end = spent.began + Duration::from_secs(self.seconds);
        let loops = channels.iter().enumerate().map(async |(agent, channel)| {
            let mut calls = 0;
            while Instant::now() < end {
                call(agent, channel.clone()).await;
                calls += 1;
            }
            calls
        });
        let calls: usize = futures::future::join_all(loops).await.into_iter().sum();
        spent.add_rate(figures, things, calls * things_a_call);
    }
}

/// Adds what the server holds, and how much of that is its own and no file's.
fn add_memory(figures: &mut Figures, when: &str, server: &Server) {
    figures.add(&format!("RSS {when}, MB"), server.memory("VmRSS"));
    let own = server.memory("RssAnon");
    figures.add(&format!("of that anonymous memory, {when}, MB"), own);
}

/// Lets every agent sync once, and gives what each knows then.
async fn measure_syncs(
    server: &Server,
    figures: &mut Figures,
    things: &str,
    channels: &[Channel],
    known: &[Vec<EntryRevision>],
    wanted: Option<usize>,
) -> Vec<Vec<EntryRevision>> {
    let spent = Spent::from_now(server);
    let synced: Vec<_> = stream::iter(channels.iter().zip(known))
        .map(async |(channel, known)| {
            let began = Instant::now();
            let synced = sync(channel, known).await;
            if let Some(wanted) = wanted {
                assert_eq!(synced.entries.len(), wanted);
            }
            (began.elapsed(), synced.bytes, synced.revisions)
        })
        .buffered(CONCURRENCY)
        .collect()
        .await;
    spent.add_cost(figures, things, channels.len());
    let mut times: Vec<_> = synced
        .iter()
        .map(|(time, ..)| time.as_secs_f64() * 1e3)
        .collect();
    times.sort_by(f64::total_cmp);
    figures.add(
        &format!("p99 of {things}, ms"),
        times[times.len() * 99 / 100],
    );
    let bytes: usize = synced.iter().map(|(_, bytes, _)| bytes).sum();
    figures.add(
        &format!("KB for one of {things}"),
        bytes as f64 / 1e3 / channels.len() as f64,
    );
    synced
        .into_iter()
        .map(|(.., revisions)| revisions)
        .collect()
}
