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

/// The key in a PKCS #10 request (RFC 2986) in DER, for callers who proved who they are by other
/// means. What else is in the request is not looked at, and neither is its signature: whoever gets a
/// certificate for a key that they do not hold cannot use it.
///
/// # Errors
/// When the request is too large, malformed, or has a key that is not certified.
pub fn key_in_pkcs10(der: &[u8]) -> Result<PublicKey, CsrError> {
    check_length(der)?;
    let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
        return Err(CsrError::Malformed);
    };
    let key = &request.certification_request_info.subject_pki;
    check_kind(PublicKey::from_parsed(key)?)
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
        "{found} gets no certificate; use ECDSA on P-256, P-384 or P-521, Ed25519, or RSA of 2048 to \
         4096 bits"
    )]
    UnsupportedKey {
        /// What it is.
        found: String,
    },
}

impl CsrError {
    /// The reason of a `Denied` condition: Kubernetes' own word where it has one
    /// (`UnsupportedKeyType`). The kubelet takes it for a format string, so it is plain.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadSignature => "BadSignature",
            Self::Malformed => "MalformedRequest",
            Self::NotEmpty { .. } => "RequestNotEmpty",
            Self::TooLarge { .. } => "RequestTooLarge",
            Self::UnsupportedKey { .. } => "UnsupportedKeyType",
        }
    }
}

impl From<PublicKeyError> for CsrError {
    fn from(error: PublicKeyError) -> Self {
        match error {
            PublicKeyError::Malformed => Self::Malformed,
            PublicKeyError::UnsupportedKey { found } => Self::UnsupportedKey { found },
        }
    }
}

pub(super) fn check_length(bytes: &[u8]) -> Result<(), CsrError> {
    if bytes.len() > MAX_REQUEST_LENGTH {
        return Err(CsrError::TooLarge {
            length: bytes.len(),
        });
    }
    Ok(())
}

pub(super) fn check_kind(key: PublicKey) -> Result<PublicKey, CsrError> {
    match key.kind() {
        KeyKind::Rsa { bits } if !RSA_BITS.contains(&bits) => Err(CsrError::UnsupportedKey {
            found: format!("an RSA key of {bits} bits"),
        }),
        _ => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{
            ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
            RSA_PSS_SHA256, RsaKeyPair, RsaPssSaltLength,
        },
    };
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType};
    use x509_parser::asn1_rs::{Integer, Sequence, ToDer};
    use x509_parser::x509::SubjectPublicKeyInfo;

    use super::*;
    const UID: &[u8] = b"5b1c1f0e-5f9a-4f0e-9d43-0a6f5a0a3c11";

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
    }

    fn csr(params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn of_an_agents_request_the_key_alone_counts() {
        let key = p256();
        let mut params = params();
        params
            .distinguished_name
            .push(DnType::CommonName, "an agent");
        let mut request = csr(&params, &key);
        let read = key_in_pkcs10(&request).unwrap();
        assert_eq!(read.spki(), key.subject_public_key_info());
        // The last byte belongs to the signature.
        *request.last_mut().unwrap() ^= 1;
        assert_eq!(key_in_pkcs10(&request).unwrap(), read);
        assert_eq!(key_in_pkcs10(b"junk"), Err(CsrError::Malformed));
        let long = vec![0; MAX_REQUEST_LENGTH + 1];
        assert!(matches!(
            key_in_pkcs10(&long),
            Err(CsrError::TooLarge { .. })
        ));
    }

    fn p256() -> KeyPair {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
    }

    /// An RSA key of which only the length is right.
    struct RsaKey(Vec<u8>);

    impl RsaKey {
        fn new(bits: usize) -> Self {
            // A leading zero keeps it positive.
            let modulus: Vec<_> = [0].into_iter().chain(vec![0xff; bits / 8]).collect();
            let integers = [Integer::new(&modulus), Integer::new(&[1, 0, 1])];
            let key = Sequence::from_iter_to_der(integers.iter()).unwrap();
            Self(key.to_der_vec().unwrap())
        }
    }

    impl PublicKeyData for RsaKey {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }

        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &rcgen::PKCS_RSA_SHA256
        }
    }

    fn rsa_spki(bits: usize) -> Vec<u8> {
        RsaKey::new(bits).subject_public_key_info()
    }

    /// The SPKI of a key on secp256k1.
    fn odd_curve_spki() -> Vec<u8> {
        let header = b"\x30\x56\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\
            \x06\x05\x2b\x81\x04\x00\x0a\x03\x42\x00\x04";
        [header.as_slice(), &[7; 64]].concat()
    }

    #[test]
    fn accepts_every_key_type_of_pod_certificates() {
        for (algorithm, kind) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, KeyKind::EcP256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, KeyKind::EcP384),
            (&rcgen::PKCS_ECDSA_P521_SHA512, KeyKind::EcP521),
            (&rcgen::PKCS_ED25519, KeyKind::Ed25519),
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let requested = RequestedKey::from_pkcs10(&csr(&params(), &key)).unwrap();
            assert_eq!(requested.public_key().kind(), kind);
            assert_eq!(requested.public_key().spki(), key.subject_public_key_info());
        }
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_3072);
        let requested = RequestedKey::from_pkcs10(&csr(&params(), &key.unwrap())).unwrap();
        assert_eq!(requested.public_key().kind(), KeyKind::Rsa { bits: 3072 });
    }

    #[test]
    fn accepts_proofs_of_possession() {
        let random = SystemRandom::new();
        let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let key = p256();
        let ecdsa_pem =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.serialized_der())
                .unwrap();
        let proof = ecdsa_pem.sign(&random, UID).unwrap();
        let spki = key.subject_public_key_info();
        RequestedKey::from_public_key(&spki, proof.as_ref(), UID).unwrap();
        let wrong = ecdsa.sign(&random, UID).unwrap();
        for (proof, uid) in [(wrong.as_ref(), UID), (proof.as_ref(), b"another pod")] {
            let refused = RequestedKey::from_public_key(&spki, proof, uid);
            assert_eq!(refused, Err(CsrError::BadSignature));
        }

        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let ed25519 = Ed25519KeyPair::from_pkcs8(key.serialized_der()).unwrap();
        assert_eq!(ed25519.public_key().as_ref(), key.der_bytes());
        let proof = ed25519.sign(UID);
        RequestedKey::from_public_key(&key.subject_public_key_info(), proof.as_ref(), UID).unwrap();
    }

    #[test]
    fn accepts_rsa_proofs_with_any_usual_salt() {
        static LONGEST: aws_lc_rs::signature::RsaSignatureEncoding =
            RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
        let key = key.unwrap();
        let rsa = RsaKeyPair::from_pkcs8(key.serialized_der()).unwrap();
        for encoding in [&RSA_PSS_SHA256, &LONGEST] {
            let mut proof = vec![0; rsa.public_modulus_len()];
            rsa.sign(encoding, &SystemRandom::new(), UID, &mut proof)
                .unwrap();
            RequestedKey::from_public_key(&key.subject_public_key_info(), &proof, UID).unwrap();
        }
    }

    #[test]
    fn refuses_requests_that_ask_for_more() {
        let key = p256();
        let mut subject = params();
        subject.distinguished_name.push(DnType::CommonName, "admin");
        assert_eq!(
            RequestedKey::from_pkcs10(&csr(&subject, &key)),
            Err(CsrError::NotEmpty { found: "a subject" })
        );
        let mut names = params();
        names.subject_alt_names = vec![SanType::URI("spiffe://e.org/admin".try_into().unwrap())];
        assert_eq!(
            RequestedKey::from_pkcs10(&csr(&names, &key)),
            Err(CsrError::NotEmpty {
                found: "attributes or extensions"
            })
        );
    }

    #[test]
    fn refuses_weak_and_odd_keys() {
        for (spki, found) in [
            (rsa_spki(1024), "an RSA key of 1024 bits"),
            (rsa_spki(8192), "an RSA key of 8192 bits"),
            (rsa_spki(16_384), "an RSA key of 16384 bits"),
            (odd_curve_spki(), "an ECDSA key on the curve 1.3.132.0.10"),
        ] {
            let refused = RequestedKey::from_public_key(&spki, b"any", UID);
            let found = found.to_owned();
            assert_eq!(refused, Err(CsrError::UnsupportedKey { found }));
        }
    }

    #[test]
    fn refuses_keys_that_a_certificate_would_not_repeat() {
        // An RSA key without the NULL that belongs to its algorithm, its lengths set right.
        let mut spki = rsa_spki(2048);
        let null = spki.windows(2).position(|bytes| bytes == [5, 0]).unwrap();
        spki.drain(null..null + 2);
        spki[3] -= 2;
        spki[5] -= 2;
        let refused = RequestedKey::from_public_key(&spki, b"any", UID);
        assert_eq!(refused, Err(CsrError::Malformed));
    }

    #[test]
    fn refuses_large_input_before_looking_at_it() {
        let large = vec![0; MAX_REQUEST_LENGTH + 1];
        let error = Err(CsrError::TooLarge {
            length: large.len(),
        });
        assert_eq!(RequestedKey::from_pkcs10(&large), error);
        assert_eq!(RequestedKey::from_public_key(&large, b"", UID), error);
        let spki = p256().subject_public_key_info();
        assert_eq!(RequestedKey::from_public_key(&spki, &large, UID), error);
    }

    #[test]
    fn no_damage_leads_to_another_key() {
        let der = csr(&params(), &p256());
        let intact = RequestedKey::from_pkcs10(&der).unwrap();
        for position in 0..der.len() {
            let mut damaged = der.clone();
            damaged[position] ^= 0x40;
            // Tags around the signed part are not signed themselves.
            if let Ok(accepted) = RequestedKey::from_pkcs10(&damaged) {
                assert_eq!(accepted, intact, "{position}");
            }
        }
        let mut longer = der.clone();
        longer.push(0);
        assert_eq!(RequestedKey::from_pkcs10(&longer), Err(CsrError::Malformed));
        let mut signature = der;
        *signature.last_mut().unwrap() ^= 1;
        assert_eq!(
            RequestedKey::from_pkcs10(&signature),
            Err(CsrError::BadSignature)
        );
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = RequestedKey::from_pkcs10(&bytes);
            let _ = RequestedKey::from_public_key(&bytes, &bytes, UID);
            let _ = key_in_pkcs10(&bytes);
        }

        /// A damaged request of an agent is refused, or gives a key that can be read again.
        #[test]
        fn what_is_read_of_a_damaged_request_is_a_key(at in any::<prop::sample::Index>(), byte in 1..=u8::MAX) {
            let key = p256();
            let mut request = csr(&params(), &key);
            let at = at.index(request.len());
            request[at] ^= byte;
            if let Ok(read) = key_in_pkcs10(&request) {
                let (_, spki) = SubjectPublicKeyInfo::from_der(read.spki()).unwrap();
                prop_assert_eq!(PublicKey::from_parsed(&spki), Ok(read));
            }
        }
    }
}
