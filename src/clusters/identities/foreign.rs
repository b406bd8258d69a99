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
        let known = Arc::new(known);
        self.foreign_bundles.send_replace(Arc::clone(&known));
        state.unlisted.remove(&List::ForeignBundles);
        self.settle(&mut state);
        drop(state);
        self.hand_on(|member| member.set_foreign_bundles((*known).clone()));
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use serde_json::json;

    use super::*;
    use crate::runtime::metrics::Metrics;

    /// Has seen all lists but that of foreign bundles, and an entry that federates with `f.org`.
    fn identities() -> Identities {
        let identities = Identities::new(Arc::new(Metrics::new()));
        let object = json!({
            "apiVersion": "spire.spiffe.io/v1alpha1",
            "kind": "ClusterStaticEntry",
            "metadata": {"name": "s", "uid": "s", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "spiffeID": "spiffe://e.org/web",
                "parentID": "spiffe://e.org/agent",
                "selectors": ["a:b"],
                "federatesWith": ["f.org"],
            },
        });
        let object = Arc::new(serde_json::from_value(object).unwrap());
        identities.apply_cluster_static_entry(&object);
        let others = List::ALL.into_iter();
        others
            .filter(|list| *list != List::ForeignBundles)
            .for_each(|list| identities.listed(list));
        identities
    }

    fn serve(identities: &Identities, domain: &str) {
        let spec = json!({"trustDomain": "e.org", "authority": {"selfSigned": {}}});
        let spec = serde_json::from_value(spec).unwrap();
        identities.set_domain(domain, &spec).unwrap();
    }

    fn known(domain: &str) -> ForeignBundles {
        [(domain.to_owned(), ["f.org".parse().unwrap()].into())].into()
    }

    fn federates(identities: &Identities, domain: &str) -> bool {
        let entries = identities.entries_after(domain, None, 9).unwrap();
        assert_eq!(entries.len(), 1);
        !entries[0].federates_with.is_empty()
    }

    #[test]
    fn no_agent_is_told_of_an_entry_before_foreign_bundles_were_seen() {
        let identities = identities();
        serve(&identities, "e");
        let error = identities.entries_after("e", None, 9).unwrap_err();
        assert!(error.to_string().contains("foreign bundles"), "{error}");
        identities.set_foreign_bundles(known("e"));
        assert!(federates(&identities, "e"));
    }

    #[test]
    fn bundles_of_one_trust_domain_are_not_those_of_another_whenever_it_comes() {
        let identities = identities();
        // Too long for the value of a label.
        let long = "e".repeat(100);
        identities.set_foreign_bundles(known(&label_value(&long)));
        for domain in [&*long, "other"] {
            serve(&identities, domain);
            assert_eq!(federates(&identities, domain), domain == long);
            assert_eq!(
                identities.foreign_bundles(domain).is_empty(),
                domain != long
            );
        }
    }

    #[test]
    fn whoever_wrote_a_bundle_waits_until_it_was_seen() {
        let identities = identities();
        serve(&identities, "e");
        let foreign = "f.org".parse().unwrap();
        let seen = |is_there| {
            let seen = identities.saw_foreign_bundle("e", &foreign, is_there);
            seen.now_or_never().is_some()
        };
        assert_eq!((seen(true), seen(false)), (false, true));
        identities.set_foreign_bundles(known("e"));
        assert_eq!((seen(true), seen(false)), (true, false));
        identities.set_foreign_bundles(ForeignBundles::new());
        assert_eq!((seen(true), seen(false)), (false, true));
    }
}
