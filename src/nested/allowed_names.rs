//! What a child cluster's entries may be called (`allowedIDs` and `allowedDNSNames` of a
//! NestedCluster), whoever declared them.
//!
//! A child can invent namespaces and service accounts, so what its API server says proves nothing
//! but that it said so. A pattern is matched part by part, so that `*` never reaches over a slash or
//! a dot.

use crate::spiffe::SpiffeId;

const ANY_PARTS: &str = "**";

/// Patterns of paths, and of DNS names. Without patterns, anything goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedNames {
    ids: Option<Vec<Vec<String>>>,
    dns_names: Option<Vec<Vec<String>>>,
}

/// Why a pattern is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// A pattern of a path.
    #[error(
        "{pattern:?} is no pattern of a path; write for instance \"/ns/*/sa/web-*\" or \"/ns/**\""
    )]
    Id {
        /// The pattern.
        pattern: String,
    },
    /// A pattern of a DNS name.
    #[error(
        "{pattern:?} is no pattern of a DNS name; write for instance \"*.example.org\" or \
         \"**.example.org\""
    )]
    DnsName {
        /// The pattern.
        pattern: String,
    },
}

impl AllowedNames {
    /// Reads the patterns of a NestedCluster.
    ///
    /// # Errors
    /// The first pattern that is none.
    pub fn parse(
        ids: Option<&[String]>,
        dns_names: Option<&[String]>,
    ) -> Result<Self, PatternError> {
        Ok(Self {
            ids: ids
                .map(|it| it.iter().map(|it| id_pattern(it)).collect())
                .transpose()?,
            dns_names: dns_names
                .map(|it| it.iter().map(|it| dns_name_pattern(it)).collect())
                .transpose()?,
        })
    }

    /// Whether any ID goes: then the cluster is trusted as much as the one that it is nested in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.ids.is_none()
    }

    /// Whether an entry of the cluster may have `id`.
    #[must_use]
    pub fn allow_id(&self, id: &SpiffeId) -> bool {
        let Some(patterns) = &self.ids else {
            return true;
        };
        let path: Vec<&str> = id.path().split('/').skip(1).collect();
        patterns.iter().any(|pattern| matches_parts(pattern, &path))
    }

    /// Whether an entry of the cluster may have the DNS name `name`, in upper or lower case.
    #[must_use]
    pub fn allow_dns_name(&self, name: &str) -> bool {
        let Some(patterns) = &self.dns_names else {
            return true;
        };
        let name = name.to_ascii_lowercase();
        let labels: Vec<&str> = name.split('.').rev().collect();
        patterns
            .iter()
            .any(|pattern| matches_parts(pattern, &labels))
    }
}

/// The segments of a pattern; `**` may be the last.
fn id_pattern(pattern: &str) -> Result<Vec<String>, PatternError> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    pattern
        .strip_prefix('/')
        .and_then(|path| parts(path.split('/'), is_good))
        .ok_or_else(|| PatternError::Id {
            pattern: pattern.into(),
        })
}

/// The labels of a pattern, the last one first; `**` may be the last of these.
fn dns_name_pattern(pattern: &str) -> Result<Vec<String>, PatternError> {
    let is_good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    parts(pattern.split('.').rev(), is_good).ok_or_else(|| PatternError::DnsName {
        pattern: pattern.into(),
    })
}

fn parts<'a>(
    parts: impl Iterator<Item = &'a str>,
    is_good: impl Fn(u8) -> bool,
) -> Option<Vec<String>> {
    let parts: Vec<String> = parts.map(str::to_owned).collect();
    let before = match parts.split_last() {
        Some((last, before)) if last == ANY_PARTS => before,
        _ => parts.as_slice(),
    };
    let is_part = |part: &String| {
        !part.is_empty()
            && !part.contains(ANY_PARTS)
            && part.bytes().all(|byte| byte == b'*' || is_good(byte))
    };
    before.iter().all(is_part).then_some(parts)
}

fn matches_parts(pattern: &[String], parts: &[&str]) -> bool {
    match (pattern, parts) {
        ([], []) => true,
        ([last], [_, ..]) if last == ANY_PARTS => true,
        ([first, pattern @ ..], [part, parts @ ..]) => {
            matches_part(first, part) && matches_parts(pattern, parts)
        }
        _ => false,
    }
}

/// Whether `part` is `pattern` with any characters in place of each `*`.
fn matches_part(pattern: &str, part: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == part;
    };
    let Some(mut part) = part.strip_prefix(start) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some((_, after)) = part.split_once(piece) else {
            return false;
        };
        part = after;
    }
    part.ends_with(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(patterns: &[&str]) -> AllowedNames {
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        AllowedNames::parse(Some(&patterns), None).unwrap()
    }

    fn dns_names(patterns: &[&str]) -> AllowedNames {
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        AllowedNames::parse(None, Some(&patterns)).unwrap()
    }

    #[test]
    fn ids_are_matched_segment_by_segment() {
        for (pattern, path, expected) in [
            ("/a", "/a", true),
            ("/a", "/A", false),
            ("/a", "/a/b", false),
            ("/ns/*/sa/*", "/ns/x/sa/y", true),
            ("/ns/*/sa/*", "/ns/x/sa/y/z", false),
            ("/ns/*/sa/*", "/ns/x/y/sa/z", false),
            ("/ns/*/sa/web-*", "/ns/x/sa/web-1", true),
            ("/ns/*/sa/web-*", "/ns/x/sa/web-", true),
            ("/ns/*/sa/web-*", "/ns/x/sa/other", false),
            ("/a*b*c", "/abc", true),
            ("/a*b*c", "/axxbyyc", true),
            ("/a*b*c", "/acb", false),
            ("/a*a", "/a", false),
            ("/a*bc*bc", "/abc", false),
            ("/a*bc*bc", "/abcbc", true),
            ("/cluster/child01/**", "/cluster/child01/x/y/z", true),
            ("/cluster/child01/**", "/cluster/child01/x", true),
            ("/cluster/child01/**", "/cluster/child01", false),
            ("/cluster/child01/**", "/cluster/child011/x", false),
            ("/**", "/a/b", true),
        ] {
            let id = format!("spiffe://example.org{path}").parse().unwrap();
            assert_eq!(ids(&[pattern]).allow_id(&id), expected, "{pattern} {path}");
        }
        let own = "spiffe://example.org".parse().unwrap();
        assert!(
            !ids(&["/**"]).allow_id(&own),
            "the trust domain's own ID is no workload's"
        );
        let id = "spiffe://example.org/b".parse().unwrap();
        assert!(ids(&["/a", "/b"]).allow_id(&id));
        assert!(AllowedNames::default().allow_id(&id) && AllowedNames::default().is_open());
        assert!(!ids(&["/**"]).is_open());
    }

    #[test]
    fn dns_names_are_matched_label_by_label() {
        for (pattern, name, expected) in [
            ("web", "web", true),
            ("web", "WEB", true),
            ("web", "web.ns", false),
            ("*.ns.svc", "web.ns.svc", true),
            ("*.ns.svc", "a.b.ns.svc", false),
            ("*.ns.svc", "*.ns.svc", true),
            ("web-*.ns.svc", "*.ns.svc", false),
            ("web-*.ns.svc", "web-1.ns.svc", true),
            ("**.example.org", "a.b.example.org", true),
            ("**.example.org", "*.example.org", true),
            ("**.example.org", "example.org", false),
            ("**.example.org", "evilexample.org", false),
            ("*.example.org", "a.example.org.evil", false),
            ("**", "anything.at.all", true),
        ] {
            let allowed = dns_names(&[pattern]).allow_dns_name(name);
            assert_eq!(allowed, expected, "{pattern} {name}");
        }
        assert!(AllowedNames::default().allow_dns_name("a"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in [
            "",
            "a",
            "/",
            "//a",
            "/a/",
            "/a//b",
            "/**/a",
            "/a**",
            "/a/***",
            "/ä",
            "/a b",
            "spiffe://a/b",
            "/{a}",
            "/a?",
        ] {
            let patterns = [pattern.to_owned()];
            let expected = Err(PatternError::Id {
                pattern: pattern.into(),
            });
            assert_eq!(AllowedNames::parse(Some(&patterns), None), expected);
        }
        for pattern in [
            "", ".", "a.", ".a", "a..b", "a.**", "A", "a/b", "a**.b", "ä",
        ] {
            let patterns = [pattern.to_owned()];
            let expected = Err(PatternError::DnsName {
                pattern: pattern.into(),
            });
            assert_eq!(AllowedNames::parse(None, Some(&patterns)), expected);
        }
    }

    /// The obvious way, in exponential time.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                naive(rest, text) || text.split_first().is_some_and(|(_, t)| naive(pattern, t))
            }
            ([a, rest @ ..], [b, text @ ..]) => a == b && naive(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_part_is_matched_as_in_the_obvious_way(
            pattern in "([ab]{0,3}[*]){0,3}[ab]{0,3}",
            text in "[ab]{0,8}",
        ) {
            prop_assert_eq!(
                matches_part(&pattern, &text),
                naive(pattern.as_bytes(), text.as_bytes())
            );
        }
    }
}
