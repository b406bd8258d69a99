//! A trust domain of one test's own, with a namespace, a node and a kubelet, on the shared control
//! plane and served by the shared operator.

use std::fmt::Debug;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{ClusterTrustBundle, PodCertificateRequest};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::{Api, Client, Resource, ResourceExt};
use rustls_pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spiffe_operator::api::{
    ClusterSPIFFEID, ClusterSpiffeIdStats, ClusterSpiffeIdStatus, TrustDomain,
};
use spiffe_operator::spiffe::{Bundle, pem, verify_x509_svid};

use super::control_plane::{ControlPlane, control_plane};
use super::objects::{apply, merge, namespace, node, pod, service_account};
use super::operator::{Operator, shared_operator};
use super::pod_certificates::{Kubelet, certificate_pod, key_and_csr};
use super::wait::{SOON, wait_until};
use super::{unique, unique_trust_domain};

/// What a test needs around it.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) trust_domain: String,
    /// Name of the TrustDomain object, and class of the objects it serves.
    pub(crate) class: String,
    pub(crate) namespace: String,
    pub(crate) node: Node,
    pub(crate) service_account: ServiceAccount,
    pub(crate) kubelet: Kubelet,
}

impl World {
    /// A self-signed trust domain on the shared control plane, served by the shared operator.
    pub(crate) async fn new() -> Self {
        let world = Self::without_trust_domain(control_plane().await).await;
        shared_operator().await;
        world.apply_trust_domain(json!({})).await;
        world
    }

    /// The same on `control_plane`, with no operator started and no TrustDomain applied.
    pub(crate) async fn without_trust_domain(control_plane: &ControlPlane) -> Self {
        let client = control_plane.install_crds().await;
        let namespace = namespace(&client, &[]).await;
        let node = node(&client).await;
        Self {
            trust_domain: unique_trust_domain(),
            class: unique("class"),
            service_account: service_account(&client, &namespace, "workload").await,
            kubelet: Kubelet::new(control_plane, &node).await,
            namespace,
            node,
            client,
        }
    }

    /// An operator that serves `control_plane`, which is this test's own.
    pub(crate) async fn operator(control_plane: &ControlPlane) -> Operator {
        control_plane.ensure_namespace("spiffe-system").await;
        Operator::start(control_plane, "spiffe-system", &[]).await
    }

    /// Applies this world's TrustDomain with `changes` to its spec.
    pub(crate) async fn apply_trust_domain(&self, changes: Value) -> DynamicObject {
        let mut object = json!({
            "apiVersion": "spiffe-operator.io/v1alpha1",
            "kind": "TrustDomain",
            "metadata": { "name": self.class },
            "spec": {
                "trustDomain": self.trust_domain,
                "className": self.class,
                "authority": { "selfSigned": {} },
            },
        });
        merge(&mut object["spec"], changes);
        apply(&self.client, &object).await.unwrap()
    }

    /// Applies a ClusterSPIFFEID of this world's class, with `changes` to its spec, and gives its
    /// name. Unless changed it gives the usual ID to the pods of this world's namespace with the
    /// label `app: web`.
    pub(crate) async fn apply_cluster_spiffe_id(&self, name: &str, changes: Value) -> String {
        let name = format!("{}-{name}", self.class);
        let mut object = json!({
            "apiVersion": "spire.spiffe.io/v1alpha1",
            "kind": "ClusterSPIFFEID",
            "metadata": { "name": name },
            "spec": {
                "className": self.class,
                "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/\
                                     {{ .PodSpec.ServiceAccountName }}",
                "namespaceSelector": {
                    "matchLabels": { "kubernetes.io/metadata.name": self.namespace },
                },
                "podSelector": { "matchLabels": { "app": "web" } },
            },
        });
        merge(&mut object["spec"], changes);
        apply(&self.client, &object).await.unwrap();
        name
    }

    /// Deletes a ClusterSPIFFEID.
    pub(crate) async fn delete_cluster_spiffe_id(&self, name: &str) {
        let objects = Api::<ClusterSPIFFEID>::all(self.client.clone());
        objects
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Waits until the counts of a ClusterSPIFFEID are as wanted, and gives its status.
    pub(crate) async fn cluster_spiffe_id_stats(
        &self,
        name: &str,
        is_wanted: impl Fn(&ClusterSpiffeIdStats) -> bool,
    ) -> ClusterSpiffeIdStatus {
        let objects = Api::<ClusterSPIFFEID>::all(self.client.clone());
        wait_until(&format!("the counts of {name}"), SOON, || async {
            let object = objects.get(name).await.map_err(|error| error.to_string())?;
            let status = object.status.unwrap_or_default();
            let is_current = status.observed_generation == object.metadata.generation;
            if is_current && is_wanted(&status.stats) {
                Ok(status)
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await
    }

    /// Waits until the trust domain has this many entries.
    pub(crate) async fn entries_are(&self, count: i64) {
        wait_until(&format!("{count} entries"), SOON, || async {
            let status = self.read_trust_domain().await.status.unwrap_or_default();
            (status.entries == count)
                .then_some(())
                .ok_or_else(|| format!("{}", status.entries))
        })
        .await;
    }

    /// Waits until what is made is younger than what was made before: the API server counts in
    /// seconds.
    pub(crate) async fn a_second_later(&self) {
        let now = Timestamp::now().as_second();
        wait_until("the next second", SOON, || async {
            (Timestamp::now().as_second() > now)
                .then_some(())
                .ok_or_else(String::new)
        })
        .await;
    }

    /// The signer name of this world.
    pub(crate) fn signer(&self) -> String {
        format!("spiffe-operator.io/{}", self.trust_domain)
    }

    /// Name of this world's ClusterTrustBundle.
    pub(crate) fn bundle_name(&self) -> String {
        format!("spiffe-operator.io:{}:bundle", self.trust_domain)
    }

    /// The ID that the usual ClusterSPIFFEID gives.
    pub(crate) fn usual_id(&self) -> String {
        format!(
            "spiffe://{}/ns/{}/sa/workload",
            self.trust_domain, self.namespace
        )
    }

    /// Makes a pod that mounts a certificate of this world's signer.
    pub(crate) async fn pod(&self, name: &str, labels: &[(&str, &str)]) -> Pod {
        self.pod_of(&self.signer(), name, labels).await
    }

    /// Makes a pod with the usual label that mounts a certificate of another signer.
    pub(crate) async fn pod_of_signer(&self, name: &str, signer: &str) -> Pod {
        self.pod_of(signer, name, &[("app", "web")]).await
    }

    async fn pod_of(&self, signer: &str, name: &str, labels: &[(&str, &str)]) -> Pod {
        let spec = certificate_pod(signer, "workload");
        let node = self.node.name_any();
        pod(&self.client, &self.namespace, name, &node, labels, spec).await
    }

    /// Asks for the certificate of `pod`.
    pub(crate) async fn request(
        &self,
        pod: &Pod,
        annotations: &[(&str, &str)],
    ) -> PodCertificateRequest {
        let signer = self.signer();
        self.kubelet
            .request(&signer, pod, &self.service_account, annotations)
            .await
            .1
    }

    /// Asks for the certificate of `pod`, and waits for the answer.
    pub(crate) async fn answer(
        &self,
        pod: &Pod,
        annotations: &[(&str, &str)],
    ) -> PodCertificateRequest {
        let request = self.request(pod, annotations).await;
        self.kubelet.answer(&request).await
    }

    /// Asks for a certificate of `pod` that lives for `max_seconds` at the most, and waits for the
    /// answer.
    pub(crate) async fn answer_within(&self, pod: &Pod, max_seconds: u32) -> PodCertificateRequest {
        let (_, csr) = key_and_csr();
        let changes = json!({
            "maxExpirationSeconds": max_seconds,
            "stubPKCS10Request": ByteString(csr),
        });
        let (signer, account) = (self.signer(), &self.service_account);
        let request = wait_until("the request to be taken", SOON, || async {
            self.kubelet
                .request_with(&signer, pod, account, changes.clone())
                .await
                .map_err(|error| error.to_string())
        })
        .await;
        self.kubelet.answer(&request).await
    }

    /// Asks for the certificate of a new pod with the usual label, waits until it is issued, and
    /// gives its chain, which verifies to the published bundle.
    pub(crate) async fn issue(&self) -> Vec<CertificateDer<'static>> {
        let pod = self.pod(&unique("web"), &[("app", "web")]).await;
        let request = self.answer(&pod, &[]).await;
        self.verified_chain(&request).await
    }

    /// The chain of an issued request, after verifying it to the published bundle.
    pub(crate) async fn verified_chain(
        &self,
        request: &PodCertificateRequest,
    ) -> Vec<CertificateDer<'static>> {
        let verdict = verdict(request);
        assert_eq!(verdict.type_, "Issued", "{}", verdict.message);
        let chain = request.status.clone().unwrap().certificate_chain.unwrap();
        let chain = pem::certificates(chain.as_bytes()).unwrap();
        verify_x509_svid(&chain, &self.published_bundle().await, Timestamp::now()).unwrap();
        chain
    }

    /// The roots in this world's ClusterTrustBundle.
    pub(crate) async fn published_bundle(&self) -> Bundle {
        let bundles = Api::<ClusterTrustBundle>::all(self.client.clone());
        let published = bundles.get(&self.bundle_name()).await.unwrap();
        let trust_domain = self.trust_domain.parse().unwrap();
        Bundle::from_pem(trust_domain, published.spec.trust_bundle.as_bytes()).unwrap()
    }

    /// This world's TrustDomain as it is now.
    pub(crate) async fn read_trust_domain(&self) -> TrustDomain {
        let objects = Api::<TrustDomain>::all(self.client.clone());
        objects.get(&self.class).await.unwrap()
    }

    /// Waits until the TrustDomain has the condition `kind` with `reason`, and gives it.
    pub(crate) async fn trust_domain_reason(&self, kind: &str, reason: &str) -> Condition {
        condition_that::<TrustDomain>(
            &self.client,
            &self.class,
            &format!("{kind} with reason {reason}"),
            |condition| condition.type_ == kind && condition.reason == reason,
        )
        .await
    }

    /// Waits until the TrustDomain has the condition `kind` with `word` in its message.
    pub(crate) async fn trust_domain_condition_about(&self, kind: &str, word: &str) -> Condition {
        let what = format!("{kind} about {word}");
        condition_that::<TrustDomain>(&self.client, &self.class, &what, |condition| {
            condition.type_ == kind && condition.message.contains(word)
        })
        .await
    }

    /// Waits until the TrustDomain has the condition `kind` with `status`, and gives it.
    pub(crate) async fn trust_domain_condition(&self, kind: &str, status: &str) -> Condition {
        condition::<TrustDomain>(&self.client, &self.class, kind, status).await
    }

    /// The notes of all events with `reason` on the object with `uid`.
    pub(crate) async fn event_notes(
        &self,
        namespace: &str,
        uid: &str,
        reason: &str,
    ) -> Vec<String> {
        let events = Api::<Event>::namespaced(self.client.clone(), namespace);
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let of_object = events.into_iter().filter(|event| {
            let regarding = event.regarding.as_ref().and_then(|it| it.uid.as_deref());
            regarding == Some(uid) && event.reason.as_deref() == Some(reason)
        });
        of_object.filter_map(|event| event.note).collect()
    }

    /// Waits for an event with `reason` on the object with `uid`, and gives its note.
    pub(crate) async fn event(&self, namespace: &str, uid: &str, reason: &str) -> String {
        let events = Api::<Event>::namespaced(self.client.clone(), namespace);
        wait_until(&format!("an event {reason}"), SOON, || async {
            let list = events
                .list(&ListParams::default())
                .await
                .map_err(|e| e.to_string())?;
            let mut of_object = list.items.into_iter().filter(|event| {
                event
                    .regarding
                    .as_ref()
                    .is_some_and(|it| it.uid.as_deref() == Some(uid))
            });
            let mut seen = Vec::new();
            of_object
                .find(|event| {
                    seen.push(event.reason.clone().unwrap_or_default());
                    event.reason.as_deref() == Some(reason)
                })
                .map(|event| event.note.unwrap_or_default())
                .ok_or_else(|| format!("events {seen:?}"))
        })
        .await
    }
}

/// Waits until the cluster-scoped object `name` has the condition `kind` with `status`.
pub(crate) async fn condition<K>(client: &Client, name: &str, kind: &str, status: &str) -> Condition
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + serde::Serialize,
{
    let what = format!("{kind}={status}");
    condition_that::<K>(client, name, &what, |condition| {
        condition.type_ == kind && condition.status == status
    })
    .await
}

/// Waits until the cluster-scoped object `name` has a condition that `is_wanted`, `what` in words.
pub(crate) async fn condition_that<K>(
    client: &Client,
    name: &str,
    what: &str,
    is_wanted: impl Fn(&Condition) -> bool,
) -> Condition
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + serde::Serialize,
{
    let objects = Api::<K>::all(client.clone());
    wait_until(&format!("{what} of {name}"), SOON, || async {
        let object = objects.get(name).await.map_err(|error| error.to_string())?;
        let object = serde_json::to_value(object).map_err(|error| error.to_string())?;
        let conditions = object["status"]["conditions"].clone();
        let conditions: Vec<Condition> = serde_json::from_value(conditions).unwrap_or_default();
        conditions
            .iter()
            .find(|condition| is_wanted(condition))
            .cloned()
            .ok_or_else(|| format!("{conditions:?}"))
    })
    .await
}

/// The condition that answers a request.
pub(crate) fn verdict(request: &PodCertificateRequest) -> Condition {
    let status = request.status.clone().unwrap_or_default();
    status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .next()
        .expect("a condition")
}
