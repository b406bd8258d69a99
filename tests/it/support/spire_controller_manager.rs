//! A stock spire-controller-manager, in a process of its own.

use std::{ffi::OsStr, fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{objects::merge, process::Process, spire::program};

/// A running spire-controller-manager, without its webhook, which needs a cluster to run in.
pub(crate) struct SpireControllerManager {
    process: Process,
    _folder: TempDir,
}

impl SpireControllerManager {
    /// Starts one that keeps entries in the server behind `socket` for the objects that the cluster
    /// of `kubeconfig` has, with `changes` to its configuration.
    pub(crate) async fn start(
        kubeconfig: &Path,
        socket: &Path,
        trust_domain: &str,
        changes: Value,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut configuration = json!({
            "apiVersion": "spire.spiffe.io/v1alpha1",
            "kind": "ControllerManagerConfig",
            "metrics": { "bindAddress": "0" },
            "clusterName": "stock",
            "clusterDomain": "cluster.local",
            "trustDomain": trust_domain,
            "spireServerSocketPath": socket,
        });
        merge(&mut configuration, changes);
        let file = folder.path().join("config.yaml");
        fs::write(&file, configuration.to_string()).unwrap();
        let environment = [
            ("KUBECONFIG", kubeconfig.as_os_str()),
            ("ENABLE_WEBHOOKS", OsStr::new("false")),
        ];
        let process = Process::start_with(
            "spire-controller-manager",
            &program("spire-controller-manager").await,
            ["-config", file.to_str().unwrap()],
            &environment,
            folder.path().join("manager.log"),
        );
        Self {
            process,
            _folder: folder,
        }
    }

    /// Its process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }
}
