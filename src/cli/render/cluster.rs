//! Objects of the current cluster, in place of files.

use kube::core::DeserializeGuard;
use kube::{Client, Resource};

use crate::cli::render::read::Objects;
use crate::clusters::CallError;
use crate::clusters::list::list_all;
use crate::runtime::client::{ClientError, client};

/// Reads everything that takes part in registration from the cluster that kubectl would talk to.
///
/// # Errors
/// When there is no cluster, or it cannot be asked, in one line.
pub(super) fn objects(context: Option<&str>) -> Result<Objects, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(async {
        let client = client(None, context).await.map_err(|error| match error {
            ClientError::Infer { .. } => "no cluster: set KUBECONFIG to a kubeconfig, or leave \
                    --from-cluster out"
                .to_owned(),
            error => crate::error_chain(&error),
        })?;
        read(&client)
            .await
            .map_err(|error| format!("cannot read the cluster: {}", error.message()))
    })
}

async fn read(client: &Client) -> Result<Objects, CallError> {
    let mut errors = Vec::new();
    Ok(Objects {
        trust_domains: decoded(list_all(client).await?, &mut errors),
        cluster_spiffe_ids: decoded(list_all(client).await?, &mut errors),
        cluster_static_entries: decoded(list_all(client).await?, &mut errors),
        pods: list_all(client).await?,
        namespaces: list_all(client).await?,
        nodes: list_all(client).await?,
        endpoint_slices: list_all(client).await?,
        notes: Vec::new(),
        errors,
    })
}

fn decoded<K>(objects: Vec<DeserializeGuard<K>>, errors: &mut Vec<String>) -> Vec<K>
where
    K: Resource<DynamicType = ()>,
{
    let mut good = Vec::new();
    for DeserializeGuard(object) in objects {
        match object {
            Ok(object) => good.push(object),
            Err(invalid) => {
                let name = invalid.metadata.name.unwrap_or_default();
                errors.push(format!("{} {name}: {}", K::kind(&()), invalid.error));
            }
        }
    }
    good
}
