//! Go text/template, parsed once and checked against Go's types, as spire-controller-manager uses
//! it: builtins only.
//!
//! Interpreting is `gtmpl-ng`'s work; this module gives it data with Go's names and zero values,
//! corrects where it differs from Go (`index` of a missing key, printing a nil pointer), and bounds
//! what a template may cost. What fields exist is [`super::go_model`]; whether the result is an ID,
//! a selector or a DNS name is [`super::entry`].

use std::collections::{BTreeMap, BTreeSet};

use gtmpl_ng::{Context, FuncError, Limits, Value, funcs};
use serde_json::Value as Json;

use super::{
    facts::{FieldSet, NodeFacts, PodFacts},
    go_model::{self, Section},
    go_value,
    template_beginning::Beginning,
    template_check::check,
    template_fast::FastTemplate,
    template_syntax::expand_else_with,
};
use crate::spiffe::TrustDomainName;

/// Longest output of one template, in bytes: four times the longest SPIFFE ID.
const MAX_OUTPUT: usize = 8192;
/// Most loop iterations of one run.
const MAX_ITERATIONS: usize = 10_000;
/// Longest error message, in bytes: the interpreter may quote a whole value.
const MAX_MESSAGE: usize = 512;
/// JSON names in `metadata` of a pod that facts always hold.
const ALWAYS_KEPT_META: [&str; 4] = ["labels", "name", "namespace", "uid"];
/// JSON names in `spec` of a pod that facts always hold.
const ALWAYS_KEPT_SPEC: [&str; 3] = ["nodeName", "serviceAccount", "serviceAccountName"];

/// A parsed template.
pub struct Template {
    source: String,
    fast: Option<FastTemplate>,
    interpreted: gtmpl_ng::Template,
    uses: BTreeMap<Section, BTreeSet<&'static str>>,
}

/// What every template of a trust domain in one cluster sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFacts {
    /// `.TrustDomain`.
    pub trust_domain: TrustDomainName,
    /// `.ClusterName`.
    pub cluster_name: String,
    /// `.ClusterDomain`.
    pub cluster_domain: String,
}

/// What one run of a template sees.
#[derive(Clone, Copy, Debug)]
pub struct TemplateData<'a> {
    /// `.TrustDomain`, `.ClusterName` and `.ClusterDomain`.
    pub cluster: &'a ClusterFacts,
    /// `.PodMeta` and `.PodSpec`; none for a parent ID.
    pub pod: Option<&'a PodFacts>,
    /// `.NodeMeta` and `.NodeSpec`.
    pub node: &'a NodeFacts,
}

/// Why a template cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// It uses the pod where there is none.
    #[error(
        "line {line}, column {column}: a parent ID depends on the node alone and cannot use .{field}"
    )]
    PodInParent {
        /// `PodMeta` or `PodSpec`.
        field: &'static str,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// It does not parse.
    #[error("{message}")]
    Syntax {
        /// Position and reason.
        message: String,
    },
    /// It uses a field that does not exist.
    #[error(
        "line {line}, column {column}: {of} has no field {field:?}; fields have their Go names, such as .PodMeta.Namespace"
    )]
    UnknownField {
        /// The field.
        field: String,
        /// What lacks it.
        of: &'static str,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
}

/// Why a template gave nothing for one pod or node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RunTemplateError {
    /// Position and reason.
    pub message: String,
}

impl Template {
    /// Parses the template of something that belongs to a pod.
    ///
    /// # Errors
    /// When it does not parse or uses a field that does not exist.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        Self::parse_with(source, true)
    }

    /// Parses the template of a parent ID, which sees the node but no pod.
    ///
    /// # Errors
    /// When it does not parse, uses a field that does not exist, or uses the pod.
    pub fn parse_parent(source: &str) -> Result<Self, TemplateError> {
        Self::parse_with(source, false)
    }

    fn parse_with(source: &str, with_pod: bool) -> Result<Self, TemplateError> {
        let mut insertions = expand_else_with(source);
        interpreter(&insert(source, &insertions))?;
        let findings = check(source, with_pod)?;
        // An action prints a nil pointer as `<nil>` in Go, but the interpreter knows untyped nil
        // only, which prints as `<no value>`; the function `print` makes it `<nil>`.
        insertions.extend(
            findings
                .printed_pointers
                .iter()
                .map(|offset| (*offset, "print ")),
        );
        insertions.sort_by_key(|(offset, _)| *offset);
        Ok(Self {
            source: source.into(),
            fast: FastTemplate::new(source),
            interpreted: interpreter(&insert(source, &insertions))?,
            uses: findings.uses,
        })
    }

    /// The text as it was given.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How every output in `trust_domain` starts.
    pub(super) fn beginning(&self, trust_domain: &TrustDomainName) -> Beginning {
        Beginning::of(&self.source, trust_domain)
    }

    /// The fields of the pod that it reads beyond those that facts always hold.
    #[must_use]
    pub fn needed_pod_fields(&self) -> FieldSet {
        let used = |section, kept: &[&str]| {
            let fields = self.uses.get(&section).into_iter().flatten();
            fields
                .copied()
                .filter(|field| !kept.contains(field))
                .collect()
        };
        FieldSet {
            meta: used(Section::PodMeta, &ALWAYS_KEPT_META),
            spec: used(Section::PodSpec, &ALWAYS_KEPT_SPEC),
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// When Go would refuse to go on (a field of a nil pointer, a wrong argument), or a limit is
    /// exceeded.
    pub fn render(&self, data: &TemplateData<'_>) -> Result<String, RunTemplateError> {
        match self.fast.as_ref().and_then(|fast| fast.render(data)) {
            Some(text) if text.len() <= MAX_OUTPUT => Ok(text),
            _ => self.interpret(data),
        }
    }

    fn interpret(&self, data: &TemplateData<'_>) -> Result<String, RunTemplateError> {
        let context = Context::from(self.values(data));
        self.interpreted
            .render(&context)
            .map_err(|error| RunTemplateError {
                message: shorten(&error.to_string()),
            })
    }

    /// The data, of which only what the template uses is there.
    fn values(&self, data: &TemplateData<'_>) -> Value {
        let text = |text: &str| Value::String(text.into());
        let constants = [
            (
                "TrustDomain".to_owned(),
                text(data.cluster.trust_domain.as_str()),
            ),
            ("ClusterName".to_owned(), text(&data.cluster.cluster_name)),
            (
                "ClusterDomain".to_owned(),
                text(&data.cluster.cluster_domain),
            ),
        ];
        let sections = Section::ALL.into_iter().map(|section| {
            let value = if section.is_of_pod() {
                data.pod
                    .map(|pod| self.section(section, |field| pod_field(pod, section, field)))
            } else {
                Some(self.node_section(section, data.node))
            };
            (section.name().to_owned(), value.unwrap_or(Value::Nil))
        });
        Value::Object(constants.into_iter().chain(sections).collect())
    }

    fn node_section(&self, section: Section, node: &NodeFacts) -> Value {
        let json = if self.uses.contains_key(&section) {
            node.json()
        } else {
            Json::Null
        };
        let part = if section == Section::NodeMeta {
            "metadata"
        } else {
            "spec"
        };
        self.section(section, |field| json.get(part)?.get(field).cloned())
    }

    fn section(&self, section: Section, json: impl Fn(&str) -> Option<Json>) -> Value {
        let used = self.uses.get(&section);
        let fields = go_model::fields(section.struct_name())
            .iter()
            .filter_map(|field| {
                let name = field
                    .json
                    .filter(|name| used.is_some_and(|used| used.contains(name)))?;
                let value = go_value::from_json(&field.kind, json(name).as_ref());
                Some((field.name.to_owned(), value))
            });
        let mut fields: Vec<_> = fields.collect();
        if fields.is_empty() {
            // True in Go, as every pointer to a struct; an object without fields would not be. No
            // template can name this one.
            fields.push((String::new(), Value::Nil));
        }
        Value::Object(fields.into_iter().collect())
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Template").field(&self.source).finish()
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

fn pod_field(pod: &PodFacts, section: Section, field: &str) -> Option<Json> {
    let text = |text: &str| Some(Json::String(text.into()));
    match (section, field) {
        (Section::PodMeta, "name") => text(&pod.name),
        (Section::PodMeta, "namespace") => text(&pod.namespace),
        (Section::PodMeta, "uid") => text(&pod.uid),
        (Section::PodMeta, "labels") => Some(Json::Object(
            pod.labels
                .iter()
                .map(|(key, value)| (key.to_string(), (**value).into()))
                .collect(),
        )),
        (Section::PodMeta, _) => pod.detail.as_ref()?.meta(field).cloned(),
        (_, "nodeName") => text(&pod.node),
        (_, "serviceAccount" | "serviceAccountName") => text(&pod.service_account),
        _ => pod.detail.as_ref()?.spec(field).cloned(),
    }
}

fn interpreter(source: &str) -> Result<gtmpl_ng::Template, TemplateError> {
    let mut template = gtmpl_ng::Template::with_limits(
        Limits::default()
            .with_output_bytes(MAX_OUTPUT)
            .with_function_output(MAX_OUTPUT)
            .with_iterations(MAX_ITERATIONS)
            .with_total_iterations(MAX_ITERATIONS),
    );
    template.add_func("index", index);
    template
        .parse(source)
        .map_err(|error| TemplateError::Syntax {
            message: shorten(&error.to_string()),
        })?;
    Ok(template)
}

/// Go's `index`: the zero value for a missing key of a map. All maps of the data hold strings.
fn index(arguments: &[Value]) -> Result<Value, FuncError> {
    match funcs::index(arguments)? {
        Value::NoValue => Ok(Value::String(String::new())),
        found => Ok(found),
    }
}

/// `text` with `insertions`, which are in the order of their offsets.
fn insert(text: &str, insertions: &[(usize, &str)]) -> String {
    let mut text = text.to_owned();
    for (offset, insertion) in insertions.iter().rev() {
        text.insert_str(*offset, insertion);
    }
    text
}

fn shorten(message: &str) -> String {
    crate::truncate(message, MAX_MESSAGE).into()
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
