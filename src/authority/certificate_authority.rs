//! A CA that signs: its certificate, the chain above it and its key.
//!
//! Invariants: the key is the certificate's; the chain leads, link by link, from the certificate to
//! the root; nothing that it signs outlives it or the chain above it, and the issuer's name in that is the CA's subject,
//! byte for byte. Where a CA comes from: [`CertificateAuthority::self_signed`] here, and an imported
//! one in [`super::import`].

use jiff::Timestamp;
use rcgen::Issuer;
use rustls_pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{PrivateKey, SignError, SubjectError};
use crate::{
    api::CaSubject,
    spiffe::{
        CaCertificate, CaProfile, Fingerprint, PublicKey, SerialNumber, SpiffeId, Subject,
        TrustDomainName, VerifyError, X509SvidProfile, id_of, pem,
    },
};

/// Longest DNS name in text (RFC 1035 §2.3.4).
const MAX_DNS_NAME_LENGTH: usize = 253;

/// A CA with its key.
#[derive(Debug)]
pub struct CertificateAuthority {
    certificates: CaCertificates,
    issuer: Issuer<'static, PrivateKey>,
}

/// The certificates of a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaCertificates {
    certificate: CaCertificate,
    /// Between the CA and the root.
    intermediates: Vec<CertificateDer<'static>>,
    /// The CA itself, where it is self-signed.
    root: CertificateDer<'static>,
    fingerprint: Fingerprint,
    not_after: Timestamp,
}

impl CaCertificates {
    /// `above` are the certificates above the CA's, each one's issuer after it, the root last; none
    /// above a root.
    pub(super) fn new(certificate: CaCertificate, above: &[CaCertificate]) -> Self {
        let ends = above.iter().map(CaCertificate::not_after);
        let not_after = ends.fold(certificate.not_after(), Timestamp::min);
        let (root, intermediates) = match above {
            [intermediates @ .., root] => (root.der().clone(), intermediates),
            [] => (certificate.der().clone(), above),
        };
        let mut chain = certificate.der().to_vec();
        above
            .iter()
            .for_each(|ca| chain.extend_from_slice(ca.der()));
        Self {
            intermediates: intermediates.iter().map(|ca| ca.der().clone()).collect(),
            root,
            fingerprint: Fingerprint::of(&chain),
            not_after,
            certificate,
        }
    }

    /// What tells this CA from every other one: of its certificate and the chain above it, for a
    /// certificate under another root or intermediate is another authority to those who verify.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// When the first certificate of the chain ends. Nothing under the CA verifies after that.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The CA's own certificate.
    #[must_use]
    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// The root that verifiers must trust.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// What follows a leaf in its chain: from the CA up to but excluding the root.
    pub fn below_root(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        let own = Some(self.certificate.der()).filter(|own| **own != self.root);
        own.into_iter().chain(&self.intermediates)
    }

    /// The CA's certificate, the intermediates above it, the root.
    pub(super) fn all(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.below_root().chain([&self.root])
    }
}

/// What to sign.
#[derive(Clone, Copy, Debug)]
pub struct SvidRequest<'a> {
    /// The identity.
    pub id: &'a SpiffeId,
    /// DNS names, in order.
    pub dns_names: &'a [String],
    /// The holder's key.
    pub public_key: &'a PublicKey,
    /// Start of validity, already back-dated.
    pub not_before: Timestamp,
    /// End of validity; the issuer's end comes first if it is earlier.
    pub not_after: Timestamp,
}

/// A signed X.509-SVID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedSvid {
    /// The leaf, then intermediates up to but excluding the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's serial number.
    pub serial: SerialNumber,
    /// Start of validity, in whole seconds.
    pub not_before: Timestamp,
    /// End of validity, in whole seconds.
    pub not_after: Timestamp,
    /// Whether the issuer's end made it end earlier than asked for.
    pub capped: bool,
}

impl SignedSvid {
    /// The chain as PEM, leaf first.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode_certificates(&self.chain)
    }
}

impl CertificateAuthority {
    /// Makes a root for `trust_domain` that signs with `key`.
    ///
    /// # Errors
    /// When there is no randomness or the key fails.
    pub fn self_signed(
        trust_domain: &TrustDomainName,
        subject: &CaSubject,
        key: PrivateKey,
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<Self, SignError> {
        let root = CaProfile {
            trust_domain,
            country: at_most_one("country", &subject.country)?,
            organization: at_most_one("organization", &subject.organization)?,
            common_name: subject.common_name.as_deref(),
            public_key: key.public_key(),
            serial: SerialNumber::random()?,
            not_before,
            not_after,
        }
        .params()?
        .self_signed(&key)?;
        let root = CertificateDer::from(root);
        let certificate =
            CaCertificate::parse(root).map_err(|source| SignError::Profile { source })?;
        Self::new(CaCertificates::new(certificate, &[]), key)
            .map_err(|source| SignError::Subject { source })
    }

    /// `key` is that of the certificate.
    ///
    /// # Errors
    /// When the certificate's subject cannot be an issuer's name. Some of those show only when
    /// something is signed, which then fails.
    pub(super) fn new(certificates: CaCertificates, key: PrivateKey) -> Result<Self, SubjectError> {
        let issuer = issuer(&certificates.certificate, key)?;
        Ok(Self {
            certificates,
            issuer,
        })
    }

    /// Its certificates.
    #[must_use]
    pub fn certificates(&self) -> &CaCertificates {
        &self.certificates
    }

    /// Its key, for the one Secret that keeps it.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        self.issuer.key()
    }

    /// End of its chain's validity, and so of everything that it signs.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.certificates.not_after
    }

    /// Signs an X.509-SVID. The caller answers for the identity being the requester's.
    ///
    /// # Errors
    /// When the request can have no certificate under this CA, or signing fails.
    pub fn sign(&self, request: &SvidRequest<'_>) -> Result<SignedSvid, SignError> {
        self.sign_for(request, None)
    }

    /// The same with a subject of the requester's own, unless it is empty. The first DNS name is
    /// the common name in any case.
    ///
    /// # Errors
    /// As there.
    pub fn sign_for(
        &self,
        request: &SvidRequest<'_>,
        subject: Option<&Subject>,
    ) -> Result<SignedSvid, SignError> {
        check_names(request)?;
        let issuer = &self.certificates.certificate;
        let Validity {
            not_before,
            not_after,
            capped,
        } = self.validity(request.not_before, request.not_after)?;
        let serial = SerialNumber::random()?;
        let leaf = X509SvidProfile {
            id: request.id,
            subject: subject.filter(|subject| !subject.is_empty()),
            dns_names: request.dns_names,
            public_key: request.public_key,
            serial,
            not_before,
            not_after,
        }
        .params()?
        .signed_by(request.public_key, &self.issuer)?;
        let leaf = CertificateDer::from(leaf);
        check_leaf(&leaf, request.id, issuer)?;
        Ok(SignedSvid {
            chain: std::iter::once(leaf)
                .chain(self.certificates.below_root().cloned())
                .collect(),
            serial,
            not_before,
            not_after,
            capped,
        })
    }

    /// The validity of something that is signed to be valid from `not_before` to `wanted`.
    pub(super) fn validity(
        &self,
        not_before: Timestamp,
        wanted: Timestamp,
    ) -> Result<Validity, SignError> {
        let [not_before, wanted] = [not_before, wanted].map(whole_seconds);
        let not_after = wanted.min(self.not_after());
        if not_after <= not_before {
            return Err(SignError::NoLifetime {
                not_before,
                not_after,
            });
        }
        Ok(Validity {
            not_before,
            not_after,
            capped: not_after < wanted,
        })
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, PrivateKey> {
        &self.issuer
    }

    /// What signed by another name than its own says.
    pub(super) fn wrong_issuer(&self) -> SignError {
        let subject = self.certificates.certificate.subject_for_people();
        let source = SubjectError { subject };
        SignError::Subject { source }
    }
}

/// From when to when, in whole seconds.
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// Whether the issuer's end comes before the end that was asked for.
    pub(super) capped: bool,
}

fn check_names(request: &SvidRequest<'_>) -> Result<(), SignError> {
    if request.id.path().is_empty() {
        return Err(SignError::IdWithoutPath {
            id: request.id.clone(),
        });
    }
    let unfit =
        |name: &&String| name.is_empty() || name.len() > MAX_DNS_NAME_LENGTH || !name.is_ascii();
    match request.dns_names.iter().find(unfit) {
        Some(name) => Err(SignError::DnsName { name: name.clone() }),
        None => Ok(()),
    }
}

/// The CA as `rcgen` knows it: its name and key identifier, read once.
fn issuer(
    certificate: &CaCertificate,
    key: PrivateKey,
) -> Result<Issuer<'static, PrivateKey>, SubjectError> {
    let unsupported = || SubjectError {
        subject: certificate.subject_for_people(),
    };
    // rcgen reads the first two arcs of an OID out of its first byte, and panics when it writes
    // what came of one where they take more.
    let has_two_arcs = |oid: &[u8]| matches!(oid, [first, _, ..] if *first < 120);
    let writable = X509Certificate::from_der(certificate.der()).is_ok_and(|(_, parsed)| {
        let mut attributes = parsed.subject().iter_attributes();
        attributes.all(|attribute| has_two_arcs(attribute.attr_type().as_bytes()))
    });
    if !writable {
        return Err(unsupported());
    }
    Issuer::from_ca_cert_der(certificate.der(), key).map_err(|_| unsupported())
}

/// What SPIRE checks of each certificate before it leaves the server, and that `issuer` is in it
/// by its name.
fn check_leaf(
    leaf: &CertificateDer<'_>,
    id: &SpiffeId,
    issuer: &CaCertificate,
) -> Result<(), SignError> {
    let Ok(([], parsed)) = X509Certificate::from_der(leaf) else {
        return Err(SignError::Leaf {
            source: VerifyError::Malformed,
        });
    };
    if parsed.issuer().as_raw() != issuer.subject() {
        let subject = issuer.subject_for_people();
        return Err(SignError::Subject {
            source: SubjectError { subject },
        });
    }
    match id_of(&parsed) {
        Ok(found) if found == *id => Ok(()),
        Ok(found) => Err(SignError::Leaf {
            source: VerifyError::Uri {
                uri: found.to_string(),
            },
        }),
        Err(source) => Err(SignError::Leaf { source }),
    }
}

fn at_most_one<'a>(
    attribute: &'static str,
    values: &'a [String],
) -> Result<Option<&'a str>, SignError> {
    match values {
        [] => Ok(None),
        [value] => Ok(Some(value)),
        several => Err(SignError::SeveralValues {
            attribute,
            count: several.len(),
        }),
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::SignedDuration;

    use super::*;
    use crate::{
        api::CaKeyType,
        authority::fixtures::{now, trust_domain},
        spiffe::{Bundle, verify_x509_svid},
    };

    const KEY_TYPES: [CaKeyType; 4] = [
        CaKeyType::EcP256,
        CaKeyType::EcP384,
        CaKeyType::Rsa2048,
        CaKeyType::Rsa4096,
    ];

    fn hours(hours: i64) -> Timestamp {
        now() + SignedDuration::from_hours(hours)
    }

    fn ca(key_type: CaKeyType, subject: &CaSubject) -> CertificateAuthority {
        let key = PrivateKey::generate(key_type).unwrap();
        CertificateAuthority::self_signed(&trust_domain(), subject, key, now(), hours(168)).unwrap()
    }

    fn usual() -> CertificateAuthority {
        ca(CaKeyType::EcP256, &CaSubject::default())
    }

    fn id() -> SpiffeId {
        "spiffe://example.org/ns/default/sa/web".parse().unwrap()
    }

    fn sign(
        ca: &CertificateAuthority,
        id: &SpiffeId,
        dns_names: &[String],
        until: Timestamp,
    ) -> Result<SignedSvid, SignError> {
        let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
        ca.sign(&SvidRequest {
            id,
            dns_names,
            public_key: key.public_key(),
            not_before: now(),
            not_after: until,
        })
    }

    #[test]
    fn every_key_type_signs_what_verifies() {
        for key_type in KEY_TYPES {
            let ca = ca(key_type, &CaSubject::default());
            let signed = sign(&ca, &id(), &[], hours(1)).unwrap();
            assert_eq!(signed.chain.len(), 1, "the root is left out");
            let roots = [ca.certificates().root().clone()];
            let bundle = Bundle::new(trust_domain(), roots, 1).unwrap();
            assert_eq!(verify_x509_svid(&signed.chain, &bundle, now()), Ok(id()));
        }
    }

    #[test]
    fn a_leaf_says_what_the_profile_wants() {
        let ca = usual();
        let names = ["b.example.org".to_owned(), "a.example.org".to_owned()];
        let signed = sign(&ca, &id(), &names, hours(1)).unwrap();
        let (rest, leaf) = X509Certificate::from_der(&signed.chain[0]).unwrap();
        assert!(rest.is_empty());
        assert_eq!(
            leaf.subject().to_string(),
            "C=US, O=SPIRE, CN=b.example.org"
        );
        assert_eq!(
            leaf.issuer().as_raw(),
            ca.certificates().certificate().subject()
        );
        assert_eq!(
            leaf.tbs_certificate.serial.to_string(),
            signed.serial.to_string()
        );
        assert!(leaf.raw_serial().len() <= 17);
        let extensions: BTreeMap<_, _> = leaf
            .extensions()
            .iter()
            .map(|extension| (extension.oid.to_id_string(), extension.critical))
            .collect();
        let expected = [
            ("2.5.29.14", false),
            ("2.5.29.15", true),
            ("2.5.29.17", false),
            ("2.5.29.19", true),
            ("2.5.29.35", false),
            ("2.5.29.37", false),
        ];
        assert_eq!(
            extensions,
            expected
                .map(|(id, critical)| (id.to_owned(), critical))
                .into()
        );
        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert_eq!(
            usage.to_string(),
            "Digital Signature, Key Encipherment, Key Agreement"
        );
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        let names: Vec<_> = san
            .value
            .general_names
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            names,
            [
                "DNSName(b.example.org)",
                "DNSName(a.example.org)",
                "URI(spiffe://example.org/ns/default/sa/web)"
            ]
        );
    }

    #[test]
    fn a_root_says_what_the_profile_wants() {
        let subject = CaSubject {
            country: vec!["CH".into()],
            organization: vec!["SPIFFE".into()],
            common_name: Some("Zürich".into()),
        };
        let ca = ca(CaKeyType::EcP256, &subject);
        let (_, root) = X509Certificate::from_der(ca.certificates().root()).unwrap();
        let serial = root.tbs_certificate.serial.to_string();
        assert_eq!(
            root.subject().to_string(),
            format!("C=CH, O=SPIFFE, CN=Zürich, serialNumber={serial}")
        );
        assert_eq!(root.subject().as_raw(), root.issuer().as_raw());
        let basic = root.basic_constraints().unwrap().unwrap();
        assert!(basic.critical && basic.value.ca);
        assert_eq!(basic.value.path_len_constraint, None);
        let usage = root.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        assert_eq!(usage.value.to_string(), "Key Cert Sign, CRL Sign");
        assert!(root.extended_key_usage().unwrap().is_none());
        // Key usage, basic constraints, subject key identifier, alternative name.
        assert_eq!(root.extensions().len(), 4);
        root.verify_signature(None).unwrap();
        ca.certificates()
            .certificate()
            .check(&trust_domain(), now())
            .unwrap();
        let signed = sign(&ca, &id(), &[], hours(1)).unwrap();
        let bundle = Bundle::new(trust_domain(), [ca.certificates().root().clone()], 1).unwrap();
        assert_eq!(verify_x509_svid(&signed.chain, &bundle, now()), Ok(id()));
    }

    #[test]
    fn a_root_has_one_value_an_attribute_at_most() {
        let several = |country: &[&str], organization: &[&str]| {
            let subject = CaSubject {
                country: country.iter().map(ToString::to_string).collect(),
                organization: organization.iter().map(ToString::to_string).collect(),
                common_name: None,
            };
            let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
            CertificateAuthority::self_signed(&trust_domain(), &subject, key, now(), hours(1))
                .map(|ca| ca.certificates().certificate().subject_for_people())
        };
        let refused = |attribute| {
            Err(SignError::SeveralValues {
                attribute,
                count: 2,
            })
        };
        assert!(several(&[], &[]).unwrap().starts_with("serialNumber="));
        assert_eq!(several(&["US", "CH"], &[]), refused("country"));
        assert_eq!(several(&[], &["A", "B"]), refused("organization"));
    }

    #[test]
    fn dns_names_may_be_of_any_ascii() {
        let names = ["A_b.example.org".to_owned(), "*.x@y".to_owned()];
        let signed = sign(&usual(), &id(), &names, hours(1)).unwrap();
        let (_, leaf) = X509Certificate::from_der(&signed.chain[0]).unwrap();
        assert_eq!(
            leaf.subject().to_string(),
            "C=US, O=SPIRE, CN=A_b.example.org"
        );
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        let found = san.value.general_names.iter().map(ToString::to_string);
        let expected = ["DNSName(A_b.example.org)", "DNSName(*.x@y)"];
        assert!(found.take(2).eq(expected));
    }

    #[test]
    fn a_subject_of_the_requester_counts_unless_it_is_empty() {
        let key = PrivateKey::generate(CaKeyType::EcP256).unwrap();
        let id = id();
        let subject_of = |dns_names: &[String], subject: &Subject| {
            let request = SvidRequest {
                id: &id,
                dns_names,
                public_key: key.public_key(),
                not_before: now(),
                not_after: hours(1),
            };
            let signed = usual().sign_for(&request, Some(subject)).unwrap();
            let (_, leaf) = X509Certificate::from_der(&signed.chain[0]).unwrap();
            leaf.subject().to_string()
        };
        let asked = Subject::of([
            (rcgen::DnType::CommonName, Some("asked")),
            (rcgen::DnType::OrganizationName, Some("Org")),
        ]);
        let names = ["a.example.org".to_owned()];
        assert_eq!(subject_of(&[], &asked), "CN=asked, O=Org");
        assert_eq!(subject_of(&names, &asked), "CN=a.example.org, O=Org");
        assert_eq!(subject_of(&[], &Subject::of([])), "C=US, O=SPIRE");
    }

    #[test]
    fn roots_have_distinct_names() {
        let subjects =
            [usual(), usual()].map(|ca| ca.certificates().certificate().subject().to_vec());
        assert_ne!(subjects[0], subjects[1]);
    }

    #[test]
    fn a_leaf_never_outlives_its_issuer() {
        let signed = sign(&usual(), &id(), &[], hours(500)).unwrap();
        assert_eq!((signed.not_after, signed.capped), (hours(168), true));
        let signed = sign(&usual(), &id(), &[], hours(168)).unwrap();
        assert_eq!((signed.not_after, signed.capped), (hours(168), false));
    }

    #[test]
    fn times_are_in_whole_seconds() {
        let late = hours(1) + SignedDuration::from_millis(999);
        let signed = sign(&usual(), &id(), &[], late).unwrap();
        let (_, leaf) = X509Certificate::from_der(&signed.chain[0]).unwrap();
        assert_eq!(signed.not_after, hours(1));
        assert_eq!(leaf.validity().not_after.timestamp(), hours(1).as_second());
        assert_eq!(
            leaf.validity().not_before.timestamp(),
            signed.not_before.as_second()
        );
    }

    #[test]
    fn refuses_what_can_have_no_certificate() {
        let ca = usual();
        assert_eq!(
            sign(&ca, &id(), &[], hours(-1)),
            Err(SignError::NoLifetime {
                not_before: now(),
                not_after: hours(-1)
            })
        );
        let root_id: SpiffeId = "spiffe://example.org".parse().unwrap();
        assert_eq!(
            sign(&ca, &root_id, &[], hours(1)),
            Err(SignError::IdWithoutPath { id: root_id })
        );
        for name in [String::new(), "zürich.example.org".into(), "a".repeat(254)] {
            assert_eq!(
                sign(&ca, &id(), std::slice::from_ref(&name), hours(1)),
                Err(SignError::DnsName { name })
            );
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let ca = usual();
        let debug = format!("{ca:?}");
        let pem = ca.key().to_pem();
        let secret = pem.lines().nth(1).unwrap();
        assert!(!debug.contains(secret) && debug.contains("[elided]"));
    }
}
