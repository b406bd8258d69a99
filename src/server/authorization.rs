//! Whether a call may be made, decided before its message is read.
//!
//! The order is that of spire-server: everybody, the administration socket, administrators by
//! configuration, administrators by entry, downstream servers by entry, agents. What a service
//! finds in its request is an [`Authorized`], so a call that was not decided on reaches none.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use prost::Message;
use prost_types::Any;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::api::AttestedAgent;
use crate::registration::Right;
use crate::runtime::clock;
use crate::server::access::Access;
use crate::server::caller::{Caller, PeerSvid};
use crate::server::context::ServerContext;
use crate::server::proto::types::PermissionDeniedDetails;
use crate::server::proto::types::permission_denied_details::Reason;
use crate::server::turns::Turn;
use crate::spiffe::SpiffeId;
use crate::store::agents::{AgentDenial, AgentError, PresentedSvid};

/// Longest body of an attestation in bytes: evidence of an agent with a certificate request, and an
/// answer to a challenge.
const MAX_ATTESTATION: usize = 160 * 1024;
/// Longest body in bytes of another call that is open to everybody: it asks for a few fields.
const MAX_QUESTION: usize = 4 * 1024;
/// How long it may take until a call that is open to everybody was heard.
const HEARING: Duration = Duration::from_secs(5);

/// By what right a call is made.
#[derive(Clone, Debug)]
pub enum Authorized {
    /// It is open to everybody.
    Anyone,
    /// The caller is an administrator, or on the administration socket.
    Admin,
    /// The caller is a downstream server.
    Downstream,
    /// The caller is an attested agent.
    Agent(CallingAgent),
}

/// An attested agent that calls.
#[derive(Clone, Debug)]
pub struct CallingAgent {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// Its record.
    pub record: Arc<AttestedAgent>,
}

impl Authorized {
    /// The agent that makes `request`.
    ///
    /// # Errors
    /// `Internal` where no agent does, which is a bug.
    pub fn agent<T>(request: &tonic::Request<T>) -> Result<CallingAgent, Status> {
        match request.extensions().get() {
            Some(Self::Agent(agent)) => Ok(agent.clone()),
            _ => Err(Status::internal("the call is not an agent's")),
        }
    }
}

/// Lets calls through to the services behind it that may be made.
#[derive(Clone)]
pub(super) struct AuthorizationLayer {
    pub(super) context: Arc<ServerContext>,
}

impl<S> Layer<S> for AuthorizationLayer {
    type Service = Authorization<S>;

    fn layer(&self, inner: S) -> Authorization<S> {
        Authorization {
            context: Arc::clone(&self.context),
            inner,
        }
    }
}

/// See [`AuthorizationLayer`].
#[derive(Clone)]
pub(super) struct Authorization<S> {
    context: Arc<ServerContext>,
    inner: S,
}

type Answer = Result<http::Response<Body>, Infallible>;

impl<S> Service<http::Request<Body>> for Authorization<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The one that was polled is ready.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let context = Arc::clone(&self.context);
        Box::pin(async move {
            let method = request.uri().path().to_owned();
            let Some(access) = Access::to(&method) else {
                let unknown = format!("unknown method {method}");
                return Ok(Status::unimplemented(unknown).into_http());
            };
            let Some(caller) = request.extensions().get::<Caller>().cloned() else {
                return Ok(Status::internal("caller is unknown").into_http());
            };
            let authorized = authorize(&context, access, &method, &caller).await;
            count(&context, &method, &authorized);
            match authorized {
                Ok(authorized) => {
                    request.extensions_mut().insert(authorized);
                    let longest = match access {
                        Access::Attestation => MAX_ATTESTATION,
                        Access::Anyone => MAX_QUESTION,
                        _ => return inner.call(request).await,
                    };
                    let turn = turn(&context, access, &caller);
                    let mut request = request.map(|body| bounded(body, longest));
                    request.extensions_mut().insert(turn.clone());
                    let heard = timeout(HEARING, inner.call(request));
                    tokio::select! {
                        answer = heard => answer.unwrap_or_else(|_| {
                            let late = "the message took too long to come";
                            Ok(Status::deadline_exceeded(late).into_http())
                        }),
                        status = turn.lost() => Ok(status.into_http()),
                    }
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// `body`, which is an error where it is longer than `longest` bytes.
fn bounded(body: Body, longest: usize) -> Body {
    Body::new(Limited::new(body, longest).map_err(move |error| {
        if error.is::<LengthLimitError>() {
            Status::resource_exhausted(format!("call is longer than {longest} bytes"))
        } else {
            Status::from_error(error)
        }
    }))
}

/// What a call holds for as long as it costs something: a turn, where it is a stranger's.
#[derive(Clone, Debug, Default)]
pub(super) struct StrangersTurn(Option<Turn>);

/// Whoever attests is a stranger, also with an X.509-SVID: any workload has one.
fn turn(context: &ServerContext, access: Access, caller: &Caller) -> StrangersTurn {
    let turn = match (access, caller) {
        (_, Caller::Anonymous { address })
        | (Access::Attestation, Caller::Peer { address, .. }) => {
            Some(context.strangers.take((*address).into()))
        }
        _ => None,
    };
    StrangersTurn(turn)
}

impl StrangersTurn {
    /// That of `request`.
    ///
    /// # Errors
    /// `Internal` where it is not open to everybody, which is a bug.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let turn = request.extensions().get().cloned();
        turn.ok_or_else(|| Status::internal("the call has no turn"))
    }

    /// Waits until somebody else needs the turn, and says so.
    pub(super) async fn lost(&self) -> Status {
        match &self.0 {
            Some(turn) => turn.lost().await,
            None => std::future::pending().await,
        }
        Status::resource_exhausted("too many calls that are open to everybody; try again")
    }
}

fn count(context: &ServerContext, method: &str, authorized: &Result<Authorized, Status>) {
    let (method, result) = match authorized {
        Ok(_) => (Some(method), "allowed"),
        Err(status) if status.code() == Code::Unavailable => (None, "unavailable"),
        Err(_) => (None, "denied"),
    };
    let trust_domain = context.trust_domain.as_str();
    context.process.metrics.called(trust_domain, method, result);
}

async fn authorize(
    context: &ServerContext,
    access: Access,
    method: &str,
    caller: &Caller,
) -> Result<Authorized, Status> {
    let denied = || Err(denial(method, None));
    match (access, caller) {
        (Access::Anyone | Access::Attestation, _) => Ok(Authorized::Anyone),
        (Access::Local | Access::Admin | Access::AgentOrAdmin, Caller::Local) => {
            Ok(Authorized::Admin)
        }
        // As spire-server, which has these services on its socket only.
        (Access::Local, _) => {
            let service = method
                .rsplit_once('/')
                .map_or(method, |(service, _)| service);
            let service = service.trim_start_matches('/');
            Err(Status::unimplemented(format!("unknown service {service}")))
        }
        (_, Caller::Local | Caller::Anonymous { .. }) => denied(),
        (Access::Admin, Caller::Peer { svid, .. }) => {
            if is_admin(context, svid)? {
                return Ok(Authorized::Admin);
            }
            denied()
        }
        (Access::Downstream, Caller::Peer { svid, .. }) => {
            if has_entry(context, svid, Right::Downstream)? {
                return Ok(Authorized::Downstream);
            }
            denied()
        }
        (Access::AgentOrAdmin, Caller::Peer { svid, .. }) => {
            let is_admin = is_admin(context, svid);
            if matches!(is_admin, Ok(true)) {
                return Ok(Authorized::Admin);
            }
            agent_or(is_admin, agent(context, method, svid).await)
        }
        (Access::Agent, Caller::Peer { svid, .. }) => agent(context, method, svid).await,
    }
}

/// An agent is let through also while it is not known who is an administrator; nobody else is
/// refused for good in that time.
fn agent_or(
    is_admin: Result<bool, Status>,
    agent: Result<Authorized, Status>,
) -> Result<Authorized, Status> {
    match (agent, is_admin) {
        (Err(denied), Err(unknown)) if denied.code() == Code::PermissionDenied => Err(unknown),
        (agent, _) => agent,
    }
}

async fn agent(
    context: &ServerContext,
    method: &str,
    svid: &PeerSvid,
) -> Result<Authorized, Status> {
    let presented = PresentedSvid {
        serial: svid.serial.clone(),
        not_after: svid.not_after,
    };
    let checked = context
        .stores
        .agents
        .check(&svid.id, &presented, clock::now());
    match checked.await {
        Ok(record) => Ok(Authorized::Agent(CallingAgent {
            id: svid.id.clone(),
            record,
        })),
        Err(AgentError::Denied { reason }) => Err(denial(method, Some(reason_of(reason)))),
        Err(error) => Err(agent_status(&error)),
    }
}

fn is_admin(context: &ServerContext, svid: &PeerSvid) -> Result<bool, Status> {
    if context.settings().admin_ids.contains(&svid.id) {
        return Ok(true);
    }
    has_entry(context, svid, Right::Admin)
}

fn has_entry(context: &ServerContext, svid: &PeerSvid, right: Right) -> Result<bool, Status> {
    let identities = &context.process.identities;
    identities
        .has_entry(&context.object, &svid.id, right)
        .map_err(|missing| Status::unavailable(missing.to_string()))
}

/// What a caller is told when it cannot be known whether an agent may act.
#[must_use]
pub fn agent_status(error: &AgentError) -> Status {
    match error {
        AgentError::Denied { reason } => {
            permission_denied(reason.to_string(), Some(reason_of(*reason)))
        }
        AgentError::NotFound => Status::not_found("agent not found"),
        AgentError::Misnamed { .. } => Status::internal(error.to_string()),
        error => Status::unavailable(crate::error_chain(error)),
    }
}

/// The reason as stock agents know it.
pub(super) fn reason_of(denial: AgentDenial) -> Reason {
    match denial {
        AgentDenial::Expired => Reason::AgentExpired,
        AgentDenial::NotAttested => Reason::AgentNotAttested,
        AgentDenial::Banned => Reason::AgentBanned,
        AgentDenial::NotActive => Reason::AgentNotActive,
        AgentDenial::MustReattest => Reason::AgentMustReattest,
    }
}

/// `PermissionDenied` as stock agents read it: the reason is in the details.
fn denial(method: &str, reason: Option<Reason>) -> Status {
    let message = format!("authorization denied for method {method}");
    permission_denied(message, reason)
}

/// A refusal with `message`, and with a `reason` in `spire.api.types.PermissionDeniedDetails`.
#[must_use]
pub fn permission_denied(message: String, reason: Option<Reason>) -> Status {
    let Some(reason) = reason else {
        return Status::permission_denied(message);
    };
    let details = PermissionDeniedDetails {
        reason: reason.into(),
    };
    let status = RpcStatus {
        code: Code::PermissionDenied.into(),
        message: message.clone(),
        details: vec![Any {
            type_url: "type.googleapis.com/spire.api.types.PermissionDeniedDetails".into(),
            value: details.encode_to_vec(),
        }],
    };
    let details = status.encode_to_vec();
    Status::with_details(Code::PermissionDenied, message, details.into())
}

/// `google.rpc.Status`, which gRPC carries in the trailer `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_refused_for_good_while_administrators_are_not_known() {
        let denied = || Err(denial("/a/B", None));
        let unknown = || Err(Status::unavailable("not seen yet"));
        let code = |outcome: Result<Authorized, Status>| outcome.unwrap_err().code();
        assert_eq!(code(agent_or(unknown(), denied())), Code::Unavailable);
        assert_eq!(code(agent_or(Ok(false), denied())), Code::PermissionDenied);
        assert!(agent_or(unknown(), Ok(Authorized::Admin)).is_ok());
    }

    #[test]
    fn the_reason_is_in_the_details() {
        let status = denial("/a/B", Some(Reason::AgentBanned));
        assert_eq!(status.message(), "authorization denied for method /a/B");
        let read = RpcStatus::decode(status.details()).unwrap();
        assert_eq!((read.code, read.message.as_str()), (7, status.message()));
        let details = PermissionDeniedDetails::decode(&*read.details[0].value).unwrap();
        assert_eq!(details.reason(), Reason::AgentBanned);
        assert!(denial("/a/B", None).details().is_empty());
    }
}
