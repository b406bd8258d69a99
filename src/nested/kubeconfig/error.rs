//! Why a kubeconfig is not used.

use super::MAX_KUBECONFIG_LENGTH;

/// How many names an error lists.
const MAX_NAMES: usize = 5;
/// Longest name that is shown in full, in bytes.
const MAX_NAME_LENGTH: usize = 100;

/// Why a kubeconfig is not used. The message holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KubeconfigError {
    /// Nothing but white space.
    #[error("the kubeconfig is empty")]
    Empty,
    /// A field that is wrong.
    #[error("{field}: {problem}")]
    Field {
        /// Where it is, such as `users[2] "child01".user.exec.command`.
        field: String,
        /// What is wrong.
        problem: FieldProblem,
    },
    /// Text that is no mapping.
    #[error(
        "this is no kubeconfig: it must be YAML or JSON with clusters, users and contexts, or \
         that in base64"
    )]
    NotAMapping,
    /// The context that was asked for from outside is not there.
    #[error("contexts: the kubeconfig has no context {name:?}; there are {names}")]
    NoSuchContext {
        /// The context.
        name: String,
        /// Those that there are.
        names: String,
    },
    /// Bytes that are no UTF-8.
    #[error("the kubeconfig is no text in UTF-8")]
    NotText,
    /// Neither YAML nor JSON.
    #[error("the kubeconfig is no YAML and no JSON from line {line}, column {column} on")]
    Syntax {
        /// Line, from 1 on; 0 where it is not known.
        line: u64,
        /// Column, from 1 on; 0 where it is not known.
        column: u64,
    },
    /// More bytes than are read.
    #[error(
        "the kubeconfig has {bytes} bytes, more than the {MAX_KUBECONFIG_LENGTH} that are read; \
         `kubectl config view --raw --minify` writes one context only"
    )]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// Base64 three times or more.
    #[error("the kubeconfig is in base64 more than twice")]
    TooManyLayers,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldProblem {
    /// A plugin of before Kubernetes 1.26.
    #[error(
        "Kubernetes has no such plugins any more; give a token or a client certificate of a user \
         of the cluster"
    )]
    AuthProvider,
    /// Something about `aws eks get-token`.
    #[error("{0}")]
    AwsGetToken(#[from] AwsGetTokenProblem),
    /// No base64.
    #[error("is not in base64")]
    Base64,
    /// A password.
    #[error("Kubernetes takes no passwords since 1.19; give a token or a client certificate")]
    BasicAuth,
    /// A private key that is encrypted.
    #[error("the key is encrypted; give it without a passphrase")]
    EncryptedKey,
    /// A program that is not allowed.
    #[error("{command:?} would be run for a credential, and may not; {hint}")]
    ExecRefused {
        /// The program.
        command: String,
        /// What to do.
        hint: &'static str,
    },
    /// A file of another machine.
    #[error(
        "names a file, which this program cannot read; put what is in it into {inline} \
         (`kubectl config view --raw --flatten` does)"
    )]
    FileReference {
        /// The field for the contents.
        inline: &'static str,
    },
    /// Groups, UID or extra values to impersonate, and no user.
    #[error("needs `as`: who is impersonated has a name")]
    ImpersonationWithoutUser,
    /// The API server's certificate would not be checked.
    #[error(
        "the API server's certificate would not be checked; give certificate-authority-data, or \
         allow this in the object (spec.kubeConfig.insecureSkipTLSVerify)"
    )]
    Insecure,
    /// Not checked, and yet CAs are given.
    #[error("is true, and certificate-authority-data is given; leave one of them out")]
    InsecureWithAuthorities,
    /// A program that asks people.
    #[error("{mode:?} is not possible, nobody is there to be asked")]
    Interactive {
        /// The mode.
        mode: String,
    },
    /// Key and certificate do not match.
    #[error("is not the key of client-certificate-data")]
    KeyMismatch,
    /// Not there.
    #[error("is missing")]
    Missing,
    /// Two of the same name.
    #[error("there are several with this name")]
    NameNotUnique,
    /// Nothing that says who we are.
    #[error("has no credential: give token, or client-certificate-data and client-key-data")]
    NoCredential,
    /// No context is chosen.
    #[error("names no context; there are {names}")]
    NoContext {
        /// Those that there are.
        names: String,
    },
    /// No certificate.
    #[error("there is no PEM block that starts with -----BEGIN CERTIFICATE-----, or it is damaged")]
    NoCertificate,
    /// A character that no HTTP header may have.
    #[error("has a character that is no visible ASCII")]
    NotHeaderText,
    /// No private key.
    #[error("there is no private key in PEM of a kind that is known, or it is damaged")]
    NoKey,
    /// A proxy of another kind.
    #[error("must be a URL of the form http://, https:// or socks5://host:port")]
    ProxyUrl,
    /// A server that is none.
    #[error("must be an https URL with a host and without user name, query and fragment")]
    ServerUrl,
    /// More than one credential.
    #[error("has more than one credential ({fields}); which one counts?")]
    SeveralCredentials {
        /// The fields.
        fields: String,
    },
    /// No name of a server.
    #[error("is neither a DNS name nor an IP address")]
    TlsServerName,
    /// A name without its object.
    #[error("{name:?} is not in {list}; there are {names}")]
    Unknown {
        /// The name.
        name: String,
        /// Where it should be.
        list: &'static str,
        /// Those that there are.
        names: String,
    },
    /// Another version or kind.
    #[error("is {value:?}, must be {expected}")]
    Unexpected {
        /// What it is.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A certificate that cannot be used.
    #[error("certificate {position} is no usable X.509 certificate")]
    UnusableCertificate {
        /// Which one, from 1 on.
        position: usize,
    },
    /// A key that cannot be used.
    #[error("the key is of a kind that TLS does not know")]
    UnusableKey,
    /// A value of another type.
    #[error("must be {expected}")]
    WrongType {
        /// The type, with its article.
        expected: &'static str,
    },
}

/// What is wrong with a call of `aws eks get-token`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AwsGetTokenProblem {
    /// No cluster.
    #[error("`aws eks get-token` has no --cluster-name")]
    NoCluster,
    /// No region.
    #[error("`aws eks get-token` has no --region")]
    NoRegion,
    /// Another command of `aws`.
    #[error("of the commands of `aws` only `aws eks get-token` can be used here")]
    OtherCommand,
    /// A profile.
    #[error(
        "profiles of the AWS CLI are on the machine that the kubeconfig was made on; give the \
         operator an IAM role, and --role-arn where it must assume another"
    )]
    Profile,
    /// An option or variable that changes what is done.
    #[error("{name} is not understood here")]
    Unknown {
        /// The option or variable.
        name: String,
    },
    /// A value that is none.
    #[error("the value of {name} is missing or not valid")]
    Value {
        /// The option or variable.
        name: &'static str,
    },
}

impl KubeconfigError {
    /// The reason for a condition, in one word.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Field { problem, .. } => problem.reason(),
            Self::NoSuchContext { .. } => "KubeConfigInvalid",
            _ => "KubeConfigMalformed",
        }
    }
}

impl FieldProblem {
    pub(super) fn unknown(name: &str, list: &'static str, names: &str) -> Self {
        Self::Unknown {
            name: shown(name),
            list,
            names: names.into(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::AwsGetToken(_) | Self::ExecRefused { .. } | Self::Interactive { .. } => {
                "ExecRefused"
            }
            Self::FileReference { .. } => "FileReferenceRefused",
            Self::Insecure => "InsecureTLSRefused",
            Self::AuthProvider
            | Self::BasicAuth
            | Self::NoCredential
            | Self::SeveralCredentials { .. } => "CredentialRefused",
            _ => "KubeConfigInvalid",
        }
    }
}

/// Some of `names`, quoted.
pub(super) fn list<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = names.len();
    if count == 0 {
        return "none".into();
    }
    let shown: Vec<String> = names
        .take(MAX_NAMES)
        .map(|name| format!("{:?}", shown(name)))
        .collect();
    let listed = shown.join(", ");
    match count.saturating_sub(MAX_NAMES) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

/// `name`, shortened where it is too long to show.
pub(super) fn shown(name: &str) -> String {
    let short = crate::truncate(name, MAX_NAME_LENGTH);
    if short.len() == name.len() {
        name.into()
    } else {
        format!("{short}…")
    }
}
