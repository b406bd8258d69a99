//! The one place where the wall clock is read. Pure code takes the time as an argument.

use jiff::Timestamp;

/// The time now.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}
