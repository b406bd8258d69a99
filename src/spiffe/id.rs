//! SPIFFE IDs and trust domain names: the grammar of the SPIFFE-ID standard, as strict as
//! go-spiffe. Nothing is normalised: what does not follow the grammar is refused.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const SCHEME: &str = "spiffe://";
/// Longest trust domain name in bytes (SPIFFE-ID §2.1).
const MAX_TRUST_DOMAIN_LENGTH: usize = 255;
/// Longest SPIFFE ID in bytes, scheme included (SPIFFE-ID §2.3).
pub const MAX_ID_LENGTH: usize = 2048;

/// The name of a trust domain, such as `example.org`: 1 to 255 lower-case letters, digits, dots,
/// dashes and underscores (SPIFFE-ID §2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomainName(Arc<str>);

impl TrustDomainName {
    /// The name without the scheme.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SPIFFE ID of the trust domain itself, `spiffe://<name>`, as CA certificates carry it.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }

    /// Parses what `federatesWith` accepts: a bare name, or a SPIFFE ID whose trust domain counts.
    ///
    /// # Errors
    /// When neither form follows the grammar.
    pub fn from_name_or_id(value: &str) -> Result<Self, ParseTrustDomainError> {
        match value.strip_prefix(SCHEME) {
            Some(rest) => rest.split('/').next().unwrap_or_default().parse(),
            None => value.parse(),
        }
    }
}

impl FromStr for TrustDomainName {
    type Err = ParseTrustDomainError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        if value.is_empty() {
            return Err(ParseTrustDomainError::Empty);
        }
        if value.len() > MAX_TRUST_DOMAIN_LENGTH {
            return Err(ParseTrustDomainError::TooLong {
                length: value.len(),
            });
        }
        match value.chars().find(|c| !is_trust_domain_char(*c)) {
            Some(found) => Err(ParseTrustDomainError::BadCharacter { found }),
            None => Ok(Self(value.into())),
        }
    }
}

impl fmt::Display for TrustDomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE ID, such as `spiffe://example.org/ns/default/sa/web`. The path may be empty: that is
/// the ID of the trust domain itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    uri: Arc<str>,
    /// Where the path starts in `uri`.
    path: usize,
}

impl SpiffeId {
    /// The ID of the servers of `trust_domain`, `spiffe://<name>/spire/server`.
    #[must_use]
    pub fn of_server(trust_domain: &TrustDomainName) -> Self {
        let id = trust_domain.id();
        Self {
            path: id.len(),
            uri: (id + "/spire/server").into(),
        }
    }

    /// The whole URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The whole URI, shared with the ID.
    #[must_use]
    pub fn shared(&self) -> &Arc<str> {
        &self.uri
    }

    /// The path with its leading slash, or the empty string.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.get(self.path..).unwrap_or_default()
    }

    /// The trust domain's name.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.uri.get(SCHEME.len()..self.path).unwrap_or_default()
    }

    /// Whether the ID belongs to `trust_domain`.
    #[must_use]
    pub fn is_member_of(&self, trust_domain: &TrustDomainName) -> bool {
        self.trust_domain() == trust_domain.as_str()
    }
}

impl FromStr for SpiffeId {
    type Err = ParseSpiffeIdError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let Some(rest) = value.strip_prefix(SCHEME) else {
            return Err(ParseSpiffeIdError::Scheme);
        };
        if value.len() > MAX_ID_LENGTH {
            return Err(ParseSpiffeIdError::TooLong {
                length: value.len(),
            });
        }
        let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        trust_domain
            .parse::<TrustDomainName>()
            .map_err(|source| ParseSpiffeIdError::TrustDomain { source })?;
        check_path(path)?;
        Ok(Self {
            path: SCHEME.len() + trust_domain.len(),
            uri: value.into(),
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.uri)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl Serialize for TrustDomainName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TrustDomainName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Why a string is no trust domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTrustDomainError {
    /// A character outside `[a-z0-9._-]`.
    #[error(
        "trust domain has the character {found:?}; only a-z, 0-9, '.', '-' and '_' are allowed"
    )]
    BadCharacter {
        /// The first such character.
        found: char,
    },
    /// No name at all.
    #[error("trust domain is missing")]
    Empty,
    /// Longer than 255 bytes.
    #[error("trust domain has {length} bytes; 255 are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

/// Why a string is no SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseSpiffeIdError {
    /// A character outside `[a-zA-Z0-9._-]` in a path segment.
    #[error("path has the character {found:?}; only letters, digits, '.', '-' and '_' are allowed")]
    BadPathCharacter {
        /// The first such character.
        found: char,
    },
    /// A segment that is `.` or `..`.
    #[error("path must not have dot segments")]
    DotSegment,
    /// Two slashes in a row.
    #[error("path must not have empty segments")]
    EmptySegment,
    /// The scheme is not exactly `spiffe://`.
    #[error("must start with spiffe://")]
    Scheme,
    /// Longer than 2048 bytes.
    #[error("has {length} bytes; 2048 are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The path ends in a slash.
    #[error("path must not end with a slash")]
    TrailingSlash,
    /// The trust domain part does not follow the grammar.
    #[error("{source}")]
    TrustDomain {
        /// What is wrong with it.
        source: ParseTrustDomainError,
    },
}

fn is_trust_domain_char(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_')
}

fn is_path_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

fn check_path(path: &str) -> Result<(), ParseSpiffeIdError> {
    let Some(segments) = path.strip_prefix('/') else {
        return Ok(());
    };
    if segments.is_empty() || segments.ends_with('/') {
        return Err(ParseSpiffeIdError::TrailingSlash);
    }
    for segment in segments.split('/') {
        match segment {
            "" => return Err(ParseSpiffeIdError::EmptySegment),
            "." | ".." => return Err(ParseSpiffeIdError::DotSegment),
            _ => {}
        }
        if let Some(found) = segment.chars().find(|c| !is_path_char(*c)) {
            return Err(ParseSpiffeIdError::BadPathCharacter { found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_standard_allows() {
        for id in [
            "spiffe://example.org",
            "spiffe://a_b-c.d/ns/Default/sa/web_1",
            "spiffe://x/...",
        ] {
            let parsed: SpiffeId = id.parse().unwrap();
            assert_eq!(parsed.as_str(), id);
        }
        let id: SpiffeId = "spiffe://example.org/a/b".parse().unwrap();
        assert_eq!((id.trust_domain(), id.path()), ("example.org", "/a/b"));
    }

    #[test]
    fn refuses_what_go_spiffe_refuses() {
        use ParseSpiffeIdError as E;
        let td = |source| E::TrustDomain { source };
        for (id, error) in [
            ("", E::Scheme),
            ("SPIFFE://example.org/a", E::Scheme),
            ("https://example.org/a", E::Scheme),
            ("spiffe://", td(ParseTrustDomainError::Empty)),
            ("spiffe:///a", td(ParseTrustDomainError::Empty)),
            (
                "spiffe://Example.org/a",
                td(ParseTrustDomainError::BadCharacter { found: 'E' }),
            ),
            (
                "spiffe://e.org:80/a",
                td(ParseTrustDomainError::BadCharacter { found: ':' }),
            ),
            ("spiffe://e.org/", E::TrailingSlash),
            ("spiffe://e.org/a/", E::TrailingSlash),
            ("spiffe://e.org//a", E::EmptySegment),
            ("spiffe://e.org/a/../b", E::DotSegment),
            ("spiffe://e.org/a%20b", E::BadPathCharacter { found: '%' }),
            (
                "spiffe://e.org/<no value>",
                E::BadPathCharacter { found: '<' },
            ),
            ("spiffe://e.org/a?b", E::BadPathCharacter { found: '?' }),
        ] {
            assert_eq!(id.parse::<SpiffeId>(), Err(error), "{id}");
        }
        let long = format!("spiffe://e.org/{}", "a".repeat(2048));
        assert_eq!(
            long.parse::<SpiffeId>(),
            Err(E::TooLong { length: long.len() })
        );
    }

    #[test]
    fn federates_with_accepts_a_name_and_an_id() {
        for value in [
            "example.org",
            "spiffe://example.org",
            "spiffe://example.org/any/path",
        ] {
            let name = TrustDomainName::from_name_or_id(value).unwrap();
            assert_eq!(name.as_str(), "example.org");
        }
        assert!(TrustDomainName::from_name_or_id("https://example.org").is_err());
    }
}
