//! Before the bundle of a foreign trust domain goes: the entries that were made through the Entry API
//! are changed as the caller wishes. Others follow from objects, and do without the bundle once it
//! is gone, so that nothing keeps an administrator from taking it away.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tonic::Status;

use crate::registration::Entry;
use crate::server::context::ServerContext;
use crate::server::proto::bundle::batch_delete_federated_bundle_request::Mode;
use crate::server::services::answer::{not_written, unavailable};
use crate::spiffe::TrustDomainName;
use crate::store::{RegistrationEntryStore, WriteError};

/// Entries that are written at the same time.
const AT_ONCE: usize = 32;

/// What failed where this fails.
pub(super) const FAILED: &str = "failed to delete federated bundle";

/// Takes `foreign` out of the entries that name it, deletes these, or refuses where there are any, as
/// `mode` has it.
pub(super) async fn release(
    context: &ServerContext,
    foreign: &TrustDomainName,
    mode: Mode,
) -> Result<(), Status> {
    let identities = &context.process.identities;
    let store = RegistrationEntryStore::new(context.process.client.clone(), identities.clone());
    let seen = store.catch_up().await;
    seen.map_err(|error| unavailable(FAILED, crate::error_chain(&error)))?;
    let entries = identities.entries_federated_with(&context.object, foreign);
    let entries = entries.map_err(|missing| unavailable(FAILED, missing))?;
    if mode == Mode::Restrict && !entries.is_empty() {
        return Err(Status::failed_precondition(format!(
            "{FAILED}: cannot delete bundle; federated with {} registration entries",
            entries.len()
        )));
    }
    let entries = entries.into_iter();
    let ours: Vec<_> = entries.filter(|it| it.registered.is_some()).collect();
    let change = |entry| change(&store, context, foreign, mode, entry);
    let changed = stream::iter(ours).map(change).buffer_unordered(AT_ONCE);
    changed.try_collect().await
}

async fn change(
    store: &RegistrationEntryStore,
    context: &ServerContext,
    foreign: &TrustDomainName,
    mode: Mode,
    entry: Arc<Entry>,
) -> Result<(), Status> {
    let (trust_domain, id) = (&context.trust_domain, &entry.id);
    let changed = if mode == Mode::Delete {
        store.delete(trust_domain, id).await
    } else {
        let dissociated = store.update(trust_domain, id, |mut spec| {
            spec.federates_with
                .retain(|name| TrustDomainName::from_name_or_id(name).as_ref() != Ok(foreign));
            Ok::<_, WriteError>(spec)
        });
        dissociated.await.map(drop)
    };
    match changed {
        Ok(()) | Err(WriteError::NotFound) => {
            tracing::info!(entry.id = %id, %foreign, ?mode, "entry federates no more");
            Ok(())
        }
        Err(error) => Err(not_written(&format!("{FAILED}: entry {id}"), &error)),
    }
}
