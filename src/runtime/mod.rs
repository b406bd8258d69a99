//! What the process is made of: leader election, logs, metrics, health, events and backoff, and
//! [`run::run`], which wires everything together.
//!
//! Nothing outside imports the wiring.

pub mod backoff;
pub mod client;
pub mod clock;
pub mod context;
pub mod events;
pub mod health;
pub mod http;
pub mod leader;
pub mod logging;
pub mod metrics;
mod paced_watches;
pub mod run;
