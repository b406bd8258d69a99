//! A checked kubeconfig as the Kubernetes client takes it, and as others read it.

use base64::{Engine, prelude::BASE64_STANDARD};
use kube::config::{
    AuthInfo, Cluster, Context, ExecConfig, ExecInteractiveMode, Kubeconfig, NamedAuthInfo,
    NamedCluster, NamedContext,
};
use secrecy::{ExposeSecret, SecretString};

use super::{
    ApiServer, ChildKubeconfig, Credential, CredentialPlugin, EksCluster, Impersonation,
    ServerTrust,
};
use crate::spiffe::pem;

/// The one name in the documents that are written here.
const NAME: &str = "child";
const EXEC_API_VERSION: &str = "client.authentication.k8s.io/v1beta1";

impl ChildKubeconfig {
    /// A document that says the same, with one context and nothing else. Its text, by serde, has the
    /// secrets in it, and its `Debug` those of programs and proxies.
    #[must_use]
    pub fn to_kubeconfig(&self) -> Kubeconfig {
        kubeconfig(
            &self.server,
            auth_info(&self.credential),
            self.impersonation.as_ref(),
        )
    }

    /// What a client of this program is made of. The token of [`Credential::EksToken`] is not in it:
    /// whoever makes the client adds one to each request.
    #[must_use]
    pub fn to_client_kubeconfig(&self) -> Kubeconfig {
        let auth_info = match &self.credential {
            Credential::EksToken(_) => AuthInfo::default(),
            credential => auth_info(credential),
        };
        kubeconfig(&self.server, auth_info, self.impersonation.as_ref())
    }
}

fn kubeconfig(
    server: &ApiServer,
    auth_info: AuthInfo,
    impersonation: Option<&Impersonation>,
) -> Kubeconfig {
    Kubeconfig {
        kind: Some("Config".into()),
        api_version: Some("v1".into()),
        current_context: Some(NAME.into()),
        clusters: vec![NamedCluster {
            name: NAME.into(),
            cluster: Some(cluster(server)),
            ..NamedCluster::default()
        }],
        auth_infos: vec![NamedAuthInfo {
            name: NAME.into(),
            auth_info: Some(impersonating(auth_info, impersonation)),
            ..NamedAuthInfo::default()
        }],
        contexts: vec![NamedContext {
            name: NAME.into(),
            context: Some(Context {
                cluster: NAME.into(),
                user: Some(NAME.into()),
                ..Context::default()
            }),
            ..NamedContext::default()
        }],
        ..Kubeconfig::default()
    }
}

fn cluster(server: &ApiServer) -> Cluster {
    let (authorities, unchecked) = match &server.trust {
        ServerTrust::Authorities(certificates) => {
            let pem = pem::encode_certificates(certificates);
            (Some(BASE64_STANDARD.encode(pem)), None)
        }
        ServerTrust::System => (None, None),
        ServerTrust::Unchecked => (None, Some(true)),
    };
    Cluster {
        server: Some(server.url.as_str().into()),
        certificate_authority_data: authorities,
        insecure_skip_tls_verify: unchecked,
        proxy_url: server.proxy.as_ref().map(|proxy| proxy.0.clone()),
        tls_server_name: server
            .tls_server_name
            .as_ref()
            .map(|name| name.to_str().into_owned()),
        ..Cluster::default()
    }
}

fn auth_info(credential: &Credential) -> AuthInfo {
    match credential {
        Credential::Token(token) => AuthInfo {
            token: Some(token.text.clone()),
            ..AuthInfo::default()
        },
        Credential::TokenFile(path) => AuthInfo {
            token_file: Some(path.clone()),
            ..AuthInfo::default()
        },
        Credential::ClientCertificate(certificate) => {
            let chain = pem::encode_certificates(&certificate.chain);
            let key = BASE64_STANDARD.encode(certificate.key.expose_secret());
            AuthInfo {
                client_certificate_data: Some(BASE64_STANDARD.encode(chain)),
                client_key_data: Some(SecretString::from(key)),
                ..AuthInfo::default()
            }
        }
        Credential::EksToken(cluster) => exec(get_token(cluster)),
        Credential::Plugin(plugin) => exec(run(plugin)),
    }
}

fn exec(exec: ExecConfig) -> AuthInfo {
    AuthInfo {
        exec: Some(ExecConfig {
            interactive_mode: Some(ExecInteractiveMode::Never),
            ..exec
        }),
        ..AuthInfo::default()
    }
}

fn get_token(cluster: &EksCluster) -> ExecConfig {
    let EksCluster { name, region, .. } = cluster;
    let args = [
        "--region",
        region,
        "eks",
        "get-token",
        "--cluster-name",
        name,
    ];
    let role = cluster.role_arn.iter();
    let role = role.flat_map(|role| ["--role-arn", role.as_str()]);
    ExecConfig {
        api_version: Some(EXEC_API_VERSION.into()),
        command: Some("aws".into()),
        args: Some(args.into_iter().chain(role).map(str::to_owned).collect()),
        ..ExecConfig::default()
    }
}

fn run(plugin: &CredentialPlugin) -> ExecConfig {
    let variable = |(name, value): &(String, String)| {
        let pairs = [("name", name), ("value", value)];
        pairs
            .map(|(key, text)| (key.to_owned(), text.clone()))
            .into()
    };
    ExecConfig {
        api_version: Some(plugin.api_version.clone()),
        command: Some(plugin.command.clone()),
        args: Some(plugin.args.clone()),
        env: Some(plugin.env.iter().map(variable).collect()),
        provide_cluster_info: plugin.provide_cluster_info,
        ..ExecConfig::default()
    }
}

fn impersonating(auth_info: AuthInfo, impersonation: Option<&Impersonation>) -> AuthInfo {
    let Some(who) = impersonation else {
        return auth_info;
    };
    let extra = who.extra().iter();
    AuthInfo {
        impersonate: Some(who.user().into()),
        impersonate_uid: who.uid().map(str::to_owned),
        impersonate_groups: (!who.groups().is_empty()).then(|| who.groups().to_vec()),
        impersonate_user_extra: (!who.extra().is_empty()).then(|| {
            extra
                .map(|(key, values)| (key.clone(), values.clone()))
                .collect()
        }),
        ..auth_info
    }
}
