//! Kubernetes clusters, the local one and those that are nested in it: watches into the registries,
//! and the pod-certificate signer.

pub mod cache;
mod call;
pub mod certificates_api;
pub mod identities;
pub mod incarnation;
pub mod list;
pub mod nested;
pub mod observe;
pub mod pod_certificates;
pub mod reviews;

pub mod watch;

pub use call::{CallError, call};
