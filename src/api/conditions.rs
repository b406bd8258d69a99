//! Conditions as kstatus reads them, and the rule for `lastTransitionTime`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The object does what it says.
pub const READY: &str = "Ready";
/// Work is under way; present only while it is.
pub const RECONCILING: &str = "Reconciling";
/// Nothing more happens before somebody changes something; present only then.
pub const STALLED: &str = "Stalled";

/// Longest message the API accepts, in bytes.
const MAX_MESSAGE_LENGTH: usize = 32_768;

/// The state of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does not hold.
    False,
    /// It holds.
    True,
    /// It is not known yet.
    Unknown,
}

impl State {
    /// The word the API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::False => "False",
            Self::True => "True",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for State {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// A condition that is to be reported, without the time at which it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Type, such as [`READY`].
    pub kind: &'static str,
    /// Whether it holds.
    pub state: State,
    /// CamelCase reason, a stable part of the API.
    pub reason: &'static str,
    /// What happened and what the user can do.
    pub message: String,
}

impl Report {
    /// A condition of type `kind`.
    pub fn new(
        kind: &'static str,
        state: impl Into<State>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            state: state.into(),
            reason,
            message: message.into(),
        }
    }
}

/// The conditions to write for `reports`: `lastTransitionTime` moves only where the status of a
/// condition in `previous` differs. Conditions that are not reported any more go.
#[must_use]
pub fn merge(
    previous: &[Condition],
    reports: &[Report],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    reports
        .iter()
        .map(|report| {
            let status = report.state.as_str();
            let since = previous
                .iter()
                .find(|old| old.type_ == report.kind && old.status == status)
                .map_or(Time(now), |old| old.last_transition_time.clone());
            Condition {
                type_: report.kind.into(),
                status: status.into(),
                reason: report.reason.into(),
                message: crate::truncate(&report.message, MAX_MESSAGE_LENGTH).into(),
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_only_when_the_status_flips() {
        let (first, second): (Timestamp, Timestamp) = (
            "2026-01-01T00:00:00Z".parse().unwrap(),
            "2026-01-02T00:00:00Z".parse().unwrap(),
        );
        let ready = |state: bool, message: &str| vec![Report::new(READY, state, "Test", message)];
        let before = merge(&[], &ready(false, "a"), Some(1), first);
        let same = merge(&before, &ready(false, "b"), Some(2), second);
        assert_eq!(same[0].last_transition_time, Time(first));
        assert_eq!(
            (same[0].message.as_str(), same[0].observed_generation),
            ("b", Some(2))
        );
        let flipped = merge(&same, &ready(true, "b"), Some(2), second);
        assert_eq!(flipped[0].last_transition_time, Time(second));
    }

    #[test]
    fn conditions_that_are_not_reported_go() {
        let now = Timestamp::UNIX_EPOCH;
        let stalled = [Report::new(STALLED, true, "Conflict", "x")];
        assert!(merge(&merge(&[], &stalled, None, now), &[], None, now).is_empty());
    }
}
