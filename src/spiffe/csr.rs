//! What a pod asks with: a public key and the proof that the asker holds its private half.
//!
//! A `PodCertificateRequest` carries either a PKCS #10 request, which must be empty but for the key,
//! or (Kubernetes 1.35) the key and a signature over the pod's UID. Nothing else that a requester
//! writes is looked at: the identity comes from the pod's registered entry.

use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::{KeyKind, PublicKey, PublicKeyError};

/// Kubernetes' limit for a request, a key and a proof, each in bytes.
pub const MAX_REQUEST_LENGTH: usize = 10 * 1024;

/// Sizes of RSA keys that are certified; `podCertificate` volumes offer 3072 and 4096 bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// A public key whose private half the requester has proved to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedKey(PublicKey);

impl RequestedKey {
    /// Reads and verifies an otherwise empty PKCS #10 request (RFC 2986) in DER.
    ///
    /// # Errors
    /// When it is too large, malformed, asks for more than a key, has a key that is not certified,
    /// or is not signed by that key.
    pub fn from_pkcs10(der: &[u8]) -> Result<Self, CsrError> {
        check_length(der)?;
        let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
            return Err(CsrError::Malformed);
        };
        let info = &request.certification_request_info;
        if info.version.0 != 0 {
            return Err(CsrError::Malformed);
        }
        if info.subject.iter_rdn().next().is_some() {
            return Err(CsrError::NotEmpty { found: "a subject" });
        }
        if !info.attributes().is_empty() {
            return Err(CsrError::NotEmpty {
                found: "attributes or extensions",
            });
        }
        let key = check_kind(PublicKey::from_parsed(&info.subject_pki)?)?;
        let signature = &request.signature_value.data;
        if key.verifies(&request.signature_algorithm, info.raw, signature) {
            Ok(Self(key))
        } else {
            Err(CsrError::BadSignature)
        }
    }

    /// Reads a key (`SubjectPublicKeyInfo` in DER) and verifies the proof of possession, a
    /// signature over the bytes of the pod's UID.
    ///
    /// # Errors
    /// When anything is too large or malformed, the key is not certified, or the proof is wrong.
    pub fn from_public_key(
        spki: &[u8],
        proof_of_possession: &[u8],
        pod_uid: &[u8],
    ) -> Result<Self, CsrError> {
        check_length(spki)?;
        check_length(proof_of_possession)?;
        let key = check_kind(PublicKey::from_spki(spki)?)?;
        if key.verifies_possession(pod_uid, proof_of_possession) {
            Ok(Self(key))
        } else {
            Err(CsrError::BadSignature)
        }
    }

    /// The key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.0
    }
}

/// Why a request is refused. None of these can become right for the same request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// The signature is not by the key asked for, or of an algorithm that does not fit it.
    #[error("the request is not signed by the key that it asks a certificate for")]
    BadSignature,
    /// No DER of the expected form.
    #[error("the request is not well-formed DER")]
    Malformed,
    /// More than a key.
    #[error("the request asks for {found}; it must hold a key and nothing else")]
    NotEmpty {
        /// What else it holds.
        found: &'static str,
    },
    /// More than 10 KiB.
    #[error("the request has {length} bytes; {MAX_REQUEST_LENGTH} are allowed")]
    TooLarge {
        /// Its length in bytes.
        length: usize,
    },
    /// A key that is too weak, too long or of an unknown kind.
    #[error(
        "{found} gets no certificate; use ECDSAP256, ECDSAP384, ECDSAP521, ED25519, RSA3072 or \
         RSA4096 as keyType"
    )]
    UnsupportedKey {
        /// What it is.
        found: String,
    },
}

impl From<PublicKeyError> for CsrError {
    fn from(error: PublicKeyError) -> Self {
        match error {
            PublicKeyError::Malformed => Self::Malformed,
            PublicKeyError::UnsupportedKey { found } => Self::UnsupportedKey { found },
        }
    }
}

fn check_length(bytes: &[u8]) -> Result<(), CsrError> {
    if bytes.len() > MAX_REQUEST_LENGTH {
        return Err(CsrError::TooLarge {
            length: bytes.len(),
        });
    }
    Ok(())
}

fn check_kind(key: PublicKey) -> Result<PublicKey, CsrError> {
    match key.kind() {
        KeyKind::Rsa { bits } if !RSA_BITS.contains(&bits) => Err(CsrError::UnsupportedKey {
            found: format!("an RSA key of {bits} bits"),
        }),
        _ => Ok(key),
    }
}
