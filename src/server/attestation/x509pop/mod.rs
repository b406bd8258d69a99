//! `x509pop`: the agent has a certificate of a CA that is trusted for that, and proves that it holds
//! the key by signing what the server chose.

mod decide;
mod payload;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tonic::Status;

use crate::domains::X509PopSettings;
use crate::server::attestation::Evidence;
use crate::spiffe::TrustDomainName;

pub use decide::NAME;
use decide::{Challenge, Leaf};

/// Attests who holds the key of the certificate in `payload`. `exchange` sends a challenge and gives
/// what comes back.
///
/// # Errors
/// When no valid path leads to one of `roots`, the key is not proved to be held, or no agent ID
/// comes of it.
pub async fn attest<F>(
    trust_domain: &TrustDomainName,
    settings: &X509PopSettings,
    roots: &[CertificateDer<'static>],
    payload: &[u8],
    now: Timestamp,
    exchange: impl FnOnce(Vec<u8>) -> F,
) -> Result<Evidence, Status>
where
    F: Future<Output = Result<Vec<u8>, Status>>,
{
    let chain = payload::certificates(payload)?;
    let leaf = Leaf::verify(&chain, roots, now)?;
    let challenge = Challenge::new(&leaf)?;
    let response = exchange(challenge.to_json()).await?;
    challenge.check(&leaf, &response)?;
    leaf.evidence(trust_domain, settings)
}
