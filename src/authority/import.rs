//! Importing an existing CA out of a Secret: reading it, and refusing what could not sign
//! X.509-SVIDs that verify, with a message that says what to do.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;

use super::{
    CaCertificates, CertificateAuthority, KeyError, PrivateKey, SignError, SubjectError,
    SvidRequest,
};
use crate::spiffe::{
    Bundle, BundleError, CaCertificate, CaCertificateError, PemError, SpiffeId, TrustDomainName,
    VerifyError, pem, verify_x509_svid,
};

/// Key of the Secret with the CA's certificate and then its chain.
pub const CERTIFICATE: &str = "tls.crt";
/// Key of the Secret with the private key.
pub const PRIVATE_KEY: &str = "tls.key";
/// Key of the Secret with the root, where the chain does not end in it.
pub const ROOT: &str = "ca.crt";

/// Path of the ID in the certificate that shows that the CA works; it is thrown away.
const CHECK_PATH: &str = "/spiffe-operator/import-check";

impl CertificateAuthority {
    /// Takes the CA in the data of a Secret of the type `kubernetes.io/tls`. The first certificate
    /// in `tls.crt` is the CA's; the ones above it may follow in any order there and in `ca.crt`,
    /// and must lead to a self-signed root. Certificates that are not on the way are left out.
    ///
    /// # Errors
    /// When the data does not hold a CA that can sign for `trust_domain` at `now`.
    pub fn import(
        data: &BTreeMap<String, Vec<u8>>,
        trust_domain: &TrustDomainName,
        now: Timestamp,
    ) -> Result<Self, ImportError> {
        let (certificate, others) = read_certificates(data)?;
        let key = PrivateKey::from_pem(entry(data, PRIVATE_KEY)?)
            .map_err(|source| ImportError::Key { source })?;
        Self::assemble(certificate, key, others, trust_domain, now)
    }

    /// The CA of `certificate`, of which `key` is the key; those above it are among `others`.
    pub(super) fn assemble(
        certificate: CertificateDer<'static>,
        key: PrivateKey,
        others: Vec<CertificateDer<'static>>,
        trust_domain: &TrustDomainName,
        now: Timestamp,
    ) -> Result<Self, ImportError> {
        let certificate = parse_ca(certificate)?;
        certificate
            .check(trust_domain, now)
            .map_err(|source| ImportError::Certificate { source })?;
        if key.public_key() != certificate.public_key() {
            return Err(ImportError::KeyMismatch);
        }
        let chain = chain_to_root(&certificate, others)?;
        check_chain(&chain, trust_domain, now)?;
        let ca = Self::new(CaCertificates::new(certificate, &chain), key)
            .map_err(|source| ImportError::Subject { source })?;
        check_by_signing(&ca, trust_domain, now)?;
        Ok(ca)
    }
}

/// Why the data of a Secret is no CA for a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The CA's certificate, the first in `tls.crt`, may not sign for the trust domain.
    #[error("tls.crt: {source}")]
    Certificate {
        /// What is wrong with it.
        source: CaCertificateError,
    },
    /// A certificate above the CA's may not sign for the trust domain.
    #[error("the chain above the CA: {source}")]
    Chain {
        /// What is wrong with it.
        source: CaCertificateError,
    },
    /// A certificate's issuer is not there, or is there but did not sign it.
    #[error(
        "no certificate in tls.crt or ca.crt is the issuer {issuer}; add it, and its root to ca.crt"
    )]
    IssuerMissing {
        /// The issuer's name.
        issuer: String,
    },
    /// The private key cannot be used.
    #[error("tls.key: {source}")]
    Key {
        /// What is wrong with it.
        source: KeyError,
    },
    /// The private key is not the certificate's.
    #[error("tls.key is not the key of the first certificate in tls.crt")]
    KeyMismatch,
    /// The Secret lacks an entry.
    #[error("the Secret has no {key}")]
    MissingEntry {
        /// Its name.
        key: &'static str,
    },
    /// A path length that leaves no room for the CAs below.
    #[error(
        "a certificate above the CA allows {allowed} CAs below it, and there are {count}; reissue it with a larger path length"
    )]
    PathLength {
        /// What the certificate allows.
        allowed: u32,
        /// How many there are.
        count: u32,
    },
    /// Certificates that cannot be read.
    #[error("{key}: {source}")]
    Pem {
        /// The Secret's entry.
        key: &'static str,
        /// What is wrong with it.
        source: PemError,
    },
    /// The root cannot be in a bundle.
    #[error("the root: {source}")]
    Root {
        /// What is wrong with it.
        source: BundleError,
    },
    /// The CA signs nothing.
    #[error("the CA does not sign: {source}")]
    Sign {
        /// Why.
        source: SignError,
    },
    /// The CA's subject cannot be the issuer's name in what it signs.
    #[error("tls.crt: {source}")]
    Subject {
        /// Why.
        source: SubjectError,
    },
    /// What the CA signs does not verify, for instance because of name constraints.
    #[error("X.509-SVIDs by this CA would not verify: {source}; does it have name constraints?")]
    Verify {
        /// Why.
        source: VerifyError,
    },
}

impl ImportError {
    /// A word for conditions, events and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Certificate { source } | Self::Chain { source } => match source {
                CaCertificateError::Expired { .. } => "CertificateExpired",
                CaCertificateError::NotYetValid { .. } => "CertificateNotYetValid",
                CaCertificateError::NotCa | CaCertificateError::NoCertificateSigning => "NotCA",
                CaCertificateError::OtherTrustDomain { .. } | CaCertificateError::SeveralUris => {
                    "OtherTrustDomain"
                }
                _ => "InvalidCertificate",
            },
            Self::IssuerMissing { .. } | Self::PathLength { .. } | Self::Verify { .. } => {
                "InvalidChain"
            }
            Self::Key { .. } => "InvalidKey",
            Self::KeyMismatch => "KeyMismatch",
            Self::MissingEntry { .. } => "SecretIncomplete",
            Self::Pem { .. } | Self::Root { .. } => "InvalidCertificate",
            Self::Sign { .. } => "SigningFailed",
            Self::Subject { .. } => "UnsupportedSubject",
        }
    }
}

/// The CA's certificate, and all others.
fn read_certificates(
    data: &BTreeMap<String, Vec<u8>>,
) -> Result<(CertificateDer<'static>, Vec<CertificateDer<'static>>), ImportError> {
    let read =
        |key, text| pem::certificates(text).map_err(|source| ImportError::Pem { key, source });
    let mut certificates = read(CERTIFICATE, entry(data, CERTIFICATE)?)?.into_iter();
    let Some(first) = certificates.next() else {
        return Err(ImportError::MissingEntry { key: CERTIFICATE });
    };
    let mut others: Vec<_> = certificates.collect();
    // cert-manager leaves `ca.crt` empty where it does not know the root.
    if let Some(text) = data.get(ROOT).filter(|text| !text.trim_ascii().is_empty()) {
        others.extend(read(ROOT, text)?);
    }
    Ok((first, others))
}

fn entry<'a>(
    data: &'a BTreeMap<String, Vec<u8>>,
    key: &'static str,
) -> Result<&'a [u8], ImportError> {
    data.get(key)
        .filter(|value| !value.is_empty())
        .map(Vec::as_slice)
        .ok_or(ImportError::MissingEntry { key })
}

fn parse_ca(der: CertificateDer<'static>) -> Result<CaCertificate, ImportError> {
    CaCertificate::parse(der).map_err(|source| ImportError::Certificate { source })
}

/// The certificates above `certificate`, each one's issuer after it, the root last; none above a
/// root.
fn chain_to_root(
    certificate: &CaCertificate,
    others: Vec<CertificateDer<'static>>,
) -> Result<Vec<CaCertificate>, ImportError> {
    // What is no CA's certificate is not on the way.
    let mut others: Vec<_> = others
        .into_iter()
        .filter_map(|der| CaCertificate::parse(der).ok())
        .collect();
    let mut chain: Vec<CaCertificate> = Vec::new();
    loop {
        let last = chain.last().unwrap_or(certificate);
        if last.is_self_issued() && last.is_issued_by(last) {
            return Ok(chain);
        }
        let Some(position) = others.iter().position(|ca| last.is_issued_by(ca)) else {
            return Err(ImportError::IssuerMissing {
                issuer: last.issuer_for_people(),
            });
        };
        // Each is used once, so that this ends.
        let issuer = others.swap_remove(position);
        chain.push(issuer);
    }
}

/// `chain` is what is above the CA that signs.
fn check_chain(
    chain: &[CaCertificate],
    trust_domain: &TrustDomainName,
    now: Timestamp,
) -> Result<(), ImportError> {
    for (ca, count) in chain.iter().zip(1..) {
        ca.check(trust_domain, now)
            .map_err(|source| ImportError::Chain { source })?;
        if let Some(allowed) = ca.path_length().filter(|allowed| *allowed < count) {
            return Err(ImportError::PathLength { allowed, count });
        }
    }
    Ok(())
}

/// As SPIRE does with what an upstream gives it: a leaf is signed, verified and thrown away.
fn check_by_signing(
    ca: &CertificateAuthority,
    trust_domain: &TrustDomainName,
    now: Timestamp,
) -> Result<(), ImportError> {
    let id: SpiffeId = format!("{}{CHECK_PATH}", trust_domain.id())
        .parse()
        .map_err(|_| ImportError::Verify {
            source: VerifyError::Malformed,
        })?;
    let signed = ca
        .sign(&SvidRequest {
            id: &id,
            dns_names: &[],
            public_key: ca.key().public_key(),
            not_before: now,
            not_after: now
                .saturating_add(SignedDuration::from_secs(1))
                .unwrap_or(now),
        })
        .map_err(|error| match error {
            SignError::Subject { source } => ImportError::Subject { source },
            source => ImportError::Sign { source },
        })?;
    let bundle = Bundle::new(trust_domain.clone(), [ca.certificates().root().clone()], 0)
        .map_err(|source| ImportError::Root { source })?;
    match verify_x509_svid(&signed.chain, &bundle, now) {
        Ok(_) => Ok(()),
        Err(source) => Err(ImportError::Verify { source }),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, GeneralSubtree, IsCa, NameConstraints};
    use x509_parser::{
        certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer,
    };

    use super::*;
    use crate::{
        authority::fixtures::{
            Foreign, NOW, ca_params, issued_by, key, now, root, secret, trust_domain, with_uri,
        },
        spiffe::verify_x509_svid,
    };

    fn import(data: &BTreeMap<String, Vec<u8>>) -> Result<CertificateAuthority, ImportError> {
        CertificateAuthority::import(data, &trust_domain(), now())
    }

    fn only(ca: &Foreign) -> BTreeMap<String, Vec<u8>> {
        secret(&[ca], ca.key(), &[])
    }

    fn error(data: &BTreeMap<String, Vec<u8>>) -> (ImportError, &'static str) {
        let error = import(data).unwrap_err();
        let reason = error.reason();
        (error, reason)
    }

    fn below(constraint: BasicConstraints, name: &str) -> CertificateParams {
        let mut params = ca_params(name);
        params.is_ca = IsCa::Ca(constraint);
        params
    }

    /// An X.509-SVID by `ca` verifies by its root alone; the chain has `length` certificates.
    fn assert_signs(ca: &CertificateAuthority, length: usize) {
        let id: SpiffeId = "spiffe://example.org/ns/a/sa/b".parse().unwrap();
        let signed = ca
            .sign(&SvidRequest {
                id: &id,
                dns_names: &[],
                public_key: ca.key().public_key(),
                not_before: now(),
                not_after: now() + SignedDuration::from_hours(1),
            })
            .unwrap();
        assert_eq!(signed.chain.len(), length);
        let (_, leaf) = X509Certificate::from_der(&signed.chain[0]).unwrap();
        let authority_key_id = leaf.iter_extensions().find_map(|extension| {
            let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() else {
                return None;
            };
            id.key_identifier.as_ref().map(|id| id.0)
        });
        let key_id = ca.certificates().certificate().key_id();
        assert_eq!(authority_key_id, Some(key_id.as_bytes()));
        let roots = [ca.certificates().root().clone()];
        let bundle = Bundle::new(trust_domain(), roots, 1).unwrap();
        assert_eq!(verify_x509_svid(&signed.chain, &bundle, now()), Ok(id));
    }

    #[test]
    fn takes_a_self_signed_ca() {
        let ca = root(with_uri(ca_params("root"), "spiffe://example.org"));
        assert_signs(&import(&only(&ca)).unwrap(), 1);
        // cert-manager repeats the root in ca.crt.
        assert_signs(&import(&secret(&[&ca], ca.key(), &[&ca])).unwrap(), 1);
    }

    #[test]
    fn takes_intermediates_in_any_order() {
        let root = root(ca_params("root"));
        let upper = issued_by(&root, below(BasicConstraints::Constrained(1), "upper"));
        let lower = issued_by(&upper, below(BasicConstraints::Constrained(0), "lower"));
        for (chain, roots) in [
            (vec![&lower, &upper], vec![&root]),
            (vec![&lower, &upper, &root], vec![]),
            (vec![&lower, &root, &upper], vec![&root]),
            (vec![&lower], vec![&root, &upper]),
        ] {
            let ca = import(&secret(&chain, lower.key(), &roots)).unwrap();
            assert_signs(&ca, 3);
            assert_eq!(ca.certificates().root(), root.der());
        }
    }

    #[test]
    fn takes_names_of_several_string_types() {
        let mut params = ca_params("root");
        let dn = &mut params.distinguished_name;
        dn.push(
            rcgen::DnType::CountryName,
            rcgen::DnValue::PrintableString("CH".try_into().unwrap()),
        );
        dn.push(
            rcgen::DnType::OrganizationName,
            rcgen::DnValue::TeletexString("Old".try_into().unwrap()),
        );
        let top = root(params);
        let ca = issued_by(&top, ca_params("Zürich"));
        assert_signs(&import(&secret(&[&ca], ca.key(), &[&top])).unwrap(), 2);
    }

    #[test]
    fn takes_a_ca_without_a_key_identifier() {
        let mut params = ca_params("root");
        params.is_ca = IsCa::NoCa;
        let ca_true = vec![0x30, 3, 1, 1, 0xff];
        let constraints = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 19], ca_true);
        params.custom_extensions = vec![constraints];
        params.use_authority_key_identifier_extension = false;
        let ca = import(&only(&root(params))).unwrap();
        assert_signs(&ca, 1);
        assert_eq!(
            ca.certificates().certificate().key_id().as_bytes().len(),
            20
        );
    }

    #[test]
    fn refuses_subjects_that_cannot_be_copied() {
        let value = |text: &str| rcgen::DnValue::Utf8String(text.to_owned());
        for (attribute, shown) in [
            // The common name again, under its number.
            (vec![2, 5, 4, 3], "CN=root, CN=other"),
            // An arc that does not fit into one byte with the first.
            (vec![2, 999, 1], "CN=root, OID(3.16.55.1)=other"),
        ] {
            let mut params = ca_params("root");
            params
                .distinguished_name
                .push(rcgen::DnType::CustomDnType(attribute), value("other"));
            let (found, reason) = error(&only(&root(params)));
            let subject = shown.to_owned();
            let source = SubjectError { subject };
            assert_eq!(found, ImportError::Subject { source });
            assert_eq!(reason, "UnsupportedSubject");
        }
    }

    #[test]
    fn says_which_entry_is_missing() {
        let ca = root(ca_params("root"));
        for key in ["tls.crt", "tls.key"] {
            let mut data = only(&ca);
            data.remove(key);
            let missing = (ImportError::MissingEntry { key }, "SecretIncomplete");
            assert_eq!(error(&data), missing);
            data.insert(key.to_owned(), Vec::new());
            assert_eq!(error(&data), missing);
        }
    }

    #[test]
    fn refuses_what_is_no_pem() {
        let ca = root(ca_params("root"));
        for key in ["tls.crt", "ca.crt"] {
            let mut data = only(&ca);
            data.insert(key.to_owned(), b"not PEM".to_vec());
            let source = PemError::NoCertificate;
            assert_eq!(
                error(&data),
                (ImportError::Pem { key, source }, "InvalidCertificate")
            );
        }
    }

    #[test]
    fn refuses_keys_that_do_not_fit() {
        let ca = root(ca_params("root"));
        let other = secret(&[&ca], &key(), &[]);
        assert_eq!(error(&other), (ImportError::KeyMismatch, "KeyMismatch"));
        let mut none = only(&ca);
        none.insert("tls.key".to_owned(), ca.pem().into_bytes());
        let source = KeyError::Missing;
        assert_eq!(error(&none), (ImportError::Key { source }, "InvalidKey"));
    }

    #[test]
    fn refuses_certificates_that_may_not_sign() {
        let mut leaf = ca_params("leaf");
        leaf.is_ca = IsCa::ExplicitNoCa;
        let mut no_usage = ca_params("no usage");
        no_usage.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        let mut expired = ca_params("expired");
        expired.not_after = time::OffsetDateTime::from_unix_timestamp(NOW - 1).unwrap();
        let mut future = ca_params("future");
        future.not_before = time::OffsetDateTime::from_unix_timestamp(NOW + 1).unwrap();
        let second = |by| Timestamp::from_second(NOW + by).unwrap();
        let uri = |uri| with_uri(ca_params("uri"), uri);
        let other = |found: &str| CaCertificateError::OtherTrustDomain {
            found: found.to_owned(),
            expected: "spiffe://example.org".to_owned(),
        };
        for (params, source, reason) in [
            (leaf, CaCertificateError::NotCa, "NotCA"),
            (no_usage, CaCertificateError::NoCertificateSigning, "NotCA"),
            (
                expired,
                CaCertificateError::Expired {
                    not_after: second(-1),
                },
                "CertificateExpired",
            ),
            (
                future,
                CaCertificateError::NotYetValid {
                    not_before: second(1),
                },
                "CertificateNotYetValid",
            ),
            (
                uri("spiffe://other.org"),
                other("spiffe://other.org"),
                "OtherTrustDomain",
            ),
            (
                uri("spiffe://example.org/a"),
                other("spiffe://example.org/a"),
                "OtherTrustDomain",
            ),
            (
                with_uri(uri("spiffe://example.org"), "spiffe://example.org"),
                CaCertificateError::SeveralUris,
                "OtherTrustDomain",
            ),
        ] {
            let ca = root(params);
            assert_eq!(
                error(&only(&ca)),
                (ImportError::Certificate { source }, reason)
            );
        }
    }

    #[test]
    fn refuses_chains_that_do_not_reach_a_root() {
        let top = root(ca_params("root"));
        let ca = issued_by(&top, ca_params("ca"));
        // Of the same name, but another key.
        let impostor = root(ca_params("root"));
        for roots in [vec![], vec![&impostor]] {
            let (found, reason) = error(&secret(&[&ca], ca.key(), &roots));
            let issuer = "CN=root".to_owned();
            assert_eq!(found, ImportError::IssuerMissing { issuer });
            assert_eq!(reason, "InvalidChain");
        }
    }

    #[test]
    fn refuses_chains_above_that_may_not_sign() {
        let mut params = ca_params("root");
        params.not_after = time::OffsetDateTime::from_unix_timestamp(NOW - 1).unwrap();
        let top = root(params);
        let ca = issued_by(&top, ca_params("ca"));
        let (found, reason) = error(&secret(&[&ca], ca.key(), &[&top]));
        let source = CaCertificateError::Expired {
            not_after: Timestamp::from_second(NOW - 1).unwrap(),
        };
        assert_eq!(found, ImportError::Chain { source });
        assert_eq!(reason, "CertificateExpired");
    }

    #[test]
    fn refuses_an_exhausted_path_length() {
        let top = root(below(BasicConstraints::Constrained(0), "root"));
        let ca = issued_by(&top, ca_params("ca"));
        let data = secret(&[&ca], ca.key(), &[&top]);
        let path_length = ImportError::PathLength {
            allowed: 0,
            count: 1,
        };
        assert_eq!(error(&data), (path_length, "InvalidChain"));
    }

    #[test]
    fn refuses_name_constraints_that_forbid_svids() {
        let mut params = ca_params("root");
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DirectoryName(
                ca_params("other").distinguished_name,
            )],
            excluded_subtrees: Vec::new(),
        });
        let top = root(params);
        let ca = issued_by(&top, ca_params("ca"));
        let (found, reason) = error(&secret(&[&ca], ca.key(), &[&top]));
        assert!(matches!(found, ImportError::Verify { .. }), "{found}");
        assert_eq!(reason, "InvalidChain");
    }

    #[test]
    fn nothing_signed_outlives_a_certificate_above_the_ca() {
        let until = |name: &str, hours: i64| {
            let mut params = ca_params(name);
            let end = NOW + hours * 3600;
            params.not_after = time::OffsetDateTime::from_unix_timestamp(end).unwrap();
            params
        };
        for (root_hours, middle_hours, ca_hours) in [(3, 9, 9), (9, 3, 9), (9, 9, 3)] {
            let top = root(until("root", root_hours));
            let middle = issued_by(&top, until("middle", middle_hours));
            let lowest = issued_by(&middle, until("ca", ca_hours));
            let data = secret(&[&lowest, &middle], lowest.key(), &[&top]);
            let ca = import(&data).unwrap();
            let end = now() + SignedDuration::from_hours(3);
            assert_eq!(ca.not_after(), end);
            let signed = ca
                .sign(&SvidRequest {
                    id: &"spiffe://example.org/a".parse().unwrap(),
                    dns_names: &[],
                    public_key: ca.key().public_key(),
                    not_before: now(),
                    not_after: now() + SignedDuration::from_hours(6),
                })
                .unwrap();
            assert_eq!((signed.not_after, signed.capped), (end, true));
            let bundle = Bundle::new(trust_domain(), [top.der().clone()], 1).unwrap();
            let last = end - SignedDuration::from_secs(1);
            assert!(verify_x509_svid(&signed.chain, &bundle, last).is_ok());
        }
    }
}
