//! JSON Web Keys (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2) as bundles have them.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer, public_key::PublicKey as ParsedPublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::{BundleError, JwtKey, PublicKey, PublicKeyError};

/// The values of `use` that we know (SPIFFE Trust Domain and Bundle §4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyUse {
    /// An X.509 root.
    X509Svid,
    /// A key that verifies JWT-SVIDs.
    JwtSvid,
}

impl KeyUse {
    const ALL: [Self; 2] = [Self::X509Svid, Self::JwtSvid];

    fn as_str(self) -> &'static str {
        match self {
            Self::X509Svid => "x509-svid",
            Self::JwtSvid => "jwt-svid",
        }
    }
}

/// A public key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonWebKey {
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    key_use: Option<String>,
    kty: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    x5c: Vec<String>,
}

impl JsonWebKey {
    /// The key of an X.509 root.
    pub(super) fn of_root(root: &CertificateDer<'_>) -> Result<Self, BundleError> {
        let Ok(([], parsed)) = X509Certificate::from_der(root) else {
            return Err(BundleError::Root);
        };
        let spki = parsed.public_key();
        // Refuses what aws-lc could not verify under.
        PublicKey::from_parsed(spki).map_err(|source| BundleError::Key { source })?;
        Ok(Self {
            key_use: Some(KeyUse::X509Svid.as_str().into()),
            x5c: vec![BASE64_STANDARD.encode(root)],
            ..Self::of_spki(spki)
        })
    }

    /// A JWT key; without `key_use` for those who know nothing of SPIFFE.
    pub(super) fn of_jwt_key(key: &JwtKey, key_use: Option<KeyUse>) -> Self {
        let parsed = SubjectPublicKeyInfo::from_der(key.public_key.spki());
        let members = parsed.map(|(_, spki)| Self::of_spki(&spki));
        Self {
            key_use: key_use.map(|key_use| key_use.as_str().into()),
            kid: Some(key.key_id.clone()),
            ..members.unwrap_or_default()
        }
    }

    fn of_spki(spki: &SubjectPublicKeyInfo<'_>) -> Self {
        match spki.parsed() {
            Ok(ParsedPublicKey::RSA(rsa)) => Self {
                kty: "RSA".into(),
                n: Some(unsigned(rsa.modulus)),
                e: Some(unsigned(rsa.exponent)),
                ..Self::default()
            },
            Ok(ParsedPublicKey::EC(point)) => Self::of_point(point.data()),
            _ => Self {
                kty: "OKP".into(),
                crv: Some("Ed25519".into()),
                x: Some(encoded(&spki.subject_public_key.data)),
                ..Self::default()
            },
        }
    }

    /// `point` is uncompressed: 4, then both coordinates in full length (RFC 7518 §6.2.1.2).
    fn of_point(point: &[u8]) -> Self {
        let coordinates = point.get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        let curve = match x.len() {
            32 => "P-256",
            48 => "P-384",
            _ => "P-521",
        };
        Self {
            kty: "EC".into(),
            crv: Some(curve.into()),
            x: Some(encoded(x)),
            y: Some(encoded(y)),
            ..Self::default()
        }
    }

    /// What it is for, where we know that.
    pub(super) fn key_use(&self) -> Option<KeyUse> {
        let named = self.key_use.as_deref()?;
        KeyUse::ALL.into_iter().find(|it| it.as_str() == named)
    }

    /// Keys of other types are to be passed over (SPIFFE Trust Domain and Bundle §4.2.1).
    pub(super) fn has_known_type(&self) -> bool {
        matches!(self.kty.as_str(), "EC" | "RSA" | "OKP")
    }

    /// The certificate of an X.509 root.
    pub(super) fn certificate(&self) -> Result<CertificateDer<'static>, BundleError> {
        let [certificate] = self.x5c.as_slice() else {
            return Err(BundleError::X5c {
                count: self.x5c.len(),
            });
        };
        match BASE64_STANDARD.decode(certificate) {
            Ok(der) => Ok(der.into()),
            Err(_) => Err(BundleError::Root),
        }
    }

    /// The JWT key that this is.
    pub(super) fn jwt_key(&self) -> Result<JwtKey, BundleError> {
        let Some(key_id) = self.kid.clone().filter(|kid| !kid.is_empty()) else {
            return Err(BundleError::KeyId);
        };
        let public_key = self.public_key();
        Ok(JwtKey {
            key_id,
            public_key: public_key.map_err(|source| BundleError::Key { source })?,
            expires_at: None,
            tainted: false,
        })
    }

    fn public_key(&self) -> Result<PublicKey, PublicKeyError> {
        let member = |value: &Option<String>| {
            let value = value.as_deref().ok_or(PublicKeyError::Malformed)?;
            let decoded = BASE64_URL_SAFE_NO_PAD.decode(value);
            decoded.map_err(|_| PublicKeyError::Malformed)
        };
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => PublicKey::from_rsa(&member(&self.n)?, &member(&self.e)?),
            ("EC", Some(curve)) => {
                let algorithm = match curve {
                    "P-256" => &rcgen::PKCS_ECDSA_P256_SHA256,
                    "P-384" => &rcgen::PKCS_ECDSA_P384_SHA384,
                    "P-521" => &rcgen::PKCS_ECDSA_P521_SHA512,
                    other => {
                        let found = format!("an ECDSA key on the curve {other}");
                        return Err(PublicKeyError::UnsupportedKey { found });
                    }
                };
                let point = [&[4][..], &member(&self.x)?, &member(&self.y)?].concat();
                PublicKey::from_bits(algorithm, &point)
            }
            ("OKP", Some("Ed25519")) => {
                PublicKey::from_bits(&rcgen::PKCS_ED25519, &member(&self.x)?)
            }
            _ => Err(PublicKeyError::Malformed),
        }
    }
}

fn encoded(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Without leading zeros (RFC 7518 §2, `Base64urlUInt`).
fn unsigned(big_endian: &[u8]) -> String {
    let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
    encoded(big_endian.get(zeros..).unwrap_or_default())
}
