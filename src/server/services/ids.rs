//! SPIFFE IDs and trust domain names in messages. Pure.

use crate::server::proto::types;
use crate::spiffe::{ParseTrustDomainError, SpiffeId, TrustDomainName};

/// An ID as messages have it.
pub(super) fn to_proto(id: &SpiffeId) -> types::Spiffeid {
    types::Spiffeid {
        trust_domain: id.trust_domain().to_owned(),
        path: id.path().to_owned(),
    }
}

/// A trust domain as messages name it: bare, or by an ID in it.
pub(super) fn trust_domain(name: &str) -> Result<TrustDomainName, ParseTrustDomainError> {
    TrustDomainName::from_name_or_id(name)
}

/// An ID in a message.
///
/// # Errors
/// In words for the caller.
pub(super) fn from_proto(id: Option<&types::Spiffeid>) -> Result<SpiffeId, String> {
    let id = id.ok_or("request must specify SPIFFE ID")?;
    let trust_domain = trust_domain(&id.trust_domain).map_err(|error| error.to_string())?;
    if !id.path.is_empty() && !id.path.starts_with('/') {
        return Err("path must have a leading slash".into());
    }
    let text = format!("{}{}", trust_domain.id(), id.path);
    text.parse::<SpiffeId>().map_err(|error| error.to_string())
}

/// Whether a workload of `trust_domain` can have `id`.
///
/// # Errors
/// In words for the caller.
pub(super) fn check_workload(id: &SpiffeId, trust_domain: &TrustDomainName) -> Result<(), String> {
    if !id.is_member_of(trust_domain) {
        return Err(format!(
            "\"{id}\" is not a member of trust domain \"{trust_domain}\""
        ));
    }
    let problem = match id.path() {
        "" => "path is empty",
        path if path == "/spire" || path.starts_with("/spire/") => {
            "path is in the reserved namespace"
        }
        _ => return Ok(()),
    };
    Err(format!(
        "\"{id}\" is not a workload in trust domain \"{trust_domain}\"; {problem}"
    ))
}

/// Whether an agent of `trust_domain` can have `id`.
///
/// # Errors
/// In words for the caller.
pub(super) fn check_agent(id: &SpiffeId, trust_domain: &TrustDomainName) -> Result<(), String> {
    if !id.is_member_of(trust_domain) {
        return Err(format!(
            "\"{id}\" is not a member of trust domain \"{trust_domain}\""
        ));
    }
    let problem = match id.path() {
        "" => "path is empty",
        path if path.starts_with("/spire/agent/") => return Ok(()),
        _ => "path is not in the agent namespace",
    };
    Err(format!(
        "\"{id}\" is not an agent in trust domain \"{trust_domain}\"; {problem}"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(trust_domain: &str, path: &str) -> types::Spiffeid {
        types::Spiffeid {
            trust_domain: trust_domain.into(),
            path: path.into(),
        }
    }

    #[test]
    fn ids_are_read_and_written() {
        let id: SpiffeId = "spiffe://example.org/a/b".parse().unwrap();
        assert_eq!(to_proto(&id), message("example.org", "/a/b"));
        for name in ["example.org", "spiffe://example.org"] {
            assert_eq!(from_proto(Some(&message(name, "/a/b"))), Ok(id.clone()));
        }
    }

    proptest! {
        /// What is read is an ID, and none that says anything else than the message.
        #[test]
        fn whatever_a_message_says_is_read_as_it_is_or_refused(
            trust_domain in "(spiffe://)?[a-z0-9._/\\-%@:A ]{0,12}",
            path in "(/?[a-zA-Z0-9._\\-%ü /]{0,6}){0,4}",
        ) {
            let sent = message(&trust_domain, &path);
            if let Ok(id) = from_proto(Some(&sent)) {
                prop_assert_eq!(&id.as_str().parse::<SpiffeId>(), &Ok(id.clone()));
                prop_assert_eq!(id.path(), path);
                let bare = trust_domain.strip_prefix("spiffe://").unwrap_or(&trust_domain);
                prop_assert_eq!(Some(id.trust_domain()), bare.split('/').next());
                prop_assert_eq!(from_proto(Some(&to_proto(&id))), Ok(id));
            }
        }
    }

    #[test]
    fn malformed_ids_are_refused() {
        for (id, problem) in [
            (None, "request must specify SPIFFE ID"),
            (Some(message("", "/a")), "trust domain is missing"),
            (
                Some(message("example.org", "a")),
                "path must have a leading slash",
            ),
            (
                Some(message("example.org", "/a/")),
                "path must not end with a slash",
            ),
            (
                Some(message("example.org", "//a")),
                "path must not have empty segments",
            ),
        ] {
            let refused = from_proto(id.as_ref()).unwrap_err();
            assert!(refused.contains(problem), "{refused}");
        }
    }

    #[test]
    fn some_ids_are_no_agents() {
        let trust_domain = "example.org".parse().unwrap();
        let check = |id: &str| check_agent(&id.parse().unwrap(), &trust_domain);
        assert_eq!(check("spiffe://example.org/spire/agent/x"), Ok(()));
        for id in [
            "spiffe://other.org/spire/agent/x",
            "spiffe://example.org",
            "spiffe://example.org/spire/agent",
            "spiffe://example.org/spire/server",
            "spiffe://example.org/web",
        ] {
            assert!(check(id).is_err(), "{id}");
        }
    }

    #[test]
    fn some_ids_are_no_workloads() {
        let trust_domain = "example.org".parse().unwrap();
        let check = |id: &str| check_workload(&id.parse().unwrap(), &trust_domain);
        assert_eq!(check("spiffe://example.org/spirea"), Ok(()));
        for (id, problem) in [
            (
                "spiffe://other.org/a",
                "\"spiffe://other.org/a\" is not a member of trust domain \"example.org\"",
            ),
            (
                "spiffe://example.org",
                "\"spiffe://example.org\" is not a workload in trust domain \"example.org\"; \
                 path is empty",
            ),
            (
                "spiffe://example.org/spire/agent/x",
                "\"spiffe://example.org/spire/agent/x\" is not a workload in trust domain \
                 \"example.org\"; path is in the reserved namespace",
            ),
        ] {
            assert_eq!(check(id), Err(problem.to_owned()));
        }
    }
}
