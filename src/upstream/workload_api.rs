//! The Workload API of an agent beside us, which shows the server above who we are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::codegen::http::Uri;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::{Request, Status};
use tower::service_fn;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::authority::PrivateKey;
use crate::server::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use crate::server::proto::workload::{X509svid, X509svidRequest};
use crate::spiffe::{Bundle, TrustDomainName};
use crate::upstream::problem::UpstreamProblem;
use crate::upstream::svid::Svid;

/// How long the agent may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Without it agents refuse to answer (SPIFFE Workload API §6.2.1).
const HEADER: &str = "workload.spiffe.io";

/// The first X.509-SVID that the agent at `socket` gives, and the bundle of `trust_domain`.
pub(super) async fn fetch(
    socket: &str,
    trust_domain: &TrustDomainName,
) -> Result<(Svid, Bundle), UpstreamProblem> {
    let answer = timeout(ANSWER, first_svid(socket)).await;
    let answer = answer.unwrap_or_else(|_| {
        let after = ANSWER.as_secs();
        Err(format!("no answer within {after} s"))
    });
    let problem = |message: String| UpstreamProblem::WorkloadApi {
        socket: socket.to_owned(),
        message,
    };
    answer
        .and_then(|answer| read(answer, trust_domain))
        .map_err(problem)
}

async fn first_svid(socket: &str) -> Result<X509svid, String> {
    let path = PathBuf::from(socket);
    let connect = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://agent.spiffe");
    let channel = endpoint.connect_with_connector(connect).await;
    let channel = channel.map_err(|error| crate::error_chain(&error))?;
    let mut client = SpiffeWorkloadApiClient::new(channel);
    let mut request = Request::new(X509svidRequest {});
    let yes = MetadataValue::from_static("true");
    request.metadata_mut().insert(HEADER, yes);
    let said = |status: Status| status.message().to_owned();
    let stream = client.fetch_x509svid(request).await.map_err(said)?;
    let answer = stream.into_inner().message().await.map_err(said)?;
    let svids = answer.map(|answer| answer.svids).unwrap_or_default();
    let first = svids.into_iter().next();
    first.ok_or_else(|| "the agent gives no X.509-SVID".to_owned())
}

fn read(answer: X509svid, trust_domain: &TrustDomainName) -> Result<(Svid, Bundle), String> {
    let key = Zeroizing::new(answer.x509_svid_key);
    let key = PrivateKey::from_der(&key).map_err(|error| error.to_string())?;
    let chain = certificates(&answer.x509_svid)?;
    let svid = Svid::new(chain, Arc::new(key)).map_err(|error| error.to_string())?;
    if !svid.id.is_member_of(trust_domain) {
        return Err(format!("{} is of another trust domain", svid.id));
    }
    let roots = certificates(&answer.bundle)?;
    let bundle = Bundle::new(trust_domain.clone(), roots, 0);
    Ok((svid, bundle.map_err(|error| error.to_string())?))
}

/// Certificates in DER, one after the other.
fn certificates(mut der: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut certificates = Vec::new();
    while !der.is_empty() {
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|_| "the agent gives a certificate that is malformed".to_owned())?;
        certificates.push(CertificateDer::from(certificate.as_raw().to_vec()));
        der = rest;
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::api::{CaKeyType, CaSubject};
    use crate::authority::{CertificateAuthority, SvidRequest};

    fn answer(id: &str) -> X509svid {
        let trust_domain = "example.org".parse().unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let end = now + SignedDuration::from_hours(1);
        let key = || PrivateKey::generate(CaKeyType::EcP256).unwrap();
        let subject = CaSubject::default();
        let ca = CertificateAuthority::self_signed(&trust_domain, &subject, key(), now, end);
        let ca = ca.unwrap();
        let key = key();
        let signed = ca.sign(&SvidRequest {
            id: &id.parse().unwrap(),
            dns_names: &[],
            public_key: key.public_key(),
            not_before: now,
            not_after: end,
        });
        let root = ca.certificates().root().to_vec();
        let mut chain = signed.unwrap().chain.remove(0).to_vec();
        chain.extend(&root);
        X509svid {
            spiffe_id: id.into(),
            x509_svid: chain,
            x509_svid_key: key.to_private_key_der().secret_der().to_vec(),
            bundle: [root.clone(), root].concat(),
            hint: String::new(),
        }
    }

    #[test]
    fn certificates_follow_each_other() {
        let trust_domain = "example.org".parse().unwrap();
        let (svid, bundle) = read(answer("spiffe://example.org/a"), &trust_domain).unwrap();
        assert_eq!(svid.id.as_str(), "spiffe://example.org/a");
        assert_eq!((svid.chain.len(), bundle.roots().count()), (2, 1));
    }

    #[test]
    fn what_is_no_svid_of_the_trust_domain_is_refused() {
        let with = |change: fn(&mut X509svid)| {
            let mut answer = answer("spiffe://example.org/a");
            change(&mut answer);
            read(answer, &"example.org".parse().unwrap()).unwrap_err()
        };
        with(|it| it.x509_svid.truncate(100));
        with(|it| it.x509_svid.clear());
        with(|it| it.x509_svid_key.clear());
        with(|it| it.bundle = vec![0x30]);
        // The key of another certificate.
        with(|it| it.x509_svid_key = answer("spiffe://example.org/b").x509_svid_key);
        let problem = with(|it| *it = answer("spiffe://other.org/a"));
        assert!(problem.contains("another trust domain"), "{problem}");
    }
}
