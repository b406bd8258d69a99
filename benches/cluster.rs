//! What the operator costs on a real API server: time until it is ready, memory, CPU at rest and
//! for each event of a pod, and the time from a PodCertificateRequest to its certificate.
//!
//! `PODS=100000 cargo bench --bench cluster`; 10,000 pods unless said otherwise. `IDENTITIES=10`
//! lets each of the ten ClusterSPIFFEIDs select every pod, in place of a tenth of them; certificates
//! are then not asked for. Everything that this starts ends with it.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement, not the program"
)]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::certificates::v1::PodCertificateRequest;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::Request;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde_json::{Value as Json, json};
use spiffe_operator::api::ClusterSPIFFEID;
use support::{ControlPlane, Kubelet, Operator, Options, apply, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

const CLUSTER_SPIFFE_IDS: usize = 10;
const NAMESPACES: usize = 50;
const PODS_A_NODE: usize = 100;
const TRUST_DOMAIN: &str = "bench.test";
const SIGNER: &str = "spiffe-operator.io/bench.test";
/// The operator's own namespace.
const NAMESPACE: &str = "spiffe-system";
/// Requests that are under way at the same time while pods are made.
const CONCURRENCY: usize = 32;
/// Certificates that are asked for one after the other.
const SEQUENTIAL: usize = 200;
/// Certificates that are asked for at once: a node that fills up.
const BURST: usize = 110;
/// Pods that come and go.
const CHURN: usize = 1_000;
const LONG: Duration = Duration::from_mins(15);

fn main() {
    // `cargo test --all-targets` runs benches too, without this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let bench = Bench {
        pods: number("PODS", 10_000),
        identities: number("IDENTITIES", 1),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(bench.run());
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map_or(default, |value| {
            let number = value.to_str().and_then(|text| text.parse().ok());
            number.unwrap_or_else(|| panic!("{variable} is no number: {}", value.display()))
        })
}

struct Bench {
    pods: usize,
    /// How many of the ClusterSPIFFEIDs select a pod.
    identities: usize,
}

impl Bench {
    async fn run(&self) {
        let control_plane = ControlPlane::start(Options::default()).await;
        let client = control_plane.install_crds().await;
        let started = Instant::now();
        self.populate(&client).await;
        println!(
            "{} pods, {CLUSTER_SPIFFE_IDS} ClusterSPIFFEIDs, {} identities a pod (made in {:.0?})",
            self.pods,
            self.identities,
            started.elapsed()
        );

        let started = Instant::now();
        let operator = Operator::start(&control_plane, NAMESPACE, &[]).await;
        let process = Process::of(&operator);
        until_ready(&operator).await;
        figure("start to ready", started.elapsed());
        figure("CPU, start to ready", process.cpu());
        process.print_memory("ready");
        self.all_in_force(&client, &operator).await;
        figure("start to all entries in force", started.elapsed());
        figure("CPU, start to all entries in force", process.cpu());

        // What follows from the start (statuses, the first CA) is done within this time.
        sleep(Duration::from_secs(10)).await;
        let idle = idle(&process).await;
        process.print_memory("idle");

        if self.identities == 1 {
            Certificates::new(&control_plane, &client)
                .await
                .measure()
                .await;
            process.print_memory("after certificates");
        }
        self.churn(&client, &operator, &process, idle).await;
        process.print_memory("after pods came and went");
    }

    /// Everything that the operator finds when it starts.
    async fn populate(&self, client: &Client) {
        let mut objects = vec![
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
            json!({
                "apiVersion": "spiffe-operator.io/v1alpha1",
                "kind": "TrustDomain",
                "metadata": {"name": "bench"},
                "spec": {
                    "trustDomain": TRUST_DOMAIN,
                    "watchClassless": true,
                    "authority": {"selfSigned": {}},
                },
            }),
        ];
        objects.extend((0..CLUSTER_SPIFFE_IDS).map(|number| self.cluster_spiffe_id(number)));
        objects.extend((0..NAMESPACES).map(|number| {
            let name = namespace(number);
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        }));
        objects.extend((0..NAMESPACES).map(|number| {
            json!({
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "web", "namespace": namespace(number)},
            })
        }));
        objects.extend((0..=self.pods / PODS_A_NODE).map(|number| {
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {
                "name": node(number),
                "labels": {"kubernetes.io/hostname": node(number)},
            }})
        }));
        for object in objects {
            apply(client, &object).await.expect("the object is taken");
        }
        create_pods(client, "web", self.pods).await;
    }

    fn cluster_spiffe_id(&self, number: usize) -> Json {
        let selector = if self.identities == 1 {
            json!({"matchLabels": {"team": format!("team-{number}")}})
        } else {
            json!({"matchLabels": {"app.kubernetes.io/part-of": "shop"}})
        };
        json!({
            "apiVersion": "spire.spiffe.io/v1alpha1",
            "kind": "ClusterSPIFFEID",
            "metadata": {"name": format!("id-{number}")},
            "spec": {
                "spiffeIDTemplate": format!(
                    "spiffe://{{{{ .TrustDomain }}}}/{number}/ns/{{{{ .PodMeta.Namespace }}}}/sa/{{{{ .PodSpec.ServiceAccountName }}}}"
                ),
                "podSelector": selector,
            },
        })
    }

    /// Waits until every pod has its entries and the ClusterSPIFFEIDs say so.
    async fn all_in_force(&self, client: &Client, operator: &Operator) {
        let wanted = self.pods * self.identities;
        until_entries(operator, wanted).await;
        let objects = Api::<ClusterSPIFFEID>::all(client.clone());
        wait_until("statuses", LONG, || async {
            let list = objects.list(&ListParams::default()).await;
            let list = list.map_err(|error| error.to_string())?;
            let statuses = list.items.iter().filter_map(|it| it.status.as_ref());
            let set: i64 = statuses.map(|status| status.stats.entries_to_set).sum();
            let set = usize::try_from(set).unwrap_or_default();
            (set == wanted).then_some(()).ok_or(set.to_string())
        })
        .await;
    }

    /// Lets pods come and go. What the operator needs at rest is taken off.
    async fn churn(&self, client: &Client, operator: &Operator, process: &Process, idle: f64) {
        // Those that certificates were asked for are there still.
        let asked = if self.identities == 1 {
            SEQUENTIAL + BURST
        } else {
            0
        };
        let entries = self.pods * self.identities + asked;
        let (started, before) = (Instant::now(), process.cpu());
        create_pods(client, "churn", CHURN).await;
        until_entries(operator, entries + CHURN * self.identities).await;
        stream::iter(0..CHURN)
            .for_each_concurrent(CONCURRENCY, |number| async move {
                let pods = Api::<Pod>::namespaced(client.clone(), &namespace(number));
                let now = DeleteParams::default().grace_period(0);
                pods.delete(&format!("churn-{number}"), &now)
                    .await
                    .expect("a deleted pod");
            })
            .await;
        until_entries(operator, entries).await;
        // Statuses are written a moment later.
        sleep(Duration::from_secs(2)).await;
        let at_rest = started.elapsed().mul_f64(idle);
        let cpu = process.cpu().saturating_sub(before).saturating_sub(at_rest);
        let events = u32::try_from(2 * CHURN).expect("a small number");
        println!("pods came and went within {:.1?}", started.elapsed());
        figure("CPU for each pod event, all included", cpu / events);
        let sum = metric(operator, "pod_to_entry_seconds_sum").await;
        let count = metric(operator, "pod_to_entry_seconds_count").await;
        let mean = Duration::from_secs_f64(sum / count.max(1.0));
        figure("news of a pod to its entry in force, mean", mean);
    }
}

fn namespace(number: usize) -> String {
    format!("namespace-{}", number % NAMESPACES)
}

fn node(number: usize) -> String {
    format!("node-{number}")
}

/// Makes pods, all at once. They are as large as pods of a Deployment are, but for their status.
async fn create_pods(client: &Client, prefix: &str, count: usize) {
    stream::iter(0..count)
        .for_each_concurrent(CONCURRENCY, |number| async move {
            let name = format!("{prefix}-{number}");
            let body = pod(&name, number, &node(number / PODS_A_NODE)).to_string();
            let path = format!("/api/v1/namespaces/{}/pods", namespace(number));
            let request = Request::new(path)
                .create(&PostParams::default(), body.into_bytes())
                .expect("a request");
            client.request_text(request).await.expect("a pod");
        })
        .await;
}

fn pod(name: &str, number: usize, node: &str) -> Json {
    let container = |name: &str| {
        let env: Vec<_> = (0..10)
            .map(|number| json!({"name": format!("SETTING_{number}"), "value": "a value of some length"}))
            .collect();
        let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10});
        json!({
            "name": name,
            "image": "registry.example.org/shop/web:1.2.3",
            "args": ["--verbose", "--listen=:8080"],
            "env": env,
            "ports": [{"containerPort": 8080, "name": "http"}],
            "readinessProbe": probe,
            "livenessProbe": probe,
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
            "volumeMounts": [{"name": "identity", "mountPath": "/var/run/spiffe", "readOnly": true}],
        })
    };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/name": format!("app-{}", number / 10),
                "app.kubernetes.io/part-of": "shop",
                "pod-template-hash": format!("{:x}", number / 10),
                "team": format!("team-{}", number % CLUSTER_SPIFFE_IDS),
            },
            "annotations": {"example.org/checksum": "0123456789abcdef0123456789abcdef"},
        },
        "spec": {
            "nodeName": node,
            "serviceAccountName": "web",
            "containers": [container("main"), container("sidecar")],
            "volumes": [{
                "name": "identity",
                "projected": {"sources": [
                    {"podCertificate": {
                        "signerName": SIGNER,
                        "keyType": "ECDSAP256",
                        "credentialBundlePath": "bundle.pem",
                    }},
                    {"clusterTrustBundle": {
                        "signerName": SIGNER,
                        "labelSelector": {},
                        "path": "ca.pem",
                    }},
                ]},
            }],
        },
    })
}

/// Asks for certificates as kubelets do, and takes the time.
struct Certificates {
    client: Client,
    kubelet: Kubelet,
    node: String,
    accounts: BTreeMap<String, ServiceAccount>,
    /// When each request was seen to be issued.
    issued: watch::Receiver<BTreeMap<String, Instant>>,
}

/// Times from the pod's creation, and from the request's, to the certificate.
struct Times {
    pod: Duration,
    request: Duration,
}

impl Certificates {
    async fn new(control_plane: &ControlPlane, client: &Client) -> Self {
        let nodes = Api::<Node>::all(client.clone());
        let node = nodes.get(&node(0)).await.expect("a node");
        let mut accounts = BTreeMap::new();
        for number in 0..NAMESPACES {
            let api = Api::<ServiceAccount>::namespaced(client.clone(), &namespace(number));
            accounts.insert(namespace(number), api.get("web").await.expect("an account"));
        }
        let (sender, issued) = watch::channel(BTreeMap::new());
        let requests = Api::<PodCertificateRequest>::all(client.clone());
        tokio::spawn(async move {
            let mut events = watcher(requests, watcher::Config::default()).boxed();
            while let Some(event) = events.next().await {
                if let Ok(watcher::Event::Apply(request)) = event
                    && is_issued(&request)
                {
                    let now = Instant::now();
                    sender.send_modify(|issued| {
                        issued.entry(request.name_any()).or_insert(now);
                    });
                }
            }
        });
        Self {
            client: client.clone(),
            kubelet: Kubelet::new(control_plane, &node).await,
            node: node.name_any(),
            accounts,
            issued,
        }
    }

    async fn measure(&self) {
        let mut times = Vec::new();
        for number in 0..SEQUENTIAL {
            times.push(self.ask(&format!("single-{number}"), number).await);
        }
        print_times("one after the other", &times);
        let asked = (0..BURST)
            .map(|number| async move { self.ask(&format!("burst-{number}"), number).await });
        print_times(
            &format!("{BURST} at once"),
            &futures::future::join_all(asked).await,
        );
    }

    /// Makes a pod, asks for its certificate at once, and waits until the certificate is seen.
    async fn ask(&self, name: &str, number: usize) -> Times {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        let csr = parameters.serialize_request(&key).expect("a request");
        let csr = csr.der().to_vec();
        let account = &self.accounts[&namespace(number)];
        let object = serde_json::from_value(pod(name, number, &self.node)).expect("a pod");
        let pods = Api::<Pod>::namespaced(self.client.clone(), &namespace(number));

        let started = Instant::now();
        let created = pods.create(&PostParams::default(), &object).await;
        let created = created.expect("a pod");
        // The API server takes a moment to know the pod that it has just made.
        let (asked, request) = wait_until("the request to be taken", support::SOON, || async {
            let asked = Instant::now();
            let kubelet = &self.kubelet;
            let request = kubelet.request_with_csr(SIGNER, &created, account, &[], csr.clone());
            let request = request.await.map_err(|error| error.to_string())?;
            Ok((asked, request.name_any()))
        })
        .await;
        let mut issued = self.issued.clone();
        let seen = *issued
            .wait_for(|issued| issued.contains_key(&request))
            .await
            .expect("the watch runs")
            .get(&request)
            .expect("it was waited for");
        Times {
            pod: seen - started,
            request: seen - asked,
        }
    }
}

fn is_issued(request: &PodCertificateRequest) -> bool {
    let conditions = request
        .status
        .as_ref()
        .and_then(|it| it.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Issued")
}

fn print_times(how: &str, times: &[Times]) {
    let mut from_request: Vec<_> = times.iter().map(|times| times.request).collect();
    let mut from_pod: Vec<_> = times.iter().map(|times| times.pod).collect();
    from_request.sort();
    from_pod.sort();
    for (percent, name) in [(50, "p50"), (99, "p99")] {
        let at = (times.len() * percent / 100).min(times.len() - 1);
        figure(
            &format!("request to issued, {how}, {name}"),
            from_request[at],
        );
        figure(
            &format!("pod created to issued, {how}, {name}"),
            from_pod[at],
        );
    }
}

/// The operator's process, as the kernel accounts for it.
struct Process {
    id: String,
    /// Length of the kernel's unit of CPU time.
    tick: Duration,
}

impl Process {
    fn of(operator: &Operator) -> Self {
        let output = Command::new("getconf")
            .arg("CLK_TCK")
            .output()
            .expect("getconf");
        let text = String::from_utf8_lossy(&output.stdout);
        let ticks: u32 = text.trim().parse().expect("a number");
        Self {
            id: operator.process_id().to_owned(),
            tick: Duration::from_secs(1) / ticks,
        }
    }

    /// CPU time used so far, in user and kernel mode.
    fn cpu(&self) -> Duration {
        let stat = self.file("stat");
        // The name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').expect("the form of stat");
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u32>().expect("a number");
        self.tick * (ticks(11) + ticks(12))
    }

    fn print_memory(&self, when: &str) {
        let status = self.file("status");
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next());
            kib.and_then(|kib| kib.parse::<f64>().ok())
                .unwrap_or_default()
                * 1024.0
                / 1e6
        };
        println!("memory (RSS), {when}: {:.1} MB", value("VmRSS:"));
        println!("memory (highest RSS), {when}: {:.1} MB", value("VmHWM:"));
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.id)).expect("the operator runs")
    }
}

/// CPU of the operator at rest, as a part of one core.
async fn idle(process: &Process) -> f64 {
    let (started, before) = (Instant::now(), process.cpu());
    sleep(Duration::from_mins(1)).await;
    let cpu = process.cpu().saturating_sub(before);
    let share = cpu.as_secs_f64() / started.elapsed().as_secs_f64();
    println!(
        "CPU when idle: {:.3} % of a core ({cpu:?} in a minute)",
        share * 100.0
    );
    share
}

async fn until_ready(operator: &Operator) {
    while !get(operator, "/readyz").await.starts_with("HTTP/1.1 200") {
        sleep(Duration::from_millis(5)).await;
    }
}

async fn until_entries(operator: &Operator, wanted: usize) {
    wait_until("all entries", LONG, || async {
        let name = format!("entries{{trust_domain=\"{TRUST_DOMAIN}\"}}");
        let entries = metric(operator, &name).await.to_string();
        (entries == wanted.to_string()).then_some(()).ok_or(entries)
    })
    .await;
}

/// A metric of the operator; 0 where it is not there yet.
async fn metric(operator: &Operator, name: &str) -> f64 {
    let metrics = get(operator, "/metrics").await;
    let name = format!("spiffe_operator_{name} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
    value
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or_default()
}

async fn get(operator: &Operator, path: &str) -> String {
    let mut connection = TcpStream::connect(operator.address())
        .await
        .expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .await
        .expect("it listens");
    let mut answer = String::new();
    connection
        .read_to_string(&mut answer)
        .await
        .expect("an answer");
    answer
}

fn figure(name: &str, time: Duration) {
    println!("{name}: {:.2} ms", time.as_secs_f64() * 1e3);
}
