//! Which pod gets which identity.
//!
//! A [`Registry`] takes objects in and gives changes of registration entries out; everything else
//! here serves it: [`template`], [`selector`], [`entry`], [`spec`] and [`facts`].
//!
//! Invariants: no I/O, no clock, no environment; the same objects give the same entries in whatever
//! order they arrive; a fact removes an identity, an error never does. Who watches clusters, who
//! writes statuses and who signs is elsewhere.

pub mod bounds;
pub mod dns_name;
mod downstream;
pub mod entry;
pub mod entry_error;
pub mod entry_id;
pub mod facts;
mod go_model;
mod go_value;
pub mod labels;
mod lifetimes;
mod masking;
mod pod_entry;
mod registration_entry;
mod registry;
pub mod report;
pub mod selector;
mod services;
pub mod settings;
pub mod spec;
pub mod template;
mod template_beginning;
mod template_check;
mod template_cursor;
mod template_fast;
mod template_syntax;
mod template_types;

pub use downstream::{DownstreamServers, ServerPods, SvidFetcher};
pub use entry::{
    AdditionalAttributes, Entry, EntryKey, EntrySelector, PodRef, Registered, Source, SourceKind,
};
pub use entry_error::EntryError;
pub use entry_id::{EntryId, EntryIdError};
pub use facts::{FieldSet, NodeFacts, PodDetail, PodFacts};
pub use labels::{Interner, Labels};
pub use lifetimes::{ExceedingTtl, Lifetimes};
pub use registration_entry::{
    RegistrationEntryError, parse_registration_entry, registration_entry_name,
};
pub use registry::{Registry, Right, WriteBlocks};
pub use report::{
    Change, ClusterSpiffeIdReport, InForce, MatchOutcome, Obstacle, PodReport, RemovalCause,
    StaticEntryReport,
};
pub use settings::{Settings, SettingsError};
pub use spec::{ParsedClusterSpiffeId, ParsedStaticEntry, SpecError};
