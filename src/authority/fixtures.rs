//! CAs as others make them, good and bad, for tests.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::spiffe::TrustDomainName;

pub(crate) const NOW: i64 = 1_800_000_000;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

pub(crate) fn trust_domain() -> TrustDomainName {
    "example.org".parse().unwrap()
}

/// A certificate or CA by somebody else.
pub(crate) type Foreign = CertifiedIssuer<'static, KeyPair>;

/// What cert-manager would ask for a CA named `name`, valid from an hour ago for a year.
pub(crate) fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = time::OffsetDateTime::from_unix_timestamp(NOW - 3600).unwrap();
    params.not_after = time::OffsetDateTime::from_unix_timestamp(NOW + 365 * 86_400).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    params.use_authority_key_identifier_extension = true;
    params
}

pub(crate) fn with_uri(mut params: CertificateParams, uri: &str) -> CertificateParams {
    params
        .subject_alt_names
        .push(SanType::URI(uri.try_into().unwrap()));
    params
}

pub(crate) fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

pub(crate) fn root(params: CertificateParams) -> Foreign {
    CertifiedIssuer::self_signed(params, key()).unwrap()
}

pub(crate) fn issued_by(issuer: &Foreign, params: CertificateParams) -> Foreign {
    CertifiedIssuer::signed_by(params, key(), issuer).unwrap()
}

/// The data of a Secret: `tls.crt`, `tls.key` and, if there is any, `ca.crt`.
pub(crate) fn secret(
    chain: &[&Foreign],
    key: &KeyPair,
    roots: &[&Foreign],
) -> BTreeMap<String, Vec<u8>> {
    let pem = |of: &[&Foreign]| of.iter().map(|f| f.pem()).collect::<String>().into_bytes();
    BTreeMap::from([
        ("tls.crt".to_owned(), pem(chain)),
        ("tls.key".to_owned(), key.serialize_pem().into_bytes()),
        ("ca.crt".to_owned(), pem(roots)),
    ])
}
