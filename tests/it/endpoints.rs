//! What the operator shows of itself: health, metrics and logs.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use spiffe_operator::api::{ClusterSPIFFEID, custom_resource_definitions};
use spiffe_operator::authority::DOCUMENT;

use crate::support::{
    ControlPlane, Operator, Options, SOON, World, apply, condition, install, shared_operator,
    wait_until,
};

#[tokio::test]
async fn readiness_names_what_is_missing_until_it_is_there() {
    let own = ControlPlane::start(Options::default()).await;
    let operator = World::operator(&own).await;
    let kinds = "waiting for: ClusterSPIFFEIDs, ClusterStaticEntries, NestedClusters, \
                 RegistrationEntries, trust domains";
    wait_until("only the kinds to be missing", SOON, || async {
        let (status, body) = operator.http("GET", "/readyz", "").await;
        assert_eq!(status, 503);
        (body.trim() == kinds).then_some(()).ok_or(body)
    })
    .await;
    assert_eq!(operator.http("GET", "/livez", "").await.0, 200);
    own.install_crds().await;
    operator.ready().await;
}

#[tokio::test]
async fn objects_that_cannot_be_read_leave_all_others_served() {
    let own = ControlPlane::start(Options::default()).await;
    let client = own.client().await;
    // As an older or a foreign schema would let them through.
    let mut loose = custom_resource_definitions();
    for definition in &mut loose {
        for version in &mut definition.spec.versions {
            let schema = json!({ "openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }});
            version.schema = Some(serde_json::from_value(schema).unwrap());
        }
    }
    install(&client, &loose).await;
    for (group, kind) in [
        ("spiffe-operator.io", "TrustDomain"),
        ("spire.spiffe.io", "ClusterSPIFFEID"),
        ("spire.spiffe.io", "ClusterStaticEntry"),
    ] {
        apply(
            &client,
            &json!({
                "apiVersion": format!("{group}/v1alpha1"),
                "kind": kind,
                "metadata": { "name": "unreadable" },
                "spec": { "trustDomain": 7, "className": ["x"], "spiffeID": {}, "podSelector": 3 },
            }),
        )
        .await
        .unwrap();
    }
    let operator = World::operator(&own).await;
    operator.ready().await;
    own.install_crds().await;
    let world = World::without_trust_domain(&own).await;
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.issue().await;
    assert_eq!(operator.http("GET", "/readyz", "").await.0, 200);
    let named = operator.log().matches("\"unreadable\"").count();
    assert!((3..50).contains(&named), "named {named} times");
}

#[tokio::test]
async fn metrics_are_open_metrics_and_cover_the_main_job() {
    let world = World::new().await;
    let id = world.apply_cluster_spiffe_id("web", json!({})).await;
    world.issue().await;
    condition::<ClusterSPIFFEID>(&world.client, &id, "Ready", "True").await;
    let operator = shared_operator().await;
    let td = &world.trust_domain;
    let of_domain = format!("{{trust_domain=\"{td}\"}}");
    let of_object = format!("{{trust_domain=\"{td}\",kind=\"ClusterSPIFFEID\",name=\"{id}\"}}");
    let expected = [
        format!("spiffe_operator_entries{of_domain} 1"),
        format!("spiffe_operator_object_entries{of_object} 1"),
        format!("spiffe_operator_render_failures{of_object} 0"),
        format!("spiffe_operator_masked_entries{of_object} 0"),
        format!(
            "spiffe_operator_pod_certificates_total{{trust_domain=\"{td}\",result=\"issued\"}} 1"
        ),
        format!("spiffe_operator_ca_expiration_timestamp_seconds{of_domain} "),
        format!("spiffe_operator_bundle_expiration_timestamp_seconds{of_domain} "),
        "spiffe_operator_leader 1".to_owned(),
        "spiffe_operator_reconcile_duration_seconds_bucket{".to_owned(),
        "spiffe_operator_sign_duration_seconds_count ".to_owned(),
        "spiffe_operator_pod_to_entry_seconds_count ".to_owned(),
        "spiffe_operator_request_to_issued_seconds_count ".to_owned(),
    ];
    let text = wait_until("all metrics", SOON, || async {
        let (_, text) = operator.http("GET", "/metrics", "").await;
        let missing: Vec<_> = expected
            .iter()
            .filter(|line| !text.contains(*line))
            .collect();
        if missing.is_empty() {
            Ok(text)
        } else {
            Err(format!("{missing:#?} not in {text}"))
        }
    })
    .await;
    assert_is_open_metrics(&text);
}

/// Every sample belongs to a family that was declared once, each family is in one piece, and the
/// text ends as it must.
fn assert_is_open_metrics(text: &str) {
    assert!(text.ends_with("# EOF\n"), "no end");
    let mut families = BTreeSet::new();
    let mut current = ("", "");
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            current = declared.split_once(' ').unwrap();
            assert!(
                families.insert(current.0),
                "{} is declared twice",
                current.0
            );
        } else if !line.starts_with("# ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = sample.split('{').next().unwrap();
            let suffix = name
                .strip_prefix(current.0)
                .unwrap_or_else(|| panic!("{line}"));
            let allowed: &[&str] = match current.1 {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_count", "_sum"],
                kind => panic!("{kind}"),
            };
            assert!(allowed.contains(&suffix), "{line}");
        }
    }
    assert!(families.len() >= 12, "{families:?}");
}

#[tokio::test]
async fn the_log_level_changes_while_the_operator_runs() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let operator = World::operator(&own).await;
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.issue().await;
    assert!(!operator.log().contains("\"level\":\"DEBUG\""));
    let (status, body) = operator.http("PUT", "/loglevel", "nonsense").await;
    assert_eq!(status, 400);
    assert!(body.contains("\"nonsense\" is no log level"), "{body}");
    let (status, _) = operator
        .http("PUT", "/loglevel", "spiffe_operator=debug")
        .await;
    assert_eq!(status, 200);
    world.issue().await;
    wait_until("debug lines", SOON, || async {
        let log = operator.log();
        log.contains("\"level\":\"DEBUG\"").then_some(()).ok_or(log)
    })
    .await;
    for line in operator.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "{field} of {line}");
        }
    }
}

#[tokio::test]
async fn logs_may_be_text_for_people() {
    let own = ControlPlane::start(Options::default()).await;
    own.install_crds().await;
    own.ensure_namespace("spiffe-system").await;
    let operator = Operator::start(&own, "spiffe-system", &["--log-format", "text"]).await;
    operator.ready().await;
    assert!(operator.log().contains(" INFO "), "{}", operator.log());
    assert!(!operator.log().contains('{'), "{}", operator.log());
}

#[tokio::test]
async fn keys_are_in_no_log_no_event_and_no_status() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    own.ensure_namespace("spiffe-system").await;
    let operator = Operator::start(&own, "spiffe-system", &["--log", "trace"]).await;
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    world.issue().await;
    let secrets = Api::<Secret>::namespaced(world.client.clone(), "spiffe-system");
    let name = format!("{}.authority", world.class);
    let data = secrets.get(&name).await.unwrap().data.unwrap();
    let key = data.iter().find(|(name, _)| *name != DOCUMENT).unwrap().1;
    let pem = String::from_utf8(key.0.clone()).unwrap();
    // A part of the key as it is in the PEM, and as it is in the Secret's JSON.
    let in_pem = pem.lines().nth(1).unwrap();
    let in_json = serde_json::to_string(key).unwrap();
    let needles = [
        &in_pem[in_pem.len() - 24..],
        &in_json[40..80],
        "PRIVATE KEY",
    ];

    operator.signal("TERM");
    operator.ended(SOON).await;
    let log = operator.log();
    assert!(log.contains("\"level\":\"TRACE\""), "the log is a full one");
    let events = Api::<Event>::all(world.client.clone());
    let events = events.list(&ListParams::default()).await.unwrap();
    let told = serde_json::to_string(&events.items).unwrap();
    assert!(told.contains("CAActivated"), "{told}");
    let status = serde_json::to_string(&world.read_trust_domain().await).unwrap();
    for needle in needles {
        for (place, text) in [("log", &log), ("events", &told), ("status", &status)] {
            assert!(!text.contains(needle), "a key in the {place}");
        }
    }
}
