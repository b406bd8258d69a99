//! What every certificate has (RFC 5280 §4.1), in the terms of `rcgen`, which writes them. What else
//! is in them is for the profiles: [`super::X509SvidProfile`] and [`super::CaProfile`].

use aws_lc_rs::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyIdMethod};
use time::OffsetDateTime;

use super::PublicKey;

/// The serial number of a certificate: 128 random bits, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialNumber(u128);

impl SerialNumber {
    /// A new one from the operating system's randomness.
    ///
    /// # Errors
    /// When that has none to give.
    pub fn random() -> Result<Self, RandomnessError> {
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| RandomnessError)?;
        // Zero is as likely as any other number, and the only one that is not allowed.
        Ok(Self(u128::from_be_bytes(bytes).max(1)))
    }
}

impl std::fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The operating system gave no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random numbers")]
pub struct RandomnessError;

/// A certificate for `public_key`, still without subject, names and purpose.
pub(crate) fn params(
    serial: SerialNumber,
    not_before: Timestamp,
    not_after: Timestamp,
    public_key: &PublicKey,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial.0.to_be_bytes().to_vec().into());
    params.not_before = whole_seconds(not_before)?;
    params.not_after = whole_seconds(not_after)?;
    params.key_identifier_method = KeyIdMethod::PreSpecified(public_key.key_id().0);
    Ok(params)
}

/// SHA-256 of a certificate, which names it beyond doubt.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        Self(bytes)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

fn whole_seconds(time: Timestamp) -> Result<OffsetDateTime, rcgen::Error> {
    OffsetDateTime::from_unix_timestamp(time.as_second()).map_err(|_| rcgen::Error::Time)
}
