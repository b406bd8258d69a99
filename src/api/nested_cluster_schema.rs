//! Fragments of schema that only NestedCluster has.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::SpireParent;
use super::schema::DNS_SUBDOMAIN;

/// A path with `*` in its segments; `**` may be the last one.
const ID_PATTERN: &str = "^((/(([*]?[a-zA-Z0-9._-]+)+[*]?|[*]))+(/[*][*])?|/[*][*])$";
/// A DNS name with `*` in its labels; `**` may be the first one.
const DNS_NAME_PATTERN: &str =
    "^([*][*]|([*]?[a-z0-9_-]+)+[*]?|[*])([.](([*]?[a-z0-9_-]+)+[*]?|[*]))*$";

/// Patterns of the paths of SPIFFE IDs, at least one.
pub(super) fn id_patterns(_: &mut SchemaGenerator) -> Schema {
    patterns(ID_PATTERN)
}

/// Patterns of DNS names, at least one.
pub(super) fn dns_name_patterns(_: &mut SchemaGenerator) -> Schema {
    patterns(DNS_NAME_PATTERN)
}

/// Name of a stock SPIRE server, to which objects' names add an ending.
pub(super) fn parent_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 200,
        "pattern": DNS_SUBDOMAIN,
    })
}

/// Stock SPIRE servers, each once.
pub(super) fn parents(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": generator.subschema_for::<SpireParent>(),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["namespace", "name"],
    })
}

/// On a NestedCluster: for each stock SPIRE server it is known which agents may attest.
pub(super) fn parents_have_agents() -> Value {
    json!({
        "rule": "!has(self.parents) || has(self.agents) || self.parents.all(parent, has(parent.agents))",
        "fieldPath": ".parents",
        "message": "name the service accounts of agents, here or in spec.agents",
    })
}

fn patterns(form: &str) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 256,
        "items": { "type": "string", "maxLength": 2048, "pattern": form },
    })
}

/// On a NestedCluster: its trust domain does not change.
pub(super) fn trust_domain_stays() -> Value {
    json!({
        "rule": "self.trustDomainRef == oldSelf.trustDomainRef",
        "fieldPath": ".trustDomainRef",
        "message": "must not change: the IDs of the cluster's agents have it in them; make a new \
                    NestedCluster instead",
    })
}

/// On a NestedCluster: who serves it does not change.
pub(super) fn mode_stays() -> Value {
    json!({
        "rule": "self.mode == oldSelf.mode",
        "fieldPath": ".mode",
        "message": "must not change: what was published for the former mode would stay; delete this \
                    NestedCluster and apply it again",
    })
}

/// On a NestedCluster: what is said of its servers is said of a cluster that has some.
pub(super) fn servers_only_downstream() -> Value {
    json!({
        "rule": "!has(self.downstream) || self.mode == 'Downstream'",
        "fieldPath": ".downstream",
        "message": "is for mode Downstream",
    })
}

/// On a NestedCluster: a CA cannot be bound.
pub(super) fn servers_are_not_bound() -> Value {
    json!({
        "rule": "self.mode != 'Downstream' || !(has(self.allowedIDs) || has(self.allowedDNSNames))",
        "message": "allowedIDs and allowedDNSNames cannot bind a cluster of mode Downstream: its \
                    server's CA signs any ID of the trust domain",
    })
}

/// On a NestedCluster: its name as a cluster does not change.
pub(super) fn cluster_name_stays() -> Value {
    let name = |object: &str| format!("(has({object}.clusterName) ? {object}.clusterName : '')");
    json!({
        "rule": format!("{} == {}", name("self"), name("oldSelf")),
        "fieldPath": ".clusterName",
        "message": "must not change: the IDs of the cluster's agents have it in them; make a new \
                    NestedCluster instead",
    })
}
