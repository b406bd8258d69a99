//! Stock SPIRE, as the dev tool builds it: where its programs are, how they are called, and what
//! they are told of a server.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Mutex,
};

use spiffe_operator::spiffe::Bundle;
use tokio::process::Command;

use super::control_plane::devcluster;

/// What a program must know of a server to be its client.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) trust_domain: String,
    /// On the loopback interface.
    pub(crate) port: u16,
    /// The roots by which the server is known.
    pub(crate) bundle: Bundle,
}

/// The path of one of SPIRE's programs, which the dev tool builds unless it is in the cache.
pub(crate) async fn program(name: &'static str) -> PathBuf {
    static FOUND: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    if let Some(path) = FOUND.lock().unwrap().get(name) {
        return path.clone();
    }
    let output = Command::new(devcluster().unwrap())
        .args(["program", name])
        .stderr(Stdio::inherit())
        .output()
        .await
        .unwrap();
    let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end());
    assert!(output.status.success() && path.exists(), "no {name}");
    FOUND.lock().unwrap().insert(name, path.clone());
    path
}

/// Runs a program to its end, and gives its standard output.
///
/// # Errors
/// All it said, when it fails.
pub(crate) async fn run<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("{}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(String::from_utf8_lossy(&said).into_owned())
}

/// A TCP port of the loopback interface that nobody has. SPIRE wants to be told one.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
