//! Connections to a server above, and calls over them, each with a deadline.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use tower::service_fn;

use crate::domains::UpstreamAddress;
use crate::spiffe::Bundle;
use crate::upstream::problem::UpstreamProblem;
use crate::upstream::svid::Svid;
use crate::upstream::tls::{Refusal, client_config};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a call may take.
const CALL: Duration = Duration::from_secs(10);

/// A connection, which is made anew when it has ended.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) channel: Channel,
    address: UpstreamAddress,
    refusal: Refusal,
}

impl Connection {
    /// Connects to `address` by what is known of the server there, showing `svid` if one is given.
    pub(super) async fn open(
        address: &UpstreamAddress,
        bundle: Arc<Bundle>,
        svid: Option<&Svid>,
    ) -> Result<Self, UpstreamProblem> {
        let refusal = Refusal::default();
        let unreachable = |message: String| UpstreamProblem::Unreachable {
            address: shown(address),
            message,
        };
        let config = client_config(bundle, svid, Arc::clone(&refusal))
            .map_err(|error| unreachable(error.to_string()))?;
        let tls = TlsConnector::from(Arc::new(config));
        let target = address.clone();
        let connect = service_fn(move |_: Uri| connect(target.clone(), tls.clone()));
        let endpoint = Endpoint::from_static("http://server.spiffe").connect_timeout(CONNECT);
        let channel = endpoint.connect_with_connector(connect);
        let made = timeout(CONNECT, channel).await;
        let failed = |message: String| match taken(&refusal) {
            Some(source) => UpstreamProblem::ServerNotTrusted {
                address: shown(address),
                source,
            },
            None => unreachable(message),
        };
        let channel = match made {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(failed(crate::error_chain(&error))),
            Err(_) => return Err(failed(no_answer(CONNECT))),
        };
        Ok(Self {
            channel,
            address: address.clone(),
            refusal,
        })
    }

    /// Carries out `call`, the method of that name.
    pub(super) async fn call<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, UpstreamProblem> {
        let answer = timeout(CALL, call).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded(no_answer(CALL))));
        match answer {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(self.problem(name, &status)),
        }
    }

    /// What the failure of a call says.
    pub(super) fn problem(&self, call: &'static str, status: &Status) -> UpstreamProblem {
        match taken(&self.refusal) {
            Some(source) => UpstreamProblem::ServerNotTrusted {
                address: shown(&self.address),
                source,
            },
            None => UpstreamProblem::of_call(call, &shown(&self.address), status),
        }
    }
}

/// `address` for people.
pub(super) fn shown(address: &UpstreamAddress) -> String {
    let UpstreamAddress { host, port } = address;
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn no_answer(after: Duration) -> String {
    format!("no answer within {} s", after.as_secs())
}

fn taken(refusal: &Refusal) -> Option<crate::spiffe::VerifyError> {
    let mut refusal = refusal.lock().unwrap_or_else(PoisonError::into_inner);
    refusal.take()
}

async fn connect(
    address: UpstreamAddress,
    tls: TlsConnector,
) -> io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let UpstreamAddress { host, port } = address;
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    // For proxies that look at it; the certificate is not compared with it.
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    Ok(TokioIo::new(tls.connect(name, stream).await?))
}
