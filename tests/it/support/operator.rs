//! The operator as users run it: the compiled program, in a process of its own.

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::DeleteParams};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OnceCell,
};

use super::{
    control_plane::{ControlPlane, control_plane},
    process::Process,
    unique,
    wait::{SOON, wait_until},
};

/// A running operator. Dropping it kills it; if the test has failed, its log is printed.
pub(crate) struct Operator {
    process: Process,
    address: String,
    /// Folder of the administration sockets.
    sockets: PathBuf,
    /// Folder of tokens to show to servers above.
    tokens: PathBuf,
}

/// The operator that runs on the shared control plane, with its state in `spiffe-system`.
///
/// An operator serves every TrustDomain that no other one has claimed, so a test that needs an
/// operator of its own needs a control plane of its own.
pub(crate) async fn shared_operator() -> &'static Operator {
    static SHARED: OnceCell<Operator> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            let control_plane = control_plane().await;
            control_plane.install_crds().await;
            control_plane.ensure_namespace("spiffe-system").await;
            Operator::start(control_plane, "spiffe-system", &[]).await
        })
        .await
}

impl Operator {
    /// Starts an operator whose state is in `namespace`, and waits until it listens.
    pub(crate) async fn start(
        control_plane: &ControlPlane,
        namespace: &str,
        arguments: &[&str],
    ) -> Self {
        Self::start_as(control_plane.kubeconfig(), namespace, arguments).await
    }

    /// The same with the rights of a kubeconfig's user.
    pub(crate) async fn start_as(kubeconfig: &Path, namespace: &str, arguments: &[&str]) -> Self {
        // Beside the kubeconfig, in the folder that goes with the control plane.
        let log = kubeconfig.with_file_name(format!("{}.log", unique("operator")));
        let program = Path::new(env!("CARGO_BIN_EXE_spiffe-operator"));
        let kubeconfig = kubeconfig.to_str().unwrap();
        let common = ["run", "--kubeconfig", kubeconfig, "--namespace", namespace];
        let http = ["--http-address", "127.0.0.1:0"];
        let sockets = log.with_extension("");
        let socket = sockets.join("{name}");
        let socket = socket.to_str().unwrap();
        // Replicas on one host differ in their address.
        let is_given = arguments.contains(&"--server-address");
        let address = ["--server-address", "127.0.0.1"];
        let address = address.iter().filter(|_| !is_given);
        let socket = ["--admin-socket", socket];
        let tokens = log.with_extension("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let token_folder = ["--token-folder", tokens.to_str().unwrap()];
        let server = address.chain(&socket).chain(&token_folder);
        let arguments = common.iter().chain(&http).chain(server).chain(arguments);
        let process = Process::start("the operator", program, arguments, log);
        let address = process.wait_until("the operator to listen", SOON, || async {
            let log = process.log();
            let address = log
                .lines()
                .filter(|line| line.contains("listening"))
                .find_map(address_in);
            address.ok_or(log)
        });
        let address = address.await;
        Self {
            process,
            address,
            sockets,
            tokens,
        }
    }

    /// `host:port` of its health and metrics endpoints.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The administration socket of the server of the TrustDomain `name`.
    pub(crate) fn admin_socket(&self, name: &str) -> PathBuf {
        self.sockets.join(name)
    }

    /// The folder in which it finds tokens to show to servers above.
    pub(crate) fn token_folder(&self) -> &Path {
        &self.tokens
    }

    /// Its process.
    pub(crate) fn process_id(&self) -> &str {
        self.process.id()
    }

    /// All it has logged.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// The first log line with this message.
    pub(crate) fn logged(&self, message: &str) -> Option<Value> {
        self.log()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["message"] == message)
    }

    /// Asks one of its HTTP endpoints, and gives the status and the body.
    pub(crate) async fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        http(&self.address, method, path, body)
            .await
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self) {
        wait_until("the operator to be ready", SOON, || async {
            match self.http("GET", "/readyz", "").await {
                (200, _) => Ok(()),
                (_, body) => Err(body),
            }
        })
        .await;
    }

    /// Waits until it leads.
    pub(crate) async fn leads(&self) {
        wait_until("the operator to lead", LEASE_EXPIRED, || async {
            let leads = self.metric("spiffe_operator_leader").await == Some(1.0);
            leads.then_some(()).ok_or_else(|| "it does not".to_owned())
        })
        .await;
    }

    /// The value of a metric, named with its labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let (_, metrics) = self.http("GET", "/metrics", "").await;
        let mut values = metrics.lines().filter_map(|line| line.strip_prefix(name));
        values.find_map(|value| value.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until objects of a kind were reconciled `times` more from start to end.
    pub(crate) async fn reconciles(&self, kind: &str, times: u32) {
        let name = format!("spiffe_operator_reconcile_duration_seconds_count{{kind=\"{kind}\"}}");
        let before = self.metric(&name).await.unwrap_or_default();
        // One may be under way.
        let enough = before + f64::from(times) + 1.0;
        wait_until("further reconciles", LEASE_EXPIRED, || async {
            let now = self.metric(&name).await.unwrap_or_default();
            (now >= enough)
                .then_some(())
                .ok_or(format!("{now} of {enough}"))
        })
        .await;
    }

    /// The CPU time it has used.
    pub(crate) fn cpu_time(&self) -> Duration {
        self.process.cpu_time()
    }

    /// Sends a signal, such as `TERM` or `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Sends a signal, unless it has ended.
    pub(crate) fn try_signal(&self, name: &str) -> bool {
        self.process.try_signal(name)
    }

    /// Its name in the Lease.
    pub(crate) fn identity(&self) -> String {
        let line = self.logged("listening").expect("it listens");
        line["identity"].as_str().expect("a name").to_owned()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self, deadline: Duration) -> ExitStatus {
        self.process.ended(deadline).await
    }
}

/// Time enough for a standby to take the Lease of a leader that was killed.
pub(crate) const LEASE_EXPIRED: Duration = Duration::from_mins(1);

/// Ends the Lease of an operator that was killed, so that the next one need not wait for it.
pub(crate) async fn release_lease(client: &Client) {
    let leases = Api::<Lease>::namespaced(client.clone(), "spiffe-system");
    let parameters = DeleteParams::default();
    leases.delete("spiffe-operator", &parameters).await.unwrap();
}

/// The address in a log line, JSON or text.
fn address_in(line: &str) -> Option<String> {
    let rest = line.split_once("127.0.0.1:")?.1;
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("127.0.0.1:{port}"))
}

async fn http(
    address: &str,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((status.unwrap_or_default(), body.to_owned()))
}
