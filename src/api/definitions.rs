//! The custom resource definitions of all kinds, as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

use super::{
    AttestedAgent, ClusterFederatedTrustDomain, ClusterSPIFFEID, ClusterStaticEntry, NestedCluster,
    RegistrationEntry, TrustDomain,
};

/// All kinds, sorted by name.
///
/// These differ from the types' own `crd()` in one thing: no field is nullable. The API server then
/// takes a `null` for a field that is absent, as it does with spire-controller-manager's kinds.
#[must_use]
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions = vec![
        AttestedAgent::crd(),
        ClusterFederatedTrustDomain::crd(),
        ClusterSPIFFEID::crd(),
        ClusterStaticEntry::crd(),
        NestedCluster::crd(),
        RegistrationEntry::crd(),
        TrustDomain::crd(),
    ];
    definitions.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    for version in definitions
        .iter_mut()
        .flat_map(|definition| &mut definition.spec.versions)
    {
        if let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        {
            forbid_null(schema);
        }
    }
    definitions
}

fn forbid_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
        .for_each(forbid_null);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => forbid_null(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(forbid_null),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_is_nullable() {
        let rendered = serde_json::to_string(&custom_resource_definitions()).unwrap();
        assert!(rendered.contains("spiffeIDTemplate") && !rendered.contains("nullable"));
    }

    #[test]
    fn every_field_is_described() {
        fn check(path: &str, schema: &JSONSchemaProps) {
            for (name, field) in schema.properties.iter().flatten() {
                let path = format!("{path}.{name}");
                let standard = [".apiVersion", ".kind", ".metadata"].contains(&path.as_str());
                assert!(
                    standard || field.description.is_some(),
                    "{path} has no description"
                );
                check(&path, field);
            }
            if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
                check(&format!("{path}[]"), item);
            }
        }
        for definition in custom_resource_definitions() {
            for version in &definition.spec.versions {
                check(
                    "",
                    version
                        .schema
                        .as_ref()
                        .unwrap()
                        .open_api_v3_schema
                        .as_ref()
                        .unwrap(),
                );
            }
        }
    }
}
