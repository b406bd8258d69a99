//! Bundles of foreign trust domains.

use tonic::{Code, Status};

use crate::server::context::ServerContext;
use crate::server::proto::bundle::batch_delete_federated_bundle_request::Mode;
use crate::server::proto::bundle::{
    GetFederatedBundleRequest, ListFederatedBundlesRequest, ListFederatedBundlesResponse,
};
use crate::server::proto::types;
use crate::server::services::answer::{invalid, unavailable};
use crate::server::services::bundle::message;
use crate::server::services::bundle::release::{self, release};
use crate::server::services::federation::{self, Failure, page, stored};
use crate::spiffe::{Bundle, TrustDomainName};

/// What is done with them.
pub(super) struct Federated<'a> {
    context: &'a ServerContext,
}

type Masks<'a> = (Option<&'a types::BundleMask>, Option<&'a types::BundleMask>);

impl<'a> Federated<'a> {
    pub(super) fn new(context: &'a ServerContext) -> Self {
        Self { context }
    }

    pub(super) async fn count(&self) -> Result<usize, Status> {
        let known = self.context.stores.federation.list().await;
        let known = known.map_err(|error| stored("failed to count bundles", &error))?;
        Ok(known.iter().filter(|it| it.bundle.is_some()).count())
    }

    pub(super) async fn list(
        &self,
        request: &ListFederatedBundlesRequest,
    ) -> Result<ListFederatedBundlesResponse, Status> {
        let known = self.context.stores.federation.list().await;
        let known = known.map_err(|error| stored("failed to list bundles", &error))?;
        let bundles = known.into_iter().filter_map(|it| it.bundle).collect();
        let (bundles, next_page_token) = page(
            bundles,
            Bundle::trust_domain,
            request.page_size,
            &request.page_token,
        )
        .map_err(|error| Status::internal(format!("failed to list bundles: {error}")))?;
        let mask = request.output_mask.as_ref();
        Ok(ListFederatedBundlesResponse {
            bundles: bundles
                .iter()
                .map(|bundle| message::to_proto(bundle, mask))
                .collect(),
            next_page_token,
        })
    }

    /// Agents get what the watch has seen; others, who may have written it a moment ago, what is
    /// stored.
    pub(super) async fn get(
        &self,
        request: &GetFederatedBundleRequest,
        is_agent: bool,
    ) -> Result<types::Bundle, Status> {
        let foreign = self.foreign(
            &request.trust_domain,
            "getting a federated bundle for the server's own trust domain is not allowed",
        )?;
        let mask = request.output_mask.as_ref();
        let store = &self.context.stores.federation;
        let not_found = || Status::not_found("bundle not found");
        if is_agent {
            let bundle = store.known_bundle(&foreign);
            let bundle = bundle.map_err(|error| unavailable("failed to fetch bundle", error))?;
            return Ok(message::to_proto(&*bundle.ok_or_else(not_found)?, mask));
        }
        let known = store.get(&foreign).await;
        let known = known.map_err(|error| stored("failed to fetch bundle", &error))?;
        let bundle = known.and_then(|it| it.bundle).ok_or_else(not_found)?;
        Ok(message::to_proto(&bundle, mask))
    }

    pub(super) async fn create(
        &self,
        given: &types::Bundle,
        mask: Option<&types::BundleMask>,
    ) -> Result<types::Bundle, Status> {
        let given = self.read(
            given,
            "creating a federated bundle for the server's own trust domain is not allowed",
        )?;
        let created = self.change(&given, "unable to create bundle", |known| match known {
            None => Ok(given.clone()),
            Some(_) => Err(Status::already_exists("bundle already exists")),
        });
        Ok(message::to_proto(&created.await?, mask))
    }

    pub(super) async fn update(
        &self,
        given: &types::Bundle,
        (input, output): Masks<'_>,
    ) -> Result<types::Bundle, Status> {
        let given = self.read(
            given,
            "updating a federated bundle for the server's own trust domain is not allowed",
        )?;
        let updated = self.change(&given, "failed to update bundle", |known| {
            let known = known.ok_or_else(|| Status::not_found("bundle not found"))?;
            message::merged(known, &given, input)
                .map_err(|error| invalid("failed to convert bundle", error))
        });
        Ok(message::to_proto(&updated.await?, output))
    }

    pub(super) async fn set(
        &self,
        given: &types::Bundle,
        mask: Option<&types::BundleMask>,
    ) -> Result<types::Bundle, Status> {
        let given = self.read(
            given,
            "setting a federated bundle for the server's own trust domain is not allowed",
        )?;
        let set = self.change(&given, "failed to set bundle", |_| Ok(given.clone()));
        Ok(message::to_proto(&set.await?, mask))
    }

    pub(super) async fn delete(&self, trust_domain: &str, mode: Mode) -> Result<(), Status> {
        let foreign = self.foreign(
            trust_domain,
            "removing the bundle for the server trust domain is not allowed",
        )?;
        let store = &self.context.stores.federation;
        let known = store.get(&foreign).await;
        let known = known.map_err(|error| stored(release::FAILED, &error))?;
        if known.and_then(|it| it.bundle).is_none() {
            return Err(Status::not_found("bundle not found"));
        }
        release(self.context, &foreign, mode).await?;
        let deleted = store.change(&foreign, |known| match known.bundle.take() {
            Some(_) => Ok(()),
            None => Err(Failure::from(Status::not_found("bundle not found"))),
        });
        let deleted = deleted.await;
        deleted.map_err(|failure| failure.status(release::FAILED))?;
        Ok(())
    }

    /// Waits for a while until this replica's registry knows what became of the bundles of those
    /// `names` that were written: that they are there, or are not.
    pub(super) async fn settle<'b>(
        &self,
        names: impl IntoIterator<Item = (&'b str, &'b Option<types::Status>)>,
        are_there: bool,
    ) {
        let written = names.into_iter().filter(|(_, status)| {
            let code = status.as_ref().map(|status| status.code);
            code == Some(Code::Ok.into())
        });
        let foreign: Vec<_> = written.filter_map(|(name, _)| name.parse().ok()).collect();
        self.context.saw_foreign_bundles(&foreign, are_there).await;
    }

    /// Puts what `change` makes of the bundle that is known in its place.
    async fn change(
        &self,
        given: &Bundle,
        what: &str,
        change: impl Fn(Option<&Bundle>) -> Result<Bundle, Status>,
    ) -> Result<Bundle, Status> {
        let store = &self.context.stores.federation;
        let changed = store.change(given.trust_domain(), |known| {
            known.bundle = Some(change(known.bundle.as_ref())?);
            Ok::<_, Failure>(())
        });
        let changed = changed.await.map_err(|failure| failure.status(what))?;
        // It was put there a moment ago.
        Ok(changed.bundle.unwrap_or_else(|| given.clone()))
    }

    fn read(&self, given: &types::Bundle, is_own: &str) -> Result<Bundle, Status> {
        self.foreign(&given.trust_domain, is_own)?;
        message::from_proto(given).map_err(|error| invalid("failed to convert bundle", error))
    }

    fn foreign(&self, name: &str, is_own: &str) -> Result<TrustDomainName, Status> {
        let malformed = "trust domain argument is not valid";
        federation::foreign(name, &self.context.trust_domain, malformed, is_own)
    }
}
