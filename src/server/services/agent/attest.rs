//! `AttestAgent`: from what an agent sends to its X.509-SVID.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::bounds::Bounds;
use super::renew::{presented, sign, svid_to_proto};
use super::{entries, failed};
use crate::clusters::nested::AttestingCluster;
use crate::clusters::reviews::Reviews;
use crate::domains::{AttestorSettings, CaBundle, X509PopSettings, X509PopTrust};
use crate::runtime::clock;
use crate::server::attestation::{Evidence, MAX_PAYLOAD, join_token, k8s_psat, x509pop};
use crate::server::authorization::StrangersTurn;
use crate::server::caller::Caller;
use crate::server::context::ServerContext;
use crate::server::proto::agent::attest_agent_request::{Params, Step as Request};
use crate::server::proto::agent::attest_agent_response::{Result as Attested, Step as Response};
use crate::server::proto::agent::{AttestAgentRequest, AttestAgentResponse};
use crate::server::proto::types::AttestationData;
use crate::server::rate_limit::Limit;
use crate::spiffe::key_in_pkcs10;
use crate::store::agents::{AgentDenial, AgentError, Attestation};
use crate::store::{CaBundleError, ca_bundle};

/// How long an agent may take to send a message.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest name of an attestor in bytes.
const MAX_TYPE: usize = 64;
/// After which time a record that could not be written is tried again.
const PAUSE: Duration = Duration::from_millis(500);

type Answer = Result<AttestAgentResponse, Status>;

/// One agent's conversation.
struct Conversation {
    caller: Caller,
    requests: Streaming<AttestAgentRequest>,
    answers: mpsc::Sender<Answer>,
}

/// Attests; what is sent to the agent comes out of the stream. `turn` is held for as long.
pub(super) fn start(
    context: Arc<ServerContext>,
    caller: Caller,
    turn: StrangersTurn,
    requests: Streaming<AttestAgentRequest>,
) -> ReceiverStream<Answer> {
    let (answers, stream) = mpsc::channel(1);
    let bounds = Bounds::new(answers.clone(), turn);
    let conversation = Conversation {
        caller,
        requests,
        answers: answers.clone(),
    };
    tokio::spawn(async move {
        let attested = attest(&context, bounds, conversation).await;
        // The agent may be gone.
        let _ = answers.send(attested).await;
    });
    ReceiverStream::new(stream)
}

async fn attest(
    context: &ServerContext,
    mut bounds: Bounds,
    mut conversation: Conversation,
) -> Answer {
    let settings = context.settings();
    let attestors = &settings.node_attestors;
    let begun = begin(context, attestors, &mut conversation);
    let (data, csr) = bounds.hold(begun).await?;
    let evidence = if data.r#type == join_token::NAME && attestors.join_token {
        let tokens = &context.stores.join_tokens;
        let found = join_token::find(tokens, &data.payload, clock::now());
        let attest = |token| join_token::attest(tokens, token);
        bounds.lift(found, attest).await?
    } else {
        let found = evidence(context, attestors, &data, &mut conversation);
        bounds.hold(found).await?
    };
    if evidence.id.path() == "/spire/server" {
        let problem = "agent ID cannot collide with the server ID";
        return Err(Status::internal(problem));
    }
    record(context, &conversation.caller, evidence, &csr, &bounds).await
}

/// What the agent begins with, once it is its turn. Whatever can be refused is refused before a
/// token is used up.
async fn begin(
    context: &ServerContext,
    attestors: &AttestorSettings,
    conversation: &mut Conversation,
) -> Result<(AttestationData, Vec<u8>), Status> {
    let (data, csr) = conversation.params().await?;
    key_in_pkcs10(&csr)
        .map_err(|error| Status::invalid_argument(format!("failed to parse CSR: {error}")))?;
    context.authority()?;
    let cluster = known_cluster(context, attestors, &data);
    let limit = cluster
        .as_deref()
        .map_or(Limit::Attestation, Limit::ClusterAttestation);
    wait_turn(context, limit, &conversation.caller).await?;
    Ok((data, csr))
}

async fn wait_turn(
    context: &ServerContext,
    limit: Limit<'_>,
    caller: &Caller,
) -> Result<(), Status> {
    let turn = context.limit(limit, caller, 1).await;
    turn.map_err(|status| {
        let message = "rejecting request due to attest agent rate limiting";
        Status::new(status.code(), format!("{message}: {}", status.message()))
    })
}

/// Signs for the agent, and records it, before it is answered.
async fn record(
    context: &ServerContext,
    caller: &Caller,
    evidence: Evidence,
    csr: &[u8],
    bounds: &Bounds,
) -> Answer {
    let Evidence { id, alias, .. } = evidence;
    let agents = &context.stores.agents;
    let svid = sign(context, &id, csr, clock::now()).await;
    let svid = match svid {
        Ok(svid) => svid,
        // Whoever is banned hears nothing else.
        Err(status) => match agents.get(&id).await {
            Ok(Some(agent)) if agent.banned => return Err(banned()),
            _ => return Err(status),
        },
    };
    let attestation = Attestation {
        id,
        attestation_type: evidence.attestation_type,
        can_reattest: evidence.can_reattest,
        selectors: evidence.selectors,
        cluster: evidence.cluster,
        node_name: evidence.node_name,
        alias,
        svid: presented(&svid),
    };
    // The SVID of an agent that is gone would take the place of the one that it got meanwhile.
    bounds.hold(async { Ok(()) }).await?;
    let recorded = loop {
        match agents.attest(&attestation).await {
            // A token was used up for it.
            Err(error) if bounds.are_lifted() && error.is_passing() && !bounds.is_late() => {
                sleep(PAUSE).await;
            }
            recorded => break recorded,
        }
    };
    recorded.map_err(|error| match error {
        AgentError::Denied {
            reason: AgentDenial::Banned,
        } => banned(),
        error => failed("failed to create attested agent", &error),
    })?;
    if attestation.alias.is_some() {
        let entries = entries(context);
        let made = agents.make_alias(&entries, &context.object, &attestation.id);
        if let Err(error) = made.await {
            let (agent, error) = (&attestation.id, crate::error_chain(&error));
            tracing::warn!(%agent, error, "the entry of the agent's join token is made later");
        }
    }
    tracing::info!(
        trust_domain = %context.trust_domain,
        agent = %attestation.id,
        attestor = attestation.attestation_type,
        address = ?caller.address(),
        "Agent attestation request completed"
    );
    Ok(AttestAgentResponse {
        step: Some(Response::Result(Attested {
            svid: Some(svid_to_proto(&attestation.id, &svid)),
            reattestable: attestation.can_reattest,
        })),
    })
}

/// SPIRE's words, which its own tests compare.
fn banned() -> Status {
    Status::permission_denied("failed to attest: agent is banned")
}

/// The evidence of an agent that may have other as often as it likes.
async fn evidence(
    context: &ServerContext,
    attestors: &AttestorSettings,
    data: &AttestationData,
    conversation: &mut Conversation,
) -> Result<Evidence, Status> {
    let trust_domain = &context.trust_domain;
    let payload = &data.payload;
    match (data.r#type.as_str(), attestors) {
        (k8s_psat::NAME, attestors) => {
            let process = &context.process;
            let cluster = |name: &str| {
                let own = attestors.k8s_psat.as_ref();
                let own = own.filter(|settings| settings.cluster == name);
                let own = own.map(|settings| AttestingCluster {
                    owner: None,
                    settings: Arc::new(settings.clone()),
                    reviews: Reviews::new(process.client.clone()),
                    turns: Arc::clone(&context.reviews),
                });
                own.or_else(|| process.attesting.get(&context.object, name))
            };
            let holder = k8s_psat::authenticate(payload, cluster).await?;
            let limit = Limit::WholeClusterAttestation(holder.cluster());
            wait_turn(context, limit, &conversation.caller).await?;
            holder.attest(trust_domain).await
        }
        (
            x509pop::NAME,
            AttestorSettings {
                x509pop: Some(settings),
                ..
            },
        ) => {
            let roots = roots(context, settings).await?;
            let now = clock::now();
            x509pop::attest(
                trust_domain,
                settings,
                &roots,
                payload,
                now,
                move |challenge| conversation.exchange(challenge),
            )
            .await
        }
        (other, _) => Err(Status::failed_precondition(format!(
            "error getting node attestor: could not find node attestor type {other:?}"
        ))),
    }
}

async fn roots(
    context: &ServerContext,
    settings: &X509PopSettings,
) -> Result<Vec<CertificateDer<'static>>, Status> {
    let reference = match &settings.trust {
        X509PopTrust::Cas(CaBundle::Inline(roots)) => return Ok(roots.clone()),
        X509PopTrust::Cas(CaBundle::Stored(reference)) => reference,
        X509PopTrust::Svids { .. } => {
            let authority = context.authority()?;
            return Ok(authority.bundle().roots().cloned().collect());
        }
    };
    let process = &context.process;
    let roots = ca_bundle(process.client.clone(), &process.namespace, reference).await;
    roots.map_err(|error| {
        let message = format!("failed to get trust bundle: {}", crate::error_chain(&error));
        match error {
            CaBundleError::Call { source, .. } if !source.is_answer() => {
                Status::unavailable(message)
            }
            _ => Status::internal(message),
        }
    })
}

/// Name of the cluster that the agent says it is in, if that is one of ours: its agents may all come
/// from one address.
fn known_cluster(
    context: &ServerContext,
    attestors: &AttestorSettings,
    data: &AttestationData,
) -> Option<String> {
    if data.r#type != k8s_psat::NAME {
        return None;
    }
    let named = k8s_psat::Payload::read(&data.payload).ok()?.cluster;
    let own = attestors.k8s_psat.as_ref();
    let is_own = own.is_some_and(|settings| settings.cluster == named);
    let is_known = is_own
        || context
            .process
            .attesting
            .get(&context.object, &named)
            .is_some();
    is_known.then_some(named)
}

impl Conversation {
    /// What the agent begins with: how it attests, and its certificate request.
    async fn params(&mut self) -> Result<(AttestationData, Vec<u8>), Status> {
        let Request::Params(params) = self
            .receive("failed to receive request from stream")
            .await?
        else {
            return Err(malformed("missing params"));
        };
        let Params { data, params } = params;
        let data = data.ok_or_else(|| malformed("missing attestation data"))?;
        let params = params.ok_or_else(|| malformed("missing X509-SVID parameters"))?;
        if params.csr.is_empty() {
            return Err(malformed("missing CSR"));
        }
        if data.r#type.is_empty() {
            return Err(malformed("missing attestation data type"));
        }
        if data.r#type.len() > MAX_TYPE {
            return Err(malformed("attestation data type is too long"));
        }
        if data.payload.is_empty() {
            return Err(malformed("missing attestation data payload"));
        }
        if data.payload.len() > MAX_PAYLOAD {
            return Err(malformed("attestation data payload is too large"));
        }
        Ok((data, params.csr))
    }

    /// Sends `challenge`, and gives what comes back.
    async fn exchange(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, Status> {
        let step = Some(Response::Challenge(challenge));
        let sent = self.answers.send(Ok(AttestAgentResponse { step })).await;
        sent.map_err(|_| Status::internal("failed to send challenge to agent"))?;
        let response = self
            .receive("failed to receive challenge from agent")
            .await?;
        match response {
            Request::ChallengeResponse(response) if response.len() <= MAX_PAYLOAD => Ok(response),
            Request::ChallengeResponse(_) => {
                Err(Status::invalid_argument("challenge response is too large"))
            }
            // Nothing, as to SPIRE's attestors.
            Request::Params(_) => Ok(Vec::new()),
        }
    }

    /// The next message; `problem` says that there is none.
    async fn receive(&mut self, problem: &str) -> Result<Request, Status> {
        let message = timeout(MESSAGE_TIMEOUT, self.requests.message()).await;
        let message = message
            .map_err(|_| Status::deadline_exceeded(format!("{problem}: it took too long")))?;
        match message {
            Ok(Some(AttestAgentRequest { step: Some(step) })) => Ok(step),
            Ok(Some(AttestAgentRequest { step: None })) => Err(malformed("missing params")),
            Ok(None) => Err(Status::invalid_argument(format!("{problem}: EOF"))),
            Err(status) => Err(Status::new(
                status.code(),
                format!("{problem}: {}", status.message()),
            )),
        }
    }
}

fn malformed(problem: &str) -> Status {
    Status::invalid_argument(format!("malformed param: {problem}"))
}
