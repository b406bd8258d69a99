//! The transport of the API of spire-server: the TCP port with its TLS, and the Unix socket.

use std::process::{Command, Stdio};

use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use x509_parser::extensions::ParsedExtension;

use crate::support::attesting::{attest, csr_for, params};
use crate::support::grpc::{Connection, Svid, message, tls};
use crate::support::{SOON, Served, World, control_plane, free_port, shared_operator, wait_until};

/// A world whose trust domain is served, and the port.
async fn served() -> (World, u16) {
    let world = World::new().await;
    let port = free_port();
    world
        .apply_trust_domain(json!({ "server": { "port": port } }))
        .await;
    world.trust_domain_reason("ServerReady", "Listening").await;
    (world, port)
}

/// What `openssl s_client` says of the server on `port`.
fn s_client(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &format!("127.0.0.1:{port}"),
            "-showcerts",
        ])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn the_server_shows_its_own_svid_to_all_who_connect() {
    let (world, port) = served().await;
    let bundle = world.published_bundle().await;
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, bundle.to_pem()).unwrap();
    let roots = roots.to_str().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = [version, "-alpn", "h2", "-CAfile", roots, "-x509_strict"];
        let answer = wait_until("the handshake", SOON, || async {
            let answer = s_client(port, &arguments);
            let is_verified = answer.contains("Verify return code: 0 (ok)");
            is_verified.then_some(answer.clone()).ok_or(answer)
        })
        .await;
        assert!(answer.contains("ALPN protocol: h2"), "{answer}");
        assert!(!answer.contains("New session ticket"), "{answer}");
    }
    let old = s_client(port, &["-tls1_1"]);
    assert!(!old.contains("BEGIN CERTIFICATE"), "{old}");
}

#[tokio::test]
async fn a_socket_that_cannot_be_made_shows_in_the_status() {
    let world = World::without_trust_domain(control_plane().await).await;
    let socket = shared_operator().await.admin_socket(&world.class);
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    std::fs::write(&socket, "in the way").unwrap();
    world
        .apply_trust_domain(json!({ "server": { "port": free_port() } }))
        .await;
    let told = world
        .trust_domain_reason("ServerReady", "NoAdminSocket")
        .await;
    let path = socket.to_str().unwrap();
    assert!(told.message.contains(path), "{}", told.message);
    std::fs::remove_file(&socket).unwrap();
    world.trust_domain_reason("ServerReady", "Listening").await;
}

#[tokio::test]
async fn the_administration_socket_says_that_the_server_is_healthy() {
    let (world, _) = served().await;
    let socket = shared_operator().await.admin_socket(&world.class);
    let channel = wait_until("the socket", SOON, || async {
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).unwrap();
        endpoint.connect().await.map_err(|error| error.to_string())
    })
    .await;
    let mut client = HealthClient::new(channel);
    let service = String::new();
    let answer = client.check(HealthCheckRequest { service }).await.unwrap();
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
}

/// Serial number of the certificate that the server shows, and the ID of its authority: of its key,
/// in hexadecimal digits.
fn shown(stream: &TlsStream<TcpStream>) -> (String, String) {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let issuer = leaf
        .iter_extensions()
        .find_map(|it| match it.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(found) => found.key_identifier.as_ref(),
            _ => None,
        });
    let issuer = issuer.unwrap().0.iter().map(|byte| format!("{byte:02x}"));
    (leaf.serial.to_string(), issuer.collect())
}

#[tokio::test]
async fn connections_outlive_the_certificate_that_they_were_shown() {
    let served = Served::by_operator("1h").await;
    let (port, cli) = (served.endpoint.port, &served.cli);
    let token = cli.join_token().await;
    let key = KeyPair::generate().unwrap();
    let step = params("join_token", token.as_bytes(), &csr_for(&key));
    let attested = attest(port, step).await.unwrap().cert_chain.remove(0);
    let agent = Svid::of(CertificateDer::from(attested), key);
    let streams = (
        tls(port, None).await.unwrap(),
        tls(port, Some(&agent)).await.unwrap(),
    );
    let before = [shown(&streams.0), shown(&streams.1)];
    let first = served.authority("x509", "active").await.unwrap();
    assert!(before.iter().all(|(_, authority)| *authority == first));
    let anonymous = Connection::over(streams.0).await.unwrap();
    let of_agent = Connection::over(streams.1).await.unwrap();
    let both_work = async || {
        for (connection, method) in [
            (&anonymous, "bundle.v1.Bundle/GetBundle"),
            (&of_agent, "entry.v1.Entry/GetAuthorizedEntries"),
        ] {
            let method = format!("/spire.api.server.{method}");
            let answer = connection.call(&method, &message(&[])).await.unwrap();
            assert_eq!(answer.code, 0, "{method}: {answer:?}");
        }
    };
    both_work().await;

    cli.run("localauthority x509 prepare").await.unwrap();
    let next = served.authority("x509", "prepared").await.unwrap();
    let activate = format!("localauthority x509 activate -authorityID {next}");
    wait_until("the authority to be activated", SOON, || cli.run(&activate)).await;
    for svid in [None, Some(&agent)] {
        let (serial, _) = wait_until("a certificate by the new authority", SOON, || async {
            let shown = shown(&tls(port, svid).await.unwrap());
            (shown.1 == next).then_some(shown.clone()).ok_or(shown.1)
        })
        .await;
        assert!(before.iter().all(|(earlier, _)| *earlier != serial));
        both_work().await;
    }
}
