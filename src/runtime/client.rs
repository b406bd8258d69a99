//! Clients of clusters.

use std::path::Path;
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::runtime::paced_watches::PacedWatches;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection may be silent while something is read from it: a list, or a watch, on which
/// kube-apiserver sends a bookmark every minute. A network that loses packets shows within this time.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The configuration is of no use to the client.
    #[error("cannot make a client")]
    Build {
        /// Why.
        source: kube::Error,
    },
    /// Neither a kubeconfig nor a service account.
    #[error("no cluster: give --kubeconfig, or run in a pod with a service account")]
    Infer {
        /// Why.
        source: kube::config::InferConfigError,
    },
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig")]
    Kubeconfig {
        /// Why.
        #[from]
        source: KubeconfigError,
    },
}

/// Makes a client from `kubeconfig`, or from where kubectl and pods find their cluster.
///
/// # Errors
/// When there is no usable configuration. The cluster itself is not asked.
pub async fn client(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<Client, ClientError> {
    build(config(kubeconfig, context).await?)
}

/// What such a client is made of.
///
/// # Errors
/// When there is no usable configuration. The cluster itself is not asked.
pub async fn config(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<Config, ClientError> {
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    Ok(match kubeconfig {
        Some(path) => {
            Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?
        }
        None if context.is_some() => Config::from_kubeconfig(&options).await?,
        None => Config::infer()
            .await
            .map_err(|source| ClientError::Infer { source })?,
    })
}

/// Makes a client with the deadlines that all have.
///
/// # Errors
/// When the configuration is of no use to it.
pub fn build(mut config: Config) -> Result<Client, ClientError> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.write_timeout = Some(WRITE_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    let builder =
        ClientBuilder::try_from(config).map_err(|source| ClientError::Build { source })?;
    Ok(builder.with_layer(&PacedWatches::default()).build())
}
