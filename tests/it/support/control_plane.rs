//! etcd and kube-apiserver, run by the dev tool `devcluster`.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
};

use k8s_openapi::api::{authentication::v1::TokenRequest, core::v1::ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{
        ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
    },
    config::{KubeConfigOptions, Kubeconfig},
    discovery,
};
use serde::Deserialize;
use serde_json::{Value, json};
use spiffe_operator::api::custom_resource_definitions;

use super::{
    objects::apply,
    wait::{SOON, wait_until},
};

/// What a control plane has besides etcd and kube-apiserver.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Runs a node too, and so everything that a cluster has: kubelet, scheduler, Services, DNS.
    pub(crate) node: bool,
    /// Runs kube-controller-manager too: garbage collection, namespaces, default service accounts.
    pub(crate) controller_manager: bool,
    /// Logs every request, for [`ControlPlane::audit_log`].
    pub(crate) audit: bool,
    /// Further flags of kube-apiserver.
    pub(crate) apiserver_args: Vec<String>,
}

/// A running control plane. Dropping it ends it.
pub(crate) struct ControlPlane {
    report: Report,
    supervisor: Arc<Mutex<Supervisor>>,
}

/// What `devcluster` prints when the servers are ready.
#[derive(Deserialize)]
struct Report {
    kubeconfig: PathBuf,
    dir: PathBuf,
    audit_log: Option<PathBuf>,
}

struct Supervisor {
    child: Child,
    /// Closed to end everything.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// The control plane that the tests of this process share, started with the first of them and ended
/// with the process. It runs no controllers, so tests make service accounts themselves.
pub(crate) async fn control_plane() -> &'static ControlPlane {
    static SHARED: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
    let started = tokio::task::spawn_blocking(|| {
        SHARED.get_or_init(|| ControlPlane::start_blocking(&Options::default()))
    });
    match started.await.unwrap() {
        Ok(control_plane) => control_plane,
        Err(problem) => panic!("{problem}"),
    }
}

impl ControlPlane {
    /// A control plane for one test.
    pub(crate) async fn start(options: Options) -> Self {
        let started = tokio::task::spawn_blocking(move || Self::start_blocking(&options));
        started
            .await
            .unwrap()
            .unwrap_or_else(|problem| panic!("{problem}"))
    }

    fn start_blocking(options: &Options) -> Result<Self, String> {
        let program = devcluster()?;
        let mut command = Command::new(&program);
        command.arg(if options.node {
            "node"
        } else {
            "control-plane"
        });
        // A node is never without it.
        if options.controller_manager && !options.node {
            command.arg("--controller-manager");
        }
        if options.audit {
            command.arg("--audit");
        }
        for argument in &options.apiserver_args {
            command.args(["--apiserver-arg", argument]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        let mut supervisor = Supervisor {
            commands: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().ok_or("no standard output")?),
            child,
        };
        let line = supervisor.answer()?;
        let report = serde_json::from_str(&line)
            .map_err(|error| format!("devcluster failed: {error}: {line:?}"))?;
        Ok(Self {
            report,
            supervisor: Arc::new(Mutex::new(supervisor)),
        })
    }

    /// Path of a kubeconfig of a cluster administrator.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.report.kubeconfig
    }

    /// The folder of this control plane's files.
    pub(crate) fn dir(&self) -> &Path {
        &self.report.dir
    }

    /// The requests so far, of a control plane that was started with `audit`.
    pub(crate) fn audit_log(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.report.audit_log.as_ref().unwrap()).unwrap();
        // The last line may be half written.
        log.lines()
            .map_while(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// A client of a cluster administrator. It belongs to the runtime of the calling test.
    pub(crate) async fn client(&self) -> Client {
        client_of(self.config().await)
    }

    /// A client that acts as `user` in `groups`. RBAC and admission see that user.
    pub(crate) async fn client_as(&self, user: &str, groups: &[&str]) -> Client {
        let mut config = self.config().await;
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups =
            Some(groups.iter().map(ToString::to_string).collect());
        client_of(config)
    }

    /// Path of a new kubeconfig of a service account, with a token of an hour.
    pub(crate) async fn kubeconfig_of(&self, namespace: &str, account: &str) -> PathBuf {
        let accounts = Api::<ServiceAccount>::namespaced(self.client().await, namespace);
        let (parameters, request) = (PostParams::default(), TokenRequest::default());
        let token = accounts.create_token_request(account, &parameters, &request);
        let token = token.await.unwrap().status.unwrap().token;
        let admin = fs::read_to_string(self.kubeconfig()).unwrap();
        let mut kubeconfig: Value = serde_saphyr::from_str(&admin).unwrap();
        kubeconfig["users"][0]["user"] = json!({ "token": token });
        let path = self.dir().join(format!("{account}.kubeconfig"));
        fs::write(&path, kubeconfig.to_string()).unwrap();
        path
    }

    async fn config(&self) -> Config {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap()
    }

    /// Installs the kinds, and gives a client once they are served. Any number of tests may.
    pub(crate) async fn install_crds(&self) -> Client {
        let client = self.client().await;
        install(&client, &custom_resource_definitions()).await;
        client
    }

    /// Makes a namespace unless it is there.
    pub(crate) async fn ensure_namespace(&self, name: &str) {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name },
        });
        apply(&self.client().await, &namespace).await.unwrap();
    }

    /// Stops, starts, pauses or resumes a server, such as `stop apiserver`.
    pub(crate) async fn command(&self, command: &str) {
        let (supervisor, line) = (Arc::clone(&self.supervisor), format!("{command}\n"));
        let answer = tokio::task::spawn_blocking(move || {
            let mut supervisor = supervisor.lock().unwrap();
            let commands = supervisor.commands.as_mut().ok_or("it has ended")?;
            commands
                .write_all(line.as_bytes())
                .map_err(|error| error.to_string())?;
            supervisor.answer()
        });
        let answer = answer.await.unwrap().unwrap();
        assert!(!answer.contains("\"error\""), "{command}: {answer}");
    }
}

impl Supervisor {
    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .map_err(|error| error.to_string())?;
        Ok(line)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.child.wait();
    }
}

/// Installs `definitions` and waits until they are served.
pub(crate) async fn install(client: &Client, definitions: &[CustomResourceDefinition]) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("test").force();
    for definition in definitions {
        api.patch(&definition.name_any(), &params, &Patch::Apply(definition))
            .await
            .unwrap();
    }
    for definition in definitions {
        let names = &definition.spec.names;
        let version = &definition.spec.versions.first().unwrap().name;
        let kind = GroupVersionKind::gvk(&definition.spec.group, version, &names.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, &names.plural);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        wait_until(&format!("{} to be served", names.plural), SOON, || async {
            let listed = api.list(&ListParams::default().limit(1)).await;
            listed.map_err(|error| error.to_string())?;
            let found = discovery::pinned_kind(client, &kind).await;
            found.map_err(|error| error.to_string())
        })
        .await;
    }
}

fn client_of(config: Config) -> Client {
    Client::try_from(config).unwrap()
}

/// The dev tool: `$SPIFFE_DEVCLUSTER`, which `make test` sets, or the one of this repository.
pub(crate) fn devcluster() -> Result<PathBuf, String> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/devcluster.sh");
    match std::env::var_os("SPIFFE_DEVCLUSTER") {
        Some(program) => Ok(program.into()),
        None if script.exists() => Ok(script),
        None => Err(
            "no servers to test on: set SPIFFE_DEVCLUSTER to the devcluster program, as \
                     `make test` does"
                .to_owned(),
        ),
    }
}

#[tokio::test]
async fn an_api_server_can_be_taken_away_and_given_back() {
    let own = ControlPlane::start(Options::default()).await;
    let client = own.client().await;
    client.apiserver_version().await.unwrap();
    own.command("stop apiserver").await;
    assert!(client.apiserver_version().await.is_err());
    own.command("start apiserver").await;
    wait_until("the API server", SOON, || async {
        client
            .apiserver_version()
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    let folder = own.dir().to_owned();
    drop(own);
    assert!(!folder.exists(), "{} is left over", folder.display());
}
