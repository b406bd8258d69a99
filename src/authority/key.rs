//! Private keys of authorities: making, reading and signing with them.
//!
//! A key is zeroized when it is dropped; it is not cloned, not printed, and no error quotes it.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    error::Unspecified,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
        ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _,
        RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use rcgen::{CertificateParams, DistinguishedName, DnType, PublicKeyData, SanType, SigningKey};
use rustls_pki_types::{
    PrivateKeyDer, PrivatePkcs8KeyDer,
    pem::{PemObject, SectionKind},
};
use zeroize::Zeroizing;

use crate::{
    api::CaKeyType,
    spiffe::{
        PublicKey,
        pem::{encode, without_byte_order_mark},
    },
};

const CURVES: [&EcdsaSigningAlgorithm; 3] = [
    &ECDSA_P256_SHA256_ASN1_SIGNING,
    &ECDSA_P384_SHA384_ASN1_SIGNING,
    &ECDSA_P521_SHA512_ASN1_SIGNING,
];

/// A private key, ready to sign.
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: KeyPair,
    public_key: PublicKey,
}

enum KeyPair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl PrivateKey {
    /// Makes a new key, from the operating system's randomness.
    ///
    /// # Errors
    /// When that fails.
    pub fn generate(key_type: CaKeyType) -> Result<Self, KeyError> {
        let ecdsa = |curve| {
            EcdsaKeyPair::generate(curve)
                .map_err(|_| KeyError::Generate)
                .and_then(|pair| Self::new(KeyPair::Ecdsa(pair)))
        };
        let rsa = |size| {
            RsaKeyPair::generate(size)
                .map_err(|_| KeyError::Generate)
                .and_then(|pair| Self::new(KeyPair::Rsa(pair)))
        };
        let [p256, p384, _] = CURVES;
        match key_type {
            CaKeyType::EcP256 => ecdsa(p256),
            CaKeyType::EcP384 => ecdsa(p384),
            CaKeyType::Rsa2048 => rsa(KeySize::Rsa2048),
            CaKeyType::Rsa4096 => rsa(KeySize::Rsa4096),
        }
    }

    /// Reads the one private key in `pem`: PKCS #8, SEC 1 (`EC PRIVATE KEY`) or PKCS #1
    /// (`RSA PRIVATE KEY`), among any other text and blocks.
    ///
    /// # Errors
    /// When there is none, more than one, an encrypted one, or one that cannot sign for us.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let pem = without_byte_order_mark(pem);
        // Both forms of encryption: PKCS #8's own label, and OpenSSL's older header.
        if contains(pem, b"ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let mut found = None;
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|_| KeyError::Malformed)?;
            let der = Zeroizing::new(der);
            if matches!(
                kind,
                SectionKind::PrivateKey | SectionKind::EcPrivateKey | SectionKind::RsaPrivateKey
            ) && found.replace(der).is_some()
            {
                return Err(KeyError::Several);
            }
        }
        Self::from_der(&found.ok_or(KeyError::Missing)?)
    }

    /// Reads a private key in the DER of PKCS #8, SEC 1 or PKCS #1.
    ///
    /// # Errors
    /// When it is none that can sign for us.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        for curve in CURVES {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve, der) {
                return Self::new(KeyPair::Ecdsa(pair));
            }
        }
        RsaKeyPair::from_pkcs8(der)
            .or_else(|_| RsaKeyPair::from_der(der))
            .map_err(|_| KeyError::Unsupported)
            .and_then(|pair| Self::new(KeyPair::Rsa(pair)))
    }

    fn new(pair: KeyPair) -> Result<Self, KeyError> {
        let pkcs8 = Zeroizing::new(pair.pkcs8().map_err(|_| KeyError::Unsupported)?);
        let spki = pair.spki().map_err(|_| KeyError::Unsupported)?;
        Ok(Self {
            pkcs8,
            pair,
            public_key: PublicKey::from_spki(&spki).map_err(|_| KeyError::Unsupported)?,
        })
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The key as PKCS #8.
    pub(super) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key as TLS has it.
    #[must_use]
    pub fn to_private_key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()))
    }

    /// A certificate request (PKCS #10) in DER with nothing in it but the key, and the `uri` if one is
    /// given.
    ///
    /// # Errors
    /// When the key makes no signature.
    pub fn certificate_request(&self, uri: Option<&str>) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in [
            (DnType::CountryName, "US"),
            (DnType::OrganizationName, "SPIRE"),
        ] {
            params.distinguished_name.push(kind, value);
        }
        if let Some(uri) = uri {
            let uri = uri.try_into().map_err(|_| KeyError::Sign)?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        let request = params.serialize_request(self);
        request
            .map(|request| request.der().to_vec())
            .map_err(|_| KeyError::Sign)
    }

    /// The key as a PKCS #8 block, for the one Secret that keeps it.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(encode("PRIVATE KEY", &self.pkcs8))
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.public_key.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.public_key.algorithm()
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let random = SystemRandom::new();
        match &self.pair {
            KeyPair::Ecdsa(pair) => pair
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec()),
            KeyPair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map(|()| signature)
            }
        }
        .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public_key.key_id())
    }
}

impl KeyPair {
    fn pkcs8(&self) -> Result<Vec<u8>, Unspecified> {
        match self {
            Self::Ecdsa(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            Self::Rsa(pair) => {
                AsDer::<Pkcs8V1Der<'_>>::as_der(pair).map(|der| der.as_ref().to_vec())
            }
        }
    }

    fn spki(&self) -> Result<Vec<u8>, Unspecified> {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Ecdsa(pair) => pair.public_key().as_der()?,
            Self::Rsa(pair) => pair.public_key().as_der()?,
        };
        Ok(der.as_ref().to_vec())
    }
}

/// Why there is no private key, or no signature by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A key under a passphrase.
    #[error("the private key is encrypted; store it without a passphrase")]
    Encrypted,
    /// The library made no key.
    #[error("a new key could not be made")]
    Generate,
    /// A block that does not decode.
    #[error("a PEM block does not decode; is the file cut off, or a line damaged?")]
    Malformed,
    /// No block with a private key.
    #[error(
        "there is no private key; a block that starts with -----BEGIN PRIVATE KEY----- is needed"
    )]
    Missing,
    /// More than one private key.
    #[error("there is more than one private key; keep the CA's only")]
    Several,
    /// The library made no signature.
    #[error("the key made no signature")]
    Sign,
    /// A key of another kind, or a damaged one.
    #[error(
        "the private key is damaged or of another kind than ECDSA on P-256, P-384 or P-521, or RSA of 2048 to 8192 bits"
    )]
    Unsupported,
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spiffe::KeyKind;

    const P256: &str = "-----BEGIN PRIVATE KEY-----";

    fn read(pem: &str) -> Result<KeyKind, KeyError> {
        PrivateKey::from_pem(pem.as_bytes()).map(|key| key.public_key().kind())
    }

    /// SEC 1 or PKCS #1, by the openssl library's own coding.
    fn older_forms() -> (String, String) {
        use aws_lc_rs::encoding::EcPrivateKeyRfc5915Der;
        let ecdsa = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
        let sec1: EcPrivateKeyRfc5915Der<'_> = ecdsa.private_key().as_der().unwrap();
        let rsa = PrivateKey::generate(CaKeyType::Rsa2048).unwrap();
        // PKCS #8 wraps PKCS #1 in an octet string that reaches to its end.
        let pkcs1 = rsa.pkcs8.get(26..).unwrap();
        (
            encode("EC PRIVATE KEY", sec1.as_ref()),
            encode("RSA PRIVATE KEY", pkcs1),
        )
    }

    #[test]
    fn reads_what_it_writes() {
        for (key_type, kind) in [
            (CaKeyType::EcP256, KeyKind::EcP256),
            (CaKeyType::EcP384, KeyKind::EcP384),
            (CaKeyType::Rsa2048, KeyKind::Rsa { bits: 2048 }),
            (CaKeyType::Rsa4096, KeyKind::Rsa { bits: 4096 }),
        ] {
            let key = PrivateKey::generate(key_type).unwrap();
            let again = PrivateKey::from_pem(key.to_pem().as_bytes()).unwrap();
            assert_eq!(again.public_key(), key.public_key());
            assert_eq!(again.public_key().kind(), kind);
            assert_eq!(again.pkcs8, key.pkcs8);
        }
    }

    #[test]
    fn reads_the_weirdest_files() {
        let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
        let pem = key.to_pem();
        let parameters =
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        for text in [
            pem.replace('\n', "\r\n"),
            format!("\u{feff}{}", *pem),
            format!("Key Attributes: <No Attributes>\n{}garbage after it", *pem),
            format!("{parameters}{}", *pem),
            format!("{}{}", encode("CERTIFICATE", &[1; 30]), *pem),
        ] {
            assert_eq!(read(&text), Ok(KeyKind::EcP256), "{text}");
        }
        let (sec1, pkcs1) = older_forms();
        assert_eq!(read(&format!("{parameters}{sec1}")), Ok(KeyKind::EcP384));
        assert_eq!(read(&pkcs1), Ok(KeyKind::Rsa { bits: 2048 }));
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let pem = PrivateKey::generate(CaKeyType::EcP256).unwrap().to_pem();
        let encrypted = pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let older = pem.replace(
            P256,
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED",
        );
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        for (text, error) in [
            (String::new(), KeyError::Missing),
            (encode("CERTIFICATE", &[1; 30]), KeyError::Missing),
            (encrypted, KeyError::Encrypted),
            (older, KeyError::Encrypted),
            (format!("{}{}", *pem, *pem), KeyError::Several),
            (pem[..pem.len() - 20].to_owned(), KeyError::Malformed),
            (encode("PRIVATE KEY", &[1; 30]), KeyError::Unsupported),
            (
                encode("PRIVATE KEY", ed25519.serialized_der()),
                KeyError::Unsupported,
            ),
        ] {
            assert_eq!(read(&text), Err(error), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
        let id = key.public_key().key_id();
        assert_eq!(format!("{key:?}"), format!("PrivateKey({id})"));
    }
}
