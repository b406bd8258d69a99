//! CAs of servers that are chained below ours (SPIRE, `BuildDownstreamX509CATemplate`).
//!
//! Invariants: such a CA ends no later than the one above it, its ID is that of the trust domain, and
//! no path length above it forbids it. Its subject is that of the CA above with a mark of how deep
//! it stands, and its own serial number: Go's verifier gives up when many CAs share one name.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::{CertificateAuthority, SignError};
use crate::spiffe::{CaCertificate, DownstreamCaProfile, PublicKey, SerialNumber, TrustDomainName};

/// A CA to sign.
#[derive(Clone, Copy, Debug)]
pub struct DownstreamCaRequest<'a> {
    /// The trust domain, whose ID is the only alternative name.
    pub trust_domain: &'a TrustDomainName,
    /// The key of the server below.
    pub public_key: &'a PublicKey,
    /// Start of validity, already back-dated.
    pub not_before: Timestamp,
    /// End of validity; the issuer's end comes first if it is earlier.
    pub not_after: Timestamp,
}

/// A signed CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCa {
    /// The CA, then those above it, up to but excluding the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Start of validity, in whole seconds.
    pub not_before: Timestamp,
    /// End of validity, in whole seconds.
    pub not_after: Timestamp,
    /// Whether the issuer's end made it end earlier than asked for.
    pub capped: bool,
}

impl CertificateAuthority {
    /// Signs the CA of a server below. The caller answers for the server being entitled to one.
    ///
    /// # Errors
    /// When this CA may sign no others, the request can have no certificate, or signing fails.
    pub fn sign_downstream_ca(
        &self,
        request: &DownstreamCaRequest<'_>,
    ) -> Result<SignedCa, SignError> {
        self.check_path_length()?;
        let validity = self.validity(request.not_before, request.not_after)?;
        let above = self.certificates();
        // A root stands in no chain, but is the parent of what it signs.
        let depth = above.below_root().count().max(1);
        let certificate = DownstreamCaProfile {
            trust_domain: request.trust_domain,
            issuer: above.certificate(),
            depth,
            public_key: request.public_key,
            serial: SerialNumber::random()?,
            not_before: validity.not_before,
            not_after: validity.not_after,
        }
        .params()?
        .signed_by(request.public_key, self.issuer())?;
        let certificate = CaCertificate::parse(certificate.into())
            .map_err(|source| SignError::Profile { source })?;
        if !certificate.is_issued_by(above.certificate()) {
            return Err(self.wrong_issuer());
        }
        Ok(SignedCa {
            chain: std::iter::once(certificate.der())
                .chain(above.below_root())
                .cloned()
                .collect(),
            not_before: validity.not_before,
            not_after: validity.not_after,
            capped: validity.capped,
        })
    }

    /// How many CAs may follow a CA is counted from itself (RFC 5280 §4.2.1.9); the new one is one
    /// more than there are now.
    fn check_path_length(&self) -> Result<(), SignError> {
        for (below, der) in self.certificates().all().enumerate() {
            let ca = CaCertificate::parse(der.clone());
            let ca = ca.map_err(|source| SignError::Profile { source })?;
            let needed = u32::try_from(below).unwrap_or(u32::MAX).saturating_add(1);
            if let Some(allowed) = ca.path_length().filter(|allowed| *allowed < needed) {
                return Err(SignError::PathLength { allowed, needed });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use rcgen::{BasicConstraints, IsCa};
    use x509_parser::{certificate::X509Certificate, prelude::FromDer};

    use super::*;
    use crate::{
        api::{CaKeyType, CaSubject},
        authority::{
            CaCertificates, PrivateKey, SvidRequest,
            fixtures::{ca_params, issued_by, now, root, secret, trust_domain},
        },
        spiffe::{Bundle, verify_x509_svid},
    };

    fn later(hours: i64) -> Timestamp {
        now() + SignedDuration::from_hours(hours)
    }

    fn own_root() -> CertificateAuthority {
        let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
        let subject = CaSubject {
            common_name: Some("root".into()),
            ..CaSubject::default()
        };
        CertificateAuthority::self_signed(&trust_domain(), &subject, key, now(), later(168))
            .unwrap()
    }

    /// A CA of the key type below `above`, as its server would use it.
    fn below(
        above: &CertificateAuthority,
        key_type: CaKeyType,
        until: Timestamp,
    ) -> Result<(CertificateAuthority, SignedCa), SignError> {
        let key = PrivateKey::generate(key_type).unwrap();
        let signed = above.sign_downstream_ca(&DownstreamCaRequest {
            trust_domain: &trust_domain(),
            public_key: key.public_key(),
            not_before: now(),
            not_after: until,
        })?;
        let chain = signed.chain.iter().chain([above.certificates().root()]);
        let parse = |der: &CertificateDer<'static>| CaCertificate::parse(der.clone()).unwrap();
        let mut chain: Vec<_> = chain.map(parse).collect();
        let certificates = CaCertificates::new(chain.remove(0), &chain);
        Ok((
            CertificateAuthority::new(certificates, key).unwrap(),
            signed,
        ))
    }

    fn assert_signs(ca: &CertificateAuthority) {
        let id = "spiffe://example.org/web".parse().unwrap();
        let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
        let signed = ca.sign(&SvidRequest {
            id: &id,
            dns_names: &[],
            public_key: key.public_key(),
            not_before: now(),
            not_after: later(1),
        });
        let bundle = Bundle::new(trust_domain(), [ca.certificates().root().clone()], 1).unwrap();
        let chain = signed.unwrap().chain;
        assert_eq!(verify_x509_svid(&chain, &bundle, now()), Ok(id));
    }

    #[test]
    fn what_a_server_below_signs_verifies_to_our_root() {
        let top = own_root();
        for key_type in [CaKeyType::EcP256, CaKeyType::EcP384, CaKeyType::Rsa2048] {
            let (first, signed) = below(&top, key_type, later(24)).unwrap();
            assert_eq!((signed.chain.len(), signed.capped), (1, false));
            assert_signs(&first);
            let (second, signed) = below(&first, CaKeyType::EcP256, later(24)).unwrap();
            assert_eq!(signed.chain.len(), 2);
            assert_eq!(signed.chain[1], *first.certificates().certificate().der());
            assert_signs(&second);
        }
    }

    #[test]
    fn says_what_the_profile_wants() {
        let top = own_root();
        let (first, signed) = below(&top, CaKeyType::EcP256, later(24)).unwrap();
        let (_, ca) = X509Certificate::from_der(&signed.chain[0]).unwrap();
        let serial = ca.tbs_certificate.serial.to_string();
        assert_eq!(
            ca.subject().to_string(),
            format!("C=US, O=SPIFFE, OU=DOWNSTREAM-1, CN=root, serialNumber={serial}")
        );
        let basic = ca.basic_constraints().unwrap().unwrap();
        assert!(basic.critical && basic.value.ca);
        assert_eq!(basic.value.path_len_constraint, None);
        let usage = ca.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        assert_eq!(usage.value.to_string(), "Key Cert Sign, CRL Sign");
        assert!(ca.extended_key_usage().unwrap().is_none());
        let san = ca.subject_alternative_name().unwrap().unwrap();
        let names: Vec<_> = san
            .value
            .general_names
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["URI(spiffe://example.org)"]);
        // Key usage, basic constraints, both key identifiers, alternative name.
        assert_eq!(ca.extensions().len(), 5);
        let (_, signed) = below(&first, CaKeyType::EcP256, later(24)).unwrap();
        let (_, second) = X509Certificate::from_der(&signed.chain[0]).unwrap();
        assert!(
            second
                .subject()
                .to_string()
                .contains("OU=DOWNSTREAM-1, CN=root")
        );
        let (third, _) = below(&first, CaKeyType::EcP256, later(24)).unwrap();
        let (_, signed) = below(&third, CaKeyType::EcP256, later(24)).unwrap();
        let (_, fourth) = X509Certificate::from_der(&signed.chain[0]).unwrap();
        assert!(fourth.subject().to_string().contains("OU=DOWNSTREAM-2"));
    }

    #[test]
    fn never_outlives_what_is_above_it() {
        let (first, signed) = below(&own_root(), CaKeyType::EcP256, later(500)).unwrap();
        assert_eq!((signed.not_after, signed.capped), (later(168), true));
        assert_eq!(first.not_after(), later(168));
        let refused = below(&own_root(), CaKeyType::EcP256, now()).unwrap_err();
        assert!(matches!(refused, SignError::NoLifetime { .. }));
    }

    #[test]
    fn a_path_length_is_kept() {
        let import = |of_root: Option<u8>, of_ca: Option<u8>| {
            let with = |name, length: Option<u8>| {
                let mut params = ca_params(name);
                if let Some(length) = length {
                    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length));
                }
                params
            };
            let top = root(with("root", of_root));
            let ca = issued_by(&top, with("ca", of_ca));
            let data = secret(&[&ca], ca.key(), &[&top]);
            let ca = CertificateAuthority::import(&data, &trust_domain(), now()).unwrap();
            below(&ca, CaKeyType::EcP256, later(1)).map(|(ca, _)| assert_signs(&ca))
        };
        assert_eq!(import(None, None), Ok(()));
        assert_eq!(import(Some(2), Some(1)), Ok(()));
        let refused = |allowed, needed| Err(SignError::PathLength { allowed, needed });
        assert_eq!(import(None, Some(0)), refused(0, 1));
        assert_eq!(import(Some(1), None), refused(1, 2));
    }
}
