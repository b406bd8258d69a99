//! `spiffe-operator crds`.

use std::process::ExitCode;

use crate::api::custom_resource_definitions;

/// Prints all CRDs as one YAML stream.
pub(super) fn execute() -> Result<ExitCode, String> {
    let mut stream = String::new();
    for definition in custom_resource_definitions() {
        let document = serde_saphyr::to_string(&definition).map_err(|error| error.to_string())?;
        stream.push_str("---\n");
        stream.push_str(&document);
    }
    super::print(&stream)
}
