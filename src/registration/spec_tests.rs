//! Tests of [`super`].

use serde_json::{Value as Json, json};

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn cluster_spiffe_id(json: Json) -> Result<ParsedClusterSpiffeId, SpecError> {
    let mut spec = json!({"spiffeIDTemplate": "spiffe://e.org/a"});
    spec.as_object_mut()
        .unwrap()
        .extend(json.as_object().unwrap().clone());
    ParsedClusterSpiffeId::parse(
        &serde_json::from_value(spec).unwrap(),
        &"e.org".parse().unwrap(),
    )
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn static_entry(json: Json) -> Result<ParsedStaticEntry, SpecError> {
    let mut spec = json!({
        "spiffeID": "spiffe://e.org/a",
        "parentID": "spiffe://e.org/spire/server",
        "selectors": ["k8s:ns:a"],
    });
    spec.as_object_mut()
        .unwrap()
        .extend(json.as_object().unwrap().clone());
    ParsedStaticEntry::parse(
        &serde_json::from_value(spec).unwrap(),
        &"e.org".parse().unwrap(),
    )
}

#[test]
fn says_what_is_wrong_with_a_cluster_spiffe_id() {
    let long_hint = "h".repeat(1025);
    for (spec, reason, part) in [
        (
            json!({"spiffeIDTemplate": "{{ .Nope }}"}),
            "InvalidTemplate",
            "spiffeIDTemplate: line 1",
        ),
        (
            json!({"dnsNameTemplates": ["a", "{{"]}),
            "InvalidTemplate",
            "dnsNameTemplates",
        ),
        (
            json!({"workloadSelectorTemplates": ["{{ f }}"]}),
            "InvalidTemplate",
            "workloadSelector",
        ),
        (
            json!({"spiffeIDTemplate": "spiffe://f.org/{{ .PodMeta.Name }}"}),
            "ForeignTrustDomain",
            "spiffe://f.org/…",
        ),
        (
            json!({"dnsNameTemplates": ["{{ .PodMeta.Name }}", "no name!"]}),
            "InvalidDNSName",
            "no name!",
        ),
        (
            json!({"workloadSelectorTemplates": ["k8s"]}),
            "InvalidSelector",
            "\"k8s\"",
        ),
        (json!({"ttl": "1d"}), "InvalidTTL", "ttl: \"1d\""),
        (json!({"jwtTtl": "-1h"}), "InvalidTTL", "jwtTtl"),
        (json!({"ttl": "596524h"}), "InvalidTTL", "596524h"),
        (
            json!({"federatesWith": ["A"]}),
            "InvalidFederatesWith",
            "\"A\"",
        ),
        (json!({"hint": long_hint}), "HintTooLong", "1025"),
        (
            json!({"namespaceSelector": {"matchLabels": {"-": ""}}}),
            "InvalidLabelSelector",
            "namespaceSelector",
        ),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "x"}]}}),
            "InvalidLabelSelector",
            "podSelector",
        ),
    ] {
        let error = cluster_spiffe_id(spec).unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn says_what_is_wrong_with_a_static_entry() {
    for (spec, reason) in [
        (json!({"spiffeID": "a"}), "InvalidSPIFFEID"),
        (json!({"spiffeID": "spiffe://e.org"}), "InvalidSPIFFEID"),
        (
            json!({"spiffeID": "spiffe://f.org/a"}),
            "ForeignTrustDomain",
        ),
        (
            json!({"spiffeID": "spiffe://e.org/spire/a"}),
            "ReservedSPIFFEID",
        ),
        (
            json!({"parentID": "spiffe://f.org/a"}),
            "ForeignTrustDomain",
        ),
        (json!({"parentID": "spiffe://e.org"}), "InvalidSPIFFEID"),
        (json!({"selectors": []}), "InvalidSelector"),
        (json!({"selectors": ["k8s"]}), "InvalidSelector"),
        (
            json!({"selectors": ["k8s:a", "unix:b"], "storeSVID": true}),
            "InvalidSelector",
        ),
        (json!({"dnsNames": ["a b"]}), "InvalidDNSName"),
        (json!({"x509SVIDTTL": "x"}), "InvalidTTL"),
        (json!({"jwtSVIDTTL": "596524h"}), "InvalidTTL"),
        (json!({"federatesWith": [""]}), "InvalidFederatesWith"),
        (json!({"hint": "h".repeat(1025)}), "HintTooLong"),
    ] {
        let error = static_entry(spec.clone()).unwrap_err();
        assert_eq!(error.reason(), reason, "{spec}: {error}");
    }
}

#[test]
fn lifetimes_are_whole_seconds_and_zero_is_the_default() {
    let parsed = cluster_spiffe_id(json!({"ttl": "1500ms", "jwtTtl": "0"})).unwrap();
    assert_eq!(
        (parsed.x509_ttl, parsed.jwt_ttl),
        (Some(Duration::from_secs(1)), None)
    );
    assert_eq!(
        cluster_spiffe_id(json!({"ttl": "900ms"})).unwrap().x509_ttl,
        None
    );
}

#[test]
fn repetitions_collapse() {
    let values = json!({"federatesWith": ["a.org", "spiffe://a.org/x", "b.org"]});
    assert_eq!(cluster_spiffe_id(values).unwrap().federates_with.len(), 2);
    let source = Arc::new(Source {
        kind: super::super::entry::SourceKind::ClusterStaticEntry,
        name: "n".into(),
        uid: "u".into(),
        created: 0,
        deleted: None,
    });
    let parsed = static_entry(json!({"selectors": ["a:b", "a:b", "c:d"], "dnsNames": ["x", "x"]}));
    let entry = parsed.unwrap().entry(source, "west");
    assert_eq!((entry.selectors.len(), entry.dns_names.len()), (2, 1));
}
