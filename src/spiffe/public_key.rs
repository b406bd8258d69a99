//! Public keys: which ones we certify, and how a signature under them is verified.

use aws_lc_rs::{
    digest,
    signature::{self, RsaParameters, RsaPssSaltLength, UnparsedPublicKey, VerificationAlgorithm},
};
use rcgen::{PublicKeyData, SignatureAlgorithm};
use x509_parser::{
    asn1_rs::{Integer, Sequence, ToDer},
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521,
        OID_PKCS1_RSAENCRYPTION, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
        OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519,
    },
    prelude::FromDer,
    public_key::PublicKey as ParsedPublicKey,
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo},
};

use super::JwsAlgorithm;

/// Go signs PSS with the longest salt unless told otherwise, and so does the kubelet.
static RSA_PSS_SHA256_LONGEST_SALT: RsaParameters =
    signature::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);

/// Smallest and largest modulus that aws-lc verifies under.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// What a public key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    EcP256,
    /// ECDSA on P-384.
    EcP384,
    /// ECDSA on P-521.
    EcP521,
    /// Ed25519.
    Ed25519,
    /// RSA.
    Rsa {
        /// Length of the modulus.
        bits: usize,
    },
}

/// A public key of a kind that we know, as `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
    kind: KeyKind,
    /// Where the bits of the key start in `spki`; they reach to its end.
    bits: usize,
}

/// Why bytes are no public key that we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// Not the DER of a `SubjectPublicKeyInfo`.
    #[error("the public key is not a DER-encoded SubjectPublicKeyInfo")]
    Malformed,
    /// A well-formed key of another kind.
    #[error("{found} is not supported; use ECDSA on P-256, P-384 or P-521, Ed25519, or RSA")]
    UnsupportedKey {
        /// What it is.
        found: String,
    },
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`. RSA keys have 2048 to 8192 bits, points on curves are not
    /// compressed (RFC 5480 §2.2 leaves compression optional, and Go does not know it) and lie on
    /// them.
    ///
    /// # Errors
    /// When the bytes are not that, or a key of another kind.
    pub fn from_spki(der: &[u8]) -> Result<Self, PublicKeyError> {
        let Ok(([], parsed)) = SubjectPublicKeyInfo::from_der(der) else {
            return Err(PublicKeyError::Malformed);
        };
        let key = Self::from_parsed(&parsed)?;
        if key.is_off_its_curve() {
            return Err(PublicKeyError::Malformed);
        }
        Ok(key)
    }

    /// The key of `algorithm` with these `bits`: a curve's point, or an `RSAPublicKey`.
    pub(super) fn from_bits(
        algorithm: &'static SignatureAlgorithm,
        bits: &[u8],
    ) -> Result<Self, PublicKeyError> {
        struct Bits<'a>(&'static SignatureAlgorithm, &'a [u8]);
        impl PublicKeyData for Bits<'_> {
            fn der_bytes(&self) -> &[u8] {
                self.1
            }
            fn algorithm(&self) -> &'static SignatureAlgorithm {
                self.0
            }
        }
        Self::from_spki(&Bits(algorithm, bits).subject_public_key_info())
    }

    /// The RSA key of this modulus and exponent, both big-endian.
    pub(super) fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, PublicKeyError> {
        // A leading zero keeps an integer positive, and further ones are not DER.
        let positive = |number: &[u8]| {
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            let digits = number.get(zeros..).unwrap_or_default();
            let sign = digits.first().is_none_or(|first| *first >= 0x80);
            [vec![0; usize::from(sign)], digits.to_vec()].concat()
        };
        let (modulus, exponent) = (positive(modulus), positive(exponent));
        let numbers = [Integer::new(&modulus), Integer::new(&exponent)];
        let key = Sequence::from_iter_to_der(numbers.iter())
            .ok()
            .and_then(|key| key.to_der_vec().ok())
            .ok_or(PublicKeyError::Malformed)?;
        Self::from_bits(&rcgen::PKCS_RSA_SHA256, &key)
    }

    /// That of a certificate or a certificate request. Nobody looked whether a point lies on its
    /// curve: a signature under it shows that.
    pub(crate) fn from_parsed(parsed: &SubjectPublicKeyInfo<'_>) -> Result<Self, PublicKeyError> {
        let bits: &[u8] = &parsed.subject_public_key.data;
        let key = Self {
            kind: kind_of(parsed, bits)?,
            bits: parsed.raw.len().saturating_sub(bits.len()),
            spki: parsed.raw.to_vec(),
        };
        // What goes into certificates is what was asked for, to the byte: no RSA key without its
        // NULL (RFC 3279 §2.3.1), nothing beside a curve.
        if key.subject_public_key_info() == key.spki {
            Ok(key)
        } else {
            Err(PublicKeyError::Malformed)
        }
    }

    fn is_off_its_curve(&self) -> bool {
        let algorithm = match self.kind {
            KeyKind::EcP256 => &signature::ECDSA_P256_SHA256_ASN1,
            KeyKind::EcP384 => &signature::ECDSA_P384_SHA384_ASN1,
            KeyKind::EcP521 => &signature::ECDSA_P521_SHA512_ASN1,
            KeyKind::Ed25519 | KeyKind::Rsa { .. } => return false,
        };
        signature::ParsedPublicKey::new(algorithm, self.bits()).is_err()
    }

    /// The DER of the `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The kind of the key.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The content of the bit string: a curve's point, or an `RSAPublicKey`.
    #[must_use]
    pub fn bits(&self) -> &[u8] {
        self.spki.get(self.bits..).unwrap_or_default()
    }

    /// The key identifier: SHA-1 of the key's bits (RFC 5280 §4.2.1.2, method 1), as SPIRE's.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, self.bits());
        KeyId(hash.as_ref().to_vec())
    }

    /// Whether `signature` is one over `message` by an X.509 algorithm that fits the key.
    pub(crate) fn verifies(
        &self,
        algorithm: &AlgorithmIdentifier<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        self.x509_algorithm(algorithm)
            .is_some_and(|algorithm| self.verifies_by(algorithm, message, signature))
    }

    /// Whether `signature` proves to Kubernetes that its maker holds the key: ECDSA or RSA-PSS
    /// over SHA-256, or Ed25519.
    pub(crate) fn verifies_possession(&self, message: &[u8], signature: &[u8]) -> bool {
        let by = |algorithm| self.verifies_by(algorithm, message, signature);
        match self.kind {
            KeyKind::EcP256 => by(&signature::ECDSA_P256_SHA256_ASN1),
            KeyKind::EcP384 => by(&signature::ECDSA_P384_SHA256_ASN1),
            KeyKind::EcP521 => by(&signature::ECDSA_P521_SHA256_ASN1),
            KeyKind::Ed25519 => by(&signature::ED25519),
            KeyKind::Rsa { .. } => {
                by(&signature::RSA_PSS_2048_8192_SHA256) || by(&RSA_PSS_SHA256_LONGEST_SALT)
            }
        }
    }

    /// Whether `signature` is one over `message` by this algorithm of JWS, which must fit the key.
    pub(super) fn verifies_jws(
        &self,
        algorithm: JwsAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        use JwsAlgorithm as Jws;
        let algorithm: &'static dyn VerificationAlgorithm = match (self.kind, algorithm) {
            (KeyKind::EcP256, Jws::Es256) => &signature::ECDSA_P256_SHA256_FIXED,
            (KeyKind::EcP384, Jws::Es384) => &signature::ECDSA_P384_SHA384_FIXED,
            (KeyKind::EcP521, Jws::Es512) => &signature::ECDSA_P521_SHA512_FIXED,
            (KeyKind::Rsa { .. }, Jws::Rs256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (KeyKind::Rsa { .. }, Jws::Rs384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (KeyKind::Rsa { .. }, Jws::Rs512) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (KeyKind::Rsa { .. }, Jws::Ps256) => &signature::RSA_PSS_2048_8192_SHA256,
            (KeyKind::Rsa { .. }, Jws::Ps384) => &signature::RSA_PSS_2048_8192_SHA384,
            (KeyKind::Rsa { .. }, Jws::Ps512) => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return false,
        };
        self.verifies_by(algorithm, message, signature)
    }

    fn verifies_by(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        UnparsedPublicKey::new(algorithm, self.bits())
            .verify(message, signature)
            .is_ok()
    }

    fn x509_algorithm(
        &self,
        algorithm: &AlgorithmIdentifier<'_>,
    ) -> Option<&'static dyn VerificationAlgorithm> {
        let oid = &algorithm.algorithm;
        let hash = if *oid == OID_SIG_ECDSA_WITH_SHA256 || *oid == OID_PKCS1_SHA256WITHRSA {
            256
        } else if *oid == OID_SIG_ECDSA_WITH_SHA384 || *oid == OID_PKCS1_SHA384WITHRSA {
            384
        } else if *oid == OID_SIG_ECDSA_WITH_SHA512 || *oid == OID_PKCS1_SHA512WITHRSA {
            512
        } else if *oid == OID_SIG_ED25519 && self.kind == KeyKind::Ed25519 {
            return Some(&signature::ED25519);
        } else {
            return None;
        };
        // An RSA key refuses an ECDSA signature, and the reverse, whatever the identifier says.
        Some(match (self.kind, hash) {
            (KeyKind::EcP256, 256) => &signature::ECDSA_P256_SHA256_ASN1,
            (KeyKind::EcP256, 384) => &signature::ECDSA_P256_SHA384_ASN1,
            (KeyKind::EcP256, _) => &signature::ECDSA_P256_SHA512_ASN1,
            (KeyKind::EcP384, 256) => &signature::ECDSA_P384_SHA256_ASN1,
            (KeyKind::EcP384, 384) => &signature::ECDSA_P384_SHA384_ASN1,
            (KeyKind::EcP384, _) => &signature::ECDSA_P384_SHA512_ASN1,
            (KeyKind::EcP521, 256) => &signature::ECDSA_P521_SHA256_ASN1,
            (KeyKind::EcP521, 384) => &signature::ECDSA_P521_SHA384_ASN1,
            (KeyKind::EcP521, _) => &signature::ECDSA_P521_SHA512_ASN1,
            (KeyKind::Rsa { .. }, 256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (KeyKind::Rsa { .. }, 384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (KeyKind::Rsa { .. }, _) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (KeyKind::Ed25519, _) => return None,
        })
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        self.bits()
    }

    /// That of the key, and of what its private half signs.
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.kind {
            KeyKind::EcP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::EcP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyKind::EcP521 => &rcgen::PKCS_ECDSA_P521_SHA512,
            KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
            KeyKind::Rsa { .. } => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

/// A key identifier, as certificates and the status of a TrustDomain carry it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(crate) Vec<u8>);

impl KeyId {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

fn kind_of(parsed: &SubjectPublicKeyInfo<'_>, bits: &[u8]) -> Result<KeyKind, PublicKeyError> {
    let algorithm = &parsed.algorithm.algorithm;
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        return curve_of(parsed, bits);
    }
    if *algorithm == OID_SIG_ED25519 {
        return match bits.len() {
            32 => Ok(KeyKind::Ed25519),
            _ => Err(PublicKeyError::Malformed),
        };
    }
    if *algorithm != OID_PKCS1_RSAENCRYPTION {
        return Err(unsupported(format!("a key of the algorithm {algorithm}")));
    }
    let Ok(ParsedPublicKey::RSA(rsa)) = parsed.parsed() else {
        return Err(PublicKeyError::Malformed);
    };
    match bit_length(rsa.modulus) {
        bits if RSA_BITS.contains(&bits) => Ok(KeyKind::Rsa { bits }),
        bits => Err(unsupported(format!("an RSA key of {bits} bits"))),
    }
}

fn curve_of(parsed: &SubjectPublicKeyInfo<'_>, point: &[u8]) -> Result<KeyKind, PublicKeyError> {
    let curve = parsed
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok())
        .ok_or(PublicKeyError::Malformed)?;
    let (kind, length) = if curve == OID_EC_P256 {
        (KeyKind::EcP256, 65)
    } else if curve == OID_NIST_EC_P384 {
        (KeyKind::EcP384, 97)
    } else if curve == OID_NIST_EC_P521 {
        (KeyKind::EcP521, 133)
    } else {
        return Err(unsupported(format!("an ECDSA key on the curve {curve}")));
    };
    match point {
        [0x04, ..] if point.len() == length => Ok(kind),
        [0x02 | 0x03, ..] => Err(unsupported("an ECDSA key with a compressed point".into())),
        _ => Err(PublicKeyError::Malformed),
    }
}

fn unsupported(found: String) -> PublicKeyError {
    PublicKeyError::UnsupportedKey { found }
}

fn bit_length(big_endian: &[u8]) -> usize {
    let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
    match big_endian.get(zeros) {
        Some(first) => {
            (big_endian.len() - zeros) * 8
                - usize::try_from(first.leading_zeros()).unwrap_or_default()
        }
        None => 0,
    }
}
