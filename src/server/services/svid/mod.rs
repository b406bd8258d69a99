//! The `SVID` service: X.509-SVIDs, JWT-SVIDs, and CAs of servers below ours.
//!
//! Invariant: an agent gets an SVID of an entry that it is authorized for and of nothing else; of its
//! request only the key counts, or the audience. Administrators alone get what they ask for.

mod downstream;
mod jwt;
mod wit;
mod x509;

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status, async_trait};

use crate::registration::{Entry, EntryId, EntrySelector};
use crate::server::authorization::{Authorized, CallingAgent};
use crate::server::caller::Caller;
use crate::server::context::ServerContext;
use crate::server::proto::svid::svid_server::Svid;
use crate::server::proto::svid::{
    BatchNewWitsvidRequest, BatchNewWitsvidResponse, BatchNewX509svidRequest,
    BatchNewX509svidResponse, MintJwtsvidRequest, MintJwtsvidResponse, MintWitsvidRequest,
    MintWitsvidResponse, MintX509svidRequest, MintX509svidResponse, NewDownstreamX509caRequest,
    NewDownstreamX509caResponse, NewJwtsvidRequest, NewJwtsvidResponse, batch_new_witsvid_response,
    batch_new_x509svid_response,
};
use crate::server::rate_limit::Limit;
use crate::server::services::answer::{item, unavailable, within};

/// SPIRE's answer without its `wit-svid` feature flag.
const NO_WIT: &str = "WIT functionality is disabled";
const TOO_MANY_SIGNATURES: &str = "rejecting request due to certificate signing rate limiting";

/// See above.
pub(super) struct SvidService {
    context: Arc<ServerContext>,
}

impl SvidService {
    pub(super) fn new(context: &Arc<ServerContext>) -> Self {
        Self {
            context: Arc::clone(context),
        }
    }

    /// For each of `ids` the entry, if `agent` may fetch it.
    fn entries(
        &self,
        agent: &CallingAgent,
        ids: &[EntryId],
    ) -> Result<Vec<Option<Arc<Entry>>>, Status> {
        let selectors = agent.record.spec.selectors.iter();
        let selectors = selectors.filter_map(|it| EntrySelector::parse(it).ok());
        let identities = &self.context.process.identities;
        identities
            .authorized_among(&self.context.object, &agent.id, &selectors.collect(), ids)
            .map_err(|missing| unavailable("failed to fetch registration entries", missing))
    }
}

#[async_trait]
impl Svid for SvidService {
    async fn batch_new_x509svid(
        &self,
        request: Request<BatchNewX509svidRequest>,
    ) -> Result<Response<BatchNewX509svidResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let agent = Authorized::agent(&request)?;
        let params = request.into_inner().params;
        if params.is_empty() {
            return Err(Status::invalid_argument("missing parameters"));
        }
        self.context
            .limit(Limit::X509Signing, &caller, params.len())
            .await
            .map_err(|status| within(TOO_MANY_SIGNATURES, &status))?;
        let ids: Vec<_> = params
            .iter()
            .map(|param| EntryId::from_text(&param.entry_id))
            .collect();
        let entries = self.entries(&agent, &ids)?;
        let svids = x509::sign(&self.context, params.into_iter().zip(entries).collect()).await?;
        let results = svids.into_iter().map(|svid| {
            let (status, svid) = item(svid);
            batch_new_x509svid_response::Result { status, svid }
        });
        Ok(Response::new(BatchNewX509svidResponse {
            results: results.collect(),
        }))
    }

    async fn new_jwtsvid(
        &self,
        request: Request<NewJwtsvidRequest>,
    ) -> Result<Response<NewJwtsvidResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let agent = Authorized::agent(&request)?;
        let NewJwtsvidRequest { entry_id, audience } = request.into_inner();
        self.context
            .limit(Limit::JwtSigning, &caller, 1)
            .await
            .map_err(|status| {
                within(
                    "rejecting request due to JWT signing request rate limiting",
                    &status,
                )
            })?;
        let entries = self.entries(&agent, &[EntryId::from_text(&entry_id)])?;
        let Some(entry) = entries.into_iter().flatten().next() else {
            return Err(Status::not_found("entry not found or not authorized"));
        };
        let svid = Some(jwt::for_entry(&self.context, &entry, audience).await?);
        Ok(Response::new(NewJwtsvidResponse { svid }))
    }

    async fn mint_x509svid(
        &self,
        request: Request<MintX509svidRequest>,
    ) -> Result<Response<MintX509svidResponse>, Status> {
        let svid = Some(x509::mint(&self.context, request.into_inner()).await?);
        Ok(Response::new(MintX509svidResponse { svid }))
    }

    async fn mint_jwtsvid(
        &self,
        request: Request<MintJwtsvidRequest>,
    ) -> Result<Response<MintJwtsvidResponse>, Status> {
        let svid = Some(jwt::mint(&self.context, request.into_inner()).await?);
        Ok(Response::new(MintJwtsvidResponse { svid }))
    }

    async fn new_downstream_x509ca(
        &self,
        request: Request<NewDownstreamX509caRequest>,
    ) -> Result<Response<NewDownstreamX509caResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        self.context
            .limit(Limit::X509Signing, &caller, 1)
            .await
            .map_err(|status| {
                within(
                    "rejecting request due to downstream CA signing rate limit",
                    &status,
                )
            })?;
        let signed = downstream::sign(&self.context, request.into_inner()).await?;
        Ok(Response::new(signed))
    }

    async fn batch_new_witsvid(
        &self,
        request: Request<BatchNewWitsvidRequest>,
    ) -> Result<Response<BatchNewWitsvidResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let agent = Authorized::agent(&request)?;
        let params = request.into_inner().params;
        if params.is_empty() {
            return Err(Status::invalid_argument("missing parameters"));
        }
        self.context
            .limit(Limit::WitSigning, &caller, params.len())
            .await
            .map_err(|status| within(TOO_MANY_SIGNATURES, &status))?;
        let ids: Vec<_> = params
            .iter()
            .map(|param| EntryId::from_text(&param.entry_id))
            .collect();
        let entries = self.entries(&agent, &ids)?.into_iter();
        let results = params.iter().zip(entries).map(|(wanted, entry)| {
            let (status, svid) = item(Err(wit::refusal(wanted, entry.as_deref())));
            batch_new_witsvid_response::Result { status, svid }
        });
        Ok(Response::new(BatchNewWitsvidResponse {
            results: results.collect(),
        }))
    }

    async fn mint_witsvid(
        &self,
        _: Request<MintWitsvidRequest>,
    ) -> Result<Response<MintWitsvidResponse>, Status> {
        Err(Status::unimplemented(NO_WIT))
    }
}

/// The time to live that was asked for, in seconds; nothing and less is none.
fn asked_for(ttl: i32) -> Option<Duration> {
    let seconds = u64::try_from(ttl).ok().filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds))
}
