//! What Go templates see of Kubernetes objects: Go's field names, the JSON names behind them, and
//! Go's types, for `ObjectMeta`, `PodSpec` and `NodeSpec`.
//!
//! The table is `go_model.txt`. Turning an object's JSON into template values is [`super::go_value`].

use std::{collections::BTreeMap, sync::LazyLock};

/// A Go type as far as templates can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// `bool`.
    Bool,
    /// Any integer.
    Int,
    /// A slice.
    List(Box<Type>),
    /// A map with string keys.
    Map(Box<Type>),
    /// A pointer, nil where the JSON field is missing.
    Pointer(Box<Type>),
    /// `resource.Quantity`.
    Quantity,
    /// `intstr.IntOrString`: a number or a string.
    Scalar,
    /// `string` and types made of it.
    Text,
    /// `metav1.Time`.
    Time,
    /// A struct of the table, by name.
    Struct(&'static str),
}

/// A field of a Go struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Go's name, the one templates use.
    pub(super) name: &'static str,
    /// The JSON name; `None` for an embedded struct, whose JSON is that of the struct around it.
    pub(super) json: Option<&'static str>,
    /// The type.
    pub(super) kind: Type,
}

/// A part of the template data that is a Kubernetes struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    /// `.PodMeta`.
    PodMeta,
    /// `.PodSpec`.
    PodSpec,
    /// `.NodeMeta`.
    NodeMeta,
    /// `.NodeSpec`.
    NodeSpec,
}

impl Section {
    /// Every section.
    pub(super) const ALL: [Self; 4] =
        [Self::PodMeta, Self::PodSpec, Self::NodeMeta, Self::NodeSpec];

    /// The section of this name in template data.
    #[must_use]
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|section| section.name() == name)
    }

    /// Its name in template data.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PodMeta => "PodMeta",
            Self::PodSpec => "PodSpec",
            Self::NodeMeta => "NodeMeta",
            Self::NodeSpec => "NodeSpec",
        }
    }

    /// The name of its Go struct.
    #[must_use]
    pub(super) fn struct_name(self) -> &'static str {
        match self {
            Self::PodMeta | Self::NodeMeta => "ObjectMeta",
            Self::PodSpec => "PodSpec",
            Self::NodeSpec => "NodeSpec",
        }
    }

    /// Whether the section speaks of the pod, which a parent ID must not depend on.
    #[must_use]
    pub(super) fn is_of_pod(self) -> bool {
        matches!(self, Self::PodMeta | Self::PodSpec)
    }
}

/// The fields of a struct; none where the table has no such struct.
#[must_use]
pub(super) fn fields(struct_name: &str) -> &'static [Field] {
    MODEL.get(struct_name).map_or(&[], Vec::as_slice)
}

/// One field of a struct.
#[must_use]
pub(super) fn field(struct_name: &str, name: &str) -> Option<&'static Field> {
    fields(struct_name).iter().find(|field| field.name == name)
}

static MODEL: LazyLock<BTreeMap<&'static str, Vec<Field>>> = LazyLock::new(parse_table);

fn parse_table() -> BTreeMap<&'static str, Vec<Field>> {
    let mut table: BTreeMap<&str, Vec<Field>> = BTreeMap::new();
    let mut current = "";
    for line in include_str!("go_model.txt").lines() {
        if line.starts_with('#') {
            continue;
        }
        match line.strip_prefix("  ") {
            None => current = line,
            Some(line) => table.entry(current).or_default().extend(parse_field(line)),
        }
    }
    table
}

fn parse_field(line: &'static str) -> Option<Field> {
    let mut words = line.splitn(3, ' ');
    let (name, json, kind) = (words.next()?, words.next()?, words.next()?);
    Some(Field {
        name,
        json: (json != "=").then_some(json),
        kind: parse_type(kind),
    })
}

fn parse_type(text: &'static str) -> Type {
    if let Some(inner) = text.strip_prefix('*') {
        return Type::Pointer(Box::new(parse_type(inner)));
    }
    if let Some(inner) = text.strip_prefix("[]") {
        return Type::List(Box::new(parse_type(inner)));
    }
    if let Some(inner) = text.strip_prefix("map ") {
        return Type::Map(Box::new(parse_type(inner)));
    }
    match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "quantity" => Type::Quantity,
        "scalar" => Type::Scalar,
        "string" => Type::Text,
        "time" => Type::Time,
        name => Type::Struct(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn innermost(kind: &Type) -> &Type {
        match kind {
            Type::List(inner) | Type::Map(inner) | Type::Pointer(inner) => innermost(inner),
            other => other,
        }
    }

    #[test]
    fn every_struct_that_the_table_names_is_in_it() {
        let mut count = 0;
        for field in MODEL.values().flatten() {
            count += 1;
            if let Type::Struct(name) = innermost(&field.kind) {
                assert!(!fields(name).is_empty(), "{} of {}", name, field.name);
            }
        }
        assert!(count > 600, "{count}");
    }

    #[test]
    fn go_names_lead_to_json_names() {
        let uid = field("ObjectMeta", "UID").unwrap();
        assert_eq!((uid.json, &uid.kind), (Some("uid"), &Type::Text));
        let ipc = field("PodSpec", "HostIPC").unwrap();
        assert_eq!((ipc.json, &ipc.kind), (Some("hostIPC"), &Type::Bool));
        assert_eq!(field("Volume", "VolumeSource").unwrap().json, None);
        assert!(field("Volume", "HostPath").is_some());
        assert_eq!(field("ObjectMeta", "ResourceVersion"), None);
    }
}
