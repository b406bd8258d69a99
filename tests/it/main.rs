//! Tests on real servers: etcd and kube-apiserver, shared by all tests of this binary. Tests keep
//! apart by names that [`support::unique`] makes.

mod end_to_end;
mod examples;
mod foreign_verifiers;
mod issuing;
mod kinds;
mod rbac;
mod support;
