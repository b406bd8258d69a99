//! The API server is away, hangs, answers with errors, or drops its watches: the operator lives on,
//! keeps what it has, and catches up.

use std::time::Duration;

use k8s_openapi::api::certificates::v1::PodCertificateRequest;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    ControlPlane, Fault, FaultyApiServer, Operator, Options, World, unique, wait_until,
};

/// The watches come back with the pause that errors cause, which is half a minute at most.
const CAUGHT_UP: Duration = Duration::from_secs(90);

/// A world of its own that issues.
async fn world() -> (ControlPlane, World, Operator) {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    let operator = World::operator(&own).await;
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    world.issue().await;
    (own, world, operator)
}

/// Watches the operator for as long as something is away: it lives, stays ready and is not busy.
async fn assert_calm(operator: &Operator, period: Duration) {
    let (started, cpu, lines) = (
        Instant::now(),
        operator.cpu_time(),
        operator.log().lines().count(),
    );
    // It is looked at for a period of time: what must not happen has no condition to wait for.
    wait_until("the end of the period", period * 2, || async {
        for path in ["/livez", "/readyz"] {
            let (status, body) = operator.http("GET", path, "").await;
            assert_eq!(status, 200, "{path}: {body}");
        }
        let elapsed = started.elapsed();
        (elapsed >= period)
            .then_some(())
            .ok_or(format!("{elapsed:?}"))
    })
    .await;
    let cpu = operator.cpu_time().saturating_sub(cpu);
    assert!(cpu < period / 10, "{cpu:?} of CPU time in {period:?}");
    let lines = operator.log().lines().count() - lines;
    assert!(lines < 200, "{lines} log lines in {period:?}");
}

async fn entries(operator: &Operator, world: &World) -> Option<f64> {
    let domain = &world.trust_domain;
    let name = format!("spiffe_operator_entries{{trust_domain=\"{domain}\"}}");
    operator.metric(&name).await
}

/// Waits for the answer to a request for longer than a test usually does.
async fn answer(world: &World, request: &PodCertificateRequest) -> PodCertificateRequest {
    world.kubelet.late_answer(request, CAUGHT_UP).await
}

async fn is_led_again(operator: &Operator) {
    wait_until("the operator to lead again", CAUGHT_UP, || async {
        let leads = operator.metric("spiffe_operator_leader").await == Some(1.0);
        leads.then_some(()).ok_or_else(|| "it does not".to_owned())
    })
    .await;
}

#[tokio::test]
async fn an_api_server_that_is_away_costs_no_identity_and_no_work() {
    let (own, world, operator) = world().await;
    let kept = world.pod("kept", &[("app", "web")]).await;
    let gone = world.pod("gone", &[("app", "web")]).await;
    wait_until("three entries", CAUGHT_UP, || async {
        let entries = entries(&operator, &world).await;
        (entries == Some(3.0))
            .then_some(())
            .ok_or(format!("{entries:?}"))
    })
    .await;
    own.command("stop apiserver").await;
    assert_calm(&operator, Duration::from_secs(15)).await;
    assert_eq!(entries(&operator, &world).await, Some(3.0));
    let errors = "spiffe_operator_watch_errors_total{kind=\"Pod\"}";
    assert!(operator.metric(errors).await.unwrap() >= 1.0);

    own.command("start apiserver").await;
    // Before the operator's watches are back.
    let pods = Api::<Pod>::namespaced(world.client.clone(), &world.namespace);
    let now = DeleteParams::default().grace_period(0);
    pods.delete(&gone.name_any(), &now).await.unwrap();
    let request = world.request(&kept, &[]).await;
    let late = world.pod("late", &[("app", "late")]).await;
    let late_request = world.request(&late, &[]).await;
    let selector = json!({ "podSelector": { "matchLabels": { "app": "late" } } });
    world.apply_cluster_spiffe_id("late", selector).await;
    world.verified_chain(&answer(&world, &request).await).await;
    world
        .verified_chain(&answer(&world, &late_request).await)
        .await;
    wait_until(
        "the entry of the pod that went to go",
        CAUGHT_UP,
        || async {
            let entries = entries(&operator, &world).await;
            (entries == Some(3.0))
                .then_some(())
                .ok_or(format!("{entries:?}"))
        },
    )
    .await;
    let restarts = "spiffe_operator_watch_restarts_total{kind=\"Pod\"}";
    assert!(operator.metric(restarts).await.unwrap() >= 1.0);
    is_led_again(&operator).await;
}

#[tokio::test]
async fn an_api_server_that_hangs_ends_the_leadership_in_time_and_nothing_else() {
    let (own, world, operator) = world().await;
    let pod = world.pod("web", &[("app", "web")]).await;
    operator.leads().await;
    own.command("pause apiserver").await;
    // A standby takes over 15 s after the last renewal that it saw.
    wait_until(
        "the operator to step down",
        Duration::from_secs(14),
        || async {
            let leads = operator.metric("spiffe_operator_leader").await == Some(1.0);
            (!leads).then_some(()).ok_or_else(|| "it leads".to_owned())
        },
    )
    .await;
    assert_calm(&operator, Duration::from_secs(10)).await;
    own.command("resume apiserver").await;
    let request = world.request(&pod, &[]).await;
    world.verified_chain(&answer(&world, &request).await).await;
    is_led_again(&operator).await;
}

#[tokio::test]
async fn an_operator_told_to_stop_while_the_api_server_hangs_ends_in_time() {
    let (own, _world, operator) = world().await;
    own.command("pause apiserver").await;
    operator.signal("TERM");
    let status = operator.ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
    own.command("resume apiserver").await;
}

#[tokio::test]
async fn an_operator_that_starts_before_the_api_server_serves_as_soon_as_it_is_there() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    own.ensure_namespace("spiffe-system").await;
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    own.command("stop apiserver").await;
    let operator = Operator::start(&own, "spiffe-system", &[]).await;
    assert_eq!(operator.http("GET", "/livez", "").await.0, 200);
    let (status, body) = operator.http("GET", "/readyz", "").await;
    assert_eq!(status, 503);
    assert!(
        body.contains("pods") && body.contains("trust domains"),
        "{body}"
    );
    own.command("start apiserver").await;
    let pod = world.pod("web", &[("app", "web")]).await;
    let request = world.request(&pod, &[]).await;
    world.verified_chain(&answer(&world, &request).await).await;
    assert_eq!(operator.http("GET", "/readyz", "").await.0, 200);
}

#[tokio::test]
async fn errors_of_the_api_server_cost_no_identity_and_are_not_answered_by_more_requests() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    own.ensure_namespace("spiffe-system").await;
    let proxy = FaultyApiServer::before(&own).await;
    let operator = Operator::start_as(proxy.kubeconfig(), "spiffe-system", &[]).await;
    world.apply_trust_domain(json!({})).await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    world.trust_domain_condition("Ready", "True").await;
    world.issue().await;
    let mut pods = 1.0;
    for fault in [
        Fault::Status(429),
        Fault::Status(500),
        Fault::Status(503),
        Fault::WatchesExpire,
        Fault::WatchesEnd,
        Fault::Slow(Duration::from_secs(2)),
    ] {
        proxy.fail(fault);
        let before = proxy.requests();
        let period = Duration::from_secs(8);
        assert_calm(&operator, period).await;
        // A dozen watches, a Lease that is renewed every two seconds, and reconciles.
        let requests = proxy.requests() - before;
        assert!(
            requests < 400,
            "{requests} requests in {period:?} of {fault:?}"
        );
        assert_eq!(entries(&operator, &world).await, Some(pods), "{fault:?}");
        let pod = world.pod(&unique("web"), &[("app", "web")]).await;
        let request = world.request(&pod, &[]).await;
        proxy.fail(Fault::None);
        world.verified_chain(&answer(&world, &request).await).await;
        pods += 1.0;
        is_led_again(&operator).await;
    }
}
