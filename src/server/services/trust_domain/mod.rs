//! The `TrustDomain` service: with whom the trust domain federates. A relationship says where the
//! bundle of a foreign trust domain comes from, and may bring the first one.

mod message;

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use self::message::Given;
use crate::server::context::ServerContext;
use crate::server::proto::trustdomain::trust_domain_server::TrustDomain;
use crate::server::proto::trustdomain::{
    BatchCreateFederationRelationshipRequest, BatchCreateFederationRelationshipResponse,
    BatchDeleteFederationRelationshipRequest, BatchDeleteFederationRelationshipResponse,
    BatchUpdateFederationRelationshipRequest, BatchUpdateFederationRelationshipResponse,
    GetFederationRelationshipRequest, ListFederationRelationshipsRequest,
    ListFederationRelationshipsResponse, RefreshBundleRequest,
    batch_create_federation_relationship_response, batch_delete_federation_relationship_response,
    batch_update_federation_relationship_response,
};
use crate::server::proto::types;
use crate::server::services::answer::{invalid, item};
use crate::server::services::federation::{Failure, page, stored};
use crate::server::services::ids;
use crate::spiffe::TrustDomainName;
use crate::store::federation::{FederationRelationship, ForeignTrustDomain};

const CREATE_FAILED: &str = "failed to create federation relationship";
const UPDATE_FAILED: &str = "failed to update federation relationship";
const DELETE_FAILED: &str = "failed to delete federation relationship";

type Mask<'a> = Option<&'a types::FederationRelationshipMask>;
/// What is known of a trust domain with which there is a relationship.
type Related = (ForeignTrustDomain, FederationRelationship);

/// See above.
pub(super) struct TrustDomainService {
    context: Arc<ServerContext>,
}

impl TrustDomainService {
    pub(super) fn new(context: &Arc<ServerContext>) -> Self {
        Self {
            context: Arc::clone(context),
        }
    }

    /// Waits for a while until this replica's registry knows of the bundle that was stored.
    async fn settle(&self, stored: &ForeignTrustDomain) {
        if stored.bundle.is_some() {
            let foreign = &stored.trust_domain;
            self.context.saw_foreign_bundle(foreign, true).await;
        }
    }

    async fn related(
        &self,
        foreign: &TrustDomainName,
        failed: &str,
    ) -> Result<Option<Related>, Status> {
        let known = self.context.stores.federation.get(foreign).await;
        let known = known.map_err(|error| stored(failed, &error))?;
        Ok(known.and_then(related))
    }

    async fn create(
        &self,
        message: &types::FederationRelationship,
        mask: Mask<'_>,
    ) -> Result<types::FederationRelationship, Status> {
        let given = read(message)?;
        if given.trust_domain == self.context.trust_domain {
            return Err(Status::invalid_argument(
                "unable to create federation relationship for server trust domain",
            ));
        }
        let store = &self.context.stores.federation;
        let created = store.change(&given.trust_domain, |known| {
            if known.relationship.is_some() {
                let exists = "federation relationship already exists";
                return Err(Failure::from(Status::already_exists(format!(
                    "{CREATE_FAILED}: {exists}"
                ))));
            }
            known.relationship = Some(given.relationship.clone());
            if given.bundle.is_some() {
                known.bundle.clone_from(&given.bundle);
            }
            Ok(())
        });
        let created = created
            .await
            .map_err(|failure| failure.status(CREATE_FAILED))?;
        self.settle(&created).await;
        Ok(message::to_proto(&created, &given.relationship, mask))
    }

    async fn update(
        &self,
        message: &types::FederationRelationship,
        input: Mask<'_>,
        output: Mask<'_>,
    ) -> Result<types::FederationRelationship, Status> {
        let given = read(message)?;
        let store = &self.context.stores.federation;
        let not_found = || {
            let missing = "federation relationship not found";
            Status::not_found(format!("{UPDATE_FAILED}: {missing}"))
        };
        let updated = store.change(&given.trust_domain, |known| {
            let relationship = known.relationship.as_mut().ok_or_else(not_found)?;
            given.update(relationship, &mut known.bundle, input);
            Ok::<_, Failure>(())
        });
        let updated = updated
            .await
            .map_err(|failure| failure.status(UPDATE_FAILED))?;
        self.settle(&updated).await;
        let (known, relationship) = related(updated).ok_or_else(not_found)?;
        Ok(message::to_proto(&known, &relationship, output))
    }

    async fn delete(&self, name: &str) -> Result<(), Status> {
        if name.is_empty() {
            return Err(Status::invalid_argument("missing trust domain"));
        }
        let foreign = parse(name)?;
        let store = &self.context.stores.federation;
        let deleted = store.change(&foreign, |known| match known.relationship.take() {
            Some(_) => Ok(()),
            None => Err(Failure::from(Status::not_found(
                "federation relationship not found",
            ))),
        });
        let deleted = deleted.await;
        deleted.map_err(|failure| failure.status(DELETE_FAILED))?;
        Ok(())
    }
}

fn related(known: ForeignTrustDomain) -> Option<Related> {
    let relationship = known.relationship.clone()?;
    Some((known, relationship))
}

fn read(message: &types::FederationRelationship) -> Result<Given, Status> {
    Given::read(message)
        .map_err(|error| invalid("failed to convert federation relationship", error))
}

fn parse(name: &str) -> Result<TrustDomainName, Status> {
    ids::trust_domain(name).map_err(|error| invalid("failed to parse trust domain", error))
}

#[async_trait]
impl TrustDomain for TrustDomainService {
    async fn list_federation_relationships(
        &self,
        request: Request<ListFederationRelationshipsRequest>,
    ) -> Result<Response<ListFederationRelationshipsResponse>, Status> {
        const FAILED: &str = "failed to list federation relationships";
        let request = request.into_inner();
        let known = self.context.stores.federation.list().await;
        let known = known.map_err(|error| stored(FAILED, &error))?;
        let (page, next_page_token) = page(
            known.into_iter().filter_map(related).collect(),
            |(known, _)| &known.trust_domain,
            request.page_size,
            &request.page_token,
        )
        .map_err(|error| Status::internal(format!("{FAILED}: {error}")))?;
        let mask = request.output_mask.as_ref();
        let page = page.iter();
        Ok(Response::new(ListFederationRelationshipsResponse {
            federation_relationships: page
                .map(|(known, relationship)| message::to_proto(known, relationship, mask))
                .collect(),
            next_page_token,
        }))
    }

    async fn get_federation_relationship(
        &self,
        request: Request<GetFederationRelationshipRequest>,
    ) -> Result<Response<types::FederationRelationship>, Status> {
        let request = request.into_inner();
        let foreign = parse(&request.trust_domain)?;
        let related = self.related(&foreign, "failed to fetch federation relationship");
        let (known, relationship) = related
            .await?
            .ok_or_else(|| Status::not_found("federation relationship does not exist"))?;
        let mask = request.output_mask.as_ref();
        Ok(Response::new(message::to_proto(
            &known,
            &relationship,
            mask,
        )))
    }

    async fn batch_create_federation_relationship(
        &self,
        request: Request<BatchCreateFederationRelationshipRequest>,
    ) -> Result<Response<BatchCreateFederationRelationshipResponse>, Status> {
        let request = request.into_inner();
        let mask = request.output_mask.as_ref();
        let mut results = Vec::new();
        for given in &request.federation_relationships {
            let (status, federation_relationship) = item(self.create(given, mask).await);
            results.push(batch_create_federation_relationship_response::Result {
                status,
                federation_relationship,
            });
        }
        let answer = BatchCreateFederationRelationshipResponse { results };
        Ok(Response::new(answer))
    }

    async fn batch_update_federation_relationship(
        &self,
        request: Request<BatchUpdateFederationRelationshipRequest>,
    ) -> Result<Response<BatchUpdateFederationRelationshipResponse>, Status> {
        let request = request.into_inner();
        let (input, output) = (request.input_mask.as_ref(), request.output_mask.as_ref());
        let mut results = Vec::new();
        for given in &request.federation_relationships {
            let (status, federation_relationship) = item(self.update(given, input, output).await);
            results.push(batch_update_federation_relationship_response::Result {
                status,
                federation_relationship,
            });
        }
        let answer = BatchUpdateFederationRelationshipResponse { results };
        Ok(Response::new(answer))
    }

    async fn batch_delete_federation_relationship(
        &self,
        request: Request<BatchDeleteFederationRelationshipRequest>,
    ) -> Result<Response<BatchDeleteFederationRelationshipResponse>, Status> {
        let mut results = Vec::new();
        for name in request.into_inner().trust_domains {
            let (status, _) = item(self.delete(&name).await);
            let trust_domain = ids::trust_domain(&name).map_or(name, |it| it.to_string());
            results.push(batch_delete_federation_relationship_response::Result {
                status,
                trust_domain,
            });
        }
        let answer = BatchDeleteFederationRelationshipResponse { results };
        Ok(Response::new(answer))
    }

    async fn refresh_bundle(
        &self,
        request: Request<RefreshBundleRequest>,
    ) -> Result<Response<()>, Status> {
        let foreign = parse(&request.into_inner().trust_domain)?;
        let related = self.related(&foreign, "failed to refresh bundle").await?;
        if related.is_none() {
            return Err(Status::not_found(format!(
                "no relationship with trust domain \"{foreign}\""
            )));
        }
        Err(Status::unimplemented(
            "bundles are not fetched from bundle endpoints yet; set the bundle by hand",
        ))
    }
}
