//! What agents have when replicas or the API server fail: replicas are equal, and whoever is known
//! goes on.

use jiff::Timestamp;
use kube::api::{Api, ListParams};
use prost::Message as _;
use serde_json::json;
use spiffe_operator::api::AttestedAgent;
use spiffe_operator::server::proto::agent::{AgentX509svidParams, RenewAgentRequest};
use time::Duration;

use crate::spire_authorization::{NOT_ACTIVE, NOT_ATTESTED, reason, record, serve_under};
use crate::support::attesting::csr;
use crate::support::grpc::{Answer, Svid, call, message, svid, tls};
use crate::support::{
    Attestor, ControlPlane, Fault, FaultyApiServer, Operator, Options, SOON, Served, SpireAgent,
    World, ca, unique, wait_until,
};

/// How long X.509-SVIDs live that are to be rotated during a test.
const SHORT: &str = "-x509SVIDTTL 10";

/// Waits until the workload has another X.509-SVID than it has now, `times` times.
async fn rotates(agent: &SpireAgent, id: &str, times: u32) {
    for _ in 0..times {
        let before = agent.x509_svid(id).await.chain;
        let is_new = |svids: &[_]| {
            let svids: &[crate::support::X509Svid] = svids;
            svids
                .iter()
                .any(|svid| svid.id.as_str() == id && svid.chain != before)
        };
        agent.x509_svids("the next X.509-SVID", is_new).await;
    }
}

/// How often a replica let a method be called.
async fn calls(operator: &Operator, trust_domain: &str, method: &str) -> f64 {
    let labels =
        format!("{{trust_domain=\"{trust_domain}\",method=\"{method}\",result=\"allowed\"}}");
    let metric = format!("spiffe_operator_server_calls_total{labels}");
    operator.metric(&metric).await.unwrap_or_default()
}

/// How often an agent has attested since it was started.
fn attestations(agent: &SpireAgent) -> usize {
    let log = agent.process().log();
    log.matches("Node attestation was successful").count()
}

#[tokio::test]
async fn an_agent_goes_from_replica_to_replica_and_loses_nothing_with_one() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let one = World::operator(&own).await;
    let address = ["--server-address", "127.0.0.2"];
    let other = Operator::start(&own, "spiffe-system", &address).await;
    let served = Served::of(world, &one, "20s").await;
    let token = served.cli.join_token().await;
    let id = served.join_token_agent(&token);
    let replicas = ["127.0.0.1", "127.0.0.2"];
    let agent =
        SpireAgent::start_among(&served.endpoint, &Attestor::JoinToken(token), &replicas).await;
    let web = served.id("web");
    served.cli.entry(&id, &web, SHORT).await;
    rotates(&agent, &web, 3).await;
    let td = &served.trust_domain;
    wait_until("the agent to be served by both replicas", SOON, || async {
        let mut seen = Vec::new();
        for method in ["SVID/BatchNewX509SVID", "Entry/SyncAuthorizedEntries"] {
            seen.extend([
                calls(&one, td, method).await,
                calls(&other, td, method).await,
            ]);
        }
        // Which replica is asked to renew is chance; what it records counts at the other, too.
        let renew = "Agent/RenewAgent";
        seen.push(calls(&one, td, renew).await + calls(&other, td, renew).await);
        let all = seen.iter().all(|count| *count > 0.0);
        all.then_some(()).ok_or_else(|| format!("{seen:?}"))
    })
    .await;

    one.signal("KILL");
    one.ended(SOON).await;
    rotates(&agent, &web, 3).await;
    agent.fetch_jwt("them").await.unwrap();
    assert_eq!(attestations(&agent), 1, "{}", agent.process().log());
}

#[tokio::test]
async fn while_the_api_server_is_away_known_agents_are_served_and_others_wait() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let operator = World::operator(&own).await;
    let served = Served::of(world, &operator, "1h").await;
    let attestor = || Attestor::x509pop(&served.x509pop_ca, &unique("node"), served.folder.path());
    let agent = SpireAgent::start(&served.endpoint, &attestor()).await;
    let id = served.agents("-attestationType x509pop").await.remove(0);
    let web = served.id("web");
    served.cli.entry(&id, &web, SHORT).await;
    agent.x509_svid(&web).await;

    own.command("stop apiserver").await;
    let away = Timestamp::now();
    rotates(&agent, &web, 2).await;
    agent.fetch_jwt("them").await.unwrap();
    let stranger = SpireAgent::launch(&served.endpoint, &attestor()).await;
    stranger.says("code = Unavailable").await;
    rotates(&agent, &web, 1).await;
    own.command("start apiserver").await;
    stranger.healthy().await;
    rotates(&agent, &web, 1).await;
    assert_eq!(
        attestations(&agent),
        1,
        "away since {away}: {}",
        agent.process().log()
    );
}

const OK: i32 = 0;
const PERMISSION_DENIED: i32 = 7;
const UNAVAILABLE: i32 = 14;

/// The answer to an agent's call over a new connection.
async fn ask(port: u16, svid: &Svid, method: &str, body: &[u8]) -> Answer {
    let stream = tls(port, Some(svid)).await.unwrap();
    let method = format!("/spire.api.server.{method}");
    call(stream, &method, &message(body)).await.unwrap()
}

/// The answer to an agent that wants its X.509-SVID renewed.
async fn renew(port: u16, svid: &Svid) -> Answer {
    let params = Some(AgentX509svidParams { csr: csr() });
    let request = RenewAgentRequest { params }.encode_to_vec();
    ask(port, svid, "agent.v1.Agent/RenewAgent", &request).await
}

/// The answer to an agent that asks for its entries.
async fn sync(port: u16, svid: &Svid) -> Answer {
    ask(port, svid, "entry.v1.Entry/GetAuthorizedEntries", &[]).await
}

#[tokio::test]
async fn while_the_api_server_is_away_nothing_is_decided_that_memory_cannot_say() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let _operator = World::operator(&own).await;
    let ca = ca("recorded");
    let port = serve_under(&world, &ca, json!({})).await;
    let svid_of = |name: &str| {
        let id = format!("spiffe://{}/spire/agent/x509pop/{name}", world.trust_domain);
        (svid(&ca, &id, Duration::hours(1)), id)
    };
    let (known, known_id) = svid_of("known");
    let (recorded, attested_anew_id) = svid_of("attested-anew");
    let (of_unknown_serial, _) = svid_of("attested-anew");
    let (evicted, _) = svid_of("evicted");
    record(&world, &known_id, &known, false).await;
    record(&world, &attested_anew_id, &recorded, false).await;
    for agent in [&known, &recorded] {
        wait_until("the agents to be known", SOON, || async {
            let answer = sync(port, agent).await;
            (answer.code == OK).then_some(()).ok_or(answer.message)
        })
        .await;
    }

    own.command("stop apiserver").await;
    for _ in 0..3 {
        let entries = sync(port, &known).await;
        assert_eq!(entries.code, OK, "{entries:?}");
        let renewed = renew(port, &known).await;
        assert_eq!(renewed.code, UNAVAILABLE, "{renewed:?}");
        for unknown in [&of_unknown_serial, &evicted] {
            for answer in [sync(port, unknown).await, renew(port, unknown).await] {
                assert_eq!(answer.code, UNAVAILABLE, "{answer:?}");
            }
        }
    }
    own.command("start apiserver").await;
    wait_until("the agent to be renewed", SOON, || async {
        let answer = renew(port, &known).await;
        match answer.code {
            OK => Ok(()),
            UNAVAILABLE => Err(answer.message),
            _ => panic!("{answer:?}"),
        }
    })
    .await;
    for (unknown, expected) in [(&of_unknown_serial, NOT_ACTIVE), (&evicted, NOT_ATTESTED)] {
        let answer = sync(port, unknown).await;
        assert_eq!(answer.code, PERMISSION_DENIED, "{answer:?}");
        assert_eq!(reason(&answer), Some(expected), "{answer:?}");
    }
}

#[tokio::test]
async fn a_join_token_is_not_lost_with_the_entry_that_was_asked_for_with_it() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    own.ensure_namespace("spiffe-system").await;
    let proxy = FaultyApiServer::before(&own).await;
    let operator = Operator::start_as(proxy.kubeconfig(), "spiffe-system", &[]).await;
    let served = Served::of(world, &operator, "1h").await;
    let (host, web) = (served.id("host"), served.id("web"));
    let generate = format!("token generate -ttl 600 -spiffeID {host}");
    let said = served.cli.run(&generate).await.unwrap();
    let token = said.trim().strip_prefix("Token: ").unwrap().to_owned();
    served.cli.entry(&host, &web, "").await;

    let create = "POST /apis/spiffe-operator.io/v1alpha1/registrationentries";
    proxy.fail_only(create, Fault::Status(503));
    let agent = SpireAgent::start(&served.endpoint, &Attestor::JoinToken(token)).await;
    assert_eq!(attestations(&agent), 1, "{}", agent.process().log());
    assert!(
        served
            .entry_ids(&format!("-spiffeID {host}"))
            .await
            .is_empty()
    );
    proxy.fail(Fault::None);
    agent.x509_svid(&web).await;
    assert_eq!(
        served.entry_ids(&format!("-spiffeID {host}")).await.len(),
        1
    );
    wait_until("the record to be complete", SOON, || async {
        let agents = Api::<AttestedAgent>::all(served.world.client.clone());
        let agents = agents.list(&ListParams::default()).await.unwrap().items;
        let of_domain = |it: &&AttestedAgent| it.spec.trust_domain == served.trust_domain;
        let record = agents.iter().find(of_domain).unwrap();
        let pending = record.spec.pending_alias.clone();
        pending.map_or(Ok(()), Err)
    })
    .await;
}
