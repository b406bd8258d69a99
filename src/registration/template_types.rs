//! What can be told of the type of a value in a template without running it.

use super::go_model::{Section, Type};

/// What is known of a value's type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Known {
    Anything,
    Root,
    Section(Section),
    /// A string, number or boolean.
    Simple,
    Typed(&'static Type),
}

impl Known {
    /// What a pointer points to.
    pub(super) fn dereference(self) -> Self {
        match self {
            Self::Typed(Type::Pointer(inner)) => Self::Typed(inner),
            other => other,
        }
    }

    /// The type of a builtin's result.
    pub(super) fn result_of(function: &str, arguments: &[Self]) -> Self {
        let first = arguments.first().copied().unwrap_or(Self::Anything);
        match function {
            "index" => arguments
                .iter()
                .skip(1)
                .fold(first, |known, _| match known.dereference() {
                    Self::Typed(Type::List(item) | Type::Map(item)) => Self::Typed(item),
                    _ => Self::Anything,
                }),
            "slice" => first,
            "and" | "or" | "call" | "nil" => Self::Anything,
            _ => Self::Simple,
        }
    }
}

/// Whether `windows(2)` gave two types that are the same.
pub(super) fn is_pair_of_equals(pair: &[Known]) -> bool {
    matches!(pair, [left, right] if left == right)
}
