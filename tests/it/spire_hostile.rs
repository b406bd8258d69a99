//! What strangers can send to the port of the server: it answers each with a clear code or closes
//! the connection, its memory stays flat, and others are served meanwhile.

use std::time::Duration;

use prost::Message as _;
use serde_json::json;
use spiffe_operator::server::proto::agent::attest_agent_request::Step;
use spiffe_operator::server::proto::agent::{
    AttestAgentRequest, GetAgentRequest, ListAgentsRequest,
};
use spiffe_operator::server::proto::bundle::{AppendBundleRequest, ListFederatedBundlesRequest};
use spiffe_operator::server::proto::entry::ListEntriesRequest;
use spiffe_operator::server::proto::svid::{MintJwtsvidRequest, MintX509svidRequest};
use spiffe_operator::server::proto::trustdomain::ListFederationRelationshipsRequest;
use spiffe_operator::server::proto::types::{JwtKey, Spiffeid, X509Certificate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use crate::support::grpc::{call, message, tls};
use crate::support::{
    ControlPlane, Operator, Options, SOON, World, attesting, free_port, shared_operator, wait_until,
};

const GET_BUNDLE: &str = "/spire.api.server.bundle.v1.Bundle/GetBundle";
const ATTEST_AGENT: &str = "/spire.api.server.agent.v1.Agent/AttestAgent";
/// gRPC codes.
const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const INTERNAL: i32 = 13;
/// How much more memory, in KiB, the same load may take again than it did the first time. Measured
/// were 1.4 MiB over 93 MiB of silent connections, and 7 MiB over 144 MiB of calls that are held.
pub(crate) const GROWTH: u64 = 16 * 1024;

async fn served() -> (World, u16) {
    let world = World::new().await;
    let port = free_port();
    let attestors = json!({ "joinToken": {}, "k8sPSAT": { "serviceAccountAllowList": ["a:b"] } });
    let server = json!({ "server": { "port": port, "nodeAttestors": attestors } });
    world.apply_trust_domain(server).await;
    world.trust_domain_condition("Ready", "True").await;
    (world, port)
}

/// The most memory that a process has had in KiB, since that was forgotten.
pub(crate) fn most_resident(operator: &Operator) -> u64 {
    let status = format!("/proc/{}/status", operator.process_id());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.unwrap().trim().parse().unwrap()
}

/// Has the most memory that a process has had be what it has now.
pub(crate) fn forget_most_resident(operator: &Operator) {
    let file = format!("/proc/{}/clear_refs", operator.process_id());
    std::fs::write(file, "5").unwrap();
}

/// A well-meaning caller is answered.
pub(crate) async fn is_served(port: u16) {
    let answer = wait_until("an answer", SOON, || async {
        let stream = tls(port, None).await.map_err(|error| error.to_string())?;
        let answer = call(stream, GET_BUNDLE, &message(&[])).await;
        answer.map_err(|error| error.to_string())
    });
    assert_eq!(answer.await.code, 0);
}

#[tokio::test]
async fn ten_thousand_connections_that_say_nothing_cost_others_nothing() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let operator = World::operator(&own).await;
    let port = free_port();
    world
        .apply_trust_domain(json!({ "server": { "port": port } }))
        .await;
    world.trust_domain_condition("Ready", "True").await;
    is_served(port).await;
    forget_most_resident(&operator);
    connect_silently(port).await;
    let once = most_resident(&operator);
    for _ in 0..2 {
        connect_silently(port).await;
    }
    let again = most_resident(&operator);
    assert!(again < once + GROWTH, "{once} KiB, then {again} KiB");
}

/// Opens ten thousand connections that say nothing or begin a handshake, and then two thousand whose
/// handshakes are done. Well-meaning callers are answered meanwhile.
async fn connect_silently(port: u16) {
    let mut silent = Vec::new();
    for number in 0..10_000_u32 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // A third begins a handshake, as a slow client would.
        if number.is_multiple_of(3) {
            let _ = stream.write_all(&[22, 3, 1, 2, 0, 1]).await;
        }
        silent.push(stream);
        if number.is_multiple_of(1000) {
            is_served(port).await;
        }
    }
    is_served(port).await;
    let mut idle = JoinSet::new();
    for _ in 0..2_000 {
        idle.spawn(async move { tls(port, None).await });
    }
    let connections = idle.join_all().await;
    is_served(port).await;
    drop((silent, connections));
}

#[tokio::test]
async fn what_cannot_be_read_has_a_clear_code() {
    let (_world, port) = served().await;
    let mut five_mebibytes = message(&vec![0; 5 * 1024 * 1024]);
    let oversized = five_mebibytes.clone();
    five_mebibytes.truncate(100);
    let mut half_mebibyte = message(&vec![0; 512 * 1024]);
    let long = half_mebibyte.clone();
    half_mebibyte.truncate(100);
    let broken_field = [0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3];
    let endless_varint = [
        0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ];
    // Of a question for the bundle less is read than of an attestation.
    for (what, body, codes) in [
        (
            "a message that says it is too long",
            five_mebibytes,
            [OUT_OF_RANGE; 2],
        ),
        (
            "a message over the limit",
            oversized,
            [RESOURCE_EXHAUSTED, OUT_OF_RANGE],
        ),
        (
            "a message that says it is longer",
            half_mebibyte,
            [INTERNAL; 2],
        ),
        (
            "more than a stranger may send",
            long,
            [RESOURCE_EXHAUSTED; 2],
        ),
        ("half a prefix", vec![0, 0], [INTERNAL; 2]),
        (
            "a compressed message",
            [&[1, 0, 0, 0, 2][..], &[1, 2]].concat(),
            [INTERNAL; 2],
        ),
        (
            "a length beyond the message",
            message(&broken_field),
            [INTERNAL; 2],
        ),
        (
            "a number without an end",
            message(&endless_varint),
            [INTERNAL; 2],
        ),
        ("a prefix of all ones", vec![0xff; 5], [INTERNAL; 2]),
    ] {
        for (method, code) in [GET_BUNDLE, ATTEST_AGENT].into_iter().zip(codes) {
            let stream = tls(port, None).await.unwrap();
            let answer = tokio::time::timeout(SOON, call(stream, method, &body)).await;
            let answer = answer.unwrap_or_else(|_| panic!("{what}: no answer"));
            let answer = answer.unwrap_or_else(|error| panic!("{what} to {method}: {error}"));
            assert_eq!(answer.code, code, "{what} to {method}: {answer:?}");
        }
        is_served(port).await;
    }
    for (method, code) in [
        ("/spire.api.server.bundle.v1.Bundle/NoSuchMethod", 7),
        ("/no.such.Service/Method", 12),
    ] {
        let stream = tls(port, None).await.unwrap();
        let answer = call(stream, method, &message(&[])).await.unwrap();
        assert_eq!(answer.code, code, "{method}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_no_tls_or_no_http2_ends_the_connection() {
    let (_world, port) = served().await;
    let mut plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    ends(&mut plain).await;
    let mut stream = tls(port, None).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    ends(&mut stream).await;
    let mut stream = tls(port, None).await.unwrap();
    // The preface of HTTP/2, and then a frame that is longer than may be.
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    stream
        .write_all(&[0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    stream.write_all(&[0; 4096]).await.unwrap();
    ends(&mut stream).await;
    is_served(port).await;
}

/// Waits until the other end closes.
async fn ends(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut rest = Vec::new();
    let reading = stream.read_to_end(&mut rest);
    let ended = tokio::time::timeout(Duration::from_secs(20), reading).await;
    // With an error or without.
    let _ = ended.expect("the server closes the connection");
}

#[tokio::test]
async fn an_attestation_that_makes_no_sense_is_refused_with_a_clear_code() {
    let (world, port) = served().await;
    let socket = shared_operator().await.admin_socket(&world.class);
    let csr = attesting::csr();
    let encode = |step| AttestAgentRequest { step: Some(step) }.encode_to_vec();
    let params =
        |kind: &str, payload: &[u8], csr: &[u8]| encode(attesting::params(kind, payload, csr));
    let psat = |token: &str| {
        let payload = json!({ "cluster": "default", "token": token }).to_string();
        params("k8s_psat", payload.as_bytes(), &csr)
    };
    // Tokens of a shape, of none, and signed by nobody.
    let (header, claims) = ("eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ", "eyJzdWIiOiJhIn0");
    let unsigned = format!("{header}.{claims}.");
    let forged = format!("{header}.{claims}.{}", "A".repeat(342));
    let none = format!("eyJhbGciOiJub25lIn0.{claims}.");
    for (what, body, code) in [
        ("nothing", Vec::new(), INVALID_ARGUMENT),
        (
            "an answer before a challenge",
            encode(Step::ChallengeResponse(vec![1])),
            INVALID_ARGUMENT,
        ),
        ("no kind", params("", b"x", &csr), INVALID_ARGUMENT),
        (
            "an unknown kind",
            params("aws_iid", b"x", &csr),
            FAILED_PRECONDITION,
        ),
        (
            "a kind that is not configured",
            params("x509pop", b"{}", &csr),
            FAILED_PRECONDITION,
        ),
        (
            "an unknown token",
            params("join_token", b"no-such-token", &csr),
            INVALID_ARGUMENT,
        ),
        (
            "a token that leads elsewhere",
            params("join_token", b"../x509pop/a", &csr),
            INVALID_ARGUMENT,
        ),
        (
            "a token that is no text",
            params("join_token", &[0xff, 0xfe], &csr),
            INVALID_ARGUMENT,
        ),
        (
            "no request",
            params("join_token", b"t", &[]),
            INVALID_ARGUMENT,
        ),
        (
            "a request that is none",
            params("join_token", b"t", b"junk"),
            INVALID_ARGUMENT,
        ),
        (
            "half a request",
            params("join_token", b"t", &csr[..40]),
            INVALID_ARGUMENT,
        ),
        (
            "a long request",
            params("join_token", b"t", &vec![0x30; 20_000]),
            INVALID_ARGUMENT,
        ),
        (
            "a long payload",
            params("join_token", &vec![b'a'; 70_000], &csr),
            INVALID_ARGUMENT,
        ),
        (
            "a pod's payload that is no JSON",
            params("k8s_psat", b"{\"cluster\":", &csr),
            INVALID_ARGUMENT,
        ),
        ("no pod's token", psat(""), INVALID_ARGUMENT),
        ("a pod's token that is none", psat("junk"), INTERNAL),
        ("dots", psat(".."), INTERNAL),
        ("a pod's token without signature", psat(&unsigned), INTERNAL),
        ("a pod's token that is forged", psat(&forged), INTERNAL),
        (
            "a pod's token that needs no signature",
            psat(&none),
            INTERNAL,
        ),
    ] {
        // On the socket no call waits for its turn.
        let stream = UnixStream::connect(&socket).await.unwrap();
        let answer = call(stream, ATTEST_AGENT, &message(&body)).await.unwrap();
        assert_eq!(answer.code, code, "{what}: {answer:?}");
    }
    is_served(port).await;
}

/// Method, message and code.
type Nonsense = (&'static str, Vec<u8>, i32);

/// Pages that begin nowhere.
fn foreign_page_tokens() -> Vec<Nonsense> {
    let (page_size, page_token) = (1, "no token!".to_owned());
    let entries = ListEntriesRequest {
        page_size,
        page_token: page_token.clone(),
        ..ListEntriesRequest::default()
    };
    let agents = ListAgentsRequest {
        page_size,
        page_token: page_token.clone(),
        ..ListAgentsRequest::default()
    };
    let bundles = ListFederatedBundlesRequest {
        page_size,
        page_token: page_token.clone(),
        ..ListFederatedBundlesRequest::default()
    };
    let relationships = ListFederationRelationshipsRequest {
        page_size,
        page_token,
        ..ListFederationRelationshipsRequest::default()
    };
    [
        ("entry.v1.Entry/ListEntries", entries.encode_to_vec()),
        ("agent.v1.Agent/ListAgents", agents.encode_to_vec()),
        (
            "bundle.v1.Bundle/ListFederatedBundles",
            bundles.encode_to_vec(),
        ),
        (
            "trustdomain.v1.TrustDomain/ListFederationRelationships",
            relationships.encode_to_vec(),
        ),
    ]
    .map(|(method, request)| (method, request, INTERNAL))
    .into()
}

/// IDs that are none.
fn malformed_ids(trust_domain: &str) -> Vec<Nonsense> {
    let id = |path: &str| {
        Some(Spiffeid {
            trust_domain: trust_domain.into(),
            path: path.into(),
        })
    };
    let agents = ["", "/web", "/spire/agent/../server", "spire/agent/a"].map(|path| {
        let request = GetAgentRequest {
            id: id(path),
            ..GetAgentRequest::default()
        };
        ("agent.v1.Agent/GetAgent", request.encode_to_vec())
    });
    let jwt = |path: &str, audience: &[&str]| {
        let request = MintJwtsvidRequest {
            id: id(path),
            audience: audience.iter().map(ToString::to_string).collect(),
            ttl: 0,
        };
        ("svid.v1.SVID/MintJWTSVID", request.encode_to_vec())
    };
    let tokens = [
        jwt("/web", &[]),
        jwt("/spire/server", &["a"]),
        jwt("web", &["a"]),
    ];
    let all = agents.into_iter().chain(tokens);
    all.map(|(method, request)| (method, request, INVALID_ARGUMENT))
        .collect()
}

/// Keys, certificates and requests that are none.
fn malformed_keys() -> Vec<Nonsense> {
    let append =
        |request: AppendBundleRequest| ("bundle.v1.Bundle/AppendBundle", request.encode_to_vec());
    let key = |key_id: &str, public_key: &[u8]| AppendBundleRequest {
        jwt_authorities: vec![JwtKey {
            key_id: key_id.into(),
            public_key: public_key.to_vec(),
            ..JwtKey::default()
        }],
        ..AppendBundleRequest::default()
    };
    let root = AppendBundleRequest {
        x509_authorities: vec![X509Certificate {
            asn1: b"junk".to_vec(),
            ..X509Certificate::default()
        }],
        ..AppendBundleRequest::default()
    };
    let mint = |csr: &[u8]| {
        let request = MintX509svidRequest {
            csr: csr.to_vec(),
            ttl: 0,
        };
        ("svid.v1.SVID/MintX509SVID", request.encode_to_vec())
    };
    let csr = attesting::csr();
    [
        append(key("k", b"junk")),
        append(key("", b"junk")),
        append(root),
        mint(b"junk"),
        mint(&csr[..40]),
        // For no name at all.
        mint(&csr),
    ]
    .map(|(method, request)| (method, request, INVALID_ARGUMENT))
    .into()
}

#[tokio::test]
async fn what_tools_send_must_make_sense() {
    let (world, _) = served().await;
    let socket = shared_operator().await.admin_socket(&world.class);
    let mut nonsense = foreign_page_tokens();
    nonsense.extend(malformed_ids(&world.trust_domain));
    nonsense.extend(malformed_keys());
    for (method, request, code) in nonsense {
        let stream = UnixStream::connect(&socket).await.unwrap();
        let path = format!("/spire.api.server.{method}");
        let answer = call(stream, &path, &message(&request)).await.unwrap();
        assert_eq!(answer.code, code, "{method} {request:?}: {answer:?}");
    }
}
