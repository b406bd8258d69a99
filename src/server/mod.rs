//! The API of spire-server over gRPC: what stock agents, downstream servers and tools speak.
//!
//! One server per trust domain, on a TCP port of its own ([`serve`]). A connection becomes a
//! [`caller`] when its TLS handshake is done ([`listener`], [`tls`]); each call is then authorized
//! ([`authorization`]) before its message is read, and comes to a service ([`services`]). Nothing
//! here decides who is registered, who signs or what is stored: that is asked of the registry, the
//! authority and the stores.

pub mod access;
pub mod admin_socket;
pub mod attestation;
pub mod authorization;
pub mod caller;
mod capped;
mod connection;
pub mod context;
mod identity;
mod listener;
mod origin;
pub mod proto;
pub mod rate_limit;
mod serve;
mod services;
mod tls;
mod turns;
mod validity;
pub mod workers;

pub use context::ServerContext;
pub use serve::{Addresses, Listening, run};
