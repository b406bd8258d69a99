//! Before the bundle of a foreign trust domain goes: no entry may name that any more. Entries that
//! follow from objects name it as long as those do, so only what came by the Entry API is changed.

use std::sync::Arc;

use tonic::Status;

use crate::registration::{Entry, SourceKind};
use crate::server::context::ServerContext;
use crate::server::proto::bundle::batch_delete_federated_bundle_request::Mode;
use crate::server::services::answer::unavailable;
use crate::spiffe::TrustDomainName;
use crate::store::{RegistrationEntryStore, WriteError};

/// Entries that are looked at at a time.
const SLICE: usize = 500;

/// What failed where this fails.
pub(super) const FAILED: &str = "failed to delete federated bundle";

/// Sees to it that no entry names `foreign`, or refuses, as `mode` has it.
pub(super) async fn release(
    context: &ServerContext,
    foreign: &TrustDomainName,
    mode: Mode,
) -> Result<(), Status> {
    let process = &context.process;
    let store = RegistrationEntryStore::new(process.client.clone(), process.identities.clone());
    let seen = store.catch_up().await;
    seen.map_err(|error| unavailable(FAILED, crate::error_chain(&error)))?;
    let entries = entries_naming(context, foreign)?;
    if mode == Mode::Restrict && !entries.is_empty() {
        return Err(Status::failed_precondition(format!(
            "{FAILED}: cannot delete bundle; federated with {} registration entries",
            entries.len()
        )));
    }
    let is_fixed = |entry: &&Arc<Entry>| entry.source.kind != SourceKind::RegistrationEntry;
    if let Some(entry) = entries.iter().find(is_fixed) {
        return Err(Status::failed_precondition(format!(
            "{FAILED}: entry {} follows from {}; change that",
            entry.id, entry.source
        )));
    }
    for entry in entries {
        match change(&store, context, foreign, mode, &entry).await {
            Ok(()) | Err(WriteError::NotFound) => {}
            Err(error) => {
                let error = crate::error_chain(&error);
                return Err(unavailable(
                    FAILED,
                    format_args!("entry {}: {error}", entry.id),
                ));
            }
        }
    }
    Ok(())
}

async fn change(
    store: &RegistrationEntryStore,
    context: &ServerContext,
    foreign: &TrustDomainName,
    mode: Mode,
    entry: &Entry,
) -> Result<(), WriteError> {
    if mode == Mode::Delete {
        return store.delete(&context.trust_domain, &entry.id).await;
    }
    let dissociated = store.update(&context.trust_domain, &entry.id, |mut spec| {
        spec.federates_with
            .retain(|name| TrustDomainName::from_name_or_id(name).as_ref() != Ok(foreign));
        Ok::<_, WriteError>(spec)
    });
    dissociated.await.map(drop)
}

fn entries_naming(
    context: &ServerContext,
    foreign: &TrustDomainName,
) -> Result<Vec<Arc<Entry>>, Status> {
    let identities = &context.process.identities;
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let slice = identities.entries_after(&context.object, after.as_ref(), SLICE);
        let slice = slice.map_err(|missing| unavailable(FAILED, missing))?;
        let Some(last) = slice.last() else {
            return Ok(found);
        };
        after = Some(last.id.clone());
        let naming = slice.into_iter();
        found.extend(naming.filter(|entry| entry.federates_with.contains(foreign)));
    }
}
