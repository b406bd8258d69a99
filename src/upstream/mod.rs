//! The server above a trust domain: a client of a spire-server that makes us a server below it.
//!
//! One task for each trust domain that has one, on the leader only. It shows who we are ([`identity`])
//! and keeps that valid, asks for the bundle every 5 s (SPIRE), publishes our JWT keys, and has a CA
//! signed when one is wished for ([`parent`]). The server above is known by the trust domain's bundle
//! and by nothing else ([`tls`]).
//!
//! What is wished for, and what becomes of what it gets, is not here: [`crate::authority`] decides
//! that, and the worker of the trust domain carries it out.

mod attest;
mod channel;
mod identity;
mod message;
mod parent;
mod problem;
mod svid;
mod tls;
mod workload_api;
mod x509pop;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::api::CaKeyType;
use crate::authority::CertificateAuthority;
use crate::domains::UpstreamSettings;
use crate::spiffe::{Bundle, JwtKey, TrustDomainName};
use crate::store::UpstreamMaterial;

use self::identity::Identity;
use self::parent::Answer;
pub use self::problem::UpstreamProblem;

/// How often the bundle is asked for (SPIRE).
const POLL: Duration = Duration::from_secs(5);
/// How long after a new wish it is looked at: several come together.
const COALESCE: Duration = Duration::from_millis(50);
/// The least that lies between two CAs that are asked for.
const BETWEEN_CAS: Duration = Duration::from_secs(10);
/// A pause after a failure is not longer than this, so that a server that is back is soon noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The server above, and what it takes to be known there.
#[derive(Clone)]
pub struct Upstream {
    /// The trust domain, which is its own, too.
    pub trust_domain: TrustDomainName,
    /// Where it is, and how it is shown who we are.
    pub settings: UpstreamSettings,
    /// Bundles, certificates and tokens that users bring, and what must be kept.
    pub material: UpstreamMaterial,
    /// Folder with tokens of our service account.
    pub token_folder: PathBuf,
}

/// What the trust domain wishes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// A CA.
    pub ca: Option<CaWish>,
    /// The bundle that it had when it was last asked, as it is stored: its roots are trusted besides
    /// those that users bring.
    pub known: Option<Arc<Bundle>>,
    /// JWT keys that it is to be told.
    pub jwt_keys: Vec<JwtKey>,
}

/// The CA that is wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaWish {
    /// Its key type.
    pub key_type: CaKeyType,
    /// How long it shall live.
    pub ttl: SignedDuration,
}

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Whether all went well when it was last asked; none before it was.
    pub outcome: Option<Result<(), UpstreamProblem>>,
    /// The last bundle that it gave.
    pub bundle: Option<Arc<Bundle>>,
    /// The last CA that it has signed.
    pub ca: Option<Arc<CertificateAuthority>>,
}

impl Told {
    /// Takes note of what was told, and gives whether that is news.
    fn take(&mut self, outcome: Result<(), UpstreamProblem>, answer: Option<Answer>) -> bool {
        let outcome = Some(outcome);
        let mut is_news = self.outcome != outcome;
        self.outcome = outcome;
        if let Some(Answer { bundle, ca, .. }) = answer {
            is_news |= ca.is_some() || self.bundle.as_ref() != Some(&bundle);
            self.bundle = Some(bundle);
            self.ca = ca.or_else(|| self.ca.take());
        }
        is_news
    }
}

/// Asks for ever for what `wishes` say, and tells what comes of it.
pub async fn run(
    upstream: Upstream,
    mut wishes: watch::Receiver<Wishes>,
    told: watch::Sender<Told>,
) {
    let mut identity = Identity::new(upstream);
    let mut failures = 0_u32;
    let mut next_ca = Instant::now();
    loop {
        let began = Instant::now();
        let current = wishes.borrow_and_update().clone();
        let may_ask = next_ca <= began;
        let ca = current.ca.filter(|_| may_ask);
        let asked = parent::ask(&mut identity, &current, ca).await;
        if ca.is_some() {
            next_ca = began + BETWEEN_CAS;
        }
        let (outcome, answer) = match asked {
            Ok(mut answer) => (answer.problem.take().map_or(Ok(()), Err), Some(answer)),
            Err(problem) => (Err(problem), None),
        };
        failures = match &outcome {
            Ok(()) => 0,
            Err(_) => failures.saturating_add(1),
        };
        told.send_if_modified(|told| told.take(outcome, answer));
        if told.is_closed() {
            return;
        }
        let pause = POLL.saturating_mul(failures.max(1)).min(LONGEST_PAUSE);
        tokio::select! {
            () = sleep_until(began + pause) => {}
            changed = wishes.changed(), if failures == 0 => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(COALESCE).await;
            }
        }
    }
}
