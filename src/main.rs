//! The `spiffe-operator` binary: installs the provider of cryptography and calls the library.

use std::process::ExitCode;

/// Gives memory back to the kernel once the lists that the operator starts with have been read;
/// with glibc's allocator they cost memory for as long as the process lives.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Only fails when a provider is installed already, which then is this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    spiffe_operator::cli::main()
}
