//! Who signs.
