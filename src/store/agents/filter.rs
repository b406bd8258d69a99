//! Which agents a list asks for. Pure.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use crate::api::AttestedAgentSpec;

/// How selectors are compared with those that are asked for, as SPIRE's API has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorMatch {
    /// The same set.
    Exact,
    /// All of its selectors are among those asked for, and it has at least one.
    Subset,
    /// It has all that are asked for, and perhaps more.
    Superset,
    /// It has at least one of those asked for.
    Any,
}

impl SelectorMatch {
    /// Whether what `has` these selectors matches those asked for.
    #[must_use]
    pub fn holds(self, has: &BTreeSet<&str>, asked_for: &BTreeSet<&str>) -> bool {
        match self {
            Self::Exact => has == asked_for,
            Self::Subset => !has.is_empty() && has.is_subset(asked_for),
            Self::Superset => has.is_superset(asked_for),
            Self::Any => !has.is_disjoint(asked_for),
        }
    }
}

/// What agents must be like; unset fields allow all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentFilter {
    /// Name of the attestor.
    pub attestation_type: Option<String>,
    /// Selectors.
    pub selectors: Option<(SelectorMatch, Vec<String>)>,
    /// Whether they are banned.
    pub banned: Option<bool>,
    /// Whether they can attest again.
    pub can_reattest: Option<bool>,
    /// Their X.509-SVID ends before this moment.
    pub expires_before: Option<Timestamp>,
}

impl AgentFilter {
    /// Whether `agent` is among those asked for.
    #[must_use]
    pub fn allows(&self, agent: &AttestedAgentSpec) -> bool {
        let expiry = agent.x509_svid_expires_at.as_ref().map(|time| time.0);
        let matches = |(how, asked_for): &(SelectorMatch, Vec<String>)| {
            how.holds(&set(&agent.selectors), &set(asked_for))
        };
        self.attestation_type
            .as_ref()
            .is_none_or(|wanted| *wanted == agent.attestation_type)
            && self.banned.is_none_or(|wanted| wanted == agent.banned)
            && self
                .can_reattest
                .is_none_or(|wanted| wanted == agent.can_reattest)
            && self
                .expires_before
                .is_none_or(|moment| expiry.is_some_and(|expiry| expiry < moment))
            && self.selectors.as_ref().is_none_or(matches)
    }
}

fn set(selectors: &[String]) -> BTreeSet<&str> {
    selectors.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::agents::decide::tests::{agent, at};

    #[test]
    fn selectors_match_as_in_spire() {
        use SelectorMatch::{Any, Exact, Subset, Superset};
        for (how, has, asked_for, expected) in [
            (Exact, "ab", "ab", true),
            (Exact, "ab", "a", false),
            (Exact, "a", "ab", false),
            (Subset, "a", "ab", true),
            (Subset, "ab", "ab", true),
            (Subset, "", "ab", false),
            (Subset, "ac", "ab", false),
            (Superset, "abc", "ab", true),
            (Superset, "a", "ab", false),
            (Any, "ac", "ab", true),
            (Any, "c", "ab", false),
            (Any, "", "ab", false),
        ] {
            let set = |text: &'static str| text.split("").filter(|it| !it.is_empty()).collect();
            let holds = how.holds(&set(has), &set(asked_for));
            assert_eq!(holds, expected, "{how:?} {has:?} {asked_for:?}");
        }
    }

    #[test]
    fn every_field_must_allow_an_agent() {
        let record = agent("1");
        let any = AgentFilter::default;
        assert!(any().allows(&record));
        let selectors = |text: &str| Some((SelectorMatch::Any, vec![text.to_owned()]));
        for (allows, filter) in [
            (
                true,
                AgentFilter {
                    banned: Some(false),
                    ..any()
                },
            ),
            (
                false,
                AgentFilter {
                    banned: Some(true),
                    ..any()
                },
            ),
            (
                true,
                AgentFilter {
                    can_reattest: Some(false),
                    ..any()
                },
            ),
            (
                false,
                AgentFilter {
                    can_reattest: Some(true),
                    ..any()
                },
            ),
            (
                true,
                AgentFilter {
                    attestation_type: Some("join_token".into()),
                    ..any()
                },
            ),
            (
                false,
                AgentFilter {
                    attestation_type: Some("x509pop".into()),
                    ..any()
                },
            ),
            (
                false,
                AgentFilter {
                    expires_before: Some(at(100)),
                    ..any()
                },
            ),
            (
                true,
                AgentFilter {
                    expires_before: Some(at(101)),
                    ..any()
                },
            ),
            (
                true,
                AgentFilter {
                    selectors: selectors("a:1"),
                    ..any()
                },
            ),
            (
                false,
                AgentFilter {
                    selectors: selectors("a:2"),
                    ..any()
                },
            ),
        ] {
            assert_eq!(filter.allows(&record), allows, "{filter:?}");
        }
    }
}
