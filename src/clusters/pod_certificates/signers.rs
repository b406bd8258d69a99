//! Who signs for each TrustDomain, for the clusters that are nested in this one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::clusters::pod_certificates::Signer;

/// The signers by the name of the TrustDomain object.
#[derive(Clone, Default)]
pub struct Signers(Arc<Mutex<BTreeMap<String, watch::Sender<Option<Signer>>>>>);

impl Signers {
    /// The signer of a TrustDomain object; none while it is not served.
    #[must_use]
    pub fn of(&self, domain: &str) -> watch::Receiver<Option<Signer>> {
        let mut signers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        signers.entry(domain.to_owned()).or_default().subscribe()
    }

    /// From now on it is `signer`.
    pub fn set(&self, domain: &str, signer: Option<Signer>) {
        let mut signers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = signers.entry(domain.to_owned()).or_default();
        sender.send_if_modified(|old| {
            let is_same = match (&*old, &signer) {
                (Some(old), Some(new)) => old.is_same(new),
                (None, None) => true,
                _ => false,
            };
            *old = signer;
            !is_same
        });
    }
}
