//! Tells the registries of which foreign trust domains there are bundles, on every replica.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use crate::clusters::identities::ForeignBundles;
use crate::controllers::trust_domain::TRUST_DOMAIN_LABEL;
use crate::runtime::context::Context;
use crate::runtime::health::Health;
use crate::spiffe::TrustDomainName;
use crate::store::federation;

/// What readiness waits for.
pub(super) const FOREIGN_BUNDLES: &str = "foreign bundles";

/// Follows the ConfigMaps of foreign trust domains, for ever.
pub(super) async fn foreign_bundles(context: Context, health: Health) {
    let cache = &context.caches.federation;
    let mut changes = cache.changes();
    let mut found = Found::default();
    loop {
        changes.borrow_and_update();
        if cache.is_complete() {
            let known = found.look(&cache.all());
            context.identities.set_foreign_bundles(known);
            health.done(FOREIGN_BUNDLES);
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// What was found in each ConfigMap, by name, so that only those are read that have changed.
#[derive(Default)]
struct Found(BTreeMap<String, Content>);

/// Version of a ConfigMap, and the trust domain whose bundle it holds.
type Content = (Option<String>, Option<TrustDomainName>);

impl Found {
    /// What these hold, which are all there are. A bundle that cannot be read counts as none.
    fn look(&mut self, config_maps: &[Arc<ConfigMap>]) -> ForeignBundles {
        let mut before = std::mem::take(&mut self.0);
        let mut known = ForeignBundles::new();
        for config_map in config_maps {
            let (name, version) = (config_map.name_any(), config_map.resource_version());
            let same = before.remove(&name).filter(|(seen, _)| *seen == version);
            let (_, foreign) = same.unwrap_or_else(|| (None, trust_domain_of(config_map)));
            if let Some(domain) = config_map.labels().get(TRUST_DOMAIN_LABEL) {
                let of_domain = known.entry(domain.clone()).or_default();
                of_domain.extend(foreign.clone());
            }
            self.0.insert(name, (version, foreign));
        }
        known
    }
}

/// The trust domain whose bundle the ConfigMap holds.
fn trust_domain_of(config_map: &ConfigMap) -> Option<TrustDomainName> {
    match federation::read(config_map) {
        Ok(known) => known.bundle.map(|bundle| bundle.trust_domain().clone()),
        Err(error) => {
            let error = crate::error_chain(&error);
            tracing::warn!(error, "cannot read a foreign bundle");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config_map(name: &str, version: &str, domain: &str, data: &Value) -> Arc<ConfigMap> {
        let object = json!({
            "metadata": {
                "name": name, "resourceVersion": version,
                "labels": {TRUST_DOMAIN_LABEL: domain},
            },
            "data": data,
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn finds_readable_bundles_and_forgets_what_is_gone() {
        let bundle = r#"{"keys": []}"#;
        let holds = |foreign: &str| json!({"trustDomain": foreign, "bundle": bundle});
        let mut found = Found::default();
        let f = config_map("a.f", "1", "a", &holds("f.org"));
        let all = [
            f.clone(),
            config_map("b.g", "2", "b", &holds("g.org")),
            config_map(
                "b.h",
                "3",
                "b",
                &json!({"trustDomain": "h.org", "bundle": "junk"}),
            ),
            config_map("b.i", "4", "b", &json!({"trustDomain": "i.org"})),
        ];
        let known = |pairs: &[(&str, &[&str])]| -> ForeignBundles {
            let pairs = pairs.iter().map(|(domain, names)| {
                let names = names.iter().map(|name| name.parse().unwrap());
                ((*domain).to_owned(), names.collect())
            });
            pairs.collect()
        };
        let expected = known(&[("a", &["f.org"]), ("b", &["g.org"])]);
        assert_eq!(found.look(&all), expected);
        assert_eq!(found.look(&all), expected, "also without reading again");
        let h = config_map("b.h", "5", "b", &holds("h.org"));
        assert_eq!(
            found.look(&[f.clone(), h]),
            known(&[("a", &["f.org"]), ("b", &["h.org"])])
        );
        let without = config_map("a.f", "6", "a", &json!({"trustDomain": "f.org"}));
        assert_eq!(found.look(&[without]), known(&[("a", &[])]));
    }
}
