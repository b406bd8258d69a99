//! Attestation as an agent does it, step by step, so that a test can leave steps out or repeat them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use spiffe_operator::server::proto::agent::agent_client::AgentClient;
use spiffe_operator::server::proto::agent::attest_agent_request::{Params, Step};
use spiffe_operator::server::proto::agent::{
    AgentX509svidParams, AttestAgentRequest, AttestAgentResponse, attest_agent_response,
};
use spiffe_operator::server::proto::types::{AttestationData, X509svid};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::authorities::Ca;
use super::grpc::channel;

/// A certificate request as agents make them.
pub(crate) fn csr() -> Vec<u8> {
    csr_for(&KeyPair::generate().unwrap())
}

/// The same for a key that the caller holds.
pub(crate) fn csr_for(key: &KeyPair) -> Vec<u8> {
    let request = CertificateParams::default().serialize_request(key);
    request.unwrap().der().to_vec()
}

/// The first step of an attestation.
pub(crate) fn params(attestor: &str, payload: &[u8], csr: &[u8]) -> Step {
    Step::Params(Params {
        data: Some(AttestationData {
            r#type: attestor.into(),
            payload: payload.to_vec(),
        }),
        params: Some(AgentX509svidParams { csr: csr.to_vec() }),
    })
}

/// A node with a certificate to attest with.
pub(crate) struct Node {
    certificate: CertificateDer<'static>,
    key: EcdsaKeyPair,
}

impl Node {
    /// A certificate under `ca`.
    pub(crate) fn new(ca: &Ca, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = parameters.signed_by(&key, ca).unwrap().der().clone();
        let pkcs8 = key.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).unwrap();
        Self { certificate, key }
    }

    /// What it begins with.
    pub(crate) fn params(&self) -> Step {
        let payload = json!({ "certificates": [STANDARD.encode(&self.certificate)] });
        params("x509pop", payload.to_string().as_bytes(), &csr())
    }

    /// The right answer to a challenge.
    pub(crate) fn respond(&self, challenge: &[u8]) -> Vec<u8> {
        let challenge: Value = serde_json::from_slice(challenge).unwrap();
        let theirs = challenge["ecdsa_signature"]["nonce"].as_str().unwrap();
        let ours = [7; 32];
        let signed = [STANDARD.decode(theirs).unwrap(), ours.to_vec()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        let (r, s) = signature.as_ref().split_at(32);
        let response = json!({ "ecdsa_signature": {
            "nonce": STANDARD.encode(ours), "r": STANDARD.encode(r), "s": STANDARD.encode(s),
        }});
        response.to_string().into_bytes()
    }

    /// Attests at the server on `port`.
    pub(crate) async fn attest(&self, port: u16) -> Result<X509svid, Status> {
        let mut session = Attestation::begin(port).await;
        session.send(self.params()).await;
        let challenge = session.challenge().await?;
        session
            .send(Step::ChallengeResponse(self.respond(&challenge)))
            .await;
        session.result().await
    }
}

/// Attests at the server on `port` by what takes one step.
pub(crate) async fn attest(port: u16, step: Step) -> Result<X509svid, Status> {
    let mut session = Attestation::begin(port).await;
    session.send(step).await;
    session.result().await
}

/// An attestation that has begun, over a connection of its own.
pub(crate) struct Attestation {
    steps: mpsc::Sender<AttestAgentRequest>,
    answers: Streaming<AttestAgentResponse>,
}

impl Attestation {
    /// Opens the stream to the server on `port`, and says nothing.
    pub(crate) async fn begin(port: u16) -> Self {
        let mut client = AgentClient::new(channel(port, None).await);
        let (steps, receiver) = mpsc::channel(2);
        let answers = client.attest_agent(ReceiverStream::new(receiver)).await;
        Self {
            steps,
            answers: answers.unwrap().into_inner(),
        }
    }

    /// Sends a step.
    pub(crate) async fn send(&self, step: Step) {
        let request = AttestAgentRequest { step: Some(step) };
        self.steps.send(request).await.unwrap();
    }

    /// The challenge that comes next.
    pub(crate) async fn challenge(&mut self) -> Result<Vec<u8>, Status> {
        match self.next().await? {
            attest_agent_response::Step::Challenge(challenge) => Ok(challenge),
            attest_agent_response::Step::Result(result) => panic!("no challenge: {result:?}"),
        }
    }

    /// The X.509-SVID that comes next.
    pub(crate) async fn result(&mut self) -> Result<X509svid, Status> {
        match self.next().await? {
            attest_agent_response::Step::Result(result) => Ok(result.svid.unwrap()),
            attest_agent_response::Step::Challenge(_) => panic!("another challenge"),
        }
    }

    async fn next(&mut self) -> Result<attest_agent_response::Step, Status> {
        let answer = self.answers.message().await?;
        Ok(answer.expect("an answer").step.expect("a step"))
    }
}
