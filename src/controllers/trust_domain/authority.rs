//! The authority of one TrustDomain: read from its Secret, taken forward by the leader.
//!
//! What is decided is in [`crate::authority`]; what is here reads, writes, and says what is wrong.
//! An authority that is in memory goes on signing whatever becomes of its Secret.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client};
use tokio::task::{JoinError, spawn_blocking};

use crate::api::TrustDomain;
use crate::authority::{AdvanceError, CertificateAuthority, Done, Edition, Journal, advance};
use crate::clusters::{CallError, call};
use crate::controllers::trust_domain::published::labels;
use crate::domains::{DomainSettings, REPLACE_AUTHORITY_ANNOTATION};
use crate::spiffe::Fingerprint;
use crate::store::{AuthorityStore, LoadError, SaveError, StoredJournal, wipe};

/// What is wrong with an authority, for its condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Why the authority could not be looked after; to be tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    #[error("the work on the authority was cut off")]
    Aborted { source: JoinError },
    #[error("cannot take the authority forward")]
    Advance { source: AdvanceError },
    #[error("cannot read the Secret of the CA")]
    Candidate { source: CallError },
    #[error(transparent)]
    Load { source: LoadError },
    #[error(transparent)]
    Save { source: SaveError },
}

/// Keeps the authority of one TrustDomain object.
pub(super) struct AuthorityKeeper {
    store: AuthorityStore,
    secrets: Api<Secret>,
    owner: String,
    /// What was last read or written.
    stored: Option<StoredJournal>,
    /// The last journal that was good, whatever became of its Secret.
    journal: Option<Journal>,
}

impl AuthorityKeeper {
    pub(super) fn new(client: Client, namespace: &str, owner: &str) -> Self {
        Self {
            store: AuthorityStore::new(client.clone(), namespace),
            secrets: Api::namespaced(client, namespace),
            owner: owner.into(),
            stored: None,
            journal: None,
        }
    }

    /// The journal as it is now.
    pub(super) fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// Has the Secret read again although it may not have changed.
    pub(super) fn forget_version(&mut self) {
        self.stored = None;
    }

    /// Reads the Secret, unless `version` says that it is the one in memory.
    pub(super) async fn refresh(
        &mut self,
        settings: &DomainSettings,
        version: Option<&str>,
    ) -> Result<Option<Problem>, KeepError> {
        if version.is_some() && self.stored.as_ref().and_then(StoredJournal::version) == version {
            return Ok(None);
        }
        match self.store.load(&self.owner, &settings.trust_domain).await {
            Ok(stored) => {
                if let Some(stored) = &stored {
                    self.journal = Some(stored.journal.clone());
                }
                self.stored = stored;
                Ok(None)
            }
            Err(error @ LoadError::Damaged { .. }) => Ok(Some(Problem {
                reason: "KeysDamaged",
                message: crate::error_chain(&error),
            })),
            Err(source) => Err(KeepError::Load { source }),
        }
    }

    /// The CA in the Secret that the TrustDomain names, or what is wrong with it.
    pub(super) async fn candidate(
        &self,
        settings: &DomainSettings,
        now: Timestamp,
    ) -> Result<Result<Option<Arc<CertificateAuthority>>, Problem>, KeepError> {
        let Some(reference) = &settings.authority.secret_ref else {
            return Ok(Ok(None));
        };
        let name = &reference.name;
        let secret = call(self.secrets.get_opt(name))
            .await
            .map_err(|source| KeepError::Candidate { source })?;
        let Some(mut secret) = secret else {
            let message = format!("Secret {name} does not exist in the operator's namespace");
            return Ok(Err(Problem {
                reason: "SecretMissing",
                message,
            }));
        };
        let data: BTreeMap<String, Vec<u8>> = secret
            .data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.0.clone()))
            .collect();
        wipe(&mut secret);
        let imported = CertificateAuthority::import(&data, &settings.trust_domain, now);
        data.into_values()
            .for_each(|mut value| zeroize::Zeroize::zeroize(&mut value));
        Ok(imported
            .map(|ca| Some(Arc::new(ca)))
            .map_err(|error| Problem {
                reason: error.reason(),
                message: format!("Secret {name}: {}", crate::error_chain(&error)),
            }))
    }

    /// Why a new authority must not begin although there is none: the TrustDomain had one, whose
    /// keys are lost, and nobody has consented to another. With a `candidate` that is one of those
    /// it had, nothing that verifiers trust is replaced.
    pub(super) fn lost(
        &self,
        trust_domain: &TrustDomain,
        candidate: Option<&CertificateAuthority>,
    ) -> Option<Problem> {
        if self.journal.is_some() {
            return None;
        }
        let authorities = &trust_domain.status.as_ref()?.authorities;
        let known = authorities.first()?;
        let candidate = candidate.map(|ca| ca.certificates().certificate().key_id().to_string());
        if candidate.is_some_and(|id| authorities.iter().any(|known| known.id == id)) {
            return None;
        }
        let consent = trust_domain
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(REPLACE_AUTHORITY_ANNOTATION));
        if consent == Some(&known.id) {
            return None;
        }
        let message = format!(
            "Secret {} with the keys of this trust domain is gone; restore it from a backup, or \
             consent to a new authority, which every workload must come to trust anew: kubectl \
             annotate trustdomain {} {REPLACE_AUTHORITY_ANNOTATION}={}",
            AuthorityStore::secret_name(&self.owner),
            self.owner,
            known.id
        );
        Some(Problem {
            reason: "KeysLost",
            message,
        })
    }

    /// What to say when `published` is later than the journal, as after an old backup was restored.
    /// Going on from there would end in roots disappearing that the later journal had.
    pub(super) fn outdated(&self, published: &Edition) -> Problem {
        let message = format!(
            "the ClusterTrustBundle holds the bundle of sequence {}, which is later than that of \
             Secret {}; restore the newest backup of the Secret, or delete the ClusterTrustBundle \
             to go on from here",
            published.sequence,
            AuthorityStore::secret_name(&self.owner)
        );
        Problem {
            reason: "KeysOutdated",
            message,
        }
    }

    /// The journal to go on from; one without authorities where there is none.
    pub(super) fn journal_or_new(&self, settings: &DomainSettings) -> Journal {
        match &self.journal {
            Some(journal) => journal.clone(),
            None => Journal::new(settings.trust_domain.clone()),
        }
    }

    /// Takes the authority forward from `from`, the journal or what news made of it, as far as it goes
    /// now, and writes what came of it. Gives what was done.
    pub(super) async fn take_forward(
        &mut self,
        settings: &DomainSettings,
        from: Journal,
        published: &BTreeSet<Fingerprint>,
        candidate: Option<&Arc<CertificateAuthority>>,
        owner: &OwnerReference,
        now: Timestamp,
    ) -> Result<Vec<Done>, KeepError> {
        let policy = settings.authority_settings();
        let begun = self.journal.as_ref().map(Journal::sequence);
        let is_news = begun.unwrap_or_default() != from.sequence();
        let journal = from;
        let (published, candidate) = (published.clone(), candidate.cloned());
        // Making an RSA key takes seconds.
        let (journal, advanced) = spawn_blocking(move || {
            let advanced = advance(&journal, &policy, &published, candidate.as_ref(), now);
            (journal, advanced)
        })
        .await
        .map_err(|source| KeepError::Aborted { source })?;
        let (journal, done) = match advanced.map_err(|source| KeepError::Advance { source })? {
            Some(advanced) => (advanced.journal, advanced.done),
            None => (journal, Vec::new()),
        };
        let owner = settings.goes_with_object().then(|| owner.clone());
        let as_it_should_be = self
            .stored
            .as_ref()
            .is_some_and(|stored| stored.is_owned_by(owner.as_ref()));
        if done.is_empty() && !is_news && (as_it_should_be || self.journal.is_none()) {
            return Ok(done);
        }
        let previous = self.stored.as_ref();
        let stored = self
            .store
            .save(&self.owner, journal, previous, labels(&self.owner), owner)
            .await
            .map_err(|source| KeepError::Save { source })?;
        self.journal = Some(stored.journal.clone());
        self.stored = Some(stored);
        Ok(done)
    }
}
