//! Whether the operator may sign for a signer name and publish its bundle.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::Instant;

use crate::clusters::{CallError, call};

/// How long an answer is believed: a right that was given shows within a minute, one that was
/// taken away shows at the next attempt to use it.
const BELIEVED_DENIED: Duration = Duration::from_secs(20);
const BELIEVED_ALLOWED: Duration = Duration::from_mins(10);
/// What a signer does.
const VERBS: [&str; 2] = ["sign", "attest"];

/// The rights on one signer name, as last asked for.
#[derive(Debug, Default)]
pub(super) struct Rights {
    last: Option<(String, Vec<&'static str>, Instant)>,
}

impl Rights {
    /// The verbs on `signer_name` that the operator lacks.
    pub(super) async fn missing(
        &mut self,
        client: &Client,
        signer_name: &str,
    ) -> Result<Vec<&'static str>, CallError> {
        if let Some((name, missing, asked)) = &self.last {
            let believed = if missing.is_empty() {
                BELIEVED_ALLOWED
            } else {
                BELIEVED_DENIED
            };
            if name == signer_name && asked.elapsed() < believed {
                return Ok(missing.clone());
            }
        }
        let mut missing = Vec::new();
        for verb in VERBS {
            // RBAC knows `<domain>/*` only as a name of its own, so that both are asked for.
            let domain = signer_name.split('/').next().unwrap_or_default();
            if !may(client, verb, signer_name).await?
                && !may(client, verb, &format!("{domain}/*")).await?
            {
                missing.push(verb);
            }
        }
        self.last = Some((signer_name.into(), missing.clone(), Instant::now()));
        Ok(missing)
    }
}

/// What to add to the operator's ClusterRole, for messages.
pub(super) fn rule_to_add(signer_name: &str, verbs: &[&str]) -> String {
    format!(
        "add this rule to a ClusterRole of the operator: apiGroups: [certificates.k8s.io], \
         resources: [signers], resourceNames: [{signer_name}], verbs: [{}]",
        verbs.join(", ")
    )
}

async fn may(client: &Client, verb: &str, signer_name: &str) -> Result<bool, CallError> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".into()),
                resource: Some("signers".into()),
                name: Some(signer_name.into()),
                verb: Some(verb.into()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
    let answer = call(reviews.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
