//! `spiffe-operator kubeconfig create`: run against a nested cluster by its administrator.

use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::DeleteParams;
use kube::{Api, Client, Config, Resource};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;

use super::block_on;
use super::describe::length;
use super::output::{OutputForm, document, written, yaml};
use crate::api::duration;
use crate::cli::print;
use crate::cli::rbac::{AccessArguments, is_name};
use crate::clusters::call;
use crate::clusters::nested::access::{self, MintedToken, TokenOf};
use crate::nested::ChildAccess;
use crate::nested::kubeconfig::{ChildKubeconfig, ReadOptions};
use crate::rbac::NAMESPACE;
use crate::rbac::nested::{IMPERSONATOR, NAME};
use crate::runtime::client::{build, config};
use crate::runtime::clock;
use crate::spiffe::pem;

/// Who applies the manifests.
const FIELD_MANAGER: &str = "spiffe-operator-kubeconfig";

/// Flags of `kubeconfig create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// Name of the nested cluster in the parent: of the Secret, or in the chart's values.
    #[arg(long, env = "SPIFFE_OPERATOR_NAME", value_name = "NAME")]
    name: String,
    /// Kubeconfig of the nested cluster's administrator. Default: $KUBECONFIG or ~/.kube/config.
    #[arg(long, env = "SPIFFE_OPERATOR_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of that kubeconfig. Default: its current one.
    #[arg(long, env = "SPIFFE_OPERATOR_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    #[command(flatten)]
    access: AccessArguments,
    /// URL by which the parent reaches the API server. Default: the one of that kubeconfig.
    #[arg(long, env = "SPIFFE_OPERATOR_SERVER", value_name = "URL")]
    server: Option<String>,
    /// How long the token lives, a Go duration. The API server may grant less.
    #[arg(
        long,
        env = "SPIFFE_OPERATOR_TTL",
        default_value = "720h",
        value_name = "DURATION"
    )]
    ttl: String,
    /// What to write: the kubeconfig, a Secret for the parent, or values for the Helm chart.
    #[arg(long, short, env = "SPIFFE_OPERATOR_OUTPUT", default_value = "file")]
    output: OutputForm,
    /// Namespace of the Secret: that of the operator in the parent.
    #[arg(
        long,
        env = "SPIFFE_OPERATOR_NAMESPACE",
        default_value = NAMESPACE,
        value_name = "NAMESPACE"
    )]
    namespace: String,
    /// File to write, readable by you alone. Default: standard output.
    #[arg(long, env = "SPIFFE_OPERATOR_FILE", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print what would be applied, and do nothing.
    #[arg(long, env = "SPIFFE_OPERATOR_DRY_RUN")]
    dry_run: bool,
}

/// Applies, asks for the token, and writes.
pub(super) fn execute(arguments: &Arguments) -> Result<ExitCode, String> {
    let Arguments {
        name, namespace, ..
    } = arguments;
    for (flag, name) in [("--name", name), ("--namespace", namespace)] {
        if !is_name(name) {
            return Err(format!(
                "{flag} {name:?}: must be a name of lower-case letters, digits, - and ."
            ));
        }
    }
    let ttl = duration::parse(&arguments.ttl).map_err(|error| format!("--ttl: {error}"))?;
    let ttl = i64::try_from(ttl.as_secs()).map_err(|_| "--ttl: is too long")?;
    let access = arguments.access.access()?;
    if arguments.dry_run {
        return print(&access.manifests());
    }
    let (kubeconfig, ends) = block_on(create(arguments, &access, ttl))?;
    let text = written(arguments.output, &kubeconfig, [name, namespace])?;
    let outcome = match &arguments.file {
        Some(path) => write_private(path, &text).map(|()| ExitCode::SUCCESS),
        None => print(&text),
    }?;
    let granted = ends.duration_since(clock::now());
    eprintln!(
        "spiffe-operator: the token ends at {ends}, in {} ({} were asked for)",
        length(granted),
        length(jiff::SignedDuration::from_secs(ttl))
    );
    Ok(outcome)
}

/// The kubeconfig, and when its token ends.
async fn create(
    arguments: &Arguments,
    let_in: &ChildAccess,
    ttl: i64,
) -> Result<(String, Timestamp), String> {
    let path = arguments.kubeconfig.as_deref();
    let config = config(path, arguments.context.as_deref()).await;
    let config = config.map_err(|error| crate::error_chain(&error))?;
    let client = build(config.clone()).map_err(|error| crate::error_chain(&error))?;
    access::apply(&client, &let_in.manifests(), FIELD_MANAGER, None)
        .await
        .map_err(|error| error.to_string())?;
    if let_in.impersonation.is_none() {
        // Of an earlier call, perhaps.
        delete::<ClusterRoleBinding>(&client, IMPERSONATOR).await?;
        delete::<ClusterRole>(&client, IMPERSONATOR).await?;
    }
    let account = TokenOf {
        namespace: NAMESPACE,
        account: NAME,
        bound_to: None,
    };
    let minted = access::mint(&client, account, ttl).await;
    let MintedToken { text, ends_at } = minted.map_err(|error| error.to_string())?;
    let kubeconfig = kubeconfig(&config, arguments.server.as_deref(), text.expose_secret())?;
    let kubeconfig = match &let_in.impersonation {
        Some(who) => kubeconfig.impersonating(who.clone()),
        None => kubeconfig,
    };
    Ok((yaml(&kubeconfig.to_kubeconfig())?, ends_at))
}

async fn delete<K>(client: &Client, name: &str) -> Result<(), String>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let objects = Api::<K>::all(client.clone());
    match call(objects.delete(name, &DeleteParams::default())).await {
        Err(error) if !error.is_not_found() => {
            let kind = K::kind(&());
            Err(format!("cannot delete {kind} {name}: {}", error.message()))
        }
        _ => Ok(()),
    }
}

/// A kubeconfig for the cluster of `config`, checked as the operator will check it.
fn kubeconfig(
    config: &Config,
    server: Option<&str>,
    token: &str,
) -> Result<ChildKubeconfig, String> {
    let cannot = |problem: String| format!("the operator could not use the kubeconfig: {problem}");
    if config.accept_invalid_certs {
        let problem = "yours does not check the API server's certificate, so its CA is not known";
        return Err(cannot(problem.into()));
    }
    let of_config = config.cluster_url.to_string();
    let authorities = authorities(config)?;
    let document = document(
        server.unwrap_or(&of_config),
        authorities.as_deref(),
        config.tls_server_name.as_deref(),
        token,
    );
    ChildKubeconfig::read(document.to_string().as_bytes(), &ReadOptions::default())
        .map_err(|error| cannot(error.to_string()))
}

/// The CAs in PEM; none: those that the machine trusts.
fn authorities(config: &Config) -> Result<Option<String>, String> {
    if let Some(path) = &config.root_cert_file {
        let pem = std::fs::read_to_string(path);
        return pem
            .map(Some)
            .map_err(|error| format!("cannot read {}: {error}", path.display()));
    }
    let certificates = config.root_cert.as_ref();
    Ok(certificates.map(|certificates| {
        let certificates = certificates.iter();
        certificates
            .map(|der| pem::encode("CERTIFICATE", der))
            .collect()
    }))
}

/// Writes a file that only its owner can read, whatever was there.
fn write_private(path: &Path, text: &str) -> Result<(), String> {
    let mut options = OpenOptions::new();
    let opened = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    opened
        .and_then(|mut file| {
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())
        })
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
