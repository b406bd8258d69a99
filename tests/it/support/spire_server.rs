//! A stock spire-server in a process of its own, and its command line against any server.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde_json::Value;
use spiffe_operator::spiffe::Bundle;
use tempfile::TempDir;

use super::{
    process::Process,
    spire::{Endpoint, free_port, program, run},
    wait::SOON,
};

/// The stock `spire-server` command line against the administrators' socket of a server.
#[derive(Clone, Debug)]
pub(crate) struct SpireServerCli {
    program: PathBuf,
    socket: PathBuf,
}

/// A running server with `join_token` attestation, and its database and keys in files.
pub(crate) struct SpireServer {
    process: Process,
    trust_domain: String,
    port: u16,
    cli: SpireServerCli,
    folder: TempDir,
}

impl SpireServer {
    /// Starts a server and waits until it serves. `server` and `plugins` are put into those parts of
    /// its configuration.
    pub(crate) async fn start(trust_domain: &str, server: &str, plugins: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let path = folder.path().display();
        let configuration = format!(
            r#"server {{
  bind_address = "127.0.0.1"
  bind_port = {port}
  socket_path = "{path}/server.sock"
  trust_domain = "{trust_domain}"
  data_dir = "{path}"
  {server}
}}
plugins {{
  DataStore "sql" {{ plugin_data {{
    database_type = "sqlite3"
    connection_string = "{path}/datastore.sqlite3"
  }} }}
  KeyManager "disk" {{ plugin_data {{ keys_path = "{path}/keys.json" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  {plugins}
}}
"#
        );
        let file = folder.path().join("server.conf");
        fs::write(&file, configuration).unwrap();
        let cli = SpireServerCli::new(folder.path().join("server.sock")).await;
        let server = Self {
            process: process(&cli, folder.path()),
            trust_domain: trust_domain.to_owned(),
            port,
            cli,
            folder,
        };
        server.healthy().await;
        server
    }

    /// Kills it, and waits for its end.
    pub(crate) async fn kill(&self) {
        self.process.signal("KILL");
        self.process.ended(SOON).await;
    }

    /// Starts it once more after it was killed, with what it has in its files, and waits until it
    /// serves.
    pub(crate) async fn restart(&mut self) {
        self.process = process(&self.cli, self.folder.path());
        self.healthy().await;
    }

    async fn healthy(&self) {
        self.process
            .wait_until("the server to be healthy", SOON, || {
                self.cli.run("healthcheck")
            })
            .await;
    }

    /// Its process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Its command line.
    pub(crate) fn cli(&self) -> &SpireServerCli {
        &self.cli
    }

    /// What its clients must know.
    pub(crate) async fn endpoint(&self) -> Endpoint {
        Endpoint {
            trust_domain: self.trust_domain.clone(),
            port: self.port,
            bundle: self.cli.bundle(&self.trust_domain).await,
        }
    }
}

impl SpireServerCli {
    /// The command line against `socket`.
    pub(crate) async fn new(socket: PathBuf) -> Self {
        Self {
            program: program("spire-server").await,
            socket,
        }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs `spire-server` with `arguments`, which hold no blanks.
    ///
    /// # Errors
    /// What it said, when it fails.
    pub(crate) async fn run(&self, arguments: &str) -> Result<String, String> {
        let arguments: Vec<_> = arguments.split_whitespace().collect();
        self.run_with(&arguments).await
    }

    /// Runs `spire-server` with `arguments`.
    ///
    /// # Errors
    /// What it said, when it fails.
    pub(crate) async fn run_with(&self, arguments: &[&str]) -> Result<String, String> {
        let socket = ["-socketPath", self.socket.to_str().unwrap()];
        run(&self.program, arguments.iter().copied().chain(socket)).await
    }

    /// What a command that must succeed prints, with all of `words` in it.
    pub(crate) async fn says(&self, arguments: &str, words: &[&str]) -> String {
        let said = self.run(arguments).await;
        let said = said.unwrap_or_else(|said| panic!("spire-server {arguments}: {said}"));
        for word in words {
            assert!(
                said.contains(word),
                "spire-server {arguments}: {word:?} in {said}"
            );
        }
        said
    }

    /// Runs a command that must fail, and say `word`.
    pub(crate) async fn refuses(&self, arguments: &str, word: &str) {
        let said = self.run(arguments).await;
        let Err(said) = said else {
            panic!("spire-server {arguments} succeeded: {said:?}")
        };
        assert!(
            said.contains(word),
            "spire-server {arguments}: {word:?} in {said}"
        );
    }

    /// What a command that must succeed prints as JSON.
    pub(crate) async fn json(&self, arguments: &str) -> Value {
        let said = self.run(&format!("{arguments} -output json")).await;
        let said = said.unwrap_or_else(|said| panic!("spire-server {arguments}: {said}"));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// The X.509 authorities of the server's trust domain.
    pub(crate) async fn bundle(&self, trust_domain: &str) -> Bundle {
        let shown = self.run("bundle show").await.unwrap();
        Bundle::from_pem(trust_domain.parse().unwrap(), shown.as_bytes()).unwrap()
    }

    /// A new join token.
    pub(crate) async fn join_token(&self) -> String {
        let generated = self.json("token generate").await;
        generated["value"].as_str().unwrap().to_owned()
    }

    /// Registers the workloads of this process's user, and gives the ID of the entry.
    pub(crate) async fn entry(&self, parent: &str, id: &str, further: &str) -> String {
        self.entry_of(parent, id, &user_selector(), further).await
    }

    /// Registers workloads with a selector, and gives the ID of the entry.
    pub(crate) async fn entry_of(
        &self,
        parent: &str,
        id: &str,
        selector: &str,
        further: &str,
    ) -> String {
        let created = self
            .json(&format!(
                "entry create -parentID {parent} -spiffeID {id} -selector {selector} {further}"
            ))
            .await;
        let results = created["results"].as_array().unwrap();
        assert_eq!(results[0]["status"]["code"], 0, "{created}");
        results[0]["entry"]["id"].as_str().unwrap().to_owned()
    }
}

fn process(cli: &SpireServerCli, folder: &Path) -> Process {
    let file = folder.join("server.conf");
    let arguments = ["run", "-config", file.to_str().unwrap()];
    let log = folder.join("server.log");
    Process::start("spire-server", &cli.program, arguments, log)
}

/// By what an agent knows this process and its children.
fn user_selector() -> String {
    let process = fs::metadata("/proc/self").unwrap();
    format!("unix:uid:{}", process.uid())
}
