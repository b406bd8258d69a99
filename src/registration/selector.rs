//! Kubernetes label selectors, compiled once: `matchLabels` and `matchExpressions` with
//! apimachinery's rules and refusals.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::labels::Labels;

/// Longest name in a label key, and longest label value, in bytes.
const MAX_NAME: usize = 63;
/// Longest prefix of a label key, in bytes.
const MAX_PREFIX: usize = 253;

/// A compiled label selector. The empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Pairs that must be there.
    pairs: Vec<(Arc<str>, Arc<str>)>,
    expressions: Vec<Expression>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Expression {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    DoesNotExist,
    Exists,
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
}

/// Why a label selector is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// A key that no label can have.
    #[error("{key:?} is no label key")]
    Key {
        /// The key.
        key: String,
    },
    /// `In` or `NotIn` without values.
    #[error("operator {operator} of {key:?} needs values")]
    MissingValues {
        /// The key.
        key: String,
        /// `In` or `NotIn`.
        operator: String,
    },
    /// An operator that does not exist.
    #[error("{operator:?} is no operator; use In, NotIn, Exists or DoesNotExist")]
    Operator {
        /// The operator.
        operator: String,
    },
    /// `Exists` or `DoesNotExist` with values.
    #[error("operator {operator} of {key:?} takes no values")]
    UnexpectedValues {
        /// The key.
        key: String,
        /// `Exists` or `DoesNotExist`.
        operator: String,
    },
    /// A value that no label can have.
    #[error("{value:?} is no label value")]
    Value {
        /// The value.
        value: String,
    },
}

impl Selector {
    /// Compiles a selector; none matches everything.
    ///
    /// # Errors
    /// When apimachinery would refuse it.
    pub fn new(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let mut compiled = Self::default();
        let Some(selector) = selector else {
            return Ok(compiled);
        };
        for (key, value) in selector.match_labels.iter().flatten() {
            check_key(key)?;
            check_value(value)?;
            compiled
                .pairs
                .push((key.as_str().into(), value.as_str().into()));
        }
        for requirement in selector.match_expressions.iter().flatten() {
            compiled.add(requirement)?;
        }
        Ok(compiled)
    }

    /// Whether it selects an object with these labels.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.pairs
            .iter()
            .all(|(key, value)| labels.get(key) == Some(&**value))
            && self
                .expressions
                .iter()
                .all(|expression| expression.matches(labels))
    }

    /// A label that everything it selects has.
    #[must_use]
    pub fn required_pair(&self) -> Option<&(Arc<str>, Arc<str>)> {
        self.pairs.first()
    }

    fn add(&mut self, requirement: &LabelSelectorRequirement) -> Result<(), SelectorError> {
        let key = requirement.key.clone();
        let operator = requirement.operator.clone();
        let values: BTreeSet<String> = requirement.values.iter().flatten().cloned().collect();
        check_key(&key)?;
        values.iter().try_for_each(|value| check_value(value))?;
        let test = match (operator.as_str(), values.len()) {
            ("In" | "NotIn", 0) => return Err(SelectorError::MissingValues { key, operator }),
            ("In", 1) => {
                let pairs = values
                    .iter()
                    .map(|value| (key.as_str().into(), value.as_str().into()));
                self.pairs.extend(pairs);
                return Ok(());
            }
            ("In", _) => Test::In(values),
            ("NotIn", _) => Test::NotIn(values),
            ("Exists", 0) => Test::Exists,
            ("DoesNotExist", 0) => Test::DoesNotExist,
            ("Exists" | "DoesNotExist", _) => {
                return Err(SelectorError::UnexpectedValues { key, operator });
            }
            _ => return Err(SelectorError::Operator { operator }),
        };
        self.expressions.push(Expression { key, test });
        Ok(())
    }
}

impl Expression {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.test {
            Test::DoesNotExist => value.is_none(),
            Test::Exists => value.is_some(),
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
        }
    }
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_none_or(is_subdomain) && is_name(name) {
        return Ok(());
    }
    Err(SelectorError::Key { key: key.into() })
}

fn check_value(value: &str) -> Result<(), SelectorError> {
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    Err(SelectorError::Value {
        value: value.into(),
    })
}

fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_subdomain(prefix: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    prefix.len() <= MAX_PREFIX
        && prefix.split('.').all(|label| {
            label.starts_with(is_alphanumeric)
                && label.ends_with(is_alphanumeric)
                && label.chars().all(|c| is_alphanumeric(c) || c == '-')
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compile(json: serde_json::Value) -> Result<Selector, SelectorError> {
        Selector::new(Some(&serde_json::from_value(json).unwrap()))
    }

    #[test]
    fn selects_as_kubernetes_does() {
        let labels: Labels = [("app", "web"), ("tier", "")].into_iter().collect();
        for (selector, selected) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "web", "tier": ""}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchLabels": {"none": ""}}), false),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "web"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "none", "operator": "In", "values": ["", "b"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["web"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "none", "operator": "Exists"}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}),
                false,
            ),
            (
                json!({"matchLabels": {"app": "web"},
                    "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}),
                false,
            ),
        ] {
            assert_eq!(
                compile(selector.clone()).unwrap().matches(&labels),
                selected,
                "{selector}"
            );
        }
        assert!(Selector::new(None).unwrap().matches(&labels));
    }

    #[test]
    fn refuses_what_apimachinery_refuses() {
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let key = |key: &str| SelectorError::Key { key: key.into() };
        let with = |operator: &str| ("a".to_owned(), operator.to_owned());
        for (selector, error) in [
            (
                expression("a", "Equals", &["b"]),
                SelectorError::Operator {
                    operator: "Equals".into(),
                },
            ),
            (expression("a", "In", &[]), {
                let (key, operator) = with("In");
                SelectorError::MissingValues { key, operator }
            }),
            (expression("a", "Exists", &["b"]), {
                let (key, operator) = with("Exists");
                SelectorError::UnexpectedValues { key, operator }
            }),
            (
                expression("a", "In", &["b c"]),
                SelectorError::Value {
                    value: "b c".into(),
                },
            ),
            (
                json!({"matchLabels": {"a": "-b"}}),
                SelectorError::Value { value: "-b".into() },
            ),
            (json!({"matchLabels": {"": "b"}}), key("")),
            (json!({"matchLabels": {"a/b/c": "b"}}), key("a/b/c")),
            (json!({"matchLabels": {"A.io/x": "b"}}), key("A.io/x")),
        ] {
            assert_eq!(compile(selector), Err(error));
        }
        assert!(compile(json!({"matchLabels": {"app.kubernetes.io/name": "A_b.c"}})).is_ok());
    }
}
