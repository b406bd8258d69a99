//! The pod-certificate signer of one trust domain in one cluster.
//!
//! It watches the PodCertificateRequests that name its signer, decides about each (`decide`) and writes
//! the answer once (`attempt`). It runs on every replica: the first answer wins, and an answer that came
//! too late harms nothing. A request that cannot be answered yet is tried again when its pod, its
//! entries or the authority change, and from time to time.
//!
//! Invariants: the identity comes from a registered entry; nothing transient is ever `Denied`.

mod answer;
mod attempt;
mod decide;
mod desk;
mod runner;
mod selectors;
mod signers;

use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::api::ApiResource;
use kube::runtime::watcher::{self, watcher};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

pub use runner::SignerRunner;
pub use signers::Signers;

use crate::authority::Authority;
use crate::clusters::certificates_api::PodCertificateRequest;
use crate::clusters::pod_certificates::desk::Desk;
use crate::clusters::watch::follow;
use crate::runtime::context::Context;
use crate::spiffe::TrustDomainName;

/// What the signer needs to know of its trust domain.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Name of the TrustDomain object.
    pub object: String,
    /// The trust domain.
    pub trust_domain: TrustDomainName,
    /// The signer name to answer for.
    pub signer_name: String,
    /// Lifetime where the entry has none.
    pub ttl: Duration,
    /// Who signs; none while the authority is not ready.
    pub authority: Option<Arc<Authority>>,
}

impl Signer {
    /// Whether both would give the same answers.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let authority = |signer: &Self| {
            let authority = signer.authority.as_ref()?;
            let ca = authority.ca().certificates().fingerprint().clone();
            Some((ca, authority.bundle().sequence()))
        };
        (&self.object, &self.signer_name, self.ttl)
            == (&other.object, &other.signer_name, other.ttl)
            && authority(self) == authority(other)
    }
}

/// Answers the requests for `signer` until dropped. Its signer name must not change.
pub async fn run(context: Context, signer: watch::Receiver<Signer>, resource: ApiResource) {
    let signer_name = signer.borrow().signer_name.clone();
    let requests = Api::<PodCertificateRequest>::all_with(context.client.clone(), &resource);
    let config = watcher::Config::default().fields(&format!("spec.signerName={signer_name}"));
    let (news_sender, news) = mpsc::unbounded_channel();
    let metrics = Arc::clone(&context.metrics);
    let watch = follow(
        watcher(requests, config),
        "PodCertificateRequest",
        metrics,
        move |news| {
            // Fails only once the signer is gone, and the watch with it.
            let _ = news_sender.send(news);
        },
    );
    let _watch = AbortOnDropHandle::new(tokio::spawn(watch));
    let changed_pods = context.identities.changed_pods();
    Desk::new(context, signer, resource)
        .work(news, changed_pods)
        .await;
}
