//! TrustDomains: one worker each, so that a broken one never holds up another.
//!
//! A worker parses the object ([`crate::domains`]), claims it ([`claim`]), takes its authority forward ([`authority`]),
//! publishes the bundle ([`publish`], [`copies`]), runs the signer of pod certificates, and reports
//! ([`status`]).

mod authority;
mod claim;
mod copies;
mod jwt_keys;
mod publish;
mod published;
mod reconcile;
mod rights;
mod serve;
mod server;
mod status;
mod status_conditions;
mod sweep;
mod upstream;
mod withdraw;
mod worker;

pub use published::{MANAGED_BY, MANAGED_BY_LABEL, TRUST_DOMAIN_LABEL, labels};

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::controllers::trust_domain::worker::Worker;
use crate::runtime::backoff::Backoff;
use crate::runtime::context::Context;
use crate::runtime::health::Health;

/// What readiness waits for.
const TRUST_DOMAINS: &str = "trust domains";
const SECRETS: &str = "Secrets";

/// Starts a worker for every TrustDomain, now and later.
pub fn start(context: &Context, health: &Health, tasks: &mut JoinSet<()>) {
    health.expect(TRUST_DOMAINS);
    health.expect(SECRETS);
    tasks.spawn(supervise(context.clone(), health.clone()));
}

async fn supervise(context: Context, health: Health) {
    let shared = context.caches.clone();
    let mut changes = shared.trust_domains.changes();
    let mut secrets = shared.secrets.changes();
    let mut waits_for_secrets = true;
    let mut workers: BTreeMap<String, (String, AbortOnDropHandle<()>)> = BTreeMap::new();
    loop {
        if shared.trust_domains.is_complete() {
            let current: BTreeMap<String, String> = shared
                .trust_domains
                .all()
                .iter()
                .map(|object| {
                    let metadata = &object.metadata;
                    let uid = metadata.uid.clone().unwrap_or_default();
                    (metadata.name.clone().unwrap_or_default(), uid)
                })
                .collect();
            let is_gone = |name: &String, uid: &String| current.get(name) != Some(uid);
            let gone = workers.extract_if(.., |name, (uid, _)| is_gone(name, uid));
            for (name, (_, worker)) in gone.collect::<Vec<_>>() {
                worker.abort();
                // Only once it has ended does it not serve the trust domain again.
                let _ = worker.await;
                context.signers.set(&name, None);
                context.identities.remove_domain(&name);
            }
            for (name, uid) in current {
                workers.entry(name.clone()).or_insert_with(|| {
                    let work = work(context.clone(), name);
                    (uid, AbortOnDropHandle::new(tokio::spawn(work)))
                });
            }
            health.done(TRUST_DOMAINS);
        }
        tokio::select! {
            news = changes.changed() => if news.is_err() { return },
            listed = secrets.wait_for(|changes| *changes > 0), if waits_for_secrets => {
                if listed.is_err() {
                    return;
                }
                waits_for_secrets = false;
                health.done(SECRETS);
            }
        }
    }
}

/// Works on the TrustDomain `name`. A worker that breaks off, which is a bug, is replaced, and holds
/// up no other.
async fn work(context: Context, name: String) {
    let mut backoff = Backoff::default();
    loop {
        let worker = Worker::new(context.clone(), name.clone());
        // Nothing of the worker is looked at again.
        let _ = AssertUnwindSafe(Box::pin(worker.run()))
            .catch_unwind()
            .await;
        tracing::error!(trust_domain = name, "a worker broke off; starting another");
        backoff.failed(());
        backoff.next_due().await;
    }
}
