//! A whole cluster with a node, on which the operator runs from its image.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use super::{
    control_plane::{ControlPlane, Options, devcluster},
    wait::wait_until,
};

/// Time enough for pods to be scheduled, started and ready, also at the kubelet's second or third
/// attempt to mount a volume.
pub(crate) const SOON_ON_A_NODE: Duration = Duration::from_mins(2);

/// A cluster with a node and the operator installed by `config/default`.
pub(crate) struct NodeCluster {
    control_plane: ControlPlane,
}

impl NodeCluster {
    /// Starts a cluster, installs the operator from an image of the program under test, and waits
    /// until it is ready.
    pub(crate) async fn start() -> Self {
        let options = Options {
            node: true,
            ..Options::default()
        };
        let cluster = Self {
            control_plane: ControlPlane::start(options).await,
        };
        for image in images(cluster.control_plane.dir()) {
            let dir = cluster.control_plane.dir().as_os_str();
            run(command().arg("load").arg("--dir").arg(dir).arg(image)).unwrap();
        }
        cluster.apply("config/default", true).await;
        cluster.rolled_out("spiffe-system", "deployment/spiffe-operator");
        cluster
    }

    /// The API server and what belongs to it.
    pub(crate) fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// Waits until a `Deployment` or `DaemonSet` is available. If it is not, says what its pods say.
    pub(crate) fn rolled_out(&self, namespace: &str, what: &str) {
        let rollout = ["-n", namespace, "rollout", "status", what, "--timeout=120s"];
        if let Err(problem) = self.try_kubectl(&rollout) {
            let pods = self.try_kubectl(&["-n", namespace, "describe", "pods"]);
            let log = self.try_kubectl(&["-n", namespace, "logs", what]);
            let [pods, log] = [pods, log].map(|said| said.unwrap_or_else(|error| error));
            panic!("{problem}\n{pods}\n{log}");
        }
    }

    /// Runs kubectl with arguments that hold no spaces, and gives its standard output.
    pub(crate) fn kubectl(&self, arguments: &str) -> String {
        let arguments: Vec<_> = arguments.split_whitespace().collect();
        self.try_kubectl(&arguments)
            .unwrap_or_else(|problem| panic!("kubectl {arguments:?}: {problem}"))
    }

    /// Runs kubectl.
    ///
    /// # Errors
    /// What it said, when it fails.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let dir = self.control_plane.dir().as_os_str();
        run(command()
            .arg("kubectl")
            .arg("--dir")
            .arg(dir)
            .args(arguments))
    }

    /// Applies a file or folder of the repository as a user does. A namespace may take a moment to
    /// be what pods need (its service account), kinds may take one to be served.
    pub(crate) async fn apply(&self, path: &str, kustomize: bool) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let path = path.to_str().unwrap();
        let flag = if kustomize { "-k" } else { "-f" };
        wait_until(&format!("{path} to be applied"), SOON_ON_A_NODE, || async {
            self.try_kubectl(&["apply", flag, path])
        })
        .await;
    }

    /// Applies manifests as a user does.
    pub(crate) async fn apply_text(&self, manifests: &str) {
        let file = self.control_plane.dir().join("manifests.yaml");
        std::fs::write(&file, manifests).unwrap();
        self.apply(file.to_str().unwrap(), false).await;
    }

    /// Loads an image of a pinned program.
    pub(crate) fn load_program(&self, name: &str, image: &str) {
        let program = run(command().args(["program", name])).unwrap();
        let dir = self.control_plane.dir();
        let archive = dir.join(format!("{name}.tar"));
        let entrypoint = format!("/{name}");
        run(command()
            .args(["image", image, "--out"])
            .arg(&archive)
            .args(["--entrypoint", &entrypoint, "--user", "0"])
            .arg(format!("{}={entrypoint}", program.trim())))
        .unwrap();
        run(command().arg("load").arg("--dir").arg(dir).arg(&archive)).unwrap();
    }

    /// An object as the API server has it.
    ///
    /// # Errors
    /// What kubectl said.
    pub(crate) fn get(&self, namespace: &str, what: &str) -> Result<Value, String> {
        let mut arguments = vec!["-n", namespace, "get", "-o", "json"];
        arguments.extend(what.split_whitespace());
        let text = self.try_kubectl(&arguments)?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// Waits until the pod is ready. At the deadline it tells what the pod's events say.
    pub(crate) async fn ready(&self, namespace: &str, pod: &str) {
        let what = format!("pod {namespace}/{pod} to be ready");
        wait_until(&what, SOON_ON_A_NODE, || async {
            let found = self.get(namespace, &format!("pod {pod}"))?;
            let conditions = found["status"]["conditions"].as_array();
            let ready = conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            if ready {
                Ok(())
            } else {
                Err(format!("{:#?}", self.events(namespace, pod)?))
            }
        })
        .await;
    }

    /// Reason and message of the events on a pod.
    ///
    /// # Errors
    /// What kubectl said.
    pub(crate) fn events(
        &self,
        namespace: &str,
        pod: &str,
    ) -> Result<Vec<(String, String)>, String> {
        let selector = format!("events --field-selector involvedObject.name={pod}");
        let found = self.get(namespace, &selector)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = found["items"].as_array().into_iter().flatten();
        Ok(events
            .map(|event| (text(&event["reason"]), text(&event["message"])))
            .collect())
    }

    /// Waits for an event with this reason on a pod, and gives its message.
    pub(crate) async fn event(&self, namespace: &str, pod: &str, reason: &str) -> String {
        let what = format!("event {reason} on pod {namespace}/{pod}");
        wait_until(&what, SOON_ON_A_NODE, || async {
            let events = self.events(namespace, pod)?;
            let found = events.iter().find(|event| event.0 == reason);
            found
                .map(|event| event.1.clone())
                .ok_or_else(|| format!("{events:#?}"))
        })
        .await
    }

    /// Runs a command in a pod (or `deploy/NAME`) and gives what it prints.
    ///
    /// # Errors
    /// What it said, when it fails.
    pub(crate) fn exec(
        &self,
        namespace: &str,
        pod: &str,
        command: &[&str],
    ) -> Result<String, String> {
        let mut arguments = vec!["-n", namespace, "exec", pod, "--"];
        arguments.extend(command);
        self.try_kubectl(&arguments)
    }
}

/// Archives of the images of the operator under test and of the workload.
fn images(dir: &Path) -> [PathBuf; 2] {
    let operator = dir.join("operator.tar");
    let program = env!("CARGO_BIN_EXE_spiffe-operator");
    run(command()
        .args(["image", "localhost/spiffe-operator:dev", "--out"])
        .arg(&operator)
        .args(["--entrypoint", "/spiffe-operator"])
        .arg(format!("{program}=/spiffe-operator")))
    .unwrap();
    run(command().args(["images", "--out"]).arg(dir)).unwrap();
    [operator, dir.join("workload.tar")]
}

fn command() -> Command {
    Command::new(devcluster().unwrap())
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = [output.stdout, output.stderr].concat();
        Err(String::from_utf8_lossy(&said).into_owned())
    }
}
