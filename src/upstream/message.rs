//! What the server above says, as values of ours. Pure.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use crate::server::proto::types;
use crate::spiffe::{Bundle, JwtKey, PublicKey, TrustDomainName};

/// The bundle of `trust_domain` in `message`, with the marks of what is tainted.
///
/// # Errors
/// In words, when it is none.
pub(super) fn bundle(
    message: &types::Bundle,
    trust_domain: &TrustDomainName,
) -> Result<Bundle, String> {
    if message.trust_domain != trust_domain.as_str() {
        return Err(format!(
            "a bundle of {:?}, and not of {trust_domain}",
            message.trust_domain
        ));
    }
    let certificate = |it: &types::X509Certificate| CertificateDer::from(it.asn1.clone());
    let roots = message.x509_authorities.iter().map(certificate);
    let bundle = Bundle::new(trust_domain.clone(), roots, message.sequence_number)
        .map_err(|error| error.to_string())?;
    let jwt_keys = message.jwt_authorities.iter().map(jwt_key);
    let jwt_keys: Vec<_> = jwt_keys.collect::<Result<_, _>>()?;
    let tainted = message.x509_authorities.iter().filter(|it| it.tainted);
    let tainted: Vec<_> = tainted.map(certificate).collect();
    Ok(bundle
        .with_jwt_keys(jwt_keys)
        .with_tainted(|root| tainted.contains(root)))
}

/// The JWT key in `message`.
///
/// # Errors
/// In words, when it is none.
pub(super) fn jwt_key(message: &types::JwtKey) -> Result<JwtKey, String> {
    if message.key_id.is_empty() {
        return Err("a JWT key without an ID".into());
    }
    let public_key = PublicKey::from_spki(&message.public_key)
        .map_err(|error| format!("JWT key {:?}: {error}", message.key_id))?;
    let expires_at = match message.expires_at {
        0 => None,
        seconds => Some(
            Timestamp::from_second(seconds)
                .map_err(|_| format!("JWT key {:?} ends out of range", message.key_id))?,
        ),
    };
    Ok(JwtKey {
        key_id: message.key_id.clone(),
        public_key,
        expires_at,
        tainted: message.tainted,
    })
}

/// `key` as a message.
pub(super) fn jwt_key_to_proto(key: &JwtKey) -> types::JwtKey {
    types::JwtKey {
        public_key: key.public_key.spki().to_vec(),
        key_id: key.key_id.clone(),
        expires_at: key.expires_at.map_or(0, Timestamp::as_second),
        tainted: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CaKeyType, CaSubject};
    use crate::authority::{CertificateAuthority, PrivateKey};

    fn message() -> types::Bundle {
        let trust_domain: TrustDomainName = "example.org".parse().unwrap();
        let [begin, end] =
            [1_800_000_000, 1_900_000_000].map(|it| Timestamp::from_second(it).unwrap());
        let root = |tainted| {
            let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
            let subject = CaSubject::default();
            let ca = CertificateAuthority::self_signed(&trust_domain, &subject, key, begin, end);
            types::X509Certificate {
                asn1: ca.unwrap().certificates().root().to_vec(),
                tainted,
            }
        };
        let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
        types::Bundle {
            trust_domain: "example.org".into(),
            x509_authorities: vec![root(true), root(false)],
            jwt_authorities: vec![types::JwtKey {
                public_key: key.public_key().spki().to_vec(),
                key_id: "key".into(),
                expires_at: 1_900_000_000,
                tainted: true,
            }],
            ..types::Bundle::default()
        }
    }

    #[test]
    fn marks_of_what_is_tainted_are_kept() {
        let read = bundle(&message(), &"example.org".parse().unwrap()).unwrap();
        let roots = read.x509_authorities().iter();
        assert!(
            roots
                .map(crate::spiffe::X509Authority::is_tainted)
                .eq([true, false])
        );
        let key = read.jwt_key("key").unwrap();
        assert!(key.tainted);
        let said = jwt_key_to_proto(key);
        assert_eq!((&*said.key_id, said.expires_at), ("key", 1_900_000_000));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let with = |change: fn(&mut types::Bundle)| {
            let mut message = message();
            change(&mut message);
            bundle(&message, &"example.org".parse().unwrap()).unwrap_err()
        };
        with(|it| it.trust_domain = "other.org".into());
        with(|it| it.x509_authorities[0].asn1.push(0));
        with(|it| it.jwt_authorities[0].key_id.clear());
        with(|it| it.jwt_authorities[0].public_key.clear());
        with(|it| it.jwt_authorities[0].expires_at = i64::MAX);
    }
}
