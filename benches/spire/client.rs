//! An agent's side of the API: connections with and without an X.509-SVID, attestation with a
//! certificate, and the sync of entries as spire-agent does it.

use std::io;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use prost::Message;
use rcgen::{CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use serde_json::{Value, json};
use spiffe_operator::server::proto::agent::attest_agent_request::{Params, Step};
use spiffe_operator::server::proto::agent::attest_agent_response;
use spiffe_operator::server::proto::agent::{
    AgentX509svidParams, AttestAgentRequest, agent_client::AgentClient,
};
use spiffe_operator::server::proto::entry::entry_client::EntryClient;
use spiffe_operator::server::proto::entry::{
    EntryRevision, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
};
use spiffe_operator::server::proto::types::{AttestationData, Entry, EntryMask};
use spiffe_operator::spiffe::{Bundle, verify_x509_svid};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Uri};
use tower::service_fn;

use crate::support::{Ca, Endpoint};

/// The X.509-SVID of an agent, with its key.
#[derive(Clone)]
pub(crate) struct Svid {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<KeyPair>,
}

/// A CSR for a new key.
pub(crate) fn csr() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    let csr = parameters.serialize_request(&key).unwrap().der().to_vec();
    (key, csr)
}

/// A connection to the server, which must be the one that its bundle knows.
pub(crate) async fn connect(server: &Endpoint, svid: Option<&Svid>) -> Channel {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(ServerVerifier {
        id: format!("spiffe://{}/spire/server", server.trust_domain),
        bundle: server.bundle.clone(),
        provider: Arc::clone(&provider),
    });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match svid {
        None => builder.with_no_client_auth(),
        Some(svid) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.key.serialize_der()));
            builder
                .with_client_auth_cert(svid.chain.clone(), key)
                .unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (connector, port) = (TlsConnector::from(Arc::new(config)), server.port);
    let connect = service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from("server.test").unwrap();
            let stream = connector.connect(name, stream).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Channel::from_static("http://server.test");
    endpoint.connect_with_connector_lazy(connect)
}

/// A certificate to attest with.
pub(crate) struct Node {
    certificate: CertificateDer<'static>,
    key: EcdsaKeyPair,
}

impl Node {
    pub(crate) fn new(ca: &Ca, common_name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters
            .distinguished_name
            .push(DnType::CommonName, common_name);
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = parameters.signed_by(&key, ca).unwrap().der().clone();
        let pkcs8 = key.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).unwrap();
        Self { certificate, key }
    }

    /// Attests by `x509pop` over a connection of its own.
    pub(crate) async fn attest(&self, server: &Endpoint) -> Svid {
        let mut client = AgentClient::new(connect(server, None).await);
        let (key, csr) = csr();
        let payload = json!({ "certificates": [STANDARD.encode(&self.certificate)] });
        let data = AttestationData {
            r#type: "x509pop".to_owned(),
            payload: payload.to_string().into_bytes(),
        };
        let params = Params {
            data: Some(data),
            params: Some(AgentX509svidParams { csr }),
        };
        let (steps, receiver) = mpsc::channel(2);
        let step = |step| AttestAgentRequest { step: Some(step) };
        steps.send(step(Step::Params(params))).await.unwrap();
        let answers = client.attest_agent(ReceiverStream::new(receiver)).await;
        let mut answers = answers.expect("attestation").into_inner();
        loop {
            let answer = answers
                .message()
                .await
                .expect("attestation")
                .expect("an answer");
            match answer.step.expect("a step") {
                attest_agent_response::Step::Challenge(challenge) => {
                    let response = self.respond(&challenge);
                    steps
                        .send(step(Step::ChallengeResponse(response)))
                        .await
                        .unwrap();
                }
                attest_agent_response::Step::Result(result) => {
                    let chain = result.svid.expect("an SVID").cert_chain;
                    return Svid {
                        chain: chain.into_iter().map(CertificateDer::from).collect(),
                        key: Arc::new(key),
                    };
                }
            }
        }
    }

    /// A signature over both nonces, which the signature's hash joins.
    fn respond(&self, challenge: &[u8]) -> Vec<u8> {
        let challenge: Value = serde_json::from_slice(challenge).unwrap();
        let theirs = challenge["ecdsa_signature"]["nonce"].as_str().unwrap();
        let ours: [u8; 32] = rand::random();
        let signed = [STANDARD.decode(theirs).unwrap(), ours.to_vec()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        let (r, s) = signature.as_ref().split_at(32);
        let response = json!({ "ecdsa_signature": {
            "nonce": STANDARD.encode(ours), "r": STANDARD.encode(r), "s": STANDARD.encode(s),
        }});
        response.to_string().into_bytes()
    }
}

/// What a sync brought.
pub(crate) struct Synced {
    pub(crate) entries: Vec<Entry>,
    pub(crate) revisions: Vec<EntryRevision>,
    /// Length of all messages, both ways.
    pub(crate) bytes: usize,
}

/// Syncs as spire-agent does: what is not in `known` with its revision is asked for.
pub(crate) async fn sync(channel: &Channel, known: &[EntryRevision]) -> Synced {
    let mut client = EntryClient::new(channel.clone()).max_decoding_message_size(64 << 20);
    let first = SyncAuthorizedEntriesRequest {
        output_mask: Some(mask()),
        ids: Vec::new(),
    };
    let mut bytes = first.encoded_len();
    let (requests, receiver) = mpsc::channel(2);
    requests.send(first).await.unwrap();
    let answers = client
        .sync_authorized_entries(ReceiverStream::new(receiver))
        .await;
    let mut answers = answers.expect("a sync").into_inner();
    let mut next = async || -> SyncAuthorizedEntriesResponse {
        answers.message().await.expect("a sync").expect("an answer")
    };
    let answer = next().await;
    bytes += answer.encoded_len();
    if answer.entry_revisions.is_empty() {
        let revisions = answer.entries.iter().map(revision).collect();
        return Synced {
            entries: answer.entries,
            revisions,
            bytes,
        };
    }
    let page = answer.entry_revisions.len();
    let (mut revisions, mut more) = (answer.entry_revisions, answer.more);
    while more {
        let answer = next().await;
        bytes += answer.encoded_len();
        revisions.extend(answer.entry_revisions);
        more = answer.more;
    }
    let changed: Vec<_> = if known == revisions {
        Vec::new()
    } else {
        revisions
            .iter()
            .filter(|it| !known.contains(it))
            .map(|it| it.id.clone())
            .collect()
    };
    let mut entries = Vec::new();
    for ids in changed.chunks(page) {
        let request = SyncAuthorizedEntriesRequest {
            output_mask: None,
            ids: ids.to_vec(),
        };
        bytes += request.encoded_len();
        requests.send(request).await.unwrap();
        let mut more = true;
        while more {
            let answer = next().await;
            bytes += answer.encoded_len();
            entries.extend(answer.entries);
            more = answer.more;
        }
    }
    Synced {
        entries,
        revisions,
        bytes,
    }
}

fn revision(entry: &Entry) -> EntryRevision {
    EntryRevision {
        id: entry.id.clone(),
        revision_number: entry.revision_number,
        created_at: entry.created_at,
    }
}

/// The fields that spire-agent asks for.
fn mask() -> EntryMask {
    EntryMask {
        spiffe_id: true,
        selectors: true,
        federates_with: true,
        admin: true,
        downstream: true,
        revision_number: true,
        store_svid: true,
        hint: true,
        additional_attributes: true,
        created_at: true,
        ..EntryMask::default()
    }
}

/// Lets the server of a trust domain in, and nobody else.
#[derive(Debug)]
struct ServerVerifier {
    id: String,
    bundle: Bundle,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<_> = [leaf].into_iter().chain(intermediates).cloned().collect();
        let id = verify_x509_svid(&chain, &self.bundle, Timestamp::now());
        match id {
            Ok(id) if id.as_str() == self.id => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
