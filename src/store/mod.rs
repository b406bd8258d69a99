//! Durable state, kept in the Kubernetes API: an authority's keys and journal in one Secret per
//! trust domain, the last good spec of every registering object, the record of every attested
//! agent, join tokens, what is known of foreign trust domains, and entries that were made through
//! the SPIRE server API. All but the records of agents and the entries lies in the operator's own
//! namespace.
//!
//! All writes carry the `resourceVersion` that was read. What the state means, and when it
//! changes, is not here, but for agents' records and join tokens: there reading, deciding and
//! writing must be one step.

pub mod agents;
mod authority;
mod authority_commands;
mod ca_bundles;
mod domain;
pub mod federation;
pub mod join_tokens;
mod last_good;
mod registration_entries;

pub(crate) use authority::wipe;
pub use authority::{AuthorityStore, LoadError, SaveError, StoredJournal};
pub use authority_commands::{AuthorityCommandError, AuthorityCommands};
pub use ca_bundles::{CaBundleError, ca_bundle};
pub use domain::{Caches, DomainStores};
pub use last_good::LastGoodStore;
pub use registration_entries::{CatchUpError, Created, RegistrationEntryStore, WriteError};
