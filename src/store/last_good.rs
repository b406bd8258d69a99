//! The last spec of a registering object that could be evaluated, one ConfigMap per object.
//!
//! A broken spec must not take identities away, not even over a restart. The copy lies in the
//! operator's own namespace, because whoever may write an object's status would else register
//! identities. It belongs to one object by UID: an object made anew does not inherit it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, PostParams};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clusters::{CallError, call};
use crate::domains::object_name;

const SPEC_KEY: &str = "spec";
const UID_KEY: &str = "uid";

/// The copies of last good specs.
#[derive(Clone)]
pub struct LastGoodStore {
    config_maps: Api<ConfigMap>,
}

impl LastGoodStore {
    /// The ConfigMaps in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            config_maps: Api::namespaced(client, namespace),
        }
    }

    /// The last good spec of the object of kind `K` with `name` and `uid`, if one was kept.
    ///
    /// # Errors
    /// When the API server does not answer. A copy that does not decode counts as none.
    pub async fn load<K, S>(&self, name: &str, uid: &str) -> Result<Option<S>, CallError>
    where
        K: Resource<DynamicType = ()>,
        S: DeserializeOwned,
    {
        let copy = call(self.config_maps.get_opt(&copy_name::<K>(name))).await?;
        let data = copy.and_then(|copy| copy.data).unwrap_or_default();
        if data.get(UID_KEY).is_none_or(|kept| kept != uid) {
            return Ok(None);
        }
        Ok(data
            .get(SPEC_KEY)
            .and_then(|spec| serde_json::from_str(spec).ok()))
    }

    /// Keeps `spec` as the last good one of `object`; writes only when that is news.
    ///
    /// # Errors
    /// When the API server refuses, or somebody else wrote at the same time.
    pub async fn save<K, S>(
        &self,
        object: &K,
        spec: &S,
        labels: BTreeMap<String, String>,
        owner: OwnerReference,
    ) -> Result<(), CallError>
    where
        K: Resource<DynamicType = ()>,
        S: Serialize,
    {
        let metadata = object.meta();
        let name = copy_name::<K>(metadata.name.as_deref().unwrap_or_default());
        let data = BTreeMap::from([
            (
                SPEC_KEY.to_owned(),
                serde_json::to_string(spec).unwrap_or_default(),
            ),
            (UID_KEY.to_owned(), metadata.uid.clone().unwrap_or_default()),
        ]);
        let existing = call(self.config_maps.get_opt(&name)).await?;
        if existing
            .as_ref()
            .is_some_and(|copy| copy.data.as_ref() == Some(&data))
        {
            return Ok(());
        }
        let copy = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels),
                owner_references: Some(vec![owner]),
                resource_version: existing
                    .as_ref()
                    .and_then(|copy| copy.metadata.resource_version.clone()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        };
        let parameters = PostParams::default();
        match existing {
            Some(_) => call(self.config_maps.replace(&name, &parameters, &copy)).await?,
            None => call(self.config_maps.create(&parameters, &copy)).await?,
        };
        Ok(())
    }
}

/// `<object>.<kind>.last-good`.
fn copy_name<K: Resource<DynamicType = ()>>(name: &str) -> String {
    object_name(name, &format!(".{}.last-good", K::kind(&()).to_lowercase()))
}
