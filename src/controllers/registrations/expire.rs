//! RegistrationEntries whose time is over are deleted, by the leader.

use std::time::Duration;

use tokio::time::sleep;

use crate::runtime::clock::now;
use crate::runtime::context::Context;
use crate::runtime::leader::until_lost;
use crate::store::RegistrationEntryStore;

/// How often they are looked for. They count no more from the moment on that they name.
const PERIOD: Duration = Duration::from_secs(5);

/// Deletes them for ever.
pub(super) async fn registration_entries(context: Context) {
    let store = RegistrationEntryStore::new(context.client.clone(), context.identities.clone());
    loop {
        sleep(PERIOD).await;
        if !*context.leadership.borrow() {
            continue;
        }
        tokio::select! {
            () = delete_expired(&context, &store) => {}
            () = until_lost(&context.leadership) => {}
        }
    }
}

async fn delete_expired(context: &Context, store: &RegistrationEntryStore) {
    for expired in context
        .identities
        .expired_registration_entries(now().as_second())
    {
        if let Err(error) = store.delete_expired(&expired).await {
            let error = crate::error_chain(&error);
            let name = &*expired.name;
            tracing::warn!(name, error, "cannot delete an expired RegistrationEntry");
        }
    }
}
