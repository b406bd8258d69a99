//! Which pod gets which identity.
//!
//! A `Registry` takes objects in and gives changes of registration entries out; everything else
//! here serves it: templates.
//!
//! Invariants: no I/O, no clock, no environment; the same objects give the same entries in whatever
//! order they arrive; a fact removes an identity, an error never does. Who watches clusters, who
//! writes statuses and who signs is elsewhere.

pub mod facts;
mod go_model;
mod go_value;
pub mod labels;
pub mod template;
mod template_check;
mod template_fast;
mod template_syntax;
pub mod dns_name;
pub mod entry;
pub mod selector;
pub mod settings;
pub mod spec;
