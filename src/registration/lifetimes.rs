//! How long the SVIDs of a trust domain live for certain. Each ends with the authority that signs it,
//! and one that lives longer than what is left of that is cut short.

use std::time::Duration;

use crate::api::{TrustDomainSpec, duration};

/// What is left of an authority when the next one takes over, at least: a part of its lifetime, and
/// no more than so much (SPIRE, `pkg/server/ca/manager/slot.go`).
const LEFT: (u32, Duration) = (6, Duration::from_hours(7 * 24));

/// The longest lifetimes that are never cut short; none where they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of X.509-SVIDs.
    x509: Option<Duration>,
    /// Of JWT-SVIDs.
    jwt: Option<Duration>,
}

/// A lifetime that may be cut short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExceedingTtl {
    /// The field that asks for it.
    pub field: &'static str,
    /// What it asks for.
    pub ttl: Duration,
    /// What is certain.
    pub certain: Duration,
}

impl Lifetimes {
    /// Those of a TrustDomain. A CA that comes from a Secret says its own end, so nothing is known of
    /// X.509-SVIDs under it.
    #[must_use]
    pub fn of(spec: &TrustDomainSpec) -> Self {
        let (part, most) = LEFT;
        let left = duration::parse(&spec.ca_ttl).ok();
        let left = left.map(|ca_ttl| (ca_ttl / part).min(most));
        Self {
            x509: left.filter(|_| spec.authority.self_signed.is_some()),
            jwt: left,
        }
    }

    /// Which of an object's two fields ask for more.
    #[must_use]
    pub fn exceeded_by(
        self,
        x509: (&'static str, Option<Duration>),
        jwt: (&'static str, Option<Duration>),
    ) -> Vec<ExceedingTtl> {
        let fields = [(x509, self.x509), (jwt, self.jwt)].into_iter();
        let exceeding = fields.filter_map(|((field, ttl), certain)| {
            let (ttl, certain) = (ttl?, certain?);
            (ttl > certain).then_some(ExceedingTtl {
                field,
                ttl,
                certain,
            })
        });
        exceeding.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn exceeding(spec: &serde_json::Value, x509: u64, jwt: u64) -> Vec<(&'static str, u64)> {
        let mut all = json!({ "trustDomain": "e.org", "authority": { "selfSigned": {} } });
        let fields = all.as_object_mut().unwrap();
        fields.extend(spec.as_object().unwrap().clone());
        let lifetimes = Lifetimes::of(&serde_json::from_value(all).unwrap());
        let seconds = |ttl: u64| Some(ttl).filter(|ttl| *ttl > 0).map(Duration::from_secs);
        let found = lifetimes.exceeded_by(("x", seconds(x509)), ("j", seconds(jwt)));
        let found = found.into_iter();
        found.map(|it| (it.field, it.certain.as_secs())).collect()
    }

    #[test]
    fn what_may_be_cut_short_is_known_beforehand() {
        let day = json!({ "caTTL": "24h" });
        assert_eq!(exceeding(&day, 14_400, 14_400), []);
        assert_eq!(exceeding(&day, 14_401, 0), [("x", 14_400)]);
        assert_eq!(exceeding(&day, 0, 14_401), [("j", 14_400)]);
        assert_eq!(exceeding(&day, 0, 0), []);
        let years = json!({ "caTTL": "87600h" });
        let week = 7 * 24 * 3600;
        assert_eq!(exceeding(&years, week + 1, week), [("x", week)]);
        let reference = json!({ "secretRef": { "name": "ca" } });
        let imported = json!({ "caTTL": "24h", "authority": reference });
        assert_eq!(exceeding(&imported, u64::MAX, 14_401), [("j", 14_400)]);
    }
}
