//! CAs as others make them, and the Secrets that hold them.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

/// A CA, or another certificate, by somebody else.
pub(crate) type Ca = CertifiedIssuer<'static, KeyPair>;

/// A root that is valid for a year.
pub(crate) fn ca(name: &str) -> Ca {
    ca_valid_for(name, Duration::days(365))
}

/// A root that ends in `lifetime`, which may be in the past.
pub(crate) fn ca_valid_for(name: &str, lifetime: Duration) -> Ca {
    CertifiedIssuer::self_signed(parameters(name, lifetime), key()).unwrap()
}

/// A CA under `issuer`.
pub(crate) fn issued_by(issuer: &Ca, name: &str) -> Ca {
    CertifiedIssuer::signed_by(parameters(name, Duration::days(90)), key(), issuer).unwrap()
}

/// A CA under `issuer`, or its own root, with `change` made to its certificate.
pub(crate) fn ca_with(
    issuer: Option<&Ca>,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> Ca {
    let mut parameters = parameters(name, Duration::days(90));
    change(&mut parameters);
    match issuer {
        Some(issuer) => CertifiedIssuer::signed_by(parameters, key(), issuer),
        None => CertifiedIssuer::self_signed(parameters, key()),
    }
    .unwrap()
}

/// The root `ca` once more: another certificate for the same key and name.
pub(crate) fn renewed(ca: &Ca, name: &str) -> Ca {
    let key = KeyPair::from_pem(&ca.key().serialize_pem()).unwrap();
    CertifiedIssuer::self_signed(parameters(name, Duration::days(730)), key).unwrap()
}

/// A self-signed certificate that may not sign others.
pub(crate) fn not_a_ca(name: &str) -> Ca {
    let mut parameters = parameters(name, Duration::days(1));
    parameters.is_ca = IsCa::ExplicitNoCa;
    CertifiedIssuer::self_signed(parameters, key()).unwrap()
}

/// A Secret of the type `kubernetes.io/tls` in the operator's namespace, with the chain of a CA,
/// its key, and the root where the chain does not end in it.
pub(crate) fn tls_secret(name: &str, chain: &str, key: &KeyPair, root: &str) -> Value {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = BTreeMap::from([
        ("tls.crt", bytes(chain)),
        ("tls.key", bytes(&key.serialize_pem())),
        ("ca.crt", bytes(root)),
    ]);
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name, "namespace": "spiffe-system" },
        "type": "kubernetes.io/tls",
        "data": data,
    })
}

fn parameters(name: &str, lifetime: Duration) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut parameters = CertificateParams::default();
    parameters.not_before = now - Duration::days(30);
    parameters.not_after = now + lifetime;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}
