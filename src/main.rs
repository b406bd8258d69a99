//! The `spiffe-operator` binary: installs the provider of cryptography and calls the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Only fails when a provider is installed already, which then is this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    spiffe_operator::cli::main()
}
