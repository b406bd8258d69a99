//! Telling that something lives shorter than it was to, because its issuer ends first: once for each
//! identity and kind, as agents ask again and again.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::server::context::ServerContext;

/// How many are remembered. With more, all are told again.
const MAX_TOLD: usize = 10_000;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<BTreeSet<(&'static str, String)>>);

impl Told {
    /// Whether it was not told yet; from now on it was.
    fn is_news(&self, kind: &'static str, id: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MAX_TOLD {
            told.clear();
        }
        told.insert((kind, id.to_owned()))
    }
}

impl ServerContext {
    /// Tells the operator's log that a `kind`, such as `X.509-SVID`, of `id` ends at `until` and not
    /// when it was to.
    pub(super) fn note_cap(&self, kind: &'static str, id: &str, until: Timestamp) {
        if self.told_caps.is_news(kind, id) {
            tracing::warn!(
                trust_domain = %self.trust_domain,
                id,
                kind,
                %until,
                "the end of its issuer cuts the lifetime short; ask for a shorter one, or let the CA \
                 live longer"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once() {
        let told = Told::default();
        assert!(told.is_news("JWT-SVID", "a") && told.is_news("X.509-SVID", "a"));
        assert!(!told.is_news("JWT-SVID", "a") && told.is_news("JWT-SVID", "b"));
        for number in 0..=MAX_TOLD {
            told.is_news("JWT-SVID", &number.to_string());
        }
        assert!(told.0.lock().unwrap().len() <= MAX_TOLD);
        assert!(told.is_news("JWT-SVID", "a"));
    }
}
