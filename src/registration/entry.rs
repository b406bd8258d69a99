//! Registration entries: what they hold, and when two are the same.
//!
//! Invariant: an [`Entry`] obeys the rules of spire-server, which refuses the rest
//! ([`super::entry_error`]). Making one for a pod is [`super::pod_entry`]; which of two equal ones
//! counts is [`super::masking`].

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::{
    entry_error::EntryError,
    entry_id::{EntryId, revision},
};
use crate::spiffe::{SpiffeId, TrustDomainName};

/// The path of the server's SPIFFE ID.
const SERVER_PATH: &str = "/spire/server";
/// What a selector of a pod's UID starts with.
const POD_UID: &str = "k8s:pod-uid:";

/// A registration entry: who has these selectors under this parent is this SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What makes it distinct.
    pub key: EntryKey,
    /// What it is called.
    pub id: EntryId,
    /// A positive number that another content would not have.
    pub revision: i64,
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// The agent or server that the entry is delegated to.
    pub parent_id: SpiffeId,
    /// What the workload must have, without repetition. That of the pod's UID comes first.
    pub selectors: Vec<EntrySelector>,
    /// Lifetime of X.509-SVIDs in whole seconds; none for the trust domain's default.
    pub x509_ttl: Option<Duration>,
    /// Lifetime of JWT-SVIDs in whole seconds; none for the trust domain's default.
    pub jwt_ttl: Option<Duration>,
    /// DNS names, in the order the certificate carries them.
    pub dns_names: Vec<String>,
    /// Trust domains whose bundles the workload gets, as far as they are known.
    pub federates_with: Vec<TrustDomainName>,
    /// Whether the workload may call the server's administrative API.
    pub admin: bool,
    /// Whether the workload is a downstream server.
    pub downstream: bool,
    /// Whether agents store the SVID with an SVID store plugin.
    pub store_svid: bool,
    /// Hint for workloads that hold several identities.
    pub hint: Option<Arc<str>>,
    /// The object that declares it.
    pub source: Arc<Source>,
    /// The pod it was made for.
    pub pod: Option<PodRef>,
    /// What only an entry has that was made through the Entry API.
    pub registered: Option<Box<Registered>>,
}

/// What only an entry has that was made through the Entry API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The generation of the RegistrationEntry: 1, and one more with every update.
    pub generation: i64,
    /// From when on it does not count, in seconds since 1970.
    pub expires_at: Option<i64>,
    /// Attributes, when the caller gave any.
    pub attributes: Option<AdditionalAttributes>,
}

/// Further attributes of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdditionalAttributes {
    /// Agents fetch the X.509-SVID only once a workload asks for it.
    pub disable_x509_svid_prefetch: bool,
    /// JWT-SVIDs carry an ID of their own (`jti`).
    pub jwt_svid_include_jti: bool,
}

/// A pod, by all its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRef {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// UID.
    pub uid: Arc<str>,
}

/// The kind of object that declares an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceKind {
    /// A ClusterSPIFFEID.
    ClusterSpiffeId,
    /// A ClusterStaticEntry.
    ClusterStaticEntry,
    /// A RegistrationEntry, which holds what was made through the Entry API.
    RegistrationEntry,
    /// A NestedCluster, whose servers are downstream of this one.
    NestedCluster,
}

/// The object that declares an entry. The order of sources is that of precedence: of two that
/// declare the same entry, the smaller counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Kind of the object.
    pub kind: SourceKind,
    /// Name of the object.
    pub name: Arc<str>,
    /// UID of the object.
    pub uid: Arc<str>,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// Since when it is being deleted, in seconds since 1970.
    pub deleted: Option<i64>,
}

/// `type:value`, what a workload must have.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntrySelector {
    text: Arc<str>,
    colon: usize,
}

/// What makes an entry distinct: SPIFFE ID, parent ID and the set of selectors.
///
/// It is the SHA-256 of the two IDs, and then of the selectors sorted and without repetition, each
/// text with its length in bytes as 8 big-endian bytes before it. So no two entries share a key by
/// accident, as they may in spire-controller-manager, which puts no lengths in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryKey([u8; 32]);

impl Entry {
    /// The same entry with its [revision](Self::revision).
    pub(super) fn with_revision(mut self) -> Self {
        self.revision = revision(&self);
        self
    }

    /// From when on it does not count, in seconds since 1970; none when it never expires.
    #[must_use]
    pub fn expires_at(&self) -> Option<i64> {
        self.registered.as_ref()?.expires_at
    }

    /// Whether it is a node alias: agents that have its selectors may fetch the entries whose
    /// parent has its SPIFFE ID.
    #[must_use]
    pub fn is_node_alias(&self) -> bool {
        self.parent_id.path() == SERVER_PATH
    }
}

/// Adds `item` unless it is there.
pub(super) fn push_new<T: PartialEq>(items: &mut Vec<T>, item: T) {
    if !items.contains(&item) {
        items.push(item);
    }
}

impl EntryKey {
    /// The key of an entry.
    #[must_use]
    pub fn new(spiffe_id: &SpiffeId, parent_id: &SpiffeId, selectors: &[EntrySelector]) -> Self {
        let mut context = Context::new(&SHA256);
        let mut add = |text: &str| {
            let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
            context.update(&length.to_be_bytes());
            context.update(text.as_bytes());
        };
        add(spiffe_id.as_str());
        add(parent_id.as_str());
        let mut sorted: Vec<_> = selectors.iter().map(EntrySelector::as_str).collect();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.into_iter().for_each(add);
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        Self(key)
    }

    /// The key as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .take(8)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl EntrySelector {
    /// The selector that only the pod with this UID has.
    #[must_use]
    pub fn pod_uid(uid: &str) -> Self {
        Self {
            text: format!("{POD_UID}{uid}").into(),
            colon: "k8s".len(),
        }
    }

    /// The UID of the pod that it names, if it names one.
    pub(super) fn names_pod(&self) -> Option<&str> {
        self.text.strip_prefix(POD_UID)
    }

    /// Parses `type:value`; the first colon separates, and neither side is empty.
    ///
    /// # Errors
    /// When `value` has not that form.
    pub fn parse(value: &str) -> Result<Self, EntryError> {
        match value.find(':') {
            Some(colon) if colon > 0 && colon + 1 < value.len() => Ok(Self {
                text: value.into(),
                colon,
            }),
            _ => Err(EntryError::Selector {
                value: value.into(),
            }),
        }
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The type.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text.get(..self.colon).unwrap_or_default()
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &str {
        self.text.get(self.colon + 1..).unwrap_or_default()
    }
}

impl fmt::Debug for EntrySelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for EntrySelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl SourceKind {
    /// The kind's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterSpiffeId => "ClusterSPIFFEID",
            Self::ClusterStaticEntry => "ClusterStaticEntry",
            Self::RegistrationEntry => "RegistrationEntry",
            Self::NestedCluster => "NestedCluster",
        }
    }

    /// The API version of the kind.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::ClusterSpiffeId | Self::ClusterStaticEntry => "spire.spiffe.io/v1alpha1",
            Self::RegistrationEntry | Self::NestedCluster => "spiffe-operator.io/v1alpha1",
        }
    }
}

impl Source {
    /// The object of this kind with this metadata; none without a name.
    pub(super) fn of(kind: SourceKind, meta: &ObjectMeta) -> Option<Self> {
        let seconds = |time: &Time| time.0.as_second();
        Some(Self {
            kind,
            name: meta.name.as_deref()?.into(),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            created: meta.creation_timestamp.as_ref().map_or(0, seconds),
            deleted: meta.deletion_timestamp.as_ref().map(seconds),
        })
    }
}

impl Ord for Source {
    /// Older first, then what is not being deleted, then what is deleted later, then by UID.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let rank = |source: &Self| {
            (
                source.created,
                source.deleted.map_or(i64::MIN, |deleted| -deleted),
            )
        };
        rank(self)
            .cmp(&rank(other))
            .then_with(|| self.uid.cmp(&other.uid))
            .then_with(|| self.kind.cmp(&other.kind))
            .then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: &str) -> SpiffeId {
        value.parse().unwrap()
    }

    fn selectors(values: &[&str]) -> Vec<EntrySelector> {
        values
            .iter()
            .map(|value| EntrySelector::parse(value).unwrap())
            .collect()
    }

    #[test]
    fn the_key_is_id_parent_and_set_of_selectors() {
        let key = |id_: &str, parent: &str, values: &[&str]| {
            EntryKey::new(&id(id_), &id(parent), &selectors(values))
        };
        let (a, p) = ("spiffe://e.org/a", "spiffe://e.org/p");
        assert_eq!(
            key(a, p, &["k:a", "k:b"]),
            key(a, p, &["k:b", "k:a", "k:b"])
        );
        assert_ne!(key(a, p, &["k:a"]), key(a, p, &["k:b"]));
        assert_ne!(key(a, p, &["k:a"]), key(p, a, &["k:a"]));
        assert_ne!(key(a, p, &["k:ab", "k:c"]), key(a, p, &["k:abk:c"]));
    }

    #[test]
    fn a_selector_is_split_at_the_first_colon() {
        let selector = EntrySelector::parse("k8s:pod-label:a:b").unwrap();
        assert_eq!(
            (selector.kind(), selector.value()),
            ("k8s", "pod-label:a:b")
        );
        for value in ["", ":", "a", "a:", ":b"] {
            assert_eq!(
                EntrySelector::parse(value),
                Err(EntryError::Selector {
                    value: value.into()
                })
            );
        }
    }

    #[test]
    fn precedence_is_age_then_deletion_then_uid() {
        let source = |created, deleted, uid: &str| Source {
            kind: SourceKind::ClusterSpiffeId,
            name: "n".into(),
            uid: uid.into(),
            created,
            deleted,
        };
        let ordered = [
            source(1, Some(5), "z"),
            source(2, None, "a"),
            source(2, None, "b"),
            source(2, Some(9), "a"),
            source(2, Some(8), "a"),
        ];
        assert!(ordered.is_sorted(), "{ordered:?}");
    }
}
