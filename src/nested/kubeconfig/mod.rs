//! A kubeconfig that somebody gave for another cluster, read and checked before anything of it is
//! used: which API server, how it is trusted, by which credential and as whom.
//!
//! Only the chosen context counts, with its cluster and its user; what else is in the document is
//! not looked at. A kubeconfig may name files and programs of the machine that it was made on. Here
//! it is the word of a stranger, so files are refused, and so are programs that are not allowed.
//! Fields that are unknown, and those that mean nothing to a program (`preferences`, `extensions`,
//! `namespace`, `disable-compression`), are passed over, as Kubernetes does.
//!
//! Errors name the field, and never hold a value that may be secret.

mod aws_get_token;
mod document;
mod error;
mod exec;
mod export;
mod field;
mod impersonation;
mod jwt;
mod server;
#[cfg(test)]
mod tests;
mod user;

use std::fmt;

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, ServerName};
use secrecy::SecretString;

pub use document::MAX_KUBECONFIG_LENGTH;
pub use error::{FieldProblem, KubeconfigError};
pub use impersonation::Impersonation;

use field::Field;

/// What the reader of a kubeconfig is told besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions<'a> {
    /// Name of the context to use; none: `current-context`, or the only one there is.
    pub context: Option<&'a str>,
    /// Takes `insecure-skip-tls-verify: true`.
    pub allow_insecure_tls: bool,
    /// Takes `tokenFile`.
    pub allow_token_file: bool,
    /// Programs that may be run for credentials, each as `exec.command` has it.
    pub allowed_commands: &'a [String],
}

/// A kubeconfig that can be used: its chosen context.
#[derive(Clone, Debug)]
pub struct ChildKubeconfig {
    /// The API server.
    pub server: ApiServer,
    /// By what the API server knows us.
    pub credential: Credential,
    /// As whom we act.
    pub impersonation: Option<Impersonation>,
}

/// An API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServer {
    /// Where it is.
    pub url: ServerUrl,
    /// How it proves that it is the right one.
    pub trust: ServerTrust,
    /// The name that its certificate must have, in place of the URL's host.
    pub tls_server_name: Option<ServerName<'static>>,
    /// The proxy on the way to it.
    pub proxy: Option<ProxyUrl>,
}

/// An `https` URL with a host and without user, query and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// The URL as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How an API server's certificate is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerTrust {
    /// By these CAs, at least one.
    Authorities(Vec<CertificateDer<'static>>),
    /// By the CAs that the machine trusts.
    System,
    /// Not at all.
    Unchecked,
}

/// URL of a proxy, which may have a password in it.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(String);

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        write!(f, "ProxyUrl({scheme}://{host})")
    }
}

/// By what an API server knows us: exactly one thing.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A bearer token.
    Token(BearerToken),
    /// A file with a bearer token.
    TokenFile(String),
    /// A client certificate.
    ClientCertificate(ClientCertificate),
    /// A token for Amazon EKS, which is made of AWS credentials.
    EksToken(EksCluster),
    /// What a program prints.
    Plugin(CredentialPlugin),
}

/// A bearer token: visible ASCII characters without spaces, at least one.
#[derive(Clone, Debug)]
pub struct BearerToken {
    /// The token.
    pub text: SecretString,
    /// The claim `exp`, if the token is a JWT that has it. Nobody verified it.
    pub expires_at: Option<Timestamp>,
}

/// A client certificate and the key that belongs to it.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The certificate, then the intermediate ones.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key in PEM.
    pub key: SecretString,
    /// End of the certificate's validity.
    pub not_after: Timestamp,
}

/// A cluster as `aws eks get-token` is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EksCluster {
    /// Its name, or on AWS Outposts its ID.
    pub name: String,
    /// Its AWS region.
    pub region: String,
    /// ARN of the role to assume first.
    pub role_arn: Option<String>,
}

/// A program that prints a credential (`client.authentication.k8s.io`).
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialPlugin {
    /// The program.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What is added to its environment.
    pub env: Vec<(String, String)>,
    /// Version of `ExecCredential` that it speaks.
    pub api_version: String,
    /// Whether it is told about the cluster.
    pub provide_cluster_info: bool,
}

impl fmt::Debug for CredentialPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialPlugin")
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

impl ChildKubeconfig {
    /// Reads a kubeconfig: YAML or JSON, as it is or in base64, once or twice.
    ///
    /// # Errors
    /// The first thing that is wrong, with its field.
    pub fn read(bytes: &[u8], options: &ReadOptions<'_>) -> Result<Self, KubeconfigError> {
        let value = document::read(bytes)?;
        let document = Field::document(&value);
        document.check_kind()?;
        let context = context(&document, options.context)?;
        let user = referenced(&document, &context, "user", "users")?;
        let cluster = referenced(&document, &context, "cluster", "clusters")?;
        Ok(Self {
            server: server::read(&cluster, options)?,
            credential: user::read(&user, options)?,
            impersonation: impersonation::read(&user)?,
        })
    }

    /// All that is wrong with a kubeconfig, as far as it can be told at once: what [`Self::read`]
    /// says of it, and what it would say next.
    #[must_use]
    pub fn problems(bytes: &[u8], options: &ReadOptions<'_>) -> Vec<KubeconfigError> {
        let parts = || {
            let value = document::read(bytes)?;
            let document = Field::document(&value);
            document.check_kind()?;
            let context = context(&document, options.context)?;
            let cluster = referenced(&document, &context, "cluster", "clusters");
            let user = referenced(&document, &context, "user", "users");
            let mut problems = Vec::new();
            problems.extend(cluster.and_then(|it| server::read(&it, options)).err());
            match user {
                Ok(user) => {
                    problems.extend(user::read(&user, options).err());
                    problems.extend(impersonation::read(&user).err());
                }
                Err(problem) => problems.push(problem),
            }
            Ok(problems)
        };
        parts().unwrap_or_else(|problem| vec![problem])
    }

    /// The same, acting as `impersonation` whatever the kubeconfig says.
    #[must_use]
    pub fn impersonating(self, impersonation: Impersonation) -> Self {
        Self {
            impersonation: Some(impersonation),
            ..self
        }
    }

    /// When the credential ends, where it says so.
    #[must_use]
    pub fn credential_expires_at(&self) -> Option<Timestamp> {
        match &self.credential {
            Credential::Token(token) => token.expires_at,
            Credential::ClientCertificate(certificate) => Some(certificate.not_after),
            Credential::TokenFile(_) | Credential::EksToken(_) | Credential::Plugin(_) => None,
        }
    }
}

/// `contexts[i].context` of the context to use.
fn context<'a>(document: &Field<'a>, wanted: Option<&str>) -> Result<Field<'a>, KubeconfigError> {
    let current = document.field("current-context")?;
    let asked_for = match wanted {
        Some(name) => Some(name),
        None => current.text()?,
    };
    let found = match asked_for {
        Some(name) => document.named("contexts", name)?,
        None => document.only("contexts")?,
    };
    let found = found.ok_or_else(|| {
        let names = document.names("contexts");
        match (wanted, asked_for) {
            (Some(name), _) => KubeconfigError::NoSuchContext {
                name: error::shown(name),
                names,
            },
            (None, Some(name)) => current.refuse(FieldProblem::unknown(name, "contexts", &names)),
            (None, None) => current.refuse(FieldProblem::NoContext { names }),
        }
    })?;
    found.field("context")
}

/// What `context` names by `key`, without the name.
fn referenced<'a>(
    document: &Field<'a>,
    context: &Field<'a>,
    key: &'static str,
    list: &'static str,
) -> Result<Field<'a>, KubeconfigError> {
    let reference = context.field(key)?;
    let name = reference.required_text()?;
    let found = document.named(list, name)?.ok_or_else(|| {
        reference.refuse(FieldProblem::unknown(name, list, &document.names(list)))
    })?;
    found.field(key)
}
