//! Child clusters, decided without them: what a kubeconfig says and whether it may be used.
//!
//! Pure: no I/O and no clock. Nothing that a kubeconfig names is opened, run or called here.

pub mod kubeconfig;
