//! SPIFFE's own vocabulary: identifiers, bundles, X.509-SVIDs and their verification.
//!
//! Everything here is pure: no I/O, no clock, no Kubernetes. Time and randomness come in as
//! arguments. What decides *which* workload gets an identity is in [`crate::registration`]; the
//! keys that sign are in [`crate::authority`].

mod id;

pub use id::{ParseSpiffeIdError, ParseTrustDomainError, SpiffeId, TrustDomainName};
