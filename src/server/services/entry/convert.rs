//! Entries as the registry has them, as messages have them, and as RegistrationEntries hold them.
//! Pure.
//!
//! What is refused, in which order and in which words, is as in spire-server: tools show it.

use crate::api::{RegistrationEntry, RegistrationEntryAttributes, RegistrationEntrySpec};
use crate::registration::{
    AdditionalAttributes, Entry, EntryId, RegistrationEntryError, dns_name,
    parse_registration_entry, registration_entry_name,
};
use crate::server::proto::types;
use crate::server::proto::types::{EntryMask, Selector, Spiffeid, entry};
use crate::server::services::ids;
use crate::spiffe::{SpiffeId, TrustDomainName};

/// Longest hint, in bytes.
const MAX_HINT: usize = 1024;
/// Longest entry ID, in bytes.
const MAX_ID: usize = 255;

/// A mask that hides nothing.
pub(super) const ALL: EntryMask = EntryMask {
    spiffe_id: true,
    parent_id: true,
    selectors: true,
    x509_svid_ttl: true,
    federates_with: true,
    admin: true,
    downstream: true,
    expires_at: true,
    dns_names: true,
    revision_number: true,
    store_svid: true,
    jwt_svid_ttl: true,
    hint: true,
    created_at: true,
    additional_attributes: true,
};

/// An entry as an agent gets it. The agent has the bundle of its own trust domain; a stock agent that
/// is told that the entry federates with it asks for it by the wrong call, and its whole sync fails.
pub(super) fn for_agent(entry: &Entry, mask: Option<&EntryMask>) -> types::Entry {
    let mut message = message(entry, mask);
    let own = entry.spiffe_id.trust_domain();
    message.federates_with.retain(|name| name != own);
    message
}

fn message(entry: &Entry, mask: Option<&EntryMask>) -> types::Entry {
    let mask = mask.unwrap_or(&ALL);
    let registered = entry.registered.as_deref();
    let seconds = |ttl: Option<std::time::Duration>| {
        let seconds = ttl.map_or(0, |ttl| ttl.as_secs());
        i32::try_from(seconds).unwrap_or(i32::MAX)
    };
    let mut message = types::Entry {
        id: entry.id.to_string(),
        ..types::Entry::default()
    };
    if mask.spiffe_id {
        message.spiffe_id = Some(ids::to_proto(&entry.spiffe_id));
    }
    if mask.parent_id {
        message.parent_id = Some(ids::to_proto(&entry.parent_id));
    }
    if mask.selectors {
        let selectors = entry.selectors.iter().map(|selector| Selector {
            r#type: selector.kind().into(),
            value: selector.value().into(),
        });
        message.selectors = selectors.collect();
    }
    if mask.x509_svid_ttl {
        message.x509_svid_ttl = seconds(entry.x509_ttl);
    }
    if mask.jwt_svid_ttl {
        message.jwt_svid_ttl = seconds(entry.jwt_ttl);
    }
    if mask.federates_with {
        message.federates_with = entry
            .federates_with
            .iter()
            .map(ToString::to_string)
            .collect();
    }
    if mask.dns_names {
        message.dns_names.clone_from(&entry.dns_names);
    }
    if mask.hint {
        message.hint = entry.hint.as_deref().unwrap_or_default().into();
    }
    if mask.expires_at {
        message.expires_at = entry.expires_at().unwrap_or_default();
    }
    if mask.revision_number {
        message.revision_number = entry.revision;
    }
    if mask.created_at {
        message.created_at = entry.source.created;
    }
    if mask.additional_attributes {
        let attributes = registered.and_then(|registered| registered.attributes);
        message.additional_attributes = attributes.map(attributes_message);
    }
    message.admin = mask.admin && entry.admin;
    message.downstream = mask.downstream && entry.downstream;
    message.store_svid = mask.store_svid && entry.store_svid;
    message
}

/// An entry as an administrator gets it: one that was made through the API counts its updates, as
/// spire-server does.
pub(super) fn for_admin(entry: &Entry, mask: Option<&EntryMask>) -> types::Entry {
    let mut message = message(entry, mask);
    if let Some(registered) = &entry.registered
        && mask.is_none_or(|mask| mask.revision_number)
    {
        message.revision_number = registered.generation - 1;
    }
    message
}

fn attributes_message(attributes: AdditionalAttributes) -> entry::AdditionalAttributes {
    entry::AdditionalAttributes {
        disable_x509_svid_prefetch: attributes.disable_x509_svid_prefetch,
        jwt_svid_include_jti: attributes.jwt_svid_include_jti,
    }
}

/// The entry that `spec` would make, by whatever ID.
///
/// # Errors
/// When it would make none.
pub(super) fn wanted(
    spec: &RegistrationEntrySpec,
    trust_domain: &TrustDomainName,
) -> Result<Entry, RegistrationEntryError> {
    let id = EntryId::random([0; 16]);
    let name = registration_entry_name(trust_domain, &id);
    let spec = RegistrationEntrySpec {
        entry_id: id.to_string(),
        ..spec.clone()
    };
    parse_registration_entry(&RegistrationEntry::new(&name, spec))
}

/// What makes a message no entry, in spire-server's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Found when the message is read.
    #[error("failed to convert entry: {0}")]
    Message(String),
    /// Found before it is stored.
    #[error("datastore-validation: {0}")]
    Entry(&'static str),
}

/// What `message` makes of the spec of a RegistrationEntry, in the fields that the mask names.
pub(super) fn merge(
    mut spec: RegistrationEntrySpec,
    message: &types::Entry,
    mask: &EntryMask,
    trust_domain: &TrustDomainName,
) -> Result<RegistrationEntrySpec, Refused> {
    read(&mut spec, message, mask, trust_domain).map_err(Refused::Message)?;
    check(&spec, message, mask).map_err(Refused::Entry)?;
    Ok(spec)
}

fn read(
    spec: &mut RegistrationEntrySpec,
    message: &types::Entry,
    mask: &EntryMask,
    trust_domain: &TrustDomainName,
) -> Result<(), String> {
    if mask.parent_id {
        let id = member_id(trust_domain, message.parent_id.as_ref());
        let id = id.map_err(|error| format!("invalid parent ID: {error}"))?;
        spec.parent_id = id.to_string();
    }
    if mask.spiffe_id {
        let id = workload_id(trust_domain, message.spiffe_id.as_ref());
        let id = id.map_err(|error| format!("invalid spiffe ID: {error}"))?;
        spec.spiffe_id = id.to_string();
    }
    if mask.dns_names {
        for name in &message.dns_names {
            dns_name::check(name).map_err(|error| format!("invalid DNS name: {error}"))?;
        }
        spec.dns_names = sorted(message.dns_names.iter().cloned());
    }
    if mask.federates_with {
        let names = message.federates_with.iter();
        let names = names.map(|name| TrustDomainName::from_name_or_id(name));
        let names: Result<Vec<_>, _> = names.collect();
        let names = names.map_err(|error| format!("invalid federated trust domain: {error}"))?;
        spec.federates_with = sorted(names.iter().map(ToString::to_string));
    }
    if mask.selectors {
        if message.selectors.is_empty() {
            return Err("selector list is empty".into());
        }
        spec.selectors = sorted(selectors(&message.selectors)?);
    }
    if mask.hint {
        if message.hint.len() > MAX_HINT {
            return Err(format!(
                "hint is too long, max length is {MAX_HINT} characters"
            ));
        }
        spec.hint = Some(message.hint.clone()).filter(|hint| !hint.is_empty());
    }
    let ttl = |seconds: i32| (seconds != 0).then(|| format!("{seconds}s"));
    if mask.x509_svid_ttl {
        spec.x509_svid_ttl = ttl(message.x509_svid_ttl);
    }
    if mask.jwt_svid_ttl {
        spec.jwt_svid_ttl = ttl(message.jwt_svid_ttl);
    }
    if mask.admin {
        spec.admin = message.admin;
    }
    if mask.downstream {
        spec.downstream = message.downstream;
    }
    if mask.store_svid {
        spec.store_svid = message.store_svid;
    }
    if mask.expires_at {
        spec.expires_at = Some(message.expires_at).filter(|at| *at != 0);
    }
    if mask.additional_attributes {
        let attributes = message.additional_attributes;
        spec.additional_attributes = attributes.map(|given| RegistrationEntryAttributes {
            disable_x509_svid_prefetch: given.disable_x509_svid_prefetch,
            jwt_svid_include_jti: given.jwt_svid_include_jti,
        });
    }
    Ok(())
}

fn check(
    spec: &RegistrationEntrySpec,
    message: &types::Entry,
    mask: &EntryMask,
) -> Result<(), &'static str> {
    let attributes = spec.additional_attributes.unwrap_or_default();
    if spec.store_svid && attributes.disable_x509_svid_prefetch {
        return Err("specifying cache behaviour is incompatible with storable SVIDs");
    }
    let mut kinds = spec.selectors.iter().map(|it| it.split(':').next());
    let first = kinds.next();
    if spec.store_svid && kinds.any(|kind| Some(kind) != first) {
        return Err(
            "invalid registration entry: selector types must be the same when store SVID is \
             enabled",
        );
    }
    if spec.entry_id.len() > MAX_ID {
        return Err("invalid registration entry: entry ID too long");
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !spec.entry_id.chars().all(is_allowed) {
        return Err("invalid registration entry: entry ID contains invalid characters");
    }
    if mask.x509_svid_ttl && message.x509_svid_ttl < 0 {
        return Err("invalid registration entry: X509SvidTtl is not set");
    }
    if mask.jwt_svid_ttl && message.jwt_svid_ttl < 0 {
        return Err("invalid registration entry: JwtSvidTtl is not set");
    }
    Ok(())
}

/// The ID in `message`, which must belong to the trust domain and have a path.
pub(super) fn member_id(
    trust_domain: &TrustDomainName,
    message: Option<&Spiffeid>,
) -> Result<SpiffeId, String> {
    let id = ids::from_proto(message)?;
    let problem = match id.path() {
        _ if !id.is_member_of(trust_domain) => "",
        "" => "; path is empty",
        _ => return Ok(id),
    };
    Err(format!(
        "\"{id}\" is not a member of trust domain \"{trust_domain}\"{problem}"
    ))
}

/// The ID in `message`, which must be one that a workload may have.
pub(super) fn workload_id(
    trust_domain: &TrustDomainName,
    message: Option<&Spiffeid>,
) -> Result<SpiffeId, String> {
    let id = ids::from_proto(message)?;
    ids::check_workload(&id, trust_domain)?;
    Ok(id)
}

/// The selectors in `messages` as `type:value`.
pub(super) fn selectors(messages: &[Selector]) -> Result<Vec<String>, String> {
    let text = |Selector { r#type, value }: &Selector| {
        if r#type.is_empty() {
            return Err("missing selector type".to_owned());
        }
        if r#type.contains(':') {
            return Err("selector type contains ':'".to_owned());
        }
        if value.is_empty() {
            return Err("missing selector value".to_owned());
        }
        Ok(format!("{type}:{value}"))
    };
    messages.iter().map(text).collect()
}

/// Sorted and without repetition, as spire-server gives back what it stored.
fn sorted(texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<_> = texts.into_iter().collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    type Set = fn(&mut EntryMask);
    type Change = fn(&mut types::Entry);

    fn id(path: &str) -> Spiffeid {
        Spiffeid {
            trust_domain: "e.org".into(),
            path: path.into(),
        }
    }

    fn selector(kind: &str, value: &str) -> Selector {
        Selector {
            r#type: kind.into(),
            value: value.into(),
        }
    }

    /// A message with every field.
    fn full() -> types::Entry {
        types::Entry {
            id: "web".into(),
            spiffe_id: Some(id("/web")),
            parent_id: Some(id("/spire/agent/a")),
            selectors: vec![selector("unix", "gid:2"), selector("unix", "uid:1")],
            x509_svid_ttl: 60,
            jwt_svid_ttl: 30,
            federates_with: vec!["f.org".into(), "g.org".into()],
            admin: true,
            downstream: true,
            expires_at: 1234,
            dns_names: vec!["a".into(), "b".into()],
            revision_number: 0,
            store_svid: true,
            hint: "main".into(),
            created_at: 0,
            additional_attributes: Some(entry::AdditionalAttributes {
                jwt_svid_include_jti: true,
                ..entry::AdditionalAttributes::default()
            }),
        }
    }

    fn trust_domain() -> TrustDomainName {
        "e.org".parse().unwrap()
    }

    fn spec(message: &types::Entry) -> Result<RegistrationEntrySpec, Refused> {
        let spec = RegistrationEntrySpec {
            entry_id: message.id.clone(),
            ..RegistrationEntrySpec::default()
        };
        merge(spec, message, &ALL, &trust_domain())
    }

    fn stored(spec: RegistrationEntrySpec, generation: i64) -> Entry {
        let id = EntryId::from_text(&spec.entry_id);
        let name = registration_entry_name(&trust_domain(), &id);
        let mut object = RegistrationEntry::new(&name, spec);
        object.metadata.generation = Some(generation);
        parse_registration_entry(&object).unwrap()
    }

    #[test]
    fn an_entry_comes_back_as_it_was_made() {
        let nothing_set = types::Entry {
            id: "web".into(),
            spiffe_id: Some(id("/web")),
            parent_id: Some(id("/p")),
            selectors: vec![selector("a", "b:c")],
            ..types::Entry::default()
        };
        let empty_attributes = types::Entry {
            additional_attributes: Some(entry::AdditionalAttributes::default()),
            ..nothing_set.clone()
        };
        for message in [full(), nothing_set, empty_attributes] {
            let entry = stored(spec(&message).unwrap(), 1);
            assert_eq!(for_admin(&entry, None), message);
            assert_eq!(for_admin(&entry, Some(&ALL)), message);
            let for_agent = for_agent(&entry, None);
            assert_eq!(for_agent.revision_number, entry.revision);
        }
    }

    #[test]
    fn agents_are_not_sent_for_the_bundle_that_they_have() {
        let message = types::Entry {
            federates_with: vec!["e.org".into(), "f.org".into()],
            ..full()
        };
        let entry = stored(spec(&message).unwrap(), 1);
        assert_eq!(for_agent(&entry, None).federates_with, ["f.org"]);
        assert_eq!(for_admin(&entry, None), message);
    }

    #[test]
    fn what_is_stored_is_sorted_and_without_repetition() {
        let message = types::Entry {
            selectors: vec![selector("b", "1"), selector("a", "2"), selector("b", "1")],
            dns_names: vec!["z".into(), "y".into(), "z".into()],
            federates_with: vec!["z.org".into(), "spiffe://f.org/x".into()],
            store_svid: false,
            ..full()
        };
        let spec = spec(&message).unwrap();
        assert_eq!(spec.selectors, ["a:2", "b:1"]);
        assert_eq!(spec.dns_names, ["y", "z"]);
        assert_eq!(spec.federates_with, ["f.org", "z.org"]);
    }

    #[test]
    fn updates_are_counted_for_administrators() {
        let entry = stored(spec(&full()).unwrap(), 3);
        assert_eq!(for_admin(&entry, None).revision_number, 2);
        let masked = EntryMask {
            revision_number: false,
            ..ALL
        };
        assert_eq!(for_admin(&entry, Some(&masked)).revision_number, 0);
    }

    #[test]
    fn a_mask_hides_all_but_what_it_names_and_the_id() {
        let entry = stored(spec(&full()).unwrap(), 2);
        let nothing = EntryMask::default();
        let only_id = types::Entry {
            id: "web".into(),
            ..types::Entry::default()
        };
        assert_eq!(for_admin(&entry, Some(&nothing)), only_id);
        let fields: &[(&str, Set)] = &[
            ("spiffe_id", |mask| mask.spiffe_id = true),
            ("parent_id", |mask| mask.parent_id = true),
            ("selectors", |mask| mask.selectors = true),
            ("x509_svid_ttl", |mask| mask.x509_svid_ttl = true),
            ("jwt_svid_ttl", |mask| mask.jwt_svid_ttl = true),
            ("federates_with", |mask| mask.federates_with = true),
            ("admin", |mask| mask.admin = true),
            ("downstream", |mask| mask.downstream = true),
            ("expires_at", |mask| mask.expires_at = true),
            ("dns_names", |mask| mask.dns_names = true),
            ("revision_number", |mask| mask.revision_number = true),
            ("store_svid", |mask| mask.store_svid = true),
            ("hint", |mask| mask.hint = true),
            ("additional_attributes", |mask| {
                mask.additional_attributes = true;
            }),
        ];
        for (field, set) in fields {
            let mut mask = nothing;
            set(&mut mask);
            let shown = for_admin(&entry, Some(&mask));
            assert_ne!(shown, only_id, "{field}");
            // And an update by that mask changes that field alone.
            let blank = RegistrationEntrySpec {
                entry_id: "web".into(),
                ..RegistrationEntrySpec::default()
            };
            let changed = merge(blank.clone(), &full(), &mask, &trust_domain()).unwrap();
            let is_writable = *field != "revision_number";
            assert_eq!(changed != blank, is_writable, "{field}");
        }
    }

    #[test]
    fn refuses_in_the_words_of_spire_server() {
        let of_message: &[(Change, &str)] = &[
            (
                |entry| entry.parent_id = None,
                "invalid parent ID: request must specify SPIFFE ID",
            ),
            (
                |entry| entry.parent_id = Some(id("")),
                "invalid parent ID: \"spiffe://e.org\" is not a member of trust domain \"e.org\"; \
                 path is empty",
            ),
            (
                |entry| {
                    entry.spiffe_id = Some(Spiffeid {
                        trust_domain: "f.org".into(),
                        path: "/a".into(),
                    });
                },
                "invalid spiffe ID: \"spiffe://f.org/a\" is not a member of trust domain \"e.org\"",
            ),
            (
                |entry| entry.spiffe_id = Some(id("/spire/agent/a")),
                "invalid spiffe ID: \"spiffe://e.org/spire/agent/a\" is not a workload in trust \
                 domain \"e.org\"; path is in the reserved namespace",
            ),
            (
                |entry| entry.spiffe_id = Some(id("a")),
                "invalid spiffe ID: path must have a leading slash",
            ),
            (
                |entry| entry.federates_with = vec!["F.org".into()],
                "invalid federated trust domain: ",
            ),
            (
                |entry| entry.dns_names = vec![String::new()],
                "invalid DNS name: ",
            ),
            (|entry| entry.selectors.clear(), "selector list is empty"),
            (
                |entry| entry.selectors = vec![selector("", "a")],
                "missing selector type",
            ),
            (
                |entry| entry.selectors = vec![selector("a:b", "c")],
                "selector type contains ':'",
            ),
            (
                |entry| entry.selectors = vec![selector("a", "")],
                "missing selector value",
            ),
            (
                |entry| entry.hint = "x".repeat(1025),
                "hint is too long, max length is 1024 characters",
            ),
        ];
        for (change, expected) in of_message {
            let mut message = full();
            change(&mut message);
            let refused = spec(&message).unwrap_err();
            assert!(matches!(refused, Refused::Message(_)), "{refused:?}");
            let words = refused.to_string();
            let expected = format!("failed to convert entry: {expected}");
            assert!(words.starts_with(&expected), "{words}");
        }
        let of_entry: &[(Change, &str)] = &[
            (
                |entry| {
                    let attributes = entry.additional_attributes.get_or_insert_default();
                    attributes.disable_x509_svid_prefetch = true;
                },
                "specifying cache behaviour is incompatible with storable SVIDs",
            ),
            (
                |entry| entry.selectors.push(selector("k8s", "a")),
                "invalid registration entry: selector types must be the same when store SVID is \
                 enabled",
            ),
            (
                |entry| entry.id = "x".repeat(256),
                "invalid registration entry: entry ID too long",
            ),
            (
                |entry| entry.id = "a b".into(),
                "invalid registration entry: entry ID contains invalid characters",
            ),
            (
                |entry| entry.x509_svid_ttl = -1,
                "invalid registration entry: X509SvidTtl is not set",
            ),
            (
                |entry| entry.jwt_svid_ttl = -1,
                "invalid registration entry: JwtSvidTtl is not set",
            ),
        ];
        for (change, expected) in of_entry {
            let mut message = full();
            change(&mut message);
            assert_eq!(spec(&message), Err(Refused::Entry(expected)));
        }
    }

    /// What a message comes back as: IDs and names in their canonical form, lists in order.
    fn canonical(message: &types::Entry) -> types::Entry {
        let id =
            |id: &Option<Spiffeid>| Some(ids::to_proto(&ids::from_proto(id.as_ref()).unwrap()));
        let names = message.federates_with.iter();
        let names = names.map(|name| TrustDomainName::from_name_or_id(name).unwrap().to_string());
        let selectors = sorted(selectors(&message.selectors).unwrap());
        let selectors = selectors.iter().map(|text| text.split_once(':').unwrap());
        types::Entry {
            spiffe_id: id(&message.spiffe_id),
            parent_id: id(&message.parent_id),
            selectors: selectors
                .map(|(kind, value)| selector(kind, value))
                .collect(),
            federates_with: sorted(names),
            dns_names: sorted(message.dns_names.iter().cloned()),
            ..message.clone()
        }
    }

    /// Text of a kind, or any at all.
    fn text(mostly: &'static str) -> BoxedStrategy<String> {
        prop_oneof![30 => mostly, 1 => ".{0,12}", 1 => "[ -~]{0,300}"].boxed()
    }

    fn any_id() -> BoxedStrategy<Option<Spiffeid>> {
        let id = (text("e\\.org"), text("/(spire/agent/)?[a-z]{1,8}"));
        let id = id.prop_map(|(trust_domain, path)| Spiffeid { trust_domain, path });
        prop_oneof![30 => id.prop_map(Some), 1 => Just(None)].boxed()
    }

    /// Entries as anybody may send them, of which every second or so is one.
    fn any_message() -> impl Strategy<Value = types::Entry> {
        let entry_id = prop_oneof![30 => "[a-z0-9.-]{1,20}", 1 => ".{1,300}"];
        let ids = (entry_id, any_id(), any_id());
        let selector = (text("unix|k8s"), text("[a-z:]{1,8}"))
            .prop_map(|(kind, value)| selector(&kind, &value));
        let lists = (
            vec(selector, 0..4),
            vec(text("[a-z]{1,8}(\\.[a-z]{1,8})?"), 0..3),
            vec(text("(spiffe://)?[f-h]\\.org"), 0..3),
            text("[a-z]{0,8}"),
        );
        let ttl = || prop_oneof![4 => 0..100_000, 1 => any::<i32>()];
        let expiry = prop_oneof![4 => 0..4_000_000_000_i64, 1 => any::<i64>()];
        let numbers = (ttl(), ttl(), expiry);
        let attributes = any::<Option<(bool, bool)>>();
        let flags = (any::<[bool; 3]>(), attributes);
        (ids, lists, numbers, flags).prop_map(|(ids, lists, numbers, flags)| {
            let ([admin, downstream, store_svid], attributes) = flags;
            types::Entry {
                id: ids.0,
                spiffe_id: ids.1,
                parent_id: ids.2,
                selectors: lists.0,
                dns_names: lists.1,
                federates_with: lists.2,
                hint: lists.3,
                x509_svid_ttl: numbers.0,
                jwt_svid_ttl: numbers.1,
                expires_at: numbers.2,
                admin,
                downstream,
                store_svid,
                additional_attributes: attributes.map(|(prefetch, jti)| {
                    entry::AdditionalAttributes {
                        disable_x509_svid_prefetch: prefetch,
                        jwt_svid_include_jti: jti,
                    }
                }),
                ..types::Entry::default()
            }
        })
    }

    proptest! {
        /// What is accepted comes back as it was sent; anything else is refused in the words that
        /// say where, and nothing panics.
        #[test]
        fn any_message_comes_back_or_is_refused(message in any_message()) {
            match spec(&message) {
                Ok(spec) => {
                    let Ok(wanted) = wanted(&spec, &trust_domain()) else {
                        return Ok(());
                    };
                    let entry = stored(spec, 1);
                    prop_assert_eq!(for_admin(&entry, None), canonical(&message));
                    prop_assert_eq!(wanted.key, entry.key);
                }
                Err(refused @ Refused::Message(_)) => {
                    let words = refused.to_string();
                    prop_assert!(words.starts_with("failed to convert entry: "), "{}", words);
                }
                Err(refused @ Refused::Entry(_)) => {
                    let words = refused.to_string();
                    prop_assert!(words.starts_with("datastore-validation: "), "{}", words);
                }
            }
        }

        /// What an update does not name stays, whatever it says of it.
        #[test]
        fn an_update_changes_what_its_mask_names(message in any_message(), before in any_message()) {
            let Ok(before) = spec(&before) else {
                return Ok(());
            };
            let mask = EntryMask { hint: true, ..EntryMask::default() };
            if let Ok(after) = merge(before.clone(), &message, &mask, &trust_domain()) {
                let hint = Some(message.hint).filter(|hint| !hint.is_empty());
                prop_assert_eq!(after, RegistrationEntrySpec { hint, ..before });
            }
        }
    }
}
