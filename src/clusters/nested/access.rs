//! Lets the operator into a nested cluster, and out of it again: manifests are applied, tokens asked
//! for, and all is taken away.

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use secrecy::SecretString;

use crate::clusters::{CallError, call};

/// A token of a service account.
#[derive(Debug)]
pub struct MintedToken {
    /// The token.
    pub text: SecretString,
    /// When it ends, as the API server granted it.
    pub ends_at: Timestamp,
}

/// Whose token, and what it is bound to.
#[derive(Clone, Copy, Debug)]
pub struct TokenOf<'a> {
    /// Namespace of the service account, and of the Secret.
    pub namespace: &'a str,
    /// Name of the service account.
    pub account: &'a str,
    /// Name of the Secret whose deletion revokes the token; none: it is bound to nothing.
    pub bound_to: Option<&'a str>,
}

/// Why the operator is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The cluster did not do something.
    #[error("cannot {what}: {}", source.message())]
    Call {
        /// What.
        what: String,
        /// Why.
        source: CallError,
    },
    /// A manifest cannot be read.
    #[error("cannot read a manifest: {problem}")]
    Manifest {
        /// Why.
        problem: String,
    },
    /// The answer to a request for a token has none.
    #[error("cannot get a token: the answer has none")]
    NoToken,
}

/// Applies `manifests` in their order as the field manager `manager`. Where an `owner` is named, the
/// ClusterRole with that name comes first, and all the others but namespaces go with it.
///
/// # Errors
/// At the first that cannot be applied.
pub async fn apply(
    client: &Client,
    manifests: &str,
    manager: &str,
    owner: Option<&str>,
) -> Result<(), AccessError> {
    let mut objects = read(manifests)?;
    let is_owner = |object: &DynamicObject| {
        owner == object.metadata.name.as_deref() && kind_of(object) == "ClusterRole"
    };
    objects.sort_by_key(|object| (kind_of(object) != "Namespace", !is_owner(object)));
    let mut reference = None;
    for mut object in objects {
        if kind_of(&object) != "Namespace" {
            object.metadata.owner_references = reference.clone().map(|it| vec![it]);
        }
        let parameters = PatchParams::apply(manager);
        let (api, name) = api_of(client, &object)?;
        let applied = call(api.patch(&name, &parameters, &Patch::Apply(&object))).await;
        let applied = applied.map_err(|source| failed("apply", &object, source))?;
        if is_owner(&object) {
            reference = Some(OwnerReference {
                api_version: "rbac.authorization.k8s.io/v1".into(),
                kind: "ClusterRole".into(),
                name,
                uid: applied.uid().unwrap_or_default(),
                ..OwnerReference::default()
            });
        }
    }
    Ok(())
}

/// Deletes what is in `manifests` but for namespaces, the last first.
///
/// # Errors
/// At the first that cannot be deleted. What is not there is no error.
pub async fn delete(client: &Client, manifests: &str) -> Result<(), AccessError> {
    for object in read(manifests)?.iter().rev() {
        if kind_of(object) == "Namespace" {
            continue;
        }
        let (api, name) = api_of(client, object)?;
        match call(api.delete(&name, &DeleteParams::background())).await {
            Err(source) if !source.is_not_found() => {
                return Err(failed("delete", object, source));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Deletes a ClusterRole, and lets Kubernetes delete what goes with it.
///
/// # Errors
/// When it cannot be deleted. That it is not there is no error.
pub async fn delete_cluster_role(client: &Client, name: &str) -> Result<(), AccessError> {
    let roles = Api::<ClusterRole>::all(client.clone());
    match call(roles.delete(name, &DeleteParams::background())).await {
        Err(source) if !source.is_not_found() => Err(AccessError::Call {
            what: format!("delete ClusterRole {name}"),
            source,
        }),
        _ => Ok(()),
    }
}

/// Asks for a token that lives for `ttl` seconds.
///
/// # Errors
/// When the cluster does not give one.
pub async fn mint(client: &Client, of: TokenOf<'_>, ttl: i64) -> Result<MintedToken, AccessError> {
    let cannot = |source| AccessError::Call {
        what: "get a token".into(),
        source,
    };
    let bound_object_ref = match of.bound_to {
        Some(name) => {
            let secrets = Api::<Secret>::namespaced(client.clone(), of.namespace);
            let secret = call(secrets.get(name)).await.map_err(cannot)?;
            Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Secret".into()),
                name: Some(name.into()),
                uid: secret.uid(),
            })
        }
        None => None,
    };
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(ttl),
            bound_object_ref,
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), of.namespace);
    let parameters = PostParams::default();
    let granted = call(accounts.create_token_request(of.account, &parameters, &request)).await;
    let status = granted.map_err(cannot)?.status.unwrap_or_default();
    let granted = status.token.zip(status.expiration_timestamp);
    let (text, ends_at) = granted.ok_or(AccessError::NoToken)?;
    Ok(MintedToken {
        text: text.into(),
        ends_at: ends_at.0,
    })
}

fn read(manifests: &str) -> Result<Vec<DynamicObject>, AccessError> {
    serde_saphyr::from_multiple(manifests).map_err(|error| AccessError::Manifest {
        problem: error.to_string(),
    })
}

fn kind_of(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| &types.kind)
}

fn api_of(
    client: &Client,
    object: &DynamicObject,
) -> Result<(Api<DynamicObject>, String), AccessError> {
    let manifest = |problem: String| AccessError::Manifest { problem };
    let types = object.types.as_ref();
    let types = types.ok_or_else(|| manifest("it has no kind".into()))?;
    let kind = GroupVersionKind::try_from(types).map_err(|error| manifest(error.to_string()))?;
    let resource = ApiResource::from_gvk(&kind);
    let api = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    Ok((api, object.name_any()))
}

fn failed(verb: &str, object: &DynamicObject, source: CallError) -> AccessError {
    AccessError::Call {
        what: format!("{verb} {} {}", kind_of(object), object.name_any()),
        source,
    }
}
