//! `charts/spiffe-operator/values.schema.json`: what the values of the chart may be. What is handed on
//! to an object has the schema of that object's kind, without unknown fields: an API server would drop
//! them with no more than a warning.

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};
use spiffe_operator::api::{NestedCluster, TrustDomain};

use crate::Files;

pub(crate) fn files() -> Files {
    let schema = serde_json::to_string_pretty(&schema()).unwrap();
    let path = "charts/spiffe-operator/values.schema.json";
    Files::from([(path.into(), schema + "\n")])
}

fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft-07/schema#",
        "definitions": {
            "nestedCluster": nested_cluster(),
            "nestedClusters": {
                "type": ["object", "null"],
                "additionalProperties": { "$ref": "#/definitions/nestedCluster" },
            },
        },
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "trustDomain": { "type": "string", "maxLength": 255, "pattern": "^[a-z0-9._-]*$" },
            "clusterName": spec::<TrustDomain>()["clusterName"],
            "trustDomainSpec": trust_domain(),
            "defaultClusterSPIFFEID": { "type": "boolean" },
            "kubeConfigs": { "$ref": "#/definitions/nestedClusters" },
            "external-spire-server": {
                "type": ["object", "null"],
                "additionalProperties": false,
                "properties": { "kubeConfigs": { "$ref": "#/definitions/nestedClusters" } },
            },
            "image": {
                "type": "object",
                "additionalProperties": false,
                "required": ["repository", "tag"],
                "properties": {
                    "repository": { "type": "string", "minLength": 1 },
                    "tag": { "type": "string", "minLength": 1 },
                    "pullPolicy": { "enum": ["Always", "IfNotPresent", "Never"] },
                    "pullSecrets": { "type": "array", "items": {
                        "type": "object",
                        "additionalProperties": false,
                        "required": ["name"],
                        "properties": { "name": { "type": "string" } },
                    } },
                },
            },
            "replicas": { "type": "integer", "minimum": 0 },
            "resources": { "type": "object" },
            "serverService": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "type": { "enum": ["ClusterIP", "NodePort", "LoadBalancer"] },
                    "annotations": {
                        "type": "object", "additionalProperties": { "type": "string" },
                    },
                },
            },
            "global": { "type": "object" },
        },
    })
}

/// A nested cluster: where its kubeconfig is, and fields of a NestedCluster's spec.
fn nested_cluster() -> Value {
    let mut fields = spec::<NestedCluster>();
    let access = fields.remove("kubeConfig").unwrap();
    fields.extend(access["properties"].as_object().unwrap().clone());
    let text = |description| json!({ "type": "string", "description": description });
    fields.insert("kubeConfig".into(), text("A kubeconfig."));
    fields.insert(
        "kubeConfigBase64".into(),
        text("A kubeconfig in base64, once or twice."),
    );
    json!({ "type": ["object", "null"], "additionalProperties": false, "properties": fields })
}

/// Fields of a TrustDomain's spec that have no value of their own.
fn trust_domain() -> Value {
    let mut fields = spec::<TrustDomain>();
    for own in ["trustDomain", "clusterName"] {
        fields.remove(own).unwrap();
    }
    json!({ "type": "object", "additionalProperties": false, "properties": fields })
}

/// The fields of the spec of a kind.
fn spec<K: CustomResourceExt>() -> Map<String, Value> {
    let definition = serde_json::to_value(K::crd()).unwrap();
    let spec =
        &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let fields = spec["properties"].as_object().unwrap();
    fields
        .iter()
        .map(|(name, field)| (name.clone(), strict(field)))
        .collect()
}

/// The JSON schema that says what a schema of Kubernetes says, and takes no unknown fields.
fn strict(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let fields = fields.iter();
            let known = fields.filter(|(name, _)| !name.starts_with("x-kubernetes-"));
            let mut fields: Map<_, _> = known
                .map(|(name, value)| (name.clone(), strict(value)))
                .collect();
            if fields.get("type") == Some(&json!("object")) && fields.contains_key("properties") {
                fields.insert("additionalProperties".into(), json!(false));
            }
            Value::Object(fields)
        }
        Value::Array(items) => items.iter().map(strict).collect(),
        other => other.clone(),
    }
}

#[test]
fn unknown_fields_are_refused_at_every_depth() {
    let nested = nested_cluster();
    let agents = &nested["properties"]["agents"];
    for schema in [&nested, agents] {
        assert_eq!(schema["additionalProperties"], json!(false), "{schema}");
    }
    assert_eq!(nested["properties"]["kubeConfig"]["type"], json!("string"));
    assert!(nested["properties"]["impersonate"].is_object(), "{nested}");
}
