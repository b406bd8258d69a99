//! helm, and the chart of this repository.

use std::path::Path;

use super::spire::{program, run};

/// The chart's folder.
pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/spiffe-operator");

/// Runs helm, and gives its standard output.
///
/// # Errors
/// All it said, when it fails.
pub(crate) async fn helm(arguments: &[&str]) -> Result<String, String> {
    run(&program("helm").await, arguments).await
}

/// A release of the chart, in the namespace `spiffe-system` of a cluster.
pub(crate) struct Release<'a> {
    /// Leads to the cluster.
    pub(crate) kubeconfig: &'a Path,
}

impl Release<'_> {
    /// Installs or upgrades it with these flags, which are added to those of the last time.
    pub(crate) async fn upgrade(&self, flags: &[&str]) -> Result<String, String> {
        let kubeconfig = self.kubeconfig.to_str().unwrap();
        let common = [
            "upgrade",
            "--install",
            "spiffe",
            CHART,
            "--kubeconfig",
            kubeconfig,
            "--namespace",
            "spiffe-system",
            "--create-namespace",
            "--reset-then-reuse-values",
            // There is no node for the Job that installs the kinds; helm does so by itself.
            "--no-hooks",
        ];
        helm(&[&common, flags].concat()).await
    }
}
