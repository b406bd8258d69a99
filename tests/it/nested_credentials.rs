//! Credentials that the operator makes for itself in a nested cluster, renews, and takes away again.

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use spiffe_operator::api::NestedCluster;

use crate::support::{ChildCluster, SOON, Served, World, wait_until};

/// Secrets of the operator's namespace.
fn secrets(world: &World) -> Api<Secret> {
    Api::namespaced(world.client.clone(), "spiffe-system")
}

/// The Secret with the credential of `child`, once it is another than `before`.
async fn credential(world: &World, child: &ChildCluster, before: &str) -> Secret {
    let name = format!("{}.credential", child.name);
    wait_until("another credential", SOON, || async {
        let found = secrets(world).get_opt(&name).await;
        let found = found.map_err(|error| error.to_string())?;
        let found = found.ok_or("there is none".to_owned())?;
        (token(&found) != before)
            .then_some(found)
            .ok_or_else(|| "it is the same".to_owned())
    })
    .await
}

/// The token in the Secret with a credential.
fn token(secret: &Secret) -> String {
    let kubeconfig = &secret.data.as_ref().unwrap()["kubeconfig"].0;
    let kubeconfig: Value = serde_json::from_slice(kubeconfig).unwrap();
    let user = &kubeconfig["users"][0]["user"];
    assert_eq!(user.as_object().unwrap().len(), 1, "nothing but a token");
    user["token"].as_str().unwrap().to_owned()
}

/// Makes a credential look as if its token had been made long ago.
async fn age(world: &World, credential: &Secret) {
    let mut aged = credential.clone();
    aged.annotations_mut().insert(
        "spiffe-operator.io/issued-at".into(),
        "2020-01-01T00:00:00Z".into(),
    );
    let name = credential.name_any();
    let parameters = PostParams::default();
    secrets(world)
        .replace(&name, &parameters, &aged)
        .await
        .unwrap();
}

/// The service accounts that were made in `child`.
async fn accounts(child: &ChildCluster) -> Vec<String> {
    let all = Api::<ServiceAccount>::namespaced(child.client.clone(), "spiffe-system");
    let found = all.list(&ListParams::default()).await.unwrap().into_iter();
    let names = found.map(|it| it.name_any());
    names
        .filter(|name| name.starts_with("spiffe-operator-nested-"))
        .collect()
}

#[tokio::test]
async fn a_bootstrap_is_exchanged_for_tokens_that_are_renewed_and_revoked() {
    let server = Served::by_operator("1h").await;
    let world = &server.world;
    let child = ChildCluster::start().await;
    let managed = json!({ "credentials": "Managed", "managed": { "tokenTTL": "10m" } });
    child.nest(world, managed).await;
    child.is_ready(world).await;
    child
        .condition(world, "RightsGranted", "True", "Granted")
        .await;
    let first = credential(world, &child, "").await;
    let [account] = &accounts(&child).await[..] else {
        panic!("not one account")
    };

    // Past half of its life it is renewed by itself, also while the bootstrap is broken.
    child.give_kubeconfig(world, "no: kubeconfig").await;
    child
        .condition(world, "CredentialsValid", "False", "InvalidKubeConfig")
        .await;
    age(world, &first).await;
    credential(world, &child, &token(&first)).await;
    child.give_kubeconfig(world, &child.kubeconfig()).await;
    child.is_ready(world).await;
    let second = credential(world, &child, &token(&first)).await;

    // Revoked by the deletion of the Secret that it is bound to: there is a way back.
    let bound = Api::<Secret>::namespaced(child.client.clone(), "spiffe-system");
    bound
        .delete(account, &DeleteParams::default())
        .await
        .unwrap();
    let third = credential(world, &child, &token(&second)).await;
    child.is_ready(world).await;
    assert_ne!(token(&third), token(&second));

    let objects = Api::<NestedCluster>::all(world.client.clone());
    objects
        .delete(&child.name, &DeleteParams::default())
        .await
        .unwrap();
    wait_until("the object to be gone", SOON, || async {
        let found = objects.get_opt(&child.name).await.unwrap();
        found.map_or(Ok(()), |found| Err(format!("{found:?}")))
    })
    .await;
    assert!(accounts(&child).await.is_empty());
    assert!(bound.get_opt(account).await.unwrap().is_none());
    let roles = Api::<ClusterRole>::all(child.client.clone());
    assert!(roles.get_opt(account).await.unwrap().is_none());
    let bindings = Api::<ClusterRoleBinding>::all(child.client.clone());
    assert!(bindings.get_opt(account).await.unwrap().is_none());
}

#[tokio::test]
async fn a_bootstrap_that_is_to_go_goes_once_a_token_is_there() {
    let server = Served::by_operator("1h").await;
    let world = &server.world;
    let child = ChildCluster::start().await;
    let managed = json!({ "credentials": "Managed", "managed": { "deleteBootstrap": true } });
    child.nest(world, managed).await;
    child.is_ready(world).await;
    wait_until("the bootstrap to be gone", SOON, || async {
        let found = secrets(world).get_opt(&child.name).await.unwrap();
        found.map_or(Ok(()), |_| Err("it is there".to_owned()))
    })
    .await;
    // The token renews itself without it.
    let first = credential(world, &child, "").await;
    age(world, &first).await;
    let second = credential(world, &child, &token(&first)).await;
    child.is_ready(world).await;
    // Revoked, there is no way back but another bootstrap.
    let [account] = &accounts(&child).await[..] else {
        panic!("not one account")
    };
    let bound = Api::<Secret>::namespaced(child.client.clone(), "spiffe-system");
    bound
        .delete(account, &DeleteParams::default())
        .await
        .unwrap();
    child
        .condition(world, "CredentialsValid", "False", "NoBootstrap")
        .await;
    child.give_kubeconfig(world, &child.kubeconfig()).await;
    credential(world, &child, &token(&second)).await;
    child.is_ready(world).await;
}
