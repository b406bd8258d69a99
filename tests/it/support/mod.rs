//! Real servers and what tests do with them.
//!
//! A server lives as long as its standard input is open, so nothing is left behind when a test
//! process dies, however it dies. Nothing here waits for a time: it waits for a condition, with a
//! deadline, and says at the deadline what it saw last.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each part is for the tests that need it"
)]

pub(crate) mod attesting;
mod attestors;
mod authorities;
mod child_cluster;
mod control_plane;
mod faulty_api_server;
mod gate;
pub(crate) mod grpc;
mod helm;
mod node;
mod objects;
mod operator;
mod pod_certificates;
mod process;
mod served;
mod spire;
mod spire_agent;
mod spire_controller_manager;
mod spire_server;
mod wait;
mod world;

use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use attestors::{Attestor, pod_token};
pub(crate) use authorities::{
    Ca, ca, ca_valid_for, ca_with, issued_by, not_a_ca, renewed, tls_secret,
};
pub(crate) use child_cluster::ChildCluster;
pub(crate) use control_plane::{ControlPlane, Options, control_plane, devcluster, install};
pub(crate) use faulty_api_server::{Fault, FaultyApiServer};
pub(crate) use gate::Passage;
pub(crate) use helm::{CHART, Release, helm};
pub(crate) use node::{NodeCluster, SOON_ON_A_NODE};
pub(crate) use objects::{
    apply, apply_dry, documents, merge, merge_patch, namespace, node, pod, service_account,
};
pub(crate) use operator::{LEASE_EXPIRED, Operator, release_lease, shared_operator};
pub(crate) use pod_certificates::{Kubelet, certificate_pod};
pub(crate) use process::Process;
pub(crate) use served::{AGENT_ACCOUNT, CLUSTER, Served, scripts};
pub(crate) use spire::{Endpoint, free_port, program as spire_program, run as run_program};
pub(crate) use spire_agent::{SpireAgent, X509Svid};
pub(crate) use spire_controller_manager::SpireControllerManager;
pub(crate) use spire_server::{SpireServer, SpireServerCli};
pub(crate) use wait::{SOON, wait_until};
pub(crate) use world::{World, condition, condition_that, verdict};

/// A name that no other test of this process uses, for objects, namespaces and classes.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A trust domain that no other test of this process uses.
pub(crate) fn unique_trust_domain() -> String {
    format!("{}.test", unique("td"))
}
