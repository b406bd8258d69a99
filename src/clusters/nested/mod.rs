//! Nested clusters: a client and tasks for each, so that none waits for another.

mod agents;
mod bundle;
mod contact;

use std::sync::Arc;
use std::time::Duration;

use kube::Config;
use kube::config::KubeConfigOptions;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

pub use agents::{AttestingCluster, AttestingClusters};
pub use bundle::{Published, Wish, withdraw};
pub use contact::{Contact, Trouble};

use crate::clusters::certificates_api::{self, CertificatesApi};
use crate::clusters::identities::Identities;
use crate::clusters::incarnation::Incarnation;
use crate::clusters::observe;
use crate::clusters::pod_certificates::Signer;
use crate::domains::label_value;
use crate::nested::kubeconfig::ChildKubeconfig;
use crate::runtime::client::{ClientError, build};
use crate::runtime::context::Context;
use crate::runtime::health::Health;

/// Most tokens that a cluster is asked about at a time.
pub const MAX_REVIEWS: usize = 32;
/// How often a cluster is asked whether it is there.
const PERIOD: Duration = Duration::from_secs(5);

/// A nested cluster that is being watched, for as long as this lives.
pub struct Connection {
    /// The client, and what else its tasks need.
    pub context: Context,
    /// What is known of its API server.
    pub contact: watch::Receiver<Contact>,
    /// What became of the bundle there.
    pub published: watch::Receiver<Published>,
    /// Turns for asking it whose a token is.
    pub reviews: Arc<Semaphore>,
    /// What is to be published there.
    pub wish: watch::Sender<Wish>,
    _work: AbortOnDropHandle<()>,
}

impl Connection {
    /// Begins to watch the cluster that `kubeconfig` leads to, into `identities`, and to serve the
    /// TrustDomain object `domain` there, for the NestedCluster `name`. A cluster that is
    /// not the one with `uid`, where that is given, is not listened to. Where `has_servers`, its pods'
    /// certificates and its ClusterTrustBundle are left to those.
    ///
    /// # Errors
    /// When no client can be made of the kubeconfig. The cluster itself is not asked.
    pub async fn start(
        context: &Context,
        kubeconfig: &ChildKubeconfig,
        identities: Arc<Identities>,
        [domain, name]: [&str; 2],
        uid: Option<String>,
        has_servers: bool,
    ) -> Result<Self, ClientError> {
        let options = KubeConfigOptions::default();
        let document = kubeconfig.to_client_kubeconfig();
        let client = build(Config::from_custom_kubeconfig(document, &options).await?)?;
        let (discovered, certificates_api) = watch::channel(None);
        let (recorder, publish_events) = context.recorder.of_cluster(client.clone());
        let context = Context {
            client: client.clone(),
            identities,
            recorder,
            certificates_api,
            ..context.clone()
        };
        let (told, contact) = watch::channel(Contact {
            uid,
            ..Contact::default()
        });
        let signer = context.signers.of(domain);
        let (wish, wished) = watch::channel(None);
        let (told_published, published) = watch::channel(Published::default());
        let serving = Serving {
            owner: label_value(name),
            discovered,
            has_servers,
            signer,
            wished,
            told: told_published,
        };
        let work = work(context.clone(), serving, told);
        let work = Box::pin(work);
        let work = async { tokio::join!(work, publish_events) };
        Ok(Self {
            context,
            contact,
            published,
            reviews: Arc::new(Semaphore::new(MAX_REVIEWS)),
            wish,
            _work: AbortOnDropHandle::new(tokio::spawn(async move {
                work.await;
            })),
        })
    }
}

/// What is needed to publish and sign in a nested cluster.
#[derive(Clone)]
struct Serving {
    owner: String,
    discovered: watch::Sender<Option<CertificatesApi>>,
    has_servers: bool,
    signer: watch::Receiver<Option<Signer>>,
    wished: watch::Receiver<Wish>,
    told: watch::Sender<Published>,
}

impl Serving {
    async fn run(self, context: Context) {
        if self.has_servers {
            // As if it had neither kind.
            self.discovered
                .send_replace(Some(CertificatesApi::default()));
            bundle::serve(context, self.owner, self.signer, self.wished, self.told).await;
            return;
        }
        let discover = certificates_api::keep_discovering(context.client.clone(), self.discovered);
        let serve = bundle::serve(context, self.owner, self.signer, self.wished, self.told);
        tokio::join!(discover, serve);
    }
}

/// Keeps contact; watches and serves for as long as no other cluster answers.
async fn work(context: Context, serving: Serving, told: watch::Sender<Contact>) {
    let mut tasks = JoinSet::new();
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let known = told.borrow().clone();
        let contact = known.renewed(&context.client).await;
        if let Some(ended) = tasks.try_join_next() {
            let error = ended.err().map(|error| error.to_string());
            tracing::error!(
                error,
                "a task of a nested cluster broke off; starting all anew"
            );
            tasks.shutdown().await;
        }
        if matches!(contact.trouble, Some(Trouble::OtherCluster { .. })) {
            tasks.shutdown().await;
        }
        if tasks.is_empty()
            && contact.is_made()
            && let Some(uid) = &contact.uid
        {
            let context = Context {
                incarnation: Incarnation::Of {
                    client: context.client.clone(),
                    uid: uid.clone(),
                },
                ..context.clone()
            };
            // That of the process waits for no nested cluster.
            observe::pods(&context, &Health::default(), &mut tasks);
            tasks.spawn(serving.clone().run(context));
        }
        told.send_if_modified(|old| {
            let changed = *old != contact;
            *old = contact;
            changed
        });
    }
}
