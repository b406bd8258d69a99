//! What an entry is called, and the number that tells one state of it from another.
//!
//! Invariant: both are functions of content. Every replica finds the same ones, so an agent that asks
//! another replica at every call fetches nothing anew.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{Context, SHA256};

use super::entry::{Entry, EntryKey};
use crate::spiffe::TrustDomainName;

/// Longest ID that a caller may choose, in bytes, as spire-server has it.
const MAX_LENGTH: usize = 255;
/// Where a UUID has its hyphens.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];
/// The version of UUIDs whose meaning is the maker's own (RFC 9562 §5.8).
const OWN_MEANING: u8 = 8;

/// What an entry is called.
///
/// Entries that follow from objects and pods have a UUID of version 8, made of a hash; those that
/// were made through the Entry API have another: a random UUID, or what the caller chose. So the two
/// never meet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryId {
    /// A UUID in its canonical form.
    Uuid([u8; 16]),
    /// Any other name.
    Name(Arc<str>),
}

/// Why a text cannot be the ID of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryIdError {
    /// A character other than letters, digits, `-`, `.` and `_`.
    #[error("entry ID contains invalid characters")]
    Characters,
    /// No text at all.
    #[error("missing entry ID")]
    Empty,
    /// Longer than 255 bytes.
    #[error("entry ID too long")]
    TooLong,
    /// A UUID of version 8.
    #[error(
        "entry ID is a UUID of version 8, which only entries have that follow from Kubernetes objects"
    )]
    Version8,
}

impl EntryId {
    /// The ID of the entry with this key that follows from the objects of the cluster `cluster`.
    #[must_use]
    pub fn derived(cluster: &str, key: &EntryKey) -> Self {
        let mut content = Content::new();
        content.text(cluster);
        content.bytes(key.as_bytes());
        let mut uuid = content.finish::<16>();
        let [_, _, _, _, _, _, version, _, variant, ..] = &mut uuid;
        *version = (*version & 0x0f) | (OWN_MEANING << 4);
        *variant = (*variant & 0x3f) | 0x80;
        Self::Uuid(uuid)
    }

    /// The random ID that `bytes` make: a UUID of version 4.
    #[must_use]
    pub fn random(mut bytes: [u8; 16]) -> Self {
        let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
        *version = (*version & 0x0f) | (4 << 4);
        *variant = (*variant & 0x3f) | 0x80;
        Self::Uuid(bytes)
    }

    /// The ID that a caller chose for an entry.
    ///
    /// # Errors
    /// When spire-server would refuse it, or it has the form of a derived one.
    pub fn chosen(text: &str) -> Result<Self, EntryIdError> {
        if text.is_empty() {
            return Err(EntryIdError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(EntryIdError::TooLong);
        }
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if !text.chars().all(is_allowed) {
            return Err(EntryIdError::Characters);
        }
        let id = Self::from_text(text);
        if id.is_derived() {
            return Err(EntryIdError::Version8);
        }
        Ok(id)
    }

    /// The ID that is written so, whether or not any entry can have it.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        parse_uuid(text).map_or_else(|| Self::Name(text.into()), Self::Uuid)
    }

    /// Whether it has the form of the ID of an entry that follows from objects and pods.
    #[must_use]
    pub fn is_derived(&self) -> bool {
        matches!(self, Self::Uuid([_, _, _, _, _, _, version, ..]) if version >> 4 == OWN_MEANING)
    }
}

/// The bytes of a UUID in lower case with hyphens; every other text is none, so that no two texts
/// are the same ID.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut uuid = [0; 16];
    let mut digits = 0;
    for (at, byte) in text.bytes().enumerate() {
        if HYPHENS.contains(&at) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        let into = uuid.get_mut(digits / 2)?;
        *into = (*into << 4) | digit;
        digits += 1;
    }
    (digits == 32).then_some(uuid)
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Uuid(uuid) => {
                for (at, byte) in uuid.iter().enumerate() {
                    if matches!(at, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A positive number that differs, but by a chance of 1 in 2^63, between entries that say anything
/// different: an agent that knows it need not fetch the entry again.
pub(super) fn revision(entry: &Entry) -> i64 {
    let mut content = Content::new();
    content.text(&entry.id.to_string());
    content.text(entry.spiffe_id.as_str());
    content.text(entry.parent_id.as_str());
    content.texts(entry.selectors.iter().map(super::EntrySelector::as_str));
    for ttl in [entry.x509_ttl, entry.jwt_ttl] {
        content.number(ttl.map_or(0, |ttl| i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)));
    }
    content.texts(entry.dns_names.iter().map(String::as_str));
    content.texts(entry.federates_with.iter().map(TrustDomainName::as_str));
    for flag in [entry.admin, entry.downstream, entry.store_svid] {
        content.number(flag.into());
    }
    content.text(entry.hint.as_deref().unwrap_or_default());
    content.number(entry.source.created);
    if let Some(registered) = &entry.registered {
        content.number(registered.generation);
        content.number(registered.expires_at.unwrap_or_default());
        let attributes = registered.attributes.unwrap_or_default();
        content.number(registered.attributes.is_some().into());
        content.number(attributes.disable_x509_svid_prefetch.into());
        content.number(attributes.jwt_svid_include_jti.into());
    }
    let number = u64::from_be_bytes(content.finish::<8>()) >> 1;
    i64::try_from(number).unwrap_or(i64::MAX).max(1)
}

/// A hash over parts that cannot run into one another.
pub(super) struct Content(Context);

impl Content {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.0.update(&length.to_be_bytes());
        self.0.update(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn texts<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a str>) {
        self.number(i64::try_from(texts.len()).unwrap_or(i64::MAX));
        texts.for_each(|text| self.text(text));
    }

    fn number(&mut self, number: i64) {
        self.0.update(&number.to_be_bytes());
    }

    /// The first `N` bytes of it; a hash has 32.
    pub(super) fn finish<const N: usize>(self) -> [u8; N] {
        let mut beginning = [0; N];
        let digest = self.0.finish();
        let bytes = beginning.iter_mut().zip(digest.as_ref());
        bytes.for_each(|(into, byte)| *into = *byte);
        beginning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_what_the_caller_chose_by_the_rules_of_spire_server() {
        let uuid = "0f2b4c6d-8e9f-4a1b-8c2d-3e4f5a6b7c8d";
        for text in [uuid, "a", "web-1.prod_X", &"x".repeat(255)] {
            assert_eq!(EntryId::chosen(text).unwrap().to_string(), text);
        }
        assert!(matches!(EntryId::chosen(uuid), Ok(EntryId::Uuid(_))));
        for (text, error) in [
            ("", EntryIdError::Empty),
            ("a b", EntryIdError::Characters),
            ("a/b", EntryIdError::Characters),
            ("é", EntryIdError::Characters),
            (
                "0f2b4c6d-8e9f-8a1b-8c2d-3e4f5a6b7c8d",
                EntryIdError::Version8,
            ),
        ] {
            assert_eq!(EntryId::chosen(text), Err(error), "{text}");
        }
        let long = "x".repeat(256);
        assert_eq!(EntryId::chosen(&long), Err(EntryIdError::TooLong));
    }

    #[test]
    fn no_two_texts_are_the_same_id() {
        let uuid = "0f2b4c6d-8e9f-4a1b-8c2d-3e4f5a6b7c8d";
        let others = [
            uuid.to_uppercase(),
            uuid.replace('-', ""),
            format!("{uuid}0"),
            uuid.replace('0', "g"),
            uuid.replace('-', "_"),
        ];
        for other in others {
            let id = EntryId::from_text(&other);
            assert!(matches!(id, EntryId::Name(_)), "{other}");
            assert_eq!(id.to_string(), other);
        }
    }

    #[test]
    fn a_derived_id_is_a_uuid_that_nobody_else_can_choose() {
        let key = |path: &str| {
            let id = |path: &str| format!("spiffe://e.org/{path}").parse().unwrap();
            let selector = super::super::EntrySelector::parse("a:b").unwrap();
            EntryKey::new(&id(path), &id("parent"), &[selector])
        };
        let id = EntryId::derived("west", &key("a"));
        let text = id.to_string();
        assert_eq!((text.len(), text.get(14..15)), (36, Some("8")), "{text}");
        assert_eq!(EntryId::from_text(&text), id);
        assert_eq!(EntryId::chosen(&text), Err(EntryIdError::Version8));
        assert_eq!(id, EntryId::derived("west", &key("a")));
        assert_ne!(id, EntryId::derived("east", &key("a")));
        assert_ne!(id, EntryId::derived("west", &key("b")));
        let random = EntryId::random([0xff; 16]).to_string();
        assert_eq!(random, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert!(EntryId::chosen(&random).is_ok());
    }
}
