//! A key that signs JWT-SVIDs, and the tokens that it signs: SPIRE's header and claims.
//!
//! Invariants: nothing that it signs outlives the key; the algorithm is the key's; a token has an
//! audience. The compact form (RFC 7515 §7.1) is written here: the key is prepared for signing once,
//! while libraries for JOSE read it anew for each token.

use std::fmt;

use aws_lc_rs::{
    rand::{SecureRandom, SystemRandom},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{KeyError, PrivateKey};
use crate::{
    api::JwtKeyType,
    spiffe::{JwsAlgorithm, KeyKind, RandomnessError, SpiffeId},
};

/// Length of a key ID (SPIRE).
const KEY_ID_LENGTH: usize = 32;
const ALPHANUMERICS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A JWT key that signs.
#[derive(Debug)]
pub struct JwtAuthority {
    key_id: String,
    key: PrivateKey,
    signer: Signer,
    expires_at: Timestamp,
    /// The header of all its tokens, encoded, and the dot after it.
    header: String,
}

/// What to sign.
#[derive(Clone, Copy, Debug)]
pub struct JwtSvidRequest<'a> {
    /// The identity, with a path.
    pub id: &'a SpiffeId,
    /// For whom the token is. Empty ones are dropped (SPIRE).
    pub audience: &'a [String],
    /// The issuer, where there is one.
    pub issuer: Option<&'a str>,
    /// Start of validity; fractions of a second are dropped.
    pub issued_at: Timestamp,
    /// How long it shall live; the end of the key comes first if it is earlier.
    pub ttl: SignedDuration,
    /// Whether the token gets an ID of its own.
    pub with_jti: bool,
}

/// A signed JWT-SVID.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedJwtSvid {
    /// The token in compact form. Whoever holds it is its subject, so it is not printed.
    pub token: String,
    /// When it was issued, in whole seconds.
    pub issued_at: Timestamp,
    /// End of validity, in whole seconds.
    pub expires_at: Timestamp,
    /// Whether the key's end made it end earlier than asked for.
    pub capped: bool,
}

impl JwtAuthority {
    /// Makes a new key that ends at `expires_at`.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(key_type: JwtKeyType, expires_at: Timestamp) -> Result<Self, KeyError> {
        let key_id = new_key_id().map_err(|_| KeyError::Generate)?;
        Self::new(key_id, PrivateKey::generate(key_type.into())?, expires_at)
    }

    /// The authority of a key that there is already.
    pub(super) fn new(
        key_id: String,
        key: PrivateKey,
        expires_at: Timestamp,
    ) -> Result<Self, KeyError> {
        let signer = Signer::of(&key)?;
        let header = Header {
            alg: signer.algorithm().as_str(),
            kid: &key_id,
            typ: "JWT",
        };
        let header = format!("{}.", encoded(&header));
        Ok(Self {
            key_id,
            key,
            signer,
            expires_at,
            header,
        })
    }

    /// Its ID, the `kid` of its tokens.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Its key, for the one Secret that keeps it.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Its end, and so that of everything that it signs.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The algorithm of its signatures.
    #[must_use]
    pub fn algorithm(&self) -> JwsAlgorithm {
        self.signer.algorithm()
    }

    /// Signs a JWT-SVID. The caller answers for the identity being the requester's.
    ///
    /// # Errors
    /// When the request can have no token under this key, or signing fails.
    pub fn sign(&self, request: &JwtSvidRequest<'_>) -> Result<SignedJwtSvid, JwtSignError> {
        if request.id.path().is_empty() {
            return Err(JwtSignError::IdWithoutPath {
                id: request.id.clone(),
            });
        }
        let audience = request.audience.iter().map(String::as_str);
        let audience: Vec<&str> = audience.filter(|it| !it.is_empty()).collect();
        if audience.is_empty() {
            return Err(JwtSignError::NoAudience);
        }
        let issued_at = whole_seconds(request.issued_at);
        let wanted = issued_at
            .saturating_add(request.ttl)
            .unwrap_or(Timestamp::MAX);
        let wanted = whole_seconds(wanted);
        let expires_at = wanted.min(whole_seconds(self.expires_at));
        if expires_at <= issued_at {
            return Err(JwtSignError::NoLifetime {
                issued_at,
                expires_at,
            });
        }
        let claims = Claims {
            sub: request.id.as_str(),
            aud: audience,
            exp: expires_at.as_second(),
            iat: issued_at.as_second(),
            iss: request.issuer,
            jti: request.with_jti.then(new_jti).transpose()?,
        };
        let mut token = format!("{}{}", self.header, encoded(&claims));
        let signature = self.signer.sign(token.as_bytes())?;
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(SignedJwtSvid {
            token,
            issued_at,
            expires_at,
            capped: expires_at < wanted,
        })
    }
}

impl fmt::Debug for SignedJwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedJwtSvid")
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .field("capped", &self.capped)
            .finish_non_exhaustive()
    }
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtSignError {
    /// The ID of a trust domain, which is no workload's.
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
    /// For nobody.
    #[error("a JWT-SVID needs at least one audience that is not empty")]
    NoAudience,
    /// The validity would end before it begins, as under a key that has expired.
    #[error("the token would end at {expires_at}, before it begins at {issued_at}")]
    NoLifetime {
        /// When it would begin.
        issued_at: Timestamp,
        /// When it would end.
        expires_at: Timestamp,
    },
    /// No ID for the token.
    #[error("there is no ID for the token: {source}")]
    Randomness {
        /// Why.
        source: RandomnessError,
    },
}

impl From<KeyError> for JwtSignError {
    fn from(source: KeyError) -> Self {
        Self::Key { source }
    }
}

impl From<RandomnessError> for JwtSignError {
    fn from(source: RandomnessError) -> Self {
        Self::Randomness { source }
    }
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    kid: &'a str,
    typ: &'static str,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: Vec<&'a str>,
    exp: i64,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    sub: &'a str,
}

/// The key, ready for signatures as JWS has them: of ECDSA both numbers in full length, where X.509
/// has DER (RFC 7518 §3.4).
enum Signer {
    Ecdsa(JwsAlgorithm, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    fn of(key: &PrivateKey) -> Result<Self, KeyError> {
        let (algorithm, curve) = match key.public_key().kind() {
            KeyKind::EcP256 => (JwsAlgorithm::Es256, &ECDSA_P256_SHA256_FIXED_SIGNING),
            KeyKind::EcP384 => (JwsAlgorithm::Es384, &ECDSA_P384_SHA384_FIXED_SIGNING),
            KeyKind::EcP521 => (JwsAlgorithm::Es512, &ECDSA_P521_SHA512_FIXED_SIGNING),
            KeyKind::Ed25519 => return Err(KeyError::Unsupported),
            KeyKind::Rsa { .. } => {
                let pair = RsaKeyPair::from_pkcs8(key.pkcs8());
                return pair.map(Self::Rsa).map_err(|_| KeyError::Unsupported);
            }
        };
        let pair = EcdsaKeyPair::from_pkcs8(curve, key.pkcs8());
        let pair = pair.map_err(|_| KeyError::Unsupported)?;
        Ok(Self::Ecdsa(algorithm, pair))
    }

    fn algorithm(&self) -> JwsAlgorithm {
        match self {
            Self::Ecdsa(algorithm, _) => *algorithm,
            Self::Rsa(_) => JwsAlgorithm::Rs256,
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match self {
            Self::Ecdsa(_, pair) => pair
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec()),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map(|()| signature)
            }
        }
        .map_err(|_| KeyError::Sign)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().as_str())
    }
}

fn encoded(part: &impl Serialize) -> String {
    // Strings and numbers only: this cannot fail.
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).unwrap_or_default())
}

fn random<const N: usize>() -> Result<[u8; N], RandomnessError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map(|()| bytes).map_err(|_| RandomnessError)
}

/// Every ID is as likely as every other: bytes beyond the last whole alphabet are drawn again.
fn new_key_id() -> Result<String, RandomnessError> {
    let mut key_id = String::with_capacity(KEY_ID_LENGTH);
    while key_id.len() < KEY_ID_LENGTH {
        let drawn = random::<64>()?.into_iter().filter(|byte| *byte < 62 * 4);
        let characters = drawn.filter_map(|byte| ALPHANUMERICS.get(usize::from(byte % 62)));
        let missing = KEY_ID_LENGTH - key_id.len();
        key_id.extend(characters.take(missing).map(|byte| char::from(*byte)));
    }
    Ok(key_id)
}

/// The bytes of a version 4 UUID (RFC 9562 §5.4), as SPIRE writes them.
fn new_jti() -> Result<String, RandomnessError> {
    let drawn = u128::from_be_bytes(random()?);
    let (version, variant) = (0x4 << 76, 0x2 << 62);
    let uuid = drawn & !(0xf << 76) & !(0x3 << 62) | version | variant;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(uuid.to_be_bytes()))
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        authority::fixtures::{now, trust_domain},
        spiffe::{Bundle, JwtKey, verify_jwt_svid},
    };

    fn at(second: i64) -> Timestamp {
        now() + SignedDuration::from_secs(second)
    }

    fn authority(key_type: JwtKeyType) -> JwtAuthority {
        JwtAuthority::generate(key_type, at(3600)).unwrap()
    }

    fn id() -> SpiffeId {
        "spiffe://example.org/ns/default/sa/web".parse().unwrap()
    }

    fn audience(of: &[&str]) -> Vec<String> {
        of.iter().map(ToString::to_string).collect()
    }

    fn sign(
        authority: &JwtAuthority,
        change: impl FnOnce(&mut JwtSvidRequest<'_>),
    ) -> Result<SignedJwtSvid, JwtSignError> {
        let id = id();
        let audience = audience(&["db", "", "cache"]);
        let mut request = JwtSvidRequest {
            id: &id,
            audience: &audience,
            issuer: None,
            issued_at: now() + SignedDuration::from_millis(900),
            ttl: SignedDuration::from_secs(300),
            with_jti: false,
        };
        change(&mut request);
        authority.sign(&request)
    }

    fn parts(signed: &SignedJwtSvid) -> [Value; 2] {
        let mut parts = signed.token.split('.').map(|part| {
            let json = BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
            serde_json::from_slice(&json)
        });
        [(); 2].map(|()| parts.next().unwrap().unwrap())
    }

    #[test]
    fn tokens_say_what_those_of_spire_say() {
        for (key_type, alg) in [
            (JwtKeyType::EcP256, "ES256"),
            (JwtKeyType::EcP384, "ES384"),
            (JwtKeyType::Rsa2048, "RS256"),
        ] {
            let authority = authority(key_type);
            let signed = sign(&authority, |_| {}).unwrap();
            let [header, claims] = parts(&signed);
            let kid = authority.key_id();
            assert_eq!(header, json!({ "alg": alg, "kid": kid, "typ": "JWT" }));
            let begin = now().as_second();
            let expected = json!({
                "sub": id().as_str(), "aud": ["db", "cache"], "iat": begin, "exp": begin + 300,
            });
            assert_eq!(claims, expected);
            assert_eq!((signed.issued_at, signed.expires_at), (at(0), at(300)));
            assert!(!signed.capped);
            let key = JwtKey {
                key_id: kid.to_owned(),
                public_key: authority.key().public_key().clone(),
                expires_at: None,
                tainted: false,
            };
            let bundle = Bundle::new(trust_domain(), [], 1)
                .unwrap()
                .with_jwt_keys([key]);
            let verified = verify_jwt_svid(&signed.token, &bundle, "db", now()).unwrap();
            assert_eq!(verified.id, id());
        }
    }

    #[test]
    fn issuer_and_token_id_are_there_when_asked_for() {
        let authority = authority(JwtKeyType::EcP256);
        let mut seen = BTreeSet::new();
        for _ in 0..20 {
            let signed = sign(&authority, |request| {
                request.issuer = Some("https://id.example.org");
                request.with_jti = true;
                request.audience = &request.audience[..1];
            });
            let [_, claims] = parts(&signed.unwrap());
            assert_eq!(claims["iss"], "https://id.example.org");
            assert_eq!(claims["aud"], json!(["db"]), "an array also for one");
            let jti = claims["jti"].as_str().unwrap();
            let uuid = BASE64_URL_SAFE_NO_PAD.decode(jti).unwrap();
            assert_eq!((uuid.len(), uuid[6] >> 4, uuid[8] >> 6), (16, 4, 2));
            seen.insert(jti.to_owned());
        }
        assert_eq!(seen.len(), 20);
    }

    #[test]
    fn a_token_never_outlives_its_key() {
        let authority = authority(JwtKeyType::EcP256);
        let signed = sign(&authority, |it| it.ttl = SignedDuration::from_hours(2)).unwrap();
        assert_eq!((signed.expires_at, signed.capped), (at(3600), true));
        let signed = sign(&authority, |it| it.ttl = SignedDuration::MAX).unwrap();
        assert_eq!((signed.expires_at, signed.capped), (at(3600), true));
        let late = sign(&authority, |it| it.issued_at = at(3600));
        let (issued_at, expires_at) = (at(3600), at(3600));
        let refused = JwtSignError::NoLifetime {
            issued_at,
            expires_at,
        };
        assert_eq!(late, Err(refused));
    }

    #[test]
    fn refuses_what_can_have_no_token() {
        let authority = authority(JwtKeyType::EcP256);
        for nobody in [vec![], audience(&[""])] {
            let refused = sign(&authority, |it| {
                let nobody = nobody.clone();
                it.audience = nobody.leak();
            });
            assert_eq!(refused, Err(JwtSignError::NoAudience));
        }
        let root: &SpiffeId = Box::leak(Box::new("spiffe://example.org".parse().unwrap()));
        let refused = sign(&authority, |it| it.id = root);
        assert_eq!(
            refused,
            Err(JwtSignError::IdWithoutPath { id: root.clone() })
        );
        for ttl in [SignedDuration::ZERO, SignedDuration::MIN] {
            let refused = sign(&authority, |it| it.ttl = ttl);
            assert!(matches!(refused, Err(JwtSignError::NoLifetime { .. })));
        }
    }

    #[test]
    fn key_ids_are_32_alphanumerics() {
        let ids: BTreeSet<_> = (0..100).map(|_| new_key_id().unwrap()).collect();
        assert_eq!(ids.len(), 100);
        let is_sound = |id: &String| {
            id.len() == KEY_ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        assert!(ids.iter().all(is_sound));
        let used: BTreeSet<_> = ids.iter().flat_map(|id| id.bytes()).collect();
        assert_eq!(used.len(), ALPHANUMERICS.len());
    }

    #[test]
    fn debug_shows_no_key_and_no_token() {
        let authority = authority(JwtKeyType::EcP256);
        let pem = authority.key().to_pem();
        let secret = pem.lines().nth(1).unwrap();
        assert!(!format!("{authority:?}").contains(secret));
        let signed = sign(&authority, |_| {}).unwrap();
        let signature = signed.token.rsplit('.').next().unwrap();
        assert!(!format!("{signed:?}").contains(signature));
    }
}
