//! Fragments of schema that several kinds share, one function a grammar.
//!
//! Each says in the schema what a parser elsewhere says in code, so that a bad value is refused
//! when it is applied. What neither a pattern nor CEL can say (a template that does not parse, a
//! regular expression, an unknown trust domain) is let through and becomes a condition. A pattern
//! costs the API server nothing; a CEL rule needs an upper bound on what it reads, so every bound
//! here is far above anything that works.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Longest duration that is read; a sensible one has a dozen characters.
const MAX_DURATION_LENGTH: u32 = 256;
/// Longest hint that a SPIRE server stores, in bytes.
const MAX_HINT_LENGTH: u32 = 1024;
/// Longest name of a Kubernetes object.
const MAX_OBJECT_NAME_LENGTH: u32 = 253;

/// What Go's `time.ParseDuration` reads; `duration()` then refuses what does not fit 64 bits.
pub(super) const DURATION_FORM: &str =
    r"^[-+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$";
/// A trust domain name.
const TRUST_DOMAIN: &str = "^[a-z0-9._-]{1,255}$";
/// A trust domain name, or a SPIFFE ID of which only the trust domain counts.
const TRUST_DOMAIN_OR_ID: &str =
    "^([a-z0-9._-]{1,255}|spiffe://[a-z0-9._-]{1,255}(/[a-zA-Z0-9._-]+)*)$";
/// A SPIFFE ID that may be a trust domain's own. Segments of dots only are left to the parser.
pub(super) const SPIFFE_ID: &str = "^spiffe://[a-z0-9._-]{1,255}(/[a-zA-Z0-9._-]+)*$";
/// A SPIFFE ID with a path, as entries need it.
pub(super) const SPIFFE_ID_WITH_PATH: &str = "^spiffe://[a-z0-9._-]{1,255}(/[a-zA-Z0-9._-]+)+$";
/// A selector: its type has no colon, its value is not empty.
const SELECTOR: &str = r"^[^:]+:[\s\S]+$";
/// One segment of a SPIFFE ID's path with more than dots in it.
const PATH_SEGMENT: &str = "^[a-zA-Z0-9._-]*[a-zA-Z0-9_-][a-zA-Z0-9._-]*$";
/// Name of most Kubernetes objects.
pub(super) const DNS_SUBDOMAIN: &str =
    "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// `<domain>/<path>`, the domain with a dot.
const SIGNER_NAME: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)+/\
     [a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A Go duration of zero or more, as `api::duration::parse` takes it.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    duration_of(&[])
}

/// A Go duration of at least a second.
pub(super) fn lifetime(_: &mut SchemaGenerator) -> Schema {
    duration_of(&[at_least("1s")])
}

/// Lifetime of a pod certificate: Kubernetes takes none below an hour.
pub(super) fn pod_certificate_lifetime(_: &mut SchemaGenerator) -> Schema {
    duration_of(&[at_least("1h")])
}

pub(super) fn duration_of(further: &[Value]) -> Schema {
    let well_formed = json!({
        "rule": format!("self.matches(r'{DURATION_FORM}') && duration(self) >= duration('0s')"),
        "message": "must be a duration as Go writes it, zero or more: one or more numbers, each \
                    with a unit h, m, s, ms, us or ns, such as \"1h30m\", \"90s\" or \"1.5h\" \
                    (there is no unit for days)",
    });
    let rules: Vec<&Value> = std::iter::once(&well_formed).chain(further).collect();
    json_schema!({
        "type": "string",
        "maxLength": MAX_DURATION_LENGTH,
        "x-kubernetes-validations": rules,
    })
}

/// Says nothing of a malformed duration: the rule before it does.
fn at_least(shortest: &str) -> Value {
    json!({
        "rule": format!(
            "!self.matches(r'{DURATION_FORM}') || duration(self) >= duration('{shortest}')"
        ),
        "message": format!("must be at least {shortest}"),
    })
}

/// On a TrustDomain: a CA that the operator makes outlives the leaves it signs, as it signs until a
/// sixth of its lifetime is left. Says nothing of malformed durations: their own rule does.
pub(super) fn at_most_a_sixth_of_ca_ttl(leaf: &str) -> Value {
    sixth_of_ca_ttl(leaf, "!has(self.authority.selfSigned) || ")
}

/// The same of JWT keys, which the operator makes in any case.
pub(super) fn jwt_svid_at_most_a_sixth_of_ca_ttl() -> Value {
    sixth_of_ca_ttl("jwtSVID", "")
}

fn sixth_of_ca_ttl(leaf: &str, unless: &str) -> Value {
    json!({
        "rule": format!(
            "{unless}![self.{leaf}.ttl, self.caTTL].all(d, d.matches(r'{DURATION_FORM}')) \
             || [duration(self.{leaf}.ttl)].all(leaf, \
             leaf + leaf + leaf + leaf + leaf + leaf <= duration(self.caTTL))"
        ),
        "fieldPath": format!(".{leaf}.ttl"),
        "message": "must be at most a sixth of caTTL: an authority signs until a sixth of its \
                    lifetime is left, and nothing it signed may outlive it",
    })
}

/// A text with something in it.
pub(super) fn non_empty(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1 })
}

/// A list of texts, each with something in it.
pub(super) fn non_empty_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "minLength": 1 } })
}

/// A hint, bounded in bytes as SPIRE bounds it.
pub(super) fn hint(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": MAX_HINT_LENGTH,
        "x-kubernetes-validations": [{
            "rule": format!("size(bytes(self)) <= {MAX_HINT_LENGTH}"),
            "message": format!("must have at most {MAX_HINT_LENGTH} bytes"),
        }],
    })
}

/// The name of a trust domain that is served, for good.
pub(super) fn immutable_trust_domain(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 255,
        "x-kubernetes-validations": [
            {
                "rule": format!("self.matches('{TRUST_DOMAIN}')"),
                "message": "must be a trust domain name: 1 to 255 lower-case letters, digits, \
                            dots, hyphens and underscores, such as \"example.org\"",
            },
            {
                "rule": "self == oldSelf",
                "message": "must not change: every identity has it in its name; make a new \
                            TrustDomain instead",
            },
        ],
    })
}

/// The name of a trust domain.
pub(super) fn trust_domain_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": TRUST_DOMAIN })
}

/// A foreign trust domain, by name or by SPIFFE ID.
pub(super) fn trust_domain(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": TRUST_DOMAIN_OR_ID })
}

/// Foreign trust domains, by name or by SPIFFE ID.
pub(super) fn trust_domains(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "string", "pattern": TRUST_DOMAIN_OR_ID },
    })
}

/// A SPIFFE ID with a path.
pub(super) fn spiffe_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": SPIFFE_ID_WITH_PATH })
}

/// A SPIFFE ID with a path, for good.
pub(super) fn immutable_spiffe_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 2048,
        "pattern": SPIFFE_ID_WITH_PATH,
        "x-kubernetes-validations": [{
            "rule": "self == oldSelf",
            "message": "must not change: the object's name is made of it",
        }],
    })
}

/// A certificate's serial number in decimal digits; it has at most 20 bytes (RFC 5280).
pub(super) fn serial_number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 50, "pattern": "^[0-9]+$" })
}

/// SPIFFE IDs of administrators.
pub(super) fn admin_ids(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "string", "pattern": SPIFFE_ID_WITH_PATH },
        "maxItems": 256,
        "x-kubernetes-list-type": "set",
    })
}

/// Selectors, at least one.
pub(super) fn selectors(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "items": { "type": "string", "pattern": SELECTOR },
    })
}

/// Service accounts, at least one.
pub(super) fn service_accounts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "items": { "type": "string", "pattern": "^[a-z0-9-]{1,63}:[a-z0-9.-]{1,253}$" },
    })
}

/// Certificates in PEM.
pub(super) fn pem(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 262_144,
        "pattern": "-----BEGIN CERTIFICATE-----",
    })
}

/// The part of an agent's ID below `/spire/agent`.
pub(super) fn agent_path_template(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 1024, "pattern": "^/" })
}

/// How paths of SPIFFE IDs begin; nothing for any.
pub(super) fn svid_prefix(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 1024, "pattern": "^(/.*)?$" })
}

/// A name that becomes one segment of SPIFFE IDs.
pub(super) fn path_segment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 255, "pattern": PATH_SEGMENT })
}

/// Name of an object.
pub(super) fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": MAX_OBJECT_NAME_LENGTH,
        "pattern": DNS_SUBDOMAIN,
    })
}

/// Name of a namespace.
pub(super) fn namespace_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 63,
        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    })
}

/// Key of a ConfigMap.
pub(super) fn config_map_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": MAX_OBJECT_NAME_LENGTH,
        "pattern": PATH_SEGMENT,
    })
}

/// A DNS domain, or nothing.
pub(super) fn dns_domain(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": MAX_OBJECT_NAME_LENGTH,
        "pattern": format!("^$|{DNS_SUBDOMAIN}"),
    })
}

/// Name of a signer of certificates.
pub(super) fn signer_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 571,
        "x-kubernetes-validations": [
            {
                "rule": format!("self.matches('{SIGNER_NAME}')"),
                "message": "must be a signer name of the form \"example.com/name\": a domain of \
                            two labels or more, one slash, and lower-case letters, digits, \
                            hyphens and dots",
            },
            {
                "rule": "self.matches('^(?:[^/]*[.])?kubernetes[.]io/') == false",
                "message": "must not lie under kubernetes.io: those signers are Kubernetes' own",
            },
        ],
    })
}

/// An https URL with a host and without user name or password.
pub(super) fn https_url(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 8192,
        "x-kubernetes-validations": [{
            "rule": "isURL(self) && url(self).getScheme() == 'https' \
                     && url(self).getHostname() != '' && !self.matches('^[^/]*//[^/?#]*@')",
            "message": "must be an https URL with a host and without user name or password, such \
                        as \"https://example.org/bundle\"",
        }],
    })
}

/// The country of a subject.
pub(super) fn countries(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 1,
        "items": { "type": "string", "pattern": "^[A-Za-z]{2}$" },
    })
}

/// The organization of a subject, as long as X.520 allows.
pub(super) fn organizations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 1,
        "items": { "type": "string", "minLength": 1, "maxLength": 64 },
    })
}

/// A common name as long as X.520 allows.
pub(super) fn common_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 64 })
}

/// A count; Kubernetes knows no unsigned integers.
pub(super) fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0 })
}

/// A moment.
pub(super) fn date_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// Conditions as a map by type, so that each may have its own field manager.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "type": "string",
                    "maxLength": 316,
                    "description": "What the condition speaks of, such as Ready.",
                },
                "status": {
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                    "description": "Whether it holds.",
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "description": "The generation of the object that it speaks of.",
                },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When `status` last changed.",
                },
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why, in one word; a stable part of the API.",
                },
                "message": {
                    "type": "string",
                    "maxLength": 32768,
                    "description": "What happened and what can be done.",
                },
            },
        },
    })
}

/// A label selector, refused where Kubernetes could not evaluate it.
pub(super) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "type": "object",
                "additionalProperties": { "type": "string" },
                "description": "Labels that must have these values.",
            },
            "matchExpressions": {
                "type": "array",
                "x-kubernetes-list-type": "atomic",
                "description": "Requirements that must hold, all of them.",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": { "type": "string", "description": "Key of the label." },
                        "operator": {
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            "description": "How the label is compared.",
                        },
                        "values": {
                            "type": "array",
                            "x-kubernetes-list-type": "atomic",
                            "items": { "type": "string" },
                            "description": "Values for In and NotIn; none for the others.",
                        },
                    },
                    "x-kubernetes-validations": [{
                        "rule": "(self.operator in ['In', 'NotIn']) == \
                                 (has(self.values) && size(self.values) > 0)",
                        "message": "operators In and NotIn need values, Exists and DoesNotExist \
                                    take none",
                    }],
                },
            },
        },
    })
}
