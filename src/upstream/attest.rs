//! Becoming an agent of the server above.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use crate::api::CaKeyType;
use crate::authority::PrivateKey;
use crate::domains::UpstreamAttestor;
use crate::server::proto::agent::agent_client::AgentClient;
use crate::server::proto::agent::attest_agent_request::{Params, Step};
use crate::server::proto::agent::attest_agent_response::Step as Answer;
use crate::server::proto::agent::{AgentX509svidParams, AttestAgentRequest, RenewAgentRequest};
use crate::server::proto::types::{AttestationData, X509svid};
use crate::store::UpstreamMaterial;
use crate::upstream::channel::Connection;
use crate::upstream::problem::UpstreamProblem;
use crate::upstream::svid::Svid;
use crate::upstream::x509pop;

/// How long all of an attestation may take.
const ATTESTATION: Duration = Duration::from_secs(15);
/// Longest token of a service account, in bytes.
const MAX_TOKEN: usize = 64 * 1024;
/// Most challenges.
const MAX_CHALLENGES: usize = 4;

/// What shows who we are.
pub(super) struct Evidence {
    name: &'static str,
    payload: Zeroizing<Vec<u8>>,
    /// The key by which challenges are answered.
    key: Option<PrivateKey>,
}

impl Evidence {
    /// What `attestor` says is shown, as it is now.
    pub(super) async fn gather(
        attestor: &UpstreamAttestor,
        material: &UpstreamMaterial,
        token_folder: &Path,
    ) -> Result<Self, UpstreamProblem> {
        let missing = |message: String| UpstreamProblem::Credential { message };
        match attestor {
            UpstreamAttestor::K8sPsat {
                cluster,
                token_file,
            } => {
                let path = token_folder.join(token_file);
                let token = tokio::fs::read_to_string(&path).await;
                let token = Zeroizing::new(
                    token.map_err(|error| missing(format!("{}: {error}", path.display())))?,
                );
                if token.len() > MAX_TOKEN {
                    return Err(missing(format!("{} is no token", path.display())));
                }
                let payload = json!({ "cluster": cluster, "token": token.trim() });
                Ok(Self {
                    name: "k8s_psat",
                    payload: Zeroizing::new(payload.to_string().into_bytes()),
                    key: None,
                })
            }
            UpstreamAttestor::X509Pop { secret } => {
                let (chain, key) = material.certificate(secret).await.map_err(missing)?;
                Ok(Self {
                    name: "x509pop",
                    payload: Zeroizing::new(x509pop::payload(&chain)),
                    key: Some(key),
                })
            }
            UpstreamAttestor::JoinToken { secret } => {
                let token = material.join_token(secret).await.map_err(missing)?;
                Ok(Self {
                    name: "join_token",
                    payload: Zeroizing::new(token.as_bytes().to_vec()),
                    key: None,
                })
            }
        }
    }
}

/// Attests over `connection`, which shows nothing, and gives who we are from now on.
pub(super) async fn attest(
    connection: &Connection,
    evidence: Evidence,
) -> Result<Svid, UpstreamProblem> {
    let key = Arc::new(PrivateKey::generate(CaKeyType::EcP256)?);
    let csr = key.certificate_request(None)?;
    let attestation = exchange(connection, evidence, csr);
    let answer = timeout(ATTESTATION, attestation).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
    let svid = answer.map_err(|status| match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            connection.problem("AttestAgent", &status)
        }
        _ => UpstreamProblem::AttestationRefused {
            message: status.message().to_owned(),
        },
    })?;
    svid_of(svid, key)
}

async fn exchange(
    connection: &Connection,
    evidence: Evidence,
    csr: Vec<u8>,
) -> Result<Option<X509svid>, Status> {
    let Evidence { name, payload, key } = evidence;
    let (steps, receiver) = mpsc::channel(2);
    let step = |step| AttestAgentRequest { step: Some(step) };
    let gone = |_| Status::cancelled("the stream has ended");
    let params = Params {
        data: Some(AttestationData {
            r#type: name.to_owned(),
            payload: payload.to_vec(),
        }),
        params: Some(AgentX509svidParams { csr }),
    };
    steps.send(step(Step::Params(params))).await.map_err(gone)?;
    let mut client = AgentClient::new(connection.channel.clone());
    let answers = client.attest_agent(ReceiverStream::new(receiver)).await?;
    let mut answers = answers.into_inner();
    for _ in 0..=MAX_CHALLENGES {
        let answer = answers.message().await?.and_then(|answer| answer.step);
        match (answer, &key) {
            (Some(Answer::Result(result)), _) => return Ok(result.svid),
            (Some(Answer::Challenge(challenge)), Some(key)) => {
                let response =
                    x509pop::respond(&challenge, key).map_err(Status::failed_precondition)?;
                steps
                    .send(step(Step::ChallengeResponse(response)))
                    .await
                    .map_err(gone)?;
            }
            (Some(Answer::Challenge(_)), None) => {
                return Err(Status::failed_precondition("a challenge that is not known"));
            }
            (None, _) => return Err(Status::failed_precondition("no answer")),
        }
    }
    Err(Status::failed_precondition("too many challenges"))
}

/// Another X.509-SVID of the agent that `connection` shows, for those who cannot attest again.
pub(super) async fn renew(connection: &Connection) -> Result<Svid, UpstreamProblem> {
    let key = Arc::new(PrivateKey::generate(CaKeyType::EcP256)?);
    let csr = key.certificate_request(None)?;
    let mut client = AgentClient::new(connection.channel.clone());
    let request = RenewAgentRequest {
        params: Some(AgentX509svidParams { csr }),
    };
    let renewed = connection.call("RenewAgent", client.renew_agent(request));
    svid_of(renewed.await?.svid, key)
}

/// The X.509-SVID in `message`, of which `key` is the key.
pub(super) fn svid_of(
    message: Option<X509svid>,
    key: Arc<PrivateKey>,
) -> Result<Svid, UpstreamProblem> {
    let malformed = |message: String| UpstreamProblem::Malformed { message };
    let message = message.ok_or_else(|| malformed("no X.509-SVID".into()))?;
    let chain = message.cert_chain.into_iter();
    let chain = chain.map(CertificateDer::from).collect();
    Svid::new(chain, key).map_err(|error| malformed(error.to_string()))
}
