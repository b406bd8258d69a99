//! WIT-SVIDs: there is no key that signs them, as in spire-server without its `wit-svid` feature flag.
//! What is wrong with a request is said before that, in its words. Pure.

use tonic::Status;

use crate::registration::Entry;
use crate::server::proto::svid::NewWitsvidParams;
use crate::server::services::answer::{internal, invalid};
use crate::spiffe::{KeyKind, PublicKey};

/// Algorithms that go with an RSA key.
const OF_RSA: [&str; 6] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];

/// Why there is no WIT-SVID of `entry`, which is none if the agent may not have it.
pub(super) fn refusal(wanted: &NewWitsvidParams, entry: Option<&Entry>) -> Status {
    if wanted.entry_id.is_empty() {
        return Status::invalid_argument("missing entry ID");
    }
    if wanted.public_key.is_empty() {
        return Status::invalid_argument("missing public key");
    }
    if entry.is_none() {
        return Status::not_found("entry not found or not authorized");
    }
    let key = match PublicKey::from_spki(&wanted.public_key) {
        Ok(key) => key,
        Err(error) => return invalid("malformed public key", error),
    };
    if let Err(problem) = check(key.kind(), &wanted.signing_algorithm) {
        return invalid("invalid signing algorithm or key type", problem);
    }
    internal(
        "failed to sign WIT-SVID",
        "WIT key is not available for signing",
    )
}

fn check(key: KeyKind, algorithm: &str) -> Result<(), String> {
    let (name, known) = match key {
        KeyKind::Rsa { .. } => ("RSA", OF_RSA.as_slice()),
        KeyKind::EcP256 => ("ec-p256", ["ES256"].as_slice()),
        KeyKind::EcP384 => ("ec-p384", ["ES384"].as_slice()),
        KeyKind::EcP521 => ("ec-p521", ["ES512"].as_slice()),
        KeyKind::Ed25519 => return Err("unsupported key type 'ed25519.PublicKey'".into()),
    };
    if known.contains(&algorithm) {
        return Ok(());
    }
    let shown = crate::truncate(algorithm, 64);
    Err(format!(
        "unsupported signing algorithm for {name} key: {shown}"
    ))
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData};
    use tonic::Code;

    use super::*;

    #[test]
    fn an_algorithm_goes_with_its_key() {
        let rsa = KeyKind::Rsa { bits: 2048 };
        let algorithms = ["RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA", ""];
        for (key, known) in [
            (rsa, &["RS256", "PS512"][..]),
            (KeyKind::EcP256, &["ES256"]),
            (KeyKind::EcP384, &["ES384"]),
            (KeyKind::EcP521, &["ES512"]),
            (KeyKind::Ed25519, &[]),
        ] {
            let found = algorithms.iter().filter(|it| check(key, it).is_ok());
            assert!(found.eq(known), "{key:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_the_order_of_spire_server() {
        let key = KeyPair::generate().unwrap().subject_public_key_info();
        let refused = |entry_id: &str, public_key: &[u8]| {
            let wanted = NewWitsvidParams {
                entry_id: entry_id.into(),
                public_key: public_key.to_vec(),
                signing_algorithm: "ES256".into(),
            };
            let status = refusal(&wanted, None);
            (status.code(), status.message().to_owned())
        };
        let invalid = |message: &str| (Code::InvalidArgument, message.to_owned());
        assert_eq!(refused("", &[]), invalid("missing entry ID"));
        assert_eq!(refused("a", &[]), invalid("missing public key"));
        let (code, message) = refused("a", &key);
        assert_eq!(code, Code::NotFound);
        assert_eq!(message, "entry not found or not authorized");
    }
}
