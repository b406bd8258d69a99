//! The operator with the rights that it is installed with, and no others.

use std::collections::BTreeSet;
use std::path::PathBuf;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::Role;
use kube::api::{DeleteParams, PostParams};
use kube::config::Kubeconfig;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use spiffe_operator::api::{ClusterSPIFFEID, ClusterStaticEntry, NestedCluster, RegistrationEntry};
use spiffe_operator::rbac::{BUNDLE_CONFIG_MAP, CLUSTER, NAMESPACED};
use spiffe_operator::registration::{EntryId, registration_entry_name};

use spiffe_operator::server::proto::agent::agent_client::AgentClient;
use spiffe_operator::server::proto::agent::{CreateJoinTokenRequest, DeleteAgentRequest};
use spiffe_operator::server::proto::types::EntryMask;
use tonic::transport::Endpoint;

use crate::spire_entries::Entries;
use crate::support::attesting::{self, attest, csr, params};
use crate::support::{
    AGENT_ACCOUNT, Ca, ControlPlane, Operator, Options, SOON, World, apply, ca, condition,
    documents, free_port, merge_patch, pod, pod_token, service_account, unique, wait_until,
};

/// Installs the generated roles, and makes a kubeconfig of the service account that has them.
async fn install_rights(control_plane: &ControlPlane) -> PathBuf {
    control_plane.ensure_namespace("spiffe-system").await;
    let admin = control_plane.client().await;
    for file in [
        "service_account",
        "cluster_role",
        "cluster_role_binding",
        "role",
        "role_binding",
    ] {
        for object in documents::<Value>(&format!("config/rbac/{file}.yaml")) {
            apply(&admin, &object).await.unwrap();
        }
    }
    let accounts = Api::<ServiceAccount>::namespaced(admin, "spiffe-system");
    let request = TokenRequest {
        spec: Some(TokenRequestSpec::default()),
        ..TokenRequest::default()
    };
    let token = accounts
        .create_token_request("spiffe-operator", &PostParams::default(), &request)
        .await
        .unwrap();
    let mut kubeconfig = Kubeconfig::read_from(control_plane.kubeconfig()).unwrap();
    for user in &mut kubeconfig.auth_infos {
        let token = token.status.clone().unwrap().token;
        user.auth_info = Some(serde_json::from_value(json!({ "token": token })).unwrap());
    }
    let path = control_plane.dir().join("operator.kubeconfig");
    std::fs::write(&path, serde_json::to_string(&kubeconfig).unwrap()).unwrap();
    path
}

/// Rights that are for what seldom happens (a pod that is newer than the watch, two replicas that
/// answer one request), or that an admission plugin asks for.
const SELDOM: &[(&str, &str, &str)] = &[
    ("certificates.k8s.io", "podcertificaterequests", "get"),
    ("", "configmaps", "delete"),
];

#[tokio::test]
async fn the_generated_roles_are_enough_for_all_that_the_operator_does_and_no_more() {
    let own = ControlPlane::start(Options {
        audit: true,
        // As on OpenShift: owners of objects cannot be changed without the right to delete them.
        apiserver_args: vec![
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".into(),
        ],
        ..Options::default()
    })
    .await;
    let world = World::without_trust_domain(&own).await;
    let kubeconfig = install_rights(&own).await;
    let operator = Operator::start_as(&kubeconfig, "spiffe-system", &["--log", "debug"]).await;
    operator.ready().await;
    let (port, nodes) = (free_port(), ca("nodes"));
    let agents = format!("{}:{AGENT_ACCOUNT}", world.namespace);
    let stored = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "nodes", "namespace": "spiffe-system" },
        "data": { "ca.crt": nodes.pem() },
    });
    apply(&world.client, &stored).await.unwrap();
    let stored = json!({ "kind": "ConfigMap", "name": "nodes", "key": "ca.crt" });
    let uid = world
        .apply_trust_domain(json!({
            "bundleConfigMaps": {},
            "deletionPolicy": "Delete",
            "server": { "port": port, "nodeAttestors": {
                "joinToken": {},
                "x509pop": { "caBundleRef": stored },
                "k8sPSAT": { "serviceAccountAllowList": [agents] },
            } },
        }))
        .await
        .metadata
        .uid
        .unwrap();
    let id = world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    condition::<ClusterSPIFFEID>(&world.client, &id, "Ready", "True").await;
    let fixed = apply_static_entry(&world).await;
    condition::<ClusterStaticEntry>(&world.client, &fixed, "Ready", "True").await;
    use_entry_api(&world, &operator).await;
    attest_agents(&world, &operator, port, &nodes).await;
    let_an_entry_expire(&world).await;
    world.issue().await;
    world.event("default", &uid, "CAActivated").await;

    use_copies(&world).await;
    let nested = json!({
        "apiVersion": "spiffe-operator.io/v1alpha1",
        "kind": "NestedCluster",
        "metadata": { "name": "child" },
        "spec": {
            "trustDomainRef": { "name": world.class },
            "kubeConfig": { "secretRef": { "name": "none" } },
        },
    });
    apply(&world.client, &nested).await.unwrap();
    condition::<NestedCluster>(&world.client, "child", "Ready", "False").await;

    // The last good spec of a registration is replaced by a better one.
    world
        .apply_cluster_spiffe_id(
            "web",
            json!({ "dnsNameTemplates": ["{{ .PodMeta.Name }}"] }),
        )
        .await;
    wait_until("all rights to be used", SOON, || async {
        let unused: Vec<_> = granted().difference(&used(&own)).cloned().collect();
        let is_seldom = |(group, resource, verb): &Right| {
            SELDOM.contains(&(group.as_str(), resource.as_str(), verb.as_str()))
        };
        unused
            .iter()
            .all(is_seldom)
            .then_some(())
            .ok_or_else(|| format!("never used: {unused:?}"))
    })
    .await;

    operator.signal("TERM");
    operator.ended(SOON).await;
    let log = operator.log();
    let refused: Vec<_> = log
        .lines()
        .filter(|line| line.contains("forbidden") || line.contains("code: 403"))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// Copies of the bundle are made, repaired, and taken away where they are not wanted any more.
async fn use_copies(world: &World) {
    let copies = Api::<ConfigMap>::namespaced(world.client.clone(), &world.namespace);
    let copy = wait_until("a copy of the bundle", SOON, || async {
        let copy = copies
            .get_opt("spiffe-bundle")
            .await
            .map_err(|e| e.to_string())?;
        copy.ok_or_else(|| "none".to_owned())
    })
    .await;
    merge_patch(
        &copies,
        "spiffe-bundle",
        json!({ "data": { "pem": "spoilt" } }),
    )
    .await;
    wait_until("the copy to be repaired", SOON, || async {
        let found = copies
            .get("spiffe-bundle")
            .await
            .map_err(|e| e.to_string())?;
        (found.data == copy.data)
            .then_some(())
            .ok_or(format!("{:?}", found.data))
    })
    .await;
    let nowhere = json!({ "matchLabels": { "nobody": "has-this" } });
    world
        .apply_trust_domain(json!({ "bundleConfigMaps": { "namespaceSelector": nowhere } }))
        .await;
    wait_until("the copy to be removed", SOON, || async {
        let found = copies
            .get_opt("spiffe-bundle")
            .await
            .map_err(|e| e.to_string())?;
        found.map_or(Ok(()), |_| Err("it is there".to_owned()))
    })
    .await;
}

/// Applies a ClusterStaticEntry of the world's class, and gives its name.
async fn apply_static_entry(world: &World) -> String {
    let name = unique("static");
    let object = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterStaticEntry",
        "metadata": { "name": name },
        "spec": {
            "className": world.class,
            "spiffeID": format!("spiffe://{}/db", world.trust_domain),
            "parentID": format!("spiffe://{}/node", world.trust_domain),
            "selectors": ["unix:uid:1"],
        },
    });
    apply(&world.client, &object).await.unwrap();
    name
}

/// Makes, reads, changes and deletes an entry through the API of the server.
async fn use_entry_api(world: &World, operator: &Operator) {
    let entries = Entries::connect(world, operator.admin_socket(&world.class)).await;
    let created = entries.create_one(entries.entry("/by-api")).await;
    entries.get(&created.id).await.unwrap();
    let mask = EntryMask {
        hint: true,
        ..EntryMask::default()
    };
    entries.update(created.clone(), mask).await;
    entries.delete(&created.id).await;
}

/// Attests agents by every attestor, one of them twice; the last is evicted.
async fn attest_agents(world: &World, operator: &Operator, port: u16, nodes: &Ca) {
    let (client, namespace) = (&world.client, &world.namespace);
    service_account(client, namespace, AGENT_ACCOUNT).await;
    let spec = json!({ "serviceAccountName": AGENT_ACCOUNT });
    let node = world.node.name_any();
    let pod = pod(client, namespace, "agent", &node, &[], spec).await;
    let token = pod_token(client, &pod, "spire-server").await;
    let payload = json!({ "cluster": "default", "token": token }).to_string();
    for _ in 0..2 {
        let step = params("k8s_psat", payload.as_bytes(), &csr());
        attest(port, step).await.unwrap();
    }
    attesting::Node::new(nodes, "node")
        .attest(port)
        .await
        .unwrap();
    let socket = operator.admin_socket(&world.class);
    let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).unwrap();
    let mut agents = AgentClient::new(endpoint.connect().await.unwrap());
    let request = CreateJoinTokenRequest {
        ttl: 600,
        ..CreateJoinTokenRequest::default()
    };
    let token = agents.create_join_token(request).await.unwrap();
    let token = token.into_inner().value;
    let step = params("join_token", token.as_bytes(), &csr());
    let svid = attest(port, step).await.unwrap();
    let request = DeleteAgentRequest { id: svid.id };
    agents.delete_agent(request).await.unwrap();
}

/// Applies a RegistrationEntry whose time is over, and waits until it is deleted.
async fn let_an_entry_expire(world: &World) {
    let trust_domain = world.trust_domain.parse().unwrap();
    let name = registration_entry_name(&trust_domain, &EntryId::from_text("expired"));
    let object = json!({
        "apiVersion": "spiffe-operator.io/v1alpha1",
        "kind": "RegistrationEntry",
        "metadata": { "name": name },
        "spec": {
            "entryID": "expired",
            "spiffeID": format!("spiffe://{trust_domain}/db"),
            "parentID": format!("spiffe://{trust_domain}/node"),
            "selectors": ["unix:uid:2"],
            "expiresAt": 1,
        },
    });
    apply(&world.client, &object).await.unwrap();
    let entries = Api::<RegistrationEntry>::all(world.client.clone());
    wait_until("an expired entry to be deleted", SOON, || async {
        let found = entries.get_opt(&name).await;
        let found = found.map_err(|error| error.to_string())?;
        found.map_or(Ok(()), |_| Err("it is there".to_owned()))
    })
    .await;
}

/// API group, resource and verb.
type Right = (String, String, String);

/// What the operator holds, but for what it publishes: RBAC wants more for that than the requests
/// that are seen (`sign`, `attest`, `create` of what is applied).
fn granted() -> BTreeSet<Right> {
    let published = |resources: &[&str], names: &[&str]| {
        names.contains(&BUNDLE_CONFIG_MAP)
            || ["signers", "clustertrustbundles"].contains(&resources[0])
    };
    let grants = CLUSTER.iter().chain(NAMESPACED);
    grants
        .filter(|grant| !published(grant.resources, grant.names))
        .flat_map(|grant| {
            grant.resources.iter().flat_map(|resource| {
                grant.verbs.iter().map(|verb| {
                    let words = (grant.group, *resource, *verb);
                    (words.0.to_owned(), words.1.to_owned(), words.2.to_owned())
                })
            })
        })
        .collect()
}

/// What the operator has asked the API server for; of ConfigMaps those of its own namespace.
fn used(control_plane: &ControlPlane) -> BTreeSet<Right> {
    let log = control_plane.audit_log();
    let by_operator = log.iter().filter(|request| {
        request["user"]["username"] == "system:serviceaccount:spiffe-system:spiffe-operator"
    });
    let rights = by_operator.filter_map(|request| {
        let object = &request["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut resource = text(&object["resource"]);
        if resource == "configmaps" && object["namespace"] != "spiffe-system" {
            return None;
        }
        if let Some(subresource) = object["subresource"].as_str() {
            resource = format!("{resource}/{subresource}");
        }
        Some((text(&object["apiGroup"]), resource, text(&request["verb"])))
    });
    rights.collect()
}

#[tokio::test]
async fn names_outside_the_operators_rights_are_answered_with_the_rule_to_add() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let kubeconfig = install_rights(&own).await;
    let _operator = Operator::start_as(&kubeconfig, "spiffe-system", &[]).await;
    let settings = json!({
        "podCertificates": { "signerName": "example.com/pods" },
        "bundleConfigMaps": { "name": "trust-roots" },
    });
    world.apply_trust_domain(settings).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    let signer = world
        .trust_domain_reason("PodCertificates", "SignerNotAllowed")
        .await;
    for word in [
        "resources: [signers]",
        "resourceNames: [example.com/pods]",
        "sign",
        "attest",
    ] {
        assert!(signer.message.contains(word), "{}", signer.message);
    }
    let bundle = world
        .trust_domain_reason("BundlePublished", "Refused")
        .await;
    assert!(
        bundle.message.contains("example.com/pods"),
        "{}",
        bundle.message
    );
    let ready = world.trust_domain_condition("Ready", "False").await;
    assert!(ready.message.contains("add this rule"), "{}", ready.message);

    add_rule(
        &world,
        "signers",
        &json!({
            "apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
            "resourceNames": ["example.com/pods"], "verbs": ["sign", "attest"],
        }),
    )
    .await;
    world
        .trust_domain_condition("PodCertificates", "True")
        .await;
    let copies = world
        .trust_domain_reason("BundlePublished", "ConfigMapsNotWritten")
        .await;
    for word in ["resources: [configmaps]", "resourceNames: [trust-roots]"] {
        assert!(copies.message.contains(word), "{}", copies.message);
    }
    add_rule(
        &world,
        "copies",
        &json!({
            "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["trust-roots"],
            "verbs": rule_verbs(&copies.message),
        }),
    )
    .await;
    world.trust_domain_condition("Ready", "True").await;
    let pod = world.pod_of_signer("web", "example.com/pods").await;
    let (_, request) = world
        .kubelet
        .request("example.com/pods", &pod, &world.service_account, &[])
        .await;
    let answer = world.kubelet.answer(&request).await;
    assert_eq!(crate::support::verdict(&answer).type_, "Issued");
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_in_the_status() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let kubeconfig = install_rights(&own).await;
    let operator = Operator::start_as(&kubeconfig, "spiffe-system", &[]).await;
    operator.ready().await;
    operator.leads().await;
    let roles = Api::<Role>::namespaced(world.client.clone(), "spiffe-system");
    let role = roles.get("spiffe-operator").await.unwrap();
    let without_secrets = json!({ "rules": role.rules.unwrap().into_iter().filter(|rule| {
        rule.resources.iter().flatten().all(|resource| resource != "secrets")
    }).collect::<Vec<_>>() });
    merge_patch(&roles, "spiffe-operator", without_secrets).await;
    world.apply_trust_domain(json!({})).await;
    let ready = world.trust_domain_reason("Ready", "ReconcileFailed").await;
    assert_eq!(ready.status, "Unknown");
    assert!(ready.message.contains("forbidden"), "{}", ready.message);
    let errors =
        "spiffe_operator_reconcile_errors_total{kind=\"TrustDomain\",reason=\"Authority\"}";
    // It is counted after the status was written.
    wait_until("the error to be counted", SOON, || async {
        let counted = operator.metric(errors).await;
        (counted >= Some(1.0))
            .then_some(())
            .ok_or(format!("{counted:?}"))
    })
    .await;

    install_rights(&own).await;
    world.trust_domain_condition("Ready", "True").await;
}

#[tokio::test]
async fn rights_beside_a_stock_server_that_are_missing_are_answered_with_the_manifest_to_apply() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let kubeconfig = install_rights(&own).await;
    let _operator = Operator::start_as(&kubeconfig, "spiffe-system", &[]).await;
    world.apply_trust_domain(json!({})).await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "child01", "namespace": "spiffe-system" },
        "stringData": { "kubeconfig": std::fs::read_to_string(own.kubeconfig()).unwrap() },
    });
    apply(&world.client, &secret).await.unwrap();
    let object = json!({
        "apiVersion": "spiffe-operator.io/v1alpha1", "kind": "NestedCluster",
        "metadata": { "name": "child01" },
        "spec": {
            "trustDomainRef": { "name": world.class },
            "kubeConfig": { "secretRef": { "name": "child01" } },
            "agents": { "serviceAccountAllowList": ["spire:agent"] },
            "parents": [{ "namespace": world.namespace, "name": "spire-server" }],
        },
    });
    apply(&world.client, &object).await.unwrap();
    let wired = |status: &'static str| {
        condition::<NestedCluster>(&world.client, "child01", "Wired", status)
    };
    let refused = wait_until("the right to be missed", SOON, || async {
        let refused = wired("False").await;
        if refused.reason == "Forbidden" {
            Ok(refused)
        } else {
            Err(refused.message)
        }
    })
    .await;
    let (_, manifests) = refused.message.split_once("apply this:\n").unwrap();
    for object in serde_saphyr::from_multiple::<Value>(manifests).unwrap() {
        apply(&world.client, &object).await.unwrap();
    }
    let told = wired("True").await;
    assert!(told.message.contains("/spire-server"), "{}", told.message);

    let objects = Api::<NestedCluster>::all(world.client.clone());
    objects
        .delete("child01", &DeleteParams::default())
        .await
        .unwrap();
    wait_until("the object to be gone", SOON, || async {
        let found = objects.get_opt("child01").await.unwrap();
        found.map_or(Ok(()), |found| Err(format!("{:?}", found.status)))
    })
    .await;
    let name = "spire-server-nested-clusters";
    let config_maps = Api::<ConfigMap>::namespaced(world.client.clone(), &world.namespace);
    assert!(config_maps.get_opt(name).await.unwrap().is_none());
    let secrets = Api::<Secret>::namespaced(world.client.clone(), &world.namespace);
    assert!(secrets.get_opt(name).await.unwrap().is_none());
}

/// The verbs that a message says to add.
fn rule_verbs(message: &str) -> Vec<&str> {
    let verbs = message.split_once("verbs: [").unwrap().1;
    verbs.split_once(']').unwrap().0.split(", ").collect()
}

/// Gives the operator one more rule, in a ClusterRole of its own.
async fn add_rule(world: &World, name: &str, rule: &Value) {
    let cluster_role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": { "name": name },
        "rules": [rule],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{
            "kind": "ServiceAccount", "name": "spiffe-operator", "namespace": "spiffe-system",
        }],
    });
    apply(&world.client, &cluster_role).await.unwrap();
    apply(&world.client, &binding).await.unwrap();
}
