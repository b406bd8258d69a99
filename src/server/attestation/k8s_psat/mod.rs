//! `k8s_psat`: the agent is a pod and shows the token of its service account. The cluster says whose
//! the token is, and what the pod and its node are.

mod decide;

use tonic::{Code, Status};

use crate::clusters::CallError;
use crate::clusters::nested::AttestingCluster;
use crate::server::attestation::{Evidence, refusal};
use crate::spiffe::TrustDomainName;

pub use decide::{NAME, Payload};

/// Attests the pod whose token is in `payload`. `cluster` finds a cluster by its name.
///
/// # Errors
/// When the token is not that of a pod that is an agent, or the cluster does not answer.
pub async fn attest(
    trust_domain: &TrustDomainName,
    payload: &[u8],
    cluster: impl Fn(&str) -> Option<AttestingCluster>,
) -> Result<Evidence, Status> {
    let payload = Payload::read(payload)?;
    let name = &payload.cluster;
    let Some(AttestingCluster { settings, reviews }) = cluster(name) else {
        return Err(decide::not_configured(name));
    };
    let unanswered = |what: &str, error: &CallError| {
        let message = format!("{what} for cluster {name:?}: {}", error.message());
        refusal(NAME, code(error), message)
    };
    let status = reviews.token(&payload.token, &settings.audiences).await;
    let status = status
        .map_err(|error| unanswered("unable to validate token with TokenReview API", &error))?;
    let owner = decide::token_owner(&settings, &status)?;
    let pod = reviews.pod(&owner.namespace, &owner.pod_name).await;
    let pod = pod.map_err(|error| unanswered("fail to get pod from k8s API server", &error))?;
    let node_name = decide::node_name(&settings, &owner, &pod)?;
    let node = reviews.node(node_name).await;
    let node = node.map_err(|error| unanswered("fail to get node from k8s API server", &error))?;
    decide::evidence(trust_domain, &settings, &owner, &pod, &node)
}

/// What tells a client to try again, where the cluster did not answer.
fn code(error: &CallError) -> Code {
    if error.is_answer() {
        Code::Internal
    } else {
        Code::Unavailable
    }
}
