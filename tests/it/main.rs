//! Tests on real servers: etcd and kube-apiserver, shared by all tests of this binary. Tests keep
//! apart by names that [`support::unique`] makes.

<<<<<<< HEAD
mod end_to_end;
mod examples;
mod foreign_verifiers;
=======
mod foreign_verifiers;
mod issuing;
>>>>>>> main
mod kinds;
mod rbac;
mod support;
