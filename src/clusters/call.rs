//! One way to call a Kubernetes API: with a deadline, and with errors that say what to do next.

use std::time::Duration;

/// How long one request may take. For lists and watches of kube's watcher the client's read timeout
/// counts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a request to a Kubernetes API failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The API server answered with an error, or could not be reached.
    #[error("the Kubernetes API refused or could not be reached")]
    Api {
        /// The client's error.
        #[from]
        source: kube::Error,
    },
    /// An object came without the UID that every object has.
    #[error("the answer of the Kubernetes API has no UID")]
    NoUid,
    /// No answer in time.
    #[error("no answer from the Kubernetes API within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
}

impl CallError {
    /// Somebody else wrote first, or the object exists already (409).
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// The API server answered, if only with an error.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        self.code().is_some()
    }

    /// The operator lacks a right (403).
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// RBAC, or whoever else authorizes, does not allow the request: the 403 that says who `cannot`
    /// do what, in words that kube-apiserver uses for nothing else. Admission refuses by 403 too.
    #[must_use]
    pub fn lacks_right(&self) -> bool {
        let words = self.message();
        self.is_forbidden() && words.contains(" cannot ") && words.contains(" resource ")
    }

    /// The object or its kind does not exist (404).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object is not acceptable as it stands (422).
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.code() == Some(422)
    }

    /// The API server does not know who asks (401).
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        self.code() == Some(401)
    }

    /// What the API server said, for messages to users.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Api {
                source: kube::Error::Api(status),
            } => status.message.clone(),
            other => crate::error_chain(other),
        }
    }

    fn code(&self) -> Option<u16> {
        match self {
            Self::Api {
                source: kube::Error::Api(status),
            } => Some(status.code),
            _ => None,
        }
    }
}

/// Runs one request under the deadline.
///
/// # Errors
/// As the API server answers, or [`CallError::Timeout`].
pub async fn call<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CallError::Timeout),
    }
}
