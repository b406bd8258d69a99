//! Which cluster it is that answers: another one may come to stand behind the same address.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};

use crate::clusters::{CallError, call};
use crate::runtime::backoff::Backoff;

/// The namespace that every cluster has, and whose UID no two clusters share.
const KUBE_SYSTEM: &str = "kube-system";

/// The cluster that a list must come from to count.
#[derive(Clone)]
pub enum Incarnation {
    /// Whichever answers: the operator's own, which it cannot outlive.
    Any,
    /// The one with this UID.
    Of {
        /// Asks the cluster.
        client: Client,
        /// UID of its namespace `kube-system`.
        uid: String,
    },
}

impl Incarnation {
    /// Waits until the right cluster answers; for ever where another one does.
    pub async fn confirmed(&self) {
        let Self::Of { client, uid } = self else {
            return;
        };
        let mut backoff = Backoff::default();
        loop {
            match cluster_uid(client).await {
                Ok(found) if found == *uid => return,
                Ok(_) => std::future::pending().await,
                Err(_) => backoff.failed(()),
            }
            backoff.next_due().await;
            backoff.due();
        }
    }
}

/// The UID of the cluster that `client` reaches.
///
/// # Errors
/// When it does not answer, or refuses, or its answer has no UID.
pub async fn cluster_uid(client: &Client) -> Result<String, CallError> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespace = call(namespaces.get(KUBE_SYSTEM)).await?;
    namespace.metadata.uid.ok_or(CallError::NoUid)
}
