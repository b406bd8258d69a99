//! The kinds users apply, one file a kind, and the conditions their statuses share.
//!
//! Types only: serde, schema and CEL. A field that holds something with a grammar (a duration, a
//! template, a selector) keeps the string as written, so that an object which an older or foreign
//! schema let through still decodes; parsing it is the business of who uses it. The documentation
//! of the fields is the reference that users read, in `kubectl explain` and in `docs/crds.md`.

mod attested_agent;
mod authority_source;
mod cluster_federated_trust_domain;
mod cluster_spiffe_id;
mod cluster_static_entry;
pub mod conditions;
mod definitions;
pub mod duration;
mod entry_schema;
mod nested_cluster;
mod nested_cluster_schema;
mod nested_cluster_status;
mod node_attestors;
mod registration_entry;
mod schema;
mod trust_domain;
mod trust_domain_server;
mod upstream_authority;

pub use attested_agent::*;
pub use authority_source::*;
pub use cluster_federated_trust_domain::*;
pub use cluster_spiffe_id::*;
pub use cluster_static_entry::*;
pub use definitions::custom_resource_definitions;
pub use nested_cluster::*;
pub use nested_cluster_status::*;
pub use node_attestors::*;
pub use registration_entry::*;
pub use trust_domain::*;
pub use trust_domain_server::*;
pub use upstream_authority::*;
