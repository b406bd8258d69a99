//! Agents as they stand in messages, and the filters that lists come with. Pure.

use jiff::Timestamp;
use jiff::fmt::strtime;

use crate::api::AttestedAgentSpec;
use crate::server::proto::types::selector_match::MatchBehavior;
use crate::server::proto::types::{
    Agent, AgentMask, Selector, SelectorMatch as ProtoSelectorMatch,
};
use crate::server::services::ids;
use crate::spiffe::SpiffeId;
use crate::store::agents::{AgentFilter, SelectorMatch};

/// How `by_expires_before` is written: Go's layout `2006-01-02 15:04:05 -0700 -07`.
const EXPIRES_BEFORE: &str = "%Y-%m-%d %H:%M:%S %z";

/// The agent as it stands in messages; none where its ID is none.
pub(super) fn agent_to_proto(agent: &AttestedAgentSpec, mask: Option<&AgentMask>) -> Option<Agent> {
    let id: SpiffeId = agent.id.parse().ok()?;
    let shown = |field: fn(&AgentMask) -> bool| mask.is_none_or(field);
    let mut message = Agent {
        id: Some(ids::to_proto(&id)),
        ..Agent::default()
    };
    if shown(|mask| mask.attestation_type) {
        message.attestation_type.clone_from(&agent.attestation_type);
    }
    // A banned agent acts by none.
    if shown(|mask| mask.x509svid_serial_number) && !agent.banned {
        let serial = agent.x509_svid_serial_number.clone();
        message.x509svid_serial_number = serial.unwrap_or_default();
    }
    if shown(|mask| mask.x509svid_expires_at) {
        let expiry = agent.x509_svid_expires_at.as_ref();
        message.x509svid_expires_at = expiry.map_or(0, |time| time.0.as_second());
    }
    if shown(|mask| mask.selectors) {
        let selectors = agent.selectors.iter();
        message.selectors = selectors.map(|it| selector_to_proto(it)).collect();
    }
    message.banned = agent.banned && shown(|mask| mask.banned);
    message.can_reattest = agent.can_reattest && shown(|mask| mask.can_reattest);
    if shown(|mask| mask.agent_version) {
        message.agent_version = agent.agent_version.clone().unwrap_or_default();
    }
    Some(message)
}

/// What a list asks for, in the form that both requests have.
#[derive(Default)]
pub(super) struct Filter<'a> {
    pub(super) attestation_type: &'a str,
    pub(super) selector_match: Option<&'a ProtoSelectorMatch>,
    pub(super) banned: Option<bool>,
    pub(super) can_reattest: Option<bool>,
    pub(super) expires_before: &'a str,
}

/// The filter that `filter` asks for. A time that cannot be read counts as none, as in SPIRE.
pub(super) fn filter_from_proto(filter: &Filter<'_>) -> Result<AgentFilter, String> {
    let selectors = filter.selector_match.map(|asked_for| {
        let selectors = selectors_from_proto(&asked_for.selectors)
            .map_err(|problem| format!("failed to parse selectors: {problem}"))?;
        if selectors.is_empty() {
            return Err("cannot list by empty selectors set".to_owned());
        }
        let how = match MatchBehavior::try_from(asked_for.r#match) {
            Ok(MatchBehavior::MatchExact) => SelectorMatch::Exact,
            Ok(MatchBehavior::MatchSubset) => SelectorMatch::Subset,
            Ok(MatchBehavior::MatchSuperset) => SelectorMatch::Superset,
            Ok(MatchBehavior::MatchAny) => SelectorMatch::Any,
            Err(_) => return Err("unknown match behavior".to_owned()),
        };
        Ok((how, selectors))
    });
    let attestation_type = Some(filter.attestation_type).filter(|it| !it.is_empty());
    Ok(AgentFilter {
        attestation_type: attestation_type.map(str::to_owned),
        selectors: selectors.transpose()?,
        banned: filter.banned,
        can_reattest: filter.can_reattest,
        expires_before: expires_before(filter.expires_before),
    })
}

fn selectors_from_proto(selectors: &[Selector]) -> Result<Vec<String>, &'static str> {
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

fn selector_to_proto(selector: &str) -> Selector {
    let (kind, value) = selector.split_once(':').unwrap_or((selector, ""));
    Selector {
        r#type: kind.into(),
        value: value.into(),
    }
}

/// The last word is a short form of the offset, which says nothing new.
fn expires_before(text: &str) -> Option<Timestamp> {
    let (moment, _) = text.rsplit_once(' ')?;
    let parsed = strtime::parse(EXPIRES_BEFORE, moment).ok()?;
    parsed.to_timestamp().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn agent() -> AttestedAgentSpec {
        AttestedAgentSpec {
            trust_domain: "example.org".into(),
            id: "spiffe://example.org/spire/agent/x/1".into(),
            attestation_type: "x".into(),
            can_reattest: true,
            cluster: None,
            node_name: None,
            selectors: vec!["a:b:c".into()],
            x509_svid_serial_number: Some("7".into()),
            x509_svid_expires_at: Some(Time(Timestamp::from_second(100).unwrap())),
            new_x509_svid_serial_number: None,
            new_x509_svid_expires_at: None,
            agent_version: Some("1.15.3".into()),
            pending_alias: None,
            banned: false,
        }
    }

    #[test]
    fn a_mask_hides_what_it_lacks() {
        let all = agent_to_proto(&agent(), None).unwrap();
        assert_eq!(all.x509svid_serial_number, "7");
        assert_eq!((all.x509svid_expires_at, all.can_reattest), (100, true));
        assert_eq!(all.selectors[0].value, "b:c");
        let nothing = agent_to_proto(&agent(), Some(&AgentMask::default())).unwrap();
        let only_id = Agent {
            id: all.id.clone(),
            ..Agent::default()
        };
        assert_eq!(nothing, only_id);
        let banned = AttestedAgentSpec {
            banned: true,
            ..agent()
        };
        let banned = agent_to_proto(&banned, None).unwrap();
        assert!(banned.banned && banned.x509svid_serial_number.is_empty());
    }

    #[test]
    fn filters_are_read() {
        let selector = |value: &str| Selector {
            r#type: "a".into(),
            value: value.into(),
        };
        let asked_for = |selectors, how| ProtoSelectorMatch {
            selectors,
            r#match: how,
        };
        let by = |selector_match: &ProtoSelectorMatch| {
            filter_from_proto(&Filter {
                selector_match: Some(selector_match),
                ..Filter::default()
            })
        };
        let filter = by(&asked_for(vec![selector("1")], 2)).unwrap();
        assert_eq!(
            filter.selectors,
            Some((SelectorMatch::Superset, vec!["a:1".into()]))
        );
        assert!(by(&asked_for(vec![], 0)).is_err());
        assert!(by(&asked_for(vec![selector("")], 0)).is_err());
        assert!(by(&asked_for(vec![selector("1")], 9)).is_err());
        assert_eq!(
            filter_from_proto(&Filter::default()),
            Ok(AgentFilter::default())
        );
    }

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (text, second) in [
            ("1970-01-01 00:01:40 +0000 +00", Some(100)),
            ("1970-01-01 01:01:40 +0100 +01", Some(100)),
            ("1970-01-01 00:01:40", None),
            ("junk", None),
            ("", None),
        ] {
            let moment = expires_before(text).map(Timestamp::as_second);
            assert_eq!(moment, second, "{text}");
        }
    }
}
