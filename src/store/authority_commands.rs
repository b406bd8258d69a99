//! Commands on the authorities of one trust domain, carried out by whichever replica is asked: read
//! the Secret, apply the command, write with the `resourceVersion` that was read, and begin again
//! where somebody else was faster. Whoever takes the authority forward sees the result by its watch.
//!
//! What a command may do is in [`crate::authority::Command`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use crate::authority::{
    Authority, AuthorityError, AuthoritySettings, Command, CommandError, Journal,
};
use crate::runtime::clock;
use crate::spiffe::TrustDomainName;
use crate::store::{AuthorityStore, LoadError, SaveError};

/// How often a command is tried again because somebody else wrote first.
const ATTEMPTS: u32 = 16;
/// How long it pauses after that, times the number of the attempt.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a new authority that is to be activated is waited for to be published: `spire-server
/// localauthority … prepare` and `activate` follow each other in scripts.
const PUBLICATION: Duration = Duration::from_secs(10);
/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(250);
/// How long this replica is waited for to serve what a command made.
const SEEN: Duration = Duration::from_secs(5);

/// The commands of one trust domain.
#[derive(Clone)]
pub struct AuthorityCommands {
    store: AuthorityStore,
    object: String,
    trust_domain: TrustDomainName,
    settings: watch::Receiver<AuthoritySettings>,
    authority: watch::Receiver<Option<Arc<Authority>>>,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityCommandError {
    /// The work was cut off.
    #[error("the command was cut off")]
    Aborted {
        /// Why.
        source: JoinError,
    },
    /// Others wrote first, again and again.
    #[error("the authority is being changed by others; try again")]
    Contended,
    /// The authority cannot be read.
    #[error(transparent)]
    Load {
        /// Why.
        source: LoadError,
    },
    /// There is no authority yet.
    #[error("there is no authority yet")]
    NotInitialized,
    /// A rule forbids it.
    #[error(transparent)]
    Refused {
        /// Which.
        source: CommandError,
    },
    /// The result cannot be written.
    #[error(transparent)]
    Save {
        /// Why.
        source: SaveError,
    },
}

impl AuthorityCommands {
    /// Commands on the authority of the TrustDomain `object`, which follow its `settings`.
    /// `authority` is what this replica serves.
    #[must_use]
    pub fn new(
        store: AuthorityStore,
        object: &str,
        trust_domain: TrustDomainName,
        settings: watch::Receiver<AuthoritySettings>,
        authority: watch::Receiver<Option<Arc<Authority>>>,
    ) -> Self {
        Self {
            store,
            object: object.into(),
            trust_domain,
            settings,
            authority,
        }
    }

    /// The journal as it is stored, whatever this replica has seen of it.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub async fn journal(&self) -> Result<Journal, AuthorityCommandError> {
        let stored = self.store.load(&self.object, &self.trust_domain).await;
        match stored {
            Ok(Some(stored)) => Ok(stored.journal),
            Ok(None) => Err(AuthorityCommandError::NotInitialized),
            Err(source) => Err(AuthorityCommandError::Load { source }),
        }
    }

    /// Carries `command` out, and gives the journal that is stored then. On return this replica
    /// serves what came of it, unless it is kept from that.
    ///
    /// # Errors
    /// When a rule forbids the command, or the API server is away.
    pub async fn execute(&self, command: Command) -> Result<Journal, AuthorityCommandError> {
        let command = Arc::new(command);
        let publication = Instant::now() + PUBLICATION;
        let mut attempt = 0;
        loop {
            match self.attempt(&command).await {
                Err(AuthorityCommandError::Save {
                    source: SaveError::Conflict { .. },
                }) => {
                    attempt += 1;
                    if attempt == ATTEMPTS {
                        return Err(AuthorityCommandError::Contended);
                    }
                    sleep(PAUSE * attempt).await;
                }
                Err(error) if error.is_not_published() && Instant::now() < publication => {
                    sleep(LOOK).await;
                }
                Err(error) => return Err(error),
                Ok(journal) => {
                    let command = command.to_string();
                    tracing::info!(trust_domain = self.object, command, "command carried out");
                    self.until_served(&journal).await;
                    return Ok(journal);
                }
            }
        }
    }

    async fn attempt(&self, command: &Arc<Command>) -> Result<Journal, AuthorityCommandError> {
        let stored = self.store.load(&self.object, &self.trust_domain).await;
        let stored = stored.map_err(|source| AuthorityCommandError::Load { source })?;
        let stored = stored.ok_or(AuthorityCommandError::NotInitialized)?;
        let settings = self.settings.borrow().clone();
        let (command, journal) = (Arc::clone(command), stored.journal.clone());
        // Making an RSA key takes seconds.
        let applied = spawn_blocking(move || command.apply(&journal, &settings, clock::now()))
            .await
            .map_err(|source| AuthorityCommandError::Aborted { source })?
            .map_err(|source| AuthorityCommandError::Refused { source })?;
        let Some(journal) = applied else {
            return Ok(stored.journal);
        };
        let replaced = self.store.replace(&self.object, journal, &stored).await;
        match replaced {
            Ok(stored) => Ok(stored.journal),
            Err(source) => Err(AuthorityCommandError::Save { source }),
        }
    }

    /// A replica that may not sign by the new authority yet, or has an API server that is slow, is
    /// not waited for any longer: what was stored is stored.
    async fn until_served(&self, journal: &Journal) {
        let mut authority = self.authority.clone();
        let serves = authority.wait_for(|authority| {
            authority
                .as_ref()
                .is_some_and(|it| it.is_as_late_as(journal))
        });
        let _ = timeout(SEEN, serves).await;
    }
}

impl AuthorityCommandError {
    fn is_not_published(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                source: CommandError::Authority {
                    source: AuthorityError::NotPublished
                }
            }
        )
    }
}
