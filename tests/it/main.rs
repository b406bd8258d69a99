//! Tests on real servers: etcd and kube-apiserver, shared by all tests of this binary. Tests keep
//! apart by names that [`support::unique`] makes.

mod foreign_verifiers;
mod issuing;
mod kinds;
mod rbac;
mod support;
