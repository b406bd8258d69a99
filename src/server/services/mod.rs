//! The services of the API, one module each. What a call may do was decided before it comes here
//! ([`super::authorization`]); what it asks for is checked here.

mod agent;
mod answer;
mod bundle;
mod debug;
mod entry;
mod federation;
mod health;
mod ids;
mod local_authority;
mod logger;
mod svid;
mod trust_domain;

use std::sync::Arc;

use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use self::agent::AgentService;
use self::bundle::BundleService;
use self::debug::DebugService;
use self::entry::EntryService;
use self::health::HealthService;
use self::local_authority::LocalAuthorityService;
use self::logger::LoggerService;
use self::svid::SvidService;
use self::trust_domain::TrustDomainService;
use crate::server::context::ServerContext;
use crate::server::proto::agent::agent_server::AgentServer;
use crate::server::proto::bundle::bundle_server::BundleServer;
use crate::server::proto::debug::debug_server::DebugServer;
use crate::server::proto::entry::entry_server::EntryServer;
use crate::server::proto::localauthority::local_authority_server::LocalAuthorityServer;
use crate::server::proto::logger::logger_server::LoggerServer;
use crate::server::proto::svid::svid_server::SvidServer;
use crate::server::proto::trustdomain::trust_domain_server::TrustDomainServer;

/// What is served over TCP, and on the administration socket, too.
pub(super) fn over_tcp(context: &Arc<ServerContext>) -> Routes {
    Routes::default()
        .add_service(AgentServer::new(AgentService::new(context)))
        .add_service(BundleServer::new(BundleService::new(context)))
        .add_service(EntryServer::new(EntryService::new(Arc::clone(context))))
        .add_service(LocalAuthorityServer::new(LocalAuthorityService::new(
            context,
        )))
        .add_service(SvidServer::new(SvidService::new(context)))
        .add_service(TrustDomainServer::new(TrustDomainService::new(context)))
}

/// What is served on the administration socket.
pub(super) fn on_admin_socket(context: &Arc<ServerContext>) -> Routes {
    over_tcp(context)
        .add_service(DebugServer::new(DebugService::new(context)))
        .add_service(LoggerServer::new(LoggerService::new(context)))
        .add_service(HealthServer::new(HealthService::new(context)))
}
