//! From when and until when an SVID is valid. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How far an X.509-SVID is back-dated, for verifiers whose clocks lag behind. As in SPIRE.
const BACKDATING: SignedDuration = SignedDuration::from_secs(10);

/// Start and end of an X.509-SVID that is signed at `now` and lives for `ttl`.
pub(super) fn validity(now: Timestamp, ttl: Duration) -> (Timestamp, Timestamp) {
    let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX);
    (
        now.saturating_sub(BACKDATING).unwrap_or(Timestamp::MIN),
        now.saturating_add(ttl).unwrap_or(Timestamp::MAX),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_a_little_earlier_and_ends_in_time() {
        let now = Timestamp::from_second(1000).unwrap();
        let (from, until) = validity(now, Duration::from_mins(1));
        assert_eq!((from.as_second(), until.as_second()), (990, 1060));
        let (_, until) = validity(now, Duration::MAX);
        assert_eq!(until, Timestamp::MAX);
    }
}
