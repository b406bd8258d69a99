//! What the server keeps goes with the TrustDomain or stays without it, as the deletion policy says
//! by then.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use prost::Message as _;
use serde::de::DeserializeOwned;
use serde_json::json;
use spiffe_operator::api::AttestedAgent;
use spiffe_operator::server::proto::agent::CreateJoinTokenRequest;
use spiffe_operator::server::proto::bundle::BatchSetFederatedBundleRequest;
use spiffe_operator::server::proto::types::Bundle;
use tokio::net::UnixStream;

use crate::spire_hostile::is_served;
use crate::spire_strangers::attest;
use crate::support::grpc::{call, message};
use crate::support::{SOON, World, free_port, shared_operator, wait_until};

const NAMESPACE: &str = "spiffe-system";

/// All objects of a kind with `labels` that belong to the world's TrustDomain are owned by it, or
/// none is; there is one at least.
async fn are_owned<K>(world: &World, api: &Api<K>, labels: &str, are_owned: bool)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let labels = format!("spiffe-operator.io/trust-domain={},{labels}", world.class);
    let parameters = ListParams::default().labels(&labels);
    wait_until("the owners to be right", SOON, || async {
        let found = api.list(&parameters).await.map_err(|it| it.to_string())?;
        let mut objects = found.items.iter();
        let owned = |it: &K| {
            it.owner_references()
                .iter()
                .any(|it| it.name == world.class)
        };
        let is_right = !found.items.is_empty() && objects.all(|it| owned(it) == are_owned);
        is_right.then_some(()).ok_or_else(|| format!("{found:?}"))
    })
    .await;
}

#[tokio::test]
async fn what_is_kept_follows_the_deletion_policy() {
    let world = World::new().await;
    let port = free_port();
    let server = json!({ "port": port, "nodeAttestors": { "joinToken": {} } });
    world
        .apply_trust_domain(json!({ "server": server, "deletionPolicy": "Delete" }))
        .await;
    world.trust_domain_condition("ServerReady", "True").await;
    let socket = shared_operator().await.admin_socket(&world.class);
    attest(port, &socket).await;
    let token = CreateJoinTokenRequest {
        ttl: 600,
        ..CreateJoinTokenRequest::default()
    };
    let foreign = BatchSetFederatedBundleRequest {
        bundle: vec![Bundle {
            trust_domain: "foreign.test".into(),
            ..Bundle::default()
        }],
        output_mask: None,
    };
    for (method, request) in [
        ("agent.v1.Agent/CreateJoinToken", token.encode_to_vec()),
        (
            "bundle.v1.Bundle/BatchSetFederatedBundle",
            foreign.encode_to_vec(),
        ),
    ] {
        let stream = UnixStream::connect(&socket).await.unwrap();
        let method = format!("/spire.api.server.{method}");
        let answer = call(stream, &method, &message(&request)).await.unwrap();
        assert_eq!(answer.code, 0, "{answer:?}");
    }
    all_are_owned(&world, true).await;
    for (policy, owned) in [("Retain", false), ("Delete", true)] {
        world
            .apply_trust_domain(json!({ "server": server, "deletionPolicy": policy }))
            .await;
        all_are_owned(&world, owned).await;
        // Also what is made from now on.
        is_served(port).await;
        wait_until("the socket", SOON, || async {
            let connected = UnixStream::connect(&socket).await;
            connected.map_err(|error| error.to_string())
        })
        .await;
        attest(port, &socket).await;
        all_are_owned(&world, owned).await;
    }
}

async fn all_are_owned(world: &World, owned: bool) {
    let client: &Client = &world.client;
    let agents = Api::<AttestedAgent>::all(client.clone());
    are_owned(world, &agents, "app.kubernetes.io/managed-by", owned).await;
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    are_owned(world, &secrets, "spiffe-operator.io/join-token", owned).await;
    let config_maps = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    are_owned(world, &config_maps, "spiffe-operator.io/federation", owned).await;
}
