//! CAs of servers that are chained below ours.

use std::sync::Arc;

use tonic::Status;

use crate::authority::DownstreamCaRequest;
use crate::runtime::clock;
use crate::server::context::ServerContext;
use crate::server::proto::svid::{NewDownstreamX509caRequest, NewDownstreamX509caResponse};
use crate::server::services::answer::internal;
use crate::server::services::svid::{asked_for, x509};
use crate::server::validity::validity;

/// Signs the CA of a server below, as long-lived as it prefers.
pub(super) async fn sign(
    context: &Arc<ServerContext>,
    request: NewDownstreamX509caRequest,
) -> Result<NewDownstreamX509caResponse, Status> {
    let NewDownstreamX509caRequest { csr, preferred_ttl } = request;
    let authority = context.authority()?;
    let ttl = asked_for(preferred_ttl).unwrap_or(context.settings().ca_ttl);
    let shared = Arc::clone(context);
    let signed = context.workers.run(move || {
        let request = x509::read_request(&csr, "invalid CSR signature")?;
        let (not_before, not_after) = validity(clock::now(), ttl);
        let signed = authority.ca().sign_downstream_ca(&DownstreamCaRequest {
            trust_domain: &shared.trust_domain,
            public_key: &request.public_key,
            not_before,
            not_after,
        });
        let signed =
            signed.map_err(|error| internal("failed to sign downstream X.509 CA", error))?;
        if signed.capped {
            shared.note_cap("downstream CA", &shared.trust_domain.id(), signed.not_after);
        }
        let roots = authority.bundle().roots();
        Ok(NewDownstreamX509caResponse {
            ca_cert_chain: signed.chain.iter().map(|it| it.to_vec()).collect(),
            x509_authorities: roots.map(|it| it.to_vec()).collect(),
        })
    });
    signed.await?
}
