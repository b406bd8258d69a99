//! Who of the agents may act, and what each event makes of an agent's record. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::api::AttestedAgentSpec;
use crate::spiffe::{SpiffeId, TrustDomainName};

/// The X.509-SVID that an agent shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedSvid {
    /// Serial number in decimal digits.
    pub serial: String,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// Why an agent may not act, as SPIRE's `PermissionDeniedDetails` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentDenial {
    /// Its X.509-SVID has ended.
    #[error("agent SVID is expired")]
    Expired,
    /// It has no record: it never attested, or was evicted.
    #[error("agent is not attested")]
    NotAttested,
    /// It is banned.
    #[error("agent is banned")]
    Banned,
    /// It has another X.509-SVID by now.
    #[error("agent SVID is not active")]
    NotActive,
    /// It must attest again instead of renewing.
    #[error("agent must reattest instead of renew")]
    MustReattest,
}

/// What is to be done with an agent's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may act.
    Active,
    /// It may act once its new serial number is recorded as the current one.
    Promote,
    /// It may not.
    Denied(AgentDenial),
}

/// What attestation found out about an agent, and what it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// SPIFFE ID of the agent.
    pub id: SpiffeId,
    /// The attestor's name.
    pub attestation_type: &'static str,
    /// Whether it attests again instead of renewing.
    pub can_reattest: bool,
    /// Selectors, each `type:value`.
    pub selectors: Vec<String>,
    /// Name of its cluster.
    pub cluster: Option<String>,
    /// Name of its node.
    pub node_name: Option<String>,
    /// The SPIFFE ID that it is to have besides, by an entry of its own.
    pub alias: Option<SpiffeId>,
    /// Its X.509-SVID.
    pub svid: PresentedSvid,
}

/// Whether `svid` has ended. That comes before everything else, and needs no record.
pub(super) fn is_expired(svid: &PresentedSvid, now: Timestamp) -> bool {
    svid.not_after < now
}

/// Whether a record that may be out of date allows the call: all it can say is yes.
pub(super) fn is_current(agent: &AttestedAgentSpec, svid: &PresentedSvid) -> bool {
    !agent.banned && agent.x509_svid_serial_number.as_ref() == Some(&svid.serial)
}

/// Judges a call by the agent's record, read from the API server just now.
pub(super) fn judge(agent: Option<&AttestedAgentSpec>, svid: &PresentedSvid) -> Verdict {
    match agent {
        None => Verdict::Denied(AgentDenial::NotAttested),
        Some(agent) if agent.banned => Verdict::Denied(AgentDenial::Banned),
        Some(agent) if is_current(agent, svid) => Verdict::Active,
        Some(agent) if agent.new_x509_svid_serial_number.as_ref() == Some(&svid.serial) => {
            Verdict::Promote
        }
        Some(_) => Verdict::Denied(AgentDenial::NotActive),
    }
}

/// The record of an agent that attests, in place of the one it had. What it had before is dead.
pub(super) fn attested(
    before: Option<AttestedAgentSpec>,
    trust_domain: &TrustDomainName,
    attestation: &Attestation,
) -> AttestedAgentSpec {
    let mut selectors = attestation.selectors.clone();
    selectors.sort();
    selectors.dedup();
    AttestedAgentSpec {
        trust_domain: trust_domain.to_string(),
        id: attestation.id.to_string(),
        attestation_type: attestation.attestation_type.into(),
        can_reattest: attestation.can_reattest,
        cluster: attestation.cluster.clone(),
        node_name: attestation.node_name.clone(),
        selectors,
        x509_svid_serial_number: Some(attestation.svid.serial.clone()),
        x509_svid_expires_at: Some(Time(attestation.svid.not_after)),
        new_x509_svid_serial_number: None,
        new_x509_svid_expires_at: None,
        agent_version: before.and_then(|before| before.agent_version),
        pending_alias: attestation.alias.as_ref().map(ToString::to_string),
        banned: false,
    }
}

/// Whether an agent is banned and still has what it acted by.
pub(super) fn is_to_disarm(agent: &AttestedAgentSpec) -> bool {
    let has_serial =
        agent.x509_svid_serial_number.is_some() || agent.new_x509_svid_serial_number.is_some();
    agent.banned && has_serial
}

/// Whether an agent that shows `svid` may renew, by its record as it is now.
pub(super) fn may_renew(
    agent: &AttestedAgentSpec,
    svid: &PresentedSvid,
) -> Result<(), AgentDenial> {
    if agent.banned {
        return Err(AgentDenial::Banned);
    }
    if !is_current(agent, svid) {
        return Err(AgentDenial::NotActive);
    }
    if agent.can_reattest {
        return Err(AgentDenial::MustReattest);
    }
    Ok(())
}

/// Records an X.509-SVID that is not used yet.
pub(super) fn renew(agent: &mut AttestedAgentSpec, svid: &PresentedSvid) {
    agent.new_x509_svid_serial_number = Some(svid.serial.clone());
    agent.new_x509_svid_expires_at = Some(Time(svid.not_after));
}

/// Puts the new X.509-SVID in place of the current one.
pub(super) fn promote(agent: &mut AttestedAgentSpec) {
    agent.x509_svid_serial_number = agent.new_x509_svid_serial_number.take();
    agent.x509_svid_expires_at = agent.new_x509_svid_expires_at.take();
}

/// Bans an agent. Its X.509-SVIDs stay dead should it be unbanned.
pub(super) fn ban(agent: &mut AttestedAgentSpec) {
    agent.banned = true;
    agent.x509_svid_serial_number = None;
    agent.new_x509_svid_serial_number = None;
}

/// Whether an agent's last X.509-SVID ended before `moment`. One that is banned is never pruned: it
/// could attest again.
pub(super) fn is_to_prune(agent: &AttestedAgentSpec, moment: Timestamp) -> bool {
    let ends = [&agent.x509_svid_expires_at, &agent.new_x509_svid_expires_at];
    let last = ends.into_iter().flatten().map(|time| time.0).max();
    !agent.banned && last.is_some_and(|last| last < moment)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    pub(crate) fn svid(serial: &str) -> PresentedSvid {
        PresentedSvid {
            serial: serial.into(),
            not_after: at(100),
        }
    }

    pub(crate) fn agent(serial: &str) -> AttestedAgentSpec {
        let attestation = Attestation {
            id: "spiffe://example.org/spire/agent/x/1".parse().unwrap(),
            attestation_type: "join_token",
            can_reattest: false,
            selectors: vec!["b:2".into(), "a:1".into(), "b:2".into()],
            cluster: None,
            node_name: None,
            alias: None,
            svid: svid(serial),
        };
        attested(None, &"example.org".parse().unwrap(), &attestation)
    }

    fn renewed(current: &str, new: &str) -> AttestedAgentSpec {
        let mut agent = agent(current);
        renew(&mut agent, &svid(new));
        agent
    }

    fn banned(mut agent: AttestedAgentSpec) -> AttestedAgentSpec {
        agent.banned = true;
        agent
    }

    #[test]
    fn a_call_is_judged_as_by_spire() {
        use AgentDenial::{Banned, NotActive, NotAttested};
        use Verdict::{Active, Denied, Promote};
        let without_serial = AttestedAgentSpec {
            x509_svid_serial_number: None,
            ..agent("1")
        };
        for (record, serial, expected) in [
            (None, "1", Denied(NotAttested)),
            (Some(agent("1")), "1", Active),
            (Some(agent("1")), "2", Denied(NotActive)),
            (Some(agent("1")), "", Denied(NotActive)),
            (Some(renewed("1", "2")), "1", Active),
            (Some(renewed("1", "2")), "2", Promote),
            (Some(renewed("1", "2")), "3", Denied(NotActive)),
            (Some(banned(agent("1"))), "1", Denied(Banned)),
            (Some(banned(renewed("1", "2"))), "2", Denied(Banned)),
            (Some(without_serial.clone()), "1", Denied(NotActive)),
            (Some(without_serial), "", Denied(NotActive)),
        ] {
            assert_eq!(
                judge(record.as_ref(), &svid(serial)),
                expected,
                "{record:?}"
            );
        }
        assert!(!is_expired(&svid("1"), at(100)) && is_expired(&svid("1"), at(101)));
    }

    #[test]
    fn a_record_out_of_date_says_yes_to_the_current_serial_number_only() {
        assert!(is_current(&agent("1"), &svid("1")));
        assert!(!is_current(&renewed("1", "2"), &svid("2")));
        assert!(!is_current(&banned(agent("1")), &svid("1")));
    }

    #[test]
    fn the_first_use_of_a_new_svid_kills_the_old_one() {
        let mut record = renewed("1", "2");
        record.new_x509_svid_expires_at = Some(Time(at(200)));
        promote(&mut record);
        assert_eq!(judge(Some(&record), &svid("2")), Verdict::Active);
        let dead = Verdict::Denied(AgentDenial::NotActive);
        assert_eq!(judge(Some(&record), &svid("1")), dead);
        assert_eq!(record.x509_svid_expires_at, Some(Time(at(200))));
        assert_eq!(record.new_x509_svid_expires_at, None);
    }

    #[test]
    fn attesting_again_kills_what_was_before_and_keeps_the_version() {
        let before = AttestedAgentSpec {
            agent_version: Some("1.15.3".into()),
            ..renewed("1", "2")
        };
        let attestation = Attestation {
            id: before.id.parse().unwrap(),
            attestation_type: "k8s_psat",
            can_reattest: true,
            selectors: vec!["c:3".into()],
            cluster: Some("default".into()),
            node_name: Some("node".into()),
            alias: None,
            svid: svid("3"),
        };
        let after = attested(Some(before), &"example.org".parse().unwrap(), &attestation);
        for dead in ["1", "2"] {
            let dead = judge(Some(&after), &svid(dead));
            assert_eq!(dead, Verdict::Denied(AgentDenial::NotActive));
        }
        assert_eq!(judge(Some(&after), &svid("3")), Verdict::Active);
        assert_eq!(after.agent_version.as_deref(), Some("1.15.3"));
        assert_eq!(after.selectors, ["c:3"]);
        assert_eq!(
            may_renew(&after, &svid("3")),
            Err(AgentDenial::MustReattest)
        );
    }

    #[test]
    fn selectors_are_kept_once() {
        assert_eq!(agent("1").selectors, ["a:1", "b:2"]);
    }

    #[test]
    fn svids_from_before_a_ban_stay_dead_when_it_is_lifted() {
        let mut record = renewed("1", "2");
        assert_eq!(may_renew(&record, &svid("1")), Ok(()));
        for dead in ["0", "2"] {
            let dead = may_renew(&record, &svid(dead));
            assert_eq!(dead, Err(AgentDenial::NotActive));
        }
        record.banned = true;
        assert!(is_to_disarm(&record));
        ban(&mut record);
        assert!(!is_to_disarm(&record));
        assert_eq!(may_renew(&record, &svid("1")), Err(AgentDenial::Banned));
        record.banned = false;
        for serial in ["1", "2"] {
            let dead = judge(Some(&record), &svid(serial));
            assert_eq!(dead, Verdict::Denied(AgentDenial::NotActive));
        }
    }

    #[test]
    fn only_what_ended_before_is_pruned_and_nothing_that_is_banned() {
        assert!(!is_to_prune(&agent("1"), at(100)) && is_to_prune(&agent("1"), at(101)));
        assert!(!is_to_prune(&banned(agent("1")), at(1000)));
        let mut record = renewed("1", "2");
        record.new_x509_svid_expires_at = Some(Time(at(200)));
        assert!(!is_to_prune(&record, at(150)) && is_to_prune(&record, at(201)));
    }
}
