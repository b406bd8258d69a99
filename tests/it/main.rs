//! Tests.
mod foreign_verifiers;
