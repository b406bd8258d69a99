//! The credential that the operator makes for itself in a nested cluster (`credentials: Managed`).
//!
//! It lies in a Secret of its own, which goes with the object. The leader makes and renews it; every
//! replica reads it. What to do when, [`next_step`] says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::time::Instant;

use crate::api::NestedCluster;
use crate::clusters::incarnation::cluster_uid;
use crate::clusters::nested::access::{self, AccessError, MintedToken, TokenOf};
use crate::clusters::nested::{Connection, Trouble};
use crate::clusters::{CallError, call};
use crate::controllers::nested_cluster::settings::ClusterSettings;
use crate::controllers::nested_cluster::status::Problem;
use crate::controllers::nested_cluster::worker::{ReconcileError, Worker};
use crate::nested::kubeconfig::{BearerToken, ChildKubeconfig, Credential};
use crate::nested::managed::{Held, Offered, Step, next_step};
use crate::nested::{ChildAccess, ChildAccount};
use crate::rbac::NAMESPACE;
use crate::runtime::clock;

/// Who applies what lets the operator in.
const FIELD_MANAGER: &str = "spiffe-operator-nested";
/// What could not be done is tried again after this time.
const RETRY: Duration = Duration::from_secs(15);
/// Key of the kubeconfig in the Secret.
const KUBECONFIG: &str = "kubeconfig";
/// Annotations of the Secret: see [`Held`].
const ISSUED_AT: &str = "spiffe-operator.io/issued-at";
const ENDS_AT: &str = "spiffe-operator.io/ends-at";
const BOOTSTRAP: &str = "spiffe-operator.io/bootstrap-digest";
const ACCESS: &str = "spiffe-operator.io/access-digest";

/// What is known of the credential.
#[derive(Default)]
pub(super) struct Managed {
    /// Version of the Secret, and what is in it.
    read: Option<Read>,
    /// What keeps the leader from the next step, and since when.
    failed: Option<(Instant, Problem)>,
}

/// A Secret as it was read or written.
struct Read {
    version: String,
    stored: Stored,
    at: Instant,
}

/// What is in the Secret.
#[derive(Clone)]
struct Stored {
    held: Held,
    kubeconfig: Arc<[u8]>,
}

impl Worker {
    /// The kubeconfig with the credential, if there is one, and what is wrong.
    pub(super) async fn managed(
        &mut self,
        object: &NestedCluster,
        settings: &ClusterSettings,
    ) -> Result<(Option<Arc<[u8]>>, Option<Problem>), ReconcileError> {
        let stored = self.stored(object).await?;
        let kept = |stored: Option<Stored>| stored.map(|stored| stored.kubeconfig);
        if !self.leads() {
            return Ok((kept(stored), None));
        }
        let bootstrap = self.secret(object).await?;
        let manifests = access_of(object, settings).manifests();
        let bytes = bootstrap.as_ref().ok();
        let digest = bytes.map(|bytes| digest_of(&[bytes, &source_of(object)]));
        let access = digest_of(&[manifests.as_bytes()]);
        let offered = Offered {
            bootstrap: digest.as_deref(),
            access: &access,
        };
        let held = stored.as_ref().map(|it| &it.held);
        let (now, is_refused) = (clock::now(), self.is_refused());
        let step = next_step(held, offered, is_refused, now);
        if let Step::Keep(_) = step {
            self.managed.failed = None;
            let delete = object.spec.managed.as_ref().map(|it| it.delete_bootstrap);
            if delete == Some(true) && bytes.is_some() {
                self.delete_bootstrap(object).await?;
            }
            return Ok((kept(stored), None));
        }
        if let Some((since, problem)) = &self.managed.failed
            && since.elapsed() < RETRY
        {
            return Ok((kept(stored), Some(problem.clone())));
        }
        let mut problem = None;
        let mut made = None;
        if let (Step::Bootstrap, Some(bytes), Some(digest)) = (step, bytes, &digest) {
            match self.bootstrap(object, settings, bytes, &manifests).await {
                Ok(new) => made = Some((new, digest.clone(), access.clone())),
                Err(error) => problem = Some(error),
            }
        }
        if made.is_none() {
            // What the bootstrap cannot do, the credential may.
            let alone = Offered {
                bootstrap: None,
                ..offered
            };
            match (next_step(held, alone, is_refused, now), held) {
                (Step::Renew, Some(held)) => match self.renew(object, settings).await {
                    Ok(new) => made = Some((new, held.bootstrap.clone(), held.access.clone())),
                    Err(error) => problem = problem.or(Some(error)),
                },
                (Step::Stuck, _) => {
                    problem = problem.or_else(|| bootstrap.as_ref().err().map(stuck));
                }
                _ => {}
            }
        }
        self.managed.failed = problem.clone().map(|problem| (Instant::now(), problem));
        let Some((made, bootstrap, access)) = made else {
            return Ok((kept(stored), problem));
        };
        match made.stored(bootstrap, access) {
            Ok(made) => {
                self.store(object, &made).await?;
                Ok((Some(made.kubeconfig), problem))
            }
            Err(error) => Ok((kept(stored), Some(Problem::new("BootstrapFailed", error)))),
        }
    }

    /// Whether the cluster takes the credential no more.
    fn is_refused(&self) -> bool {
        let contact = self.connection.as_ref().map(|it| &it.connection.contact);
        contact.is_some_and(|it| matches!(it.borrow().trouble, Some(Trouble::Unauthorized(_))))
    }

    /// Asks for a new token with the one that is there.
    async fn renew(
        &self,
        object: &NestedCluster,
        settings: &ClusterSettings,
    ) -> Result<Made, Problem> {
        let problem = |message: String| Problem::new("RenewalFailed", message);
        let connected = self.connection.as_ref();
        let connected = connected.ok_or_else(|| problem("the cluster is not connected".into()))?;
        let client = &connected.connection.context.client;
        let kubeconfig = connected.kubeconfig.clone();
        let name = account_of(object);
        let minted = access::mint(client, token_of(&name), settings.token_ttl).await;
        let minted = minted.map_err(|error| problem(error.to_string()))?;
        Ok(Made { kubeconfig, minted })
    }

    /// Makes the account, its rights and a token, with the kubeconfig of the user.
    async fn bootstrap(
        &self,
        object: &NestedCluster,
        settings: &ClusterSettings,
        bytes: &[u8],
        manifests: &str,
    ) -> Result<Made, Problem> {
        let problem = |message: String| Problem::new("BootstrapFailed", message);
        let kubeconfig = ClusterSettings::bootstrap(&object.spec, bytes);
        let kubeconfig = kubeconfig
            .map_err(|error| Problem::new("InvalidKubeConfig", crate::error_chain(&error)))?;
        let client = Connection::client(&kubeconfig).await;
        let client = client.map_err(|error| problem(crate::error_chain(&error)))?;
        self.is_known(object, &client).await?;
        let account = account_of(object);
        let applied = access::apply(&client, manifests, FIELD_MANAGER, Some(&account)).await;
        applied.map_err(|error| problem(error.to_string()))?;
        let minted = access::mint(&client, token_of(&account), settings.token_ttl).await;
        let minted = minted.map_err(|error| problem(error.to_string()))?;
        Ok(Made { kubeconfig, minted })
    }

    /// Nothing is made in another cluster than the one that was there first.
    async fn is_known(&self, object: &NestedCluster, client: &Client) -> Result<(), Problem> {
        let failed = |error: CallError| Problem::new("BootstrapFailed", error.message());
        let found = cluster_uid(client).await.map_err(failed)?;
        let known = object
            .status
            .as_ref()
            .and_then(|it| it.cluster_uid.as_ref());
        if known.is_none_or(|known| *known == found) {
            return Ok(());
        }
        let message = "another cluster answers to the kubeconfig; nothing is made there";
        Err(Problem::new("OtherCluster", message))
    }

    /// Takes all away that was made in the cluster: with the kubeconfig of the user, or else with the
    /// credential itself, whose ClusterRole takes the rest along.
    pub(super) async fn revoke(
        &mut self,
        object: &NestedCluster,
        settings: &ClusterSettings,
        own: &Client,
    ) -> Result<(), String> {
        let bootstrap = self
            .secret(object)
            .await
            .map_err(|error| crate::error_chain(&error))?;
        let words = |error: AccessError| error.to_string();
        if let Ok(bytes) = bootstrap
            && let Ok(kubeconfig) = ClusterSettings::bootstrap(&object.spec, &bytes)
            && let Ok(client) = Connection::client(&kubeconfig).await
            && self.is_known(object, &client).await.is_ok()
        {
            let manifests = access_of(object, settings).manifests();
            return access::delete(&client, &manifests).await.map_err(words);
        }
        access::delete_cluster_role(own, &account_of(object))
            .await
            .map_err(words)
    }

    /// What the Secret of the credential has.
    async fn stored(&mut self, object: &NestedCluster) -> Result<Option<Stored>, ReconcileError> {
        let namespace = &self.context.namespace;
        let name = secret_name(object);
        let known = self.context.caches.secrets.get(namespace, &name);
        let Some(version) = known.and_then(|known| known.resource_version()) else {
            // What was just written may not have been seen yet; what was lost is written again.
            let Some(read) = &self.managed.read else {
                return Ok(None);
            };
            let stored = read.stored.clone();
            if self.leads() && read.at.elapsed() > RETRY {
                self.store(object, &stored).await?;
            }
            return Ok(Some(stored));
        };
        if let Some(read) = &self.managed.read
            && !is_later(&version, &read.version)
        {
            return Ok(Some(read.stored.clone()));
        }
        let secrets = Api::<Secret>::namespaced(self.context.client.clone(), namespace);
        let found = call(secrets.get_opt(&name)).await;
        let found = found.map_err(|source| ReconcileError::Secret { source })?;
        self.managed.read = found.and_then(|found| {
            Some(Read {
                version: found.resource_version()?,
                stored: stored_in(&found)?,
                at: Instant::now(),
            })
        });
        Ok(self.managed.read.as_ref().map(|read| read.stored.clone()))
    }

    async fn store(
        &mut self,
        object: &NestedCluster,
        stored: &Stored,
    ) -> Result<(), ReconcileError> {
        let Stored { held, kubeconfig } = stored;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(secret_name(object)),
                namespace: Some(self.context.namespace.clone()),
                owner_references: object.owner_ref(&()).map(|owner| vec![owner]),
                annotations: Some(annotations(held)),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(
                KUBECONFIG.into(),
                ByteString(kubeconfig.to_vec()),
            )])),
            ..Secret::default()
        };
        let namespace = &self.context.namespace;
        let secrets = Api::<Secret>::namespaced(self.context.client.clone(), namespace);
        let parameters = PostParams::default();
        let written = match call(secrets.create(&parameters, &secret)).await {
            Err(error) if error.is_conflict() => {
                call(secrets.replace(&secret_name(object), &parameters, &secret)).await
            }
            outcome => outcome,
        };
        let written = written.map_err(|source| ReconcileError::Write { source })?;
        self.managed.read = Some(Read {
            version: written.resource_version().unwrap_or_default(),
            stored: stored.clone(),
            at: Instant::now(),
        });
        Ok(())
    }

    /// Deletes the Secret with the user's kubeconfig, as the object asks.
    async fn delete_bootstrap(&self, object: &NestedCluster) -> Result<(), ReconcileError> {
        let name = &object.spec.kube_config.secret_ref.name;
        let namespace = &self.context.namespace;
        let secrets = Api::<Secret>::namespaced(self.context.client.clone(), namespace);
        match call(secrets.delete(name, &DeleteParams::default())).await {
            Err(source) if !source.is_not_found() => Err(ReconcileError::Write { source }),
            _ => Ok(()),
        }
    }
}

/// There is no way to a credential.
fn stuck(missing: &Problem) -> Problem {
    let message = format!(
        "the cluster takes no credential that is there, and none can be made: {}",
        missing.message
    );
    Problem::new("NoBootstrap", message)
}

/// A token, and the kubeconfig that it takes its place in.
struct Made {
    kubeconfig: ChildKubeconfig,
    minted: MintedToken,
}

impl Made {
    /// As it is stored, with the digests of what it was made with.
    fn stored(self, bootstrap: String, access: String) -> Result<Stored, String> {
        let MintedToken { text, ends_at } = self.minted;
        let kubeconfig = ChildKubeconfig {
            credential: Credential::Token(BearerToken {
                text,
                expires_at: Some(ends_at),
            }),
            impersonation: None,
            ..self.kubeconfig
        };
        let text = serde_json::to_vec(&kubeconfig.to_kubeconfig());
        Ok(Stored {
            held: Held {
                issued_at: clock::now(),
                ends_at,
                bootstrap,
                access,
            },
            kubeconfig: text.map_err(|error| error.to_string())?.into(),
        })
    }
}

/// Whether `version` is another and not an earlier one than `read`.
fn is_later(version: &str, read: &str) -> bool {
    match (version.parse::<u64>(), read.parse::<u64>()) {
        (Ok(version), Ok(read)) => version > read,
        _ => version != read,
    }
}

fn stored_in(secret: &Secret) -> Option<Stored> {
    let said = |key| secret.annotations().get(key);
    let time = |key| said(key)?.parse().ok();
    let kubeconfig = &secret.data.as_ref()?.get(KUBECONFIG)?.0;
    Some(Stored {
        held: Held {
            issued_at: time(ISSUED_AT)?,
            ends_at: time(ENDS_AT)?,
            bootstrap: said(BOOTSTRAP)?.clone(),
            access: said(ACCESS)?.clone(),
        },
        kubeconfig: kubeconfig.as_slice().into(),
    })
}

fn annotations(held: &Held) -> BTreeMap<String, String> {
    BTreeMap::from([
        (ISSUED_AT.into(), held.issued_at.to_string()),
        (ENDS_AT.into(), held.ends_at.to_string()),
        (BOOTSTRAP.into(), held.bootstrap.clone()),
        (ACCESS.into(), held.access.clone()),
    ])
}

/// What lets the operator in.
fn access_of(object: &NestedCluster, settings: &ClusterSettings) -> ChildAccess {
    ChildAccess {
        needs: settings.needs(),
        impersonation: settings.impersonation.clone(),
        account: ChildAccount::Managed(account_of(object)),
    }
}

/// Name of what is made in the cluster: no two NestedClusters of whatever operator share it.
fn account_of(object: &NestedCluster) -> String {
    let uid = object.uid().unwrap_or_default();
    let short: String = uid
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(12)
        .collect();
    format!("spiffe-operator-nested-{short}")
}

/// Name of the Secret with the credential.
fn secret_name(object: &NestedCluster) -> String {
    format!("{}.credential", object.name_any())
}

fn token_of(account: &str) -> TokenOf<'_> {
    TokenOf {
        namespace: NAMESPACE,
        account,
        bound_to: Some(account),
    }
}

/// How the user's kubeconfig is used.
fn source_of(object: &NestedCluster) -> Vec<u8> {
    format!("{:?}", object.spec.kube_config).into_bytes()
}

/// SHA-256 in hexadecimal digits.
fn digest_of(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let digest = context.finish();
    let bytes = digest.as_ref().iter();
    bytes.fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
