//! The `spiffe-operator` binary: parses the command line and calls the library.

use std::process::ExitCode;

use clap::Parser;
use spiffe_operator::cli::CommandLine;

/// Gives memory back to the kernel once the lists that the operator starts with have been read;
/// with glibc's allocator they cost memory for as long as the process lives.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    // Only fails when a provider is installed already, which then is this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    command_line.execute()
}
