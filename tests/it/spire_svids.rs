//! SVIDs as an attested agent asks for them, over TLS.

use jiff::Timestamp;
use prost::Message;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType};
use rustls_pki_types::CertificateDer;
use serde_json::json;
use spiffe_operator::server::proto::svid::{
    BatchNewWitsvidRequest, BatchNewWitsvidResponse, BatchNewX509svidRequest,
    BatchNewX509svidResponse, NewJwtsvidRequest, NewJwtsvidResponse, NewWitsvidParams,
    NewX509svidParams,
};
use spiffe_operator::server::proto::types;
use spiffe_operator::spiffe::verify_x509_svid;
use time::Duration;
use tonic::Code;

use crate::spire_authorization::{record, world_of};
use crate::spire_entries::Entries;
use crate::support::grpc::{Answer, Svid, call, message, svid, tls};
use crate::support::{World, ca, shared_operator};

/// An agent with its entries, and where it asks.
struct Agent {
    world: World,
    port: u16,
    svid: Svid,
    entries: Entries,
}

impl Agent {
    async fn new() -> Self {
        let ca = ca("svids");
        let rate_limit = json!({ "rateLimit": { "signing": true } });
        let (world, port) = world_of(&ca, rate_limit).await;
        let id = format!("spiffe://{}/spire/agent/x509pop/a", world.trust_domain);
        let svid = svid(&ca, &id, Duration::hours(1));
        record(&world, &id, &svid, false).await;
        let socket = shared_operator().await.admin_socket(&world.class);
        let entries = Entries::connect(&world, socket).await;
        Self {
            world,
            port,
            svid,
            entries,
        }
    }

    async fn ask(&self, method: &str, request: &impl Message) -> Answer {
        let stream = tls(self.port, Some(&self.svid)).await.unwrap();
        let method = format!("/spire.api.server.svid.v1.SVID/{method}");
        let body = message(&request.encode_to_vec());
        call(stream, &method, &body).await.unwrap()
    }

    async fn batch(&self, params: Vec<NewX509svidParams>) -> Answer {
        self.ask("BatchNewX509SVID", &BatchNewX509svidRequest { params })
            .await
    }
}

fn read<M: Message + Default>(answer: &Answer) -> M {
    assert_eq!(answer.code, 0, "{}", answer.message);
    M::decode(&answer.body[5..]).unwrap()
}

/// A request that asks for more than a key, none of which counts.
fn csr() -> Vec<u8> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    let name = &mut parameters.distinguished_name;
    name.push(DnType::CommonName, "somebody else");
    let uri = "spiffe://other.org/else".try_into().unwrap();
    parameters.subject_alt_names = vec![SanType::URI(uri)];
    let key = KeyPair::generate().unwrap();
    parameters.serialize_request(&key).unwrap().der().to_vec()
}

#[tokio::test]
async fn each_item_of_a_batch_is_answered_in_its_place() {
    let agent = Agent::new().await;
    let own = agent.entries.create_one(types::Entry {
        dns_names: vec!["a.example.org".into(), "web".into()],
        x509_svid_ttl: 120,
        ..agent.entries.entry("/web")
    });
    let own = own.await;
    let mut other = agent.entries.entry("/other");
    other.parent_id.as_mut().unwrap().path = "/spire/agent/x509pop/b".into();
    let other = agent.entries.create_one(other).await;
    let param = |entry_id: &str, csr: Vec<u8>| NewX509svidParams {
        entry_id: entry_id.into(),
        csr,
    };
    let mut forged = csr();
    *forged.last_mut().unwrap() ^= 1;
    let mut params = vec![
        param(&own.id, csr()),
        param("", csr()),
        param(&own.id, Vec::new()),
        param("unknown", csr()),
        param(&other.id, csr()),
        param(&own.id, b"no DER".to_vec()),
        param(&own.id, forged),
    ];
    params.extend((0..40).map(|_| param(&own.id, csr())));
    let answer: BatchNewX509svidResponse = read(&agent.batch(params).await);
    let status = |at: usize| answer.results[at].status.clone().unwrap();
    for (at, code, beginning) in [
        (0, Code::Ok, "OK"),
        (1, Code::InvalidArgument, "missing entry ID"),
        (2, Code::InvalidArgument, "missing CSR"),
        (3, Code::NotFound, "entry not found or not authorized"),
        (4, Code::NotFound, "entry not found or not authorized"),
        (5, Code::InvalidArgument, "malformed CSR: "),
        (6, Code::InvalidArgument, "invalid CSR signature: "),
        (46, Code::Ok, "OK"),
    ] {
        let status = status(at);
        assert_eq!(Code::from(status.code), code, "{at}: {}", status.message);
        assert!(status.message.starts_with(beginning), "{}", status.message);
    }
    assert_eq!(answer.results.len(), 47);
    let bundle = agent.world.published_bundle().await;
    for result in answer.results.iter().filter(|it| it.svid.is_some()) {
        let svid = result.svid.clone().unwrap();
        assert_eq!(svid.id, own.spiffe_id);
        let chain = svid.cert_chain.into_iter().map(CertificateDer::from);
        let chain: Vec<_> = chain.collect();
        let id = verify_x509_svid(&chain, &bundle, Timestamp::now()).unwrap();
        assert_eq!(id.path(), "/web");
        let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        assert_eq!(
            leaf.subject().to_string(),
            "C=US, O=SPIRE, CN=a.example.org"
        );
        let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        assert_eq!(life, 130);
        assert_eq!(svid.expires_at, leaf.validity().not_after.timestamp());
    }
    let good = answer.results.iter().filter(|it| it.svid.is_some()).count();
    assert_eq!(good, 41);
}

#[tokio::test]
async fn batches_of_nothing_and_of_too_much_are_refused() {
    let agent = Agent::new().await;
    let nothing = agent.batch(Vec::new()).await;
    assert_eq!(
        (nothing.code, nothing.message.as_str()),
        (3, "missing parameters")
    );
    let too_much = agent.batch(vec![NewX509svidParams::default(); 501]).await;
    assert_eq!(Code::from(too_much.code), Code::ResourceExhausted);
    let expected = "rejecting request due to certificate signing rate limiting: ";
    assert!(
        too_much.message.starts_with(expected),
        "{}",
        too_much.message
    );
}

#[tokio::test]
async fn wit_svids_are_refused_one_by_one_as_without_their_feature_flag() {
    let agent = Agent::new().await;
    let entry = agent.entries.create_one(agent.entries.entry("/web")).await;
    let key = KeyPair::generate().unwrap().subject_public_key_info();
    let param = |entry_id: &str, public_key: &[u8], algorithm: &str| NewWitsvidParams {
        entry_id: entry_id.into(),
        public_key: public_key.to_vec(),
        signing_algorithm: algorithm.into(),
    };
    let params = vec![
        param(&entry.id, &key, "ES256"),
        param("unknown", &key, "ES256"),
        param(&entry.id, b"no DER", "ES256"),
        param(&entry.id, &key, "RS256"),
    ];
    let request = BatchNewWitsvidRequest { params };
    let answer: BatchNewWitsvidResponse = read(&agent.ask("BatchNewWITSVID", &request).await);
    let expected = [
        (
            Code::Internal,
            "failed to sign WIT-SVID: WIT key is not available for signing",
        ),
        (Code::NotFound, "entry not found or not authorized"),
        (Code::InvalidArgument, "malformed public key: "),
        (
            Code::InvalidArgument,
            "invalid signing algorithm or key type: unsupported signing algorithm for ec-p256 key: \
             RS256",
        ),
    ];
    assert_eq!(answer.results.len(), expected.len());
    for (result, (code, beginning)) in answer.results.iter().zip(expected) {
        let status = result.status.clone().unwrap();
        assert_eq!(Code::from(status.code), code, "{}", status.message);
        assert!(status.message.starts_with(beginning), "{}", status.message);
        assert_eq!(result.svid, None);
    }
}

#[tokio::test]
async fn tokens_are_those_of_the_entry() {
    let agent = Agent::new().await;
    let entry = agent.entries.create_one(types::Entry {
        jwt_svid_ttl: 90,
        ..agent.entries.entry("/web")
    });
    let entry = entry.await;
    let ask = async |entry_id: &str, audience: &[&str]| {
        let request = NewJwtsvidRequest {
            entry_id: entry_id.into(),
            audience: audience.iter().map(|it| (*it).to_owned()).collect(),
        };
        agent.ask("NewJWTSVID", &request).await
    };
    let answer: NewJwtsvidResponse = read(&ask(&entry.id, &["them", ""]).await);
    let svid = answer.svid.unwrap();
    assert_eq!(
        (svid.id, svid.expires_at - svid.issued_at),
        (entry.spiffe_id.clone(), 90)
    );
    assert_eq!(svid.token.split('.').count(), 3);
    let unknown = ask("unknown", &["them"]).await;
    assert_eq!(Code::from(unknown.code), Code::NotFound);
    let nobody = ask(&entry.id, &[]).await;
    assert_eq!(Code::from(nobody.code), Code::InvalidArgument);
    assert_eq!(nobody.message, "at least one audience is required");
}
