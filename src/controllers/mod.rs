//! Reconcile loops: observe, plan, apply, report in the object's status.
//!
//! Every replica runs them, because every replica serves; what must happen once is done by the
//! leader only, and every such write carries the `resourceVersion` that was read.

pub mod nested_cluster;
pub mod registrations;
pub mod trust_domain;

use tokio::task::JoinSet;

use crate::runtime::context::Context;
use crate::runtime::health::Health;

/// Starts the controllers of all kinds.
pub fn start(context: &Context, health: &Health, tasks: &mut JoinSet<()>) {
    trust_domain::start(context, health, tasks);
    registrations::start(context, health, tasks);
    nested_cluster::start(context, health, tasks);
}
