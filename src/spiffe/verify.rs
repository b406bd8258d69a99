//! Verifying X.509-SVIDs: the leaf's own form (X509-SVID §4 and §5.2) and its path to a root of the
//! trust domain's bundle (RFC 5280 §6, done by `webpki`).

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{Bundle, CaCertificate, SpiffeId, ca_certificate::uris};

/// The identity that `chain` (a leaf, then intermediates) proves at `now` to who trusts `bundle`.
///
/// # Errors
/// When the leaf is no X.509-SVID of the bundle's trust domain, an intermediate may not sign, or
/// no valid path leads to a root of the bundle.
pub fn verify_x509_svid(
    chain: &[CertificateDer<'_>],
    bundle: &Bundle,
    now: Timestamp,
) -> Result<SpiffeId, VerifyError> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(VerifyError::EmptyChain);
    };
    let id = check_x509_svid(leaf)?;
    if !id.is_member_of(bundle.trust_domain()) {
        return Err(VerifyError::OtherTrustDomain { id });
    }
    if intermediates
        .iter()
        .any(|der| CaCertificate::parse(der.clone().into_owned()).is_err())
    {
        return Err(VerifyError::IntermediateNotCa);
    }
    check_path(leaf, intermediates, bundle, now)?;
    Ok(id)
}

/// The SPIFFE ID of `leaf`, when the certificate alone has the form of an X.509-SVID. Whoever
/// signed it, and when it is valid, is not looked at.
///
/// # Errors
/// When it has not.
pub fn check_x509_svid(leaf: &CertificateDer<'_>) -> Result<SpiffeId, VerifyError> {
    let Ok(([], parsed)) = X509Certificate::from_der(leaf) else {
        return Err(VerifyError::Malformed);
    };
    id_of(&parsed)
}

/// Whether `certificate` can be the root of a path; one in a bundle that cannot spoils the whole
/// bundle.
#[must_use]
pub fn is_trust_anchor(certificate: &CertificateDer<'_>) -> bool {
    webpki::anchor_from_trusted_cert(certificate).is_ok()
}

/// What [`check_x509_svid`] says of a certificate that is parsed already.
pub(crate) fn id_of(leaf: &X509Certificate<'_>) -> Result<SpiffeId, VerifyError> {
    let basic_constraints = leaf.basic_constraints();
    if !matches!(&basic_constraints, Ok(basic) if basic.as_ref().is_none_or(|b| !b.value.ca)) {
        return Err(VerifyError::LeafIsCa);
    }
    match leaf.key_usage() {
        Ok(Some(usage))
            if usage.value.digital_signature()
                && !usage.value.key_cert_sign()
                && !usage.value.crl_sign() => {}
        _ => return Err(VerifyError::KeyUsage),
    }
    match leaf.extended_key_usage() {
        Ok(None) => {}
        Ok(Some(usage)) if usage.value.server_auth && usage.value.client_auth => {}
        _ => return Err(VerifyError::ExtendedKeyUsage),
    }
    let uris = uris(leaf).map_err(|_| VerifyError::Malformed)?;
    let [uri] = uris.as_slice() else {
        return Err(VerifyError::UriCount { count: uris.len() });
    };
    match uri.parse::<SpiffeId>() {
        Ok(id) if !id.path().is_empty() => Ok(id),
        _ => Err(VerifyError::Uri { uri: uri.clone() }),
    }
}

/// Why a chain proves no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// No certificate at all.
    #[error("the chain is empty")]
    EmptyChain,
    /// An extended key usage that lacks server or client authentication.
    #[error("the leaf's extended key usage lacks server or client authentication")]
    ExtendedKeyUsage,
    /// A certificate after the leaf that may not sign certificates.
    #[error("a certificate after the leaf may not sign certificates")]
    IntermediateNotCa,
    /// No digital signature, or the right to sign certificates or revocation lists.
    #[error("the leaf's key usage must have digitalSignature, and neither keyCertSign nor cRLSign")]
    KeyUsage,
    /// The leaf is a CA.
    #[error("the leaf is a CA certificate")]
    LeafIsCa,
    /// No certificate of X.509 version 3.
    #[error("the leaf is not well-formed")]
    Malformed,
    /// Another identity than the one that was to be proved.
    #[error("{id} is not who it should be")]
    OtherId {
        /// The identity.
        id: SpiffeId,
    },
    /// An identity of another trust domain than the bundle's.
    #[error("{id} is not of the bundle's trust domain")]
    OtherTrustDomain {
        /// The identity.
        id: SpiffeId,
    },
    /// No valid path to a root.
    #[error("no valid path from the leaf to a root of the bundle: {message}")]
    Path {
        /// What webpki says.
        message: String,
    },
    /// The URI is no SPIFFE ID of a workload.
    #[error("the leaf's URI {uri:?} is no SPIFFE ID with a path")]
    Uri {
        /// What it is.
        uri: String,
    },
    /// Not exactly one URI.
    #[error("the leaf has {count} URIs; an X.509-SVID has exactly one")]
    UriCount {
        /// How many it has.
        count: usize,
    },
}

/// Extended key usages are looked at in the leaf only; those of CAs do not narrow them.
pub(crate) struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

fn check_path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &Bundle,
    now: Timestamp,
) -> Result<(), VerifyError> {
    let failed = |error: webpki::Error| VerifyError::Path {
        message: error.to_string(),
    };
    let roots = bundle
        .roots()
        .map(|root| webpki::anchor_from_trusted_cert(root))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let since_1970 = std::time::Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    EndEntityCert::try_from(leaf)
        .map_err(failed)?
        .verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &roots,
            intermediates,
            UnixTime::since_unix_epoch(since_1970),
            AnyPurpose,
            None,
            None,
        )
        .map(|_| ())
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa,
        KeyPair, KeyUsagePurpose, SanType,
    };

    use super::*;
    use crate::spiffe::TrustDomainName;

    const NOW: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(NOW + second).unwrap()
    }

    fn trust_domain() -> TrustDomainName {
        "example.org".parse().unwrap()
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.not_before = time::OffsetDateTime::from_unix_timestamp(NOW - 60).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(NOW + 3600).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params
    }

    fn ca(name: &str) -> CertificateParams {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    fn uri(uri: &str) -> SanType {
        SanType::URI(uri.try_into().unwrap())
    }

    fn leaf() -> CertificateParams {
        let mut params = params("leaf");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = vec![uri("spiffe://example.org/a")];
        params
    }

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn root() -> Issuer {
        CertifiedIssuer::self_signed(ca("root"), KeyPair::generate().unwrap()).unwrap()
    }

    fn sign(params: &CertificateParams, issuer: &Issuer) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, issuer).unwrap().der().clone()
    }

    fn bundle(root: &Issuer) -> Bundle {
        Bundle::new(trust_domain(), [root.der().clone()], 1).unwrap()
    }

    fn verify(params: &CertificateParams) -> Result<SpiffeId, VerifyError> {
        let root = root();
        verify_x509_svid(&[sign(params, &root)], &bundle(&root), at(0))
    }

    #[test]
    fn accepts_a_leaf_by_way_of_an_intermediate() {
        let root = root();
        let key = KeyPair::generate().unwrap();
        let between = CertifiedIssuer::signed_by(ca("between"), key, &root).unwrap();
        let chain = [sign(&leaf(), &between), between.der().clone()];
        let id = verify_x509_svid(&chain, &bundle(&root), at(0)).unwrap();
        assert_eq!(id.as_str(), "spiffe://example.org/a");
    }

    #[test]
    fn refuses_leaves_of_another_form() {
        let changed = |change: fn(&mut CertificateParams)| {
            let mut params = leaf();
            change(&mut params);
            verify(&params).unwrap_err()
        };
        for (found, expected) in [
            (
                changed(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
                VerifyError::LeafIsCa,
            ),
            (
                changed(|leaf| leaf.key_usages.clear()),
                VerifyError::KeyUsage,
            ),
            (
                changed(|leaf| leaf.key_usages.push(KeyUsagePurpose::KeyCertSign)),
                VerifyError::KeyUsage,
            ),
            (
                changed(|leaf| leaf.key_usages.push(KeyUsagePurpose::CrlSign)),
                VerifyError::KeyUsage,
            ),
            (
                changed(|leaf| {
                    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                }),
                VerifyError::ExtendedKeyUsage,
            ),
            (
                changed(|leaf| leaf.subject_alt_names.clear()),
                VerifyError::UriCount { count: 0 },
            ),
            (
                changed(|leaf| leaf.subject_alt_names.push(uri("https://example.org"))),
                VerifyError::UriCount { count: 2 },
            ),
            (
                changed(|leaf| leaf.subject_alt_names = vec![uri("spiffe://example.org")]),
                VerifyError::Uri {
                    uri: "spiffe://example.org".into(),
                },
            ),
            (
                changed(|leaf| leaf.subject_alt_names = vec![uri("spiffe://other.org/a")]),
                VerifyError::OtherTrustDomain {
                    id: "spiffe://other.org/a".parse().unwrap(),
                },
            ),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn refuses_what_is_no_chain() {
        let root = root();
        let bundle = bundle(&root);
        assert_eq!(
            verify_x509_svid(&[], &bundle, at(0)),
            Err(VerifyError::EmptyChain)
        );
        assert_eq!(
            verify_x509_svid(&[vec![1, 2, 3].into()], &bundle, at(0)),
            Err(VerifyError::Malformed)
        );
        let chain = [sign(&leaf(), &root), sign(&leaf(), &root)];
        assert_eq!(
            verify_x509_svid(&chain, &bundle, at(0)),
            Err(VerifyError::IntermediateNotCa)
        );
    }

    #[test]
    fn refuses_other_roots_and_other_times() {
        let root = root();
        let chain = [sign(&leaf(), &root)];
        let other = bundle(&super::tests::root());
        for (bundle, second) in [(&other, 0), (&bundle(&root), 3601), (&bundle(&root), -61)] {
            assert!(matches!(
                verify_x509_svid(&chain, bundle, at(second)),
                Err(VerifyError::Path { .. })
            ));
        }
        assert!(verify_x509_svid(&chain, &bundle(&root), at(3600)).is_ok());
    }
}
