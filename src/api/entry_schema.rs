//! Fragments of the schema of RegistrationEntries: what `registration::parse_registration_entry`
//! refuses is refused when it is applied, as far as a pattern or CEL can say it. A broken object
//! would hold no entry on a replica that has not known it before.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::schema::{DURATION_FORM, SPIFFE_ID_WITH_PATH, duration_of};

/// A DNS name as entries may carry it, but for dashes in both third and fourth place of a label.
const DNS_NAME: &str = "^([*][.])?[0-9A-Z_a-z]([-0-9A-Z_a-z]{0,61}[0-9A-Z_a-z])?\
     ([.][0-9A-Z_a-z]([-0-9A-Z_a-z]{0,61}[0-9A-Z_a-z])?)*$";
/// The ID of an entry, as spire-server takes it.
const ENTRY_ID: &str = "^[-.0-9A-Z_a-z]{1,255}$";

/// The ID of an entry, for good.
pub(super) fn entry_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 255,
        "pattern": ENTRY_ID,
        "x-kubernetes-validations": [{
            "rule": "self == oldSelf",
            "message": "must not change: it determines the name of the object",
        }],
    })
}

/// Lifetime of what an entry gives: a Go duration of zero or more that the SPIRE API has room for.
pub(super) fn entry_lifetime(_: &mut SchemaGenerator) -> Schema {
    duration_of(&[json!({
        "rule": format!(
            "!self.matches(r'{DURATION_FORM}') || duration(self) < duration('2147483648s')"
        ),
        "message": "must be less than 2147483648s",
    })])
}

/// A SPIFFE ID as the parent of an entry.
pub(super) fn parent_id(_: &mut SchemaGenerator) -> Schema {
    entry_spiffe_id(&[])
}

/// A SPIFFE ID as a workload has it: not of an agent or server.
pub(super) fn workload_id(_: &mut SchemaGenerator) -> Schema {
    entry_spiffe_id(&[json!({
        "rule": "!self.matches('^spiffe://[^/]+/spire(/|$)')",
        "message": "must not lie under /spire, which belongs to servers and agents",
    })])
}

fn entry_spiffe_id(further: &[Value]) -> Schema {
    let segments = json!({
        "rule": "!self.matches('/[.]{1,2}(/|$)')",
        "message": "must have no path segment '.' or '..'",
    });
    let rules: Vec<&Value> = std::iter::once(&segments).chain(further).collect();
    json_schema!({
        "type": "string",
        "maxLength": 2048,
        "pattern": SPIFFE_ID_WITH_PATH,
        "x-kubernetes-validations": rules,
    })
}

/// On a RegistrationEntry: its IDs are of one trust domain, for good.
pub(super) fn of_one_trust_domain() -> [Value; 2] {
    let trust_domain = "self.spiffeID.split('/')[2]";
    [
        json!({
            "rule": format!("self.parentID.startsWith('spiffe://' + {trust_domain} + '/')"),
            "fieldPath": ".parentID",
            "message": "must be of the trust domain of spiffeID",
        }),
        json!({
            "rule": format!("{trust_domain} == oldSelf.spiffeID.split('/')[2]"),
            "fieldPath": ".spiffeID",
            "message": "must stay in its trust domain: it determines the name of the object",
        }),
    ]
}

/// On a RegistrationEntry: an SVID that is put into a store is fetched without anybody asking.
pub(super) fn stored_is_prefetched() -> Value {
    json!({
        "rule": "!has(self.storeSVID) || !self.storeSVID || !has(self.additionalAttributes) || \
                 !has(self.additionalAttributes.disableX509SVIDPrefetch) || \
                 !self.additionalAttributes.disableX509SVIDPrefetch",
        "message": "storeSVID and additionalAttributes.disableX509SVIDPrefetch exclude each other",
    })
}

/// DNS names that an entry may carry.
pub(super) fn dns_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "string", "maxLength": 253, "pattern": DNS_NAME },
    })
}
