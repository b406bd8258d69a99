//! Join tokens: one Secret each, which holds no token but a hash of it, in its name.
//!
//! A token is used by deleting its Secret, which of several that try one does. The entry that
//! `CreateJoinToken` asks for has the token in its parent ID, so until the token is used what it
//! takes to make the entry, a SPIFFE ID, lies in the Secret and nowhere else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};

use crate::clusters::{CallError, call};
use crate::domains::object_name;
use crate::spiffe::{ParseSpiffeIdError, SpiffeId, TrustDomainName};
use crate::store::{is_labelled, is_to_be_owned_otherwise};

/// Type of the Secret.
const SECRET_TYPE: &str = "spiffe-operator.io/join-token";
/// Label of the Secret, beside those of the trust domain.
const LABEL: &str = "spiffe-operator.io/join-token";
/// Annotation of the Secret: when the token expires.
const EXPIRES_AT: &str = "spiffe-operator.io/expires-at";
/// Annotation of the Secret: the SPIFFE ID of the entry that is made for the agent.
const ALIAS: &str = "spiffe-operator.io/spiffe-id";

/// The join tokens of one trust domain.
#[derive(Clone)]
pub struct JoinTokenStore {
    secrets: Api<Secret>,
    object: String,
    trust_domain: TrustDomainName,
    labels: BTreeMap<String, String>,
    owner: Option<OwnerReference>,
}

/// A token that was there to be used, and is until somebody is faster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveToken {
    secret: String,
    uid: Option<String>,
    good_for: UsedToken,
}

/// What a token was good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedToken {
    /// ID of the agent that attests with the token.
    pub agent_id: SpiffeId,
    /// The SPIFFE ID that the agent has besides, by an entry of its own.
    pub alias: Option<SpiffeId>,
}

/// Why a token is not made or not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinTokenError {
    /// The API server did not give, take or delete the Secret.
    #[error("cannot read or write the Secret of the join token")]
    Call {
        /// Why.
        #[from]
        source: CallError,
    },
    /// The Secret does not say what it should.
    #[error("Secret {name} is damaged; delete it and make another join token")]
    Damaged {
        /// Name of the Secret.
        name: String,
    },
    /// There is such a token.
    #[error("there is such a join token already")]
    Exists,
    /// It was used too late. It is used up all the same.
    #[error("join token expired")]
    Expired,
    /// No agent ID can be made of it.
    #[error("a join token must be a segment of a path: {source}")]
    NoSegment {
        /// What is wrong with it.
        source: ParseSpiffeIdError,
    },
    /// There is no such token, or somebody else was faster.
    #[error("join token does not exist or has already been used")]
    Unknown,
}

impl JoinTokenStore {
    /// The tokens of the TrustDomain object `object`, whose Secrets lie in `namespace`, have these
    /// `labels`, and go with the `owner` where one is given.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        object: &str,
        trust_domain: TrustDomainName,
        mut labels: BTreeMap<String, String>,
        owner: Option<OwnerReference>,
    ) -> Self {
        labels.insert(LABEL.into(), "true".into());
        Self {
            secrets: Api::namespaced(client, namespace),
            object: object.into(),
            trust_domain,
            labels,
            owner,
        }
    }

    /// Makes a token good for one attestation before `expires_at`.
    ///
    /// # Errors
    /// [`JoinTokenError::NoSegment`], [`JoinTokenError::Exists`], or when it cannot be stored.
    pub async fn create(
        &self,
        token: &str,
        expires_at: Timestamp,
        alias: Option<&SpiffeId>,
    ) -> Result<(), JoinTokenError> {
        let agent_id = agent_id(&self.trust_domain, token)?;
        let mut annotations = BTreeMap::from([(EXPIRES_AT.into(), expires_at.to_string())]);
        annotations.extend(alias.map(|alias| (ALIAS.into(), alias.to_string())));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.secret_name(&agent_id)),
                labels: Some(self.labels.clone()),
                annotations: Some(annotations),
                owner_references: self.owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.into()),
            ..Secret::default()
        };
        match call(self.secrets.create(&PostParams::default(), &secret)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Err(JoinTokenError::Exists),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds a token that is live, and changes nothing; one that expired is used up.
    ///
    /// # Errors
    /// [`JoinTokenError::Unknown`], [`JoinTokenError::Expired`], or when the API server does not
    /// say.
    pub async fn find(&self, token: &str, now: Timestamp) -> Result<LiveToken, JoinTokenError> {
        // What was never made is unknown.
        let Ok(agent_id) = agent_id(&self.trust_domain, token) else {
            return Err(JoinTokenError::Unknown);
        };
        let name = self.secret_name(&agent_id);
        let secret = call(self.secrets.get_opt(&name)).await?;
        let Some(secret) = secret.filter(|secret| secret.type_.as_deref() == Some(SECRET_TYPE))
        else {
            return Err(JoinTokenError::Unknown);
        };
        let alias = secret.annotations().get(ALIAS).map(|alias| alias.parse());
        let (Some(expires_at), Ok(alias)) = (expiry(&secret.metadata), alias.transpose()) else {
            return Err(JoinTokenError::Damaged { name });
        };
        let token = LiveToken {
            secret: name,
            uid: secret.uid(),
            good_for: UsedToken { agent_id, alias },
        };
        if expires_at < now {
            self.consume(token).await?;
            return Err(JoinTokenError::Expired);
        }
        Ok(token)
    }

    /// Uses a token up. Of several calls at the same time, on any replica, one succeeds.
    ///
    /// # Errors
    /// [`JoinTokenError::Unknown`], or when the API server does not say that it deleted the Secret;
    /// then the token may be used up or not.
    pub async fn consume(&self, token: LiveToken) -> Result<UsedToken, JoinTokenError> {
        let this_one = Preconditions {
            uid: token.uid,
            resource_version: None,
        };
        if !self.delete(&token.secret, this_one).await? {
            return Err(JoinTokenError::Unknown);
        }
        Ok(token.good_for)
    }

    /// Deletes the tokens that expired before `now` among the Secrets with this metadata, and says
    /// how many.
    ///
    /// # Errors
    /// When one cannot be deleted; the others are left for the next time.
    pub async fn remove_expired<'a>(
        &self,
        secrets: impl IntoIterator<Item = &'a ObjectMeta>,
        now: Timestamp,
    ) -> Result<usize, CallError> {
        let expired = secrets.into_iter().filter(|metadata| {
            is_labelled(metadata, &self.labels)
                && expiry(metadata).is_some_and(|expiry| expiry < now)
        });
        let expired: Vec<_> = expired
            .map(|metadata| {
                let preconditions = Preconditions {
                    uid: metadata.uid.clone(),
                    resource_version: metadata.resource_version.clone(),
                };
                (metadata.name.clone().unwrap_or_default(), preconditions)
            })
            .collect();
        let mut removed = 0;
        for (name, preconditions) in expired {
            removed += usize::from(self.delete(&name, preconditions).await?);
        }
        Ok(removed)
    }

    /// Has the tokens among the Secrets with this metadata go with the owner, or stay without it, as
    /// is wished by now.
    ///
    /// # Errors
    /// When one cannot be written; that is left for the next time, and no other.
    pub async fn correct_owners<'a>(
        &self,
        secrets: impl IntoIterator<Item = &'a ObjectMeta>,
    ) -> Result<(), CallError> {
        let owner = self.owner.as_ref();
        let wrong = secrets
            .into_iter()
            .filter(|metadata| is_to_be_owned_otherwise(metadata, &self.labels, owner));
        let names: Vec<_> = wrong.filter_map(|metadata| metadata.name.clone()).collect();
        let mut outcome = Ok(());
        for name in names {
            outcome = outcome.and(self.correct_owner(&name).await);
        }
        outcome
    }

    async fn correct_owner(&self, name: &str) -> Result<(), CallError> {
        let Some(mut secret) = call(self.secrets.get_opt(name)).await? else {
            return Ok(());
        };
        secret.metadata.owner_references = self.owner.clone().map(|owner| vec![owner]);
        let parameters = PostParams::default();
        match call(self.secrets.replace(name, &parameters, &secret)).await {
            Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// The ID differs with the token, so a hash of it is one of the token.
    fn secret_name(&self, agent_id: &SpiffeId) -> String {
        let mut suffix = String::from(".join-token.");
        for byte in digest(&SHA256, agent_id.as_str().as_bytes()).as_ref() {
            let _ = write!(suffix, "{byte:02x}");
        }
        object_name(&self.object, &suffix)
    }

    /// Whether this call deleted the Secret.
    async fn delete(&self, name: &str, preconditions: Preconditions) -> Result<bool, CallError> {
        let parameters = DeleteParams::default().preconditions(preconditions);
        match call(self.secrets.delete(name, &parameters)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn expiry(metadata: &ObjectMeta) -> Option<Timestamp> {
    metadata.annotations.as_ref()?.get(EXPIRES_AT)?.parse().ok()
}

/// ID of the agent that attests with `token`.
fn agent_id(trust_domain: &TrustDomainName, token: &str) -> Result<SpiffeId, JoinTokenError> {
    let id = format!("{}/spire/agent/join_token/{token}", trust_domain.id());
    let id = if token.contains('/') {
        Err(ParseSpiffeIdError::BadPathCharacter { found: '/' })
    } else {
        id.parse()
    };
    id.map_err(|source| JoinTokenError::NoSegment { source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A token is the last segment of its agent's ID, or it is none.
        #[test]
        fn any_text_is_a_segment_or_no_token(token in "[a-zA-Z0-9._\\-]{0,20}|[./]{0,3}|.{0,20}") {
            let found = agent_id(&"example.org".parse().unwrap(), &token);
            let is_segment = !token.is_empty()
                && token.chars().any(|c| c != '.')
                && token.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
            match found {
                Ok(id) => {
                    let path = format!("/spire/agent/join_token/{token}");
                    prop_assert_eq!(id.path(), path);
                    prop_assert!(!matches!(&*token, "" | "." | ".."));
                }
                Err(_) => prop_assert!(!is_segment),
            }
        }
    }
}
