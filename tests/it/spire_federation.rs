//! Bundles of foreign trust domains, and the entries that federate with them.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;
use spiffe_operator::api::{ClusterSPIFFEID, ClusterStaticEntry};
use spiffe_operator::server::proto::bundle::batch_delete_federated_bundle_request::Mode;
use spiffe_operator::server::proto::bundle::bundle_client::BundleClient;
use spiffe_operator::server::proto::bundle::{
    BatchDeleteFederatedBundleRequest, BatchSetFederatedBundleRequest, GetFederatedBundleRequest,
};
use spiffe_operator::server::proto::types;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::registration::apply_static_entry;
use crate::spire_entries::Entries;
use crate::support::{
    SOON, World, condition, condition_that, free_port, shared_operator, wait_until,
};

/// A trust domain with a server on the shared operator, as its administrators see it.
struct Served {
    world: World,
    entries: Entries,
    bundles: BundleClient<Channel>,
}

impl Served {
    async fn new() -> Self {
        let world = World::new().await;
        let server = json!({ "server": { "port": free_port() } });
        world.apply_trust_domain(server).await;
        let socket: PathBuf = shared_operator().await.admin_socket(&world.class);
        let entries = Entries::connect(&world, socket.clone()).await;
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).unwrap();
        let bundles = BundleClient::new(endpoint.connect().await.unwrap());
        Self {
            world,
            entries,
            bundles,
        }
    }

    async fn set_bundle(&self, foreign: &str) {
        let request = BatchSetFederatedBundleRequest {
            bundle: vec![types::Bundle {
                trust_domain: foreign.into(),
                ..types::Bundle::default()
            }],
            output_mask: None,
        };
        let mut bundles = self.bundles.clone();
        let response = bundles.batch_set_federated_bundle(request);
        let result = response.await.unwrap().into_inner().results.remove(0);
        let status = result.status.unwrap();
        assert_eq!(Code::from(status.code), Code::Ok, "{}", status.message);
    }

    async fn delete_bundle(&self, foreign: &str, mode: Mode) -> (Code, String) {
        let request = BatchDeleteFederatedBundleRequest {
            trust_domains: vec![foreign.into()],
            mode: mode.into(),
        };
        let mut bundles = self.bundles.clone();
        let response = bundles.batch_delete_federated_bundle(request);
        let result = response.await.unwrap().into_inner().results.remove(0);
        assert_eq!(result.trust_domain, foreign);
        let status = result.status.unwrap();
        (Code::from(status.code), status.message)
    }

    async fn has_bundle(&self, foreign: &str) -> bool {
        let request = GetFederatedBundleRequest {
            trust_domain: foreign.into(),
            output_mask: None,
        };
        match self.bundles.clone().get_federated_bundle(request).await {
            Ok(_) => true,
            Err(status) if status.code() == Code::NotFound => false,
            Err(status) => panic!("{status}"),
        }
    }

    /// Waits until the only entry with this SPIFFE ID federates with these trust domains.
    async fn federates(&self, path: &str, with: &[&str]) -> types::Entry {
        wait_until(
            &format!("{path} to federate with {with:?}"),
            SOON,
            || async {
                let found = self.entries.with_id(path).await;
                match found.as_slice() {
                    [entry] if entry.federates_with == with => Ok(entry.clone()),
                    _ => Err(format!("{found:?}")),
                }
            },
        )
        .await
    }

    /// An entry with the selector `unix:uid:1000` and these trust domains.
    fn entry(&self, path: &str, federates_with: &[&str]) -> types::Entry {
        types::Entry {
            federates_with: federates_with.iter().map(ToString::to_string).collect(),
            ..self.entries.entry(path)
        }
    }

    /// Waits until the ClusterStaticEntry does not lack a bundle.
    async fn lacks_no_bundle(&self, name: &str) {
        let objects = Api::<ClusterStaticEntry>::all(self.world.client.clone());
        wait_until("the condition to go", SOON, || async {
            let status = objects.get(name).await.unwrap().status.unwrap_or_default();
            let mut kinds = status.conditions.iter().map(|it| &*it.type_);
            let is_gone = !status.conditions.is_empty() && kinds.all(|it| it != INCOMPLETE);
            is_gone
                .then_some(())
                .ok_or_else(|| format!("{:?}", status.conditions))
        })
        .await;
    }
}

const INCOMPLETE: &str = "FederationIncomplete";

#[tokio::test]
async fn entries_of_objects_federate_for_as_long_as_there_is_a_bundle() {
    let served = Served::new().await;
    let world = &served.world;
    let (client, id) = (&world.client, world.usual_id());
    let path = id.strip_prefix(&format!("spiffe://{}", world.trust_domain));
    let path = path.unwrap();
    let federates_with = json!({ "federatesWith": ["other.test", "foreign.test"] });
    let cluster_spiffe_id = world.apply_cluster_spiffe_id("web", federates_with).await;
    let federates_with = json!({ "federatesWith": ["foreign.test"] });
    let static_entry = apply_static_entry(world, federates_with).await;
    world.pod("web", &[("app", "web")]).await;
    let before = served.federates(path, &[]).await;
    served.federates("/db", &[]).await;
    condition::<ClusterSPIFFEID>(client, &cluster_spiffe_id, INCOMPLETE, "True").await;
    condition::<ClusterStaticEntry>(client, &static_entry, INCOMPLETE, "True").await;

    served.set_bundle("foreign.test").await;
    let after = served.federates(path, &["foreign.test"]).await;
    assert_eq!(before.id, after.id);
    assert_ne!(
        before.revision_number, after.revision_number,
        "agents fetch it again"
    );
    served.federates("/db", &["foreign.test"]).await;
    condition_that::<ClusterSPIFFEID>(client, &cluster_spiffe_id, "one to be missing", |it| {
        it.type_ == INCOMPLETE && it.message.contains("no bundle is known of other.test;")
    })
    .await;
    served.lacks_no_bundle(&static_entry).await;

    let (code, message) = served.delete_bundle("foreign.test", Mode::Restrict).await;
    let words = "failed to delete federated bundle: cannot delete bundle; \
                 federated with 2 registration entries";
    assert_eq!((code, &*message), (Code::FailedPrecondition, words));
    assert!(served.has_bundle("foreign.test").await);

    // Entries of objects are not deleted: they do without.
    let (code, message) = served.delete_bundle("foreign.test", Mode::Delete).await;
    assert_eq!(code, Code::Ok, "{message}");
    let gone = served.federates(path, &[]).await;
    assert_eq!(gone, before, "as if the bundle had never been there");
    served.federates("/db", &[]).await;
    condition::<ClusterStaticEntry>(client, &static_entry, INCOMPLETE, "True").await;
    condition_that::<ClusterSPIFFEID>(client, &cluster_spiffe_id, "both to be missing", |it| {
        it.type_ == INCOMPLETE && it.message.contains("foreign.test")
    })
    .await;
}

#[tokio::test]
async fn deleting_a_bundle_does_to_entries_of_the_api_what_the_mode_says() {
    let served = Served::new().await;
    let own = &*served.world.trust_domain;
    served.set_bundle("foreign.test").await;
    served.set_bundle("other.test").await;
    let entries = &served.entries;
    for (path, names) in [
        ("/a", &["foreign.test", own, "other.test"][..]),
        ("/b", &["foreign.test"]),
        ("/c", &["other.test"]),
    ] {
        entries.create_one(served.entry(path, names)).await;
    }

    let (code, message) = served.delete_bundle("foreign.test", Mode::Restrict).await;
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.ends_with("federated with 2 registration entries"));
    assert!(served.has_bundle("foreign.test").await);
    let (code, message) = served.delete_bundle("foreign.test", Mode::Dissociate).await;
    assert_eq!(code, Code::Ok, "{message}");
    assert!(!served.has_bundle("foreign.test").await);
    let mut left = vec![own, "other.test"];
    left.sort_unstable();
    // A bundle that comes back changes nothing: the entries do not name it any more.
    for _ in 0..2 {
        served.federates("/a", &left).await;
        served.federates("/b", &[]).await;
        served.federates("/c", &["other.test"]).await;
        served.set_bundle("foreign.test").await;
    }

    let (code, message) = served.delete_bundle("other.test", Mode::Delete).await;
    assert_eq!(code, Code::Ok, "{message}");
    assert_eq!(entries.with_id("/a").await, []);
    assert_eq!(entries.with_id("/c").await, []);
    served.federates("/b", &[]).await;
    let (code, message) = served.delete_bundle("other.test", Mode::Delete).await;
    assert_eq!((code, &*message), (Code::NotFound, "bundle not found"));
    let (code, message) = served.delete_bundle("foreign.test", Mode::Restrict).await;
    assert_eq!(code, Code::Ok, "nothing federates with it: {message}");
}

#[tokio::test]
async fn an_entry_of_the_api_does_without_a_bundle_that_somebody_took_away() {
    let served = Served::new().await;
    served.set_bundle("foreign.test").await;
    let entry = served.entry("/web", &["foreign.test"]);
    let created = served.entries.create_one(entry).await;
    served.federates("/web", &["foreign.test"]).await;

    let name = format!("{}.federation.foreign.test", served.world.class);
    let config_maps = Api::<ConfigMap>::namespaced(served.world.client.clone(), "spiffe-system");
    let parameters = DeleteParams::default();
    config_maps.delete(&name, &parameters).await.unwrap();
    let without = served.federates("/web", &[]).await;
    let expected = types::Entry {
        federates_with: Vec::new(),
        ..created.clone()
    };
    assert_eq!(without, expected);

    served.set_bundle("foreign.test").await;
    let again = served.federates("/web", &["foreign.test"]).await;
    assert_eq!(again, created);
}
