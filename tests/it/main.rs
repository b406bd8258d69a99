//! Tests on real servers: etcd and kube-apiserver, shared by all tests of this binary. Tests keep
//! apart by names that [`support::unique`] makes.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod agents;
mod authorities;
mod authority_commands;
mod broken_specs;
mod bundle_faults;
mod bundles;
mod command_line;
mod conflicts;
mod demo;
mod drop_in;
mod end_to_end;
mod end_to_end_devcluster;
mod end_to_end_spire_agent;
mod endpoints;
mod examples;
mod foreign_verifiers;
mod helm_releases;
mod helm_values;
mod imported_authorities;
mod installing;
mod issuing;
mod kinds;
mod leadership;
mod nested_clusters;
mod nested_credentials;
mod nested_parents;
mod nested_rights;
mod outages;
mod pod_certificates;
mod rbac;
mod registration;
mod render;
mod rights;
mod rotation;
mod spire_agents;
mod spire_api;
mod spire_attestation;
mod spire_authorization;
mod spire_availability;
mod spire_chained;
mod spire_command_line;
mod spire_controller_manager;
mod spire_entries;
mod spire_failover;
mod spire_federation;
mod spire_hostile;
mod spire_published_keys;
mod spire_retention;
mod spire_strangers;
mod spire_svids;
mod spire_sync;
mod spire_transport;
mod spire_workloads;
mod support;
mod uninstalling;
mod unusual_names;
mod upstream_authority;
