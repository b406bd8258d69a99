//! Durable state, kept in the Kubernetes API. In the operator's own namespace: an authority's keys and journal in one
//! Secret per trust domain, and the last good spec of every registering object; and in objects of
//! their own what is made through the SPIRE server API.
//!
//! All writes carry the `resourceVersion` that was read. What the state means, and when it
//! changes, is not here.

mod authority;
mod last_good;
mod registration_entries;

pub(crate) use authority::wipe;
pub use authority::{AuthorityStore, LoadError, SaveError, StoredJournal};
pub use last_good::LastGoodStore;
pub use registration_entries::{CatchUpError, Created, RegistrationEntryStore, WriteError};
