//! SPIFFE IDs and selectors as they stand in messages, checked and in the words of spire-server. Pure.

use crate::server::proto::types::{Selector, Spiffeid};
use crate::spiffe::{SpiffeId, TrustDomainName};

/// The ID in a message.
///
/// # Errors
/// When there is none, or it does not follow the grammar.
pub fn id_from_proto(id: Option<&Spiffeid>) -> Result<SpiffeId, String> {
    let id = id.ok_or("request must specify SPIFFE ID")?;
    if id.trust_domain.is_empty() {
        return Err("trust domain is missing".into());
    }
    if !id.path.is_empty() && !id.path.starts_with('/') {
        return Err("path must have a leading slash".into());
    }
    let trust_domain = TrustDomainName::from_name_or_id(&id.trust_domain);
    let trust_domain = trust_domain.map_err(|error| error.to_string())?;
    let text = format!("{}{}", trust_domain.id(), id.path);
    text.parse::<SpiffeId>().map_err(|error| error.to_string())
}

/// The ID as it stands in messages.
#[must_use]
pub fn id_to_proto(id: &SpiffeId) -> Spiffeid {
    Spiffeid {
        trust_domain: id.trust_domain().into(),
        path: id.path().into(),
    }
}

/// The ID of an agent of `trust_domain` in a message.
///
/// # Errors
/// When it is none.
pub fn agent_id_from_proto(
    trust_domain: &TrustDomainName,
    id: Option<&Spiffeid>,
) -> Result<SpiffeId, String> {
    let id = member(trust_domain, id)?;
    match id.path() {
        "" => Err(format!(
            "{:?} is not an agent in trust domain {:?}; path is empty",
            id.as_str(),
            trust_domain.as_str()
        )),
        path if path.starts_with("/spire/agent/") => Ok(id),
        _ => Err(format!(
            "{:?} is not an agent in trust domain {:?}; path is not in the agent namespace",
            id.as_str(),
            trust_domain.as_str()
        )),
    }
}

/// The ID of a workload of `trust_domain` in a message.
///
/// # Errors
/// When it is none.
pub fn workload_id_from_proto(
    trust_domain: &TrustDomainName,
    id: Option<&Spiffeid>,
) -> Result<SpiffeId, String> {
    let id = member(trust_domain, id)?;
    match id.path() {
        "" => Err(format!(
            "{:?} is not a workload in trust domain {:?}; path is empty",
            id.as_str(),
            trust_domain.as_str()
        )),
        path if path == "/spire" || path.starts_with("/spire/") => Err(format!(
            "{:?} is not a workload in trust domain {:?}; path is in the reserved namespace",
            id.as_str(),
            trust_domain.as_str()
        )),
        _ => Ok(id),
    }
}

fn member(trust_domain: &TrustDomainName, id: Option<&Spiffeid>) -> Result<SpiffeId, String> {
    let id = id_from_proto(id)?;
    if id.is_member_of(trust_domain) {
        return Ok(id);
    }
    Err(format!(
        "{:?} is not a member of trust domain {:?}",
        id.as_str(),
        trust_domain.as_str()
    ))
}

/// The selectors in a message, each `type:value`.
///
/// # Errors
/// When one has no type or value, or a colon in its type.
pub fn selectors_from_proto(selectors: &[Selector]) -> Result<Vec<String>, &'static str> {
    let selectors = selectors.iter().map(|selector| {
        if selector.r#type.is_empty() {
            return Err("missing selector type");
        }
        if selector.r#type.contains(':') {
            return Err("selector type contains ':'");
        }
        if selector.value.is_empty() {
            return Err("missing selector value");
        }
        Ok(format!("{}:{}", selector.r#type, selector.value))
    });
    selectors.collect()
}

/// A selector `type:value` as it stands in messages.
#[must_use]
pub fn selector_to_proto(selector: &str) -> Selector {
    let (kind, value) = selector.split_once(':').unwrap_or((selector, ""));
    Selector {
        r#type: kind.into(),
        value: value.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proto(trust_domain: &str, path: &str) -> Spiffeid {
        Spiffeid {
            trust_domain: trust_domain.into(),
            path: path.into(),
        }
    }

    #[test]
    fn ids_are_read_and_written() {
        for (trust_domain, path) in [("example.org", "/a/b"), ("example.org", "")] {
            let message = proto(trust_domain, path);
            let id = id_from_proto(Some(&message)).unwrap();
            assert_eq!(id_to_proto(&id), message);
        }
        for (message, problem) in [
            (None, "request must specify SPIFFE ID"),
            (Some(proto("", "/a")), "trust domain is missing"),
            (
                Some(proto("example.org", "a")),
                "path must have a leading slash",
            ),
            (Some(proto("Example.org", "/a")), "trust domain has"),
            (Some(proto("example.org", "/a/")), "path must not end"),
            (Some(proto("example.org/x", "/a")), "trust domain has"),
        ] {
            let refused = id_from_proto(message.as_ref()).unwrap_err();
            assert!(refused.starts_with(problem), "{refused}");
        }
    }

    #[test]
    fn agents_and_workloads_are_told_apart() {
        let trust_domain = "example.org".parse().unwrap();
        let agent = |path| agent_id_from_proto(&trust_domain, Some(&proto("example.org", path)));
        let workload =
            |path| workload_id_from_proto(&trust_domain, Some(&proto("example.org", path)));
        assert!(agent("/spire/agent/x").is_ok() && workload("/web").is_ok());
        for path in ["", "/web", "/spire/agent", "/spire/server"] {
            assert!(agent(path).is_err(), "{path}");
        }
        for path in ["", "/spire", "/spire/agent/x"] {
            assert!(workload(path).is_err(), "{path}");
        }
        let other = proto("other.org", "/spire/agent/x");
        let refused = agent_id_from_proto(&trust_domain, Some(&other)).unwrap_err();
        assert_eq!(
            refused,
            "\"spiffe://other.org/spire/agent/x\" is not a member of trust domain \"example.org\""
        );
    }

    #[test]
    fn selectors_are_read_and_written() {
        let selector = selector_to_proto("k8s:pod-label:a:b");
        assert_eq!(
            (&*selector.r#type, &*selector.value),
            ("k8s", "pod-label:a:b")
        );
        let read = selectors_from_proto(&[selector]);
        assert_eq!(read, Ok(vec!["k8s:pod-label:a:b".into()]));
        for (kind, value, problem) in [
            ("", "b", "missing selector type"),
            ("a:b", "c", "selector type contains ':'"),
            ("a", "", "missing selector value"),
        ] {
            let selector = Selector {
                r#type: kind.into(),
                value: value.into(),
            };
            assert_eq!(selectors_from_proto(&[selector]), Err(problem));
        }
    }
}
