//! How nodes show what they are, and the files with which they do.

use std::{
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::authorities::Ca;

/// How an agent shows what it is. The files are the caller's.
#[derive(Clone, Debug)]
pub(crate) enum Attestor {
    JoinToken(String),
    X509Pop {
        /// PEM, leaf first.
        certificates: PathBuf,
        key: PathBuf,
    },
    K8sPsat {
        cluster: String,
        token: PathBuf,
    },
}

impl Attestor {
    /// A certificate with the common name `name` under `ca`, written into `folder`.
    pub(crate) fn x509pop(ca: &Ca, name: &str, folder: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = parameters.signed_by(&key, ca).unwrap();
        let file = |end: &str| folder.join(format!("{name}.{end}"));
        let (certificates, key_file) = (file("crt"), file("key"));
        fs::write(&certificates, certificate.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        Self::X509Pop {
            certificates,
            key: key_file,
        }
    }

    /// A token of the service account of `pod`, bound to the pod, written into `folder`.
    pub(crate) async fn k8s_psat(
        client: &Client,
        cluster: &str,
        pod: &Pod,
        audience: &str,
        folder: &Path,
    ) -> Self {
        let token = pod_token(client, pod, audience).await;
        let file = folder.join(format!("{}.token", pod.name_any()));
        fs::write(&file, token).unwrap();
        Self::K8sPsat {
            cluster: cluster.to_owned(),
            token: file,
        }
    }
}

/// A token as the kubelet projects it into `pod`.
pub(crate) async fn pod_token(client: &Client, pod: &Pod, audience: &str) -> String {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &pod.namespace().unwrap());
    let account = pod.spec.as_ref().unwrap().service_account_name.as_deref();
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![audience.to_owned()]),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            expiration_seconds: Some(600),
            attestations: None,
        }),
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(account.unwrap(), &PostParams::default(), &request)
        .await
        .unwrap();
    answer.status.unwrap().token.unwrap()
}
