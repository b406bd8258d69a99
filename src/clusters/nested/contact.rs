//! Whether a nested cluster answers, and as which cluster.

use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::time::timeout;

use crate::clusters::incarnation::cluster_uid;
use crate::clusters::{CallError, call};
use crate::runtime::clock;

/// How long the cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of a nested cluster's API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// What is wrong; none while it is not known, too.
    pub trouble: Option<Trouble>,
    /// UID of the cluster: that of the first one that answered.
    pub uid: Option<String>,
    /// Version of Kubernetes.
    pub version: Option<String>,
    /// When it last answered, rightly or not.
    pub last: Option<Timestamp>,
}

/// Why a nested cluster cannot be worked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It does not answer, or not with sense; in words.
    Unreachable(String),
    /// It does not know the credential; in its words.
    Unauthorized(String),
    /// The credential does not have the first right that is needed; in its words.
    Forbidden(String),
    /// Another cluster answers.
    OtherCluster {
        /// Its UID.
        found: String,
    },
}

impl Contact {
    /// Whether the right cluster answered at last.
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.last.is_some() && self.trouble.is_none()
    }

    /// What is known after asking the cluster again.
    pub(super) async fn renewed(self, client: &Client) -> Self {
        match timeout(PATIENCE, ask(client)).await {
            Ok(Ok((uid, version))) => {
                let trouble = self.uid.as_ref().filter(|known| **known != uid);
                Self {
                    trouble: trouble.map(|_| Trouble::OtherCluster { found: uid.clone() }),
                    uid: self.uid.or(Some(uid)),
                    version: Some(version),
                    last: Some(clock::now()),
                }
            }
            Ok(Err(error)) => {
                let last = if error.is_answer() {
                    Some(clock::now())
                } else {
                    self.last
                };
                Self {
                    trouble: Some(Trouble::of(&error)),
                    last,
                    ..self
                }
            }
            Err(_) => {
                let words = format!("no answer within {} s", PATIENCE.as_secs());
                Self {
                    trouble: Some(Trouble::Unreachable(words)),
                    ..self
                }
            }
        }
    }
}

impl Trouble {
    fn of(error: &CallError) -> Self {
        let words = error.message();
        if error.is_unauthorized() {
            Self::Unauthorized(words)
        } else if error.is_forbidden() {
            Self::Forbidden(words)
        } else {
            Self::Unreachable(words)
        }
    }
}

async fn ask(client: &Client) -> Result<(String, String), CallError> {
    let uid = cluster_uid(client).await?;
    let version = call(client.apiserver_version()).await?;
    Ok((uid, version.git_version))
}
