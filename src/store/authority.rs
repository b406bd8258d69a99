//! Keys and journal of an authority: one Secret per TrustDomain object.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use kube::api::{Api, PostParams};
use zeroize::Zeroize;

use crate::authority::{Journal, JournalError};
use crate::clusters::{CallError, call};
use crate::domains::object_name;
use crate::spiffe::TrustDomainName;

/// Suffix of the Secret's name, after the name of the TrustDomain object.
const SUFFIX: &str = ".authority";
/// Type of the Secret.
const SECRET_TYPE: &str = "spiffe-operator.io/authority";

/// A journal as it is stored.
#[derive(Debug)]
pub struct StoredJournal {
    /// The journal.
    pub journal: Journal,
    metadata: ObjectMeta,
}

/// Why a journal could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The API server did not give the Secret.
    #[error("cannot read Secret {name}")]
    Call {
        /// Name of the Secret.
        name: String,
        /// Why.
        source: CallError,
    },
    /// The Secret holds no journal.
    #[error("Secret {name} is damaged; restore it from a backup")]
    Damaged {
        /// Name of the Secret.
        name: String,
        /// Why.
        source: JournalError,
    },
}

/// Why a journal could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The API server did not take the Secret.
    #[error("cannot write Secret {name}")]
    Call {
        /// Name of the Secret.
        name: String,
        /// Why.
        source: CallError,
    },
    /// There is nothing to write.
    #[error("cannot write Secret {name}")]
    Unwritable {
        /// Name of the Secret.
        name: String,
        /// Why.
        source: JournalError,
    },
    /// Somebody else wrote first: read again.
    #[error("Secret {name} was written by somebody else at the same time")]
    Conflict {
        /// Name of the Secret.
        name: String,
    },
}

/// The Secrets of all authorities.
#[derive(Clone)]
pub struct AuthorityStore {
    secrets: Api<Secret>,
}

impl AuthorityStore {
    /// The Secrets in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client, namespace),
        }
    }

    /// Name of the Secret of the TrustDomain object `owner`.
    #[must_use]
    pub fn secret_name(owner: &str) -> String {
        object_name(owner, SUFFIX)
    }

    /// Reads the journal of the TrustDomain object `owner`; none when there is no Secret.
    ///
    /// # Errors
    /// When the Secret cannot be read or holds no journal.
    pub async fn load(
        &self,
        owner: &str,
        trust_domain: &TrustDomainName,
    ) -> Result<Option<StoredJournal>, LoadError> {
        let name = Self::secret_name(owner);
        let secret = match call(self.secrets.get_opt(&name)).await {
            Ok(Some(secret)) => secret,
            Ok(None) => return Ok(None),
            Err(source) => return Err(LoadError::Call { name, source }),
        };
        let Secret { metadata, data, .. } = secret;
        let mut data: BTreeMap<String, Vec<u8>> = data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, value.0))
            .collect();
        let journal = Journal::from_secret_data(trust_domain, &data);
        data.values_mut().for_each(Zeroize::zeroize);
        match journal {
            Ok(journal) => Ok(Some(StoredJournal { journal, metadata })),
            Err(source) => Err(LoadError::Damaged { name, source }),
        }
    }

    /// Writes `journal`, in place of `previous` where there was one, and gives what is stored then.
    /// With `owner_reference` the Secret goes with the TrustDomain.
    ///
    /// # Errors
    /// [`SaveError::Conflict`] when `previous` is not what is stored; else as the API answers.
    pub async fn save(
        &self,
        owner: &str,
        journal: Journal,
        previous: Option<&StoredJournal>,
        labels: BTreeMap<String, String>,
        owner_reference: Option<OwnerReference>,
    ) -> Result<StoredJournal, SaveError> {
        let mut metadata = previous
            .map(|previous| previous.metadata.clone())
            .unwrap_or_default();
        metadata.name = Some(Self::secret_name(owner));
        metadata.labels.get_or_insert_default().extend(labels);
        metadata.owner_references = owner_reference.map(|reference| vec![reference]);
        self.write(owner, journal, metadata, previous.is_some())
            .await
    }

    /// Writes `journal` in place of `previous`, of which all else stays as it is.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub async fn replace(
        &self,
        owner: &str,
        journal: Journal,
        previous: &StoredJournal,
    ) -> Result<StoredJournal, SaveError> {
        self.write(owner, journal, previous.metadata.clone(), true)
            .await
    }

    async fn write(
        &self,
        owner: &str,
        journal: Journal,
        mut metadata: ObjectMeta,
        exists: bool,
    ) -> Result<StoredJournal, SaveError> {
        let name = Self::secret_name(owner);
        metadata.managed_fields = None;
        let data = match journal.to_secret_data() {
            Ok(data) => data,
            Err(source) => return Err(SaveError::Unwritable { name, source }),
        };
        let mut secret = Secret {
            metadata,
            type_: Some(SECRET_TYPE.into()),
            data: Some(
                data.into_iter()
                    .map(|(key, value)| (key, ByteString(value)))
                    .collect(),
            ),
            ..Secret::default()
        };
        let parameters = PostParams::default();
        let outcome = if exists {
            call(self.secrets.replace(&name, &parameters, &secret)).await
        } else {
            call(self.secrets.create(&parameters, &secret)).await
        };
        wipe(&mut secret);
        match outcome {
            Ok(mut stored) => {
                wipe(&mut stored);
                Ok(StoredJournal {
                    journal,
                    metadata: stored.metadata,
                })
            }
            Err(error) if error.is_conflict() || (exists && error.is_not_found()) => {
                Err(SaveError::Conflict { name })
            }
            Err(source) => Err(SaveError::Call { name, source }),
        }
    }
}

impl StoredJournal {
    /// The `resourceVersion` of the Secret.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.metadata.resource_version.as_deref()
    }

    /// Whether the stored Secret has exactly this owner.
    #[must_use]
    pub fn is_owned_by(&self, owner: Option<&OwnerReference>) -> bool {
        let stored = self
            .metadata
            .owner_references
            .iter()
            .flatten()
            .map(|found| &found.uid);
        stored.eq(owner.iter().map(|owner| &owner.uid))
    }
}

/// Clears the values of a Secret that held keys.
pub(crate) fn wipe(secret: &mut Secret) {
    for value in secret.data.iter_mut().flat_map(BTreeMap::values_mut) {
        value.0.zeroize();
    }
}
