//! `k8s_psat`: the agent is a pod and shows the token of its service account. The cluster says whose
//! the token is, and what the pod and its node are.

mod decide;

use tonic::{Code, Status};

use crate::clusters::CallError;
use crate::clusters::reviews::Reviews;
use crate::domains::K8sPsatSettings;
use crate::server::attestation::{Evidence, refusal};
use crate::spiffe::TrustDomainName;

use decide::TokenOwner;
pub use decide::{NAME, Payload};

/// A cluster whose pods may be agents.
pub struct Cluster<'a> {
    /// Which of them.
    pub settings: &'a K8sPsatSettings,
    /// The cluster.
    pub reviews: Reviews,
}

/// Whoever showed a token that the cluster knows.
pub struct TokenHolder<'a> {
    cluster: Cluster<'a>,
    owner: TokenOwner,
}

/// Asks the cluster whose token is in `payload`. `cluster` finds a cluster by its name.
///
/// # Errors
/// When the token is not that of a pod with a service account of agents, or the cluster does not
/// answer.
pub async fn authenticate<'a>(
    payload: &[u8],
    cluster: impl Fn(&str) -> Option<Cluster<'a>>,
) -> Result<TokenHolder<'a>, Status> {
    let payload = Payload::read(payload)?;
    let Some(cluster) = cluster(&payload.cluster) else {
        return Err(decide::not_configured(&payload.cluster));
    };
    let Cluster { settings, reviews } = &cluster;
    let status = reviews.token(&payload.token, &settings.audiences).await;
    let what = "unable to validate token with TokenReview API";
    let status = status.map_err(|error| unanswered(settings, what, &error))?;
    let owner = decide::token_owner(settings, &status)?;
    Ok(TokenHolder { cluster, owner })
}

impl TokenHolder<'_> {
    /// Attests the pod of the token.
    ///
    /// # Errors
    /// When it is no agent, or the cluster does not answer.
    pub async fn attest(&self, trust_domain: &TrustDomainName) -> Result<Evidence, Status> {
        let Cluster { settings, reviews } = &self.cluster;
        let owner = &self.owner;
        let unanswered = |what: &str, error: &CallError| unanswered(settings, what, error);
        let pod = reviews.pod(&owner.namespace, &owner.pod_name).await;
        let pod = pod.map_err(|error| unanswered("fail to get pod from k8s API server", &error))?;
        let node_name = decide::node_name(settings, owner, &pod)?;
        let node = reviews.node(node_name).await;
        let node =
            node.map_err(|error| unanswered("fail to get node from k8s API server", &error))?;
        decide::evidence(trust_domain, settings, owner, &pod, &node)
    }
}

/// `what` failed. Where the cluster did not answer, the code tells a client to try again.
fn unanswered(settings: &K8sPsatSettings, what: &str, error: &CallError) -> Status {
    let code = if error.is_answer() {
        Code::Internal
    } else {
        Code::Unavailable
    };
    let cluster = &settings.cluster;
    let message = format!("{what} for cluster {cluster:?}: {}", error.message());
    refusal(NAME, code, message)
}
