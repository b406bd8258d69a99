//! Bundles as messages, and back. Pure.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use crate::server::proto::types;
use crate::server::services::ids;
use crate::spiffe::{Bundle, JwtKey, PublicKey, TrustDomainName};

/// A bundle as a message, less what the mask leaves out.
pub(in crate::server::services) fn to_proto(
    bundle: &Bundle,
    mask: Option<&types::BundleMask>,
) -> types::Bundle {
    let shows = |of: fn(&types::BundleMask) -> bool| mask.is_none_or(of);
    let mut message = types::Bundle {
        trust_domain: bundle.trust_domain().to_string(),
        ..types::Bundle::default()
    };
    if shows(|mask| mask.x509_authorities) {
        let roots = bundle.x509_authorities().iter();
        message.x509_authorities = roots
            .map(|root| types::X509Certificate {
                asn1: root.certificate().to_vec(),
                tainted: root.is_tainted(),
            })
            .collect();
    }
    if shows(|mask| mask.jwt_authorities) {
        message.jwt_authorities = bundle.jwt_keys().iter().map(jwt_key_to_proto).collect();
    }
    if shows(|mask| mask.refresh_hint) {
        let hint = bundle.refresh_hint().unwrap_or_default();
        message.refresh_hint = i64::try_from(hint).unwrap_or(i64::MAX);
    }
    if shows(|mask| mask.sequence_number) {
        message.sequence_number = bundle.sequence();
    }
    message
}

/// A bundle of a message.
///
/// # Errors
/// In words for the caller.
pub(in crate::server::services) fn from_proto(message: &types::Bundle) -> Result<Bundle, String> {
    let trust_domain = ids::trust_domain(&message.trust_domain)
        .map_err(|error| format!("invalid trust domain: {error}"))?;
    let jwt_keys = jwt_keys(&message.jwt_authorities)
        .map_err(|error| format!("unable to parse JWT authority: {error}"))?;
    let bundle = bundle(
        trust_domain,
        certificates(&message.x509_authorities),
        message.sequence_number,
    )
    .map_err(|error| format!("unable to parse X.509 authority: {error}"))?;
    let bundle = bundle.with_jwt_keys(jwt_keys);
    let hint = u64::try_from(message.refresh_hint);
    Ok(match hint.ok().filter(|seconds| *seconds > 0) {
        Some(seconds) => bundle.with_refresh_hint(seconds),
        None => bundle,
    })
}

/// `known` with those parts of `given` that `mask` names; with all without one.
pub(super) fn merged(
    known: &Bundle,
    given: &Bundle,
    mask: Option<&types::BundleMask>,
) -> Result<Bundle, String> {
    let of = |takes: fn(&types::BundleMask) -> bool| {
        if mask.is_none_or(takes) { given } else { known }
    };
    let roots = of(|mask| mask.x509_authorities).roots().cloned().collect();
    let sequence = of(|mask| mask.sequence_number).sequence();
    let bundle = bundle(known.trust_domain().clone(), roots, sequence)?;
    let bundle = bundle.with_jwt_keys(of(|mask| mask.jwt_authorities).jwt_keys().to_vec());
    Ok(match of(|mask| mask.refresh_hint).refresh_hint() {
        Some(seconds) => bundle.with_refresh_hint(seconds),
        None => bundle,
    })
}

fn bundle(
    trust_domain: TrustDomainName,
    roots: Vec<CertificateDer<'static>>,
    sequence: u64,
) -> Result<Bundle, String> {
    Bundle::new(trust_domain, roots, sequence).map_err(|error| error.to_string())
}

/// X.509 roots of a message, not looked into yet. Nobody taints by message.
pub(super) fn certificates(message: &[types::X509Certificate]) -> Vec<CertificateDer<'static>> {
    let certificates = message.iter();
    certificates
        .map(|certificate| certificate.asn1.clone().into())
        .collect()
}

/// JWT keys of a message. Nobody taints by message.
///
/// # Errors
/// In words for the caller.
pub(super) fn jwt_keys(message: &[types::JwtKey]) -> Result<Vec<JwtKey>, String> {
    let keys = message.iter().map(|key| {
        let public_key =
            PublicKey::from_spki(&key.public_key).map_err(|error| error.to_string())?;
        if key.key_id.is_empty() {
            return Err("missing key ID".into());
        }
        let expires_at = match key.expires_at {
            0 => None,
            seconds => {
                let time = Timestamp::from_second(seconds);
                Some(time.map_err(|_| "expires_at is out of range".to_owned())?)
            }
        };
        Ok(JwtKey {
            key_id: key.key_id.clone(),
            public_key,
            expires_at,
            tainted: false,
        })
    });
    keys.collect()
}

/// A JWT key as a message.
pub(super) fn jwt_key_to_proto(key: &JwtKey) -> types::JwtKey {
    types::JwtKey {
        public_key: key.public_key.spki().to_vec(),
        key_id: key.key_id.clone(),
        expires_at: key.expires_at.map_or(0, Timestamp::as_second),
        tainted: key.tainted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CaKeyType, CaSubject};
    use crate::authority::{CertificateAuthority, PrivateKey};

    fn message() -> types::Bundle {
        let trust_domain: TrustDomainName = "example.org".parse().unwrap();
        let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
        let public_key = key.public_key().spki().to_vec();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let until = Timestamp::from_second(1_900_000_000).unwrap();
        let subject = CaSubject::default();
        let ca = CertificateAuthority::self_signed(&trust_domain, &subject, key, now, until);
        types::Bundle {
            trust_domain: "example.org".into(),
            x509_authorities: vec![types::X509Certificate {
                asn1: ca.unwrap().certificates().root().to_vec(),
                tainted: false,
            }],
            jwt_authorities: vec![types::JwtKey {
                public_key,
                key_id: "key".into(),
                expires_at: 1_900_000_000,
                tainted: false,
            }],
            refresh_hint: 300,
            sequence_number: 7,
            wit_authorities: Vec::new(),
        }
    }

    #[test]
    fn comes_back_as_it_went() {
        let message = message();
        let bundle = from_proto(&message).unwrap();
        assert_eq!(to_proto(&bundle, None), message);
    }

    #[test]
    fn the_mask_leaves_out() {
        let bundle = from_proto(&message()).unwrap();
        let bare = to_proto(&bundle, Some(&types::BundleMask::default()));
        let named = types::Bundle {
            trust_domain: "example.org".into(),
            ..types::Bundle::default()
        };
        assert_eq!(bare, named);
        let mask = types::BundleMask {
            sequence_number: true,
            jwt_authorities: true,
            ..types::BundleMask::default()
        };
        let some = to_proto(&bundle, Some(&mask));
        assert_eq!((some.sequence_number, some.refresh_hint), (7, 0));
        assert_eq!(
            (some.x509_authorities.len(), some.jwt_authorities.len()),
            (0, 1)
        );
    }

    #[test]
    fn an_update_takes_what_the_mask_names() {
        let before = message();
        let known = from_proto(&before).unwrap();
        let given = types::Bundle {
            trust_domain: "example.org".into(),
            sequence_number: 8,
            ..types::Bundle::default()
        };
        let given = from_proto(&given).unwrap();
        assert_eq!(merged(&known, &given, None).unwrap(), given);
        let mask = types::BundleMask {
            sequence_number: true,
            ..types::BundleMask::default()
        };
        let updated = to_proto(&merged(&known, &given, Some(&mask)).unwrap(), None);
        let expected = types::Bundle {
            sequence_number: 8,
            ..before
        };
        assert_eq!(updated, expected);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let with = |change: fn(&mut types::Bundle)| {
            let mut message = message();
            change(&mut message);
            from_proto(&message).unwrap_err()
        };
        for (problem, expected) in [
            (
                with(|it| it.trust_domain.clear()),
                "invalid trust domain: trust domain is missing",
            ),
            (
                with(|it| it.x509_authorities[0].asn1.push(0)),
                "unable to parse X.509 authority: ",
            ),
            (
                with(|it| it.jwt_authorities[0].public_key.clear()),
                "unable to parse JWT authority: ",
            ),
            (
                with(|it| it.jwt_authorities[0].key_id.clear()),
                "unable to parse JWT authority: missing key ID",
            ),
            (
                with(|it| it.jwt_authorities[0].expires_at = i64::MAX),
                "unable to parse JWT authority: expires_at is out of range",
            ),
        ] {
            assert!(problem.starts_with(expected), "{problem}");
        }
    }
}
