//! All metrics of the process, in one registry. Labels come from closed sets; no metric has a
//! label per pod, SPIFFE ID or serial number.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Buckets from half a millisecond to about a minute.
const LATENCY_BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Domain {
    trust_domain: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Object {
    trust_domain: String,
    kind: &'static str,
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DomainResult {
    trust_domain: String,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindReason {
    kind: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    trust_domain: String,
    method: String,
    result: &'static str,
}

type Seconds = Family<Kind, Histogram, fn() -> Histogram>;

/// The metrics and what changes them.
pub struct Metrics {
    registry: Registry,
    reconcile_seconds: Seconds,
    reconcile_errors: Family<KindReason, Counter>,
    entries: Family<Domain, Gauge>,
    object_entries: Family<Object, Gauge>,
    render_failures: Family<Object, Gauge>,
    masked: Family<Object, Gauge>,
    pod_certificates: Family<DomainResult, Counter>,
    sign_seconds: Histogram,
    pod_to_entry_seconds: Histogram,
    request_to_issued_seconds: Histogram,
    ca_expiry: Family<Domain, Gauge>,
    bundle_expiry: Family<Domain, Gauge>,
    leader: Gauge,
    watch_restarts: Family<Kind, Counter>,
    watch_errors: Family<Kind, Counter>,
    server_calls: Family<Call, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts of one registering object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectCounts {
    /// Entries in force.
    pub entries: i64,
    /// Pods for which no entry could be made.
    pub render_failures: i64,
    /// Entries that an older object declares.
    pub masked: i64,
}

impl Metrics {
    /// Metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let histogram = || Histogram::new(LATENCY_BUCKETS);
        let mut metrics = Self {
            registry: Registry::with_prefix("spiffe_operator"),
            reconcile_seconds: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
            reconcile_errors: Family::default(),
            entries: Family::default(),
            object_entries: Family::default(),
            render_failures: Family::default(),
            masked: Family::default(),
            pod_certificates: Family::default(),
            sign_seconds: histogram(),
            pod_to_entry_seconds: histogram(),
            request_to_issued_seconds: histogram(),
            ca_expiry: Family::default(),
            bundle_expiry: Family::default(),
            leader: Gauge::default(),
            watch_restarts: Family::default(),
            watch_errors: Family::default(),
            server_calls: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "reconcile_duration_seconds",
            "Time one reconcile took",
            self.reconcile_seconds.clone(),
        );
        r.register(
            "reconcile_errors",
            "Failed reconciles",
            self.reconcile_errors.clone(),
        );
        r.register("entries", "Registered entries", self.entries.clone());
        r.register(
            "object_entries",
            "Entries of one object",
            self.object_entries.clone(),
        );
        r.register(
            "render_failures",
            "Pods for which an object makes no entry",
            self.render_failures.clone(),
        );
        r.register(
            "masked_entries",
            "Entries an older object declares",
            self.masked.clone(),
        );
        r.register(
            "pod_certificates",
            "Answered PodCertificateRequests",
            self.pod_certificates.clone(),
        );
        r.register(
            "sign_duration_seconds",
            "Time to sign one certificate",
            self.sign_seconds.clone(),
        );
        r.register(
            "pod_to_entry_seconds",
            "Time from the news of a pod to its first entries being in force",
            self.pod_to_entry_seconds.clone(),
        );
        r.register(
            "request_to_issued_seconds",
            "Time from a PodCertificateRequest's news to its certificate being accepted",
            self.request_to_issued_seconds.clone(),
        );
        r.register(
            "ca_expiration_timestamp_seconds",
            "When the active CA expires",
            self.ca_expiry.clone(),
        );
        r.register(
            "bundle_expiration_timestamp_seconds",
            "When the last root of the bundle expires",
            self.bundle_expiry.clone(),
        );
        r.register("leader", "Whether this process leads", self.leader.clone());
        r.register(
            "watch_restarts",
            "Watches that started over with a list",
            self.watch_restarts.clone(),
        );
        r.register(
            "watch_errors",
            "Failed lists and watches",
            self.watch_errors.clone(),
        );
        r.register(
            "server_calls",
            "Calls of the API of spire-server",
            self.server_calls.clone(),
        );
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if text::encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }

    /// A caller of a trust domain's server was let through to `method`, or was not, and then may
    /// have asked for anything.
    pub fn called(&self, trust_domain: &str, method: Option<&str>, result: &'static str) {
        let method = method.map(|method| method.rsplit('.').next().unwrap_or(method));
        let call = Call {
            trust_domain: trust_domain.into(),
            method: method.unwrap_or_default().into(),
            result,
        };
        self.server_calls.get_or_create(&call).inc();
    }

    /// A reconcile of `kind` ended after `elapsed`, with the reason where it failed.
    pub fn reconciled(&self, kind: &'static str, elapsed: Duration, failure: Option<&'static str>) {
        self.reconcile_seconds
            .get_or_create(&Kind { kind })
            .observe(elapsed.as_secs_f64());
        if let Some(reason) = failure {
            self.reconcile_errors
                .get_or_create(&KindReason { kind, reason })
                .inc();
        }
    }

    /// A trust domain has `entries` entries.
    pub fn set_entries(&self, trust_domain: &str, entries: i64) {
        self.entries
            .get_or_create(&Domain {
                trust_domain: trust_domain.into(),
            })
            .set(entries);
    }

    /// The counts of one registering object; none when it is gone.
    pub fn set_object(
        &self,
        trust_domain: &str,
        kind: &'static str,
        name: &str,
        counts: Option<ObjectCounts>,
    ) {
        let object = Object {
            trust_domain: trust_domain.into(),
            kind,
            name: name.into(),
        };
        match counts {
            Some(counts) => {
                self.object_entries
                    .get_or_create(&object)
                    .set(counts.entries);
                self.render_failures
                    .get_or_create(&object)
                    .set(counts.render_failures);
                self.masked.get_or_create(&object).set(counts.masked);
            }
            None => {
                self.object_entries.remove(&object);
                self.render_failures.remove(&object);
                self.masked.remove(&object);
            }
        }
    }

    /// A PodCertificateRequest was answered with `result`, such as `issued`.
    pub fn pod_certificate(&self, trust_domain: &str, result: &'static str) {
        let labels = DomainResult {
            trust_domain: trust_domain.into(),
            result,
        };
        self.pod_certificates.get_or_create(&labels).inc();
    }

    /// Signing a certificate took `elapsed`.
    pub fn signed(&self, elapsed: Duration) {
        self.sign_seconds.observe(elapsed.as_secs_f64());
    }

    /// The first entries of a pod were in force `elapsed` after the news of it.
    pub fn registered(&self, elapsed: Duration) {
        self.pod_to_entry_seconds.observe(elapsed.as_secs_f64());
    }

    /// A certificate was accepted `elapsed` after the news of its request.
    pub fn issued(&self, elapsed: Duration) {
        self.request_to_issued_seconds
            .observe(elapsed.as_secs_f64());
    }

    /// When the active CA, and the last root of the bundle, expire (Unix seconds); none where there
    /// is none.
    pub fn set_expiry(&self, trust_domain: &str, ca: Option<i64>, bundle: Option<i64>) {
        let labels = Domain {
            trust_domain: trust_domain.into(),
        };
        for (gauge, time) in [(&self.ca_expiry, ca), (&self.bundle_expiry, bundle)] {
            match time {
                Some(time) => {
                    gauge.get_or_create(&labels).set(time);
                }
                None => {
                    gauge.remove(&labels);
                }
            }
        }
    }

    /// A trust domain is not served any more.
    pub fn forget_trust_domain(&self, trust_domain: &str) {
        let labels = Domain {
            trust_domain: trust_domain.into(),
        };
        self.entries.remove(&labels);
        self.ca_expiry.remove(&labels);
        self.bundle_expiry.remove(&labels);
    }

    /// Whether this process leads.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// A watch of `kind` started over.
    pub fn watch_restarted(&self, kind: &'static str) {
        self.watch_restarts.get_or_create(&Kind { kind }).inc();
    }

    /// A list or watch of `kind` failed.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&Kind { kind }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_that_are_gone_leave_no_metric() {
        let metrics = Metrics::new();
        let counts = ObjectCounts {
            entries: 3,
            ..ObjectCounts::default()
        };
        metrics.set_object("example.org", "ClusterSPIFFEID", "web", Some(counts));
        let line = "spiffe_operator_object_entries{trust_domain=\"example.org\",\
                    kind=\"ClusterSPIFFEID\",name=\"web\"} 3";
        assert!(metrics.encode().contains(line), "{}", metrics.encode());
        metrics.set_object("example.org", "ClusterSPIFFEID", "web", None);
        assert!(!metrics.encode().contains("name=\"web\""));
    }

    #[test]
    fn a_ca_that_is_not_there_has_no_expiry() {
        let metrics = Metrics::new();
        let line = "spiffe_operator_ca_expiration_timestamp_seconds{trust_domain=\"a.test\"} 7";
        metrics.set_expiry("a.test", Some(7), None);
        assert!(metrics.encode().contains(line), "{}", metrics.encode());
        metrics.set_expiry("a.test", None, None);
        assert!(!metrics.encode().contains("a.test"));
    }
}
