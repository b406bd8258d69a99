//! What the registry costs: one pod event, a first render, memory for each pod.
//!
//! `cargo bench --bench registry`; `-- pod` or `-- initial` picks. Times are CPU times; memory is what
//! the resident set grows by, printed once before the timings.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement, not the program"
)]

#[path = "support/cpu_time.rs"]
mod cpu_time;

use std::{hint::black_box, sync::Arc};

use cpu_time::CpuTime;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::{Value as Json, json};
use spiffe_operator::registration::{FieldSet, Interner, NodeFacts, PodFacts, Registry, Settings};

const CLUSTER_SPIFFE_IDS: usize = 10;
const PODS_A_NODE: usize = 100;
const NAMESPACES: usize = 100;

/// Pods, nodes and ten ClusterSPIFFEIDs that all select every pod.
struct Cluster {
    pods: Vec<Arc<PodFacts>>,
    nodes: Vec<Arc<NodeFacts>>,
}

impl Cluster {
    fn new(pods: usize) -> Self {
        let mut interner = Interner::default();
        let nodes = (0..=pods / PODS_A_NODE)
            .filter_map(|number| {
                let node = from_json(json!({"metadata": {
                    "name": format!("node-{number}"),
                    "uid": uid(1, number),
                    "labels": {"kubernetes.io/hostname": format!("node-{number}")},
                }}));
                NodeFacts::from_node(&node, &mut interner)
            })
            .collect();
        let pods = (0..pods)
            .filter_map(|number| pod(number, false, &mut interner))
            .collect();
        Self { pods, nodes }
    }

    /// A registry that has seen everything but the pods.
    fn registry(&self) -> Registry {
        let spec = json!({"trustDomain": "example.org", "authority": {"selfSigned": {}}});
        let settings = Settings::parse(&from_json(spec)).expect("the settings parse");
        let mut registry = Registry::new(settings);
        for number in 0..NAMESPACES {
            let namespace = json!({"metadata": {"name": format!("namespace-{number}")}});
            registry.apply_namespace(&from_json(namespace));
        }
        for node in &self.nodes {
            registry.apply_node(node.clone());
        }
        for number in 0..CLUSTER_SPIFFE_IDS {
            registry.apply_cluster_spiffe_id(&from_json(cluster_spiffe_id(number)), None);
        }
        registry
    }

    fn full_registry(&self) -> Registry {
        let mut registry = self.registry();
        for pod in &self.pods {
            black_box(registry.apply_pod(pod.clone()));
        }
        assert_eq!(registry.entry_count(), self.pods.len() * CLUSTER_SPIFFE_IDS);
        registry
    }
}

fn cluster_spiffe_id(number: usize) -> Json {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterSPIFFEID",
        "metadata": {
            "name": format!("id-{number}"),
            "uid": uid(2, number),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "spiffeIDTemplate": format!(
                "spiffe://{{{{ .TrustDomain }}}}/{number}/ns/{{{{ .PodMeta.Namespace }}}}/sa/{{{{ .PodSpec.ServiceAccountName }}}}"
            ),
            "podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "shop"}},
        },
    })
}

fn pod(number: usize, is_changed: bool, interner: &mut Interner) -> Option<Arc<PodFacts>> {
    let pod = from_json(json!({
        "metadata": {
            "name": format!("web-{}-{number}", number / 10),
            "namespace": format!("namespace-{}", number % NAMESPACES),
            "uid": uid(3, number),
            "labels": {
                "app.kubernetes.io/name": format!("app-{}", number / 10),
                "app.kubernetes.io/part-of": "shop",
                "pod-template-hash": format!("hash-{}", number / 10),
                "changed": is_changed.to_string(),
            },
        },
        "spec": {
            "containers": [],
            "nodeName": format!("node-{}", number / PODS_A_NODE),
            "serviceAccountName": if is_changed { "changed" } else { "web" },
        },
    }));
    PodFacts::from_pod(&pod, &FieldSet::default(), interner)
}

fn uid(kind: usize, number: usize) -> String {
    format!(
        "{:08x}-0000-4000-8{kind:03}-{number:012x}",
        number.wrapping_mul(2_654_435_761)
    )
}

fn from_json<T: serde::de::DeserializeOwned>(json: Json) -> T {
    serde_json::from_value(json).expect("the object is well-formed")
}

/// Bytes in the resident set of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * 4096
}

fn print_memory() {
    let pods = 100_000;
    let before = resident();
    let cluster = Cluster::new(pods);
    let facts = resident();
    let mut registry = cluster.registry();
    for number in 1..CLUSTER_SPIFFE_IDS {
        registry.delete_cluster_spiffe_id(&format!("id-{number}"));
    }
    for pod in &cluster.pods {
        black_box(registry.apply_pod(pod.clone()));
    }
    let one = resident();
    println!(
        "memory a pod: {} bytes of facts, {} bytes of registry with one entry",
        (facts - before) / pods,
        (one - facts) / pods
    );
    drop(registry);
}

fn pod_events(criterion: &mut Criterion<CpuTime>) {
    print_memory();
    for pods in [10_000, 100_000] {
        let cluster = Cluster::new(pods);
        let mut registry = cluster.full_registry();
        let mut interner = Interner::default();
        let versions: Vec<_> = (0..pods)
            .step_by(97)
            .filter_map(|number| {
                Some([
                    pod(number, true, &mut interner)?,
                    pod(number, false, &mut interner)?,
                ])
            })
            .collect();
        let mut events = versions.iter().flatten().cycle();
        criterion.bench_function(&format!("pod changes, {pods} pods"), |bencher| {
            bencher.iter(|| {
                let changes = events.next().map(|pod| registry.apply_pod(pod.clone()));
                black_box(changes)
            });
        });
        let mut unchanged = cluster.pods.iter().step_by(97).cycle();
        criterion.bench_function(&format!("pod status changes, {pods} pods"), |bencher| {
            bencher.iter(|| {
                let changes = unchanged.next().map(|pod| registry.apply_pod(pod.clone()));
                black_box(changes)
            });
        });
    }
}

fn initial_render(criterion: &mut Criterion<CpuTime>) {
    let cluster = Cluster::new(100_000);
    let mut group = criterion.benchmark_group("initial");
    group.sample_size(10);
    group.bench_function("initial render, 100000 pods x 10 objects", |bencher| {
        bencher.iter_batched(|| (), |()| cluster.full_registry(), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = cpu_time::criterion();
    targets = pod_events, initial_render
}
criterion_main!(benches);
