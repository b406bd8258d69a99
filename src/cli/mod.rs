//! The command line: subcommands and their flags, each flag with an environment twin.
//!
//! What `run` starts and what `render` evaluates with is elsewhere in the library. Errors are one
//! line that says what to do.

mod crds;
mod parent;
pub mod render;
mod run;
mod usage;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

/// Exit status of a mistake in the command line.
const USAGE: u8 = 2;

/// A Kubernetes operator that gives pods SPIFFE identities.
#[derive(Debug, Parser)]
#[command(
    name = "spiffe-operator",
    version,
    about,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = false
)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator.
    Run(Box<run::Arguments>),
    /// Print all custom resource definitions as YAML, ready for `kubectl apply -f -`, or apply them.
    Crds(crds::Arguments),
    /// Show which entries pods would get, without changing anything.
    Render(render::Arguments),
    /// Help a stock SPIRE server be a parent of nested clusters.
    #[command(subcommand)]
    Parent(parent::Command),
    /// Print the version.
    Version,
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Reads the process's command line, runs it, and gives the exit status.
#[must_use]
pub fn main() -> ExitCode {
    match CommandLine::try_parse() {
        Ok(command_line) => command_line.execute(),
        Err(asked)
            if matches!(
                asked.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            asked.exit()
        }
        Err(mistake) => {
            eprintln!("spiffe-operator: {}", usage::one_line(&mistake));
            USAGE.into()
        }
    }
}

impl CommandLine {
    /// Runs the subcommand and gives the process's exit status.
    fn execute(self) -> ExitCode {
        let outcome = match self.command {
            Command::Run(arguments) => run::execute(*arguments),
            Command::Crds(arguments) => crds::execute(&arguments),
            Command::Render(arguments) => render::execute(&arguments),
            Command::Parent(command) => parent::execute(command),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_an_environment_twin_of_its_own() {
        let mut command = CommandLine::command();
        command.build();
        let mut count = 0;
        let all = command.get_subcommands();
        for subcommand in all.flat_map(|it| it.get_subcommands().chain([it])) {
            let flags = subcommand
                .get_arguments()
                .filter(|argument| !argument.is_positional())
                .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"));
            let mut twins = std::collections::BTreeSet::new();
            for flag in flags {
                let place = format!("{} --{}", subcommand.get_name(), flag.get_id());
                let twin = flag.get_env().unwrap_or_else(|| panic!("{place}: none"));
                let twin = twin.to_str().unwrap();
                assert!(twin.starts_with("SPIFFE_OPERATOR_"), "{place}: {twin}");
                assert!(twins.insert(twin.to_owned()), "{place}: {twin} is taken");
                count += 1;
            }
        }
        assert!(count > 10, "only {count} flags found");
    }
}
