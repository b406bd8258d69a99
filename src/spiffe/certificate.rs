//! The parts that every certificate has (RFC 5280 §4.1), written as bytes to be signed. What goes
//! into them is for the profiles: [`super::X509SvidProfile`] and [`super::CaProfile`].

use aws_lc_rs::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::{KeyId, PublicKey, der};
use crate::spiffe::der::Der;

/// Room for a leaf with a P-256 key, so that writing one allocates once.
const USUAL_LENGTH: usize = 768;
const VERSION_3: &[u8] = &[0xa0, 0x03, 0x02, 0x01, 0x02];
const EXTENSIONS: u8 = 0xa3;
const KEY_IDENTIFIER: u8 = 0x80;
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const OBJECT_IDENTIFIER: u8 = 0x06;
const TRUE: &[u8] = &[0xff];
/// Extensions, under 2.5.29.
const KEY_USAGE: u8 = 15;
const EXTENDED_KEY_USAGE: u8 = 37;
const BASIC_CONSTRAINTS: u8 = 19;
const SUBJECT_KEY_IDENTIFIER: u8 = 14;
const AUTHORITY_KEY_IDENTIFIER: u8 = 35;
const SUBJECT_ALTERNATIVE_NAME: u8 = 17;
/// `serverAuth` and `clientAuth` (RFC 5280 §4.2.1.12).
const SERVER_AND_CLIENT: &[u8] = &[
    0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05,
    0x05, 0x07, 0x03, 0x02,
];

/// Attributes of names, under 2.5.4.
pub(crate) const COMMON_NAME: u8 = 3;
pub(crate) const SERIAL_NUMBER: u8 = 5;
pub(crate) const COUNTRY: u8 = 6;
pub(crate) const ORGANIZATION: u8 = 10;

/// The serial number of a certificate: 128 random bits, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialNumber(u128);

impl SerialNumber {
    /// A new one from the operating system's randomness.
    ///
    /// # Errors
    /// When that has none to give.
    pub fn random() -> Result<Self, RandomnessError> {
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| RandomnessError)?;
        // Zero is as likely as any other number, and the only one that is not allowed.
        Ok(Self(u128::from_be_bytes(bytes).max(1)))
    }
}

impl std::fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The operating system gave no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random numbers")]
pub struct RandomnessError;

/// How a certificate is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignatureAlgorithm {
    EcdsaSha256,
    EcdsaSha384,
    EcdsaSha512,
    RsaSha256,
}

impl SignatureAlgorithm {
    /// The `AlgorithmIdentifier` (RFC 5758 §3.2, RFC 4055 §5).
    fn identifier(self) -> &'static [u8] {
        match self {
            Self::EcdsaSha256 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
            Self::EcdsaSha384 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03",
            Self::EcdsaSha512 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04",
            Self::RsaSha256 => b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00",
        }
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Signs certificates: basic constraints without a path length, `keyCertSign` and `cRLSign`.
    Ca,
    /// Server and client: `digitalSignature`, `keyEncipherment`, `keyAgreement`.
    Leaf,
}

/// A certificate but for its signature.
pub(crate) struct ToBeSigned<'a> {
    pub(crate) serial: SerialNumber,
    pub(crate) algorithm: SignatureAlgorithm,
    /// The issuer's name in DER.
    pub(crate) issuer: &'a [u8],
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// The subject's name in DER.
    pub(crate) subject: &'a [u8],
    pub(crate) public_key: &'a PublicKey,
    pub(crate) purpose: Purpose,
    /// None for a root.
    pub(crate) authority_key_id: Option<&'a KeyId>,
    pub(crate) uri: &'a str,
    pub(crate) dns_names: &'a [String],
}

impl ToBeSigned<'_> {
    /// The `TBSCertificate`.
    pub(crate) fn to_der(&self) -> Vec<u8> {
        let mut der = Der::with_capacity(USUAL_LENGTH);
        der.nested(der::SEQUENCE, |der| {
            der.raw(VERSION_3);
            der.unsigned_integer(&self.serial.0.to_be_bytes());
            der.raw(self.algorithm.identifier());
            der.raw(self.issuer);
            der.nested(der::SEQUENCE, |der| {
                der.time(self.not_before);
                der.time(self.not_after);
            });
            der.raw(self.subject);
            der.raw(self.public_key.spki());
            der.nested(EXTENSIONS, |der| {
                der.nested(der::SEQUENCE, |der| self.extensions(der));
            });
        });
        der.into_bytes()
    }

    /// In the order in which Go writes them.
    fn extensions(&self, der: &mut Der) {
        let (key_usage, basic_constraints): (&[u8], &[u8]) = match self.purpose {
            Purpose::Ca => (&[0x01, 0x06], &[0x01, 0x01, 0xff]),
            Purpose::Leaf => (&[0x03, 0xa8], &[]),
        };
        extension(der, KEY_USAGE, true, |der| {
            der.primitive(der::BIT_STRING, key_usage);
        });
        if self.purpose == Purpose::Leaf {
            extension(der, EXTENDED_KEY_USAGE, false, |der| {
                der.primitive(der::SEQUENCE, SERVER_AND_CLIENT);
            });
        }
        extension(der, BASIC_CONSTRAINTS, true, |der| {
            der.primitive(der::SEQUENCE, basic_constraints);
        });
        extension(der, SUBJECT_KEY_IDENTIFIER, false, |der| {
            der.primitive(der::OCTET_STRING, self.public_key.key_id().as_bytes());
        });
        if let Some(key_id) = self.authority_key_id {
            extension(der, AUTHORITY_KEY_IDENTIFIER, false, |der| {
                der.nested(der::SEQUENCE, |der| {
                    der.primitive(KEY_IDENTIFIER, key_id.as_bytes());
                });
            });
        }
        extension(der, SUBJECT_ALTERNATIVE_NAME, false, |der| {
            der.nested(der::SEQUENCE, |der| {
                for name in self.dns_names {
                    der.primitive(DNS_NAME, name.as_bytes());
                }
                der.primitive(URI, self.uri.as_bytes());
            });
        });
    }
}

/// The certificate of what was to be signed and its signature.
pub(crate) fn signed(
    to_be_signed: &[u8],
    algorithm: SignatureAlgorithm,
    signature: &[u8],
) -> CertificateDer<'static> {
    let mut der = Der::with_capacity(to_be_signed.len() + signature.len() + 32);
    der.nested(der::SEQUENCE, |der| {
        der.raw(to_be_signed);
        der.raw(algorithm.identifier());
        der.bit_string(signature);
    });
    CertificateDer::from(der.into_bytes())
}

/// A name of one RDN an attribute, each with one or more values, which go into one SET as Go has
/// it. Attributes without values are left out.
pub(crate) fn name(attributes: &[(u8, &[&str])]) -> Vec<u8> {
    let mut der = Der::default();
    der.nested(der::SEQUENCE, |der| {
        for (attribute, values) in attributes {
            if values.is_empty() {
                continue;
            }
            let mut encoded: Vec<_> = values
                .iter()
                .map(|value| attribute_value(*attribute, value))
                .collect();
            // DER sorts the elements of a SET OF by their encoding (X.690 §11.6).
            encoded.sort();
            der.nested(der::SET, |der| {
                for value in &encoded {
                    der.raw(value);
                }
            });
        }
    });
    der.into_bytes()
}

/// SHA-256 of a certificate, which names it beyond doubt.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        Self(bytes)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

fn attribute_value(attribute: u8, value: &str) -> Vec<u8> {
    let mut der = Der::default();
    der.nested(der::SEQUENCE, |der| {
        der.primitive(OBJECT_IDENTIFIER, &[0x55, 0x04, attribute]);
        der.directory_string(value);
    });
    der.into_bytes()
}

fn extension(der: &mut Der, id: u8, critical: bool, value: impl FnOnce(&mut Der)) {
    der.nested(der::SEQUENCE, |der| {
        der.primitive(OBJECT_IDENTIFIER, &[0x55, 0x1d, id]);
        if critical {
            der.primitive(der::BOOLEAN, TRUE);
        }
        der.nested(der::OCTET_STRING, value);
    });
}
