//! `spiffe-operator render`.
use std::process::ExitCode;
/// x
#[derive(Debug, clap::Args)]
pub struct Arguments {}
/// x
pub fn execute(_a: &Arguments) -> Result<ExitCode, String> {
    Ok(ExitCode::SUCCESS)
}
