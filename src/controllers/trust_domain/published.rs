//! What a trust domain publishes, as objects, and whether an object of that name is ours. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundleSpec;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use kube::core::{NotUsed, Object};

use crate::api::{BundleConfigMapSettings, BundleFormat, TrustDomain};
use crate::authority::Edition;
use crate::clusters::certificates_api::ClusterTrustBundle;
use crate::domains::{
    DomainSettings, cluster_trust_bundle_labels, cluster_trust_bundle_name, label_value,
};
use crate::spiffe::Bundle;

/// Label that says who made an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const MANAGED_BY: &str = "spiffe-operator";
/// Label with the name of the TrustDomain object.
pub const TRUST_DOMAIN_LABEL: &str = "spiffe-operator.io/trust-domain";

/// Annotation with the history of CAs that a bundle was made of ([`Edition`]).
const LINEAGE_ANNOTATION: &str = "spiffe-operator.io/bundle-lineage";
/// Annotation with the sequence number of the bundle in that history.
const SEQUENCE_ANNOTATION: &str = "spiffe-operator.io/bundle-sequence";

/// Whose an object is that has the name we want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Ours, or of an earlier TrustDomain of the same name.
    Ours,
    /// Somebody else's; it is never overwritten.
    Foreign,
}

/// Judges by labels and owner: ours carries both our label and an owner of our kind and name.
#[must_use]
pub(super) fn ownership(existing: &ObjectMeta, owner: &OwnerReference) -> Ownership {
    let labelled = existing.labels.as_ref().is_some_and(|labels| {
        labels
            .get(MANAGED_BY_LABEL)
            .is_some_and(|value| value == MANAGED_BY)
    });
    let is_ours = existing.owner_references.iter().flatten().any(|found| {
        found.uid == owner.uid || (labelled && found.kind == owner.kind && found.name == owner.name)
    });
    if is_ours {
        Ownership::Ours
    } else {
        Ownership::Foreign
    }
}

/// The owner reference by which Kubernetes removes what a deleted TrustDomain published.
#[must_use]
pub(super) fn owner_reference(trust_domain: &TrustDomain) -> OwnerReference {
    trust_domain.controller_owner_ref(&()).unwrap_or_default()
}

/// Labels of everything a TrustDomain publishes.
#[must_use]
pub fn labels(trust_domain_object: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (MANAGED_BY_LABEL.into(), MANAGED_BY.into()),
        (TRUST_DOMAIN_LABEL.into(), label_value(trust_domain_object)),
    ])
}

/// The edition of the bundle that an object holds, as it says itself.
#[must_use]
pub(super) fn edition(metadata: &ObjectMeta) -> Option<Edition> {
    let annotations = metadata.annotations.as_ref()?;
    Some(Edition {
        lineage: annotations.get(LINEAGE_ANNOTATION)?.clone(),
        sequence: annotations.get(SEQUENCE_ANNOTATION)?.parse().ok()?,
    })
}

fn annotations(edition: &Edition) -> BTreeMap<String, String> {
    BTreeMap::from([
        (LINEAGE_ANNOTATION.into(), edition.lineage.clone()),
        (SEQUENCE_ANNOTATION.into(), edition.sequence.to_string()),
    ])
}

/// The ClusterTrustBundle of a trust domain.
#[must_use]
pub(super) fn cluster_trust_bundle(
    settings: &DomainSettings,
    owner: &OwnerReference,
    bundle: &Bundle,
    edition: &Edition,
) -> ClusterTrustBundle {
    let mut labels = labels(&owner.name);
    labels.extend(cluster_trust_bundle_labels(&settings.trust_domain));
    Object {
        types: None,
        metadata: ObjectMeta {
            name: Some(cluster_trust_bundle_name(&settings.signer_name)),
            labels: Some(labels),
            annotations: Some(annotations(edition)),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: ClusterTrustBundleSpec {
            signer_name: Some(settings.signer_name.clone()),
            trust_bundle: bundle.to_pem(),
        },
        status: None::<NotUsed>,
    }
}

/// The ConfigMap of a trust domain's bundle in `namespace`.
#[must_use]
pub(super) fn config_map(
    settings: &BundleConfigMapSettings,
    namespace: &str,
    owner: &OwnerReference,
    bundle: &Bundle,
    edition: &Edition,
) -> ConfigMap {
    let data = settings.formats.iter().map(|format| match format {
        BundleFormat::Jwks => ("jwks".to_owned(), bundle.to_jwks()),
        BundleFormat::Pem => ("pem".to_owned(), bundle.to_pem()),
        BundleFormat::Spiffe => ("spiffe".to_owned(), bundle.to_document()),
    });
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(settings.name.clone()),
            namespace: Some(namespace.into()),
            labels: Some(labels(&owner.name)),
            annotations: Some(annotations(edition)),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        data: Some(data.collect()),
        ..ConfigMap::default()
    }
}

/// `existing` with what `desired` says of labels, annotations and owners; nothing else of its metadata changes.
/// None when it says all of that already.
#[must_use]
pub(super) fn adopt(existing: &ObjectMeta, desired: &ObjectMeta) -> Option<ObjectMeta> {
    let mut adopted = existing.clone();
    adopted
        .labels
        .get_or_insert_default()
        .extend(desired.labels.clone().unwrap_or_default());
    adopted
        .annotations
        .get_or_insert_default()
        .extend(desired.annotations.clone().unwrap_or_default());
    adopted
        .owner_references
        .clone_from(&desired.owner_references);
    adopted.managed_fields = None;
    let mut compared = existing.clone();
    compared.managed_fields = None;
    (adopted != compared).then_some(adopted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str, uid: &str) -> OwnerReference {
        OwnerReference {
            api_version: "spiffe-operator.io/v1alpha1".into(),
            kind: "TrustDomain".into(),
            name: name.into(),
            uid: uid.into(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    fn owned_by(owner: Option<OwnerReference>, labelled: bool) -> ObjectMeta {
        ObjectMeta {
            labels: labelled.then(|| labels("td")),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn never_takes_what_somebody_else_made() {
        let me = owner("td", "u1");
        for (metadata, expected) in [
            (owned_by(None, false), Ownership::Foreign),
            (owned_by(None, true), Ownership::Foreign),
            (
                owned_by(Some(owner("other", "u2")), true),
                Ownership::Foreign,
            ),
            (owned_by(Some(owner("td", "u0")), false), Ownership::Foreign),
            (owned_by(Some(owner("td", "u0")), true), Ownership::Ours),
            (owned_by(Some(me.clone()), false), Ownership::Ours),
        ] {
            assert_eq!(ownership(&metadata, &me), expected, "{metadata:?}");
        }
    }

    #[test]
    fn adopting_keeps_foreign_labels_and_settles() {
        let desired = owned_by(Some(owner("td", "u1")), true);
        let mut existing = owned_by(Some(owner("td", "u0")), false);
        existing.labels = Some(BTreeMap::from([("team".into(), "a".into())]));
        let adopted = adopt(&existing, &desired).unwrap();
        assert_eq!(adopted.labels.as_ref().unwrap()["team"], "a");
        assert_eq!(adopt(&adopted, &desired), None);
    }

    #[test]
    fn what_is_published_says_of_which_edition_it_is() {
        let edition_of = |annotations| {
            edition(&ObjectMeta {
                annotations: Some(annotations),
                ..ObjectMeta::default()
            })
        };
        let first = Edition {
            lineage: "a".into(),
            sequence: 7,
        };
        assert_eq!(edition_of(annotations(&first)), Some(first.clone()));
        let mut spoilt = annotations(&first);
        spoilt.insert(SEQUENCE_ANNOTATION.into(), "x".into());
        assert_eq!(edition_of(spoilt), None);
        assert_eq!(edition(&ObjectMeta::default()), None);
    }
}
