//! The entry that a RegistrationEntry holds, and the name of the object that holds an entry.

use std::sync::Arc;

use super::{
    entry::{AdditionalAttributes, Entry, Registered, Source, SourceKind},
    entry_error::{EntryError, parse_id},
    entry_id::{Content, EntryId, EntryIdError},
    spec::{ParsedStaticEntry, SpecError},
};
use crate::{
    api::{ClusterStaticEntrySpec, RegistrationEntry},
    spiffe::{ParseTrustDomainError, TrustDomainName},
};

/// Why a RegistrationEntry holds no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationEntryError {
    /// The ID cannot be one.
    #[error(transparent)]
    Id(#[from] EntryIdError),
    /// The name is not that of its trust domain and entry ID, so that two objects could hold the
    /// same entry.
    #[error("the name must be {expected}, which follows from trust domain and entry ID")]
    Name {
        /// The name that it must have.
        expected: String,
    },
    /// Both an SVID store and what depends on a workload's asking.
    #[error("storeSVID excludes disableX509SVIDPrefetch")]
    PrefetchOfStored,
    /// What any entry may not say.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Its SPIFFE ID is none.
    #[error(transparent)]
    SpiffeId(#[from] EntryError),
    /// Its SPIFFE ID has no trust domain.
    #[error(transparent)]
    TrustDomain(#[from] ParseTrustDomainError),
}

/// The name of the RegistrationEntry that holds the entry `id` of `trust_domain`.
#[must_use]
pub fn registration_entry_name(trust_domain: &TrustDomainName, id: &EntryId) -> String {
    use std::fmt::Write as _;

    let mut content = Content::new();
    content.text(trust_domain.as_str());
    content.text(&id.to_string());
    let mut name = String::new();
    for byte in content.finish::<16>() {
        // Writing into a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// The entry that `object` holds, whatever bundles are known.
///
/// # Errors
/// When spire-server would refuse the entry, or it lies under another name than its own.
pub fn parse_registration_entry(
    object: &RegistrationEntry,
) -> Result<Entry, RegistrationEntryError> {
    let spec = &object.spec;
    let id = EntryId::chosen(&spec.entry_id)?;
    let spiffe_id = parse_id("SPIFFE ID", &spec.spiffe_id)?;
    let trust_domain: TrustDomainName = spiffe_id.trust_domain().parse()?;
    let expected = registration_entry_name(&trust_domain, &id);
    let source = Source::of(SourceKind::RegistrationEntry, &object.metadata);
    let Some(source) = source.filter(|source| *source.name == *expected) else {
        return Err(RegistrationEntryError::Name { expected });
    };
    let content = ClusterStaticEntrySpec {
        spiffe_id: spec.spiffe_id.clone(),
        parent_id: spec.parent_id.clone(),
        selectors: spec.selectors.clone(),
        federates_with: spec.federates_with.clone(),
        x509_svid_ttl: spec.x509_svid_ttl.clone(),
        jwt_svid_ttl: spec.jwt_svid_ttl.clone(),
        dns_names: spec.dns_names.clone(),
        hint: spec.hint.clone(),
        admin: spec.admin,
        downstream: spec.downstream,
        store_svid: spec.store_svid,
        class_name: None,
    };
    let content = ParsedStaticEntry::parse(&content, &trust_domain)?;
    let attributes = spec
        .additional_attributes
        .map(|attributes| AdditionalAttributes {
            disable_x509_svid_prefetch: attributes.disable_x509_svid_prefetch,
            jwt_svid_include_jti: attributes.jwt_svid_include_jti,
        });
    if spec.store_svid && attributes.unwrap_or_default().disable_x509_svid_prefetch {
        return Err(RegistrationEntryError::PrefetchOfStored);
    }
    let registered = Registered {
        generation: object.metadata.generation.unwrap_or(1),
        expires_at: spec.expires_at,
        attributes,
    };
    let entry = Entry {
        id,
        registered: Some(Box::new(registered)),
        ..content.entry(Arc::new(source), "")
    };
    Ok(entry.with_revision())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn parse(name: Option<&str>, changes: &Json) -> Result<Entry, RegistrationEntryError> {
        let mut spec = json!({
            "entryID": "web",
            "spiffeID": "spiffe://e.org/web",
            "parentID": "spiffe://e.org/agent",
            "selectors": ["unix:uid:1", "unix:gid:2"],
            "federatesWith": ["f.org"],
            "x509SVIDTTL": "60s",
            "jwtSVIDTTL": "30s",
            "dnsNames": ["a", "b"],
            "hint": "main",
            "admin": true,
            "downstream": true,
            "storeSVID": true,
            "expiresAt": 123,
            "additionalAttributes": {"jwtSVIDIncludeJTI": true},
        });
        let fields = spec.as_object_mut().unwrap();
        fields.extend(changes.as_object().unwrap().clone());
        let id = EntryId::from_text(fields["entryID"].as_str().unwrap());
        let right = registration_entry_name(&"e.org".parse().unwrap(), &id);
        let object = json!({
            "apiVersion": "spiffe-operator.io/v1alpha1",
            "kind": "RegistrationEntry",
            "metadata": {
                "name": name.unwrap_or(&right), "uid": "u", "generation": 3,
                "creationTimestamp": "1970-01-01T00:01:40Z",
            },
            "spec": spec,
        });
        parse_registration_entry(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn an_entry_holds_all_that_its_object_says() {
        let entry = parse(None, &json!({})).unwrap();
        assert_eq!(entry.id, EntryId::from_text("web"));
        assert_eq!(entry.spiffe_id.as_str(), "spiffe://e.org/web");
        assert_eq!(entry.parent_id.as_str(), "spiffe://e.org/agent");
        let seconds = |ttl: Option<std::time::Duration>| ttl.map(|ttl| ttl.as_secs());
        assert_eq!(
            (seconds(entry.x509_ttl), seconds(entry.jwt_ttl)),
            (Some(60), Some(30))
        );
        assert_eq!(entry.dns_names, ["a", "b"]);
        assert_eq!(entry.federates_with, ["f.org".parse().unwrap()]);
        assert_eq!(entry.hint.as_deref(), Some("main"));
        assert!(entry.admin && entry.downstream && entry.store_svid);
        assert_eq!(
            (entry.source.kind, entry.source.created),
            (SourceKind::RegistrationEntry, 100)
        );
        let registered = *entry.registered.unwrap();
        let attributes = AdditionalAttributes {
            jwt_svid_include_jti: true,
            ..AdditionalAttributes::default()
        };
        let expected = Registered {
            generation: 3,
            expires_at: Some(123),
            attributes: Some(attributes),
        };
        assert_eq!(registered, expected);
    }

    #[test]
    fn the_name_is_for_good() {
        let name = |domain: &str, id| {
            registration_entry_name(&domain.parse().unwrap(), &EntryId::from_text(id))
        };
        let expected = "ac866cf913c19122d236db448d844094";
        assert_eq!(name("example.org", "batch-job"), expected);
        assert_ne!(name("example.or", "gbatch-job"), expected);
    }

    #[test]
    fn another_content_is_another_revision() {
        let changes = [
            json!({}),
            json!({"entryID": "other"}),
            json!({"spiffeID": "spiffe://e.org/other"}),
            json!({"parentID": "spiffe://e.org/other"}),
            json!({"selectors": ["unix:uid:1"]}),
            json!({"federatesWith": []}),
            json!({"x509SVIDTTL": "30s"}),
            json!({"jwtSVIDTTL": "60s"}),
            json!({"dnsNames": ["b", "a"]}),
            json!({"dnsNames": [], "hint": "a"}),
            json!({"hint": "other"}),
            json!({"admin": false}),
            json!({"downstream": false}),
            json!({"storeSVID": false}),
            json!({"expiresAt": 124}),
            json!({"expiresAt": null}),
            json!({"additionalAttributes": {}}),
            json!({"additionalAttributes": null}),
        ];
        let revision = |changes| parse(None, changes).unwrap().revision;
        let revisions: std::collections::BTreeSet<_> = changes.iter().map(revision).collect();
        assert_eq!(revisions.len(), changes.len());
        assert!(revisions.iter().all(|revision| *revision > 0));
    }

    #[test]
    fn refuses_what_spire_server_refuses_and_what_lies_under_a_wrong_name() {
        use RegistrationEntryError as E;
        let error = |changes: Json| parse(None, &changes).unwrap_err();
        assert!(matches!(error(json!({"entryID": "a b"})), E::Id(_)));
        assert!(matches!(error(json!({"spiffeID": "x"})), E::SpiffeId(_)));
        let foreign = json!({"parentID": "spiffe://f.org/p"});
        assert!(matches!(error(foreign), E::Spec(_)));
        assert!(matches!(error(json!({"selectors": []})), E::Spec(_)));
        let stored = json!({"additionalAttributes": {"disableX509SVIDPrefetch": true}});
        assert_eq!(error(stored), E::PrefetchOfStored);
        let named = parse(Some("web"), &json!({})).unwrap_err();
        assert!(matches!(named, E::Name { .. }), "{named}");
    }
}
