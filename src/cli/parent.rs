//! `spiffe-operator parent`: what the pod of a stock SPIRE server needs to be told of nested clusters.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::error_chain;
use crate::nested::parent::{PLUGIN_DATA_FILE, parent_object_name};
use crate::parent_sidecar::{Folders, place, run};
use crate::rbac::parent_rights;
use crate::runtime::logging::{self, LogFormat};

/// Name of the sidecar, its init container and the volumes.
const SIDECAR: &str = "nested-clusters";
/// Where the ConfigMap is mounted.
const CONFIG_DIR: &str = "/etc/nested-clusters/config";
/// Where the Secret is mounted.
const SECRET_DIR: &str = "/etc/nested-clusters/secret";
/// What the server reads.
const TARGET_DIR: &str = "/run/spire/nested-clusters";

/// Subcommands of `parent`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run beside a stock SPIRE server: put in place what the operator tells it of nested clusters,
    /// and send it SIGUSR1 when its plugin data changed.
    Sidecar(SidecarArguments),
    /// Print the strategic merge patch that adds the sidecar to the pods of a server.
    Patch(PatchArguments),
    /// Print the Role, and its binding, that the operator needs in the namespace of a server.
    Rights(RightsArguments),
}

/// Flags of `parent sidecar`.
#[derive(Debug, Args)]
pub(super) struct SidecarArguments {
    /// Where the ConfigMap `<server>-nested-clusters` is mounted.
    #[arg(long, env = "SPIFFE_OPERATOR_CONFIG_DIR", default_value = CONFIG_DIR, value_name = "DIR")]
    config_dir: PathBuf,
    /// Where the Secret `<server>-nested-clusters` is mounted.
    #[arg(long, env = "SPIFFE_OPERATOR_SECRET_DIR", default_value = SECRET_DIR, value_name = "DIR")]
    secret_dir: PathBuf,
    /// Directory that the server reads, by the same absolute path.
    #[arg(long, env = "SPIFFE_OPERATOR_TARGET_DIR", default_value = TARGET_DIR, value_name = "DIR")]
    target_dir: PathBuf,
    /// Put everything in place and end, for an init container.
    #[arg(long, env = "SPIFFE_OPERATOR_ONCE")]
    once: bool,
    /// What to log: a level, or module=level pairs.
    #[arg(
        long,
        env = "SPIFFE_OPERATOR_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    log: String,
    /// Form of log lines.
    #[arg(long, env = "SPIFFE_OPERATOR_LOG_FORMAT", default_value = "json")]
    log_format: LogFormat,
}

/// Flags of `parent patch`.
#[derive(Debug, Args)]
pub(super) struct PatchArguments {
    /// What the server is called in `spec.parents` of NestedClusters.
    #[arg(long, env = "SPIFFE_OPERATOR_PARENT", value_name = "NAME")]
    name: String,
    /// Image of this program.
    #[arg(long, env = "SPIFFE_OPERATOR_IMAGE", value_name = "IMAGE")]
    image: String,
    /// The server's container.
    #[arg(
        long,
        env = "SPIFFE_OPERATOR_CONTAINER",
        default_value = "spire-server",
        value_name = "NAME"
    )]
    container: String,
    /// User that the server runs as: only the same user may signal it, and read its files.
    #[arg(
        long,
        env = "SPIFFE_OPERATOR_USER",
        default_value_t = 1000,
        value_name = "UID"
    )]
    user: u32,
    /// Directory that the server reads.
    #[arg(long, env = "SPIFFE_OPERATOR_TARGET_DIR", default_value = TARGET_DIR, value_name = "DIR")]
    target_dir: String,
    /// A ConfigMap of your own with further entries, such as that of the server's own cluster: each
    /// under `<cluster>.json`, with `kube_config_file`. Default: none.
    #[arg(long, env = "SPIFFE_OPERATOR_OWN_ENTRIES", value_name = "NAME")]
    own_entries: Option<String>,
}

/// Flags of `parent rights`.
#[derive(Debug, Args)]
pub(super) struct RightsArguments {
    /// Namespace of the server's pods.
    #[arg(
        long,
        env = "SPIFFE_OPERATOR_PARENT_NAMESPACE",
        value_name = "NAMESPACE"
    )]
    namespace: String,
    /// What the server is called in `spec.parents` of NestedClusters.
    #[arg(long, env = "SPIFFE_OPERATOR_PARENT", value_name = "NAME")]
    name: String,
    /// The operator's namespace.
    #[arg(
        long,
        env = "SPIFFE_OPERATOR_NAMESPACE",
        default_value = crate::rbac::NAMESPACE,
        value_name = "NAMESPACE"
    )]
    operator_namespace: String,
}

/// Does what is asked for.
pub(super) fn execute(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Sidecar(arguments) => sidecar(arguments),
        Command::Patch(arguments) => super::print(&patch(&arguments)?),
        Command::Rights(arguments) => super::print(&rights(&arguments)?),
    }
}

fn sidecar(arguments: SidecarArguments) -> Result<ExitCode, String> {
    let SidecarArguments {
        config_dir,
        secret_dir,
        target_dir,
        once,
        log,
        log_format,
    } = arguments;
    logging::start(&log, log_format)
        .map_err(|error| format!("--log {log:?}: {}", error_chain(&error)))?;
    if !target_dir.is_absolute() {
        return Err(format!(
            "--target-dir {}: give an absolute path",
            target_dir.display()
        ));
    }
    let folders = Folders {
        config: config_dir,
        secret: secret_dir,
        target: target_dir,
    };
    if once {
        place(&folders).map_err(|error| error_chain(&error))?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let outcome = runtime.block_on(run(&folders));
    outcome.map_err(|error| format!("cannot receive signals: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

fn patch(arguments: &PatchArguments) -> Result<String, String> {
    let PatchArguments {
        name,
        image,
        container,
        user,
        target_dir,
        own_entries,
    } = arguments;
    let object = parent_object_name(name);
    let volume = |suffix: &str| format!("{SIDECAR}{suffix}");
    let target = json!({"name": volume(""), "mountPath": target_dir});
    let ours = |name: &str, further: &[&str]| {
        let target_flag = format!("--target-dir={target_dir}");
        let mut args = vec!["parent", "sidecar", target_flag.as_str()];
        args.extend(further);
        json!({
            "name": name,
            "image": image,
            "args": args,
            "securityContext": {
                "runAsUser": user,
                "runAsNonRoot": *user != 0,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "resources": {
                "requests": {"cpu": "5m", "memory": "16Mi"},
                "limits": {"memory": "64Mi"},
            },
            "volumeMounts": [
                target,
                {"name": volume("-config"), "mountPath": CONFIG_DIR, "readOnly": true},
                {"name": volume("-secret"), "mountPath": SECRET_DIR, "readOnly": true},
            ],
        })
    };
    let read_only = json!({"name": volume(""), "mountPath": target_dir, "readOnly": true});
    let config = [Some(&object), own_entries.as_ref()].into_iter().flatten();
    let config = config.map(|name| json!({"configMap": {"name": name, "optional": true}}));
    let config: Vec<_> = config.collect();
    let patch = json!({"spec": {"template": {"spec": {
        "shareProcessNamespace": true,
        "initContainers": [ours(&volume("-init"), &["--once"])],
        "containers": [
            {"name": container, "volumeMounts": [read_only]},
            ours(SIDECAR, &[]),
        ],
        "volumes": [
            {"name": volume(""), "emptyDir": {"medium": "Memory"}},
            {"name": volume("-config"), "projected": {"sources": config}},
            {"name": volume("-secret"), "secret": {"secretName": object, "optional": true}},
        ],
    }}}});
    let patch = yaml(&patch)?;
    Ok(format!(
        "# The server's configuration needs: NodeAttestor \"k8s_psat\" {{ plugin_data_file = \
         \"{target_dir}/{PLUGIN_DATA_FILE}\" }}\n{patch}"
    ))
}

fn rights(arguments: &RightsArguments) -> Result<String, String> {
    let RightsArguments {
        namespace,
        name,
        operator_namespace,
    } = arguments;
    let (role, binding) = parent_rights(namespace, name, operator_namespace);
    Ok(format!("---\n{}---\n{}", yaml(&role)?, yaml(&binding)?))
}

fn yaml(object: &impl serde::Serialize) -> Result<String, String> {
    // By JSON, whose maps are in order.
    let value = serde_json::to_value(object).map_err(|error| error.to_string())?;
    serde_saphyr::to_string::<Value>(&value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patch_adds_a_sidecar_that_may_signal_the_server() {
        let arguments = PatchArguments {
            name: "spire-server".into(),
            image: "example.org/spiffe-operator:1".into(),
            container: "spire-server".into(),
            user: 1000,
            target_dir: TARGET_DIR.into(),
            own_entries: Some("own-cluster".into()),
        };
        insta::assert_snapshot!(patch(&arguments).unwrap());
    }

    #[test]
    fn the_rights_are_two_documents() {
        let arguments = RightsArguments {
            namespace: "spire".into(),
            name: "spire-server".into(),
            operator_namespace: "spiffe-system".into(),
        };
        insta::assert_snapshot!(rights(&arguments).unwrap());
    }
}
