//! Go durations (`1h30m`), the form in which all kinds give lengths of time.

use std::time::Duration;

/// Units of Go's `time.ParseDuration`, in nanoseconds; longer suffixes first.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
];
/// Go keeps a duration in a signed 64-bit count of nanoseconds, about 292 years.
const MAX_NANOSECONDS: u128 = (1 << 63) - 1;

/// Why a string is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDurationError {
    /// Not of the form that Go accepts.
    #[error("{value:?} is no duration; write for instance \"90s\", \"30m\" or \"1h30m\"")]
    Malformed {
        /// What was given.
        value: String,
    },
    /// Below zero.
    #[error("{value:?} is below zero")]
    Negative {
        /// What was given.
        value: String,
    },
    /// More than about 292 years.
    #[error("{value:?} is too long")]
    TooLong {
        /// What was given.
        value: String,
    },
}

/// Parses a duration as Go's `time.ParseDuration` does, without negative ones.
///
/// # Errors
/// When `value` is not of Go's form, is below zero, or does not fit 64-bit nanoseconds.
pub fn parse(value: &str) -> Result<Duration, ParseDurationError> {
    let malformed = || ParseDurationError::Malformed {
        value: value.into(),
    };
    let (negative, unsigned) = match value.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, value.strip_prefix('+').unwrap_or(value)),
    };
    let nanoseconds = if unsigned == "0" {
        0
    } else {
        parse_terms(unsigned).ok_or_else(malformed)?
    };
    if nanoseconds > MAX_NANOSECONDS {
        return Err(ParseDurationError::TooLong {
            value: value.into(),
        });
    }
    if negative && nanoseconds > 0 {
        return Err(ParseDurationError::Negative {
            value: value.into(),
        });
    }
    let nanoseconds = u64::try_from(nanoseconds).map_err(|_| malformed())?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// The sum of one or more `<decimal><unit>` terms in nanoseconds; overflow saturates.
fn parse_terms(value: &str) -> Option<u128> {
    let mut rest = value;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let (suffix, unit) = UNITS.iter().find(|(suffix, _)| tail.starts_with(suffix))?;
        total = total.saturating_add(scale(number, *unit)?);
        rest = tail.strip_prefix(suffix)?;
    }
    (!value.is_empty()).then_some(total)
}

/// `number` (decimal digits with at most one point) times `unit`, truncated.
fn scale(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse::<u128>().unwrap_or(u128::MAX)
    };
    let mut total = whole.saturating_mul(unit);
    let mut digit_unit = unit;
    for digit in fraction.chars().filter_map(|c| c.to_digit(10)) {
        digit_unit /= 10;
        total = total.saturating_add(u128::from(digit) * digit_unit);
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (value, milliseconds) in [
            ("0", 0),
            ("-0", 0),
            ("0s", 0),
            ("1h", 3_600_000),
            ("90m", 5_400_000),
            ("1.5h", 5_400_000),
            ("300ms", 300),
            ("1h30m10s", 5_410_000),
            (".5s", 500),
            ("1.s", 1000),
            ("+2s", 2000),
            ("1500000us", 1500),
        ] {
            assert_eq!(
                parse(value),
                Ok(Duration::from_millis(milliseconds)),
                "{value}"
            );
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for value in [
            "", "1d", "3600", "1h ", " 1h", "h", ".", ".s", "1..5s", "1hh", "--1h", "1e3s",
        ] {
            assert!(
                matches!(parse(value), Err(ParseDurationError::Malformed { .. })),
                "{value}"
            );
        }
    }

    #[test]
    fn refuses_negative_and_overlong_durations() {
        assert!(matches!(
            parse("-1h"),
            Err(ParseDurationError::Negative { .. })
        ));
        assert!(matches!(
            parse("2562048h"),
            Err(ParseDurationError::TooLong { .. })
        ));
        let digits = "9".repeat(60);
        assert!(matches!(
            parse(&format!("{digits}h")),
            Err(ParseDurationError::TooLong { .. })
        ));
    }
}
