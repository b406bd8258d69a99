//! Which running server must be told that its plugin data changed. Pure.
//!
//! A server that started after the last change has read what is there. One that started before is
//! told once; one that was told while it still started is told once more, as it may not have
//! listened. Times are those since the machine's start.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long a server may take to start.
const STARTING: Duration = Duration::from_mins(1);
/// How far two readings of the same time may be apart.
const MARGIN: Duration = Duration::from_secs(2);

/// A running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// Process id.
    pub(super) pid: i32,
    /// When it started.
    pub(super) started: Duration,
    /// Whether it has a handler for SIGUSR1, without which the signal would end it.
    pub(super) has_handler: bool,
}

/// Who was told since the last change.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    changed: Option<Duration>,
    told: BTreeMap<(i32, Duration), Duration>,
}

impl Ledger {
    /// Notes that the plugin data is `age` old, and whether it has just changed.
    pub(super) fn changed(&mut self, now: Duration, age: Duration, is_changed: bool) {
        if is_changed || self.changed.is_none() {
            self.changed = Some(now.saturating_sub(age));
        }
        if is_changed {
            self.told.clear();
        }
    }

    /// Whether `server` is to be told now.
    pub(super) fn is_due(&self, server: &Server, now: Duration) -> bool {
        let read_it = |changed| server.started > changed + MARGIN;
        if !server.has_handler || self.changed.is_none_or(read_it) {
            return false;
        }
        let is_starting = |at: Duration| at < server.started + STARTING;
        match self.told.get(&(server.pid, server.started)) {
            None => true,
            Some(at) => is_starting(*at) && !is_starting(now),
        }
    }

    /// Notes that `server` was told.
    pub(super) fn told(&mut self, server: &Server, now: Duration) {
        self.told.insert((server.pid, server.started), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn server(started: u64) -> Server {
        Server {
            pid: 7,
            started: at(started),
            has_handler: true,
        }
    }

    #[test]
    fn a_running_server_is_told_once_of_each_change() {
        let mut ledger = Ledger::default();
        let old = server(100);
        assert!(!ledger.is_due(&old, at(1000)), "nothing is known yet");
        ledger.changed(at(1000), at(0), true);
        assert!(ledger.is_due(&old, at(1000)));
        ledger.told(&old, at(1000));
        for now in [1001, 1100, 9000] {
            ledger.changed(at(now), at(now - 1000), false);
            assert!(!ledger.is_due(&old, at(now)));
        }
        ledger.changed(at(9001), at(0), true);
        assert!(ledger.is_due(&old, at(9001)));
    }

    #[test]
    fn a_server_that_started_after_the_change_is_left_alone() {
        let mut ledger = Ledger::default();
        ledger.changed(at(1000), at(0), true);
        assert!(!ledger.is_due(&server(1010), at(1020)));
        // A sidecar that starts anew tells only those that may not have read what is there.
        let mut ledger = Ledger::default();
        ledger.changed(at(2000), at(1000), false);
        assert!(!ledger.is_due(&server(1010), at(2000)));
        assert!(ledger.is_due(&server(900), at(2000)));
    }

    #[test]
    fn a_server_that_was_starting_is_told_again() {
        let mut ledger = Ledger::default();
        ledger.changed(at(1000), at(0), true);
        let young = server(990);
        ledger.told(&young, at(1000));
        assert!(!ledger.is_due(&young, at(1049)));
        assert!(ledger.is_due(&young, at(1050)));
        ledger.told(&young, at(1050));
        assert!(!ledger.is_due(&young, at(2000)));
    }

    #[test]
    fn a_process_that_the_signal_would_end_gets_none() {
        let mut ledger = Ledger::default();
        ledger.changed(at(1000), at(0), true);
        let bare = Server {
            has_handler: false,
            ..server(100)
        };
        assert!(!ledger.is_due(&bare, at(1000)));
        assert!(ledger.is_due(&server(100), at(1001)));
    }
}
