//! When a pod's certificate is valid and when the kubelet asks for the next one.
//!
//! kube-apiserver refuses a status unless the certificate starts within five minutes of its clock,
//! lives between one hour and the pod's `maxExpirationSeconds` (from start to end, so that
//! back-dating counts), and is refreshed at least ten minutes after its start and before its end.

use jiff::{SignedDuration, Timestamp};

/// How far a certificate starts in the past, so that a node whose clock is behind the signer's can
/// use it at once. A minute is more than clocks kept by NTP ever differ by, and leaves four of
/// kube-apiserver's five for the difference between its clock and ours.
pub const BACKDATING: SignedDuration = SignedDuration::from_mins(1);

/// Kubernetes' shortest lifetime.
pub const MIN_LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// The times of a pod's certificate, all in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodCertificateTimes {
    /// Start of validity.
    pub not_before: Timestamp,
    /// When the kubelet asks for the next one: half-way.
    pub begin_refresh_at: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// Whether the issuer's end made it shorter than it should be.
    pub capped: bool,
}

/// A certificate could not live as long as Kubernetes demands. It may be possible later, under the
/// next CA or other settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PodCertificateTimesError {
    /// The CA ends before.
    #[error("the CA ends at {issuer_not_after}, too soon for a certificate of one hour")]
    IssuerEndsTooSoon {
        /// The end of its validity.
        issuer_not_after: Timestamp,
    },
    /// The lifetime in the TrustDomain or the pod is below one hour.
    #[error("a pod's certificate must live for at least one hour, not {lifetime:#}")]
    TooShort {
        /// What was asked for.
        lifetime: SignedDuration,
    },
}

/// The times of a certificate that is signed at `now`, lives for `ttl` but no longer than the pod
/// allows and the issuer lives.
///
/// # Errors
/// When that is less than an hour.
pub fn pod_certificate_times(
    now: Timestamp,
    ttl: SignedDuration,
    max_expiration_seconds: u32,
    issuer_not_after: Timestamp,
) -> Result<PodCertificateTimes, PodCertificateTimesError> {
    let seconds = ttl.as_secs().min(i64::from(max_expiration_seconds));
    let lifetime = SignedDuration::from_secs(seconds);
    if lifetime < MIN_LIFETIME {
        return Err(PodCertificateTimesError::TooShort { lifetime });
    }
    let end = PodCertificateTimesError::IssuerEndsTooSoon { issuer_not_after };
    let later = |start: Timestamp, by: i64| {
        Timestamp::from_second(start.as_second().saturating_add(by)).map_err(|_| end)
    };
    let not_before = later(now, -BACKDATING.as_secs())?;
    let wanted = later(not_before, seconds)?;
    let not_after = wanted.min(later(issuer_not_after, 0)?);
    let lifetime = not_before.duration_until(not_after);
    if lifetime < MIN_LIFETIME {
        return Err(end);
    }
    Ok(PodCertificateTimes {
        not_before,
        begin_refresh_at: later(not_before, lifetime.as_secs() / 2)?,
        not_after,
        capped: not_after < wanted,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn times(
        ttl: i64,
        max: u32,
        issuer: i64,
    ) -> Result<PodCertificateTimes, PodCertificateTimesError> {
        let now = Timestamp::new(NOW, 999_999_999).unwrap();
        pod_certificate_times(now, SignedDuration::from_secs(ttl), max, at(NOW + issuer))
    }

    #[test]
    fn lifetime_counts_back_dating() {
        assert_eq!(
            times(6 * 3600, 86_400, 100 * 3600),
            Ok(PodCertificateTimes {
                not_before: at(NOW - 60),
                begin_refresh_at: at(NOW - 60 + 3 * 3600),
                not_after: at(NOW - 60 + 6 * 3600),
                capped: false,
            })
        );
    }

    #[test]
    fn the_pod_can_ask_for_exactly_one_hour() {
        let times = times(6 * 3600, 3600, 100 * 3600).unwrap();
        assert_eq!(
            times.not_before.duration_until(times.not_after),
            MIN_LIFETIME
        );
        assert!(!times.capped);
    }

    #[test]
    fn the_issuer_caps_the_lifetime() {
        let times = times(6 * 3600, 86_400, 2 * 3600).unwrap();
        assert_eq!(times.not_after, at(NOW + 2 * 3600));
        assert!(times.capped);
    }

    #[test]
    fn less_than_an_hour_is_refused() {
        assert_eq!(
            times(6 * 3600, 86_400, 3600 - 61),
            Err(PodCertificateTimesError::IssuerEndsTooSoon {
                issuer_not_after: at(NOW + 3600 - 61)
            })
        );
        assert_eq!(
            times(3599, 86_400, 100 * 3600),
            Err(PodCertificateTimesError::TooShort {
                lifetime: SignedDuration::from_secs(3599)
            })
        );
    }

    proptest! {
        #[test]
        fn kube_apiserver_accepts_the_times(
            ttl in 0..8_000_000_i64,
            max in 3600..=7_862_400_u32,
            issuer in -100_000..10_000_000_i64,
        ) {
            let Ok(times) = times(ttl, max, issuer) else { return Ok(()) };
            let lifetime = times.not_before.duration_until(times.not_after);
            prop_assert!(lifetime >= MIN_LIFETIME);
            prop_assert!(lifetime.as_secs() <= i64::from(max).min(ttl));
            prop_assert!(times.not_after <= at(NOW + issuer));
            prop_assert!(at(NOW).duration_since(times.not_before) < SignedDuration::from_mins(5));
            let ten_minutes = SignedDuration::from_mins(10);
            prop_assert!(times.not_before + ten_minutes <= times.begin_refresh_at);
            prop_assert!(times.begin_refresh_at <= times.not_after - ten_minutes);
        }
    }
}
