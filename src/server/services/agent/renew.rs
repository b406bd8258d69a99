//! What attested agents ask for on their own behalf: `RenewAgent` and `PostStatus`.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tonic::Status;

use super::failed;
use crate::authority::{SignedSvid, SvidRequest};
use crate::runtime::clock;
use crate::server::authorization::{CallingAgent, permission_denied, reason_of};
use crate::server::caller::Caller;
use crate::server::context::ServerContext;
use crate::server::proto::agent::{PostStatusRequest, RenewAgentRequest, RenewAgentResponse};
use crate::server::proto::types::X509svid;
use crate::server::rate_limit::Limit;
use crate::server::services::ids;
use crate::server::validity::validity;
use crate::spiffe::{SpiffeId, key_in_pkcs10};
use crate::store::agents::{AgentDenial, AgentError, PresentedSvid};

/// Longest version of an agent in characters.
const MAX_VERSION: usize = 255;

pub(super) async fn renew(
    context: &ServerContext,
    caller: &Caller,
    agent: &CallingAgent,
    request: RenewAgentRequest,
) -> Result<RenewAgentResponse, Status> {
    context.limit(Limit::X509Signing, caller, 1).await?;
    let refused = |error: AgentError| match error {
        AgentError::Denied { reason } => {
            permission_denied(reason.to_string(), Some(reason_of(reason)))
        }
        error => failed("failed to update agent", &error),
    };
    let agents = &context.stores.agents;
    if agent.record.spec.can_reattest {
        return Err(refused(AgentDenial::MustReattest.into()));
    }
    let params = request.params;
    let params = params.ok_or_else(|| Status::invalid_argument("params cannot be nil"))?;
    if params.csr.is_empty() {
        return Err(Status::invalid_argument("missing CSR"));
    }
    let svid = sign(context, &agent.id, &params.csr, clock::now()).await?;
    let shown = caller
        .svid()
        .ok_or_else(|| Status::internal("caller has no SVID"))?;
    let shown = PresentedSvid {
        serial: shown.serial.clone(),
        not_after: shown.not_after,
    };
    let renewed = agents.renew(&agent.id, &shown, &presented(&svid)).await;
    renewed.map_err(refused)?;
    Ok(RenewAgentResponse {
        svid: Some(svid_to_proto(&agent.id, &svid)),
    })
}

pub(super) async fn post_status(
    context: &ServerContext,
    caller: &Caller,
    agent: &CallingAgent,
    request: &PostStatusRequest,
) -> Result<(), Status> {
    context.limit(Limit::Status, caller, 1).await?;
    let version = &request.agent_version;
    if version.len() > MAX_VERSION {
        return Err(Status::invalid_argument(
            "agent version is too long (max 255 characters)",
        ));
    }
    if version.is_empty() {
        return Ok(());
    }
    let posted = context.stores.agents.post_status(&agent.id, version).await;
    posted.map_err(|error| failed("failed to update agent", &error))
}

/// Signs an X.509-SVID for an agent. Of the request the key counts and nothing else.
pub(super) async fn sign(
    context: &ServerContext,
    id: &SpiffeId,
    csr: &[u8],
    now: Timestamp,
) -> Result<SignedSvid, Status> {
    let key = key_in_pkcs10(csr)
        .map_err(|error| Status::invalid_argument(format!("failed to parse CSR: {error}")))?;
    let (not_before, not_after) = validity(now, context.settings().agent_ttl);
    let authority = context.authority()?;
    let own_key = authority.ca().key().public_key().clone();
    let id = id.clone();
    let sign = move || {
        authority.ca().sign(&SvidRequest {
            id: &id,
            dns_names: &[],
            public_key: &key,
            not_before,
            not_after,
        })
    };
    let signed = context.workers.sign(&own_key, sign).await?;
    let signed = signed.map_err(|error| {
        let error = crate::error_chain(&error);
        Status::internal(format!("failed to sign X509 SVID: {error}"))
    })?;
    if signed.capped {
        // All agents have one lifetime: it is told once.
        let domain = context.trust_domain.id();
        context.note_cap("X.509-SVID of agents", &domain, signed.not_after);
    }
    Ok(signed)
}

/// What an agent with this X.509-SVID shows.
pub(super) fn presented(svid: &SignedSvid) -> PresentedSvid {
    PresentedSvid {
        serial: svid.serial.to_string(),
        not_after: svid.not_after,
    }
}

pub(super) fn svid_to_proto(id: &SpiffeId, svid: &SignedSvid) -> X509svid {
    let chain = svid.chain.iter().map(CertificateDer::as_ref);
    X509svid {
        cert_chain: chain.map(<[u8]>::to_vec).collect(),
        id: Some(ids::to_proto(id)),
        expires_at: svid.not_after.as_second(),
        hint: String::new(),
    }
}
