//! Who calls: known from the connection, before any message is read.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tonic::Status;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::spiffe::{SpiffeId, check_x509_svid};

/// The peer of a connection.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A process on this host, through the administration socket.
    Local,
    /// Somebody over TCP who showed no certificate.
    Anonymous {
        /// Where they call from.
        address: IpAddr,
    },
    /// Somebody over TCP whose X.509-SVID was verified when the connection was made.
    Peer {
        /// Where they call from.
        address: IpAddr,
        /// What they showed.
        svid: Arc<PeerSvid>,
    },
}

/// What matters of a peer's X.509-SVID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSvid {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// Its serial number in decimal digits, as SPIRE writes them.
    pub serial: String,
    /// End of its validity.
    pub not_after: Timestamp,
}

impl PeerSvid {
    /// Reads a leaf that was verified already; none if it is no X.509-SVID.
    #[must_use]
    pub fn read(leaf: &CertificateDer<'_>) -> Option<Self> {
        let id = check_x509_svid(leaf).ok()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        Some(Self {
            id,
            serial: parsed.serial.to_string(),
            not_after: Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?,
        })
    }
}

impl Caller {
    /// The caller of `request`.
    ///
    /// # Errors
    /// `Internal` when the connection was lost from the request, which is a bug.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<&Self, Status> {
        let caller = request.extensions().get();
        caller.ok_or_else(|| Status::internal("caller is unknown"))
    }

    /// Where a call over TCP comes from.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Local => None,
            Self::Anonymous { address } | Self::Peer { address, .. } => Some(*address),
        }
    }

    /// What the caller showed.
    #[must_use]
    pub fn svid(&self) -> Option<&PeerSvid> {
        match self {
            Self::Peer { svid, .. } => Some(svid),
            Self::Local | Self::Anonymous { .. } => None,
        }
    }
}
