//! Beside a stock SPIRE server: puts in place what the operator tells it of nested clusters, and has
//! it read its plugin data anew when that changed.
//!
//! The kubelet mounts a ConfigMap and a Secret; what they hold goes into a folder that the server
//! reads ([`plan`]: what, [`files`]: how). A running `spire-server` is sent SIGUSR1 ([`signals`]: when,
//! [`servers`]: to whom), and no process any other signal. What cannot be done is logged and tried
//! again; nothing ends the sidecar but SIGTERM.

mod files;
mod plan;
mod servers;
mod signals;

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

pub use files::FileError;
use files::Placed;
use signals::Ledger;

/// How often the mounts are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// The folders of a sidecar.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Where the ConfigMap is mounted.
    pub config: PathBuf,
    /// Where the Secret is mounted.
    pub secret: PathBuf,
    /// What the server reads: an absolute path, the same for the server.
    pub target: PathBuf,
}

/// Puts everything in place once, for a server that starts later.
///
/// # Errors
/// When a folder cannot be read or written.
pub fn place(folders: &Folders) -> Result<(), FileError> {
    let placed = files::place(folders)?;
    placed.log_changes();
    if let Some(problem) = placed.problem() {
        tracing::warn!("{problem}");
    }
    placed.remove(&folders.target)
}

/// Keeps everything in place until SIGTERM or SIGINT.
///
/// # Errors
/// When signals cannot be received.
pub async fn run(folders: &Folders) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut state = State::default();
    tracing::info!(target_dir = %folders.target.display(), "started");
    loop {
        tokio::select! {
            _ = period.tick() => state.step(folders),
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct State {
    ledger: Ledger,
    /// What was said last of each kind, so that it is not said every second.
    said: [Option<String>; 2],
}

impl State {
    fn step(&mut self, folders: &Folders) {
        let placed = match files::place(folders) {
            Ok(placed) => placed,
            Err(error) => {
                let words = crate::error_chain(&error);
                return self.say(0, Some(words));
            }
        };
        self.say(0, placed.problem());
        placed.log_changes();
        self.tell_servers(&placed);
        if let Err(error) = placed.remove(&folders.target) {
            tracing::warn!(error = crate::error_chain(&error), "a file stays");
        }
    }

    fn tell_servers(&mut self, placed: &Placed) {
        let Some(now) = servers::uptime() else {
            return self.say(1, Some("/proc/uptime cannot be read".into()));
        };
        self.ledger.changed(now, placed.age, placed.is_changed);
        let servers = servers::running();
        if servers.is_empty() {
            let words = "no spire-server runs here: the pod needs shareProcessNamespace: true";
            return self.say(1, Some(words.into()));
        }
        self.say(1, None);
        for server in servers {
            if !self.ledger.is_due(&server, now) {
                continue;
            }
            match servers::reload(&server) {
                Ok(()) => tracing::info!(pid = server.pid, "sent SIGUSR1 to spire-server"),
                Err(error) => tracing::error!(
                    pid = server.pid,
                    error = crate::error_chain(&error),
                    "cannot signal spire-server: the sidecar must run as the same user"
                ),
            }
            self.ledger.told(&server, now);
        }
    }

    /// Logs what is wrong when it is something else than before.
    fn say(&mut self, kind: usize, words: Option<String>) {
        let Some(said) = self.said.get_mut(kind) else {
            return;
        };
        if *said != words {
            match &words {
                Some(words) => tracing::warn!("{words}"),
                None => tracing::info!("what was wrong is no more"),
            }
        }
        *said = words;
    }
}
