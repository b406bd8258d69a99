//! TLS on the server's port: its own X.509-SVID, and how a client's is verified.
//!
//! A client need not show a certificate. One that does must show an X.509-SVID of the trust domain,
//! or of an administrator from elsewhere whose trust domain's bundle is known; anything else ends
//! the handshake. Sessions are never resumed, so that every connection is verified against the
//! bundle of its moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::spiffe::{
    Bundle, SpiffeId, TrustDomainName, VerifyError, check_x509_svid, verify_x509_svid,
};

/// Most certificates of a client's chain; more are refused before anything is verified.
const MAX_CHAIN: usize = 10;

/// Whom clients must prove to be.
#[derive(Debug)]
pub(super) struct Trust {
    /// The trust domain's bundle.
    pub(super) bundle: Arc<Bundle>,
    /// Who is an administrator by configuration.
    pub(super) admin_ids: BTreeSet<SpiffeId>,
    /// The bundles of other trust domains that are known.
    pub(super) foreign: BTreeMap<TrustDomainName, Arc<Bundle>>,
}

impl Trust {
    /// Whether the peer that shows `chain` is to be let in at `now`.
    fn verify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), VerifyError> {
        let Some(leaf) = chain.first() else {
            return Err(VerifyError::EmptyChain);
        };
        let id = check_x509_svid(leaf)?;
        let own = self.bundle.trust_domain();
        let bundle = if id.is_member_of(own) || !self.admin_ids.contains(&id) {
            Some(&self.bundle)
        } else {
            self.foreign
                .values()
                .find(|it| id.is_member_of(it.trust_domain()))
        };
        let Some(bundle) = bundle else {
            return Err(VerifyError::OtherTrustDomain { id });
        };
        verify_x509_svid(chain, bundle, now).map(drop)
    }
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
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
        match self.trust.verify(&chain, now) {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            Err(error) => {
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

/// The configuration of a server that shows `chain`, of which it holds the `key`.
///
/// # Errors
/// When chain and key make no identity.
pub(super) fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    trust: Trust,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier {
        trust,
        provider: Arc::clone(&provider),
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
