//! A stock spire-agent, in a process of its own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use spiffe_operator::spiffe::{Bundle, SpiffeId, pem, verify_x509_svid};
use tempfile::TempDir;

use super::{
    attestors::Attestor,
    process::Process,
    spire::{Endpoint, program, run},
    wait::{SOON, wait_until},
};

/// Name of a server that has several addresses.
const REPLICAS: &str = "replicas.test";

/// A running agent. It knows workloads by their user (`unix:uid:…`) and program (`unix:path:…`).
pub(crate) struct SpireAgent {
    process: Process,
    program: PathBuf,
    trust_domain: String,
    folder: TempDir,
    /// Where it finds the server's addresses, if it has several.
    hosts: Option<PathBuf>,
}

/// An X.509-SVID as a workload gets it.
#[derive(Debug)]
pub(crate) struct X509Svid {
    pub(crate) id: SpiffeId,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) bundle: Bundle,
}

impl SpireAgent {
    /// Starts an agent and waits until it serves workloads.
    pub(crate) async fn start(server: &Endpoint, attestor: &Attestor) -> Self {
        let agent = Self::launch(server, attestor).await;
        agent.healthy().await;
        agent
    }

    /// Starts an agent and waits until it serves workloads. Its server has several addresses, and it
    /// goes from one to the next with every call.
    pub(crate) async fn start_among(
        server: &Endpoint,
        attestor: &Attestor,
        addresses: &[&str],
    ) -> Self {
        let agent = Self::launch_with(server, attestor, addresses, "1s").await;
        agent.healthy().await;
        agent
    }

    /// Starts an agent that syncs as seldom as agents do unless they are told otherwise, and waits
    /// until it serves workloads.
    pub(crate) async fn start_unhurried(server: &Endpoint, attestor: &Attestor) -> Self {
        let agent = Self::launch_with(server, attestor, &[], "5s").await;
        agent.healthy().await;
        agent
    }

    /// Starts an agent.
    pub(crate) async fn launch(server: &Endpoint, attestor: &Attestor) -> Self {
        Self::launch_with(server, attestor, &[], "1s").await
    }

    async fn launch_with(
        server: &Endpoint,
        attestor: &Attestor,
        addresses: &[&str],
        sync_interval: &str,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = program("spire-agent").await;
        let mut configuration = configuration(server, attestor, folder.path(), sync_interval);
        let hosts = (!addresses.is_empty()).then(|| folder.path().join("hosts"));
        if let Some(hosts) = &hosts {
            let lines = addresses.iter().map(|it| format!("{it} {REPLICAS}\n"));
            fs::write(hosts, lines.collect::<String>()).unwrap();
            let one = "server_address = \"127.0.0.1\"";
            configuration = configuration.replace(one, &format!("server_address = \"{REPLICAS}\""));
        }
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::write(folder.path().join("bundle.pem"), server.bundle.to_pem()).unwrap();
        fs::write(folder.path().join("agent.conf"), configuration).unwrap();
        Self {
            process: process(&program, folder.path(), hosts.as_deref()),
            program,
            trust_domain: server.trust_domain.clone(),
            folder,
            hosts,
        }
    }

    /// Kills it and starts it again, with what it has kept on disk.
    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        self.process = process(&self.program, self.folder.path(), self.hosts.as_deref());
        self.healthy().await;
    }

    /// Kills it unless it has ended, removes what it has kept on disk, and starts it again.
    pub(crate) async fn relaunch_without_data(&mut self) {
        self.kill().await;
        let data = self.folder.path().join("data");
        fs::remove_dir_all(&data).unwrap();
        fs::create_dir(data).unwrap();
        fs::remove_file(self.folder.path().join("agent.log")).unwrap();
        self.process = process(&self.program, self.folder.path(), self.hosts.as_deref());
    }

    async fn kill(&mut self) {
        self.process.try_signal("KILL");
        self.process.ended(SOON).await;
    }

    /// Waits until its log has `words`, whether it still runs or not.
    pub(crate) async fn says(&self, words: &str) {
        wait_until(&format!("the agent to say {words:?}"), SOON, || async {
            let log = self.process.log();
            log.contains(words).then_some(()).ok_or(log)
        })
        .await;
    }

    /// Its process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// The socket of its Workload API.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// Waits until it serves workloads.
    pub(crate) async fn healthy(&self) {
        self.process
            .wait_until("the agent to be healthy", SOON, || {
                self.command("healthcheck")
            })
            .await;
    }

    /// Runs `spire-agent` with `arguments`, which hold no blanks, against its socket.
    ///
    /// # Errors
    /// What it said, when it fails.
    pub(crate) async fn command(&self, arguments: &str) -> Result<String, String> {
        let socket = self.socket();
        let socket = ["-socketPath", socket.to_str().unwrap()];
        run(&self.program, arguments.split_whitespace().chain(socket)).await
    }

    /// Waits until there are X.509-SVIDs for this process that are as wanted, and gives them.
    pub(crate) async fn x509_svids(
        &self,
        what: &str,
        are_wanted: impl Fn(&[X509Svid]) -> bool,
    ) -> Vec<X509Svid> {
        self.process
            .wait_until(what, SOON, || async {
                let svids = self.fetch_x509().await?;
                if are_wanted(&svids) {
                    Ok(svids)
                } else {
                    Err(format!("{svids:?}"))
                }
            })
            .await
    }

    /// As [`Self::x509_svids`], where it may fail at no time.
    pub(crate) async fn x509_svids_at_every_time(
        &self,
        what: &str,
        are_wanted: impl Fn(&[X509Svid]) -> bool,
    ) -> Vec<X509Svid> {
        self.process
            .wait_until(what, SOON, || async {
                let svids = self.fetch_x509().await.unwrap();
                let is_done = are_wanted(&svids);
                is_done.then_some(svids).ok_or("not yet".to_owned())
            })
            .await
    }

    /// Waits until there is an X.509-SVID with this ID for this process, and gives it.
    pub(crate) async fn x509_svid(&self, id: &str) -> X509Svid {
        let has_id = |svids: &[X509Svid]| svids.iter().any(|svid| svid.id.as_str() == id);
        let what = format!("an X.509-SVID of {id}");
        let svids = self.x509_svids(&what, has_id).await;
        svids
            .into_iter()
            .find(|svid| svid.id.as_str() == id)
            .unwrap()
    }

    /// The X.509-SVIDs for this process, verified to their bundle by go-spiffe and by us.
    ///
    /// # Errors
    /// What the agent said, when it fails.
    pub(crate) async fn fetch_x509(&self) -> Result<Vec<X509Svid>, String> {
        let folder = tempfile::tempdir().unwrap();
        let write = format!("api fetch x509 -write {}", folder.path().display());
        self.command(&write).await?;
        let read = |name: String| fs::read(folder.path().join(name));
        let svids = (0..).map_while(|number| {
            let chain = read(format!("svid.{number}.pem")).ok()?;
            let bundle = read(format!("bundle.{number}.pem")).unwrap();
            let chain = pem::certificates(&chain).unwrap();
            let bundle = Bundle::from_pem(self.trust_domain.parse().unwrap(), &bundle).unwrap();
            let id = verify_x509_svid(&chain, &bundle, Timestamp::now()).unwrap();
            Some(X509Svid { id, chain, bundle })
        });
        Ok(svids.collect())
    }

    /// A JWT-SVID for this process.
    ///
    /// # Errors
    /// What the agent said, when it fails.
    pub(crate) async fn fetch_jwt(&self, audience: &str) -> Result<String, String> {
        let said = self
            .command(&format!("api fetch jwt -audience {audience}"))
            .await?;
        let mut lines = said.lines().skip_while(|line| !line.starts_with("token("));
        let token = lines.nth(1).ok_or(&said)?;
        Ok(token.trim().to_owned())
    }

    /// Starts `spire-agent api watch`, whose log then shows every update.
    pub(crate) fn watch(&self) -> Process {
        let socket = self.socket();
        let arguments = ["api", "watch", "-socketPath", socket.to_str().unwrap()];
        let log = self.folder.path().join("watch.log");
        Process::start("spire-agent api watch", &self.program, arguments, log)
    }
}

fn process(program: &Path, folder: &Path, hosts: Option<&Path>) -> Process {
    let configuration = folder.join("agent.conf");
    let log = folder.join("agent.log");
    let run = ["run", "-config", configuration.to_str().unwrap()];
    let Some(hosts) = hosts else {
        return Process::start("spire-agent", program, run, log);
    };
    // In a mount namespace of its own, which needs root.
    let script = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;
    let [hosts, program] = [hosts, program].map(|path| path.to_str().unwrap());
    let isolated = ["--mount", "sh", "-c", script, "sh", hosts, program];
    let arguments = isolated.iter().chain(&run);
    Process::start("spire-agent", Path::new("unshare"), arguments, log)
}

fn configuration(
    server: &Endpoint,
    attestor: &Attestor,
    folder: &Path,
    sync_interval: &str,
) -> String {
    let Endpoint {
        trust_domain, port, ..
    } = server;
    let folder = folder.display();
    let join_token = match attestor {
        Attestor::JoinToken(token) => format!("join_token = \"{token}\""),
        Attestor::X509Pop { .. } | Attestor::K8sPsat { .. } => String::new(),
    };
    let (plugin, data) = match attestor {
        Attestor::JoinToken(_) => ("join_token", String::new()),
        Attestor::X509Pop { certificates, key } => (
            "x509pop",
            format!(
                "certificate_path = \"{}\"\nprivate_key_path = \"{}\"",
                certificates.display(),
                key.display()
            ),
        ),
        Attestor::K8sPsat { cluster, token } => (
            "k8s_psat",
            format!(
                "cluster = \"{cluster}\"\ntoken_path = \"{}\"",
                token.display()
            ),
        ),
    };
    format!(
        r#"agent {{
  data_dir = "{folder}/data"
  log_level = "DEBUG"
  server_address = "127.0.0.1"
  server_port = {port}
  socket_path = "{folder}/agent.sock"
  trust_bundle_path = "{folder}/bundle.pem"
  trust_domain = "{trust_domain}"
  {join_token}
  experimental {{ sync_interval = "{sync_interval}" }}
}}
plugins {{
  NodeAttestor "{plugin}" {{ plugin_data {{
    {data}
  }} }}
  KeyManager "disk" {{ plugin_data {{ directory = "{folder}/data" }} }}
  WorkloadAttestor "unix" {{ plugin_data {{ discover_workload_path = true
    workload_size_limit = -1 }} }}
}}
"#
    )
}
