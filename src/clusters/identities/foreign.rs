//! Of which foreign trust domains there are bundles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::clusters::identities::Identities;
use crate::clusters::identities::start::List;
use crate::domains::label_value;
use crate::spiffe::TrustDomainName;

/// The foreign trust domains whose bundles each TrustDomain has, by the name of the TrustDomain
/// object as labels hold it.
pub type ForeignBundles = BTreeMap<String, BTreeSet<TrustDomainName>>;

impl Identities {
    /// Takes in all there are.
    pub fn set_foreign_bundles(&self, known: ForeignBundles) {
        let mut state = self.lock();
        for (name, domain) in &mut state.domains {
            let of_domain = known.get(&label_value(name)).cloned().unwrap_or_default();
            let changes = domain.registry.set_foreign_bundles(of_domain);
            self.publish(name, domain, changes);
        }
        self.foreign_bundles.send_replace(Arc::new(known));
        state.unlisted.remove(&List::ForeignBundles);
        self.settle(&mut state);
    }

    /// The foreign trust domains whose bundles the TrustDomain object `domain` has.
    #[must_use]
    pub fn foreign_bundles(&self, domain: &str) -> BTreeSet<TrustDomainName> {
        let known = self.foreign_bundles.borrow();
        known.get(&label_value(domain)).cloned().unwrap_or_default()
    }

    /// Waits until the TrustDomain object `domain` is seen to have a bundle of `foreign`, or none if
    /// `is_there` is false.
    pub async fn saw_foreign_bundle(
        &self,
        domain: &str,
        foreign: &TrustDomainName,
        is_there: bool,
    ) {
        let domain = label_value(domain);
        let mut known = self.foreign_bundles.subscribe();
        let is_seen = |known: &Arc<ForeignBundles>| {
            let of_domain = known.get(&domain);
            of_domain.is_some_and(|known| known.contains(foreign)) == is_there
        };
        // Fails only without a sender, which lives as long as `self`.
        let _ = known.wait_for(is_seen).await;
    }
}
