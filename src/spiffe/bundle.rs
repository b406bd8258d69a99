//! Trust bundles: the authorities of one trust domain, and the forms in which they travel.
//!
//! - PEM: X.509 roots only, as a ClusterTrustBundle must have it.
//! - The SPIFFE bundle document (SPIFFE Trust Domain and Bundle §4): a JWK set whose X.509 roots
//!   have `use: x509-svid` and whose JWT keys have `use: jwt-svid`.
//! - A plain JWK set (RFC 7517) of the keys that verify JWTs. X.509 roots are no such keys, and a
//!   reader that knows nothing of SPIFFE's `use` would take them for some.
//!
//! Roots and keys keep the order in which they are given, oldest first; each occurs once. Which are
//! tainted, and when JWT keys expire, is known to those who get the bundle by SPIRE's API only.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{
    Fingerprint, PemError, PublicKey, PublicKeyError, TrustDomainName,
    jwk::{JsonWebKey, KeyUse},
    pem,
};

/// A root of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509Authority {
    certificate: CertificateDer<'static>,
    tainted: bool,
    jwk: JsonWebKey,
}

impl X509Authority {
    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Whether what verifies to it is to be replaced.
    #[must_use]
    pub fn is_tainted(&self) -> bool {
        self.tainted
    }
}

/// A key that verifies JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtKey {
    /// The `kid` of tokens.
    pub key_id: String,
    /// The key.
    pub public_key: PublicKey,
    /// When it ends; unknown where the bundle came as a document.
    pub expires_at: Option<Timestamp>,
    /// Whether what it signed is to be replaced.
    pub tainted: bool,
}

/// The authorities of one trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    trust_domain: TrustDomainName,
    roots: Vec<X509Authority>,
    jwt_keys: Vec<JwtKey>,
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
        let mut unique: Vec<X509Authority> = Vec::new();
        for certificate in roots {
            if unique.iter().all(|known| known.certificate != certificate) {
                let jwk = JsonWebKey::of_root(&certificate)?;
                unique.push(X509Authority {
                    certificate,
                    tainted: false,
                    jwk,
                });
            }
        }
        Ok(Self {
            trust_domain,
            roots: unique,
            jwt_keys: Vec::new(),
            sequence,
            refresh_hint: None,
        })
    }

    /// The same bundle with these JWT keys, of which those that repeat a key ID are dropped.
    #[must_use]
    pub fn with_jwt_keys(mut self, keys: impl IntoIterator<Item = JwtKey>) -> Self {
        self.jwt_keys = Vec::new();
        for key in keys {
            if self.jwt_key(&key.key_id).is_none() {
                self.jwt_keys.push(key);
            }
        }
        self
    }

    /// The same bundle, of which those roots are tainted for which `is_tainted` says so.
    #[must_use]
    pub fn with_tainted(mut self, is_tainted: impl Fn(&CertificateDer<'static>) -> bool) -> Self {
        for root in &mut self.roots {
            root.tainted = is_tainted(&root.certificate);
        }
        self
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

    /// Reads a SPIFFE bundle document. Keys of other uses and types are passed over.
    ///
    /// # Errors
    /// When it is no such document or a root or JWT key in it is malformed.
    pub fn from_document(
        trust_domain: TrustDomainName,
        document: &[u8],
    ) -> Result<Self, BundleError> {
        let document: Document =
            serde_json::from_slice(document).map_err(|error| BundleError::Document {
                message: error.to_string(),
            })?;
        let of_use = |wanted| {
            let keys = document.keys.iter();
            keys.filter(move |key| key.key_use() == Some(wanted) && key.has_known_type())
        };
        let roots = of_use(KeyUse::X509Svid)
            .map(JsonWebKey::certificate)
            .collect::<Result<Vec<_>, _>>()?;
        let jwt_keys = of_use(KeyUse::JwtSvid)
            .map(JsonWebKey::jwt_key)
            .collect::<Result<Vec<_>, _>>()?;
        let bundle = Self::new(trust_domain, roots, document.spiffe_sequence.unwrap_or(0))?;
        Ok(Self {
            refresh_hint: document.spiffe_refresh_hint,
            ..bundle.with_jwt_keys(jwt_keys)
        })
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomainName {
        &self.trust_domain
    }

    /// The certificates of the X.509 roots, oldest first.
    pub fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(X509Authority::certificate)
    }

    /// The X.509 roots with all that is known of them, oldest first.
    #[must_use]
    pub fn x509_authorities(&self) -> &[X509Authority] {
        &self.roots
    }

    /// The JWT keys, oldest first.
    #[must_use]
    pub fn jwt_keys(&self) -> &[JwtKey] {
        &self.jwt_keys
    }

    /// The JWT key of this `kid`.
    #[must_use]
    pub fn jwt_key(&self, key_id: &str) -> Option<&JwtKey> {
        self.jwt_keys.iter().find(|key| key.key_id == key_id)
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
        let roots = self.roots.iter().map(|root| root.jwk.clone());
        let jwt_keys = self.jwt_keys.iter();
        render(&Document {
            keys: roots
                .chain(jwt_keys.map(|key| JsonWebKey::of_jwt_key(key, Some(KeyUse::JwtSvid))))
                .collect(),
            spiffe_sequence: Some(self.sequence),
            spiffe_refresh_hint: self.refresh_hint,
        })
    }

    /// The JWK set for readers that know nothing of SPIFFE: keys have no `use`, of which such
    /// readers know others (RFC 7517 §4.2).
    #[must_use]
    pub fn to_jwks(&self) -> String {
        let jwt_keys = self.jwt_keys.iter();
        render(&Document {
            keys: jwt_keys
                .map(|key| JsonWebKey::of_jwt_key(key, None))
                .collect(),
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
    /// A JWT key without a `kid` (SPIFFE Trust Domain and Bundle §4.2.3).
    #[error("a key with use jwt-svid must have a kid")]
    KeyId,
    /// A root or JWT key with a key that we do not know.
    #[error("a key cannot be used: {source}")]
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

fn render(document: &Document) -> String {
    // Strings and numbers only: this cannot fail.
    serde_json::to_string_pretty(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use base64::{
        Engine,
        prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
    };
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use x509_parser::{certificate::X509Certificate, prelude::FromDer};

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

    fn jwt_key(algorithm: &'static rcgen::SignatureAlgorithm, key_id: &str) -> JwtKey {
        let root = root(algorithm);
        let (_, parsed) = X509Certificate::from_der(&root).unwrap();
        JwtKey {
            key_id: key_id.to_owned(),
            public_key: PublicKey::from_parsed(parsed.public_key()).unwrap(),
            expires_at: None,
            tainted: false,
        }
    }

    fn some_jwt_keys() -> Vec<JwtKey> {
        [
            (&rcgen::PKCS_ECDSA_P256_SHA256, "a"),
            (&rcgen::PKCS_ECDSA_P384_SHA384, "b"),
            (&rcgen::PKCS_ECDSA_P521_SHA512, "c"),
            (&rcgen::PKCS_RSA_SHA256, "d"),
        ]
        .map(|(algorithm, key_id)| jwt_key(algorithm, key_id))
        .into()
    }

    #[test]
    fn x509_roots_are_not_offered_as_jwt_keys() {
        let bundle = Bundle::new(name(), some_roots(), 7).unwrap();
        let jwks = |bundle: &Bundle| -> serde_json::Value {
            serde_json::from_str(&bundle.to_jwks()).unwrap()
        };
        assert_eq!(jwks(&bundle), serde_json::json!({"keys": []}));
        let bundle = bundle.with_jwt_keys(some_jwt_keys());
        let keys = jwks(&bundle)["keys"].as_array().unwrap().clone();
        let ids: Vec<_> = keys
            .iter()
            .map(|key| key["kid"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["a", "b", "c", "d"]);
        assert!(
            keys.iter()
                .all(|key| key.get("use").is_none() && key.get("x5c").is_none())
        );
    }

    #[test]
    fn jwt_keys_are_in_the_document_and_read_again() {
        let keys = some_jwt_keys();
        let bundle = Bundle::new(name(), some_roots(), 7).unwrap();
        let bundle = bundle.with_jwt_keys([keys.clone(), keys.clone()].concat());
        assert_eq!(bundle.jwt_keys(), keys, "each once");
        let text = bundle.to_document();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let last = document["keys"].as_array().unwrap().last().unwrap();
        assert_eq!(
            (&last["use"], &last["kid"]),
            (&"jwt-svid".into(), &"d".into())
        );
        let again = Bundle::from_document(name(), text.as_bytes()).unwrap();
        assert_eq!(again, bundle);
        assert_eq!(again.jwt_key("b"), Some(&keys[1]));
        assert_eq!(again.jwt_key("e"), None);
    }

    #[test]
    fn tainted_roots_are_marked() {
        let roots = some_roots();
        let bundle = Bundle::new(name(), roots.clone(), 7).unwrap();
        let bundle = bundle.with_tainted(|root| *root == roots[1]);
        let tainted: Vec<_> = bundle
            .x509_authorities()
            .iter()
            .map(X509Authority::is_tainted)
            .collect();
        assert_eq!(tainted, [false, true, false, false, false]);
        assert!(bundle.roots().eq(&roots));
    }

    #[test]
    fn keys_of_other_uses_and_unknown_members_are_passed_over() {
        let document = br#"{"keys": [{"use": "jwt-svid", "kty": "new", "kid": "a", "x": "AA"},
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
        let with_jwt_key =
            |members: &str| read(&format!(r#"{{"keys":[{{"use":"jwt-svid",{members}}}]}}"#));
        let coordinate = BASE64_URL_SAFE_NO_PAD.encode([1; 32]);
        let point = format!(r#""kty":"EC","crv":"P-256","x":"{coordinate}","y":"{coordinate}""#);
        assert_eq!(with_jwt_key(&point), Err(BundleError::KeyId));
        for members in [
            r#""kid":"a","kty":"EC","crv":"P-256","x":"AA","y":"AA""#,
            r#""kid":"a","kty":"EC","crv":"P-256""#,
            r#""kid":"a","kty":"RSA","n":"AA","e":"AQAB""#,
            r#""kid":"a","kty":"RSA","n":"%","e":"AQAB""#,
        ] {
            let refused = with_jwt_key(members);
            assert!(matches!(refused, Err(BundleError::Key { .. })), "{members}");
        }
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
