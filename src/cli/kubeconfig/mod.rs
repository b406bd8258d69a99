//! `spiffe-operator kubeconfig`: makes a kubeconfig for a nested cluster, or says what one is.
//!
//! [`create`] works on the cluster, [`output`] writes what came of it (pure), [`inspect`] reads what
//! somebody has, and [`describe`] puts that into words (pure).

mod create;
mod describe;
mod inspect;
mod output;

use std::process::ExitCode;

use clap::Subcommand;

/// What to do with a kubeconfig.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Let the operator into the cluster that kubectl would talk to, and make the kubeconfig for
    /// that: apply a service account with the least rights, and ask for a token of it.
    Create(create::Arguments),
    /// Say what a kubeconfig is, when its credential ends, and what it may do. Fails when the
    /// operator could not use it.
    Inspect(inspect::Arguments),
}

/// Does it.
pub(super) fn execute(command: &Command) -> Result<ExitCode, String> {
    match command {
        Command::Create(arguments) => create::execute(arguments),
        Command::Inspect(arguments) => inspect::execute(arguments),
    }
}

/// Runs a task to its end.
fn block_on<T>(task: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(task)
}
