//! Kubernetes JSON as values of Go templates: Go's field names, Go's zero values where the JSON has
//! nothing.
//!
//! Which fields there are is [`super::go_model`].

use gtmpl_ng::Value;
use serde_json::Value as Json;

use super::go_model::{self, Type};

/// How Go prints `metav1.Time{}`.
const ZERO_TIME: &str = "0001-01-01 00:00:00 +0000 UTC";

/// The value of a field of type `kind` whose JSON is `json`.
#[must_use]
pub(super) fn from_json(kind: &Type, json: Option<&Json>) -> Value {
    let json = json.filter(|json| !json.is_null());
    match kind {
        Type::Bool => Value::Bool(json.and_then(Json::as_bool).unwrap_or_default()),
        Type::Int => Value::from(json.and_then(Json::as_i64).unwrap_or_default()),
        Type::List(inner) => Value::Array(
            json.and_then(Json::as_array)
                .into_iter()
                .flatten()
                .map(|item| from_json(inner, Some(item)))
                .collect(),
        ),
        Type::Map(inner) => Value::Map(
            json.and_then(Json::as_object)
                .into_iter()
                .flatten()
                .map(|(key, item)| (key.clone(), from_json(inner, Some(item))))
                .collect(),
        ),
        Type::Pointer(inner) => json.map_or(Value::Nil, |json| from_json(inner, Some(json))),
        Type::Quantity => Value::String(text(json).unwrap_or("0").into()),
        Type::Scalar => match json.and_then(Json::as_i64) {
            Some(number) => Value::from(number),
            None => Value::String(text(json).unwrap_or_default().into()),
        },
        Type::Text => Value::String(text(json).unwrap_or_default().into()),
        Type::Time => Value::String(text(json).map_or_else(|| ZERO_TIME.into(), print_time)),
        Type::Struct(name) => Value::Object(
            go_model::fields(name)
                .iter()
                .map(|field| {
                    let json = match field.json {
                        Some(key) => json.and_then(|json| json.get(key)),
                        None => json,
                    };
                    (field.name.to_owned(), from_json(&field.kind, json))
                })
                .collect(),
        ),
    }
}

fn text(json: Option<&Json>) -> Option<&str> {
    json.and_then(Json::as_str)
}

/// `2026-01-31T12:00:00Z` as Go's `time.Time.String` prints it.
fn print_time(rfc3339: &str) -> String {
    let utc = rfc3339.strip_suffix('Z').unwrap_or(rfc3339);
    format!("{} +0000 UTC", utc.replacen('T', " ", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_fields_have_go_zero_values() {
        for (kind, printed) in [
            (Type::Bool, "false"),
            (Type::Int, "0"),
            (Type::List(Box::new(Type::Int)), "[]"),
            (Type::Map(Box::new(Type::Text)), "map[]"),
            (Type::Pointer(Box::new(Type::Int)), "<nil>"),
            (Type::Quantity, "0"),
            (Type::Scalar, ""),
            (Type::Text, ""),
            (Type::Time, ZERO_TIME),
        ] {
            assert_eq!(from_json(&kind, None).to_string(), printed, "{kind:?}");
            assert_eq!(from_json(&kind, Some(&Json::Null)).to_string(), printed);
        }
    }

    #[test]
    fn embedded_structs_see_the_json_around_them() {
        let json = serde_json::json!({"name": "v", "hostPath": {"path": "/x"}});
        let Value::Object(volume) = from_json(&Type::Struct("Volume"), Some(&json)) else {
            panic!("a struct is an object");
        };
        let Some(Value::Object(source)) = volume.get("VolumeSource") else {
            panic!("an embedded struct is an object");
        };
        assert_eq!(volume.get("HostPath"), source.get("HostPath"));
        assert_eq!(volume.get("EmptyDir"), Some(&Value::Nil));
    }
}
