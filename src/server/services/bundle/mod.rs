//! The `Bundle` service: the trust domain's own bundle, what others add to it, and the bundles of
//! foreign trust domains.

mod federated;
pub(super) mod message;
mod release;

use std::sync::Arc;

use tonic::{Code, Request, Response, Status, async_trait};

use crate::authority::{AppendError, AppendedRoot, Command, CommandError};
use crate::server::authorization::Authorized;
use crate::server::caller::Caller;
use crate::server::context::ServerContext;
use crate::server::proto::bundle::bundle_server::Bundle;
use crate::server::proto::bundle::{
    AppendBundleRequest, BatchCreateFederatedBundleRequest, BatchCreateFederatedBundleResponse,
    BatchDeleteFederatedBundleRequest, BatchDeleteFederatedBundleResponse,
    BatchSetFederatedBundleRequest, BatchSetFederatedBundleResponse,
    BatchUpdateFederatedBundleRequest, BatchUpdateFederatedBundleResponse, CountBundlesRequest,
    CountBundlesResponse, GetBundleRequest, GetFederatedBundleRequest, ListFederatedBundlesRequest,
    ListFederatedBundlesResponse, PublishJwtAuthorityRequest, PublishJwtAuthorityResponse,
    PublishWitAuthorityRequest, PublishWitAuthorityResponse,
    batch_create_federated_bundle_response, batch_delete_federated_bundle_response,
    batch_set_federated_bundle_response, batch_update_federated_bundle_response,
};
use crate::server::proto::types;
use crate::server::rate_limit::Limit;
use crate::server::services::answer::{invalid, item, within};
use crate::spiffe;
use crate::store::AuthorityCommandError;

use self::federated::Federated;

/// See above.
pub(super) struct BundleService {
    context: Arc<ServerContext>,
}

impl BundleService {
    pub(super) fn new(context: &Arc<ServerContext>) -> Self {
        Self {
            context: Arc::clone(context),
        }
    }

    fn federated(&self) -> Federated<'_> {
        Federated::new(&self.context)
    }

    /// Takes authorities of others into the bundle, and gives the bundle that is stored then.
    async fn append(&self, command: Command, failed: &str) -> Result<spiffe::Bundle, Status> {
        let journal = self.context.authority_commands.execute(command).await;
        let journal = journal.map_err(|error| {
            let code = code_of(&error);
            Status::new(code, format!("{failed}: {}", crate::error_chain(&error)))
        })?;
        let bundle = journal.bundle();
        bundle.map_err(|error| Status::internal(format!("{failed}: {error}")))
    }
}

/// Of an error about authorities of others.
fn code_of(error: &AuthorityCommandError) -> Code {
    match error {
        AuthorityCommandError::Refused { source } => match source {
            CommandError::Append {
                source: AppendError::TooMany,
            } => Code::ResourceExhausted,
            CommandError::Append { .. } => Code::InvalidArgument,
            _ => Code::Internal,
        },
        _ => Code::Unavailable,
    }
}

#[async_trait]
impl Bundle for BundleService {
    async fn get_bundle(
        &self,
        request: Request<GetBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let mask = request.into_inner().output_mask;
        let authority = self.context.authority()?;
        let bundle = message::to_proto(authority.bundle(), mask.as_ref());
        Ok(Response::new(bundle))
    }

    async fn append_bundle(
        &self,
        request: Request<AppendBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let request = request.into_inner();
        if request.jwt_authorities.is_empty() && request.x509_authorities.is_empty() {
            return Err(Status::invalid_argument("no authorities to append"));
        }
        let jwt_keys = message::jwt_keys(&request.jwt_authorities)
            .map_err(|error| invalid("failed to convert JWT authority", error))?;
        let roots = message::certificates(&request.x509_authorities).into_iter();
        let roots = roots.map(|certificate| AppendedRoot {
            certificate,
            tainted: false,
        });
        let command = Command::Append {
            roots: roots.collect(),
            jwt_keys,
        };
        let bundle = self.append(command, "failed to append bundle").await?;
        let bundle = message::to_proto(&bundle, request.output_mask.as_ref());
        Ok(Response::new(bundle))
    }

    async fn publish_jwt_authority(
        &self,
        request: Request<PublishJwtAuthorityRequest>,
    ) -> Result<Response<PublishJwtAuthorityResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        self.context
            .limit(Limit::Publishing, &caller, 1)
            .await
            .map_err(|status| {
                within(
                    "rejecting request due to key publishing rate limiting",
                    &status,
                )
            })?;
        let key = request.into_inner().jwt_authority;
        let key = key.ok_or_else(|| Status::invalid_argument("missing JWT authority"))?;
        let jwt_keys = message::jwt_keys(std::slice::from_ref(&key))
            .map_err(|error| invalid("invalid JWT authority", error))?;
        let command = Command::Append {
            roots: Vec::new(),
            jwt_keys,
        };
        let bundle = self.append(command, "failed to publish JWT key").await?;
        let keys = bundle.jwt_keys().iter();
        Ok(Response::new(PublishJwtAuthorityResponse {
            jwt_authorities: keys.map(message::jwt_key_to_proto).collect(),
        }))
    }

    async fn publish_wit_authority(
        &self,
        _: Request<PublishWitAuthorityRequest>,
    ) -> Result<Response<PublishWitAuthorityResponse>, Status> {
        Err(Status::unimplemented(
            "WIT-SVID functionality is not yet implemented",
        ))
    }

    async fn count_bundles(
        &self,
        _: Request<CountBundlesRequest>,
    ) -> Result<Response<CountBundlesResponse>, Status> {
        let count = self.federated().count().await?;
        // The own one counts, too.
        let own = usize::from(self.context.authority().is_ok());
        let count = i32::try_from(count + own).unwrap_or(i32::MAX);
        Ok(Response::new(CountBundlesResponse { count }))
    }

    async fn list_federated_bundles(
        &self,
        request: Request<ListFederatedBundlesRequest>,
    ) -> Result<Response<ListFederatedBundlesResponse>, Status> {
        let listed = self.federated().list(&request.into_inner()).await?;
        Ok(Response::new(listed))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let is_agent = Authorized::agent(&request).is_ok();
        let request = request.into_inner();
        let bundle = self.federated().get(&request, is_agent).await?;
        Ok(Response::new(bundle))
    }

    async fn batch_create_federated_bundle(
        &self,
        request: Request<BatchCreateFederatedBundleRequest>,
    ) -> Result<Response<BatchCreateFederatedBundleResponse>, Status> {
        let request = request.into_inner();
        let mut results = Vec::new();
        for bundle in &request.bundle {
            let mask = request.output_mask.as_ref();
            let (status, bundle) = item(self.federated().create(bundle, mask).await);
            results.push(batch_create_federated_bundle_response::Result { status, bundle });
        }
        let names = request.bundle.iter().map(|it| &*it.trust_domain);
        let written = names.zip(results.iter().map(|it| &it.status));
        self.federated().settle(written, true).await;
        Ok(Response::new(BatchCreateFederatedBundleResponse {
            results,
        }))
    }

    async fn batch_update_federated_bundle(
        &self,
        request: Request<BatchUpdateFederatedBundleRequest>,
    ) -> Result<Response<BatchUpdateFederatedBundleResponse>, Status> {
        let request = request.into_inner();
        let masks = (request.input_mask.as_ref(), request.output_mask.as_ref());
        let mut results = Vec::new();
        for bundle in &request.bundle {
            let (status, bundle) = item(self.federated().update(bundle, masks).await);
            results.push(batch_update_federated_bundle_response::Result { status, bundle });
        }
        let names = request.bundle.iter().map(|it| &*it.trust_domain);
        let written = names.zip(results.iter().map(|it| &it.status));
        self.federated().settle(written, true).await;
        Ok(Response::new(BatchUpdateFederatedBundleResponse {
            results,
        }))
    }

    async fn batch_set_federated_bundle(
        &self,
        request: Request<BatchSetFederatedBundleRequest>,
    ) -> Result<Response<BatchSetFederatedBundleResponse>, Status> {
        let request = request.into_inner();
        let mut results = Vec::new();
        for bundle in &request.bundle {
            let mask = request.output_mask.as_ref();
            let (status, bundle) = item(self.federated().set(bundle, mask).await);
            results.push(batch_set_federated_bundle_response::Result { status, bundle });
        }
        let names = request.bundle.iter().map(|it| &*it.trust_domain);
        let written = names.zip(results.iter().map(|it| &it.status));
        self.federated().settle(written, true).await;
        Ok(Response::new(BatchSetFederatedBundleResponse { results }))
    }

    async fn batch_delete_federated_bundle(
        &self,
        request: Request<BatchDeleteFederatedBundleRequest>,
    ) -> Result<Response<BatchDeleteFederatedBundleResponse>, Status> {
        let request = request.into_inner();
        let mode = request.mode.try_into().map_err(|_| {
            let problem = format_args!("unhandled delete mode \"{}\"", request.mode);
            invalid("failed to parse deletion mode", problem)
        })?;
        let mut results = Vec::new();
        for trust_domain in request.trust_domains {
            let (status, _) = item(self.federated().delete(&trust_domain, mode).await);
            results.push(batch_delete_federated_bundle_response::Result {
                status,
                trust_domain,
            });
        }
        let gone = results.iter().map(|it| (&*it.trust_domain, &it.status));
        self.federated().settle(gone, false).await;
        Ok(Response::new(BatchDeleteFederatedBundleResponse {
            results,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_full_is_no_fault_of_the_request() {
        let refused = |source: CommandError| code_of(&AuthorityCommandError::Refused { source });
        for (source, code) in [
            (AppendError::TooMany, Code::ResourceExhausted),
            (AppendError::KeyId, Code::InvalidArgument),
        ] {
            assert_eq!(refused(source.into()), code);
        }
        assert_eq!(refused(CommandError::NotActive), Code::Internal);
        let passing = AuthorityCommandError::Contended;
        assert_eq!(code_of(&passing), Code::Unavailable);
    }
}
