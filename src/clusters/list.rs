//! Reading all objects of a kind once.

use std::fmt::Debug;

use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::clusters::{CallError, call};

/// Objects that are asked for at a time.
const PAGE: u32 = 500;

/// All objects of the kind in the cluster; none where the cluster does not serve the kind.
///
/// # Errors
/// When the API server cannot be asked or refuses.
pub async fn list_all<K>(client: &Client) -> Result<Vec<K>, CallError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    let mut parameters = ListParams::default().limit(PAGE);
    let mut objects = Vec::new();
    loop {
        let page = match call(api.list(&parameters)).await {
            Ok(page) => page,
            Err(error) if error.is_not_found() => return Ok(objects),
            Err(error) => return Err(error),
        };
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(objects),
        }
    }
}
