//! Why a CA signs nothing.

use jiff::Timestamp;

use super::KeyError;
use crate::spiffe::{CaCertificateError, RandomnessError, SpiffeId, VerifyError};

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// No certificate can say what was asked for.
    #[error("the certificate cannot be written: {source}")]
    Certificate {
        /// Why.
        source: rcgen::Error,
    },
    /// A DNS name that cannot be in a certificate.
    #[error("{name:?} cannot be in a certificate; a DNS name is ASCII of at most 253 characters")]
    DnsName {
        /// The name.
        name: String,
    },
    /// The ID of a trust domain, which only its CAs carry.
    #[error("{id} has no path, and so is no workload's identity")]
    IdWithoutPath {
        /// The ID.
        id: SpiffeId,
    },
    /// The key made no signature.
    #[error("signing failed: {source}")]
    Key {
        /// What the key said.
        source: KeyError,
    },
    /// The certificate that came out is no X.509-SVID for the request.
    #[error("the signed certificate is not what was asked for: {source}")]
    Leaf {
        /// What is wrong with it.
        source: VerifyError,
    },
    /// The validity would end before it begins, as under a CA that has expired.
    #[error("the certificate would end at {not_after}, before it begins at {not_before}")]
    NoLifetime {
        /// When it would begin.
        not_before: Timestamp,
        /// When it would end.
        not_after: Timestamp,
    },
    /// A CA above allows no further one below it.
    #[error(
        "a CA in the chain allows {allowed} CAs below it, and this would be one of {needed}; reissue \
         it with a larger path length, or without one"
    )]
    PathLength {
        /// How many it allows.
        allowed: u32,
        /// How many there would be.
        needed: u32,
    },
    /// The CA certificate that came out is none.
    #[error("the CA certificate is not what was asked for: {source}")]
    Profile {
        /// What is wrong with it.
        source: CaCertificateError,
    },
    /// No serial number.
    #[error("there is no serial number: {source}")]
    Randomness {
        /// Why.
        source: RandomnessError,
    },
    /// Several values where the subject of a CA can have one.
    #[error("the subject of a CA has one {attribute} at most, and not {count}")]
    SeveralValues {
        /// The attribute.
        attribute: &'static str,
        /// How many there are.
        count: usize,
    },
    /// The name of the issuer cannot be its subject.
    #[error(transparent)]
    Subject {
        /// Why.
        source: SubjectError,
    },
}

/// The subject of a CA that `rcgen` does not write as the CA's certificate has it. Nothing under
/// that CA would verify, since names are compared by their bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the CA's subject {subject} cannot be copied into certificates; reissue the CA with a subject \
     that has no attribute twice, one attribute in each RDN and plain text, such as \
     \"O=Example, CN=Example CA\""
)]
pub struct SubjectError {
    /// The subject, for people.
    pub subject: String,
}

impl From<rcgen::Error> for SignError {
    fn from(source: rcgen::Error) -> Self {
        match source {
            rcgen::Error::RemoteKeyError => Self::Key {
                source: KeyError::Sign,
            },
            source => Self::Certificate { source },
        }
    }
}

impl From<RandomnessError> for SignError {
    fn from(source: RandomnessError) -> Self {
        Self::Randomness { source }
    }
}
