//! The server above a TrustDomain: asked by the leader, for as long as the object names one.

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::TrustDomain;
use crate::authority::{Journal, Observed, wants_upstream_ca};
use crate::controllers::trust_domain::published::{labels, owner_reference};
use crate::domains::{DomainSettings, UpstreamSettings};
use crate::runtime::context::Context;
use crate::spiffe::{Bundle, Fingerprint};
use crate::store::UpstreamMaterial;
use crate::upstream::{self, CaWish, Told, Upstream, Wishes};

/// The server above one TrustDomain, where it has one.
#[derive(Default)]
pub(super) struct UpstreamRunner {
    running: Option<Running>,
}

struct Running {
    settings: UpstreamSettings,
    /// Whether what it keeps goes with the object.
    goes_with_object: bool,
    wishes: watch::Sender<Wishes>,
    told: watch::Receiver<Told>,
    task: AbortOnDropHandle<()>,
}

impl UpstreamRunner {
    /// Asks the server above for what `wishes` say, where there is one, and gives what it has told so
    /// far.
    pub(super) fn ask(
        &mut self,
        context: &Context,
        object: &TrustDomain,
        settings: &DomainSettings,
        wishes: Wishes,
    ) -> Option<Told> {
        let Some(wanted) = &settings.upstream else {
            self.stop();
            return None;
        };
        let running = match self.running.take() {
            Some(running) if running.serves(wanted, settings.goes_with_object()) => running,
            _ => start(context, object, settings, wanted),
        };
        running.wishes.send_if_modified(|known| {
            let is_news = *known != wishes;
            *known = wishes;
            is_news
        });
        let running = self.running.insert(running);
        Some(running.told.borrow_and_update().clone())
    }

    /// Asks no more.
    pub(super) fn stop(&mut self) {
        self.running = None;
    }

    /// Waits until the server above has told more.
    pub(super) async fn changed(&mut self) {
        if let Some(running) = &mut self.running
            && running.told.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

impl Running {
    fn serves(&self, wanted: &UpstreamSettings, goes_with_object: bool) -> bool {
        self.settings == *wanted
            && self.goes_with_object == goes_with_object
            && !self.task.is_finished()
    }
}

fn start(
    context: &Context,
    object: &TrustDomain,
    settings: &DomainSettings,
    wanted: &UpstreamSettings,
) -> Running {
    let name = object.name_any();
    let goes_with_object = settings.goes_with_object();
    let material = UpstreamMaterial::new(
        context.client.clone(),
        &context.namespace,
        &name,
        settings.trust_domain.clone(),
        labels(&name),
        goes_with_object.then(|| owner_reference(object)),
    );
    let upstream = Upstream {
        trust_domain: settings.trust_domain.clone(),
        settings: wanted.clone(),
        material,
        token_folder: context.token_folder.clone(),
    };
    let (wishes, receiver) = watch::channel(Wishes::default());
    let (telling, told) = watch::channel(Told::default());
    let task = upstream::run(upstream, receiver, telling);
    Running {
        settings: wanted.clone(),
        goes_with_object,
        wishes,
        told,
        task: AbortOnDropHandle::new(tokio::spawn(task)),
    }
}

/// What a trust domain with `journal`, of which the roots `published` are known to be, wishes of the
/// server above at `now`.
pub(super) fn wishes(
    journal: &Journal,
    settings: &DomainSettings,
    published: &BTreeSet<Fingerprint>,
    now: Timestamp,
) -> Wishes {
    let policy = settings.authority_settings();
    let distrusted = journal.distrusted_roots();
    let observed = Observed {
        now,
        published,
        candidate: None,
        distrusted: &distrusted,
    };
    let ca = wants_upstream_ca(journal.ledger(), &policy.policy, &observed).then_some(CaWish {
        key_type: policy.key_type,
        ttl: policy.ca_ttl,
    });
    Wishes {
        ca,
        known: known(journal).map(Arc::new),
        jwt_keys: journal.jwt_keys_for_upstream(now),
    }
}

/// The roots that the server above had when it was last asked.
fn known(journal: &Journal) -> Option<Bundle> {
    let roots: Vec<_> = journal.upstream().roots().collect();
    if roots.is_empty() {
        return None;
    }
    let certificates = roots.iter().map(|root| root.certificate.clone());
    let bundle = Bundle::new(journal.trust_domain().clone(), certificates, 0).ok()?;
    Some(bundle.with_tainted(|certificate| {
        let mut roots = roots.iter();
        roots.any(|root| root.tainted && root.certificate == *certificate)
    }))
}
