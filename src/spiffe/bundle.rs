//! Trust bundles: the roots of one trust domain, and the forms in which they travel.
//!
//! - PEM: certificates only, as a ClusterTrustBundle must have it.
//! - The SPIFFE bundle document (SPIFFE Trust Domain and Bundle §4): a JWK set whose X.509 roots
//!   have `use: x509-svid`.
//! - A plain JWK set (RFC 7517) of the keys that verify JWTs. X.509 roots are no such keys, and a
//!   reader that knows nothing of SPIFFE's `use` would take them for some; as the trust domain has
//!   no JWT keys, the set is empty.
//!
//! Roots keep the order in which they are given, oldest first; a root occurs once.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer, public_key::PublicKey as ParsedPublicKey,
};

use super::{Fingerprint, PemError, PublicKey, PublicKeyError, TrustDomainName, pem};

/// The value of `use` for X.509 roots (SPIFFE Trust Domain and Bundle §4.2.2).
const X509_SVID: &str = "x509-svid";

/// The roots of one trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    trust_domain: TrustDomainName,
    roots: Vec<(CertificateDer<'static>, JsonWebKey)>,
    sequence: u64,
    refresh_hint: Option<u64>,
}

impl Bundle {
    /// A bundle of `roots`, of which repeated ones are dropped. `sequence` grows with every change.
    ///
    /// # Errors
    /// When a root is no certificate, or has a key of a kind that we do not know.
    pub fn new(
        trust_domain: TrustDomainName,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
        sequence: u64,
    ) -> Result<Self, BundleError> {
        let mut unique: Vec<(CertificateDer<'static>, JsonWebKey)> = Vec::new();
        for root in roots {
            if unique.iter().all(|(known, _)| *known != root) {
                let key = JsonWebKey::of_root(&root)?;
                unique.push((root, key));
            }
        }
        Ok(Self {
            trust_domain,
            roots: unique,
            sequence,
            refresh_hint: None,
        })
    }

    /// The same bundle with a hint of how many seconds to wait before asking for it again.
    #[must_use]
    pub fn with_refresh_hint(mut self, seconds: u64) -> Self {
        self.refresh_hint = Some(seconds);
        self
    }

    /// Reads what [`Self::to_pem`] writes, and any other file with certificates.
    ///
    /// # Errors
    /// When there is no certificate or one is malformed.
    pub fn from_pem(trust_domain: TrustDomainName, text: &[u8]) -> Result<Self, BundleError> {
        Self::new(trust_domain, pem::certificates(text)?, 0)
    }

    /// Reads a SPIFFE bundle document. Keys of other uses, JWT keys among them, are passed over.
    ///
    /// # Errors
    /// When it is no such document or a root in it is malformed.
    pub fn from_document(
        trust_domain: TrustDomainName,
        document: &[u8],
    ) -> Result<Self, BundleError> {
        let document: Document =
            serde_json::from_slice(document).map_err(|error| BundleError::Document {
                message: error.to_string(),
            })?;
        let roots = document
            .keys
            .iter()
            .filter(|key| key.key_use.as_deref() == Some(X509_SVID))
            .map(JsonWebKey::certificate)
            .collect::<Result<Vec<_>, _>>()?;
        let bundle = Self::new(trust_domain, roots, document.spiffe_sequence.unwrap_or(0))?;
        Ok(Self {
            refresh_hint: document.spiffe_refresh_hint,
            ..bundle
        })
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomainName {
        &self.trust_domain
    }

    /// The X.509 roots, oldest first.
    pub fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|(root, _)| root)
    }

    /// The fingerprints of the roots: what a publisher confirms.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.roots().map(|root| Fingerprint::of(root))
    }

    /// Grows with every change.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How many seconds to wait before asking for the bundle again.
    #[must_use]
    pub fn refresh_hint(&self) -> Option<u64> {
        self.refresh_hint
    }

    /// The roots as PEM: certificates, nothing else.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode_certificates(self.roots())
    }

    /// The SPIFFE bundle document.
    #[must_use]
    pub fn to_document(&self) -> String {
        render(&Document {
            keys: self.roots.iter().map(|(_, key)| key.clone()).collect(),
            spiffe_sequence: Some(self.sequence),
            spiffe_refresh_hint: self.refresh_hint,
        })
    }

    /// The JWK set for readers that know nothing of SPIFFE.
    #[must_use]
    pub fn to_jwks(&self) -> String {
        render(&Document {
            keys: Vec::new(),
            spiffe_sequence: None,
            spiffe_refresh_hint: None,
        })
    }
}

/// Why something is no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Not the JSON of a bundle document.
    #[error("this is no SPIFFE bundle document: {message}")]
    Document {
        /// What is wrong with it.
        message: String,
    },
    /// A root with a key that we do not know.
    #[error("a root's key cannot be used: {source}")]
    Key {
        /// What is wrong with it.
        source: PublicKeyError,
    },
    /// Not PEM.
    #[error("this is no PEM bundle: {source}")]
    Pem {
        /// What is wrong with it.
        source: PemError,
    },
    /// A root that is no certificate.
    #[error("a root in the bundle is not a well-formed certificate")]
    Root,
    /// A key with `use: x509-svid` that does not have exactly one certificate (§4.2.2).
    #[error(
        "a key with use x509-svid must have exactly one certificate in x5c, this one has {count}"
    )]
    X5c {
        /// How many it has.
        count: usize,
    },
}

impl From<PemError> for BundleError {
    fn from(source: PemError) -> Self {
        Self::Pem { source }
    }
}

/// The bundle document. Readers pass over members that they do not know (RFC 7517 §5).
#[derive(Serialize, Deserialize)]
struct Document {
    keys: Vec<JsonWebKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spiffe_sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spiffe_refresh_hint: Option<u64>,
}

/// A public key (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct JsonWebKey {
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    key_use: Option<String>,
    kty: String,
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
    fn of_root(root: &CertificateDer<'_>) -> Result<Self, BundleError> {
        let Ok(([], parsed)) = X509Certificate::from_der(root) else {
            return Err(BundleError::Root);
        };
        let spki = parsed.public_key();
        // Refuses what aws-lc could not verify under.
        PublicKey::from_parsed(spki).map_err(|source| BundleError::Key { source })?;
        let key = match spki.parsed() {
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
        };
        Ok(Self {
            key_use: Some(X509_SVID.into()),
            x5c: vec![BASE64_STANDARD.encode(root)],
            ..key
        })
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

    fn certificate(&self) -> Result<CertificateDer<'static>, BundleError> {
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
}

fn encoded(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Without leading zeros (RFC 7518 §2, `Base64urlUInt`).
fn unsigned(big_endian: &[u8]) -> String {
    let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
    encoded(big_endian.get(zeros..).unwrap_or_default())
}

fn render(document: &Document) -> String {
    // Strings and numbers only: this cannot fail.
    serde_json::to_string_pretty(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    fn root(algorithm: &'static rcgen::SignatureAlgorithm) -> CertificateDer<'static> {
        let key = if *algorithm == rcgen::PKCS_RSA_SHA256 {
            KeyPair::generate_rsa_for(algorithm, rcgen::RsaKeySize::_2048)
        } else {
            KeyPair::generate_for(algorithm)
        };
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&key.unwrap()).unwrap().der().clone()
    }

    fn name() -> TrustDomainName {
        "example.org".parse().unwrap()
    }

    fn some_roots() -> Vec<CertificateDer<'static>> {
        [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
        ]
        .map(root)
        .into()
    }

    #[test]
    fn the_document_follows_the_specification() {
        let roots = some_roots();
        let bundle = Bundle::new(name(), roots.clone(), 7).unwrap();
        let document: serde_json::Value =
            serde_json::from_str(&bundle.with_refresh_hint(300).to_document()).unwrap();
        assert_eq!(document["spiffe_sequence"], 7);
        assert_eq!(document["spiffe_refresh_hint"], 300);
        let keys = document["keys"].as_array().unwrap();
        assert_eq!(keys.len(), roots.len());
        let length = |value: &serde_json::Value| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(value.as_str().unwrap());
            bytes.unwrap().len()
        };
        for (key, (root, (kty, crv, sizes))) in keys.iter().zip(roots.iter().zip([
            ("EC", "P-256", vec![("x", 32), ("y", 32)]),
            ("EC", "P-384", vec![("x", 48), ("y", 48)]),
            ("EC", "P-521", vec![("x", 66), ("y", 66)]),
            ("OKP", "Ed25519", vec![("x", 32)]),
            ("RSA", "", vec![("n", 256), ("e", 3)]),
        ])) {
            assert_eq!(key["use"], "x509-svid");
            assert_eq!(key["kty"], kty);
            assert_eq!(key["crv"].as_str().unwrap_or_default(), crv);
            assert_eq!(
                key["x5c"],
                serde_json::json!([BASE64_STANDARD.encode(root)])
            );
            for (parameter, size) in sizes {
                assert_eq!(length(&key[parameter]), size, "{kty} {crv} {parameter}");
            }
        }
    }

    #[test]
    fn x509_roots_are_not_offered_as_jwt_keys() {
        let bundle = Bundle::new(name(), some_roots(), 7).unwrap();
        let jwks: serde_json::Value = serde_json::from_str(&bundle.to_jwks()).unwrap();
        assert_eq!(jwks, serde_json::json!({"keys": []}));
    }

    #[test]
    fn keys_of_other_uses_and_unknown_members_are_passed_over() {
        let document = br#"{"keys": [{"use": "jwt-svid", "kty": "EC", "kid": "a", "x": "AA"},
            {"use": "wit-svid", "kty": "new"}, {"kty": "EC"}], "spiffe_sequence": 3, "new": {}}"#;
        let bundle = Bundle::from_document(name(), document).unwrap();
        assert_eq!((bundle.roots().count(), bundle.sequence()), (0, 3));
        assert_eq!(bundle.refresh_hint(), None);
    }

    #[test]
    fn says_what_is_wrong_with_a_document() {
        let read = |text: &str| Bundle::from_document(name(), text.as_bytes());
        for text in ["", "[]", "{}", r#"{"keys": 1}"#] {
            assert!(
                matches!(read(text), Err(BundleError::Document { .. })),
                "{text}"
            );
        }
        let with_x5c = |x5c: &str| {
            read(&format!(
                r#"{{"keys":[{{"use":"x509-svid","kty":"EC","x5c":{x5c}}}]}}"#
            ))
        };
        assert_eq!(with_x5c("[]"), Err(BundleError::X5c { count: 0 }));
        assert_eq!(
            with_x5c(r#"["AA==","AA=="]"#),
            Err(BundleError::X5c { count: 2 })
        );
        assert_eq!(with_x5c(r#"["AA=="]"#), Err(BundleError::Root));
        assert_eq!(with_x5c(r#"["%"]"#), Err(BundleError::Root));
        assert_eq!(
            Bundle::from_pem(name(), b"nothing"),
            Err(BundleError::Pem {
                source: PemError::NoCertificate
            })
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_form_is_read_as_it_was_written(
            picks in proptest::collection::vec(0..5_usize, 1..12),
            sequence in 0..u64::MAX / 2,
            hint in proptest::option::of(0..100_000_u64),
        ) {
            let roots = some_roots();
            let picked: Vec<_> = picks.iter().map(|pick| roots[*pick].clone()).collect();
            let mut bundle = Bundle::new(name(), picked.clone(), sequence).unwrap();
            if let Some(hint) = hint {
                bundle = bundle.with_refresh_hint(hint);
            }
            let mut unique = Vec::new();
            for root in picked {
                if !unique.contains(&root) {
                    unique.push(root);
                }
            }
            prop_assert_eq!(bundle.roots().cloned().collect::<Vec<_>>(), unique);
            let document = bundle.to_document();
            let again = Bundle::from_document(name(), document.as_bytes()).unwrap();
            prop_assert_eq!(&again, &bundle);
            prop_assert_eq!(again.to_document(), document);
            let pem = bundle.to_pem();
            let again = Bundle::from_pem(name(), pem.as_bytes()).unwrap();
            prop_assert!(again.roots().eq(bundle.roots()));
            prop_assert!(pem.lines().all(|line| !line.is_empty() && !line.contains(':')));
        }
    }
}
