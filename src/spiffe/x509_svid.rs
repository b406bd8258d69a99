//! The profile of X.509-SVIDs: what a leaf certificate says, as SPIRE 1.15 has it for agents,
//! servers and workloads (`pkg/server/credtemplate/builder.go`).

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};

use super::{PublicKey, SerialNumber, SpiffeId, Subject, certificate::params};

/// What the certificate of a workload, agent or server says.
#[derive(Clone, Copy, Debug)]
pub struct X509SvidProfile<'a> {
    /// The identity, the only URI among the alternative names.
    pub id: &'a SpiffeId,
    /// The subject, where it is not SPIRE's usual one.
    pub subject: Option<&'a Subject>,
    /// DNS names in the order in which they are listed; the first is the common name, too.
    pub dns_names: &'a [String],
    /// The holder's key.
    pub public_key: &'a PublicKey,
    /// The serial number.
    pub serial: SerialNumber,
    /// Start of validity; fractions of a second are dropped.
    pub not_before: Timestamp,
    /// End of validity; fractions of a second are dropped.
    pub not_after: Timestamp,
}

impl X509SvidProfile<'_> {
    /// What an issuer signs.
    pub(crate) fn params(self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = params(
            self.serial,
            self.not_before,
            self.not_after,
            self.public_key,
        )?;
        let subject = self.subject.cloned().unwrap_or_else(|| {
            Subject::of([
                (DnType::CountryName, Some("US")),
                (DnType::OrganizationName, Some("SPIRE")),
            ])
        });
        let subject = match self.dns_names.first() {
            Some(first) => subject.with(DnType::CommonName, first),
            None => subject,
        };
        params.distinguished_name = subject.into_name();
        for dns_name in self.dns_names {
            let dns_name = dns_name.as_str().try_into()?;
            params.subject_alt_names.push(SanType::DnsName(dns_name));
        }
        let uri = self.id.as_str().try_into()?;
        params.subject_alt_names.push(SanType::URI(uri));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyAgreement,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}
