//! Verifying JWT-SVIDs (JWT-SVID §2 to §4): JWS in compact form under a key of the trust domain's
//! bundle. Signing them is in [`crate::authority`].
//!
//! The key alone decides about the algorithm: one of another family is refused, whatever the header
//! says. Nothing is looked at before its size is.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Bundle, JwsAlgorithm, SpiffeId};

/// Longest token that is looked at, in bytes. Those of SPIRE have some hundred.
pub const MAX_JWT_LENGTH: usize = 16 * 1024;

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSvid {
    /// The identity.
    pub id: SpiffeId,
    /// For whom the token is.
    pub audience: Vec<String>,
    /// End of validity.
    pub expires_at: Timestamp,
    /// The `kid` of the key that signed it.
    pub key_id: String,
}

/// What `token` says to a verifier who calls itself `audience`, trusts `bundle`, and whose time is
/// `now`.
///
/// # Errors
/// When the token is no JWT-SVID of the bundle's trust domain, is for others, is not valid now, or
/// is not signed by a key of the bundle.
pub fn verify_jwt_svid(
    token: &str,
    bundle: &Bundle,
    audience: &str,
    now: Timestamp,
) -> Result<JwtSvid, JwtSvidError> {
    if token.len() > MAX_JWT_LENGTH {
        return Err(JwtSvidError::TooLarge {
            length: token.len(),
        });
    }
    let parts: Vec<&str> = token.splitn(4, '.').collect();
    let [header, claims, signature] = parts.as_slice() else {
        return Err(JwtSvidError::Malformed);
    };
    let key_id = {
        let header: Header = decoded(header)?;
        let algorithm = header.algorithm()?;
        let key_id = header.kid.unwrap_or_default();
        let Some(key) = bundle.jwt_key(&key_id) else {
            return Err(JwtSvidError::UnknownKey { key_id });
        };
        let signature = bytes(signature)?;
        let signed = token.rsplit_once('.').map_or("", |(signed, _)| signed);
        if !key
            .public_key
            .verifies_jws(algorithm, signed.as_bytes(), &signature)
        {
            return Err(JwtSvidError::BadSignature);
        }
        key_id
    };
    let claims: Claims = decoded(claims)?;
    claims.check(bundle, audience, key_id, now)
}

/// The header (RFC 7515 §4.1).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<serde_json::Value>,
}

impl Header {
    fn algorithm(&self) -> Result<JwsAlgorithm, JwtSvidError> {
        // We know no extension, so none may be critical (RFC 7515 §4.1.11).
        if self.crit.is_some() {
            return Err(JwtSvidError::Critical);
        }
        let typ = self.typ.as_deref();
        if let Some(typ) = typ.filter(|typ| !matches!(*typ, "JWT" | "JOSE")) {
            return Err(JwtSvidError::Type {
                typ: typ.to_owned(),
            });
        }
        JwsAlgorithm::named(&self.alg).ok_or_else(|| JwtSvidError::Algorithm {
            alg: self.alg.clone(),
        })
    }
}

/// The claims that we look at (RFC 7519 §4.1).
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    #[serde(default)]
    aud: Audience,
    exp: Option<NumericDate>,
    nbf: Option<NumericDate>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

/// Seconds since 1970, which may have a fraction (RFC 7519 §2).
#[derive(Deserialize)]
#[serde(untagged)]
enum NumericDate {
    Seconds(i64),
    Fraction(f64),
}

impl NumericDate {
    fn time(&self) -> Result<Timestamp, JwtSvidError> {
        let time = match self {
            Self::Seconds(seconds) => Timestamp::from_second(*seconds).ok(),
            Self::Fraction(seconds) => SignedDuration::try_from_secs_f64(*seconds)
                .ok()
                .and_then(|since_1970| Timestamp::UNIX_EPOCH.checked_add(since_1970).ok()),
        };
        time.ok_or(JwtSvidError::Malformed)
    }
}

impl Claims {
    fn check(
        self,
        bundle: &Bundle,
        audience: &str,
        key_id: String,
        now: Timestamp,
    ) -> Result<JwtSvid, JwtSvidError> {
        let subject = self.sub.unwrap_or_default();
        let id = match subject.parse::<SpiffeId>() {
            Ok(id) if !id.path().is_empty() => id,
            _ => return Err(JwtSvidError::Subject { subject }),
        };
        if !id.is_member_of(bundle.trust_domain()) {
            return Err(JwtSvidError::OtherTrustDomain { id });
        }
        let expires_at = self.exp.ok_or(JwtSvidError::NoExpiry)?.time()?;
        if expires_at <= now {
            return Err(JwtSvidError::Expired { expires_at });
        }
        if let Some(not_before) = self.nbf {
            let not_before = not_before.time()?;
            if now < not_before {
                return Err(JwtSvidError::NotYetValid { not_before });
            }
        }
        let found = match self.aud {
            Audience::One(one) => vec![one],
            Audience::Several(several) => several,
        };
        if !found.iter().any(|it| it == audience) {
            return Err(JwtSvidError::Audience { found });
        }
        Ok(JwtSvid {
            id,
            audience: found,
            expires_at,
            key_id,
        })
    }
}

/// Why a token proves no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtSvidError {
    /// An algorithm that a JWT-SVID cannot have.
    #[error("a JWT-SVID cannot be signed by the algorithm {alg:?}")]
    Algorithm {
        /// What the header says.
        alg: String,
    },
    /// For others.
    #[error("the token is for {found:?}")]
    Audience {
        /// For whom it is.
        found: Vec<String>,
    },
    /// A signature that is not by the key, or by an algorithm that does not fit it.
    #[error("the token is not signed by the key that it names")]
    BadSignature,
    /// A header that asks for what nobody here understands.
    #[error("the token has critical extensions")]
    Critical,
    /// No longer valid.
    #[error("the token has expired at {expires_at}")]
    Expired {
        /// When it did.
        expires_at: Timestamp,
    },
    /// No JWS in compact form with JSON in it.
    #[error("the token is malformed")]
    Malformed,
    /// Without an end, which JWT-SVID §3.3 forbids.
    #[error("the token has no exp")]
    NoExpiry,
    /// Not valid yet.
    #[error("the token is not valid before {not_before}")]
    NotYetValid {
        /// When it will be.
        not_before: Timestamp,
    },
    /// An identity of another trust domain than the bundle's.
    #[error("{id} is not of the bundle's trust domain")]
    OtherTrustDomain {
        /// The identity.
        id: SpiffeId,
    },
    /// No SPIFFE ID of a workload.
    #[error("the token's subject {subject:?} is no SPIFFE ID with a path")]
    Subject {
        /// What it is.
        subject: String,
    },
    /// More than [`MAX_JWT_LENGTH`].
    #[error("the token has {length} bytes; {MAX_JWT_LENGTH} are allowed")]
    TooLarge {
        /// Its length in bytes.
        length: usize,
    },
    /// Something else than a JWT.
    #[error("the token is of the type {typ:?}, which is none of a JWT-SVID")]
    Type {
        /// What the header says.
        typ: String,
    },
    /// No key of that name in the bundle.
    #[error("the bundle has no JWT key {key_id:?}")]
    UnknownKey {
        /// The key, empty where the token names none.
        key_id: String,
    },
}

fn bytes(part: &str) -> Result<Vec<u8>, JwtSvidError> {
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(part);
    decoded.map_err(|_| JwtSvidError::Malformed)
}

fn decoded<T: DeserializeOwned>(part: &str) -> Result<T, JwtSvidError> {
    serde_json::from_slice(&bytes(part)?).map_err(|_| JwtSvidError::Malformed)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{
            self as sig, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _, RsaEncoding, RsaKeyPair,
        },
    };
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::spiffe::{JwtKey, PublicKey};

    const NOW: i64 = 1_800_000_000;

    type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

    /// A key, and how it signs by `alg`.
    struct Signer {
        alg: &'static str,
        public_key: PublicKey,
        sign: Sign,
    }

    fn ecdsa(
        alg: &'static str,
        signing: &'static EcdsaSigningAlgorithm,
        kind: &'static rcgen::SignatureAlgorithm,
    ) -> Signer {
        let pair = EcdsaKeyPair::generate(signing).unwrap();
        Signer {
            alg,
            public_key: PublicKey::from_bits(kind, pair.public_key().as_ref()).unwrap(),
            sign: Box::new(move |message| {
                let signature = pair.sign(&SystemRandom::new(), message).unwrap();
                signature.as_ref().to_vec()
            }),
        }
    }

    fn rsa(alg: &'static str, encoding: &'static dyn RsaEncoding) -> Signer {
        let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let bits = pair.public_key().as_ref();
        Signer {
            alg,
            public_key: PublicKey::from_bits(&rcgen::PKCS_RSA_SHA256, bits).unwrap(),
            sign: Box::new(move |message| {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut signature)
                    .unwrap();
                signature
            }),
        }
    }

    fn es256() -> Signer {
        ecdsa(
            "ES256",
            &sig::ECDSA_P256_SHA256_FIXED_SIGNING,
            &rcgen::PKCS_ECDSA_P256_SHA256,
        )
    }

    fn token(signer: &Signer, header: &Value, claims: &Value) -> String {
        let [header, claims] =
            [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = format!("{header}.{claims}");
        let signature = (signer.sign)(message.as_bytes());
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    fn header(signer: &Signer) -> Value {
        json!({ "alg": signer.alg, "kid": "a", "typ": "JWT" })
    }

    fn claims() -> Value {
        json!({
            "sub": "spiffe://example.org/web", "aud": ["db", "cache"],
            "exp": NOW + 300, "iat": NOW, "more": { "anything": true },
        })
    }

    fn with(mut value: Value, member: &str, new: Value) -> Value {
        let members = value.as_object_mut().unwrap();
        match new {
            Value::Null => members.remove(member),
            new => members.insert(member.to_owned(), new),
        };
        value
    }

    fn bundle(signer: &Signer) -> Bundle {
        let trust_domain = "example.org".parse().unwrap();
        let key = JwtKey {
            key_id: "a".into(),
            public_key: signer.public_key.clone(),
            expires_at: None,
            tainted: false,
        };
        Bundle::new(trust_domain, [], 1)
            .unwrap()
            .with_jwt_keys([key])
    }

    fn verify(token: &str, signer: &Signer) -> Result<JwtSvid, JwtSvidError> {
        let now = Timestamp::from_second(NOW).unwrap();
        verify_jwt_svid(token, &bundle(signer), "db", now)
    }

    #[test]
    fn takes_every_algorithm_of_a_jwt_svid() {
        let signers = [
            es256(),
            ecdsa(
                "ES384",
                &sig::ECDSA_P384_SHA384_FIXED_SIGNING,
                &rcgen::PKCS_ECDSA_P384_SHA384,
            ),
            ecdsa(
                "ES512",
                &sig::ECDSA_P521_SHA512_FIXED_SIGNING,
                &rcgen::PKCS_ECDSA_P521_SHA512,
            ),
            rsa("RS256", &sig::RSA_PKCS1_SHA256),
            rsa("RS384", &sig::RSA_PKCS1_SHA384),
            rsa("RS512", &sig::RSA_PKCS1_SHA512),
            rsa("PS256", &sig::RSA_PSS_SHA256),
            rsa("PS384", &sig::RSA_PSS_SHA384),
            rsa("PS512", &sig::RSA_PSS_SHA512),
        ];
        for signer in &signers {
            let verified = verify(&token(signer, &header(signer), &claims()), signer).unwrap();
            assert_eq!(verified.id.as_str(), "spiffe://example.org/web");
            assert_eq!(verified.audience, ["db", "cache"]);
            assert_eq!(verified.expires_at.as_second(), NOW + 300);
            assert_eq!(verified.key_id, "a");
            // What the key signed, under the name of any other algorithm.
            for other in signers.iter().filter(|other| other.alg != signer.alg) {
                let header = with(header(signer), "alg", other.alg.into());
                let refused = verify(&token(signer, &header, &claims()), signer);
                assert_eq!(refused, Err(JwtSvidError::BadSignature), "{}", other.alg);
            }
        }
    }

    #[test]
    fn the_header_is_checked() {
        let signer = es256();
        let read = |member: &str, value: Value| {
            let header = with(header(&signer), member, value);
            verify(&token(&signer, &header, &claims()), &signer).map(|svid| svid.key_id)
        };
        assert_eq!(read("typ", Value::Null), Ok("a".into()));
        assert_eq!(read("typ", "JOSE".into()), Ok("a".into()));
        let typ = "wit+jwt".to_owned();
        assert_eq!(read("typ", (*typ).into()), Err(JwtSvidError::Type { typ }));
        assert_eq!(read("crit", json!(["b64"])), Err(JwtSvidError::Critical));
        for alg in ["none", "HS256", "es256", ""] {
            let refused = Err(JwtSvidError::Algorithm { alg: alg.into() });
            assert_eq!(read("alg", alg.into()), refused);
        }
        for (kid, key_id) in [(Value::Null, ""), ("b".into(), "b")] {
            let key_id = key_id.to_owned();
            assert_eq!(read("kid", kid), Err(JwtSvidError::UnknownKey { key_id }));
        }
    }

    #[test]
    fn the_claims_are_checked() {
        let signer = es256();
        let read = |member: &str, value: Value| {
            let claims = with(claims(), member, value);
            verify(&token(&signer, &header(&signer), &claims), &signer).map(|_| ())
        };
        assert_eq!(read("aud", "db".into()), Ok(()));
        assert_eq!(read("exp", json!(1_800_000_000.5)), Ok(()));
        assert_eq!(read("nbf", NOW.into()), Ok(()));
        assert_eq!(read("exp", Value::Null), Err(JwtSvidError::NoExpiry));
        let at = |second| Timestamp::from_second(second).unwrap();
        let expires_at = at(NOW);
        assert_eq!(
            read("exp", NOW.into()),
            Err(JwtSvidError::Expired { expires_at })
        );
        let not_before = at(NOW + 1);
        let early = Err(JwtSvidError::NotYetValid { not_before });
        assert_eq!(read("nbf", (NOW + 1).into()), early);
        for far in [
            json!(i64::MAX),
            json!(1e300),
            json!("1800000300"),
            json!([]),
        ] {
            assert_eq!(read("exp", far), Err(JwtSvidError::Malformed));
        }
        for (aud, found) in [
            (Value::Null, vec![]),
            (json!([]), vec![]),
            (json!(["other"]), vec!["other"]),
            (json!("d"), vec!["d"]),
        ] {
            let found = found.into_iter().map(String::from).collect();
            assert_eq!(read("aud", aud), Err(JwtSvidError::Audience { found }));
        }
        for subject in ["", "web", "spiffe://example.org", "https://example.org/web"] {
            let refused = Err(JwtSvidError::Subject {
                subject: subject.into(),
            });
            assert_eq!(read("sub", subject.into()), refused);
        }
        let id: SpiffeId = "spiffe://other.org/web".parse().unwrap();
        let other = Err(JwtSvidError::OtherTrustDomain { id: id.clone() });
        assert_eq!(read("sub", id.as_str().into()), other);
    }

    #[test]
    fn repeated_members_and_odd_forms_are_refused() {
        let signer = es256();
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let good = token(&signer, &header(&signer), &claims());
        let (message, signature) = good.rsplit_once('.').unwrap();
        for text in [
            String::new(),
            "..".into(),
            message.to_owned(),
            format!("{good}.{signature}"),
            format!("{good}="),
            format!("{good} "),
            good.replacen('.', "..", 1),
            format!("{}.{}.{signature}", part("[]"), part("{}")),
            format!(
                "{}.{}.{signature}",
                part(r#"{"alg":"ES256","alg":"ES256"}"#),
                part("{}")
            ),
        ] {
            assert_eq!(
                verify(&text, &signer),
                Err(JwtSvidError::Malformed),
                "{text}"
            );
        }
        let long = "a".repeat(MAX_JWT_LENGTH + 1);
        let length = long.len();
        assert_eq!(
            verify(&long, &signer),
            Err(JwtSvidError::TooLarge { length })
        );
    }

    #[test]
    fn no_damage_is_let_pass() {
        let signer = es256();
        let good = token(&signer, &header(&signer), &claims());
        verify(&good, &signer).unwrap();
        for position in 0..good.len() {
            let mut damaged = good.clone().into_bytes();
            damaged[position] = if damaged[position] == b'A' {
                b'B'
            } else {
                b'A'
            };
            let damaged = String::from_utf8(damaged).unwrap();
            assert!(verify(&damaged, &signer).is_err(), "{position}");
        }
        let other = es256();
        assert_eq!(verify(&good, &other), Err(JwtSvidError::BadSignature));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-zA-Z0-9_.-]{0,200}", claims in "\\PC{0,60}") {
            let signer = es256();
            let _ = verify(&text, &signer);
            let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
            let signed = format!("{}.{}", part(r#"{"alg":"ES256","kid":"a"}"#), part(&claims));
            let signature = BASE64_URL_SAFE_NO_PAD.encode((signer.sign)(signed.as_bytes()));
            let _ = verify(&format!("{signed}.{signature}"), &signer);
        }
    }
}
