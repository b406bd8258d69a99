//! TLS to a server above: it shows `spiffe://<trust domain>/spire/server`, and that verifies to the
//! trust domain's bundle. No other authority counts, and no name.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::spiffe::{Bundle, SpiffeId, VerifyError, verify_x509_svid};
use crate::upstream::svid::Svid;

/// Most certificates of the server's chain; more are refused before anything is verified.
const MAX_CHAIN: usize = 10;

/// Why the server that was last met was refused.
pub(super) type Refusal = Arc<Mutex<Option<VerifyError>>>;

/// A configuration that trusts `bundle`, and shows `svid` if one is given. Why a server is refused is
/// left in `refusal`.
///
/// # Errors
/// When the X.509-SVID cannot be shown.
pub(super) fn client_config(
    bundle: Arc<Bundle>,
    svid: Option<&Svid>,
    refusal: Refusal,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let server = SpiffeId::of_server(bundle.trust_domain());
    let verifier = Verifier {
        bundle,
        server,
        refusal,
        provider: Arc::clone(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match svid {
        None => builder.with_no_client_auth(),
        Some(svid) => {
            let key = svid.key.to_private_key_der();
            builder.with_client_auth_cert(svid.chain.clone(), key)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Every connection is verified against the bundle of its moment.
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[derive(Debug)]
struct Verifier {
    bundle: Arc<Bundle>,
    server: SpiffeId,
    refusal: Refusal,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn verify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), VerifyError> {
        let id = verify_x509_svid(chain, &self.bundle, now)?;
        if id == self.server {
            Ok(())
        } else {
            Err(VerifyError::OtherId { id })
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = |error: CertificateError| rustls::Error::InvalidCertificate(error);
        if intermediates.len() >= MAX_CHAIN {
            return Err(refused(CertificateError::ApplicationVerificationFailure));
        }
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let now = Timestamp::from_second(now).unwrap_or(Timestamp::MAX);
        let chain: Vec<_> = std::iter::once(leaf)
            .chain(intermediates)
            .map(|certificate| CertificateDer::from(certificate.as_ref()))
            .collect();
        match self.verify(&chain, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(error) => {
                let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
                *refusal = Some(error.clone());
                let error = rustls::OtherError(Arc::new(error));
                Err(refused(CertificateError::Other(error)))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
