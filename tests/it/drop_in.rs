//! In the place of spire-controller-manager: what `kubectl get` shows of its kinds, its own CRDs
//! with the operator on them, and objects such as those of its demonstration.

use axum::http::Request;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use spiffe_operator::api::{ClusterSPIFFEID, ClusterStaticEntry};

use crate::support::{
    ControlPlane, Options, SOON, World, apply, condition, control_plane, documents, install,
    merge_patch, pod, wait_until,
};

const GROUP: &str = "/apis/spire.spiffe.io/v1alpha1";

#[tokio::test]
async fn kubectl_finds_the_kinds_by_their_short_names_and_category() {
    let client = control_plane().await.install_crds().await;
    let found = client.list_api_group_resources("spire.spiffe.io/v1alpha1");
    let found = found.await.unwrap().resources;
    for (plural, short) in [
        ("clusterspiffeids", "csid"),
        ("clusterstaticentries", "cse"),
        ("clusterfederatedtrustdomains", "cftd"),
    ] {
        let resource = found.iter().find(|it| it.name == plural).unwrap();
        assert_eq!(resource.short_names, Some(vec![short.to_owned()]));
        assert_eq!(resource.categories, Some(vec!["spiffe".to_owned()]));
    }
}

#[tokio::test]
async fn kubectl_get_shows_what_was_made_of_an_object() {
    let world = World::new().await;
    let id = world
        .apply_cluster_spiffe_id(
            "none",
            json!({ "podSelector": { "matchLabels": { "a": "b" } } }),
        )
        .await;
    condition::<ClusterSPIFFEID>(&world.client, &id, "Ready", "True").await;
    let row = row(&world.client, &format!("clusterspiffeids/{id}")).await;
    let shown = [
        ("Ready", json!("True")),
        ("Pods", json!(0)),
        ("Entries", json!(0)),
        ("Masked", json!(0)),
        ("Failures", json!(0)),
        ("Refused", json!(0)),
        ("Class", json!(world.class)),
    ];
    for (column, cell) in shown {
        assert_eq!(row[column], cell, "{column}: {row}");
    }

    let entry = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterStaticEntry",
        "metadata": { "name": format!("{}-entry", world.class) },
        "spec": {
            "className": world.class,
            "spiffeID": format!("spiffe://{}/db", world.trust_domain),
            "parentID": format!("spiffe://{}/node", world.trust_domain),
            "selectors": ["unix:uid:1"],
        },
    });
    let name = apply(&world.client, &entry).await.unwrap().name_any();
    condition::<ClusterStaticEntry>(&world.client, &name, "Ready", "True").await;
    let row = self::row(&world.client, &format!("clusterstaticentries/{name}")).await;
    for (column, cell) in [
        ("Ready", json!("True")),
        ("SPIFFE ID", entry["spec"]["spiffeID"].clone()),
        ("Set", json!(true)),
        ("Masked", json!(false)),
    ] {
        assert_eq!(row[column], cell, "{column}: {row}");
    }

    let partner = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterFederatedTrustDomain",
        "metadata": { "name": format!("{}-partner", world.class) },
        "spec": {
            "trustDomain": "partner.example",
            "bundleEndpointURL": "https://partner.example/bundle",
            "bundleEndpointProfile": { "type": "https_web" },
        },
    });
    let name = apply(&world.client, &partner).await.unwrap().name_any();
    let row = self::row(
        &world.client,
        &format!("clusterfederatedtrustdomains/{name}"),
    )
    .await;
    assert_eq!(row["Trust Domain"], json!("partner.example"), "{row}");
    assert_eq!(
        row["Endpoint URL"],
        json!("https://partner.example/bundle"),
        "{row}"
    );
}

#[tokio::test]
async fn on_upstreams_crds_pods_are_served_and_pruned_statuses_are_not_written_again() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    install(
        &world.client,
        &documents("tests/it/data/upstream-crds.yaml"),
    )
    .await;
    let operator = World::operator(&own).await;
    world.apply_trust_domain(json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    let template = "spiffe://{{ .TrustDomain }}/{{ .PodMeta.Labels.turn }}";
    let changes = json!({ "spiffeIDTemplate": template });
    let name = world.apply_cluster_spiffe_id("web", changes).await;
    let web = world.pod("web", &[("app", "web"), ("turn", "0")]).await;
    let ids = Api::<ClusterSPIFFEID>::all(world.client.clone());
    let counted = wait_until("the counts", SOON, || async {
        let object = ids.get(&name).await.map_err(|error| error.to_string())?;
        let stats = object.status.clone().unwrap_or_default().stats;
        let is_right = (stats.pods_selected, stats.entries_to_set) == (1, 1);
        is_right
            .then_some(object)
            .ok_or_else(|| format!("{stats:?}"))
    });
    let counted = counted.await;
    let status = counted.status.clone().unwrap();
    assert!(status.conditions.is_empty(), "their schema prunes them");
    world.verified_chain(&world.answer(&web, &[]).await).await;

    let pods =
        Api::<k8s_openapi::api::core::v1::Pod>::namespaced(world.client.clone(), &world.namespace);
    // The reconcile that follows the write above may be under way.
    operator.reconciles("TrustDomain", 1).await;
    let before = status_writes(&world.client).await;
    for turn in 1..=3 {
        let labels = json!({ "metadata": { "labels": { "turn": turn.to_string() } } });
        let reconciled = operator.metric(RECONCILES).await.unwrap_or_default();
        merge_patch(&pods, "web", labels).await;
        wait_until("a further reconcile", SOON, || async {
            let now = operator.metric(RECONCILES).await.unwrap_or_default();
            (now > reconciled).then_some(()).ok_or(now.to_string())
        })
        .await;
    }
    assert_eq!(status_writes(&world.client).await, before);
    let after = ids.get(&name).await.unwrap();
    assert_eq!(after.resource_version(), counted.resource_version());
}

#[tokio::test]
async fn objects_such_as_those_of_upstreams_demonstration_work() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let _operator = World::operator(&own).await;
    let classless = json!({ "trustDomain": "cluster1.demo", "watchClassless": true });
    world.apply_trust_domain(classless).await;
    for object in documents::<Value>("tests/it/data/upstream-demo.yaml") {
        apply(&world.client, &object).await.unwrap();
    }
    condition::<ClusterSPIFFEID>(&world.client, "greeter-server", "Ready", "True").await;
    condition::<ClusterStaticEntry>(&world.client, "static-entry", "Ready", "True").await;
    let spec = crate::support::certificate_pod("spiffe-operator.io/cluster1.demo", "workload");
    let labels = [("spire.spiffe.io/spiffeid", "greeter-server")];
    let server = pod(
        &world.client,
        &world.namespace,
        "greeter-server",
        &world.node.name_any(),
        &labels,
        spec,
    )
    .await;
    let world = World {
        trust_domain: "cluster1.demo".into(),
        ..world
    };
    let request = world.answer(&server, &[]).await;
    world.verified_chain(&request).await;
    let note = world
        .event(&world.namespace, &server.uid().unwrap(), "IdentityIssued")
        .await;
    assert!(
        note.contains("spiffe://cluster1.demo/greeter-server"),
        "{note}"
    );
}

const RECONCILES: &str =
    "spiffe_operator_reconcile_duration_seconds_count{kind=\"ClusterSPIFFEID\"}";

/// How often statuses of ClusterSPIFFEIDs were written, as the API server counts.
async fn status_writes(client: &Client) -> u64 {
    let request = Request::get("/metrics").body(Vec::new()).unwrap();
    let metrics = client.request_text(request).await.unwrap();
    let of_statuses = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_total{")
            && line.contains("resource=\"clusterspiffeids\"")
            && line.contains("subresource=\"status\"")
    });
    let counts = of_statuses.map(|line| {
        let count = line.rsplit(' ').next().unwrap();
        count.parse::<u64>().unwrap()
    });
    counts.sum()
}

/// What `kubectl get -o wide` shows of an object: cells by the names of their columns.
async fn row(client: &Client, path: &str) -> Value {
    let request = Request::get(format!("{GROUP}/{path}"))
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = client.request(request).await.unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let cells = table["rows"][0]["cells"].as_array().unwrap().iter();
    let named = columns
        .zip(cells)
        .map(|(column, cell)| (column["name"].as_str().unwrap().to_owned(), cell.clone()));
    named.collect::<serde_json::Map<_, _>>().into()
}
