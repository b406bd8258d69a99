//! What readers of DER from the network make of damaged and forged certificates and keys.

use std::slice::from_ref;
use std::sync::LazyLock;

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, SignatureAlgorithm, SigningKey,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::asn1_rs::{Any, BitString, Class, Header, Length, Tag, ToDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{
    Bundle, CaCertificate, KeyKind, PublicKey, SpiffeId, check_x509_svid, is_trust_anchor,
    verify_x509_svid,
};

const NOW: i64 = 1_800_000_000;
/// The `AlgorithmIdentifier` (RFC 5758 §3.2).
const ECDSA_WITH_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const ID: &str = "spiffe://example.org/a";

/// One change to bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Truncate(Index),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    /// Repeats what is between the two where the second is, another element of the same kind if
    /// they happen to be its bounds.
    Duplicate(Index, Index),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let at = |index: &Index| index.index(length + 1);
        let range = |one: &Index, other: &Index| {
            let (one, other) = (at(one), at(other));
            one.min(other)..one.max(other)
        };
        match self {
            Self::Flip(index, mask) if length > 0 => bytes[index.index(length)] ^= mask,
            Self::Flip(..) => {}
            Self::Truncate(index) => bytes.truncate(at(index)),
            Self::Insert(index, more) => {
                bytes.splice(at(index)..at(index), more.iter().copied());
            }
            Self::Remove(one, other) => {
                bytes.drain(range(one, other));
            }
            Self::Duplicate(one, other) => {
                let range = range(one, other);
                let (copy, end) = (bytes[range.clone()].to_vec(), range.end);
                bytes.splice(end..end, copy);
            }
        }
    }
}

/// Mostly flipped bytes, which leave lengths alone and so get deepest.
fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        12 => (any::<Index>(), 1..=u8::MAX).prop_map(|(at, mask)| Damage::Flip(at, mask)),
        1 => any::<Index>().prop_map(Damage::Truncate),
        2 => (any::<Index>(), vec(any::<u8>(), 1..4)).prop_map(|(at, more)| Damage::Insert(at, more)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Damage::Remove(one, other)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Damage::Duplicate(one, other)),
    ];
    vec(one, 1..4)
}

fn damaged(bytes: &[u8], damage: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    damage.iter().for_each(|damage| damage.apply(&mut bytes));
    bytes
}

fn at(second: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW + second).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (at(-60), at(3600));
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn ca(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(3));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri("spiffe://example.org")];
    params
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

fn leaf() -> CertificateParams {
    let mut params = params("leaf");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.subject_alt_names = vec![uri(ID), SanType::DnsName("a.test".try_into().unwrap())];
    params.use_authority_key_identifier_extension = true;
    params
}

/// A root, a CA that it signed, and a leaf of each.
struct Chain {
    root: CertifiedIssuer<'static, KeyPair>,
    between: CertifiedIssuer<'static, KeyPair>,
    leaf_key: KeyPair,
    bundle: Bundle,
    root_ca: CaCertificate,
}

static CHAIN: LazyLock<Chain> = LazyLock::new(|| {
    let key = || KeyPair::generate().unwrap();
    let root = CertifiedIssuer::self_signed(ca("root"), key()).unwrap();
    let between = CertifiedIssuer::signed_by(ca("between"), key(), &root).unwrap();
    let roots = [root.der().clone()];
    Chain {
        bundle: Bundle::new("example.org".parse().unwrap(), roots, 1).unwrap(),
        root_ca: CaCertificate::parse(root.der().clone()).unwrap(),
        leaf_key: key(),
        root,
        between,
    }
});

/// That of another root of the same name.
static OTHER_BUNDLE: LazyLock<Bundle> = LazyLock::new(|| {
    let root = CertifiedIssuer::self_signed(ca("root"), KeyPair::generate().unwrap());
    let roots = [root.unwrap().der().clone()];
    Bundle::new("example.org".parse().unwrap(), roots, 1).unwrap()
});

fn sign(params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> CertificateDer<'static> {
    let certificate = params.signed_by(&CHAIN.leaf_key, issuer).unwrap();
    certificate.der().clone()
}

static LEAF: LazyLock<CertificateDer<'static>> = LazyLock::new(|| sign(&leaf(), &CHAIN.root));
static LEAF_BELOW: LazyLock<CertificateDer<'static>> =
    LazyLock::new(|| sign(&leaf(), &CHAIN.between));

fn parsed(der: &[u8]) -> X509Certificate<'_> {
    let (rest, parsed) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    parsed
}

/// The part of a certificate that is signed.
fn to_be_signed(der: &[u8]) -> Vec<u8> {
    parsed(der).tbs_certificate.as_ref().to_vec()
}

fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().unwrap();
    let names = extension.iter().flat_map(|it| &it.value.general_names);
    let uris = names.filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    uris.collect()
}

/// `tbs` as the root signs it, whatever it says.
fn signed_by_root(tbs: &[u8]) -> Vec<u8> {
    let signature = CHAIN.root.key().sign(tbs).unwrap();
    let signature = BitString::new(0, &signature).to_der_vec().unwrap();
    let content = [tbs, ECDSA_WITH_SHA256, &signature].concat();
    let length = Length::Definite(content.len());
    let header = Header::new(Class::Universal, true, Tag::Sequence, length);
    Any::new(header, &content).to_der_vec().unwrap()
}

/// What X509-SVID §4 and §5.2 ask of a leaf.
fn is_svid_of(der: &[u8], id: &SpiffeId) -> Result<(), TestCaseError> {
    let leaf = parsed(der);
    prop_assert_eq!(uris(&leaf), [id.as_str()]);
    prop_assert!(!id.path().is_empty());
    let basic = leaf.basic_constraints().unwrap();
    prop_assert!(basic.is_none_or(|basic| !basic.value.ca));
    let usage = leaf.key_usage().unwrap().unwrap().value;
    prop_assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    let extended = leaf.extended_key_usage().unwrap();
    prop_assert!(extended.is_none_or(|it| it.value.server_auth && it.value.client_auth));
    Ok(())
}

/// A key of each kind.
fn keys() -> &'static [Vec<u8>] {
    static KEYS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let of = |algorithm: &'static SignatureAlgorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            key.subject_public_key_info()
        };
        vec![
            of(&rcgen::PKCS_ECDSA_P256_SHA256),
            of(&rcgen::PKCS_ECDSA_P384_SHA384),
            of(&rcgen::PKCS_ECDSA_P521_SHA512),
            of(&rcgen::PKCS_ED25519),
            of(&rcgen::PKCS_RSA_SHA256),
        ]
    });
    &KEYS
}

/// What a leaf may say, and whether an X.509-SVID may.
fn leaves() -> impl Strategy<Value = (CertificateParams, bool)> {
    let names = [
        ID,
        "spiffe://example.org/b/c",
        "spiffe://example.org",
        "spiffe://other.org/a",
        "https://example.org",
    ];
    let names = prop_oneof![
        3 => Just(vec![ID]),
        2 => subsequence(names.to_vec(), 0..=3),
        1 => Just(vec![ID, ID]),
    ];
    let usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyAgreement,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    let usages = prop_oneof![
        2 => Just(vec![KeyUsagePurpose::DigitalSignature]),
        1 => subsequence(usages, 0..=3),
    ];
    let purposes = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::CodeSigning,
    ];
    let purposes = subsequence(purposes, 0..=3);
    let is_ca = prop_oneof![
        2 => Just(IsCa::NoCa),
        2 => Just(IsCa::ExplicitNoCa),
        1 => Just(IsCa::Ca(BasicConstraints::Unconstrained)),
    ];
    let times = prop_oneof![
        4 => Just((-1, 1)),
        1 => (-9_i64..9, -9_i64..9).prop_filter("begins before it ends", |(from, to)| from < to),
    ];
    (names, usages, purposes, is_ca, times).prop_map(|(names, usages, purposes, is_ca, times)| {
        let mut params = leaf();
        params.subject_alt_names = names.iter().map(|name| uri(name)).collect();
        (params.not_before, params.not_after) = (at(times.0), at(times.1));
        let has = |purpose| purposes.contains(&purpose);
        let may = matches!(names[..], [ID | "spiffe://example.org/b/c"])
            && usages.contains(&KeyUsagePurpose::DigitalSignature)
            && !usages.contains(&KeyUsagePurpose::KeyCertSign)
            && !usages.contains(&KeyUsagePurpose::CrlSign)
            && (purposes.is_empty()
                || has(ExtendedKeyUsagePurpose::ServerAuth)
                    && has(ExtendedKeyUsagePurpose::ClientAuth))
            && !matches!(is_ca, IsCa::Ca(_))
            && (times.0..=times.1).contains(&0);
        (params.key_usages, params.extended_key_usages) = (usages, purposes);
        params.is_ca = is_ca;
        (params, may)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_bytes_make_a_reader_of_certificates_panic(bytes in vec(any::<u8>(), 0..400)) {
        let der = CertificateDer::from(bytes.clone());
        let _ = check_x509_svid(&der);
        let _ = is_trust_anchor(&der);
        let _ = verify_x509_svid(from_ref(&der), &CHAIN.bundle, now());
        let _ = verify_x509_svid(&[LEAF.clone(), der.clone()], &CHAIN.bundle, now());
        let _ = CaCertificate::parse(der);
        let _ = PublicKey::from_spki(&bytes);
    }

    /// Under the right root, and under another one.
    #[test]
    fn a_leaf_is_accepted_where_it_is_an_svid_and_nowhere_else(
        (params, is_svid) in leaves(),
        by_way in any::<bool>(),
    ) {
        let chain = if by_way {
            vec![sign(&params, &CHAIN.between), CHAIN.between.der().clone()]
        } else {
            vec![sign(&params, &CHAIN.root)]
        };
        let verified = verify_x509_svid(&chain, &CHAIN.bundle, now());
        prop_assert_eq!(verified.is_ok(), is_svid, "{:?}", verified);
        if let Ok(id) = verified {
            is_svid_of(&chain[0], &id)?;
        }
        prop_assert!(verify_x509_svid(&chain, &OTHER_BUNDLE, now()).is_err());
    }

    /// No damage to what is signed is let pass, nor does a damaged intermediate lead to a root.
    #[test]
    fn a_damaged_certificate_verifies_only_where_what_is_signed_is_intact(damage in damage()) {
        let leaf = CertificateDer::from(damaged(&LEAF, &damage));
        if let Ok(id) = check_x509_svid(&leaf) {
            is_svid_of(&leaf, &id)?;
        }
        if let Ok(id) = verify_x509_svid(from_ref(&leaf), &CHAIN.bundle, now()) {
            prop_assert_eq!(id.as_str(), ID);
            prop_assert_eq!(to_be_signed(&leaf), to_be_signed(&LEAF));
        }
        let between = CertificateDer::from(damaged(CHAIN.between.der(), &damage));
        let chain = [LEAF_BELOW.clone(), between.clone()];
        if let Ok(id) = verify_x509_svid(&chain, &CHAIN.bundle, now()) {
            prop_assert_eq!(id.as_str(), ID);
            prop_assert_eq!(to_be_signed(&between), to_be_signed(CHAIN.between.der()));
        }
    }

    /// Whatever a CA signs, it becomes an X.509-SVID only by having the form of one.
    #[test]
    fn a_forged_certificate_that_a_root_signed_must_still_be_an_svid(damage in damage()) {
        let tbs = damaged(&to_be_signed(&LEAF), &damage);
        let leaf = CertificateDer::from(signed_by_root(&tbs));
        if let Ok(id) = verify_x509_svid(from_ref(&leaf), &CHAIN.bundle, now()) {
            is_svid_of(&leaf, &id)?;
            prop_assert!(id.is_member_of(CHAIN.bundle.trust_domain()));
            let validity = parsed(&leaf).validity().clone();
            prop_assert!(validity.not_before.timestamp() <= NOW);
            prop_assert!(validity.not_after.timestamp() >= NOW);
        }
    }

    #[test]
    fn a_damaged_ca_certificate_is_refused_or_still_one_of_a_ca(damage in damage()) {
        let der = CertificateDer::from(damaged(CHAIN.between.der(), &damage));
        let Ok(read) = CaCertificate::parse(der.clone()) else {
            return Ok(());
        };
        prop_assert_eq!(read.der(), &der);
        let found = parsed(&der);
        let basic = found.basic_constraints().unwrap().unwrap();
        prop_assert!(basic.value.ca);
        prop_assert_eq!(read.path_length(), basic.value.path_len_constraint);
        prop_assert!(found.key_usage().unwrap().unwrap().value.key_cert_sign());
        prop_assert_eq!(found.validity().not_after.timestamp(), read.not_after().as_second());
        let key = PublicKey::from_spki(found.public_key().raw);
        prop_assert_eq!(key.as_ref(), Ok(read.public_key()));
        if read.is_issued_by(&CHAIN.root_ca) {
            prop_assert_eq!(to_be_signed(&der), to_be_signed(CHAIN.between.der()));
        }
        // For people, names of any kind.
        let _ = (read.issuer_for_people(), read.subject_for_people());
        let _ = read.check(CHAIN.bundle.trust_domain(), now());
    }

    /// What is accepted is certified to the byte, so it is what it says, and has the length of its
    /// kind.
    #[test]
    fn a_damaged_key_is_refused_or_read_to_the_byte(which in any::<Index>(), damage in damage()) {
        let spki = damaged(which.get::<Vec<u8>>(keys()), &damage);
        let Ok(key) = PublicKey::from_spki(&spki) else {
            return Ok(());
        };
        prop_assert_eq!(key.spki(), &spki);
        prop_assert_eq!(key.subject_public_key_info(), spki);
        match (key.kind(), key.bits()) {
            (KeyKind::Rsa { bits }, _) => prop_assert!((2048..=8192).contains(&bits)),
            (KeyKind::Ed25519, bits) => prop_assert_eq!(bits.len(), 32),
            (KeyKind::EcP256, bits) => prop_assert_eq!((bits[0], bits.len()), (4, 65)),
            (KeyKind::EcP384, bits) => prop_assert_eq!((bits[0], bits.len()), (4, 97)),
            (KeyKind::EcP521, bits) => prop_assert_eq!((bits[0], bits.len()), (4, 133)),
        }
        prop_assert!(!key.verifies_possession(b"message", b"no signature"));
    }
}

/// Undamaged, all that the tests above damage is accepted.
#[test]
fn what_is_intact_is_accepted() {
    let id = verify_x509_svid(from_ref(&LEAF), &CHAIN.bundle, now()).unwrap();
    assert_eq!(id.as_str(), ID);
    let chain = [LEAF_BELOW.clone(), CHAIN.between.der().clone()];
    assert_eq!(verify_x509_svid(&chain, &CHAIN.bundle, now()).unwrap(), id);
    let again = CertificateDer::from(signed_by_root(&to_be_signed(&LEAF)));
    assert_eq!(
        verify_x509_svid(&[again], &CHAIN.bundle, now()).unwrap(),
        id
    );
    let between = CaCertificate::parse(CHAIN.between.der().clone()).unwrap();
    assert!(between.is_issued_by(&CHAIN.root_ca));
    for key in keys() {
        PublicKey::from_spki(key).unwrap();
    }
}

/// Every byte of what is signed, one after the other.
#[test]
fn no_byte_of_what_is_signed_can_be_another() {
    let tbs = to_be_signed(&LEAF);
    let start = LEAF.windows(tbs.len()).position(|it| it == tbs).unwrap();
    for position in start..start + tbs.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut leaf = LEAF.to_vec();
            leaf[position] ^= mask;
            let verified = verify_x509_svid(&[leaf.into()], &CHAIN.bundle, now());
            assert!(verified.is_err(), "byte {position} by {mask:x}");
        }
    }
}
