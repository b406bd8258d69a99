//! What `kubectl apply -k` installs, where `config/default` is not it.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::support::{apply_dry, control_plane, devcluster};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const OVERLAY: &str = "config/admin-socket";

/// What kustomize makes of a folder.
async fn built(folder: &str) -> Vec<Value> {
    let cluster = control_plane().await.dir();
    let output = Command::new(devcluster().unwrap())
        .args(["kubectl", "--dir", cluster.to_str().unwrap()])
        .args(["kustomize", folder])
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

/// The containers of the operator's pods, once an API server has taken all of `objects`.
async fn accepted(objects: &[Value]) -> Vec<Value> {
    let control_plane = control_plane().await;
    let client = control_plane.install_crds().await;
    control_plane.ensure_namespace("spiffe-system").await;
    for object in objects {
        let applied = apply_dry(&client, object).await;
        assert!(applied.is_ok(), "{object}: {applied:?}");
    }
    let deployment = objects.iter().find(|it| it["kind"] == "Deployment");
    let containers = &deployment.unwrap()["spec"]["template"]["spec"]["containers"];
    containers.as_array().unwrap().clone()
}

/// Where a container finds the volume of the socket.
fn folder_of_socket(container: &Value) -> &str {
    let mounts = container["volumeMounts"].as_array().unwrap().iter();
    let mut mounts = mounts.filter(|mount| mount["name"] == "admin-socket");
    mounts.next().unwrap()["mountPath"].as_str().unwrap()
}

#[tokio::test]
async fn the_overlay_gives_every_replica_a_folder_for_its_socket() {
    let objects = built(&format!("{ROOT}/{OVERLAY}")).await;
    let [operator] = &*accepted(&objects).await else {
        panic!("{objects:#?}");
    };
    let variables = operator["env"].as_array().unwrap();
    let named = |name: &str| variables.iter().find(|it| it["name"] == name);
    let socket = named("SPIFFE_OPERATOR_ADMIN_SOCKET").unwrap()["value"]
        .as_str()
        .unwrap();
    // The operator makes a folder of its own for the socket: that of the volume is root's.
    let folder = Path::new(socket).parent().unwrap().parent().unwrap();
    assert_eq!(folder, Path::new(folder_of_socket(operator)));
    assert!(named("SPIFFE_OPERATOR_IDENTITY").is_some(), "{operator}");
}

/// The YAML of `docs/spire.md` that begins with the name of a file.
fn documented(name: &str) -> String {
    let text = fs::read_to_string(format!("{ROOT}/docs/spire.md")).unwrap();
    let begin = format!("```yaml\n# {name}\n");
    let (_, rest) = text.split_once(&begin).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[tokio::test]
async fn the_sidecars_of_the_documentation_share_the_socket_and_the_restrictions() {
    let own = tempfile::tempdir().unwrap();
    // kustomize takes relative paths only.
    let up = "../".repeat(own.path().components().count() - 1);
    let base = format!("{up}{}/{OVERLAY}", ROOT.trim_start_matches('/'));
    let kustomization = documented("kustomization.yaml");
    assert!(
        kustomization.contains(&format!("./{OVERLAY}")),
        "{kustomization}"
    );
    let kustomization = kustomization.replace(&format!("./{OVERLAY}"), &base);
    fs::write(own.path().join("kustomization.yaml"), kustomization).unwrap();
    let manager = "spire-controller-manager.yaml";
    fs::write(own.path().join(manager), documented(manager)).unwrap();

    let objects = built(own.path().to_str().unwrap()).await;
    let containers = accepted(&objects).await;
    let names: Vec<_> = containers.iter().map(|it| it["name"].as_str()).collect();
    let expected = ["operator", "spire-server", "spire-controller-manager"];
    let known = |name: &&str| names.contains(&Some(*name));
    assert!(expected.iter().all(known) && names.len() == 3, "{names:?}");
    for container in &containers {
        assert_eq!(folder_of_socket(container), "/tmp/spire-server");
        // The namespace takes nothing less.
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], json!(false));
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    }
}
