//! The services of the API, one module each. What a call may do was decided before it comes here
//! ([`super::authorization`]); what it asks for is checked here.

mod agent;
mod answer;
mod bundle;
mod entry;
mod federation;
mod ids;
mod svid;

use std::sync::Arc;

use tonic::service::Routes;

use self::agent::AgentService;
use self::bundle::BundleService;
use self::entry::EntryService;
use self::svid::SvidService;
use crate::server::context::ServerContext;
use crate::server::proto::agent::agent_server::AgentServer;
use crate::server::proto::bundle::bundle_server::BundleServer;
use crate::server::proto::entry::entry_server::EntryServer;
use crate::server::proto::svid::svid_server::SvidServer;

/// What is served over TCP, and on the administration socket, too.
pub(super) fn over_tcp(context: &Arc<ServerContext>) -> Routes {
    let agent = AgentService {
        context: Arc::clone(context),
    };
    Routes::default()
        .add_service(AgentServer::new(agent))
        .add_service(BundleServer::new(BundleService::new(context)))
        .add_service(EntryServer::new(EntryService::new(Arc::clone(context))))
        .add_service(SvidServer::new(SvidService::new(context)))
}

/// What is served on the administration socket.
pub(super) async fn on_admin_socket(context: &Arc<ServerContext>) -> Routes {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    over_tcp(context).add_service(health)
}
