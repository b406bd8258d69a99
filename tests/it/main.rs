//! Tests on real servers: etcd and kube-apiserver, shared by all tests of this binary. Tests keep
//! apart by names that [`support::unique`] makes.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod end_to_end;
mod examples;
mod foreign_verifiers;
mod issuing;
mod kinds;
mod rbac;
mod support;
