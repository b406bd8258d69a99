//! `spiffe-operator kubeconfig inspect`: what somebody got, before it goes to the parent.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::PostParams;
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config};

use super::{block_on, describe};
use crate::cli::print;
use crate::cli::rbac::AccessArguments;
use crate::clusters::nested::{missing_rights, rules};
use crate::clusters::{CallError, call};
use crate::nested::kubeconfig::{ChildKubeconfig, Credential, MAX_KUBECONFIG_LENGTH, ReadOptions};
use crate::nested::rights::Needs;
use crate::runtime::client::build;
use crate::runtime::clock;

/// Flags of `kubeconfig inspect`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The kubeconfig, as it is or in base64; - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Context to use, as spec.kubeConfig.context of the NestedCluster. Default: the current one.
    #[arg(long, env = "SPIFFE_OPERATOR_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    /// Take a kubeconfig that does not check the API server's certificate, as
    /// spec.kubeConfig.insecureSkipTLSVerify of the NestedCluster does.
    #[arg(long, env = "SPIFFE_OPERATOR_INSECURE_SKIP_TLS_VERIFY")]
    insecure_skip_tls_verify: bool,
    #[command(flatten)]
    access: AccessArguments,
    /// Do not ask the cluster.
    #[arg(long, env = "SPIFFE_OPERATOR_OFFLINE")]
    offline: bool,
}

/// Says what it is; the status is a failure when the operator could not use it.
pub(super) fn execute(arguments: &Arguments) -> Result<ExitCode, String> {
    let bytes = read(arguments)?;
    let options = ReadOptions {
        context: arguments.context.as_deref(),
        allow_insecure_tls: arguments.insecure_skip_tls_verify,
        ..ReadOptions::default()
    };
    let Ok(kubeconfig) = ChildKubeconfig::read(&bytes, &options) else {
        for problem in ChildKubeconfig::problems(&bytes, &options) {
            print(&format!("refused:      {problem}\n"))?;
        }
        return Ok(ExitCode::FAILURE);
    };
    let kubeconfig = match arguments.access.impersonation()? {
        Some(who) => kubeconfig.impersonating(who),
        None => kubeconfig,
    };
    let now = clock::now();
    print(&describe::kubeconfig(&kubeconfig, now))?;
    let has_ended = kubeconfig
        .credential_expires_at()
        .is_some_and(|end| end <= now);
    let is_asked = !arguments.offline && !has_ended;
    let is_good = match &kubeconfig.credential {
        Credential::EksToken(_) => {
            print("not asked:    the cluster takes AWS credentials, which are the operator's\n")?;
            true
        }
        _ if is_asked => {
            let needs = arguments.access.access()?.needs;
            let (text, is_good) = block_on(ask(&kubeconfig, &needs))?;
            print(&text)?;
            is_good
        }
        _ => !has_ended,
    };
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn read(arguments: &Arguments) -> Result<Vec<u8>, String> {
    let file = &arguments.file;
    // One byte more shows that it is too long; base64, twice, takes up to twice the room.
    let limit = u64::try_from(2 * MAX_KUBECONFIG_LENGTH + 1).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(bytes)
}

/// What the cluster says, and whether that is all that is needed.
async fn ask(kubeconfig: &ChildKubeconfig, needs: &Needs) -> Result<(String, bool), String> {
    let options = KubeConfigOptions::default();
    let document = kubeconfig.to_client_kubeconfig();
    let config = Config::from_custom_kubeconfig(document, &options).await;
    let config = config.map_err(|error| crate::error_chain(&error))?;
    let client = build(config).map_err(|error| crate::error_chain(&error))?;
    let answer = answer(&client, needs).await;
    answer.map_err(|error| format!("cannot ask the cluster: {}", error.message()))
}

async fn answer(client: &Client, needs: &Needs) -> Result<(String, bool), CallError> {
    let reviews = Api::<SelfSubjectReview>::all(client.clone());
    let review =
        call(reviews.create(&PostParams::default(), &SelfSubjectReview::default())).await?;
    let user = review.status.and_then(|status| status.user_info);
    let user = user.and_then(|user| user.username).unwrap_or_default();
    let mut text = format!("known as:     {user}\n");
    let namespaces = needs.bundle.iter().map(|bundle| Some(&*bundle.namespace));
    for namespace in std::iter::once(None).chain(namespaces) {
        text += &describe::rules(namespace, &rules(client, namespace).await?);
    }
    let missing = missing_rights(client, needs).await?;
    text += &describe::missing(&missing);
    Ok((text, missing.is_empty()))
}
