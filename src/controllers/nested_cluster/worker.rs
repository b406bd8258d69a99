//! The loop of one NestedCluster: when to reconcile, and what outlives a reconcile.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio::time::{Instant, sleep, sleep_until};

use crate::api::{AttestedAgent, KubeConfigSource, NestedCluster, NestedClusterStatus};
use crate::clusters::cache::Cache;
use crate::clusters::identities::Identities;
use crate::clusters::nested::{AttestingCluster, Connection, Trouble, Wish};
use crate::clusters::reviews::Reviews;
use crate::clusters::{CallError, call};
use crate::controllers::nested_cluster::settings::{
    ClusterSettings, NameTaken, name_of, name_taken,
};
use crate::controllers::nested_cluster::status::{self, Problem, Seen};
use crate::controllers::nested_cluster::wire::Wires;
use crate::controllers::trust_domain::TRUST_DOMAIN_LABEL;
use crate::domains::label_value;
use crate::nested::kubeconfig::{ChildKubeconfig, Credential};
use crate::registration::bounds::agents_cluster;
use crate::runtime::backoff::Backoff;
use crate::runtime::clock;
use crate::runtime::context::Context;

/// Changes that come within this time are worked on together.
const COALESCE: Duration = Duration::from_millis(50);
/// A reconcile comes after this time even when nothing is known to have changed: counts change.
const PERIOD: Duration = Duration::from_secs(5);

/// One NestedCluster object.
pub(super) struct Worker {
    pub(super) context: Context,
    objects: Arc<Cache<NestedCluster>>,
    /// Name of the object.
    pub(super) name: String,
    /// Version of the Secret, and the kubeconfig in it.
    read: Option<(String, Arc<[u8]>)>,
    pub(super) connection: Option<Connected>,
    /// The client of the cluster, once the object is to go.
    pub(super) leaving: Option<Client>,
    /// What stock SPIRE servers were told of the cluster.
    pub(super) wires: Wires,
}

/// A connection, and what it was made of.
pub(super) struct Connected {
    source: Source,
    pub(super) kubeconfig: ChildKubeconfig,
    pub(super) connection: Connection,
}

/// What a kubeconfig was made of: the bytes, and how they are used.
type Source = (Arc<[u8]>, KubeConfigSource);

/// Why a reconcile has to be done again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    /// The record of an agent cannot be deleted.
    #[error("cannot delete the record of an agent")]
    Agents {
        /// Why.
        source: CallError,
    },
    /// The Secret cannot be made to go with the object.
    #[error("cannot become the owner of the Secret with the kubeconfig")]
    Own {
        /// Why.
        source: CallError,
    },
    /// The Secret cannot be read.
    #[error("cannot read the Secret with the kubeconfig")]
    Secret {
        /// Why.
        source: CallError,
    },
    /// What was published in the cluster cannot be taken away.
    #[error("cannot clean up the cluster: {problem}")]
    Withdraw {
        /// Why.
        problem: String,
    },
    /// The object cannot be written.
    #[error("cannot write the object")]
    Write {
        /// Why.
        source: CallError,
    },
}

impl Worker {
    pub(super) fn new(context: Context, objects: Arc<Cache<NestedCluster>>, name: String) -> Self {
        Self {
            context,
            objects,
            name,
            read: None,
            connection: None,
            leaving: None,
            wires: Wires::default(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut objects = self.objects.changes();
        let mut secrets = self.context.caches.secrets.changes();
        let mut leadership = self.context.leadership.clone();
        loop {
            let started = Instant::now();
            let outcome = self.reconcile().await;
            let failure = match &outcome {
                Ok(()) => {
                    backoff.forget(&());
                    None
                }
                Err(error) => {
                    let error = crate::error_chain(error);
                    tracing::warn!(nested_cluster = self.name, error, "reconcile failed");
                    backoff.failed(());
                    Some("KubernetesAPI")
                }
            };
            self.context
                .metrics
                .reconciled("NestedCluster", started.elapsed(), failure);
            tokio::select! {
                _ = objects.changed() => {}
                _ = secrets.changed() => {}
                _ = leadership.changed() => {}
                () = next_contact(self.connection.as_mut()) => {}
                () = backoff.next_due() => {}
                () = sleep_until(started + PERIOD) => {}
            }
            backoff.due();
            sleep(COALESCE).await;
        }
    }

    async fn reconcile(&mut self) -> Result<(), ReconcileError> {
        let Some(object) = self.objects.get("", &self.name) else {
            return Ok(());
        };
        if !self.context.caches.secrets.is_complete() {
            return Ok(());
        }
        if object.metadata.deletion_timestamp.is_some() {
            return self.remove(&object).await;
        }
        if !self.hold(&object).await? && self.leads() {
            return Ok(());
        }
        if object.status.is_none() {
            return self
                .write_status(&object, status::first(&object, clock::now()))
                .await;
        }
        let seen = self.serve(&object).await?;
        let status = status::of(&object, &seen, clock::now());
        self.write_status(&object, status).await?;
        self.own_secret(&object).await
    }

    /// Serves the cluster as far as it can be; what was seen of it.
    async fn serve(&mut self, object: &NestedCluster) -> Result<Seen, ReconcileError> {
        let settings = match self.settings(object) {
            Ok(settings) => settings,
            Err(problem) => {
                if self.name_taken(object).is_some() {
                    self.stand_back(object);
                }
                return Ok(Seen {
                    spec_problem: Some(problem),
                    ..Seen::default()
                });
            }
        };
        let identities = &self.context.identities;
        let uid = object.uid().unwrap_or_default();
        let identities = match identities.nest(&settings.domain, &uid, &settings.scope) {
            Ok(identities) => identities,
            Err(error) => {
                let problem = Problem::new("TrustDomainInvalid", error.to_string());
                return Ok(Seen {
                    spec_problem: Some(problem),
                    ..Seen::default()
                });
            }
        };
        let kubeconfig_problem = self.connect(object, &settings, &identities).await?;
        self.attest(&settings, uid);
        self.wish(&settings.wish);
        let wired = self.wire(object).await;
        Ok(Seen {
            wired: Some(wired),
            ..self.look(&settings, &identities, kubeconfig_problem)
        })
    }

    fn settings(&self, object: &NestedCluster) -> Result<ClusterSettings, Problem> {
        let domain = &object.spec.trust_domain_ref.name;
        let domain = self.context.caches.trust_domains.get("", domain);
        let settings = ClusterSettings::parse(object, domain.as_deref())
            .map_err(|error| Problem::new("InvalidSpec", error.to_string()))?;
        match self.name_taken(object) {
            Some(taken) => Err(taken.into()),
            None => Ok(settings),
        }
    }

    /// Serves the cluster no more, since its name is another's.
    pub(super) fn stand_back(&mut self, object: &NestedCluster) {
        let domain = &object.spec.trust_domain_ref.name;
        let cluster = name_of(object);
        let uid = object.uid().unwrap_or_default();
        self.connection = None;
        self.context.attesting.remove(domain, &cluster, &uid);
        self.context.identities.unnest(domain, &cluster, &uid);
    }

    /// Who has the better claim to the cluster's name.
    pub(super) fn name_taken(&self, object: &NestedCluster) -> Option<NameTaken> {
        let domain = &object.spec.trust_domain_ref.name;
        let domain = self.context.caches.trust_domains.get("", domain);
        let all = self.objects.all();
        name_taken(object, domain.as_deref(), all.iter().map(AsRef::as_ref))
    }

    /// Connects by the kubeconfig that the Secret has now; one that is wrong leaves the one before in
    /// use.
    pub(super) async fn connect(
        &mut self,
        object: &NestedCluster,
        settings: &ClusterSettings,
        identities: &Arc<Identities>,
    ) -> Result<Option<Problem>, ReconcileError> {
        let bytes = match self.secret(object).await? {
            Ok(bytes) => bytes,
            Err(problem) => return Ok(Some(problem)),
        };
        let source = (Arc::clone(&bytes), object.spec.kube_config.clone());
        if self.connection.as_ref().is_some_and(|connected| {
            connected.source == source
                && Arc::ptr_eq(&connected.connection.context.identities, identities)
        }) {
            return Ok(None);
        }
        let kubeconfig = match settings.kubeconfig(&object.spec, &bytes) {
            Ok(kubeconfig) => kubeconfig,
            Err(error) => {
                let message = crate::error_chain(&error);
                return Ok(Some(Problem::new("InvalidKubeConfig", message)));
            }
        };
        if let Credential::EksToken(_) = kubeconfig.credential {
            let message = "tokens of `aws eks get-token` are not supported by this version";
            return Ok(Some(Problem::new("InvalidKubeConfig", message)));
        }
        let known = self.connection.as_ref().and_then(|connected| {
            let contact = connected.connection.contact.borrow();
            contact.uid.clone()
        });
        let uid = known.or_else(|| object.status.as_ref()?.cluster_uid.clone());
        let identities = Arc::clone(identities);
        let domain = &settings.domain;
        let context = &self.context;
        let has_servers = settings.has_servers();
        let names = [domain.as_str(), &self.name];
        let connection =
            Connection::start(context, &kubeconfig, identities, names, uid, has_servers).await;
        match connection {
            Ok(connection) => {
                self.connection = Some(Connected {
                    source,
                    kubeconfig,
                    connection,
                });
                Ok(None)
            }
            Err(error) => {
                let message = crate::error_chain(&error);
                Ok(Some(Problem::new("InvalidKubeConfig", message)))
            }
        }
    }

    /// What the Secret has under the key of `object`.
    async fn secret(
        &mut self,
        object: &NestedCluster,
    ) -> Result<Result<Arc<[u8]>, Problem>, ReconcileError> {
        let reference = &object.spec.kube_config.secret_ref;
        let namespace = &self.context.namespace;
        let name = &reference.name;
        let known = self.context.caches.secrets.get(namespace, name);
        let Some(version) = known.and_then(|known| known.resource_version()) else {
            self.read = None;
            let message = format!("there is no Secret {namespace}/{name}");
            return Ok(Err(Problem::new("NoSecret", message)));
        };
        let version = format!("{version} {}", reference.key);
        if let Some((_, bytes)) = self.read.as_ref().filter(|(read, _)| *read == version) {
            return Ok(Ok(Arc::clone(bytes)));
        }
        let secrets = Api::<Secret>::namespaced(self.context.client.clone(), namespace);
        let found = call(secrets.get_opt(name)).await;
        let found = found.map_err(|source| ReconcileError::Secret { source })?;
        let data = found.and_then(|secret| secret.data).unwrap_or_default();
        let Some(bytes) = data.get(&reference.key) else {
            let message = format!("the Secret {namespace}/{name} has no key {}", reference.key);
            return Ok(Err(Problem::new("NoSecret", message)));
        };
        let bytes: Arc<[u8]> = bytes.0.as_slice().into();
        self.read = Some((version, Arc::clone(&bytes)));
        Ok(Ok(bytes))
    }

    /// Lets the cluster's agents attest, or none.
    fn attest(&self, settings: &ClusterSettings, uid: String) {
        let name = settings.scope.bounds.cluster_name();
        let attesting = &self.context.attesting;
        // A cluster that was never reached, or is another one, vouches for nobody.
        let vouches = |connected: &&Connected| {
            let contact = connected.connection.contact.borrow();
            let is_other = matches!(contact.trouble, Some(Trouble::OtherCluster { .. }));
            contact.uid.is_some() && contact.last.is_some() && !is_other
        };
        let connected = self.connection.as_ref().filter(vouches);
        let (Some(agents), Some(connected)) = (&settings.agents, connected) else {
            attesting.remove(&settings.domain, name, &uid);
            return;
        };
        let cluster = AttestingCluster {
            owner: Some(uid),
            settings: Arc::new(agents.clone()),
            reviews: Reviews::new(connected.connection.context.client.clone()),
            turns: Arc::clone(&connected.connection.reviews),
        };
        attesting.set(&settings.domain, name, cluster);
    }

    /// Says what is to be published in the cluster.
    fn wish(&self, wish: &Wish) {
        let Some(Connected { connection, .. }) = &self.connection else {
            return;
        };
        connection.wish.send_if_modified(|old| {
            let changed = old != wish;
            old.clone_from(wish);
            changed
        });
    }

    fn look(
        &self,
        settings: &ClusterSettings,
        identities: &Identities,
        kubeconfig_problem: Option<Problem>,
    ) -> Seen {
        let connected = self.connection.as_ref();
        let kubeconfig = connected.map(|connected| &connected.kubeconfig);
        let contact = connected.map(|it| it.connection.contact.borrow().clone());
        let agents = self.agents(&settings.domain, settings.scope.bounds.cluster_name());
        let uid = contact.as_ref().and_then(|contact| contact.uid.as_ref());
        let all = self.objects.all();
        let twin = all.iter().find(|other| {
            let found = other.status.as_ref().and_then(|it| it.cluster_uid.as_ref());
            other.spec.trust_domain_ref.name == settings.domain
                && other.name_any() != self.name
                && uid.is_some_and(|uid| found == Some(uid))
        });
        Seen {
            spec_problem: None,
            wired: None,
            twin: twin.map(|twin| twin.name_any()),
            kubeconfig_problem,
            is_connected: connected.is_some(),
            server: kubeconfig.map(|it| it.server.url.as_str().to_owned()),
            expires_at: kubeconfig.and_then(ChildKubeconfig::credential_expires_at),
            contact: contact.unwrap_or_default(),
            published: connected.map(|it| it.connection.published.borrow().clone()),
            unseen: identities.missing(&settings.domain),
            is_open: settings.scope.bounds.is_open(),
            has_servers: settings.has_servers(),
            pods: identities.pod_count(&settings.domain),
            entries: identities.entry_count(&settings.domain),
            agents: agents.len(),
        }
    }

    /// The records of the cluster's agents.
    pub(super) fn agents(&self, domain: &str, cluster: &str) -> Vec<Arc<AttestedAgent>> {
        let domain = label_value(domain);
        let mut agents = self.context.caches.agents.all();
        agents.retain(|agent| {
            let id = agent.spec.id.parse().ok();
            agent.labels().get(TRUST_DOMAIN_LABEL) == Some(&domain)
                && id.is_some_and(|id| agents_cluster(&id) == Some(cluster))
        });
        agents
    }

    pub(super) fn leads(&self) -> bool {
        *self.context.leadership.borrow()
    }

    async fn write_status(
        &self,
        object: &NestedCluster,
        status: NestedClusterStatus,
    ) -> Result<(), ReconcileError> {
        if !self.leads() || object.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let objects = Api::<NestedCluster>::all(self.context.client.clone());
        let mut object = object.clone();
        object.metadata.managed_fields = None;
        object.status = Some(status);
        match call(objects.replace_status(&self.name, &PostParams::default(), &object)).await {
            Ok(_) => Ok(()),
            // What is there now comes as news.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            Err(source) => Err(ReconcileError::Write { source }),
        }
    }
}

async fn next_contact(connected: Option<&mut Connected>) {
    if let Some(connected) = connected {
        let Connection {
            contact, published, ..
        } = &mut connected.connection;
        // Either fails only once the connection has ended, and never comes back then.
        tokio::select! {
            Ok(()) = contact.changed() => return,
            Ok(()) = published.changed() => return,
            else => {}
        }
    }
    std::future::pending::<()>().await;
}
