//! What an attestor asks of a cluster: whose a token is, and the pod and the node behind it.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::clusters::{CallError, call};

/// Asks one cluster.
#[derive(Clone)]
pub struct Reviews {
    client: Client,
}

impl Reviews {
    /// Asks the cluster that `client` reaches.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Whose `token` is, for one of `audiences`; none for that of the API server.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<TokenReviewStatus, CallError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.into(),
                audiences: (!audiences.is_empty()).then(|| audiences.to_vec()),
            },
            ..TokenReview::default()
        };
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let review = call(reviews.create(&PostParams::default(), &review)).await?;
        Ok(review.status.unwrap_or_default())
    }

    /// A pod, as it is now.
    ///
    /// # Errors
    /// When there is none, or the cluster does not answer.
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Pod, CallError> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        call(pods.get(name)).await
    }

    /// A node, as it is now.
    ///
    /// # Errors
    /// When there is none, or the cluster does not answer.
    pub async fn node(&self, name: &str) -> Result<Node, CallError> {
        call(Api::<Node>::all(self.client.clone()).get(name)).await
    }
}
