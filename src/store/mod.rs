//! Durable state, kept in the operator's own namespace: an authority's keys and journal in one
//! Secret per trust domain, and the last good spec of every registering object.
//!
//! All writes carry the `resourceVersion` that was read. What the state means, and when it
//! changes, is not here.

mod authority;
mod authority_commands;
mod last_good;

pub(crate) use authority::wipe;
pub use authority::{AuthorityStore, LoadError, SaveError, StoredJournal};
pub use authority_commands::{AuthorityCommandError, AuthorityCommands};
pub use last_good::LastGoodStore;
