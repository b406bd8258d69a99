//! A Kubernetes operator that gives pods SPIFFE identities.
//!
//! - [`api`]: the kinds users apply.
//! - [`spiffe`]: SPIFFE's own vocabulary, pure.
//! - [`registration`]: which pod gets which identity, pure and incremental.
//! - [`authority`]: who signs, and when keys rotate.
//! - [`domains`]: trust domains as they are served, and the names of what they publish, pure.
//! - [`nested`]: child clusters, as far as they can be decided on without them, pure.
//! - [`parent_sidecar`]: puts in place, beside a stock SPIRE server, what it is told of child clusters.
//! - [`store`]: durable state, kept in the Kubernetes API.
//! - [`clusters`]: the cluster's watches, and the signer of its pods' certificates.
//! - [`controllers`]: reconcile loops, one folder per kind.
//! - [`rbac`]: what the operator may do in the Kubernetes API, and why.
//! - [`runtime`]: the process: leader election, logs, metrics, health, wiring.
//! - [`server`]: the API of spire-server over gRPC.
//! - [`upstream`]: the server above a trust domain, as its client.
//! - [`cli`]: the command line.

pub mod api;
pub mod authority;
pub mod cli;
pub mod clusters;
pub mod controllers;
pub mod domains;
pub mod nested;
pub mod parent_sidecar;
pub mod rbac;
pub mod registration;
pub mod runtime;
pub mod server;
pub mod spiffe;
pub mod store;
pub mod upstream;

/// An error and all its causes on one line.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Some libraries repeat the cause in the message.
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// The longest prefix of `text` that has at most `bytes` bytes and ends between two characters.
#[must_use]
pub fn truncate(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
