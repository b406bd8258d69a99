//! PEM (RFC 7468): reading certificates out of files that people and tools wrote, and writing them.
//!
//! Text around the blocks, any line ends, and blocks of other kinds are passed over, as everywhere.

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls_pki_types::{
    CertificateDer,
    pem::{Error, PemObject},
};

const LINE_LENGTH: usize = 64;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why text holds no certificates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// A block that does not decode.
    #[error("a PEM block does not decode; is the file cut off, or a line damaged?")]
    Malformed,
    /// No block at all.
    #[error("there is no block that starts with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
}

/// The certificates in `pem`, in order: at least one.
///
/// # Errors
/// When a block does not decode or there is none.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates = CertificateDer::pem_slice_iter(without_byte_order_mark(pem))
        .collect::<Result<Vec<_>, Error>>()
        .map_err(|_| PemError::Malformed)?;
    if certificates.is_empty() {
        return Err(PemError::NoCertificate);
    }
    Ok(certificates)
}

/// `der` as one block with `label`.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let base64 = zeroize::Zeroizing::new(BASE64_STANDARD.encode(der));
    let mut pem = String::with_capacity(base64.len() + base64.len() / LINE_LENGTH + 80);
    pem.extend(["-----BEGIN ", label, "-----\n"]);
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE_LENGTH));
        pem.extend([line, "\n"]);
        rest = after;
    }
    pem.extend(["-----END ", label, "-----\n"]);
    pem
}

/// `certificates` as one block after another.
pub fn encode_certificates<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> String {
    certificates
        .into_iter()
        .map(|certificate| encode("CERTIFICATE", certificate))
        .collect()
}

pub(crate) fn without_byte_order_mark(pem: &[u8]) -> &[u8] {
    pem.strip_prefix(BYTE_ORDER_MARK).unwrap_or(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(byte: u8) -> CertificateDer<'static> {
        CertificateDer::from(vec![byte; 100])
    }

    #[test]
    fn reads_what_it_writes() {
        let written = encode_certificates([&der(1), &der(2)]);
        assert!(written.lines().all(|line| line.len() <= LINE_LENGTH));
        assert_eq!(certificates(written.as_bytes()), Ok(vec![der(1), der(2)]));
    }

    #[test]
    fn reads_the_weirdest_files() {
        let block = encode("CERTIFICATE", &der(1));
        for text in [
            block.replace('\n', "\r\n"),
            format!("\u{feff}{block}"),
            format!("Bag Attributes\n    friendlyName: ca\nsubject=CN = ca\n{block}trailing"),
            format!("{}{block}", encode("PRIVATE KEY", &[3; 10])),
            block.trim_end().to_owned(),
        ] {
            assert_eq!(certificates(text.as_bytes()), Ok(vec![der(1)]), "{text}");
        }
    }

    #[test]
    fn refuses_files_without_certificates() {
        for text in [
            "",
            "hello",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            assert_eq!(certificates(text.as_bytes()), Err(PemError::NoCertificate));
        }
    }

    #[test]
    fn refuses_damaged_files() {
        let block = encode("CERTIFICATE", &der(1));
        for text in [&block[..block.len() - 20], &block.replace("AQEB", "!QEB")] {
            assert_eq!(certificates(text.as_bytes()), Err(PemError::Malformed));
        }
    }
}
