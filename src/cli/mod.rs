//! The command line: subcommands and their flags, each flag with an environment twin.
//!
//! Parsing and printing only; what a subcommand does is in the library. Errors are one line that
//! says what to do.

mod crds;
pub mod render;
mod run;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// A Kubernetes operator that gives pods SPIFFE identities.
#[derive(Debug, Parser)]
#[command(name = "spiffe-operator", version, about, propagate_version = true)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator.
    Run(Box<run::Arguments>),
    /// Print all custom resource definitions as YAML, ready for `kubectl apply -f -`.
    Crds,
    /// Show which entries pods would get, without changing anything.
    Render(render::Arguments),
    /// Print the version.
    Version,
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

impl CommandLine {
    /// Runs the subcommand and gives the process's exit status.
    #[must_use]
    pub fn execute(self) -> ExitCode {
        let outcome = match self.command {
            Command::Run(arguments) => run::execute(*arguments),
            Command::Crds => crds::execute(),
            Command::Render(arguments) => render::execute(&arguments),
            Command::Version => print(&format!("spiffe-operator {}\n", env!("CARGO_PKG_VERSION"))),
            Command::Completion { shell } => {
                let mut script = Vec::new();
                let mut command = Self::command();
                clap_complete::generate(shell, &mut command, "spiffe-operator", &mut script);
                print(&String::from_utf8_lossy(&script))
            }
        };
        outcome.unwrap_or_else(|problem| {
            // Parsers like to add a picture of the place.
            let line = problem.lines().next().unwrap_or_default();
            eprintln!("spiffe-operator: {line}");
            ExitCode::FAILURE
        })
    }
}

/// Writes to standard output; a reader that has gone is no error.
fn print(text: &str) -> Result<ExitCode, String> {
    use std::io::{ErrorKind, Write as _};
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
