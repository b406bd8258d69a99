//! Which pod gets which identity.
