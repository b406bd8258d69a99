//! RegistrationEntries as the watch gave them, and how far it got: whoever wrote one, or must know of
//! all that others wrote, waits here until the registries do.
//!
//! A watch reports the changes of one kind in the order in which they happened, and numbers them by
//! `resourceVersion`. So who has seen a change has seen all that came before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;

use crate::api::RegistrationEntry;
use crate::clusters::identities::start::List;
use crate::clusters::identities::{Identities, State};
use crate::registration::{Change, Entry, Registry, parse_registration_entry};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    /// By name.
    known: BTreeMap<Arc<str>, Known>,
    /// The changes up to this version have been seen.
    seen_to: u64,
    /// The highest version in the list under way, if there is one.
    listing: Option<u64>,
    /// The last time that was told, in seconds since 1970.
    now: i64,
}

#[derive(Debug)]
struct Known {
    uid: Arc<str>,
    version: u64,
    /// The version in which it was seen first: of objects that are made at the same time all
    /// replicas know the same order, whether by a watch or by a list.
    first_version: u64,
    /// None when it has never been right.
    entry: Option<Arc<Entry>>,
}

/// A RegistrationEntry whose time is over.
#[derive(Clone, Debug)]
pub struct Expired {
    /// Name of the object.
    pub name: Arc<str>,
    /// UID of the object.
    pub uid: Arc<str>,
    /// The version that says so.
    pub version: u64,
}

impl Registrations {
    /// Notes an object; the entry that it had, and the one that it has. A broken one keeps what it
    /// had.
    fn apply(&mut self, object: &RegistrationEntry) -> (Option<Arc<Entry>>, Option<Arc<Entry>>) {
        let name = object.name_any();
        let uid = object.uid().unwrap_or_default();
        let version = version_of(object.metadata.resource_version.as_deref());
        self.see(version);
        let old = self.known.remove(&*name);
        let same = old.as_ref().filter(|old| *old.uid == *uid);
        let (first_version, kept) = same.map_or((version, None), |old| {
            (old.first_version, old.entry.clone())
        });
        let entry = match parse_registration_entry(object) {
            Ok(entry) => Some(
                kept.filter(|kept| **kept == entry)
                    .unwrap_or_else(|| Arc::new(entry)),
            ),
            Err(error) => {
                let error = crate::error_chain(&error);
                tracing::error!(name, error, "a RegistrationEntry holds no entry");
                kept
            }
        };
        let shared = entry.as_ref().map(|entry| &entry.source);
        let known = Known {
            uid: shared.map_or_else(|| uid.into(), |source| source.uid.clone()),
            version,
            first_version,
            entry: entry.clone(),
        };
        let name = shared.map_or_else(|| name.into(), |source| source.name.clone());
        self.known.insert(name, known);
        (old.and_then(|old| old.entry), entry)
    }

    fn see(&mut self, version: u64) {
        match &mut self.listing {
            Some(highest) => *highest = version.max(*highest),
            None => self.seen_to = version.max(self.seen_to),
        }
    }

    /// Feeds all into a new registry.
    pub(super) fn replay(&self, registry: &mut Registry) -> Vec<Change> {
        let trust_domain = registry.settings().cluster.trust_domain.clone();
        let entries = self.known.values().filter_map(|known| known.entry.as_ref());
        entries
            .filter(|entry| entry.spiffe_id.is_member_of(&trust_domain))
            .flat_map(|entry| registry.apply_registration_entry(entry, self.now))
            .collect()
    }

    /// Whether nothing is known but what is in a complete list of this version with these names, or
    /// came after it.
    fn holds_no_other(&self, names: &BTreeSet<String>, list: u64) -> bool {
        let mut known = self.known.iter();
        known.all(|(name, known)| known.version > list || names.contains(&**name))
    }
}

impl Identities {
    /// Takes in a RegistrationEntry; `now` is in seconds since 1970.
    pub fn apply_registration_entry(&self, object: &RegistrationEntry, now: i64) {
        let mut state = self.lock();
        state.registrations.now = now;
        let (old, new) = state.registrations.apply(object);
        self.exchange(&mut state, old.as_ref(), new.as_ref());
    }

    /// A RegistrationEntry of this `resourceVersion` does not decode; what was known of it stays.
    pub fn skip_registration_entry(&self, version: Option<&str>) {
        self.lock().registrations.see(version_of(version));
        self.seen_registrations.send_replace(());
    }

    /// The RegistrationEntry with this name is gone.
    pub fn delete_registration_entry(&self, name: &str) {
        let mut state = self.lock();
        let old = state.registrations.known.remove(name);
        let old = old.and_then(|old| old.entry);
        self.exchange(&mut state, old.as_ref(), None);
    }

    fn exchange(&self, state: &mut State, old: Option<&Arc<Entry>>, new: Option<&Arc<Entry>>) {
        let now = state.registrations.now;
        for (name, domain) in &mut state.domains {
            let trust_domain = domain.registry.settings().cluster.trust_domain.clone();
            let is_ours = |entry: &&Arc<Entry>| entry.spiffe_id.is_member_of(&trust_domain);
            let changes = match (old.filter(is_ours), new.filter(is_ours)) {
                (_, Some(new)) => domain.registry.apply_registration_entry(new, now),
                (Some(old), None) => domain.registry.delete_registration_entry(&old.source.name),
                (None, None) => continue,
            };
            self.publish(name, domain, changes);
        }
        self.settle(state);
        self.seen_registrations.send_replace(());
    }

    /// A list of all RegistrationEntries begins.
    pub fn list_registration_entries(&self) {
        self.lock().registrations.listing = Some(0);
    }

    /// All RegistrationEntries that are there have these names.
    pub fn retain_registration_entries(&self, names: &BTreeSet<String>) {
        let gone: Vec<_> = {
            let mut state = self.lock();
            let registrations = &mut state.registrations;
            if let Some(highest) = registrations.listing.take() {
                registrations.seen_to = highest.max(registrations.seen_to);
            }
            let known = registrations.known.keys();
            known
                .filter(|name| !names.contains(&***name))
                .cloned()
                .collect()
        };
        gone.iter()
            .for_each(|name| self.delete_registration_entry(name));
        self.listed(List::RegistrationEntries);
        self.seen_registrations.send_replace(());
    }

    /// Entries that expire by `now`, in seconds since 1970, count no more.
    pub fn expire_entries(&self, now: i64) {
        let mut state = self.lock();
        state.registrations.now = now;
        let mut is_news = false;
        for (name, domain) in &mut state.domains {
            let changes = domain.registry.expire_entries(now);
            is_news |= !changes.is_empty();
            self.publish(name, domain, changes);
        }
        if is_news {
            self.settle(&mut state);
        }
    }

    /// The RegistrationEntries whose time is over at `now`, in seconds since 1970.
    #[must_use]
    pub fn expired_registration_entries(&self, now: i64) -> Vec<Expired> {
        let state = self.lock();
        let known = state.registrations.known.iter();
        let expired = known.filter(|(_, known)| {
            let entry = known.entry.as_ref();
            let expiry = entry.and_then(|entry| entry.expires_at());
            expiry.is_some_and(|at| at <= now)
        });
        expired
            .map(|(name, known)| Expired {
                name: name.clone(),
                uid: known.uid.clone(),
                version: known.version,
            })
            .collect()
    }

    /// Another entry that says the same as the one of a RegistrationEntry that has been seen, and
    /// came before it or masks it.
    #[must_use]
    pub fn rival_before(&self, domain: &str, entry: &Entry) -> Option<Arc<Entry>> {
        let state = self.lock();
        let first = |name: &str| Some(state.registrations.known.get(name)?.first_version);
        let own = first(&entry.source.name)?;
        let registry = &state.domains.get(domain)?.registry;
        let others = registry.same_entries(entry);
        let mut others = others.filter(|other| other.source.uid != entry.source.uid);
        let earlier = others.find(|other| {
            first(&other.source.name).is_some_and(|other| other < own) && other.registered.is_some()
        });
        let winner = registry.same_entry(entry);
        let masks = winner.filter(|winner| winner.registered.is_none());
        earlier.or(masks).cloned()
    }

    /// Waits until the changes of RegistrationEntries up to `version` have been seen.
    pub async fn saw_registration_entry(&self, version: u64) {
        self.registrations_such_that(|known| known.seen_to >= version)
            .await;
    }

    /// Waits until it has been seen that the RegistrationEntry with this name and UID is gone.
    pub async fn saw_no_registration_entry(&self, name: &str, uid: &str) {
        self.registrations_such_that(|all| {
            all.known.get(name).is_none_or(|known| *known.uid != *uid)
        })
        .await;
    }

    /// Waits until all has been seen that a complete list of RegistrationEntries shows: their names,
    /// the highest of their versions, and the version of the list.
    pub async fn saw_registration_entries(
        &self,
        names: &BTreeSet<String>,
        highest: u64,
        list: u64,
    ) {
        self.registrations_such_that(|all| {
            all.seen_to >= highest && all.holds_no_other(names, list)
        })
        .await;
    }

    async fn registrations_such_that(&self, holds: impl Fn(&Registrations) -> bool) {
        let mut changes = self.seen_registrations.subscribe();
        while !holds(&self.lock().registrations) {
            // Fails only without a sender, which lives as long as `self`.
            let _ = changes.changed().await;
        }
    }
}

/// A `resourceVersion` as a number, by which those of one kind can be compared; what is none counts
/// as older than all.
fn version_of(version: Option<&str>) -> u64 {
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use serde_json::json;

    use super::*;
    use crate::registration::{EntryId, registration_entry_name};
    use crate::runtime::metrics::Metrics;

    fn object(id: &str, version: u64, changes: &serde_json::Value) -> RegistrationEntry {
        let trust_domain = "e.org".parse().unwrap();
        let mut spec = json!({
            "entryID": id,
            "spiffeID": "spiffe://e.org/web",
            "parentID": "spiffe://e.org/agent",
            "selectors": ["a:b"],
        });
        let fields = spec.as_object_mut().unwrap();
        fields.extend(changes.as_object().unwrap().clone());
        let object = json!({
            "apiVersion": "spiffe-operator.io/v1alpha1",
            "kind": "RegistrationEntry",
            "metadata": {
                "name": registration_entry_name(&trust_domain, &EntryId::from_text(id)),
                "uid": id, "resourceVersion": version.to_string(), "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    /// Serves the trust domain `e.org` as `e`, and has seen all there is: nothing.
    fn settled() -> Identities {
        let identities = Identities::new(Arc::new(Metrics::new()));
        let spec = json!({"trustDomain": "e.org", "authority": {"selfSigned": {}}});
        let spec = serde_json::from_value(spec).unwrap();
        identities.set_domain("e", &spec).unwrap();
        List::ALL
            .into_iter()
            .for_each(|list| identities.listed(list));
        identities
    }

    fn ids(identities: &Identities) -> Vec<String> {
        let entries = identities.entries_after("e", None, 100).unwrap();
        entries.iter().map(|entry| entry.id.to_string()).collect()
    }

    fn entry(object: &RegistrationEntry) -> Entry {
        parse_registration_entry(object).unwrap()
    }

    #[test]
    fn entries_come_change_expire_and_go() {
        let identities = settled();
        let hint = |hint: &str| json!({"hint": hint, "expiresAt": 100});
        let first = object("a", 1, &hint("first"));
        identities.apply_registration_entry(&first, 10);
        identities.apply_registration_entry(&object("a", 2, &hint("second")), 10);
        let found = identities.entry("e", &EntryId::from_text("a")).unwrap();
        assert_eq!(found.unwrap().hint.as_deref(), Some("second"));
        let broken = object("a", 3, &json!({"parentID": "spiffe://f.org/p"}));
        identities.apply_registration_entry(&broken, 10);
        assert_eq!(ids(&identities), ["a"], "an error takes nothing away");
        identities.expire_entries(99);
        assert_eq!(ids(&identities), ["a"]);
        assert!(identities.expired_registration_entries(99).is_empty());
        identities.expire_entries(100);
        assert_eq!(ids(&identities), [""; 0]);
        let expired = identities.expired_registration_entries(100);
        assert_eq!((expired.len(), expired[0].version), (1, 3));

        identities.remove_domain("e");
        let spec = json!({"trustDomain": "e.org", "authority": {"selfSigned": {}}});
        let spec = serde_json::from_value(spec).unwrap();
        identities.set_domain("e", &spec).unwrap();
        assert_eq!(
            ids(&identities),
            [""; 0],
            "expired is expired for those that come later"
        );

        identities.apply_registration_entry(&object("b", 4, &json!({})), 100);
        assert_eq!(ids(&identities), ["b"]);
        identities.retain_registration_entries(&BTreeSet::new());
        assert_eq!(ids(&identities), [""; 0]);
    }

    #[test]
    fn of_two_that_say_the_same_the_one_that_was_seen_first_came_before() {
        let identities = settled();
        let (first, second) = (object("z", 1, &json!({})), object("a", 2, &json!({})));
        identities.apply_registration_entry(&first, 0);
        identities.apply_registration_entry(&second, 0);
        // It was updated since.
        identities.apply_registration_entry(&object("z", 3, &json!({})), 0);
        let rival = |object| identities.rival_before("e", &entry(object));
        assert_eq!(rival(&first), None);
        let before = rival(&second).unwrap();
        assert_eq!(before.id, EntryId::from_text("z"));
        let other = object("b", 4, &json!({"selectors": ["a:c"]}));
        identities.apply_registration_entry(&other, 0);
        assert_eq!(rival(&other), None);
    }

    #[test]
    fn of_two_that_say_the_same_a_list_shows_the_same_one_first() {
        let identities = settled();
        let (first, second) = (object("z", 1, &json!({})), object("a", 2, &json!({})));
        identities.list_registration_entries();
        identities.apply_registration_entry(&second, 0);
        identities.apply_registration_entry(&first, 0);
        let rival = |object| identities.rival_before("e", &entry(object));
        assert_eq!(rival(&first), None);
        assert_eq!(rival(&second).unwrap().id, EntryId::from_text("z"));
    }

    #[test]
    fn what_does_not_decode_was_seen_all_the_same() {
        let identities = settled();
        let all = |names: &[&str], highest| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let seen = identities.saw_registration_entries(&names, highest, highest);
            seen.now_or_never()
        };
        assert_eq!(all(&["broken"], 5), None);
        identities.skip_registration_entry(Some("5"));
        assert_eq!(all(&["broken"], 5), Some(()));
        identities.list_registration_entries();
        identities.skip_registration_entry(Some("8"));
        assert_eq!(all(&["broken"], 8), None, "the list is not complete");
        identities.retain_registration_entries(&BTreeSet::from(["broken".to_owned()]));
        assert_eq!(all(&["broken"], 8), Some(()));
    }

    #[test]
    fn whoever_wrote_waits_until_it_was_seen() {
        let identities = settled();
        let saw = |version| identities.saw_registration_entry(version).now_or_never();
        assert_eq!(saw(5), None);
        identities.apply_registration_entry(&object("a", 5, &json!({})), 0);
        assert_eq!(saw(5), Some(()));
        identities.list_registration_entries();
        identities.apply_registration_entry(&object("b", 8, &json!({})), 0);
        assert_eq!(saw(7), None, "what a list has not shown yet may be older");
        let name = |id| registration_entry_name(&"e.org".parse().unwrap(), &EntryId::from_text(id));
        let names = BTreeSet::from([name("a"), name("b")]);
        identities.retain_registration_entries(&names);
        assert_eq!(saw(7), Some(()));

        let gone = |uid: &str| {
            identities
                .saw_no_registration_entry(&name("a"), uid)
                .now_or_never()
        };
        assert_eq!((gone("a"), gone("an earlier one")), (None, Some(())));
        let all = |names, highest, list| {
            identities
                .saw_registration_entries(names, highest, list)
                .now_or_never()
        };
        assert_eq!(all(&names, 8, 9), Some(()));
        assert_eq!(all(&names, 9, 9), None, "something newer was not seen");
        let rest = BTreeSet::from([name("b")]);
        assert_eq!(all(&rest, 8, 9), None, "that one is gone was not seen");
        assert_eq!(all(&rest, 8, 4), Some(()), "it came after the list");
        identities.delete_registration_entry(&name("a"));
        assert_eq!((all(&rest, 8, 9), gone("a")), (Some(()), Some(())));
    }

    #[tokio::test]
    async fn a_wait_ends_with_the_news() {
        let identities = Arc::new(settled());
        let waiting = {
            let identities = identities.clone();
            tokio::spawn(async move { identities.saw_registration_entry(5).await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        identities.apply_registration_entry(&object("a", 6, &json!({})), 0);
        waiting.await.unwrap();
    }
}
