//! What an agent sends for `x509pop`: its certificate and the chain above it, in JSON. Pure.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Deserializer};
use tonic::{Code, Status};

use super::decide::NAME;
use crate::server::attestation::refusal;

/// Most certificates between the leaf and a root, as in SPIRE.
const MAX_INTERMEDIATES: usize = 4;

/// Bytes as Go writes them in JSON; `null` is none.
#[derive(Debug, Default)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        let bytes = BASE64_STANDARD.decode(text);
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

#[derive(Deserialize)]
struct AttestationData {
    #[serde(default)]
    certificates: Option<Vec<Bytes>>,
}

/// The certificates in `payload`: at least one, the leaf first.
pub(super) fn certificates(payload: &[u8]) -> Result<Vec<CertificateDer<'static>>, Status> {
    let refused = |message: String| refusal(NAME, Code::InvalidArgument, message);
    let data: AttestationData = serde_json::from_slice(payload)
        .map_err(|error| refused(format!("failed to unmarshal data: {error}")))?;
    let certificates = data.certificates.unwrap_or_default();
    if certificates.is_empty() {
        return Err(refused("no certificate to attest".into()));
    }
    if certificates.len() > MAX_INTERMEDIATES + 1 {
        return Err(refused("too many intermediate certificates".into()));
    }
    Ok(certificates.into_iter().map(|it| it.0.into()).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is sent is read or refused, and what is read is what was sent.
        #[test]
        fn any_payload_is_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            sent in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8),
        ) {
            if let Err(status) = certificates(&bytes) {
                prop_assert_eq!(status.code(), Code::InvalidArgument);
            }
            let encoded: Vec<_> = sent.iter().map(|it| BASE64_STANDARD.encode(it)).collect();
            let payload = serde_json::json!({ "certificates": encoded }).to_string();
            match certificates(payload.as_bytes()) {
                Ok(read) => prop_assert!(read.iter().map(AsRef::as_ref).eq(&sent)),
                Err(_) => prop_assert!(sent.len() > MAX_INTERMEDIATES + 1),
            }
        }
    }

    #[test]
    fn certificates_are_in_base64_and_not_too_many() {
        let read = certificates(br#"{"certificates":["AQI=","Aw=="]}"#).unwrap();
        assert_eq!(read, [vec![1, 2].into(), vec![3].into()]);
        let many = format!("{{\"certificates\":[{}]}}", ["\"AQ==\""; 6].join(","));
        for (payload, problem) in [
            ("", "failed to unmarshal data"),
            ("{\"certificates\":[1]}", "failed to unmarshal data"),
            ("{\"certificates\":[\"%\"]}", "failed to unmarshal data"),
            ("{}", "no certificate to attest"),
            ("{\"certificates\":null}", "no certificate to attest"),
            (&many, "too many intermediate certificates"),
        ] {
            let status = certificates(payload.as_bytes()).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            let expected = format!("nodeattestor(x509pop): {problem}");
            assert!(status.message().starts_with(&expected), "{status:?}");
        }
    }
}
