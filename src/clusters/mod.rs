//! The Kubernetes cluster: watches into the registries, and the pod-certificate signer.

mod call;
pub mod watch;

pub use call::{CallError, call};
