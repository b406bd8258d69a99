//! The server of a TrustDomain: runs as long as the object asks for it, with what is known now.

use std::net::SocketAddr;
use std::sync::Arc;

use kube::ResourceExt;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::api::TrustDomain;
use crate::authority::{Authority, AuthoritySettings};
use crate::controllers::trust_domain::published::{labels, owner_reference};
use crate::domains::{DomainSettings, ServerSettings};
use crate::runtime::context::Context;
use crate::server::{self, Addresses, Listening, ServerContext};
use crate::store::{AuthorityCommands, AuthorityStore, DomainStores};

/// The server of one TrustDomain, where it has one.
#[derive(Default)]
pub(super) struct ServerRunner {
    running: Option<Running>,
}

struct Running {
    port: u16,
    /// Whether what it writes goes with the object.
    goes_with_object: bool,
    settings: watch::Sender<Arc<ServerSettings>>,
    authority: watch::Sender<Option<Arc<Authority>>>,
    authority_settings: watch::Sender<AuthoritySettings>,
    listening: watch::Receiver<Listening>,
    task: AbortOnDropHandle<()>,
}

impl ServerRunner {
    /// Runs the server with what is known now, or ends it.
    pub(super) fn run(
        &mut self,
        context: &Context,
        object: &TrustDomain,
        settings: &DomainSettings,
        authority: Option<&Arc<Authority>>,
    ) {
        let Some(wanted) = &settings.server else {
            self.stop();
            return;
        };
        if let Some(running) = &self.running
            && running.port == wanted.port
            && running.goes_with_object == settings.goes_with_object()
            && !running.task.is_finished()
        {
            running.settings.send_if_modified(|old| {
                let changed = **old != *wanted;
                if changed {
                    *old = Arc::new(wanted.clone());
                }
                changed
            });
            running.authority_settings.send_if_modified(|old| {
                let wanted = settings.authority_settings();
                let changed = *old != wanted;
                *old = wanted;
                changed
            });
            running.authority.send_if_modified(|old| {
                let changed = !is_same(old.as_deref(), authority.map(AsRef::as_ref));
                if changed {
                    *old = authority.cloned();
                }
                changed
            });
            return;
        }
        // The port is free again once the task has ended.
        self.stop();
        self.running = Some(start(context, object, settings, wanted, authority.cloned()));
    }

    /// Ends the server.
    pub(super) fn stop(&mut self) {
        self.running = None;
    }

    /// Whether the server listens, where there is one.
    pub(super) fn listening(&self) -> Listening {
        let running = self.running.as_ref();
        running.map_or_else(Listening::default, |it| it.listening.borrow().clone())
    }

    /// Waits until [`Self::listening`] changes.
    pub(super) async fn changed(&mut self) {
        if let Some(running) = &mut self.running
            && running.listening.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

fn start(
    context: &Context,
    object: &TrustDomain,
    settings: &DomainSettings,
    wanted: &ServerSettings,
    authority: Option<Arc<Authority>>,
) -> Running {
    let (settings_sender, settings_receiver) = watch::channel(Arc::new(wanted.clone()));
    let (authority_sender, authority_receiver) = watch::channel(authority);
    let (of_authority, of_authority_receiver) = watch::channel(settings.authority_settings());
    let (listening_sender, listening) = watch::channel(Listening::default());
    let name = object.name_any();
    let stores = stores(context, object, settings);
    let commands = AuthorityCommands::new(
        AuthorityStore::new(context.client.clone(), &context.namespace),
        &name,
        settings.trust_domain.clone(),
        of_authority_receiver,
        authority_receiver.clone(),
    );
    let admin_socket = context.server.admin_socket.as_ref();
    let addresses = Addresses {
        tcp: SocketAddr::new(context.server.ip, wanted.port),
        admin_socket: admin_socket.map(|path| path.replace("{name}", &name).into()),
    };
    let server = ServerContext::new(
        name,
        settings.trust_domain.clone(),
        settings_receiver,
        authority_receiver,
        commands,
        stores,
        context.clone(),
    );
    let task = server::run(Arc::new(server), addresses, listening_sender);
    Running {
        port: wanted.port,
        goes_with_object: settings.goes_with_object(),
        settings: settings_sender,
        authority: authority_sender,
        authority_settings: of_authority,
        listening,
        task: AbortOnDropHandle::new(tokio::spawn(task)),
    }
}

/// What the server keeps.
pub(super) fn stores(
    context: &Context,
    object: &TrustDomain,
    settings: &DomainSettings,
) -> DomainStores {
    let name = object.name_any();
    let owner = settings.goes_with_object().then(|| owner_reference(object));
    DomainStores::new(
        &context.client,
        &context.namespace,
        &context.caches,
        &name,
        &settings.trust_domain,
        &labels(&name),
        owner.as_ref(),
    )
}

/// Whether both sign alike.
fn is_same(one: Option<&Authority>, other: Option<&Authority>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.is_same(other),
        (one, other) => one.is_none() && other.is_none(),
    }
}
