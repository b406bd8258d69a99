//! `users[].user.exec`: a program to run for a credential. It is run only where it is allowed;
//! `aws eks get-token` need not be run, as what it does is done here.

use super::{
    Credential, CredentialPlugin, FieldProblem, KubeconfigError, ReadOptions, aws_get_token,
    error::shown, field::Field,
};

/// What to do in place of running a known program.
const HINTS: &[(&str, &str)] = &[
    (
        "gke-gcloud-auth-plugin",
        "give GKE clusters a kubeconfig with a token of a service account of the cluster",
    ),
    (
        "gcloud",
        "give GKE clusters a kubeconfig with a token of a service account of the cluster",
    ),
    (
        "kubelogin",
        "give AKS clusters a kubeconfig with a token of a service account of the cluster",
    ),
    (
        "aws-iam-authenticator",
        "give EKS clusters the kubeconfig that `aws eks update-kubeconfig` writes",
    ),
];
const GENERAL_HINT: &str = "give a token or a client certificate in the kubeconfig, or allow the \
                            command where the operator is started";
/// Versions of `ExecCredential` that clients understand.
const API_VERSIONS: &[&str] = &[
    "client.authentication.k8s.io/v1",
    "client.authentication.k8s.io/v1beta1",
];

pub(super) fn read(
    exec: &Field<'_>,
    options: &ReadOptions<'_>,
) -> Result<Credential, KubeconfigError> {
    let command_field = exec.field("command")?;
    let command = command_field.required_text()?;
    let is_allowed = options.allowed_commands.iter().any(|it| it == command);
    let program = command.rsplit(['/', '\\']).next().unwrap_or(command);
    let program = program.trim_end_matches(".exe");
    if program == "aws" {
        match aws_get_token::read(exec) {
            Ok(cluster) => return Ok(Credential::EksToken(cluster)),
            Err(error) if !is_allowed => return Err(error),
            Err(_) => {}
        }
    }
    if !is_allowed {
        let hint = HINTS.iter().find(|(name, _)| *name == program);
        return Err(command_field.refuse(FieldProblem::ExecRefused {
            command: shown(command),
            hint: hint.map_or(GENERAL_HINT, |(_, hint)| hint),
        }));
    }
    plugin(exec, command).map(Credential::Plugin)
}

fn plugin(exec: &Field<'_>, command: &str) -> Result<CredentialPlugin, KubeconfigError> {
    let mode = exec.field("interactiveMode")?;
    if let Some("Always") = mode.text()? {
        return Err(mode.refuse(FieldProblem::Interactive {
            mode: "Always".into(),
        }));
    }
    let api_version = exec.field("apiVersion")?;
    let version = api_version.required_text()?;
    if !API_VERSIONS.contains(&version) {
        return Err(api_version.refuse(FieldProblem::Unexpected {
            value: shown(version),
            expected: "client.authentication.k8s.io/v1 or v1beta1",
        }));
    }
    let env = environment(exec)?.into_iter();
    Ok(CredentialPlugin {
        command: command.into(),
        args: exec.field("args")?.texts()?,
        env: env.map(|it| (it.name.into(), it.value.into())).collect(),
        api_version: version.into(),
        provide_cluster_info: exec.field("provideClusterInfo")?.flag()?,
    })
}

/// One variable that a program gets.
pub(super) struct Variable<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
    pub(super) field: Field<'a>,
}

/// What is added to the environment of the program.
pub(super) fn environment<'a>(exec: &Field<'a>) -> Result<Vec<Variable<'a>>, KubeconfigError> {
    let variables = exec.field("env")?.items()?.into_iter();
    variables
        .map(|field| {
            Ok(Variable {
                name: field.field("name")?.required_text()?,
                value: field.field("value")?.text()?.unwrap_or_default(),
                field,
            })
        })
        .collect()
}
