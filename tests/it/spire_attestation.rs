//! Attestation step by step, as stock agents never do it, and what is left of it.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::discovery::{ApiGroup, Discovery, verbs};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use spiffe_operator::api::RegistrationEntry;
use spiffe_operator::registration::registration_entry_name;
use spiffe_operator::server::proto::agent::agent_client::AgentClient;
use spiffe_operator::server::proto::agent::attest_agent_request::Step;
use spiffe_operator::server::proto::agent::{
    CountAgentsRequest, CreateJoinTokenRequest, DeleteAgentRequest,
};
use spiffe_operator::server::proto::types::{Spiffeid, X509svid};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::spire_entries::Entries;
use crate::support::attesting::{Attestation, Node, attest, csr, params};
use crate::support::{
    Ca, SOON, World, apply, ca, control_plane, free_port, merge_patch, shared_operator, unique,
    wait_until,
};

/// A trust domain whose server attests agents as `attestors` says, with no limit.
struct Served {
    world: World,
    port: u16,
    agents: AgentClient<Channel>,
}

impl Served {
    async fn new(attestors: Value) -> Self {
        let world = World::without_trust_domain(control_plane().await).await;
        let operator = shared_operator().await;
        let port = free_port();
        let server = json!({
            "port": port,
            "rateLimit": { "attestation": false },
            "nodeAttestors": attestors,
        });
        world.apply_trust_domain(json!({ "server": server })).await;
        world.trust_domain_condition("Ready", "True").await;
        let socket = operator.admin_socket(&world.class);
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).unwrap();
        Self {
            world,
            port,
            agents: AgentClient::new(endpoint.connect().await.unwrap()),
        }
    }

    async fn by_certificates_of(ca: &Ca) -> Self {
        Self::new(json!({ "x509pop": { "caBundle": ca.pem() } })).await
    }

    async fn count(&self) -> i32 {
        let mut agents = self.agents.clone();
        let counted = agents.count_agents(CountAgentsRequest::default());
        counted.await.unwrap().into_inner().count
    }

    async fn evict(&self, svid: &X509svid) {
        let request = DeleteAgentRequest {
            id: svid.id.clone(),
        };
        self.agents.clone().delete_agent(request).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_to_a_challenge_counts_for_that_challenge_only() {
    let ca = ca("nodes");
    let served = Served::by_certificates_of(&ca).await;
    let node = Node::new(&ca, "node");
    let mut first = Attestation::begin(served.port).await;
    first.send(node.params()).await;
    let answer = node.respond(&first.challenge().await.unwrap());
    // Somebody has seen the answer, and is faster or slower than the node.
    let replay = async || {
        let mut second = Attestation::begin(served.port).await;
        second.send(node.params()).await;
        second.challenge().await.unwrap();
        second.send(Step::ChallengeResponse(answer.clone())).await;
        second.result().await.unwrap_err()
    };
    let before = replay().await;
    assert_eq!(before.code(), Code::PermissionDenied, "{before:?}");
    assert_eq!(served.count().await, 0);
    first.send(Step::ChallengeResponse(answer.clone())).await;
    let svid = first.result().await.unwrap();
    served.evict(&svid).await;
    let after = replay().await;
    assert_eq!(after.code(), Code::PermissionDenied, "{after:?}");
    assert_eq!(after.message(), before.message());
    assert_eq!(served.count().await, 0);
    // The node itself attests again.
    assert_eq!(node.attest(served.port).await.unwrap().id, svid.id);
}

#[tokio::test]
async fn who_does_not_go_on_is_sent_away() {
    let ca = ca("nodes");
    let served = Served::by_certificates_of(&ca).await;
    let (slow, good) = (Node::new(&ca, "slow"), Node::new(&ca, "good"));
    let mut silent = Attestation::begin(served.port).await;
    let mut challenged = Attestation::begin(served.port).await;
    challenged.send(slow.params()).await;
    challenged.challenge().await.unwrap();
    // Others do not wait for them.
    good.attest(served.port).await.unwrap();
    let (silent, challenged) = tokio::time::timeout(SOON, async {
        tokio::join!(silent.result(), challenged.result())
    })
    .await
    .expect("an end");
    for (status, problem) in [
        (silent.unwrap_err(), "failed to receive request from stream"),
        (
            challenged.unwrap_err(),
            "failed to receive challenge from agent",
        ),
    ] {
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert!(status.message().contains(problem), "{status:?}");
    }
    assert_eq!(served.count().await, 1);
}

#[tokio::test]
async fn cas_of_nodes_that_are_stored_count_from_their_change_on() {
    let (old, new) = (ca("old"), ca("new"));
    let (name, client) = (unique("nodes"), control_plane().await.install_crds().await);
    control_plane()
        .await
        .ensure_namespace("spiffe-system")
        .await;
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": "spiffe-system" },
        "data": { "ca.crt": old.pem() },
    });
    apply(&client, &object).await.unwrap();
    let reference = json!({ "kind": "ConfigMap", "name": name, "key": "ca.crt" });
    let served = Served::new(json!({ "x509pop": { "caBundleRef": reference } })).await;
    let (of_old, of_new) = (Node::new(&old, "a"), Node::new(&new, "b"));
    let refused = async |node: &Node| node.attest(served.port).await.unwrap_err().code();
    of_old.attest(served.port).await.unwrap();
    assert_eq!(refused(&of_new).await, Code::PermissionDenied);

    let stored = Api::<ConfigMap>::namespaced(client, "spiffe-system");
    merge_patch(&stored, &name, json!({ "data": { "ca.crt": new.pem() } })).await;
    of_new.attest(served.port).await.unwrap();
    assert_eq!(refused(&of_old).await, Code::PermissionDenied);
    merge_patch(&stored, &name, json!({ "data": { "ca.crt": "spoilt" } })).await;
    assert_eq!(refused(&of_new).await, Code::Internal);
    stored
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(refused(&of_new).await, Code::Internal);
    assert_eq!(served.count().await, 2, "who has attested stays");
}

/// Whatever is stored in the cluster with `text` in it, as kind and name.
async fn objects_with(client: &Client, text: &str) -> Vec<String> {
    let discovery = Discovery::new(client.clone()).run().await.unwrap();
    let kinds = discovery
        .groups()
        .flat_map(ApiGroup::recommended_resources)
        .filter(|(_, is)| is.supports_operation(verbs::LIST));
    let mut found = Vec::new();
    for (kind, _) in kinds {
        let objects = Api::<DynamicObject>::all_with(client.clone(), &kind);
        for object in objects.list(&ListParams::default()).await.unwrap() {
            if serde_json::to_string(&object).unwrap().contains(text) {
                found.push(format!("{} {}", kind.kind, object.name_any()));
            }
        }
    }
    found
}

#[tokio::test]
async fn a_join_token_is_in_no_object_before_its_use() {
    let served = Served::new(json!({ "joinToken": {} })).await;
    let (td, client) = (&served.world.trust_domain, &served.world.client);
    let alias = Spiffeid {
        trust_domain: td.clone(),
        path: "/host".into(),
    };
    let mut tokens = Vec::new();
    for agent_id in [None, Some(alias)] {
        let request = CreateJoinTokenRequest {
            ttl: 600,
            agent_id,
            ..CreateJoinTokenRequest::default()
        };
        let token = served.agents.clone().create_join_token(request).await;
        tokens.push(token.unwrap().into_inner().value);
    }
    // Its Secret has a hash of it.
    let with_alias = objects_with(client, &format!("spiffe://{td}/host")).await;
    assert_eq!(with_alias.len(), 1, "{with_alias:?}");
    assert!(with_alias[0].starts_with("Secret "), "{with_alias:?}");
    for token in &tokens {
        let found = objects_with(client, token).await;
        assert!(found.is_empty(), "{found:?}");
        assert!(!shared_operator().await.log().contains(token));
    }
    // What is used lies in the agent's ID, and in the parent ID of the entry of the one with alias.
    for (token, kinds) in tokens.iter().zip([
        &["AttestedAgent"][..],
        &["AttestedAgent", "RegistrationEntry"],
    ]) {
        let step = params("join_token", token.as_bytes(), &csr());
        attest(served.port, step).await.unwrap();
        wait_until("the token in objects", SOON, || async {
            let mut found = objects_with(client, token).await;
            found.sort();
            let found: Vec<_> = found.iter().filter_map(|it| it.split(' ').next()).collect();
            (found == kinds).then_some(()).ok_or(format!("{found:?}"))
        })
        .await;
    }
}

#[tokio::test]
async fn the_entry_of_a_join_token_goes_with_its_agent() {
    let served = Served::new(json!({ "joinToken": {} })).await;
    let (td, client) = (&served.world.trust_domain, &served.world.client);
    let socket = shared_operator().await.admin_socket(&served.world.class);
    let entries = Entries::connect(&served.world, socket).await;
    let request = CreateJoinTokenRequest {
        ttl: 600,
        agent_id: Some(Spiffeid {
            trust_domain: td.clone(),
            path: "/host".into(),
        }),
        ..CreateJoinTokenRequest::default()
    };
    let token = served.agents.clone().create_join_token(request).await;
    let token = token.unwrap().into_inner().value;
    assert!(
        entries.with_id("/host").await.is_empty(),
        "not before its use"
    );
    let step = params("join_token", token.as_bytes(), &csr());
    let svid = attest(served.port, step).await.unwrap();
    let agent = format!("spiffe://{td}{}", svid.id.as_ref().unwrap().path);
    let entry = wait_until("the entry of the token", SOON, || async {
        let mut found = entries.with_id("/host").await;
        found.pop().ok_or_else(String::new)
    })
    .await;
    assert_eq!(entry.parent_id, svid.id);
    assert_eq!(entry.selectors[0].value, agent);
    assert_eq!(entry.selectors[0].r#type, "spiffe_id");

    // Whoever deletes the record with kubectl takes the entry, too: it belongs to the record.
    let records = Api::<RegistrationEntry>::all(client.clone());
    let id = spiffe_operator::registration::EntryId::from_text(&entry.id);
    let name = registration_entry_name(&td.parse().unwrap(), &id);
    let record = records.get(&name).await.unwrap();
    let [owner] = record.owner_references() else {
        panic!("one owner: {record:?}")
    };
    assert_eq!(owner.kind, "AttestedAgent");
    served.evict(&svid).await;
    assert!(records.get_opt(&name).await.unwrap().is_none());
    wait_until("the entry to be gone", SOON, || async {
        let found = entries.with_id("/host").await;
        found.is_empty().then_some(()).ok_or(format!("{found:?}"))
    })
    .await;
}
