//! A CA that signs: its certificate, the chain above it and its key.
//!
//! Invariants: the key is the certificate's; the chain leads, link by link, from the certificate to
//! the root; nothing that it signs outlives it. Where a CA comes from: [`CertificateAuthority::self_signed`]
//! here, and an imported one in [`super::import`].

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::{KeyError, PrivateKey};
use crate::{
    api::CaSubject,
    spiffe::{
        CaCertificate, CaCertificateError, CaProfile, PublicKey, RandomnessError, SerialNumber,
        SpiffeId, TrustDomainName, VerifyError, X509SvidProfile, certificate, check_x509_svid, pem,
    },
};

/// Longest DNS name in text (RFC 1035 §2.3.4).
const MAX_DNS_NAME_LENGTH: usize = 253;

/// A CA with its key.
#[derive(Debug)]
pub struct CertificateAuthority {
    certificates: CaCertificates,
    key: PrivateKey,
}

/// The certificates of a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaCertificates {
    certificate: CaCertificate,
    /// Between the CA and the root.
    intermediates: Vec<CertificateDer<'static>>,
    /// The CA itself, where it is self-signed.
    root: CertificateDer<'static>,
}

impl CaCertificates {
    pub(super) fn new(
        certificate: CaCertificate,
        intermediates: Vec<CertificateDer<'static>>,
        root: CertificateDer<'static>,
    ) -> Self {
        Self {
            certificate,
            intermediates,
            root,
        }
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
        let to_be_signed = CaProfile {
            trust_domain,
            country: &subject.country,
            organization: &subject.organization,
            common_name: subject.common_name.as_deref(),
            public_key: key.public_key(),
            serial: SerialNumber::random()?,
            not_before,
            not_after,
        }
        .to_be_signed(key.algorithm());
        let root = certificate::signed(&to_be_signed, key.algorithm(), &key.sign(&to_be_signed)?);
        let certificate =
            CaCertificate::parse(root.clone()).map_err(|source| SignError::Profile { source })?;
        Ok(Self::new(
            CaCertificates::new(certificate, Vec::new(), root),
            key,
        ))
    }

    /// `key` is that of the certificate.
    pub(super) fn new(certificates: CaCertificates, key: PrivateKey) -> Self {
        Self { certificates, key }
    }

    /// Its certificates.
    #[must_use]
    pub fn certificates(&self) -> &CaCertificates {
        &self.certificates
    }

    /// Its key, for the one Secret that keeps it.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// End of its validity, and so of everything that it signs.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.certificates.certificate.not_after()
    }

    /// Signs an X.509-SVID. The caller answers for the identity being the requester's.
    ///
    /// # Errors
    /// When the request can have no certificate under this CA, or signing fails.
    pub fn sign(&self, request: &SvidRequest<'_>) -> Result<SignedSvid, SignError> {
        check_names(request)?;
        let issuer = &self.certificates.certificate;
        let not_before = whole_seconds(request.not_before);
        let wanted = whole_seconds(request.not_after);
        let not_after = wanted.min(issuer.not_after());
        if not_after <= not_before {
            return Err(SignError::NoLifetime {
                not_before,
                not_after,
            });
        }
        let serial = SerialNumber::random()?;
        let algorithm = self.key.algorithm();
        let to_be_signed = X509SvidProfile {
            id: request.id,
            dns_names: request.dns_names,
            public_key: request.public_key,
            serial,
            not_before,
            not_after,
        }
        .to_be_signed(issuer.subject(), issuer.key_id(), algorithm);
        let leaf = certificate::signed(&to_be_signed, algorithm, &self.key.sign(&to_be_signed)?);
        check_leaf(&leaf, request.id)?;
        Ok(SignedSvid {
            chain: std::iter::once(leaf)
                .chain(self.certificates.below_root().cloned())
                .collect(),
            serial,
            not_before,
            not_after,
            capped: not_after < wanted,
        })
    }
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// A DNS name that cannot be in a certificate.
    #[error("{name:?} cannot be in a certificate; a DNS name is ASCII of at most 253 characters")]
    DnsName {
        /// The name.
        name: String,
    },
    /// The ID of a trust domain, which only its CAs carry.
    #[error("{id} has no path, and so is no workload's identity")]
    IdWithoutPath {
        /// The ID.
        id: SpiffeId,
    },
    /// The key made no signature.
    #[error("signing failed: {source}")]
    Key {
        /// What the key said.
        source: KeyError,
    },
    /// The certificate that came out is no X.509-SVID for the request.
    #[error("the signed certificate is not what was asked for: {source}")]
    Leaf {
        /// What is wrong with it.
        source: VerifyError,
    },
    /// The validity would end before it begins, as under a CA that has expired.
    #[error("the certificate would end at {not_after}, before it begins at {not_before}")]
    NoLifetime {
        /// When it would begin.
        not_before: Timestamp,
        /// When it would end.
        not_after: Timestamp,
    },
    /// The CA certificate that came out is none.
    #[error("the CA certificate is not what was asked for: {source}")]
    Profile {
        /// What is wrong with it.
        source: CaCertificateError,
    },
    /// No serial number.
    #[error("there is no serial number: {source}")]
    Randomness {
        /// Why.
        source: RandomnessError,
    },
}

impl From<KeyError> for SignError {
    fn from(source: KeyError) -> Self {
        Self::Key { source }
    }
}

impl From<RandomnessError> for SignError {
    fn from(source: RandomnessError) -> Self {
        Self::Randomness { source }
    }
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

/// What SPIRE checks of each certificate before it leaves the server.
fn check_leaf(leaf: &CertificateDer<'_>, id: &SpiffeId) -> Result<(), SignError> {
    match check_x509_svid(leaf) {
        Ok(found) if found == *id => Ok(()),
        Ok(found) => Err(SignError::Leaf {
            source: VerifyError::Uri {
                uri: found.to_string(),
            },
        }),
        Err(source) => Err(SignError::Leaf { source }),
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
