//! The profile of X.509-SVIDs: what a leaf certificate says, as SPIRE 1.15 has it for agents,
//! servers and workloads (`pkg/server/credtemplate/builder.go`).

use jiff::Timestamp;

use super::{
    KeyId, PublicKey, SerialNumber, SpiffeId,
    certificate::{
        COMMON_NAME, COUNTRY, ORGANIZATION, Purpose, SignatureAlgorithm, ToBeSigned, name,
    },
};

/// What the certificate of a workload, agent or server says.
#[derive(Clone, Copy, Debug)]
pub struct X509SvidProfile<'a> {
    /// The identity, the only URI among the alternative names.
    pub id: &'a SpiffeId,
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
    /// The bytes that an issuer signs. `issuer` is its name in DER.
    pub(crate) fn to_be_signed(
        self,
        issuer: &[u8],
        issuer_key_id: &KeyId,
        algorithm: SignatureAlgorithm,
    ) -> Vec<u8> {
        let common_name = self.dns_names.first().map(String::as_str);
        ToBeSigned {
            serial: self.serial,
            algorithm,
            issuer,
            not_before: self.not_before,
            not_after: self.not_after,
            subject: &name(&[
                (COUNTRY, &["US"]),
                (ORGANIZATION, &["SPIRE"]),
                (COMMON_NAME, common_name.as_slice()),
            ]),
            public_key: self.public_key,
            purpose: Purpose::Leaf,
            authority_key_id: Some(issuer_key_id),
            uri: self.id.as_str(),
            dns_names: self.dns_names,
        }
        .to_der()
    }
}
