//! What administrators do with agents: count, list, get, delete, ban.

use std::num::NonZeroUsize;

use tonic::Status;

use super::messages::{Filter, agent_to_proto, filter_from_proto};
use super::{entries, failed};
use crate::server::context::ServerContext;
use crate::server::proto::agent::{
    BanAgentRequest, CountAgentsRequest, DeleteAgentRequest, GetAgentRequest, ListAgentsRequest,
    ListAgentsResponse,
};
use crate::server::proto::types::{Agent, Spiffeid};
use crate::server::services::answer::{invalid, not_written};
use crate::server::services::ids;
use crate::spiffe::SpiffeId;
use crate::store::agents::{AgentError, AgentFilter};

pub(super) async fn count(
    context: &ServerContext,
    request: CountAgentsRequest,
) -> Result<i32, Status> {
    let filter = request.filter.as_ref().map(|filter| Filter {
        attestation_type: &filter.by_attestation_type,
        selector_match: filter.by_selector_match.as_ref(),
        banned: filter.by_banned,
        can_reattest: filter.by_can_reattest,
        expires_before: &filter.by_expires_before,
    });
    let filter = parse(filter)?;
    let count = context.stores.agents.count(&filter).await;
    let count = count.map_err(|error| failed("failed to count agents", &error.into()))?;
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}

pub(super) async fn list(
    context: &ServerContext,
    request: ListAgentsRequest,
) -> Result<ListAgentsResponse, Status> {
    let filter = request.filter.as_ref().map(|filter| Filter {
        attestation_type: &filter.by_attestation_type,
        selector_match: filter.by_selector_match.as_ref(),
        banned: filter.by_banned,
        can_reattest: filter.by_can_reattest,
        expires_before: &filter.by_expires_before,
    });
    let filter = parse(filter)?;
    let size = usize::try_from(request.page_size).ok();
    let size = size.and_then(NonZeroUsize::new);
    let start =
        Some(request.page_token.as_str()).filter(|token| size.is_some() && !token.is_empty());
    let page = context.stores.agents.list(&filter, size, start).await;
    let page = page.map_err(|error| failed("failed to list agents", &error.into()))?;
    let mask = request.output_mask.as_ref();
    let agents = page.agents.iter();
    Ok(ListAgentsResponse {
        agents: agents
            .filter_map(|agent| agent_to_proto(agent, mask))
            .collect(),
        next_page_token: page.next.unwrap_or_default(),
    })
}

pub(super) async fn get(
    context: &ServerContext,
    request: &GetAgentRequest,
) -> Result<Agent, Status> {
    let id = agent_id(context, request.id.as_ref())?;
    let agent = context.stores.agents.get(&id).await;
    let agent = agent.map_err(|error| failed("failed to fetch agent", &error))?;
    let agent = agent.ok_or_else(|| failed("", &AgentError::NotFound))?;
    agent_to_proto(&agent, request.output_mask.as_ref())
        .ok_or_else(|| Status::internal("failed to convert attested node to agent"))
}

pub(super) async fn delete(
    context: &ServerContext,
    request: &DeleteAgentRequest,
) -> Result<(), Status> {
    let id = agent_id(context, request.id.as_ref())?;
    let evicted = context.stores.agents.evict(&id).await;
    evicted.map_err(|error| failed("failed to remove agent", &error))?;
    let entries = entries(context);
    let removed = context.stores.agents.remove_alias(&entries, &id);
    removed
        .await
        .map_err(|error| not_written("failed to delete join token registration entry", &error))?;
    tracing::info!(trust_domain = %context.trust_domain, agent = %id, "Agent deleted");
    Ok(())
}

pub(super) async fn ban(context: &ServerContext, request: &BanAgentRequest) -> Result<(), Status> {
    let id = agent_id(context, request.id.as_ref())?;
    let banned = context.stores.agents.ban(&id).await;
    banned.map_err(|error| failed("failed to ban agent", &error))?;
    tracing::info!(trust_domain = %context.trust_domain, agent = %id, "Agent banned");
    Ok(())
}

fn agent_id(context: &ServerContext, id: Option<&Spiffeid>) -> Result<SpiffeId, Status> {
    let id = ids::from_proto(id).and_then(|id| {
        ids::check_agent(&id, &context.trust_domain)?;
        Ok(id)
    });
    id.map_err(|problem| invalid("invalid agent ID", problem))
}

fn parse(filter: Option<Filter<'_>>) -> Result<AgentFilter, Status> {
    filter_from_proto(&filter.unwrap_or_default()).map_err(Status::invalid_argument)
}
