//! Calls of a gRPC server byte by byte, so that a test can send what no client would.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use h2::SendStream;
use h2::client::ResponseFuture;
use hyper_util::rt::TokioIo;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;
use tonic::codegen::http::{Request, Uri};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::Ca;

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The gRPC status.
    pub(crate) code: i32,
    /// Its message.
    pub(crate) message: String,
    /// Its details, a `google.rpc.Status`.
    pub(crate) details: Vec<u8>,
    /// The messages before it, with their prefixes.
    pub(crate) body: Vec<u8>,
}

/// An X.509-SVID with its key, made by a CA that the test holds.
pub(crate) struct Svid {
    /// The leaf.
    pub(crate) certificate: CertificateDer<'static>,
    /// Its key.
    key: KeyPair,
    /// Its serial number in decimal digits.
    pub(crate) serial: String,
}

impl Svid {
    /// What a server has made of a request for `key`.
    pub(crate) fn of(certificate: CertificateDer<'static>, key: KeyPair) -> Self {
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        let serial = parsed.serial.to_string();
        Self {
            certificate,
            key,
            serial,
        }
    }
}

/// An X.509-SVID of `ca` for `id` that ends in `lifetime`, which may be in the past.
pub(crate) fn svid(ca: &Ca, id: &str, lifetime: Duration) -> Svid {
    let now = OffsetDateTime::now_utc();
    let mut parameters = CertificateParams::default();
    parameters.not_before = now - Duration::hours(1);
    parameters.not_after = now + lifetime;
    parameters
        .distinguished_name
        .push(DnType::OrganizationName, "SPIRE");
    parameters.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    parameters.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = parameters.signed_by(&key, ca).unwrap().der().clone();
    Svid::of(certificate, key)
}

impl Svid {
    /// The one that `spire-server x509 mint -write` has left in `folder`.
    pub(crate) fn read(folder: &Path) -> Self {
        let certificate = CertificateDer::from_pem_file(folder.join("svid.pem")).unwrap();
        let key = PrivatePkcs8KeyDer::from_pem_file(folder.join("key.pem")).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        let serial = parsed.serial.to_string();
        Self {
            certificate,
            key: KeyPair::try_from(&key).unwrap(),
            serial,
        }
    }
}

/// A TLS connection to `port`, with an X.509-SVID or without. The server's is not verified.
pub(crate) async fn tls(port: u16, svid: Option<&Svid>) -> std::io::Result<TlsStream<TcpStream>> {
    tls_over(TcpStream::connect(("127.0.0.1", port)).await?, svid).await
}

/// The same over `stream`.
pub(crate) async fn tls_over(
    stream: TcpStream,
    svid: Option<&Svid>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = match svid {
        None => builder.with_no_client_auth(),
        Some(svid) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.key.serialize_der()));
            let chain = vec![svid.certificate.clone()];
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("server.test").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// A gRPC message with its prefix.
pub(crate) fn message(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), bytes].concat()
}

/// A connection to `port` as [`tls`] makes it, for generated clients. It is not made again.
pub(crate) async fn channel(port: u16, svid: Option<&Svid>) -> Channel {
    let mut stream = Some(TokioIo::new(tls(port, svid).await.unwrap()));
    let connect = service_fn(move |_: Uri| {
        let stream = stream.take();
        async { stream.ok_or_else(|| std::io::Error::other("the connection has ended")) }
    });
    let endpoint = Endpoint::from_static("http://server.test");
    endpoint.connect_with_connector(connect).await.unwrap()
}

/// A connection over which calls are made one after the other.
pub(crate) struct Connection {
    client: h2::client::SendRequest<Bytes>,
    _driver: AbortOnDropHandle<Result<(), h2::Error>>,
}

impl Connection {
    /// Begins HTTP/2 over `stream`.
    pub(crate) async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, h2::Error> {
        let (client, driver) = h2::client::handshake(stream).await?;
        Ok(Self {
            client,
            _driver: AbortOnDropHandle::new(tokio::spawn(driver)),
        })
    }

    /// Calls `method` with `body`, which a well-meaning client makes with [`message`].
    pub(crate) async fn call(&self, method: &str, body: &[u8]) -> Result<Answer, h2::Error> {
        let (response, mut sender) = self.begin(method).await?;
        sender.reserve_capacity(body.len());
        // A server that has heard enough ends the stream before all is sent.
        let _ = sender.send_data(body.to_vec().into(), true);
        answer(response).await
    }

    /// Begins a call of `method`.
    pub(crate) async fn begin(
        &self,
        method: &str,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut client = self.client.clone().ready().await?;
        let request = Request::post(format!("https://server.test{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        client.send_request(request, false)
    }
}

/// Calls `method` over a new connection `stream` with `body`.
pub(crate) async fn call(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: &str,
    body: &[u8],
) -> Result<Answer, h2::Error> {
    Connection::over(stream).await?.call(method, body).await
}

/// How a call that has begun ends.
pub(crate) async fn answer(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let response = response.await?;
    let (head, mut stream) = response.into_parts();
    let mut received = Vec::new();
    while let Some(bytes) = stream.data().await {
        let bytes = bytes?;
        let _ = stream.flow_control().release_capacity(bytes.len());
        received.extend_from_slice(&bytes);
    }
    let trailers = stream.trailers().await?.unwrap_or(head.headers);
    let text = |name: &str| {
        let value = trailers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    Ok(Answer {
        code: text("grpc-status").parse().unwrap_or(-1),
        message: unescaped(&text("grpc-message")),
        details: STANDARD_NO_PAD
            .decode(text("grpc-status-details-bin").trim_end_matches('='))
            .unwrap(),
        body: received,
    })
}

/// A status message without its percent-encoding.
fn unescaped(message: &str) -> String {
    let mut parts = message.split('%');
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        text.push(char::from(u8::from_str_radix(code, 16).unwrap()));
        text.push_str(rest);
    }
    text
}

#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
