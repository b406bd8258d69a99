//! What all calls of one trust domain's server share.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rustls_pki_types::CertificateDer;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::authority::Authority;
use crate::clusters::nested::MAX_REVIEWS;
use crate::domains::ServerSettings;
use crate::runtime::context::Context;
use crate::server::caller::Caller;
use crate::server::capped::Told;
use crate::server::rate_limit::{Limit, RateLimits};
use crate::server::turns::Turns;
use crate::server::workers::Workers;
use crate::spiffe::TrustDomainName;
use crate::store::{AuthorityCommands, DomainStores};

/// How long a watch may lag behind a write.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most calls at a time of strangers.
const MAX_STRANGERS: usize = 512;

/// One trust domain's server.
pub struct ServerContext {
    /// Name of the TrustDomain object.
    pub object: String,
    /// The trust domain.
    pub trust_domain: TrustDomainName,
    /// The TrustDomain's wishes.
    pub settings: watch::Receiver<Arc<ServerSettings>>,
    /// Who signs; none while the authority is not ready.
    pub authority: watch::Receiver<Option<Arc<Authority>>>,
    /// What may be done to the authorities.
    pub authority_commands: AuthorityCommands,
    /// What is kept of agents, join tokens and foreign trust domains.
    pub stores: DomainStores,
    /// What all tasks of the process share.
    pub process: Context,
    /// Who signs and does other work that keeps a core busy.
    pub workers: Workers,
    /// The server's own X.509-SVID, leaf first; empty while it has none.
    pub own_chain: watch::Sender<Vec<CertificateDer<'static>>>,
    /// When the server was started.
    pub started: Instant,
    limits: RateLimits,
    /// What was told of lifetimes that were cut short.
    pub(super) told_caps: Told,
    /// Turns for calls that cost memory before it is known who calls.
    pub(super) strangers: Turns,
    /// Turns for questions to a cluster whose token it is that somebody shows.
    pub(super) reviews: Arc<Semaphore>,
}

impl ServerContext {
    /// The server of `trust_domain`, which the TrustDomain `object` asks for.
    #[must_use]
    pub fn new(
        object: String,
        trust_domain: TrustDomainName,
        settings: watch::Receiver<Arc<ServerSettings>>,
        authority: watch::Receiver<Option<Arc<Authority>>>,
        authority_commands: AuthorityCommands,
        stores: DomainStores,
        process: Context,
    ) -> Self {
        Self {
            object,
            trust_domain,
            settings,
            authority,
            authority_commands,
            stores,
            process,
            workers: Workers::default(),
            own_chain: watch::Sender::default(),
            started: Instant::now(),
            limits: RateLimits::default(),
            told_caps: Told::default(),
            strangers: Turns::new(MAX_STRANGERS),
            reviews: Arc::new(Semaphore::new(MAX_REVIEWS)),
        }
    }

    /// Who signs now.
    ///
    /// # Errors
    /// `Unavailable` while nobody does.
    pub fn authority(&self) -> Result<Arc<Authority>, Status> {
        let authority = self.authority.borrow().clone();
        authority.ok_or_else(|| Status::unavailable("server is initializing: no CA signs yet"))
    }

    /// The TrustDomain's wishes now.
    #[must_use]
    pub fn settings(&self) -> Arc<ServerSettings> {
        self.settings.borrow().clone()
    }

    /// Waits for a while until this replica's registry knows that there is a bundle of `foreign`, or
    /// none if `is_there` is false; whether it does.
    pub async fn saw_foreign_bundle(&self, foreign: &TrustDomainName, is_there: bool) -> bool {
        self.saw_foreign_bundles(std::slice::from_ref(foreign), is_there)
            .await
    }

    /// The same of all `foreign`, which is waited for once.
    pub async fn saw_foreign_bundles(&self, foreign: &[TrustDomainName], is_there: bool) -> bool {
        let identities = &self.process.identities;
        let seen = foreign
            .iter()
            .map(|foreign| identities.saw_foreign_bundle(&self.object, foreign, is_there));
        timeout(PATIENCE, join_all(seen)).await.is_ok()
    }

    /// Waits until `caller` may do `count` of `limit`.
    ///
    /// # Errors
    /// `ResourceExhausted` when that is too much.
    pub async fn limit(
        &self,
        limit: Limit<'_>,
        caller: &Caller,
        count: usize,
    ) -> Result<(), Status> {
        let settings = self.settings();
        self.limits
            .wait(&settings.rate_limit, limit, caller, count)
            .await
    }
}
