//! What a credential for a nested cluster may not do and would have to.
//!
//! One review of rules tells most of it. Where it leaves a right open (rules of a webhook are not
//! in it), a review of access decides about that one.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceRule, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SelfSubjectRulesReview,
    SelfSubjectRulesReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::clusters::{CallError, call};
use crate::nested::rights::{Missing, Needs, Right, unmet};

/// How often the cluster is asked.
const PERIOD: Duration = Duration::from_secs(15);
/// A namespace that no cluster has, so that no Role counts in it.
const NOWHERE: &str = "spiffe-operator-nowhere";

/// What may be done in a namespace; without one, in the whole cluster.
///
/// # Errors
/// When the cluster does not answer, or does not let itself be asked.
pub async fn rules(
    client: &Client,
    namespace: Option<&str>,
) -> Result<Vec<ResourceRule>, CallError> {
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some(namespace.unwrap_or(NOWHERE).into()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let reviews = Api::<SelfSubjectRulesReview>::all(client.clone());
    let review = call(reviews.create(&PostParams::default(), &review)).await?;
    Ok(review.status.unwrap_or_default().resource_rules)
}

/// What of `needs` is not allowed.
///
/// # Errors
/// When the cluster does not answer, or does not let itself be asked.
pub async fn missing_rights(client: &Client, needs: &Needs) -> Result<Vec<Missing>, CallError> {
    let (everywhere, in_namespace): (Vec<_>, Vec<_>) = needs
        .rights()
        .into_iter()
        .partition(|right| right.on.namespace.is_none());
    let mut open = unmet(everywhere, &rules(client, None).await?);
    if let Some(bundle) = &needs.bundle {
        let rules = rules(client, Some(&bundle.namespace)).await?;
        open.extend(unmet(in_namespace, &rules));
    }
    let mut missing = Vec::new();
    for right in open {
        if !is_allowed(client, &right).await? {
            missing.push(right);
        }
    }
    Ok(Missing::of(&missing))
}

async fn is_allowed(client: &Client, right: &Right) -> Result<bool, CallError> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(right.attributes()),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
    let review = call(reviews.create(&PostParams::default(), &review)).await?;
    Ok(review.status.is_some_and(|status| status.allowed))
}

/// Keeps `told` current as the leader, until dropped; what was told stays while the cluster does
/// not answer.
pub(super) async fn keep_asking(
    client: Client,
    mut needs: watch::Receiver<Option<Needs>>,
    mut leadership: watch::Receiver<bool>,
    told: watch::Sender<Option<Vec<Missing>>>,
) {
    loop {
        let needed = needs.borrow_and_update().clone();
        let leads = *leadership.borrow_and_update();
        if let Some(needed) = needed.filter(|_| leads) {
            match missing_rights(&client, &needed).await {
                Ok(missing) => {
                    told.send_if_modified(|old| {
                        let missing = Some(missing);
                        let changed = *old != missing;
                        *old = missing;
                        changed
                    });
                }
                Err(error) => {
                    let error = crate::error_chain(&error);
                    tracing::debug!(error, "cannot ask a nested cluster what is allowed there");
                }
            }
        }
        tokio::select! {
            changed = needs.changed() => if changed.is_err() { return },
            _ = leadership.changed() => {}
            () = sleep(PERIOD) => {}
        }
    }
}
