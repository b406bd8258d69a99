//! The services of the API, one module each. What a call may do was decided before it comes here
//! ([`super::authorization`]); what it asks for is checked here.

use std::sync::Arc;

use tonic::service::Routes;

use crate::server::context::ServerContext;

/// What is served over TCP, and on the administration socket, too.
pub(super) fn over_tcp(_context: &Arc<ServerContext>) -> Routes {
    Routes::default()
}

/// What is served on the administration socket.
pub(super) async fn on_admin_socket(context: &Arc<ServerContext>) -> Routes {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    over_tcp(context).add_service(health)
}
