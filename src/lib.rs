//! A Kubernetes operator that gives pods SPIFFE identities.
//!
//! - [`api`]: the kinds users apply.
//! - [`spiffe`]: SPIFFE's own vocabulary, pure.
//! - [`registration`]: which pod gets which identity, pure and incremental.
//! - [`authority`]: who signs, and when keys rotate.
//! - [`rbac`]: what the operator may do in the Kubernetes API, and why.

pub mod api;
pub mod authority;
pub mod rbac;
pub mod registration;
pub mod spiffe;
