//! Last good specs from before this process. Every replica looks for them, in a task of its own:
//! trust domains are settled only then, and must not wait for statuses to be written.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream;

use crate::api::{ClusterSPIFFEID, ClusterStaticEntry};
use crate::clusters::CallError;
use crate::clusters::identities::ObjectName;
use crate::registration::SourceKind;
use crate::runtime::backoff::Backoff;
use crate::runtime::context::Context;
use crate::store::LastGoodStore;

/// Copies that are looked for at the same time.
const CONCURRENCY: usize = 16;

/// An object and its UID.
type Wanted = (ObjectName, String);

/// Looks for the copies of last good specs as objects come to need them, for ever.
pub(super) async fn last_good_specs(context: Context) {
    let store = LastGoodStore::new(context.client.clone(), &context.namespace);
    let mut backoff: Backoff<Wanted> = Backoff::default();
    loop {
        let wanted: BTreeSet<Wanted> = context.identities.wanting_last_good().into_iter().collect();
        for again in backoff.due() {
            if !wanted.contains(&again) {
                backoff.forget(&again);
            }
        }
        let due: Vec<_> = wanted.into_iter().filter(|it| !backoff.waits(it)).collect();
        let mut outcomes = stream::iter(due)
            .map(|wanted| async { (restore(&context, &store, &wanted).await, wanted) })
            .buffer_unordered(CONCURRENCY);
        while let Some((outcome, wanted)) = outcomes.next().await {
            match outcome {
                Ok(()) => backoff.forget(&wanted),
                Err(error) => {
                    let error = crate::error_chain(&error);
                    let kind = wanted.0.kind.as_str();
                    let name = &*wanted.0.name;
                    tracing::warn!(kind, name, error, "cannot look for a last good spec");
                    backoff.failed(wanted);
                }
            }
        }
        tokio::select! {
            () = context.identities.last_good_wanted() => {}
            () = backoff.next_due() => {}
        }
    }
}

/// The evaluation that follows from it comes by itself.
async fn restore(
    context: &Context,
    store: &LastGoodStore,
    (ObjectName { kind, name }, uid): &Wanted,
) -> Result<(), CallError> {
    let identities = &context.identities;
    match kind {
        SourceKind::ClusterSpiffeId => {
            let copy = store.load::<ClusterSPIFFEID, _>(name, uid).await?;
            identities.restore_cluster_spiffe_id(name, uid, copy);
        }
        SourceKind::ClusterStaticEntry => {
            let copy = store.load::<ClusterStaticEntry, _>(name, uid).await?;
            identities.restore_cluster_static_entry(name, uid, copy);
        }
        // Written by the operator alone, so that no copy is kept.
        SourceKind::RegistrationEntry | SourceKind::NestedCluster => {}
    }
    Ok(())
}
