//! Durable state, kept in the Kubernetes API: an authority's keys and journal in one Secret per
//! trust domain, the last good spec of every registering object, the record of every attested
//! agent, join tokens, what is known of foreign trust domains, entries that were made through the
//! SPIRE server API, and what a server above is shown. All but the records of agents and the entries lies in the operator's own
//! namespace.
//!
//! All writes carry the `resourceVersion` that was read. What the state means, and when it
//! changes, is not here, but for agents' records and join tokens: there reading, deciding and
//! writing must be one step.

pub mod agents;
mod authority;
mod authority_commands;
mod ca_bundles;
mod domain;
pub mod federation;
pub mod join_tokens;
mod last_good;
mod registration_entries;
mod upstream_material;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub(crate) use authority::wipe;
pub use authority::{AuthorityStore, LoadError, SaveError, StoredJournal};
pub use authority_commands::{AuthorityCommandError, AuthorityCommands};
pub use ca_bundles::{CaBundleError, ca_bundle};
pub use domain::{Caches, DomainStores};
pub use last_good::LastGoodStore;
pub use registration_entries::{CatchUpError, Created, RegistrationEntryStore, WriteError};
pub use upstream_material::UpstreamMaterial;

/// The selector of objects with all of `labels`.
fn label_selector(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

/// Whether an object has all of `labels`.
fn is_labelled(metadata: &ObjectMeta, labels: &BTreeMap<String, String>) -> bool {
    let found = metadata.labels.as_ref();
    let mut wanted = labels.iter();
    found.is_some_and(|found| wanted.all(|(key, value)| found.get(key) == Some(value)))
}

/// Whether an object with all of `labels` has another owner than the `owner`, or one where there
/// shall be none.
fn is_to_be_owned_otherwise(
    metadata: &ObjectMeta,
    labels: &BTreeMap<String, String>,
    owner: Option<&OwnerReference>,
) -> bool {
    let owners = metadata.owner_references.iter().flatten();
    is_labelled(metadata, labels) && !owners.eq(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_gets_the_owner_that_is_wished() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let owner = |uid: &str| OwnerReference {
            uid: uid.into(),
            ..OwnerReference::default()
        };
        let object = |label: &str, owner: Option<OwnerReference>| ObjectMeta {
            labels: Some([("a".into(), label.into()), ("b".into(), "2".into())].into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        let one = owner("1");
        for (found, wished, is_wrong) in [
            (object("1", Some(owner("1"))), Some(&one), false),
            (object("1", Some(owner("2"))), Some(&one), true),
            (object("1", Some(owner("1"))), None, true),
            (object("1", None), Some(&one), true),
            (object("1", None), None, false),
            (object("2", None), Some(&one), false),
            (ObjectMeta::default(), Some(&one), false),
        ] {
            let found_wrong = is_to_be_owned_otherwise(&found, &labels, wished);
            assert_eq!(found_wrong, is_wrong, "{found:?} {wished:?}");
        }
    }
}
