//! The operator as users run it: the compiled program, in a process of its own.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::Mutex,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{
    control_plane::{ControlPlane, control_plane},
    wait::{SOON, wait_until},
};

/// Runs a program until it ends or standard input does, and prints its process id.
const SUPERVISE: &str = r#"exec 3<&0; "$@" & pid=$!; echo $pid
(cat >/dev/null; kill -9 $pid 2>/dev/null) <&3 3<&- & exec 3<&-; wait $pid"#;

/// A running operator. Dropping it kills it; if the test has failed, its log is printed.
pub(crate) struct Operator {
    supervisor: Mutex<Child>,
    /// Held open for as long as the operator shall live.
    _input: ChildStdin,
    process_id: String,
    log: PathBuf,
    _folder: TempDir,
    address: String,
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
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut supervisor = Command::new("/bin/sh")
            .args([
                "-c",
                SUPERVISE,
                "sh",
                env!("CARGO_BIN_EXE_spiffe-operator"),
                "run",
            ])
            .arg("--kubeconfig")
            .arg(control_plane.kubeconfig())
            .args(["--namespace", namespace, "--http-address", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut process_id = String::new();
        BufReader::new(supervisor.stdout.take().unwrap())
            .read_line(&mut process_id)
            .unwrap();
        let mut operator = Self {
            _input: supervisor.stdin.take().unwrap(),
            supervisor: Mutex::new(supervisor),
            process_id: process_id.trim().to_owned(),
            log,
            _folder: folder,
            address: String::new(),
        };
        let address = wait_until("the operator to listen", SOON, || async {
            let line = operator.logged("listening").ok_or_else(|| operator.log())?;
            Ok(line["address"].as_str().unwrap_or_default().to_owned())
        });
        operator.address = address.await;
        operator
    }

    /// `host:port` of its health and metrics endpoints.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub(crate) fn process_id(&self) -> &str {
        &self.process_id
    }

    /// All it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The first log line with this message.
    pub(crate) fn logged(&self, message: &str) -> Option<Value> {
        self.log()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["message"] == message)
    }

    /// Sends a signal, such as `TERM` or `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.process_id])
            .status()
            .unwrap();
        assert!(status.success(), "the operator has ended already");
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self, deadline: Duration) -> ExitStatus {
        wait_until("the operator to end", deadline, || async {
            let status = self.supervisor.lock().unwrap().try_wait().unwrap();
            status.ok_or_else(|| "it runs".to_owned())
        })
        .await
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let supervisor = self.supervisor.get_mut().unwrap();
        if supervisor.try_wait().unwrap().is_none() {
            let _ = Command::new("kill")
                .args(["-s", "KILL", &self.process_id])
                .status();
            let _ = supervisor.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the operator's log:\n{}", self.log());
        }
    }
}
