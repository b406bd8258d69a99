//! What can be wrong with a server above, in words for a condition. Pure.

use tonic::{Code, Status};

use crate::authority::{ImportError, KeyError};
use crate::spiffe::{SpiffeId, VerifyError};

/// Why the server above does not do what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamProblem {
    /// It does not take us for an agent.
    #[error("the server above refuses attestation: {message}")]
    AttestationRefused {
        /// In its words.
        message: String,
    },
    /// What it shall be known by is not there.
    #[error("the bundle by which the server above is known: {message}")]
    Bundle {
        /// What is wrong.
        message: String,
    },
    /// What it signed is no CA for us.
    #[error("the CA that the server above has signed cannot be used: {source}")]
    Ca {
        /// Why.
        source: ImportError,
    },
    /// What it is to be shown is not there.
    #[error("what shows the server above who we are: {message}")]
    Credential {
        /// What is wrong.
        message: String,
    },
    /// No key could be made or used.
    #[error("a key for the server above: {source}")]
    Key {
        /// Why.
        source: KeyError,
    },
    /// It answered what makes no sense.
    #[error("the server above gave an answer that cannot be used: {message}")]
    Malformed {
        /// What is wrong.
        message: String,
    },
    /// No entry makes us a server below.
    #[error(
        "the server above knows us as {agent}, and has no entry with downstream for that agent{wanted}; \
         make one there, such as: spire-server entry create -parentID {agent} -spiffeID \
         spiffe://TRUST-DOMAIN/CLUSTER -selector x:y -downstream"
    )]
    NoDownstreamEntry {
        /// Who we are there.
        agent: SpiffeId,
        /// The entry that was asked for, for people.
        wanted: String,
    },
    /// A call failed.
    #[error("the server above refuses {call}: {message}")]
    Refused {
        /// The method.
        call: &'static str,
        /// In its words.
        message: String,
    },
    /// Several entries make us a server below.
    #[error(
        "the server above has several entries with downstream for {agent}: {found}; choose one by \
         spiffeID"
    )]
    SeveralDownstreamEntries {
        /// Who we are there.
        agent: SpiffeId,
        /// Their IDs.
        found: String,
    },
    /// It is another server than it should be.
    #[error(
        "what answers at {address} is not the server of the trust domain: {source}; is the bundle \
         current?"
    )]
    ServerNotTrusted {
        /// Where.
        address: String,
        /// Why.
        source: VerifyError,
    },
    /// Nobody answers.
    #[error("the server above cannot be reached at {address}: {message}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        message: String,
    },
    /// The agent beside us gives no X.509-SVID.
    #[error("the Workload API at {socket}: {message}")]
    WorkloadApi {
        /// Where.
        socket: String,
        /// Why.
        message: String,
    },
}

impl UpstreamProblem {
    /// CamelCase reason for conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::AttestationRefused { .. } => "AttestationRefused",
            Self::Bundle { .. } => "BundleMissing",
            Self::Ca { source } => source.reason(),
            Self::Credential { .. } => "CredentialMissing",
            Self::Key { .. } => "KeyFailed",
            Self::Malformed { .. } => "InvalidAnswer",
            Self::NoDownstreamEntry { .. } => "NoDownstreamEntry",
            Self::Refused { .. } => "Refused",
            Self::SeveralDownstreamEntries { .. } => "SeveralDownstreamEntries",
            Self::ServerNotTrusted { .. } => "ServerNotTrusted",
            Self::Unreachable { .. } => "Unreachable",
            Self::WorkloadApi { .. } => "WorkloadAPI",
        }
    }

    /// What the failure of `call` at `address` says.
    pub(super) fn of_call(call: &'static str, address: &str, status: &Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Self::Unreachable {
                address: address.to_owned(),
                message: format!("{call}: {message}"),
            },
            _ => Self::Refused { call, message },
        }
    }
}

impl From<KeyError> for UpstreamProblem {
    fn from(source: KeyError) -> Self {
        Self::Key { source }
    }
}
