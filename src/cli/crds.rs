//! `spiffe-operator crds`: prints the custom resource definitions, or applies them.

use std::process::ExitCode;

use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};

use crate::api::custom_resource_definitions;
use crate::clusters::call;
use crate::runtime::client::client;

/// Under whose name the definitions are applied.
const FIELD_MANAGER: &str = "spiffe-operator-crds";

/// Flags of `crds`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Apply them to the cluster that kubectl would talk to, or in a pod to its own, and print their
    /// names. What others changed in them is replaced; no object of theirs is touched.
    #[arg(long, env = "SPIFFE_OPERATOR_CRDS_APPLY")]
    apply: bool,
}

/// Prints all CRDs as one YAML stream, or applies them.
pub(super) fn execute(arguments: &Arguments) -> Result<ExitCode, String> {
    let text = if arguments.apply { apply()? } else { yaml()? };
    super::print(&text)
}

fn yaml() -> Result<String, String> {
    let mut stream = String::new();
    for definition in custom_resource_definitions() {
        let document = serde_saphyr::to_string(&definition).map_err(|error| error.to_string())?;
        stream.push_str("---\n");
        stream.push_str(&document);
    }
    Ok(stream)
}

#[tokio::main(flavor = "current_thread")]
async fn apply() -> Result<String, String> {
    let client = client(None, None).await;
    let client = client.map_err(|error| crate::error_chain(&error))?;
    let definitions = Api::<CustomResourceDefinition>::all(client);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let mut applied = String::new();
    for definition in custom_resource_definitions() {
        let name = definition.name_any();
        let patch = Patch::Apply(&definition);
        let outcome = call(definitions.patch(&name, &parameters, &patch)).await;
        outcome.map_err(|error| format!("cannot apply {name}: {}", error.message()))?;
        applied.push_str(&name);
        applied.push('\n');
    }
    Ok(applied)
}
