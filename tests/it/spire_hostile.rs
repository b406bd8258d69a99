//! What strangers can send to the port of the server: it answers each with a clear code or closes
//! the connection, its memory stays flat, and others are served meanwhile.

use std::time::Duration;

use prost::Message as _;
use serde_json::json;
use spiffe_operator::server::proto::agent::attest_agent_request::{Params, Step};
use spiffe_operator::server::proto::agent::{AgentX509svidParams, AttestAgentRequest};
use spiffe_operator::server::proto::types::AttestationData;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use crate::support::grpc::{call, message, tls};
use crate::support::{
    ControlPlane, Operator, Options, SOON, World, free_port, shared_operator, wait_until,
};

const GET_BUNDLE: &str = "/spire.api.server.bundle.v1.Bundle/GetBundle";
const ATTEST_AGENT: &str = "/spire.api.server.agent.v1.Agent/AttestAgent";
/// gRPC codes of a message that cannot be read.
const UNREADABLE: [i32; 4] = [3, 8, 11, 13];
/// How much memory strangers may cost, in KiB.
const MOST: u64 = 100 * 1024;

async fn served() -> (World, u16) {
    let world = World::new().await;
    let port = free_port();
    let server = json!({ "server": { "port": port, "nodeAttestors": { "joinToken": {} } } });
    world.apply_trust_domain(server).await;
    world.trust_domain_condition("Ready", "True").await;
    (world, port)
}

/// Memory of a process in KiB.
pub(crate) fn resident(operator: &Operator) -> u64 {
    let status = format!("/proc/{}/status", operator.process_id());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.unwrap().trim().parse().unwrap()
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
    let before = resident(&operator);
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
    let after = resident(&operator);
    assert!(
        after < before + MOST,
        "{before} KiB before, {after} KiB after"
    );
    // The same with handshakes that are done.
    let mut idle = JoinSet::new();
    for _ in 0..2_000 {
        idle.spawn(async move { tls(port, None).await });
    }
    let connections = idle.join_all().await;
    is_served(port).await;
    let after = resident(&operator);
    assert!(
        after < before + MOST,
        "{before} KiB before, {after} KiB after"
    );
    drop((silent, connections));
}

#[tokio::test]
async fn what_cannot_be_read_has_a_clear_code() {
    let (_world, port) = served().await;
    let mut five_mebibytes = message(&vec![0; 5 * 1024 * 1024]);
    let oversized = five_mebibytes.clone();
    five_mebibytes.truncate(100);
    let broken_field = [0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3];
    let endless_varint = [
        0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ];
    for (what, body) in [
        ("a message that says it is longer", five_mebibytes),
        ("a message over the limit", oversized),
        ("half a prefix", vec![0, 0]),
        (
            "a compressed message",
            [&[1, 0, 0, 0, 2][..], &[1, 2]].concat(),
        ),
        ("a length beyond the message", message(&broken_field)),
        ("a number without an end", message(&endless_varint)),
        ("a prefix of all ones", vec![0xff; 5]),
    ] {
        for method in [GET_BUNDLE, ATTEST_AGENT] {
            let stream = tls(port, None).await.unwrap();
            let answer = tokio::time::timeout(SOON, call(stream, method, &body)).await;
            // A stream may also be reset, once its end has come too early.
            if let Ok(answer) = answer.unwrap_or_else(|_| panic!("{what}: no answer")) {
                let code = answer.code;
                let is_clear = UNREADABLE.contains(&code) || code == 12;
                assert!(is_clear, "{what} to {method}: {answer:?}");
            }
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
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default();
    let csr = csr.serialize_request(&key).unwrap().der().to_vec();
    let params = |kind: &str, payload: &[u8], csr: &[u8]| {
        AttestAgentRequest {
            step: Some(Step::Params(Params {
                data: Some(AttestationData {
                    r#type: kind.into(),
                    payload: payload.to_vec(),
                }),
                params: Some(AgentX509svidParams { csr: csr.to_vec() }),
            })),
        }
        .encode_to_vec()
    };
    let answered = AttestAgentRequest {
        step: Some(Step::ChallengeResponse(vec![1])),
    }
    .encode_to_vec();
    let (invalid, precondition, exhausted) = (3, 9, 8);
    for (what, body, code) in [
        ("nothing", Vec::new(), invalid),
        ("an answer before a challenge", answered, invalid),
        ("no kind", params("", b"x", &csr), invalid),
        (
            "an unknown kind",
            params("aws_iid", b"x", &csr),
            precondition,
        ),
        (
            "a kind that is not configured",
            params("x509pop", b"{}", &csr),
            precondition,
        ),
        (
            "an unknown token",
            params("join_token", b"no-such-token", &csr),
            invalid,
        ),
        (
            "a token that is no text",
            params("join_token", &[0xff, 0xfe], &csr),
            invalid,
        ),
        ("no request", params("join_token", b"t", &[]), invalid),
        (
            "a request that is none",
            params("join_token", b"t", b"junk"),
            invalid,
        ),
        (
            "half a request",
            params("join_token", b"t", &csr[..40]),
            invalid,
        ),
        (
            "a long request",
            params("join_token", b"t", &vec![0x30; 20_000]),
            invalid,
        ),
        (
            "a long payload",
            params("join_token", &vec![b'a'; 70_000], &csr),
            invalid,
        ),
    ] {
        // On the socket no call waits for its turn.
        let stream = UnixStream::connect(&socket).await.unwrap();
        let answer = call(stream, ATTEST_AGENT, &message(&body)).await.unwrap();
        assert_eq!(answer.code, code, "{what}: {answer:?}");
    }
    // Over TCP a body has a bound, whoever sends it.
    let stream = tls(port, None).await.unwrap();
    let long = params("join_token", &vec![b'a'; 1024 * 1024], &csr);
    if let Ok(answer) = call(stream, ATTEST_AGENT, &message(&long)).await {
        assert!(answer.code != 0 && answer.code != exhausted, "{answer:?}");
    }
    is_served(port).await;
}
