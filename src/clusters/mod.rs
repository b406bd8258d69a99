//! The Kubernetes cluster: watches into the registries, and the pod-certificate signer.

pub mod cache;
mod call;
pub mod certificates_api;
pub mod identities;
pub mod list;
pub mod observe;
pub mod pod_certificates;
pub mod reviews;

pub mod watch;

pub use call::{CallError, call};
