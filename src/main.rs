//! The `spiffe-operator` binary.

fn main() {}
