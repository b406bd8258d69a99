//! CA certificates: the profile of those that we make (SPIRE 1.15's), and what must hold of any
//! that signs for a trust domain (X509-SVID §4 and §5, SPIRE's `credvalidator`).

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use super::{
    Fingerprint, KeyId, PublicKey, SerialNumber, Subject, TrustDomainName, certificate::params,
    subject::SERIAL_NUMBER,
};

/// What a self-signed CA certificate says.
#[derive(Clone, Copy, Debug)]
pub struct CaProfile<'a> {
    /// The trust domain; its ID is the only alternative name.
    pub trust_domain: &'a TrustDomainName,
    /// Country in the subject.
    pub country: Option<&'a str>,
    /// Organization in the subject.
    pub organization: Option<&'a str>,
    /// Common name in the subject.
    pub common_name: Option<&'a str>,
    /// The CA's key.
    pub public_key: &'a PublicKey,
    /// The serial number. It is in the subject, too: Go's verifier gives up when many roots share
    /// one name (SPIRE issue 4415).
    pub serial: SerialNumber,
    /// Start of validity; fractions of a second are dropped.
    pub not_before: Timestamp,
    /// End of validity; fractions of a second are dropped.
    pub not_after: Timestamp,
}

impl CaProfile<'_> {
    /// What the CA's own key signs.
    pub(crate) fn params(self) -> Result<CertificateParams, rcgen::Error> {
        let params = params(
            self.serial,
            self.not_before,
            self.not_after,
            self.public_key,
        )?;
        let serial = self.serial.to_string();
        let subject = Subject::of([
            (DnType::CountryName, self.country),
            (DnType::OrganizationName, self.organization),
            (DnType::CommonName, self.common_name),
            (DnType::from_oid(SERIAL_NUMBER), Some(&serial)),
        ]);
        with_profile(params, subject, self.trust_domain)
    }
}

/// What the CA certificate of a server below ours says.
#[derive(Clone, Copy, Debug)]
pub struct DownstreamCaProfile<'a> {
    /// The trust domain; its ID is the only alternative name.
    pub trust_domain: &'a TrustDomainName,
    /// The CA above, of which it has the subject.
    pub issuer: &'a CaCertificate,
    /// How many CAs there are above it, the root not counted unless it is the only one.
    pub depth: usize,
    /// The CA's key.
    pub public_key: &'a PublicKey,
    /// The serial number, in the subject as in [`CaProfile::serial`].
    pub serial: SerialNumber,
    /// Start of validity; fractions of a second are dropped.
    pub not_before: Timestamp,
    /// End of validity; fractions of a second are dropped.
    pub not_after: Timestamp,
}

impl DownstreamCaProfile<'_> {
    /// What an issuer signs.
    pub(crate) fn params(self) -> Result<CertificateParams, rcgen::Error> {
        let params = params(
            self.serial,
            self.not_before,
            self.not_after,
            self.public_key,
        )?;
        let unit = format!("DOWNSTREAM-{}", self.depth);
        let subject = self
            .issuer
            .parsed_subject()?
            .downstream(&unit, &self.serial.to_string());
        let mut params = with_profile(params, subject, self.trust_domain)?;
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

fn with_profile(
    mut params: CertificateParams,
    subject: Subject,
    trust_domain: &TrustDomainName,
) -> Result<CertificateParams, rcgen::Error> {
    params.distinguished_name = subject.into_name();
    let uri = trust_domain.id().try_into()?;
    params.subject_alt_names.push(SanType::URI(uri));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A certificate that may sign certificates, with what we need to know of it at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaCertificate {
    der: CertificateDer<'static>,
    fingerprint: Fingerprint,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    key_id: KeyId,
    public_key: PublicKey,
    not_before: Timestamp,
    not_after: Timestamp,
    path_length: Option<u32>,
    uris: Vec<String>,
}

impl CaCertificate {
    /// Reads a certificate and checks that it is one of a CA: basic constraints say so, and the
    /// key usage allows to sign certificates (X509-SVID §4.1 and §4.3). Further key usages, which
    /// cert-manager adds by default, are let pass.
    ///
    /// # Errors
    /// When it is not.
    pub fn parse(der: CertificateDer<'static>) -> Result<Self, CaCertificateError> {
        let Ok(([], parsed)) = X509Certificate::from_der(&der) else {
            return Err(CaCertificateError::Malformed);
        };
        let path_length = match parsed.basic_constraints() {
            Ok(Some(basic)) if basic.value.ca => basic.value.path_len_constraint,
            _ => return Err(CaCertificateError::NotCa),
        };
        match parsed.key_usage() {
            Ok(Some(usage)) if usage.value.key_cert_sign() => {}
            _ => return Err(CaCertificateError::NoCertificateSigning),
        }
        let public_key = PublicKey::from_spki(parsed.public_key().raw).map_err(|error| {
            CaCertificateError::UnsupportedKey {
                message: error.to_string(),
            }
        })?;
        let time =
            |seconds| Timestamp::from_second(seconds).map_err(|_| CaCertificateError::Malformed);
        let validity = parsed.validity();
        Ok(Self {
            fingerprint: Fingerprint::of(&der),
            subject: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
            // In place of a missing one what rcgen names the issuer by.
            key_id: subject_key_id(&parsed)
                .unwrap_or_else(|| KeyId(CertificateParams::default().key_identifier(&public_key))),
            public_key,
            not_before: time(validity.not_before.timestamp())?,
            not_after: time(validity.not_after.timestamp())?,
            path_length,
            uris: uris(&parsed)?,
            der,
        })
    }

    /// Checks what depends on the trust domain and the time: a URI in the certificate must be the
    /// trust domain's ID (X509-SVID §3.1: a signing certificate's ID has no path), and the
    /// certificate must be valid at `now`.
    ///
    /// # Errors
    /// When either does not hold.
    pub fn check(
        &self,
        trust_domain: &TrustDomainName,
        now: Timestamp,
    ) -> Result<(), CaCertificateError> {
        let expected = trust_domain.id();
        if let Some(found) = self.uris.iter().find(|uri| **uri != expected) {
            return Err(CaCertificateError::OtherTrustDomain {
                found: found.clone(),
                expected,
            });
        }
        if self.uris.len() > 1 {
            return Err(CaCertificateError::SeveralUris);
        }
        if now > self.not_after {
            return Err(CaCertificateError::Expired {
                not_after: self.not_after,
            });
        }
        if now < self.not_before {
            return Err(CaCertificateError::NotYetValid {
                not_before: self.not_before,
            });
        }
        Ok(())
    }

    /// Whether `issuer` has the name that this certificate gives as its issuer's, and signed it.
    #[must_use]
    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        self.issuer == issuer.subject
            && X509Certificate::from_der(&self.der).is_ok_and(|(_, parsed)| {
                issuer.public_key.verifies(
                    &parsed.signature_algorithm,
                    parsed.tbs_certificate.as_ref(),
                    &parsed.signature_value.data,
                )
            })
    }

    /// Its subject, to be written anew.
    fn parsed_subject(&self) -> Result<Subject, rcgen::Error> {
        let parsed = X509Certificate::from_der(&self.der).ok();
        parsed
            .and_then(|(_, parsed)| Subject::read(parsed.subject()).ok())
            .ok_or(rcgen::Error::CouldNotParseCertificate)
    }

    /// Whether it names itself as its issuer.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// The certificate.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Its fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The subject's name in DER.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// Its subject key identifier, which what it signs has as that of its authority; where it has
    /// none, one of RFC 7093 §2.
    #[must_use]
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// Its key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Start of its validity.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// End of its validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// How many CA certificates may stand between it and a leaf; any number if none.
    #[must_use]
    pub fn path_length(&self) -> Option<u32> {
        self.path_length
    }

    /// The issuer's name for people.
    #[must_use]
    pub fn issuer_for_people(&self) -> String {
        X509Certificate::from_der(&self.der)
            .map_or_else(|_| String::new(), |(_, parsed)| parsed.issuer().to_string())
    }

    /// The subject's name for people.
    #[must_use]
    pub fn subject_for_people(&self) -> String {
        X509Certificate::from_der(&self.der).map_or_else(
            |_| String::new(),
            |(_, parsed)| parsed.subject().to_string(),
        )
    }
}

/// Why a certificate may not sign for a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CaCertificateError {
    /// Its validity is over.
    #[error("the certificate expired at {not_after}; renew it")]
    Expired {
        /// When that was.
        not_after: Timestamp,
    },
    /// No certificate of X.509 version 3.
    #[error("the certificate is not well-formed")]
    Malformed,
    /// The key usage does not allow to sign certificates, or is missing.
    #[error("the certificate's key usage lacks keyCertSign; issue it with the usage \"cert sign\"")]
    NoCertificateSigning,
    /// Basic constraints do not say CA, or are missing.
    #[error("the certificate is not one of a CA; issue it with CA:TRUE (cert-manager: isCA: true)")]
    NotCa,
    /// Its validity has not begun.
    #[error("the certificate is not valid before {not_before}")]
    NotYetValid {
        /// When it begins.
        not_before: Timestamp,
    },
    /// A URI that is not the trust domain's ID.
    #[error("the certificate is for {found}; one for {expected}, or one without a URI, is needed")]
    OtherTrustDomain {
        /// The URI.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// More than one URI.
    #[error("the certificate has more than one URI")]
    SeveralUris,
    /// A key that we cannot use.
    #[error("the certificate's key cannot be used: {message}")]
    UnsupportedKey {
        /// What is wrong with it.
        message: String,
    },
}

fn subject_key_id(certificate: &X509Certificate<'_>) -> Option<KeyId> {
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(KeyId(id.0.to_vec())),
            _ => None,
        })
}

pub(crate) fn uris(certificate: &X509Certificate<'_>) -> Result<Vec<String>, CaCertificateError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| CaCertificateError::Malformed)?;
    Ok(names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .collect())
}
