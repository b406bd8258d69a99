//! The two servers, set up alike: no rate limits, the usual key types and lifetimes, attestation by
//! certificates, logs of warnings alone.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Ca, ControlPlane, Endpoint, Operator, Options, SOON, SpireServer, SpireServerCli, World, ca,
    free_port, wait_until,
};

/// Whose children the entries of pods are, whatever node they are on.
pub(crate) const NODE_TEMPLATE: &str = "spiffe://{{ .TrustDomain }}/node";

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Stock,
    Ours,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) ca: Ca,
    pub(crate) socket: PathBuf,
    process_id: String,
    _folder: TempDir,
    _running: Running,
}

#[expect(dead_code, reason = "held for as long as the server shall run")]
enum Running {
    Stock(SpireServer),
    Ours(Operator, Arc<Cluster>),
}

/// A cluster with one node and a namespace for pods.
pub(crate) struct Cluster {
    pub(crate) control_plane: ControlPlane,
    pub(crate) world: World,
}

impl Cluster {
    pub(crate) async fn start() -> Arc<Self> {
        let control_plane = ControlPlane::start(Options::default()).await;
        let world = World::without_trust_domain(&control_plane).await;
        Arc::new(Self {
            control_plane,
            world,
        })
    }
}

impl Server {
    pub(crate) async fn start(kind: Kind) -> Self {
        match kind {
            Kind::Stock => Self::stock().await,
            Kind::Ours => Self::ours(Cluster::start().await).await,
        }
    }

    pub(crate) async fn stock() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ca, file) = (ca("nodes"), folder.path().join("nodes.pem"));
        fs::write(&file, ca.pem()).unwrap();
        let settings = "log_level = \"WARN\"\n  ratelimit { attestation = false, signing = false }";
        let plugins = format!(
            r#"NodeAttestor "x509pop" {{ plugin_data {{ ca_bundle_path = "{}" }} }}"#,
            file.display()
        );
        let server = SpireServer::start("bench.test", settings, &plugins).await;
        Self {
            endpoint: server.endpoint().await,
            ca,
            socket: server.cli().socket().to_owned(),
            process_id: server.process().id().to_owned(),
            _folder: folder,
            _running: Running::Stock(server),
        }
    }

    pub(crate) async fn ours(cluster: Arc<Cluster>) -> Self {
        let Cluster {
            control_plane,
            world,
        } = &*cluster;
        control_plane.ensure_namespace("spiffe-system").await;
        let arguments = ["--log", "warn,spiffe_operator::runtime=info"];
        let operator = Operator::start(control_plane, "spiffe-system", &arguments).await;
        let (ca, port) = (ca("nodes"), free_port());
        let server = json!({
            "port": port,
            "rateLimit": { "attestation": false, "signing": false },
            "nodeAttestors": { "x509pop": { "caBundle": ca.pem() } },
        });
        let spec = json!({ "server": server, "parentIDTemplate": NODE_TEMPLATE });
        world.apply_trust_domain(spec).await;
        let socket = operator.admin_socket(&world.class);
        let cli = SpireServerCli::new(socket.clone()).await;
        wait_until("the server to have a bundle", SOON, || {
            cli.run("bundle show")
        })
        .await;
        Self {
            endpoint: Endpoint {
                bundle: cli.bundle(&world.trust_domain).await,
                trust_domain: world.trust_domain.clone(),
                port,
            },
            ca,
            socket,
            process_id: operator.process_id().to_owned(),
            _folder: tempfile::tempdir().unwrap(),
            _running: Running::Ours(operator, Arc::clone(&cluster)),
        }
    }

    /// The CPU time that the process has used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process_id)).unwrap();
        // Fields 14 and 15, counted after the name in parentheses: user and system time in
        // hundredths of a second.
        let fields = stat.rsplit_once(") ").unwrap().1;
        let times = fields.split(' ').skip(11).take(2);
        Duration::from_millis(times.map(|time| time.parse::<u64>().unwrap() * 10).sum())
    }

    /// A line of the process's status in MB: `VmRSS` is what it holds, `RssAnon` that without
    /// pages of files, above all its program, `VmHWM` the most it has held.
    pub(crate) fn memory(&self, line: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process_id)).unwrap();
        let found = status
            .lines()
            .find_map(|it| it.strip_prefix(line)?.strip_prefix(':'));
        let kilobytes = found.unwrap().trim().trim_end_matches(" kB");
        kilobytes.parse::<f64>().unwrap() / 1024.0
    }
}
