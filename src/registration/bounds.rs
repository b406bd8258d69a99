//! What limits the entries of a nested cluster, whoever declared them. Pure.
//!
//! Whoever rules a cluster can make up any namespace, service account and node in it. So agents of a
//! nested cluster always lie under its name, and its SPIFFE IDs and DNS names can be bound to
//! patterns.

use super::entry_error::EntryError;
use crate::spiffe::SpiffeId;

/// The limits of one nested cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterBounds {
    cluster_name: String,
    ids: Vec<Pattern>,
    dns_names: Vec<Pattern>,
}

/// Why limits cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BoundsError {
    /// No pattern of SPIFFE IDs' paths.
    #[error("allowedIDs: {pattern:?} is no pattern of paths: {problem}")]
    Id {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No pattern of DNS names.
    #[error("allowedDNSNames: {pattern:?} is no pattern of DNS names: {problem}")]
    DnsName {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Parts in which `*` stands for any text, and whether one or more others follow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    parts: Vec<String>,
    is_open: bool,
}

impl ClusterBounds {
    /// The limits of the cluster with this name. `ids` are patterns of paths such as `/ns/*/sa/*`:
    /// `*` stands for any text within a segment, `**` at the end for one segment or more. `dns_names`
    /// are patterns such as `*.shop.example.org`: `*` stands for any text within a label, `**` in front
    /// for one label or more. No patterns allow everything.
    ///
    /// # Errors
    /// The first pattern that is none.
    pub fn parse(
        cluster_name: &str,
        ids: &[String],
        dns_names: &[String],
    ) -> Result<Self, BoundsError> {
        let id = |pattern: &String| {
            let failed = |problem| BoundsError::Id {
                pattern: pattern.clone(),
                problem,
            };
            let path = pattern.strip_prefix('/');
            let path = path.ok_or_else(|| failed("it does not begin with /"))?;
            Pattern::parse(path.split('/')).map_err(failed)
        };
        let dns_name = |pattern: &String| {
            let lower = pattern.to_ascii_lowercase();
            Pattern::parse(lower.rsplit('.')).map_err(|problem| BoundsError::DnsName {
                pattern: pattern.clone(),
                problem,
            })
        };
        Ok(Self {
            cluster_name: cluster_name.to_owned(),
            ids: ids.iter().map(id).collect::<Result<_, _>>()?,
            dns_names: dns_names.iter().map(dns_name).collect::<Result<_, _>>()?,
        })
    }

    /// Name of the cluster.
    #[must_use]
    pub fn cluster_name(&self) -> &str {
        &self.cluster_name
    }

    /// Checks that an agent with `id` can be one of the cluster's.
    pub(super) fn check_parent_id(&self, id: &SpiffeId) -> Result<(), EntryError> {
        if agents_cluster(id) == Some(&self.cluster_name) {
            return Ok(());
        }
        Err(EntryError::OutOfBounds {
            what: "parent ID",
            value: id.to_string(),
            cluster: self.cluster_name.clone(),
        })
    }

    /// Checks that a workload of the cluster may have `id`.
    pub(super) fn check_id(&self, id: &SpiffeId) -> Result<(), EntryError> {
        let path = id.path().strip_prefix('/').unwrap_or_default();
        if self.ids.is_empty() || self.ids.iter().any(|it| it.matches(path.split('/'))) {
            return Ok(());
        }
        Err(EntryError::OutOfBounds {
            what: "SPIFFE ID",
            value: id.to_string(),
            cluster: self.cluster_name.clone(),
        })
    }

    /// Whether a workload of the cluster may have the DNS name `name`.
    pub(super) fn allows_dns_name(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.dns_names.is_empty() || self.dns_names.iter().any(|it| it.matches(name.rsplit('.')))
    }

    /// Checks that a workload of the cluster may have the DNS name `name`.
    pub(super) fn check_dns_name(&self, name: &str) -> Result<(), EntryError> {
        if self.allows_dns_name(name) {
            return Ok(());
        }
        Err(EntryError::OutOfBounds {
            what: "DNS name",
            value: name.to_owned(),
            cluster: self.cluster_name.clone(),
        })
    }
}

/// Name of the cluster that an agent which attested by `k8s_psat` is in.
#[must_use]
pub fn agents_cluster(agent: &SpiffeId) -> Option<&str> {
    let (cluster, node) = agent
        .path()
        .strip_prefix("/spire/agent/k8s_psat/")?
        .split_once('/')?;
    (!node.is_empty()).then_some(cluster)
}

impl Pattern {
    fn parse<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Self, &'static str> {
        let mut parts: Vec<_> = parts.map(str::to_owned).collect();
        let is_open = parts.pop_if(|last| last == "**").is_some();
        if parts.iter().any(String::is_empty) {
            return Err("a part of it is empty");
        }
        if parts.iter().any(|part| part.contains("**")) {
            return Err("** stands for whole parts, and at one end only");
        }
        Ok(Self { parts, is_open })
    }

    fn matches<'a>(&self, mut texts: impl Iterator<Item = &'a str>) -> bool {
        let fits = |pattern: &String| texts.next().is_some_and(|text| part_fits(pattern, text));
        self.parts.iter().all(fits) && texts.next().is_some() == self.is_open
    }
}

/// Whether `text` is `pattern`, with any text for each `*`.
fn part_fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut middles: Vec<_> = rest.split('*').collect();
    let last = middles.pop().unwrap_or_default();
    for middle in middles {
        let Some((_, after)) = text.split_once(middle) else {
            return false;
        };
        text = after;
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(ids: &[&str], dns_names: &[&str]) -> Result<ClusterBounds, BoundsError> {
        let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        ClusterBounds::parse("child01", &owned(ids), &owned(dns_names))
    }

    fn id(path: &str) -> SpiffeId {
        format!("spiffe://e.org{path}").parse().unwrap()
    }

    #[test]
    fn a_pattern_of_paths_matches_segment_by_segment() {
        for (pattern, path, fits) in [
            ("/ns/*/sa/*", "/ns/shop/sa/web", true),
            ("/ns/*/sa/*", "/ns/shop/sa/web/admin", false),
            ("/ns/*/sa/*", "/ns/shop/sa", false),
            ("/ns/*/sa/*", "/ns/a/b/sa/web", false),
            ("/ns/shop-*/sa/*", "/ns/shop-1/sa/web", true),
            ("/ns/shop-*/sa/*", "/ns/other/sa/web", false),
            ("/child01/**", "/child01/ns/shop", true),
            ("/child01/**", "/child01", false),
            ("/child01/**", "/child011/ns", false),
            ("/**", "/anything/at/all", true),
            ("/a*b*c", "/axxbyyc", true),
            ("/a*b*c", "/axxc", false),
            ("/a*a", "/a", false),
            ("/ns/shop", "/ns/shop", true),
            ("/ns/Shop", "/ns/shop", false),
        ] {
            let checked = bounds(&[pattern], &[]).unwrap().check_id(&id(path));
            assert_eq!(checked.is_ok(), fits, "{pattern} {path}");
        }
        let two = bounds(&["/a", "/b"], &[]).unwrap();
        assert!(two.check_id(&id("/b")).is_ok());
        let error = two.check_id(&id("/c")).unwrap_err();
        assert_eq!(error.reason(), "OutOfBounds");
        assert!(error.to_string().contains("child01"), "{error}");
    }

    #[test]
    fn a_pattern_of_dns_names_matches_label_by_label() {
        for (pattern, name, fits) in [
            ("*.shop.example.org", "web.shop.example.org", true),
            ("*.shop.example.org", "WEB.Shop.example.org", true),
            ("*.shop.example.org", "a.web.shop.example.org", false),
            ("*.shop.example.org", "shop.example.org", false),
            ("**.example.org", "a.web.example.org", true),
            ("**.example.org", "example.org", false),
            ("web", "web", true),
            ("web-*", "web-1", true),
        ] {
            let bounds = bounds(&[], &[pattern]).unwrap();
            assert_eq!(bounds.allows_dns_name(name), fits, "{pattern} {name}");
            assert_eq!(bounds.check_dns_name(name).is_ok(), fits);
        }
    }

    #[test]
    fn without_patterns_everything_is_allowed() {
        let bounds = bounds(&[], &[]).unwrap();
        assert!(bounds.check_id(&id("/anything")).is_ok());
        assert!(bounds.allows_dns_name("anything"));
    }

    #[test]
    fn agents_lie_under_the_name_of_their_cluster() {
        let bounds = bounds(&[], &[]).unwrap();
        for (path, fits) in [
            ("/spire/agent/k8s_psat/child01/node", true),
            ("/spire/agent/k8s_psat/child01/a/b", true),
            ("/spire/agent/k8s_psat/child01", false),
            ("/spire/agent/k8s_psat/child02/node", false),
            ("/spire/agent/k8s_psat/child011/node", false),
            ("/spire/agent/x509pop/child01/node", false),
            ("/spire/server", false),
        ] {
            assert_eq!(bounds.check_parent_id(&id(path)).is_ok(), fits, "{path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (ids, names, problem) in [
            (&["ns/*"][..], &[][..], "does not begin with /"),
            (&["/ns//sa"], &[], "empty"),
            (&["/"], &[], "empty"),
            (&["/**/sa"], &[], "at one end"),
            (&["/ns**"], &[], "at one end"),
            (&[], &["a.**"], "at one end"),
            (&[], &["a..b"], "empty"),
            (&[], &[""], "empty"),
        ] {
            let error = bounds(ids, names).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
