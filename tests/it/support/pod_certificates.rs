//! What a kubelet does to get a pod its certificate.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::PodCertificateRequest,
        core::v1::{Node, Pod, ServiceAccount},
    },
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde_json::{Value, json};

use super::{
    control_plane::ControlPlane,
    objects::merge,
    wait::{SOON, wait_until},
};

/// A pod's spec with a `podCertificate` volume for `signer`; without it the API server believes no
/// node's request.
pub(crate) fn certificate_pod(signer: &str, service_account: &str) -> Value {
    json!({
        "serviceAccountName": service_account,
        "volumes": [{
            "name": "identity",
            "projected": { "sources": [{ "podCertificate": {
                "signerName": signer,
                "keyType": "ECDSAP256",
                "credentialBundlePath": "bundle.pem",
            }}]},
        }],
    })
}

/// A new key, and the empty CSR that a kubelet sends for it.
pub(crate) fn key_and_csr() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    let csr = parameters.serialize_request(&key).unwrap().der().to_vec();
    (key, csr)
}

/// The kubelet of one node: it asks with that node's rights.
pub(crate) struct Kubelet {
    node: Node,
    client: Client,
    version: String,
}

impl Kubelet {
    /// The kubelet of `node`, with version `v1` of the API.
    pub(crate) async fn new(control_plane: &ControlPlane, node: &Node) -> Self {
        let user = format!("system:node:{}", node.name_any());
        let client = control_plane.client_as(&user, &["system:nodes"]).await;
        Self {
            node: node.clone(),
            client,
            version: "v1".to_owned(),
        }
    }

    /// The same with another version of the API.
    pub(crate) fn with_version(self, version: &str) -> Self {
        Self {
            version: version.to_owned(),
            ..self
        }
    }

    /// Makes a key and asks `signer` for the pod's certificate, with an empty CSR.
    pub(crate) async fn request(
        &self,
        signer: &str,
        pod: &Pod,
        service_account: &ServiceAccount,
        annotations: &[(&str, &str)],
    ) -> (KeyPair, PodCertificateRequest) {
        let (key, csr) = key_and_csr();
        // Right after it was made, a pod may not be known to admission yet; a kubelet asks again.
        let request = wait_until("the request to be taken", SOON, || async {
            self.request_with_csr(signer, pod, service_account, annotations, csr.clone())
                .await
                .map_err(|error| error.to_string())
        })
        .await;
        (key, request)
    }

    /// Asks with a CSR made by the test.
    ///
    /// # Errors
    /// As the API server gives it.
    pub(crate) async fn request_with_csr(
        &self,
        signer: &str,
        pod: &Pod,
        service_account: &ServiceAccount,
        annotations: &[(&str, &str)],
        csr: Vec<u8>,
    ) -> kube::Result<PodCertificateRequest> {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let changes = json!({
            "stubPKCS10Request": ByteString(csr),
            "unverifiedUserAnnotations": annotations,
        });
        self.request_with(signer, pod, service_account, changes)
            .await
    }

    /// Asks with `changes` to the spec, which has no key.
    ///
    /// # Errors
    /// As the API server gives it.
    pub(crate) async fn request_with(
        &self,
        signer: &str,
        pod: &Pod,
        service_account: &ServiceAccount,
        changes: Value,
    ) -> kube::Result<PodCertificateRequest> {
        let mut object = json!({
            "apiVersion": format!("certificates.k8s.io/{}", self.version),
            "kind": "PodCertificateRequest",
            "metadata": {
                "generateName": "req-",
                "namespace": pod.namespace(),
                "ownerReferences": [{
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": pod.name_any(),
                    "uid": pod.uid(),
                }],
            },
            "spec": {
                "signerName": signer,
                "podName": pod.name_any(),
                "podUID": pod.uid(),
                "serviceAccountName": service_account.name_any(),
                "serviceAccountUID": service_account.uid(),
                "nodeName": self.node.name_any(),
                "nodeUID": self.node.uid(),
                "maxExpirationSeconds": 86400,
            },
        });
        merge(&mut object["spec"], changes);
        let api = self.api(&pod.namespace().unwrap());
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.map(typed)
    }

    /// The request as it is now.
    pub(crate) async fn read(&self, request: &PodCertificateRequest) -> PodCertificateRequest {
        let api = self.api(&request.namespace().unwrap());
        api.get(&request.name_any()).await.map(typed).unwrap()
    }

    /// Waits until the request has a condition, and gives it.
    pub(crate) async fn answer(&self, request: &PodCertificateRequest) -> PodCertificateRequest {
        self.late_answer(request, SOON).await
    }

    /// As [`Self::answer`], within `limit`.
    pub(crate) async fn late_answer(
        &self,
        request: &PodCertificateRequest,
        limit: Duration,
    ) -> PodCertificateRequest {
        let api = self.api(&request.namespace().unwrap());
        let name = request.name_any();
        wait_until(&format!("an answer to {name}"), limit, || async {
            let current = api
                .get(&name)
                .await
                .map_err(|error| error.to_string())
                .map(typed)?;
            let status = current.status.clone().unwrap_or_default();
            if status.conditions.iter().flatten().next().is_some() {
                Ok(current)
            } else {
                Err("no condition".to_owned())
            }
        })
        .await
    }

    fn api(&self, namespace: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk(
            "certificates.k8s.io",
            &self.version,
            "PodCertificateRequest",
        );
        let resource = ApiResource::from_gvk(&kind);
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }
}

/// The request as version `v1` has it; later versions have the fields of earlier ones.
fn typed(mut object: DynamicObject) -> PodCertificateRequest {
    if let Some(types) = &mut object.types {
        "certificates.k8s.io/v1".clone_into(&mut types.api_version);
    }
    serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap()
}

#[tokio::test]
async fn a_kubelet_may_ask_for_its_own_pods() {
    let control_plane = super::control_plane().await;
    let client = control_plane.client().await;
    let (namespace, node) = (
        super::namespace(&client, &[]).await,
        super::node(&client).await,
    );
    let account = super::service_account(&client, &namespace, "workload").await;
    let signer = "spiffe-operator.io/kubelet.test";
    let spec = certificate_pod(signer, "workload");
    let pod = super::pod(&client, &namespace, "pod", &node.name_any(), &[], spec).await;
    let kubelet = Kubelet::new(control_plane, &node).await;
    let (_, request) = kubelet
        .request(signer, &pod, &account, &[("a.b/c", "d")])
        .await;
    assert_eq!(request.spec.signer_name, signer);
    let other = Kubelet::new(control_plane, &super::node(&client).await).await;
    let refused = other
        .request_with_csr(signer, &pod, &account, &[], Vec::new())
        .await;
    assert!(refused.is_err(), "a node spoke for another one's pod");
}
