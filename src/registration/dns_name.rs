//! Which DNS names an entry may carry: those that spire-server accepts, less those with characters
//! that no DNS name has. Upper case and underscores pass.

/// Longest name, in bytes.
const MAX_NAME: usize = 253;
/// Longest label, in bytes.
const MAX_LABEL: usize = 63;

/// Why a DNS name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DnsNameError {
    /// A character that no DNS name has.
    #[error("it has the character {found:?}; letters, digits, '-', '_' and '.' are allowed")]
    Character {
        /// The first such character.
        found: char,
    },
    /// Nothing at all, or nothing between two dots or behind the last one.
    #[error("it has an empty label")]
    EmptyLabel,
    /// A label that starts or ends with a dash, or has two in the third and fourth place.
    #[error("label {label:?} has a dash where none is allowed")]
    Dash {
        /// The label.
        label: String,
    },
    /// A label of more than 63 bytes.
    #[error("label {label:?} has {} bytes; 63 are allowed", label.len())]
    LabelTooLong {
        /// The label.
        label: String,
    },
    /// More than 253 bytes.
    #[error("it has {length} bytes; 253 are allowed")]
    TooLong {
        /// The length.
        length: usize,
    },
    /// A wildcard elsewhere than alone in the first of several labels.
    #[error("a wildcard must be the first label and not the only one")]
    Wildcard,
}

/// Checks `name`.
///
/// # Errors
/// When an entry may not carry it.
pub fn check(name: &str) -> Result<(), DnsNameError> {
    let rest = match name.strip_prefix("*.") {
        Some(rest) if !rest.is_empty() => rest,
        _ => name,
    };
    if rest.contains('*') {
        return Err(DnsNameError::Wildcard);
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(found) = rest.chars().find(|c| !is_allowed(*c)) {
        return Err(DnsNameError::Character { found });
    }
    if name.len() > MAX_NAME {
        return Err(DnsNameError::TooLong { length: name.len() });
    }
    rest.split('.').try_for_each(check_label)
}

fn check_label(label: &str) -> Result<(), DnsNameError> {
    if label.is_empty() {
        return Err(DnsNameError::EmptyLabel);
    }
    if label.len() > MAX_LABEL {
        return Err(DnsNameError::LabelTooLong {
            label: label.into(),
        });
    }
    let has_punycode = label
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("xn--"))
        && label.len() > 4;
    let has_inner_dashes = label.get(2..4) == Some("--") && !has_punycode;
    if label.starts_with('-') || label.ends_with('-') || has_inner_dashes {
        return Err(DnsNameError::Dash {
            label: label.into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_spire_server_accepts() {
        let long = [
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(61),
        ]
        .join(".");
        assert_eq!(long.len(), MAX_NAME);
        for name in [
            "a",
            "Web.Shop",
            "under_score.x",
            "10.0.0.1",
            "*.web",
            "xn--bcher-kva.x",
            "a-b",
            &long,
        ] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        use DnsNameError as E;
        let dash = |label: &str| E::Dash {
            label: label.into(),
        };
        let long = "a".repeat(64);
        for (name, error) in [
            ("", E::EmptyLabel),
            ("a.", E::EmptyLabel),
            ("a..b", E::EmptyLabel),
            ("-a.b", dash("-a")),
            ("a-.b", dash("a-")),
            ("ab--c", dash("ab--c")),
            ("xn--", dash("xn--")),
            ("*", E::Wildcard),
            ("*.", E::Wildcard),
            ("a.*", E::Wildcard),
            ("*.*.a", E::Wildcard),
            ("a*.b", E::Wildcard),
            ("bücher.x", E::Character { found: 'ü' }),
            ("bad name!", E::Character { found: ' ' }),
            ("a.b:80", E::Character { found: ':' }),
            ("<no value>", E::Character { found: '<' }),
            (
                &long,
                E::LabelTooLong {
                    label: long.clone(),
                },
            ),
        ] {
            assert_eq!(check(name), Err(error), "{name}");
        }
        let name = "a.".repeat(127) + "a";
        assert_eq!(check(&name), Err(E::TooLong { length: 255 }));
    }
}
