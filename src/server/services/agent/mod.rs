//! `spire.api.server.agent.v1.Agent`: attestation and renewal of agents, their administration, and
//! join tokens.

mod admin;
mod attest;
mod bounds;
mod join_tokens;
mod messages;
mod renew;

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::server::authorization::{Authorized, StrangersTurn};
use crate::server::caller::Caller;
use crate::server::context::ServerContext;
use crate::server::proto::agent::agent_server::Agent;
use crate::server::proto::agent::{
    AttestAgentRequest, AttestAgentResponse, BanAgentRequest, CountAgentsRequest,
    CountAgentsResponse, CreateJoinTokenRequest, DeleteAgentRequest, GetAgentRequest,
    ListAgentsRequest, ListAgentsResponse, PostStatusRequest, PostStatusResponse,
    RenewAgentRequest, RenewAgentResponse,
};
use crate::server::proto::types;
use crate::store::RegistrationEntryStore;
use crate::store::agents::AgentError;

/// See the module.
pub(super) struct AgentService {
    context: Arc<ServerContext>,
}

impl AgentService {
    pub(super) fn new(context: &Arc<ServerContext>) -> Self {
        Self {
            context: Arc::clone(context),
        }
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    async fn count_agents(
        &self,
        request: Request<CountAgentsRequest>,
    ) -> Result<Response<CountAgentsResponse>, Status> {
        let count = admin::count(&self.context, request.into_inner()).await?;
        Ok(Response::new(CountAgentsResponse { count }))
    }

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        let page = admin::list(&self.context, request.into_inner()).await?;
        Ok(Response::new(page))
    }

    async fn get_agent(
        &self,
        request: Request<GetAgentRequest>,
    ) -> Result<Response<types::Agent>, Status> {
        let agent = admin::get(&self.context, request.get_ref()).await?;
        Ok(Response::new(agent))
    }

    async fn delete_agent(
        &self,
        request: Request<DeleteAgentRequest>,
    ) -> Result<Response<()>, Status> {
        admin::delete(&self.context, request.get_ref()).await?;
        Ok(Response::new(()))
    }

    async fn ban_agent(&self, request: Request<BanAgentRequest>) -> Result<Response<()>, Status> {
        admin::ban(&self.context, request.get_ref()).await?;
        Ok(Response::new(()))
    }

    type AttestAgentStream = ReceiverStream<Result<AttestAgentResponse, Status>>;

    async fn attest_agent(
        &self,
        request: Request<Streaming<AttestAgentRequest>>,
    ) -> Result<Response<Self::AttestAgentStream>, Status> {
        let caller = Caller::of(&request)?.clone();
        let turn = StrangersTurn::of(&request)?;
        let context = Arc::clone(&self.context);
        Ok(Response::new(attest::start(
            context,
            caller,
            turn,
            request.into_inner(),
        )))
    }

    async fn renew_agent(
        &self,
        request: Request<RenewAgentRequest>,
    ) -> Result<Response<RenewAgentResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let agent = Authorized::agent(&request)?;
        let renewed = renew::renew(&self.context, &caller, &agent, request.into_inner()).await?;
        Ok(Response::new(renewed))
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<types::JoinToken>, Status> {
        let token = join_tokens::create(&self.context, request.into_inner()).await?;
        Ok(Response::new(token))
    }

    async fn post_status(
        &self,
        request: Request<PostStatusRequest>,
    ) -> Result<Response<PostStatusResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let agent = Authorized::agent(&request)?;
        renew::post_status(&self.context, &caller, &agent, request.get_ref()).await?;
        Ok(Response::new(PostStatusResponse {}))
    }
}

fn entries(context: &ServerContext) -> RegistrationEntryStore {
    let process = &context.process;
    RegistrationEntryStore::new(process.client.clone(), process.identities.clone())
}

/// What a client is told when the record of an agent could not be read or written; `what` was to be
/// done.
fn failed(what: &str, error: &AgentError) -> Status {
    let message = format!("{what}: {}", crate::error_chain(error));
    match error {
        AgentError::NotFound => Status::not_found("agent not found"),
        AgentError::Denied { .. } => Status::permission_denied(message),
        error if error.is_passing() => Status::unavailable(message),
        _ => Status::internal(message),
    }
}
