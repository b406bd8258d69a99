//! Proof that we hold the key of a certificate, as `x509pop` asks for it. Pure.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::json;

use crate::authority::PrivateKey;
use crate::spiffe::KeyKind;

/// Length of our part of what is signed, in bytes.
const NONCE: usize = 32;
/// Longest part of the server's, in bytes.
const MAX_NONCE: usize = 1024;

#[derive(Deserialize)]
struct Challenge {
    #[serde(default)]
    rsa_signature: Option<Nonce>,
    #[serde(default)]
    ecdsa_signature: Option<Nonce>,
}

#[derive(Deserialize)]
struct Nonce {
    nonce: String,
}

/// What begins the proof: the certificate and those above it.
pub(super) fn payload(chain: &[CertificateDer<'_>]) -> Vec<u8> {
    let certificates: Vec<_> = chain.iter().map(|it| BASE64_STANDARD.encode(it)).collect();
    json!({ "certificates": certificates })
        .to_string()
        .into_bytes()
}

/// The answer to `challenge` by whoever holds `key`.
///
/// # Errors
/// In words, when it cannot be answered.
pub(super) fn respond(challenge: &[u8], key: &PrivateKey) -> Result<Vec<u8>, String> {
    let challenge: Challenge = serde_json::from_slice(challenge)
        .map_err(|error| format!("the challenge is malformed: {error}"))?;
    let random = SystemRandom::new();
    let mut nonce = [0; NONCE];
    let no_luck = |_| "the key made no signature".to_owned();
    random.fill(&mut nonce).map_err(no_luck)?;
    let pkcs8 = key.to_private_key_der();
    let response = match (&challenge.rsa_signature, &challenge.ecdsa_signature) {
        (Some(theirs), None) => {
            let pair = RsaKeyPair::from_pkcs8(pkcs8.secret_der()).map_err(|_| {
                "the server asks for an RSA signature, and the key is none".to_owned()
            })?;
            let signed = [decoded(theirs)?, nonce.to_vec()].concat();
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PSS_SHA256, &random, &signed, &mut signature)
                .map_err(no_luck)?;
            json!({ "rsa_signature": {
                "nonce": BASE64_STANDARD.encode(nonce),
                "signature": BASE64_STANDARD.encode(signature),
            }})
        }
        (None, Some(theirs)) => {
            if key.public_key().kind() != KeyKind::EcP256 {
                return Err("the key is neither RSA nor ECDSA on P-256".into());
            }
            let pair =
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.secret_der())
                    .map_err(|error| error.to_string())?;
            let signed = [decoded(theirs)?, nonce.to_vec()].concat();
            let signature = pair.sign(&random, &signed).map_err(no_luck)?;
            let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
            json!({ "ecdsa_signature": {
                "nonce": BASE64_STANDARD.encode(nonce),
                "r": BASE64_STANDARD.encode(r),
                "s": BASE64_STANDARD.encode(s),
            }})
        }
        _ => return Err("the challenge asks for no signature that is known".into()),
    };
    Ok(response.to_string().into_bytes())
}

fn decoded(nonce: &Nonce) -> Result<Vec<u8>, String> {
    match BASE64_STANDARD.decode(&nonce.nonce) {
        Ok(bytes) if bytes.len() <= MAX_NONCE => Ok(bytes),
        _ => Err("the challenge is malformed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CaKeyType;

    #[test]
    fn says_why_a_challenge_is_not_answered() {
        let key = PrivateKey::generate(CaKeyType::EcP384).unwrap();
        for (challenge, words) in [
            ("", "malformed"),
            ("{}", "no signature that is known"),
            (r#"{"ecdsa_signature":{"nonce":"AAAA"}}"#, "neither RSA nor"),
            (r#"{"rsa_signature":{"nonce":"AAAA"}}"#, "RSA signature"),
        ] {
            let problem = respond(challenge.as_bytes(), &key).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
        let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
        let challenge = br#"{"ecdsa_signature":{"nonce":"%"}}"#;
        assert!(respond(challenge, &key).is_err());
        let long = BASE64_STANDARD.encode([0; MAX_NONCE + 1]);
        let challenge = json!({ "ecdsa_signature": { "nonce": long } });
        assert!(respond(challenge.to_string().as_bytes(), &key).is_err());
    }
}
