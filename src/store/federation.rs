//! What one trust domain knows of others: their bundles, and where those come from. One ConfigMap
//! for each foreign trust domain, since nothing of it is secret.
//!
//! A watch keeps the bundles in memory, for agents and for the verification of clients. What
//! administrators read and write goes to the API server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};

use crate::clusters::cache::Cache;
use crate::clusters::{CallError, call};
use crate::domains::object_name;
use crate::runtime::metrics::Metrics;
use crate::spiffe::{Bundle, BundleError, SpiffeId, TrustDomainName};
use crate::store::{is_labelled, is_to_be_owned_otherwise, label_selector};

/// Label of the ConfigMaps, beside those of the trust domain.
const LABEL: &str = "spiffe-operator.io/federation";
/// Keys of the ConfigMaps' data: the name of the foreign trust domain, its SPIFFE bundle document,
/// and the relationship as JSON.
const TRUST_DOMAIN: &str = "trustDomain";
const BUNDLE: &str = "bundle";
const RELATIONSHIP: &str = "relationship";
/// Largest bundle document in bytes; a ConfigMap holds a mebibyte.
const MAX_BUNDLE: usize = 512 * 1024;
/// How often a write is decided anew because somebody else was faster.
const ATTEMPTS: usize = 8;
/// Objects that are asked for at a time.
const PAGE: u32 = 500;

/// All ConfigMaps with foreign trust domains in the operator's namespace, kept current by a watch.
pub type FederationCache = Cache<ConfigMap>;

/// Starts that watch.
#[must_use]
pub fn watch_federation(client: Client, namespace: &str, metrics: Arc<Metrics>) -> FederationCache {
    let config_maps = Api::namespaced(client, namespace);
    let config = watcher::Config::default().labels(LABEL);
    let watch = watcher::watcher(config_maps, config);
    Cache::start(watch, "ConfigMap of federation", metrics)
}

/// Where the bundle of a foreign trust domain comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FederationRelationship {
    /// URL of its bundle endpoint.
    pub bundle_endpoint_url: String,
    /// How the endpoint is known.
    pub profile: EndpointProfile,
}

/// How a bundle endpoint is known (SPIFFE Federation §5.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointProfile {
    /// By a certificate of the web's PKI.
    HttpsWeb,
    /// By an X.509-SVID.
    HttpsSpiffe {
        /// Its SPIFFE ID.
        endpoint_spiffe_id: SpiffeId,
    },
}

/// What is known of a foreign trust domain: something of it, at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignTrustDomain {
    /// Its name.
    pub trust_domain: TrustDomainName,
    /// Its bundle.
    pub bundle: Option<Bundle>,
    /// Where that comes from.
    pub relationship: Option<FederationRelationship>,
}

/// Why what is known of a foreign trust domain could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FederationError {
    /// The API server did not give or take it.
    #[error("cannot read or write what is known of the trust domain")]
    Call {
        /// Why.
        #[from]
        source: CallError,
    },
    /// Others wrote it each time.
    #[error("what is known of the trust domain is being written by others all the time")]
    Contended,
    /// The bundle that is stored cannot be read.
    #[error("ConfigMap {name} holds no bundle: {source}")]
    Bundle {
        /// Name of the ConfigMap.
        name: String,
        /// What is wrong with it.
        source: BundleError,
    },
    /// What is stored beside the bundle cannot be read.
    #[error("ConfigMap {name} is damaged: {message}")]
    Damaged {
        /// Name of the ConfigMap.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// The bundle is too large.
    #[error("the bundle has {length} bytes; {MAX_BUNDLE} are allowed")]
    TooLarge {
        /// Its length as a document.
        length: usize,
    },
}

/// Not all that is known of foreign trust domains has been seen yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("foreign bundles have not been read yet")]
pub struct NotYetSeen;

/// What one trust domain knows of others.
#[derive(Clone)]
pub struct FederationStore {
    config_maps: Api<ConfigMap>,
    cache: Arc<FederationCache>,
    object: String,
    labels: BTreeMap<String, String>,
    owner: Option<OwnerReference>,
    parsed: Arc<Mutex<BTreeMap<String, ParsedBundle>>>,
}

/// A bundle, and the `resourceVersion` of the ConfigMap that it was read from.
type ParsedBundle = (Option<String>, Option<Arc<Bundle>>);

impl FederationStore {
    /// What the TrustDomain object `object` knows, in ConfigMaps that lie in `namespace`, have these
    /// `labels`, and go with the `owner` where one is given.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        cache: Arc<FederationCache>,
        object: &str,
        mut labels: BTreeMap<String, String>,
        owner: Option<OwnerReference>,
    ) -> Self {
        labels.insert(LABEL.into(), "true".into());
        Self {
            config_maps: Api::namespaced(client, namespace),
            cache,
            object: object.into(),
            labels,
            owner,
            parsed: Arc::default(),
        }
    }

    /// The bundle of `foreign`, as far as the watch has seen. One that cannot be read counts as none.
    ///
    /// # Errors
    /// Before all were seen once.
    pub fn known_bundle(
        &self,
        foreign: &TrustDomainName,
    ) -> Result<Option<Arc<Bundle>>, NotYetSeen> {
        if !self.cache.is_complete() {
            return Err(NotYetSeen);
        }
        let name = self.name(foreign);
        let namespace = self.config_maps.namespace().unwrap_or_default();
        let Some(config_map) = self.cache.get(namespace, &name) else {
            return Ok(None);
        };
        let version = config_map.resource_version();
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, bundle)) = parsed.get(&name)
            && *known == version
        {
            return Ok(bundle.clone());
        }
        let bundle = readable(&config_map).and_then(|known| known.bundle.map(Arc::new));
        parsed.insert(name, (version, bundle.clone()));
        Ok(bundle)
    }

    /// How many foreign bundles there are, as far as the watch has seen.
    #[must_use]
    pub fn known_bundles(&self) -> usize {
        let has_bundle = |config_map: &&Arc<ConfigMap>| {
            let data = config_map.data.as_ref();
            self.is_ours(config_map) && data.is_some_and(|data| data.contains_key(BUNDLE))
        };
        self.cache.all().iter().filter(has_bundle).count()
    }

    /// What is known of `foreign`, as it is now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn get(
        &self,
        foreign: &TrustDomainName,
    ) -> Result<Option<ForeignTrustDomain>, FederationError> {
        let config_map = call(self.config_maps.get_opt(&self.name(foreign))).await?;
        config_map.as_ref().map(read).transpose()
    }

    /// All that is known, as it is now, by name of the trust domain. What cannot be read is left out.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn list(&self) -> Result<Vec<ForeignTrustDomain>, FederationError> {
        let labels = label_selector(&self.labels);
        let mut parameters = ListParams::default().labels(&labels).limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = call(self.config_maps.list(&parameters)).await?;
            let ours = page.items.iter().filter(|it| self.is_ours(it));
            found.extend(ours.filter_map(readable));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => break,
            }
        }
        found.sort_by(|a, b| a.trust_domain.cmp(&b.trust_domain));
        Ok(found)
    }

    /// Has all that is known go with the owner, or stay without it, as is wished by now.
    ///
    /// # Errors
    /// When a ConfigMap cannot be written; that is left for the next time, and no other.
    pub async fn correct_owners(&self) -> Result<(), CallError> {
        let mut outcome = Ok(());
        for config_map in self.cache.all() {
            let metadata = &config_map.metadata;
            if !is_to_be_owned_otherwise(metadata, &self.labels, self.owner.as_ref()) {
                continue;
            }
            let mut corrected = ConfigMap::clone(&config_map);
            corrected.metadata.owner_references = self.owner.clone().map(|owner| vec![owner]);
            let (name, parameters) = (config_map.name_any(), PostParams::default());
            let written = call(self.config_maps.replace(&name, &parameters, &corrected)).await;
            outcome = outcome.and(match written {
                Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error),
                _ => Ok(()),
            });
        }
        outcome
    }

    /// Changes what is known of `foreign`, and gives what is stored then. `change` sees what is
    /// known as it is now, and may refuse; it is called anew where somebody else wrote first. What
    /// has neither bundle nor relationship left is deleted.
    ///
    /// # Errors
    /// As `change` refuses, or when it cannot be read or written.
    pub async fn change<E: From<FederationError>>(
        &self,
        foreign: &TrustDomainName,
        change: impl Fn(&mut ForeignTrustDomain) -> Result<(), E>,
    ) -> Result<ForeignTrustDomain, E> {
        let name = self.name(foreign);
        for _ in 0..ATTEMPTS {
            let stored = call(self.config_maps.get_opt(&name)).await;
            let stored = stored.map_err(FederationError::from)?;
            let mut known = match &stored {
                Some(config_map) => read(config_map)?,
                None => ForeignTrustDomain {
                    trust_domain: foreign.clone(),
                    bundle: None,
                    relationship: None,
                },
            };
            let before = known.clone();
            change(&mut known)?;
            if known == before || self.write(&known, stored).await? {
                return Ok(known);
            }
        }
        Err(FederationError::Contended.into())
    }

    /// Whether it was written: somebody else may have been faster.
    async fn write(
        &self,
        known: &ForeignTrustDomain,
        stored: Option<ConfigMap>,
    ) -> Result<bool, FederationError> {
        let name = self.name(&known.trust_domain);
        let previous = stored.map(|stored| stored.metadata);
        if known.bundle.is_none() && known.relationship.is_none() {
            let preconditions =
                previous.map_or_else(Preconditions::default, |previous| Preconditions {
                    uid: previous.uid,
                    resource_version: previous.resource_version,
                });
            let parameters = DeleteParams::default().preconditions(preconditions);
            return is_done(call(self.config_maps.delete(&name, &parameters)).await);
        }
        let config_map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(self.labels.clone()),
                owner_references: self.owner.clone().map(|owner| vec![owner]),
                resource_version: previous.as_ref().and_then(|it| it.resource_version.clone()),
                ..ObjectMeta::default()
            },
            data: Some(data(known)?),
            ..ConfigMap::default()
        };
        let parameters = PostParams::default();
        match previous {
            Some(_) => {
                is_done(call(self.config_maps.replace(&name, &parameters, &config_map)).await)
            }
            None => is_done(call(self.config_maps.create(&parameters, &config_map)).await),
        }
    }

    /// `<object>.federation.<foreign trust domain, or a hash of it>`.
    fn name(&self, foreign: &TrustDomainName) -> String {
        let suffix = format!(
            ".federation.{}",
            crate::domains::name_part(foreign.as_str())
        );
        object_name(&self.object, &suffix)
    }

    fn is_ours(&self, config_map: &ConfigMap) -> bool {
        is_labelled(&config_map.metadata, &self.labels)
    }
}

/// What a ConfigMap holds; nothing when it is damaged, which holds up no other.
fn readable(config_map: &ConfigMap) -> Option<ForeignTrustDomain> {
    let known = read(config_map).map_err(|error| {
        let error = crate::error_chain(&error);
        tracing::warn!(error, "cannot read what is known of a foreign trust domain");
    });
    known.ok()
}

/// What a ConfigMap holds.
///
/// # Errors
/// When it is damaged.
pub fn read(config_map: &ConfigMap) -> Result<ForeignTrustDomain, FederationError> {
    let name = || config_map.name_any();
    let damaged = |message: String| FederationError::Damaged {
        name: name(),
        message,
    };
    let field = |key: &str| config_map.data.as_ref().and_then(|data| data.get(key));
    let trust_domain = field(TRUST_DOMAIN).map_or("", String::as_str);
    let trust_domain: TrustDomainName = trust_domain
        .parse()
        .map_err(|error| damaged(format!("{TRUST_DOMAIN}: {error}")))?;
    let bundle = field(BUNDLE)
        .map(|document| Bundle::from_document(trust_domain.clone(), document.as_bytes()))
        .transpose()
        .map_err(|source| FederationError::Bundle {
            name: name(),
            source,
        })?;
    let relationship = field(RELATIONSHIP)
        .map(|json| serde_json::from_str(json))
        .transpose()
        .map_err(|error| damaged(format!("{RELATIONSHIP}: {error}")))?;
    Ok(ForeignTrustDomain {
        trust_domain,
        bundle,
        relationship,
    })
}

fn data(known: &ForeignTrustDomain) -> Result<BTreeMap<String, String>, FederationError> {
    let mut data = BTreeMap::from([(TRUST_DOMAIN.into(), known.trust_domain.to_string())]);
    if let Some(bundle) = &known.bundle {
        let document = bundle.to_document();
        if document.len() > MAX_BUNDLE {
            return Err(FederationError::TooLarge {
                length: document.len(),
            });
        }
        data.insert(BUNDLE.into(), document);
    }
    if let Some(relationship) = &known.relationship {
        // Strings only: this cannot fail.
        let json = serde_json::to_string(relationship).unwrap_or_default();
        data.insert(RELATIONSHIP.into(), json);
    }
    Ok(data)
}

/// Whether nobody else was faster.
fn is_done<T>(outcome: Result<T, CallError>) -> Result<bool, FederationError> {
    match outcome {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() || error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
