//! SPIFFE's own vocabulary: identifiers, bundles, X.509-SVIDs, JWT-SVIDs and their verification.
//!
//! Everything here is pure: no I/O, no clock, no Kubernetes. Time comes in as an argument; serial
//! numbers alone are drawn from the operating system's randomness. What decides *which* workload
//! gets an identity is in [`crate::registration`]; the keys that sign are in [`crate::authority`].

mod bundle;
mod ca_certificate;
mod certificate;
mod certificate_request;
mod csr;
#[cfg(test)]
mod der_tests;
mod id;
mod jwk;
mod jws;
mod jwt_svid;
pub mod pem;
mod public_key;
mod subject;
mod verify;
mod x509_svid;

pub use bundle::{Bundle, BundleError, JwtKey, X509Authority};
pub(crate) use ca_certificate::uris;
pub use ca_certificate::{CaCertificate, CaCertificateError, CaProfile, DownstreamCaProfile};
pub use certificate::{Fingerprint, RandomnessError, SerialNumber};
pub use certificate_request::CertificateRequest;
pub use csr::{CsrError, MAX_REQUEST_LENGTH, RequestedKey, key_in_pkcs10};
pub use id::{MAX_ID_LENGTH, ParseSpiffeIdError, ParseTrustDomainError, SpiffeId, TrustDomainName};
pub use jws::JwsAlgorithm;
pub use jwt_svid::{JwtSvid, JwtSvidError, MAX_JWT_LENGTH, verify_jwt_svid};
pub use pem::PemError;
pub use public_key::{KeyId, KeyKind, PublicKey, PublicKeyError};
pub use subject::{Subject, UnsupportedSubject};
pub(crate) use verify::{AnyPurpose, id_of};
pub use verify::{VerifyError, check_x509_svid, is_trust_anchor, verify_x509_svid};
pub use x509_svid::X509SvidProfile;
