//! Who signs.
mod certificate_authority;
pub mod import;
mod key;
mod pod_certificate_times;

pub use certificate_authority::{
    CaCertificates, CertificateAuthority, SignError, SignedSvid, SvidRequest,
};
pub use import::ImportError;
pub use key::{KeyError, PrivateKey};
pub use pod_certificate_times::{
    BACKDATING, MIN_LIFETIME, PodCertificateTimes, PodCertificateTimesError, pod_certificate_times,
};
