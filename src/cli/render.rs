//! `spiffe-operator render`: which entries pods would get, without changing anything.
//!
//! Reading objects is [`read`] (or from a cluster, [`cluster`]), putting those of files over those of
//! a cluster [`overlay`], evaluating them [`plan`] (pure, over the same
//! [`crate::registration::Registry`] that the operator uses), printing [`mod@print`].

mod cluster;
mod overlay;
pub mod plan;
pub mod print;
pub mod read;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use serde_json::json;

use self::{plan::RenderReport, read::Objects};
use crate::api::TrustDomain;

/// Flags of `render`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// YAML or JSON files with objects, folders of such files, or - for standard input.
    #[arg(required_unless_present = "from_cluster", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Read the objects from the cluster that kubectl would talk to, as if PATHs had been applied to
    /// it: they take the place of objects of the same kind and name.
    #[arg(long, env = "SPIFFE_OPERATOR_FROM_CLUSTER")]
    from_cluster: bool,
    /// Context of the kubeconfig, with --from-cluster. Default: its current one.
    #[arg(long, env = "SPIFFE_OPERATOR_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    /// How to print.
    #[arg(long, short, env = "SPIFFE_OPERATOR_OUTPUT", default_value = "table")]
    output: OutputFormat,
    #[command(flatten)]
    trust_domain: TrustDomainArguments,
}

/// The trust domain to render for, where no TrustDomain is among the objects.
#[derive(Clone, Debug, Default, Args)]
pub struct TrustDomainArguments {
    /// Trust domain, if no TrustDomain is among the objects.
    #[arg(long, env = "SPIFFE_OPERATOR_TRUST_DOMAIN", value_name = "NAME")]
    pub trust_domain: Option<String>,
    /// Name of the cluster, with --trust-domain.
    #[arg(long, env = "SPIFFE_OPERATOR_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// DNS domain of the cluster, with --trust-domain.
    #[arg(long, env = "SPIFFE_OPERATOR_CLUSTER_DOMAIN", value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
    /// Class of the objects to render, with --trust-domain.
    #[arg(long, env = "SPIFFE_OPERATOR_CLASS_NAME", value_name = "CLASS")]
    pub class_name: Option<String>,
    /// Render objects without a class, too, with --trust-domain.
    #[arg(long, env = "SPIFFE_OPERATOR_WATCH_CLASSLESS")]
    pub watch_classless: bool,
    /// Template of the parent ID, with --trust-domain.
    #[arg(
        long = "parent-id-template",
        env = "SPIFFE_OPERATOR_PARENT_ID_TEMPLATE",
        value_name = "TEMPLATE"
    )]
    pub parent_id_template: Option<String>,
    /// Regular expression of namespaces to ignore, with --trust-domain; may be repeated.
    #[arg(
        long = "ignore-namespace",
        env = "SPIFFE_OPERATOR_IGNORE_NAMESPACES",
        value_delimiter = ',',
        value_name = "REGEX"
    )]
    pub ignore_namespaces: Vec<String>,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// JSON, everything that is known.
    Json,
    /// A table for people.
    Table,
    /// YAML, everything that is known.
    Yaml,
}

/// Reads, renders and prints; the status is a failure if anything failed.
///
/// # Errors
/// When nothing can be rendered at all: a path that cannot be read, no trust domain.
pub fn execute(arguments: &Arguments) -> Result<ExitCode, String> {
    let sources = read::sources(&arguments.paths, io::stdin().lock())?;
    let mut objects = Objects::default();
    if arguments.from_cluster {
        objects = cluster::objects(arguments.context.as_deref())?;
    }
    objects.apply(read::objects(&sources));
    let report = render_objects(objects, &arguments.trust_domain)?;
    let text = print::to_text(&report, arguments.output)?;
    let printed = super::print(&text)?;
    Ok(if report.has_failures() {
        ExitCode::FAILURE
    } else {
        printed
    })
}

/// Renders objects that were read already, each of which has a name of its own.
///
/// # Errors
/// When there is no trust domain to render for.
pub fn render_objects(
    mut objects: Objects,
    arguments: &TrustDomainArguments,
) -> Result<RenderReport, String> {
    if objects.trust_domains.is_empty() {
        objects.trust_domains.push(trust_domain(arguments)?);
    }
    Ok(plan::render(&objects))
}

/// The TrustDomain that the flags describe.
fn trust_domain(arguments: &TrustDomainArguments) -> Result<TrustDomain, String> {
    let Some(name) = &arguments.trust_domain else {
        return Err("no TrustDomain is among the objects; add one, or use --trust-domain".into());
    };
    let mut spec = json!({
        "trustDomain": name,
        "watchClassless": arguments.watch_classless,
        "authority": {"selfSigned": {}},
    });
    for (field, value) in [
        ("clusterName", &arguments.cluster_name),
        ("clusterDomain", &arguments.cluster_domain),
        ("className", &arguments.class_name),
        ("parentIDTemplate", &arguments.parent_id_template),
    ] {
        if let (Some(spec), Some(value)) = (spec.as_object_mut(), value) {
            spec.insert(field.into(), json!(value));
        }
    }
    if let (Some(spec), false) = (spec.as_object_mut(), arguments.ignore_namespaces.is_empty()) {
        spec.insert(
            "ignoreNamespaces".into(),
            json!(arguments.ignore_namespaces),
        );
    }
    serde_json::from_value(spec)
        .map(|spec| TrustDomain::new(name, spec))
        .map_err(|error| format!("--trust-domain {name:?}: {error}"))
}

#[cfg(test)]
mod tests;
