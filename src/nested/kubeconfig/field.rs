//! A value of the document that knows where it is, so that every error can say so.
//!
//! Absent, `null` and empty text are the same, as they are to Kubernetes.

use serde_json::Value;

use super::{FieldProblem, KubeconfigError, error};

/// A value and its path.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    /// The whole document.
    pub(super) fn document(value: &'a Value) -> Self {
        Self {
            path: String::new(),
            value,
        }
    }

    /// An error about this field.
    pub(super) fn refuse(&self, problem: impl Into<FieldProblem>) -> KubeconfigError {
        KubeconfigError::Field {
            field: self.path.clone(),
            problem: problem.into(),
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            _ => false,
        }
    }

    /// The field `key` of this mapping.
    pub(super) fn field(&self, key: &str) -> Result<Self, KubeconfigError> {
        let value = match self.value {
            Value::Object(fields) => fields.get(key).unwrap_or(&Value::Null),
            Value::Null => &Value::Null,
            _ => return Err(self.wrong_type("a mapping")),
        };
        let path = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        Ok(Self { path, value })
    }

    /// The text, if there is any.
    pub(super) fn text(&self) -> Result<Option<&'a str>, KubeconfigError> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            _ => Err(self.wrong_type("a text, in quotes where it looks like something else")),
        }
    }

    pub(super) fn required_text(&self) -> Result<&'a str, KubeconfigError> {
        self.text()?
            .ok_or_else(|| self.refuse(FieldProblem::Missing))
    }

    pub(super) fn flag(&self) -> Result<bool, KubeconfigError> {
        match self.value {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(*flag),
            _ => Err(self.wrong_type("true or false")),
        }
    }

    /// The items of this list.
    pub(super) fn items(&self) -> Result<Vec<Self>, KubeconfigError> {
        let items = self.list()?.iter().enumerate();
        Ok(items
            .map(|(index, value)| Self {
                path: format!("{}[{index}]", self.path),
                value,
            })
            .collect())
    }

    /// The texts of this list.
    pub(super) fn texts(&self) -> Result<Vec<String>, KubeconfigError> {
        let items = self.items()?.into_iter();
        items
            .map(|item| Ok(item.text()?.unwrap_or_default().to_owned()))
            .collect()
    }

    /// The keys of this mapping, with their values.
    pub(super) fn entries(&self) -> Result<Vec<(&'a str, Self)>, KubeconfigError> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Object(fields) => fields
                .keys()
                .map(|key| Ok((key.as_str(), self.field(key)?)))
                .collect(),
            _ => Err(self.wrong_type("a mapping")),
        }
    }

    /// The item of `list` that is called `name`.
    pub(super) fn named(&self, list: &str, name: &str) -> Result<Option<Self>, KubeconfigError> {
        let list = self.field(list)?;
        let mut found = list
            .list()?
            .iter()
            .enumerate()
            .filter(|(_, item)| name_of(item) == Some(name))
            .map(|(index, value)| Self {
                path: format!("{}[{index}] {:?}", list.path, error::shown(name)),
                value,
            });
        let first = found.next();
        match found.next() {
            Some(second) => Err(second.refuse(FieldProblem::NameNotUnique)),
            None => Ok(first),
        }
    }

    /// The item of `list`, if it is the only one.
    pub(super) fn only(&self, list: &str) -> Result<Option<Self>, KubeconfigError> {
        let items = self.field(list)?.items()?;
        Ok(<[Self; 1]>::try_from(items).ok().map(|[item]| item))
    }

    /// The names of the items of `list`, to show.
    pub(super) fn names(&self, list: &str) -> String {
        let items = self.value.get(list).and_then(Value::as_array);
        let names: Vec<&str> = items.into_iter().flatten().filter_map(name_of).collect();
        error::list(names.into_iter())
    }

    /// That this is a kubeconfig, as far as it says what it is.
    pub(super) fn check_kind(&self) -> Result<(), KubeconfigError> {
        for (key, expected) in [("apiVersion", "v1"), ("kind", "Config")] {
            let field = self.field(key)?;
            if let Some(value) = field.text()?.filter(|value| *value != expected) {
                let value = error::shown(value);
                return Err(field.refuse(FieldProblem::Unexpected { value, expected }));
            }
        }
        Ok(())
    }

    fn list(&self) -> Result<&'a [Value], KubeconfigError> {
        match self.value {
            Value::Null => Ok(&[]),
            Value::Array(items) => Ok(items),
            _ => Err(self.wrong_type("a list")),
        }
    }

    fn wrong_type(&self, expected: &'static str) -> KubeconfigError {
        self.refuse(FieldProblem::WrongType { expected })
    }
}

fn name_of(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}
