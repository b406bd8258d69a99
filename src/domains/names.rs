//! Names of what belongs to a trust domain: signer, ClusterTrustBundle, labels, objects.

use std::fmt::Write as _;

use crate::spiffe::{SpiffeId, TrustDomainName};

/// DNS domain under which all names of this operator lie.
pub const OPERATOR_DOMAIN: &str = "spiffe-operator.io";
/// Key of a `podCertificate` projection's `userAnnotations`: the SPIFFE ID to issue.
pub const SPIFFE_ID_ANNOTATION: &str = "spiffe-operator.io/spiffe-id";
/// Key of a `podCertificate` projection's `userAnnotations`: the hint of the entry to issue.
pub const HINT_ANNOTATION: &str = "spiffe-operator.io/hint";
/// Annotation of a TrustDomain whose keys were lost: the ID of the lost authority, to consent to a
/// new one in its place.
pub const REPLACE_AUTHORITY_ANNOTATION: &str = "spiffe-operator.io/replace-authority";
/// Last part of the name of a ClusterTrustBundle.
pub const CLUSTER_TRUST_BUNDLE_SUFFIX: &str = "bundle";

/// Longest Kubernetes object name in bytes.
const MAX_OBJECT_NAME: usize = 253;
/// Longest readable part of a name that ends in a hash, in bytes.
const MAX_READABLE: usize = 100;
/// Longest label value in bytes.
const MAX_LABEL_VALUE: usize = 63;
/// Bytes of a SHA-256 digest that names keep; 128 bits.
const HASH_BYTES: usize = 16;

/// `spiffe-operator.io/<trust domain>`, with a hash in place of a trust domain that no signer name
/// may hold.
#[must_use]
pub fn default_signer_name(trust_domain: &TrustDomainName) -> String {
    let plain = format!("{OPERATOR_DOMAIN}/{trust_domain}");
    match signer_name_error(&plain) {
        None => plain,
        Some(_) => format!("{OPERATOR_DOMAIN}/{}", hashed(trust_domain.as_str())),
    }
}

/// Why `name` is no signer name, by the rules of `certificates.k8s.io` (`ValidateSignerName`).
#[must_use]
pub fn signer_name_error(name: &str) -> Option<&'static str> {
    let Some((domain, path)) = name.split_once('/') else {
        return Some("must have the form <domain>/<path>");
    };
    if domain.len() > MAX_OBJECT_NAME || !domain.contains('.') {
        return Some("the domain must have at least one dot and at most 253 characters");
    }
    let is_label = |label: &str| label.len() <= 63 && is_dns_label(label);
    if !domain.split('.').all(is_label) {
        return Some("the domain must consist of DNS labels");
    }
    if domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") {
        return Some("kubernetes.io is reserved");
    }
    let is_path_part = |part: &str| part.len() <= MAX_OBJECT_NAME && is_dns_label(part);
    if path.len() > MAX_OBJECT_NAME + 64 || !path.split('.').all(is_path_part) {
        return Some("the path must consist of lower-case letters, digits, '-' and '.'");
    }
    None
}

/// Name of the ClusterTrustBundle of a signer: `<domain>:<path>:bundle`.
#[must_use]
pub fn cluster_trust_bundle_name(signer_name: &str) -> String {
    format!(
        "{}:{CLUSTER_TRUST_BUNDLE_SUFFIX}",
        signer_name.replace('/', ":")
    )
}

/// The labels that the SPIFFE draft for delivery by files gives the ClusterTrustBundle of a trust domain.
#[must_use]
pub fn cluster_trust_bundle_labels(trust_domain: &TrustDomainName) -> [(String, String); 3] {
    let trust_domain = label_value(trust_domain.as_str());
    [
        ("k8s.spiffe.io/canarying".into(), "live".into()),
        (
            "k8s.spiffe.io/workload-trust-domain".into(),
            trust_domain.clone(),
        ),
        ("k8s.spiffe.io/peer-trust-domain".into(), trust_domain),
    ]
}

/// `value` where it may be a label's value, else a hash of it.
#[must_use]
pub fn label_value(value: &str) -> String {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let legal = value.len() <= MAX_LABEL_VALUE
        && edge(value.chars().next())
        && edge(value.chars().last())
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if legal { value.into() } else { hashed(value) }
}

/// `<owner><suffix>`, with the end of the owner's name replaced by a hash where that is too long.
#[must_use]
pub fn object_name(owner: &str, suffix: &str) -> String {
    let plain = format!("{owner}{suffix}");
    if plain.len() <= MAX_OBJECT_NAME {
        return plain;
    }
    let hash = hashed(owner);
    let room = MAX_OBJECT_NAME - suffix.len() - hash.len() - 1;
    format!(
        "{}-{hash}{suffix}",
        crate::truncate(owner, room).trim_end_matches(['.', '-'])
    )
}

/// `value` where it may end an object's name after a dot, else a hash of it.
#[must_use]
pub fn name_part(value: &str) -> String {
    if value.len() <= MAX_READABLE && value.split('.').all(is_dns_label) {
        value.into()
    } else {
        hashed(value)
    }
}

/// Name of the AttestedAgent with this SPIFFE ID: what can be read of the ID's path below
/// `/spire/agent`, and a hash of the ID.
#[must_use]
pub fn agent_object_name(id: &SpiffeId) -> String {
    let path = id.path();
    let path = path.strip_prefix("/spire/agent/").unwrap_or(path);
    let legal = path.chars().map(|c| match c.to_ascii_lowercase() {
        '/' => '.',
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    });
    let legal: String = legal.collect();
    let labels = legal.split('.').map(|label| label.trim_matches('-'));
    let labels: Vec<&str> = labels.filter(|label| !label.is_empty()).collect();
    let hash = hashed(id.as_str());
    let labels = labels.join(".");
    let readable = crate::truncate(&labels, MAX_READABLE).trim_end_matches(['.', '-']);
    match readable {
        "" => hash,
        readable => format!("{readable}.{hash}"),
    }
}

fn is_dns_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .chars()
            .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'))
}

fn hashed(value: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, value.as_bytes());
    let mut name = String::from("h-");
    for byte in digest.as_ref().iter().take(HASH_BYTES) {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signer_names_are_the_trust_domain_or_a_hash() {
        let signer = |name: &str| default_signer_name(&name.parse().unwrap());
        assert_eq!(signer("example.org"), "spiffe-operator.io/example.org");
        for odd in ["under_score.org", "-dash.org", "a..b", &"a".repeat(255)] {
            let name = signer(odd);
            assert!(name.starts_with("spiffe-operator.io/h-"), "{name}");
            assert_eq!(signer_name_error(&name), None);
        }
        assert_ne!(signer("a_b"), signer("a_c"));
    }

    #[test]
    fn refuses_what_the_api_refuses() {
        for name in [
            "a",
            "nodot/x",
            "a.b/",
            "a.b/X",
            "a.b/x/y",
            "kubernetes.io/x",
            "A.b/x",
        ] {
            assert!(signer_name_error(name).is_some(), "{name}");
        }
        assert_eq!(signer_name_error("example.com/a.b-c"), None);
    }

    #[test]
    fn label_values_are_legal() {
        assert_eq!(label_value("example.org"), "example.org");
        for odd in ["", "_x", "a.", &"a".repeat(64)] {
            let value = label_value(odd);
            assert!(value.starts_with("h-") && value.len() <= 63);
        }
    }

    #[test]
    fn names_of_agents_are_legal_and_distinct() {
        let name = |path: &str| {
            let id: SpiffeId = format!("spiffe://example.org{path}").parse().unwrap();
            let name = agent_object_name(&id);
            let is_legal = |label: &str| label.len() <= 63 && is_dns_label(label);
            assert!(name.len() <= MAX_OBJECT_NAME, "{name}");
            assert!(
                name.split('.')
                    .all(|label| !label.is_empty() && is_dns_label(label)),
                "{name}"
            );
            assert!(name.split('.').next_back().is_some_and(is_legal), "{name}");
            name
        };
        let usual = name("/spire/agent/k8s_psat/default/5cc6b2a1");
        assert!(usual.starts_with("k8s-psat.default.5cc6b2a1.h-"), "{usual}");
        assert!(name("/_/-/..a..").starts_with("a.h-"));
        assert!(name("/___").starts_with("h-"));
        assert!(name(&format!("/{}", "a/".repeat(900).trim_end_matches('/'))).starts_with("a.a."));
        assert_ne!(name("/spire/agent/A"), name("/spire/agent/a"));
        assert_ne!(name("/spire/agent/a_b"), name("/spire/agent/a-b"));
    }

    #[test]
    fn object_names_fit() {
        assert_eq!(object_name("td", ".authority"), "td.authority");
        let long = object_name(&"a".repeat(253), ".authority");
        assert!(long.len() <= 253 && long.ends_with(".authority"), "{long}");
    }
}
