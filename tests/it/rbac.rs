//! The generated RBAC, as the API server enforces it for the operator's service account.

use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret},
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::{
    Api, Client, Resource,
    api::{ListParams, Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use spiffe_operator::rbac::{BUNDLE_CONFIG_MAP, NAMESPACE};

use crate::support::{SOON, apply, control_plane, documents, namespace, wait_until};

/// A client with the rights of the operator's service account, and one without limits.
async fn clients() -> (Client, Client) {
    let control_plane = control_plane().await;
    control_plane.ensure_namespace(NAMESPACE).await;
    let admin = control_plane.client().await;
    for file in [
        "service_account",
        "cluster_role",
        "cluster_role_binding",
        "role",
        "role_binding",
    ] {
        for object in documents::<serde_json::Value>(&format!("config/rbac/{file}.yaml")) {
            apply(&admin, &object).await.unwrap();
        }
    }
    let user = format!("system:serviceaccount:{NAMESPACE}:spiffe-operator");
    let operator = control_plane
        .client_as(&user, &["system:serviceaccounts"])
        .await;
    let secrets: Api<Secret> = Api::namespaced(operator.clone(), NAMESPACE);
    // RBAC takes a moment to hear of a new binding.
    wait_until("the rights to be in force", SOON, || async {
        secrets
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    (operator, admin)
}

#[tokio::test]
async fn config_maps_outside_the_own_namespace_are_bound_to_one_name() {
    let (operator, admin) = clients().await;
    let namespace = namespace(&admin, &[]).await;
    let config_maps: Api<ConfigMap> = Api::namespaced(operator.clone(), &namespace);
    let write = |name: &str| {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": name },
            "data": { "a": "b" },
        });
        let (config_maps, name) = (config_maps.clone(), name.to_owned());
        async move {
            config_maps
                .patch(&name, &PatchParams::apply("test"), &Patch::Apply(object))
                .await
        }
    };
    write(BUNDLE_CONFIG_MAP).await.unwrap();
    assert_forbidden(write("other").await);

    let everywhere: Api<ConfigMap> = Api::all(operator);
    let by_name = ListParams::default().fields(&format!("metadata.name={BUNDLE_CONFIG_MAP}"));
    assert!(!everywhere.list(&by_name).await.unwrap().items.is_empty());
    assert_forbidden(everywhere.list(&ListParams::default()).await);
}

#[tokio::test]
async fn secrets_of_others_are_out_of_reach() {
    let (operator, admin) = clients().await;
    let namespace = namespace(&admin, &[]).await;
    assert_forbidden(
        Api::<Secret>::all(operator.clone())
            .list(&ListParams::default())
            .await,
    );
    let theirs: Api<Secret> = Api::namespaced(operator, &namespace);
    assert_forbidden(theirs.get("any").await);
}

#[tokio::test]
async fn the_operator_cannot_widen_its_rights() {
    async fn out_of_reach<K>(operator: &Client)
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        assert_forbidden(
            Api::<K>::all(operator.clone())
                .list(&ListParams::default())
                .await,
        );
    }
    let (operator, _) = clients().await;
    out_of_reach::<ClusterRole>(&operator).await;
    out_of_reach::<ClusterRoleBinding>(&operator).await;
    out_of_reach::<Role>(&operator).await;
    out_of_reach::<RoleBinding>(&operator).await;
}

fn assert_forbidden<T: std::fmt::Debug>(outcome: kube::Result<T>) {
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        outcome => panic!("not forbidden: {outcome:?}"),
    }
}
