//! What a credential for a nested cluster may do: made, looked into and watched over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use spiffe_operator::api::{MissingRight, NestedCluster};
use spiffe_operator::nested::rights::{ConfigMapName, Needs};
use tempfile::TempDir;

use crate::demo::kubectl;
use crate::support::{ChildCluster, Options, Served, apply, merge_patch, run_program};

const ACCOUNT: &str = "system:serviceaccount:spiffe-system:spiffe-operator-nested";

async fn operator(arguments: &[&str]) -> Result<String, String> {
    let program = Path::new(env!("CARGO_BIN_EXE_spiffe-operator"));
    run_program(program, arguments).await
}

/// What `kubeconfig create` makes for `child`, by its administrator; the parent goes through the
/// gate.
async fn create(child: &ChildCluster, further: &[&str]) -> String {
    let administrator = child.control_plane.kubeconfig().to_str().unwrap();
    let server = format!("https://{}", child.gate.address);
    let arguments = [
        &["kubeconfig", "create", "--name", &child.name],
        &["--kubeconfig", administrator, "--server", &server][..],
        further,
    ];
    operator(&arguments.concat()).await.unwrap()
}

fn bundle() -> ConfigMapName {
    ConfigMapName {
        namespace: "spire-system".into(),
        name: "spire-bundle-upstream".into(),
    }
}

/// What `kubectl auth can-i --list` says besides what everybody may: verbs by resource and name.
async fn listed(kubeconfig: &str, folder: &TempDir) -> BTreeMap<String, BTreeSet<String>> {
    let file = folder.path().join("listed.kubeconfig");
    fs::write(&file, kubeconfig).unwrap();
    let file = file.to_str().unwrap();
    let arguments = [
        "auth",
        "can-i",
        "--list",
        "--no-headers",
        "-n",
        "spire-system",
    ];
    let arguments = [&["--kubeconfig", file], &arguments[..]].concat();
    let said = run_program(&kubectl(), arguments).await.unwrap();
    let mut rights = BTreeMap::<_, BTreeSet<String>>::new();
    for line in said.lines().filter(|line| !line.starts_with([' ', '['])) {
        let (resource, rest) = line.split_once(' ').unwrap();
        let lists: Vec<_> = rest.split(['[', ']']).skip(1).step_by(2).collect();
        let [_, names, verbs] = lists[..] else {
            panic!("{line}")
        };
        if !resource.starts_with("selfsubject") {
            let verbs = verbs.split_whitespace().map(str::to_owned);
            let key = format!("{resource} {names}");
            rights.entry(key).or_default().extend(verbs);
        }
    }
    rights
}

/// The same of what is documented.
fn documented(needs: &Needs) -> BTreeMap<String, BTreeSet<String>> {
    let mut rights = BTreeMap::<_, BTreeSet<String>>::new();
    for right in needs.rights() {
        let (resource, subresource) = match right.on.resource.split_once('/') {
            Some((resource, subresource)) => (resource, format!("/{subresource}")),
            None => (right.on.resource, String::new()),
        };
        let group = match right.on.group {
            "" => String::new(),
            group => format!(".{group}"),
        };
        let name = right.on.name.unwrap_or_default();
        let key = format!("{resource}{group}{subresource} {name}");
        rights.entry(key).or_default().insert(right.verb.to_owned());
    }
    rights
}

/// `rights`, and those that Kubernetes gives to every service account
/// (`system:cluster-trust-bundle-discovery`).
fn with_those_of_every_account(
    mut rights: BTreeMap<String, BTreeSet<String>>,
) -> BTreeMap<String, BTreeSet<String>> {
    let bundles = "clustertrustbundles.certificates.k8s.io ".to_owned();
    let read = ["get", "list", "watch"].map(str::to_owned);
    rights.entry(bundles).or_default().extend(read);
    rights
}

#[tokio::test]
async fn a_kubeconfig_that_was_created_is_all_that_a_nested_cluster_needs() {
    let server = Served::by_operator("1h").await;
    let world = &server.world;
    let child = ChildCluster::start().await;
    let manifest = create(&child, &["--output", "secret", "--ttl", "1h"]).await;
    let secret: Value = serde_saphyr::from_str(&manifest).unwrap();
    assert_eq!(secret["metadata"]["name"], child.name);
    apply(&world.client, &secret).await.unwrap();
    child
        .apply(world, json!({ "bundle": { "configMap": {} } }))
        .await;
    child.is_ready(world).await;
    child
        .condition(world, "RightsGranted", "True", "Granted")
        .await;
    let objects = Api::<NestedCluster>::all(world.client.clone());
    let status = objects.get(&child.name).await.unwrap().status.unwrap();
    let end = status.credential_expires_at.unwrap().0;
    let left = end.duration_since(Timestamp::now());
    assert!(left <= SignedDuration::from_hours(1), "{left}");
    assert!(left > SignedDuration::from_mins(50), "{left}");

    // What it may do is what is documented, to the verb.
    let kubeconfig = secret["stringData"]["kubeconfig"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let needs = Needs::remote(Some(bundle()));
    let expected = with_those_of_every_account(documented(&needs));
    assert_eq!(listed(kubeconfig, &folder).await, expected);

    // Other forms, again and again.
    let values = create(&child, &["--output", "values"]).await;
    let values: Value = serde_saphyr::from_str(&values).unwrap();
    let encoded = &values["external-spire-server"]["kubeConfigs"][&child.name]["kubeConfigBase64"];
    let decoded = BASE64_STANDARD.decode(encoded.as_str().unwrap()).unwrap();
    child
        .give_kubeconfig(world, &String::from_utf8(decoded).unwrap())
        .await;
    let file = folder.path().join("child.kubeconfig");
    fs::write(&file, "readable by all").unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(create(&child, &["--file", path]).await, "");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let said = operator(&["kubeconfig", "inspect", path]).await.unwrap();
    for words in [
        &format!("server:       https://{}", child.gate.address),
        "credential:   a bearer token",
        &format!("known as:     {ACCOUNT}"),
        "  create tokenreviews (authentication.k8s.io)",
        "missing:      nothing",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let token = Kubeconfig::read_from(&file).unwrap();
    let token = serde_json::to_value(&token.auth_infos[0]).unwrap()["user"]["token"].clone();
    assert!(!said.contains(token.as_str().unwrap()));
}

#[tokio::test]
async fn a_dry_run_prints_what_gitops_would_apply_and_does_nothing() {
    let printed = operator(&["rbac", "child"]).await.unwrap();
    let example = fs::read_to_string("examples/nested-cluster-rights.yaml").unwrap();
    assert!(example.ends_with(&printed), "{printed}");
    let nowhere = ["kubeconfig", "create", "--name", "a", "--dry-run"];
    let nowhere = [&nowhere[..], &["--kubeconfig", "/nowhere"]].concat();
    assert_eq!(operator(&nowhere).await.unwrap(), printed);
    let downstream = ["rbac", "child", "--mode", "downstream"];
    let downstream = operator(&downstream).await.unwrap();
    assert!(!downstream.contains("certificates.k8s.io"), "{downstream}");
    let impersonating = ["rbac", "child", "--impersonate", "spire-root"];
    let printed = operator(&impersonating).await.unwrap();
    assert!(
        printed.contains("resourceNames: [\"spire-root\"]"),
        "{printed}"
    );
}

/// A client of a kubeconfig after a change to its user.
async fn client(kubeconfig: &str, change: impl FnOnce(&mut Value)) -> (String, Client) {
    let mut document: Value = serde_saphyr::from_str(kubeconfig).unwrap();
    change(&mut document["users"][0]["user"]);
    let text = document.to_string();
    let read = Kubeconfig::from_yaml(&text).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(read, &options).await;
    (text, Client::try_from(config.unwrap()).unwrap())
}

async fn is_forbidden(client: Client) {
    let pods = Api::<Pod>::all(client).list(&ListParams::default()).await;
    let code = match pods {
        Err(kube::Error::Api(status)) => status.code,
        pods => panic!("{pods:?}"),
    };
    assert_eq!(code, 403);
}

#[tokio::test]
async fn a_credential_that_impersonates_can_do_nothing_else() {
    let server = Served::by_operator("1h").await;
    let world = &server.world;
    let child = ChildCluster::start_with(Options {
        audit: true,
        ..Options::default()
    })
    .await;
    // What an earlier call has given goes.
    create(&child, &[]).await;
    let kubeconfig = create(&child, &["--impersonate", "spire-root"]).await;
    child.give_kubeconfig(world, &kubeconfig).await;
    child
        .apply(world, json!({ "bundle": { "configMap": {} } }))
        .await;
    child.is_ready(world).await;

    let folder = tempfile::tempdir().unwrap();
    let needs = Needs::remote(Some(bundle()));
    assert_eq!(listed(&kubeconfig, &folder).await, documented(&needs));
    let without = |user: &mut Value| {
        let user = user.as_object_mut().unwrap();
        assert_eq!(user.remove("as"), Some(json!("spire-root")));
    };
    let (itself, as_itself) = client(&kubeconfig, without).await;
    is_forbidden(as_itself).await;
    let impersonate = BTreeSet::from(["impersonate".to_owned()]);
    let expected = BTreeMap::from([("users spire-root".to_owned(), impersonate)]);
    let expected = with_those_of_every_account(expected);
    assert_eq!(listed(&itself, &folder).await, expected);
    let (_, as_somebody) = client(&kubeconfig, |user| user["as"] = json!("admin")).await;
    is_forbidden(as_somebody).await;
    let masters = |user: &mut Value| user["as-groups"] = json!(["system:masters"]);
    is_forbidden(client(&kubeconfig, masters).await.1).await;

    let log = child.control_plane.audit_log();
    let of_account: Vec<_> = log
        .iter()
        .filter(|event| event["user"]["username"] == ACCOUNT && event["verb"] == "watch")
        .collect();
    assert!(!of_account.is_empty());
    for event in of_account {
        assert_eq!(
            event["impersonatedUser"]["username"], "spire-root",
            "{event}"
        );
    }
}

#[tokio::test]
async fn a_missing_right_is_named_until_it_is_granted() {
    let server = Served::by_operator("1h").await;
    let world = &server.world;
    let child = ChildCluster::start().await;
    let kubeconfig = create(&child, &["--bundle-config-map", "none"]).await;
    child.give_kubeconfig(world, &kubeconfig).await;
    child.apply(world, json!({})).await;
    child.is_ready(world).await;

    let cluster_roles = Api::<ClusterRole>::all(child.client.clone());
    let role = cluster_roles.get("spiffe-operator-nested").await.unwrap();
    let mut rules = role.rules.unwrap();
    let is_of_slices = |rule: &&mut PolicyRule| {
        let mut resources = rule.resources.iter().flatten();
        resources.any(|resource| resource == "endpointslices")
    };
    rules.iter_mut().find(is_of_slices).unwrap().verbs = vec!["list".into()];
    merge_patch(
        &cluster_roles,
        "spiffe-operator-nested",
        json!({ "rules": rules }),
    )
    .await;
    child
        .condition(world, "RightsGranted", "False", "MissingRights")
        .await;
    child
        .condition(world, "Ready", "False", "MissingRights")
        .await;
    let objects = Api::<NestedCluster>::all(world.client.clone());
    let status = objects.get(&child.name).await.unwrap().status.unwrap();
    let [
        MissingRight {
            verbs,
            resource,
            rule,
            ..
        },
    ] = &status.missing_rights[..]
    else {
        panic!("{status:?}")
    };
    assert_eq!(
        (&verbs[..], &**resource),
        (&["watch".to_owned()][..], "endpointslices")
    );

    let file = server.file("child.kubeconfig", &kubeconfig);
    let inspect = [
        "kubeconfig",
        "inspect",
        &file,
        "--bundle-config-map",
        "none",
    ];
    let said = operator(&inspect).await.unwrap_err();
    for line in rule.lines() {
        assert!(said.contains(&format!("    {line}\n")), "{line}: {said}");
    }

    // As somebody does who reads that.
    let rules: Value = serde_saphyr::from_str(rule).unwrap();
    let group = "rbac.authorization.k8s.io";
    let (role, binding) = (
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRole",
            "metadata": { "name": "more" }, "rules": rules,
        }),
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding",
            "metadata": { "name": "more" },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": "more" },
            "subjects": [{ "apiGroup": group, "kind": "User", "name": ACCOUNT }],
        }),
    );
    for object in [role, binding] {
        apply(&child.client, &object).await.unwrap();
    }
    child
        .condition(world, "RightsGranted", "True", "Granted")
        .await;
    child.is_ready(world).await;
    operator(&inspect).await.unwrap();
}

#[tokio::test]
async fn what_a_kubeconfig_is_can_be_told_without_its_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let inspect = async |user: Value, cluster: Value| {
        let file = folder.path().join("kubeconfig");
        let document = json!({
            "clusters": [{ "name": "c", "cluster": cluster }],
            "users": [{ "name": "u", "user": user }],
            "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        });
        fs::write(&file, BASE64_STANDARD.encode(document.to_string())).unwrap();
        let file = file.to_str().unwrap();
        operator(&["kubeconfig", "inspect", file, "--offline"]).await
    };
    let good = json!({ "server": "https://127.0.0.1:1" });
    let said = inspect(json!({ "token": "secret" }), good.clone()).await;
    let said = said.unwrap();
    assert!(said.contains("ends:         not known"), "{said}");
    assert!(!said.contains("secret"), "{said}");

    // {"exp":1}
    let ended = json!({ "token": "e30.eyJleHAiOjF9.c2ln" });
    let said = inspect(ended, good).await.unwrap_err();
    assert!(said.contains("IT HAS ENDED"), "{said}");

    let bad = json!({ "server": "http://127.0.0.1:1" });
    let file = json!({ "client-certificate": "/a", "as-groups": ["g"] });
    let said = inspect(file, bad).await.unwrap_err();
    for field in [
        "cluster.server",
        "user.client-certificate",
        "user.as-groups",
    ] {
        let named = said
            .lines()
            .any(|line| line.starts_with("refused: ") && line.contains(field));
        assert!(named, "{field}: {said}");
    }
}
