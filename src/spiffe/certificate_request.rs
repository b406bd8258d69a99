//! A PKCS #10 request (RFC 2986) as agents, downstream servers and tools send it: a key, the proof
//! that the sender holds its private half, and wishes. Most callers get what is registered for them
//! and only the key counts; administrators get what they ask for.

use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use super::{
    CsrError, PublicKey, Subject, UnsupportedSubject,
    csr::{check_kind, check_length},
};

/// What a request asks for. Its signature is by the key in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The key.
    pub public_key: PublicKey,
    /// The URIs among the alternative names.
    pub uris: Vec<String>,
    /// The DNS names among the alternative names; whether they are any is not looked at.
    pub dns_names: Vec<String>,
    /// The subject, if it can be written.
    pub subject: Result<Subject, UnsupportedSubject>,
}

impl CertificateRequest {
    /// Reads and verifies a request in DER.
    ///
    /// # Errors
    /// When it is too large, malformed, has a key that is not certified, or is not signed by that
    /// key.
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        check_length(der)?;
        let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
            return Err(CsrError::Malformed);
        };
        let info = &request.certification_request_info;
        if info.version.0 != 0 {
            return Err(CsrError::Malformed);
        }
        let public_key = check_kind(PublicKey::from_parsed(&info.subject_pki)?)?;
        let signature = &request.signature_value.data;
        if !public_key.verifies(&request.signature_algorithm, info.raw, signature) {
            return Err(CsrError::BadSignature);
        }
        let mut read = Self {
            public_key,
            uris: Vec::new(),
            dns_names: Vec::new(),
            subject: Subject::read(&info.subject),
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            match extension {
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        read.take(name)?;
                    }
                }
                ParsedExtension::ParseError { .. } => return Err(CsrError::Malformed),
                _ => {}
            }
        }
        Ok(read)
    }

    fn take(&mut self, name: &GeneralName<'_>) -> Result<(), CsrError> {
        match name {
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::Invalid(..) => return Err(CsrError::Malformed),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;
    use crate::spiffe::MAX_REQUEST_LENGTH;

    fn key() -> KeyPair {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
    }

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
    }

    fn request(params: &CertificateParams) -> Vec<u8> {
        params.serialize_request(&key()).unwrap().der().to_vec()
    }

    #[test]
    fn reads_key_names_and_subject() {
        let mut params = params();
        params.distinguished_name.push(DnType::CountryName, "US");
        params.distinguished_name.push(DnType::CommonName, "Zürich");
        params.subject_alt_names = vec![
            SanType::DnsName("a.example.org".try_into().unwrap()),
            SanType::URI("spiffe://example.org/a".try_into().unwrap()),
            SanType::DnsName("b.example.org".try_into().unwrap()),
            SanType::IpAddress([10, 0, 0, 1].into()),
        ];
        let key = key();
        let der = params.serialize_request(&key).unwrap().der().to_vec();
        let read = CertificateRequest::from_der(&der).unwrap();
        assert_eq!(
            read.public_key.spki(),
            rcgen::PublicKeyData::subject_public_key_info(&key)
        );
        assert_eq!(read.uris, ["spiffe://example.org/a"]);
        assert_eq!(read.dns_names, ["a.example.org", "b.example.org"]);
        let subject = Subject::of([
            (DnType::CountryName, Some("US")),
            (DnType::CommonName, Some("Zürich")),
        ]);
        assert_eq!(read.subject, Ok(subject));
        let bare = CertificateRequest::from_der(&request(&self::params())).unwrap();
        assert!(bare.uris.is_empty() && bare.subject.unwrap().is_empty());
    }

    #[test]
    fn a_subject_that_cannot_be_written_is_told_apart() {
        for odd in [&[2_u64, 48, 1][..], &[2, 999, 1]] {
            let mut params = params();
            params.distinguished_name.push(DnType::from_oid(odd), "a");
            // rcgen writes a first byte of 80 and more as other libraries do, and cannot beyond.
            let Ok(der) = std::panic::catch_unwind(|| request(&params)) else {
                continue;
            };
            let read = CertificateRequest::from_der(&der).unwrap();
            assert_eq!(read.subject, Err(UnsupportedSubject), "{odd:?}");
        }
    }

    #[test]
    fn refuses_what_is_large_damaged_or_signed_by_another_key() {
        let large = vec![0; MAX_REQUEST_LENGTH + 1];
        let length = large.len();
        assert_eq!(
            CertificateRequest::from_der(&large),
            Err(CsrError::TooLarge { length })
        );
        let mut params = params();
        params.subject_alt_names = vec![SanType::URI("spiffe://e.org/a".try_into().unwrap())];
        let der = request(&params);
        let intact = CertificateRequest::from_der(&der).unwrap();
        for position in 0..der.len() {
            let mut damaged = der.clone();
            damaged[position] ^= 0x40;
            if let Ok(accepted) = CertificateRequest::from_der(&damaged) {
                assert_eq!(accepted, intact, "{position}");
            }
        }
        let mut signature = der;
        *signature.last_mut().unwrap() ^= 1;
        assert_eq!(
            CertificateRequest::from_der(&signature),
            Err(CsrError::BadSignature)
        );
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = CertificateRequest::from_der(&bytes);
        }
    }
}
