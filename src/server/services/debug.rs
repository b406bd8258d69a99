//! The `Debug` service: a summary of the server.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use crate::server::context::ServerContext;
use crate::server::proto::debug::debug_server::Debug;
use crate::server::proto::debug::get_info_response::Cert;
use crate::server::proto::debug::{GetInfoRequest, GetInfoResponse};
use crate::server::services::ids;
use crate::spiffe::SpiffeId;

/// See above.
pub(super) struct DebugService {
    context: Arc<ServerContext>,
}

impl DebugService {
    pub(super) fn new(context: &Arc<ServerContext>) -> Self {
        Self {
            context: Arc::clone(context),
        }
    }
}

#[async_trait]
impl Debug for DebugService {
    async fn get_info(
        &self,
        _: Request<GetInfoRequest>,
    ) -> Result<Response<GetInfoResponse>, Status> {
        let context = &self.context;
        let authority = context.authority()?;
        let root = authority.ca().certificates().root();
        let chain = context.own_chain.borrow().clone();
        let svid_chain = chain.iter().chain([root]);
        let uptime = context.started.elapsed().as_secs();
        Ok(Response::new(GetInfoResponse {
            svid_chain: svid_chain.filter_map(|der| describe(der)).collect(),
            uptime: i32::try_from(uptime).unwrap_or(i32::MAX),
            agents_count: count(context.stores.agents.known()),
            // SPIRE counts the own bundle, too.
            federated_bundles_count: count(context.stores.federation.known_bundles() + 1),
            entries_count: count(context.process.identities.entry_count(&context.object)),
        }))
    }
}

fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn describe(der: &[u8]) -> Option<Cert> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(Cert {
        id: id(&certificate).as_ref().map(ids::to_proto),
        expires_at: certificate.validity().not_after.timestamp(),
        subject: subject(certificate.subject()),
    })
}

/// The one URI among the names of a leaf or CA, if that is an ID.
fn id(certificate: &X509Certificate<'_>) -> Option<SpiffeId> {
    let names = certificate.subject_alternative_name().ok()??;
    let names = names.value.general_names.iter();
    let mut uris = names.filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse().ok(),
        _ => None,
    }
}

/// A name as Go writes it (RFC 2253 §2.1): the last attribute first.
fn subject(name: &X509Name<'_>) -> String {
    let rdns = name.to_string();
    let mut rdns: Vec<&str> = rdns.split(", ").collect();
    rdns.reverse();
    rdns.join(",")
}
