//! Objects that tests need around them.

use std::{collections::BTreeMap, fmt::Debug, fs, path::Path};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::{
    Api, Client, Resource,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
    discovery,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::unique;

/// Makes a namespace of its own for a test and gives its name.
pub(crate) async fn namespace(client: &Client, labels: &[(&str, &str)]) -> String {
    let name = unique("ns");
    let labels: BTreeMap<_, _> = labels.iter().copied().collect();
    let object = json!({ "metadata": { "name": name, "labels": labels } });
    create::<Namespace>(&Api::all(client.clone()), object).await;
    name
}

/// Makes a node of its own for a test.
pub(crate) async fn node(client: &Client) -> Node {
    create(
        &Api::all(client.clone()),
        json!({ "metadata": { "name": unique("node") } }),
    )
    .await
}

/// Makes a service account.
pub(crate) async fn service_account(
    client: &Client,
    namespace: &str,
    name: &str,
) -> ServiceAccount {
    create(
        &namespaced(client, namespace),
        json!({ "metadata": { "name": name } }),
    )
    .await
}

/// Makes a pod that is bound to `node`; nothing runs it. `spec` is merged into its spec.
pub(crate) async fn pod(
    client: &Client,
    namespace: &str,
    name: &str,
    node: &str,
    labels: &[(&str, &str)],
    spec: Value,
) -> Pod {
    let labels: BTreeMap<_, _> = labels.iter().copied().collect();
    let mut object = json!({
        "metadata": { "name": name, "labels": labels },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "none" }] },
    });
    if let (Some(target), Value::Object(further)) = (object["spec"].as_object_mut(), spec) {
        target.extend(further);
    }
    create(&namespaced(client, namespace), object).await
}

/// Applies one object, of whatever kind, by server-side apply.
///
/// # Errors
/// As the API server gives it.
pub(crate) async fn apply(client: &Client, object: &Value) -> kube::Result<DynamicObject> {
    apply_with(client, object, &PatchParams::apply("test").force()).await
}

/// Asks whether the API server would take an object, and changes nothing.
///
/// # Errors
/// As the API server gives it.
pub(crate) async fn apply_dry(client: &Client, object: &Value) -> kube::Result<DynamicObject> {
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::apply("test").force()
    };
    apply_with(client, object, &params).await
}

async fn apply_with(
    client: &Client,
    object: &Value,
    params: &PatchParams,
) -> kube::Result<DynamicObject> {
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let types = object
        .types
        .clone()
        .expect("the object has apiVersion and kind");
    let kind = (&types).try_into().expect("apiVersion can be read");
    let (resource, capabilities) = discovery::pinned_kind(client, &kind).await?;
    let api: Api<DynamicObject> = match (&object.metadata.namespace, capabilities.scope) {
        (Some(namespace), discovery::Scope::Namespaced) => {
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
        _ => Api::all_with(client.clone(), &resource),
    };
    let name = object
        .metadata
        .name
        .as_deref()
        .expect("the object has a name");
    api.patch(name, params, &Patch::Apply(&object)).await
}

/// Changes an object by a merge patch, as anybody may.
pub(crate) async fn merge_patch<K>(api: &Api<K>, name: &str, change: Value)
where
    K: Clone + Debug + DeserializeOwned,
{
    let parameters = PatchParams::default();
    let change = Patch::Merge(change);
    api.patch(name, &parameters, &change).await.unwrap();
}

/// Sets fields of `target` to those of `changes`.
pub(crate) fn merge(target: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else {
        panic!("changes are an object")
    };
    for (key, value) in changes {
        target[key] = value;
    }
}

/// The documents of a YAML file of the repository.
pub(crate) fn documents<T: DeserializeOwned>(path: &str) -> Vec<T> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), namespace)
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}
