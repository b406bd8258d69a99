//! Child clusters, as far as they can be decided on without them.
//!
//! - [`kubeconfig`]: what a kubeconfig says, and whether it may be used.
//! - [`mod@eks_token`]: the token for an EKS cluster, of AWS credentials.
//! - [`AllowedNames`]: what a child's entries may be called.
//! - [`parent`]: what a stock SPIRE server in the parent's cluster is told of a child.
//! - [`mod@ttl_budget`]: what lifetimes a chain of servers can promise.
//!
//! Pure: no I/O and no clock. Nothing that a kubeconfig names is opened, run or called here.

mod allowed_names;
mod eks_token;
pub mod kubeconfig;
pub mod parent;
mod ttl_budget;

pub use allowed_names::{AllowedNames, PatternError};
pub use eks_token::{AwsCredentials, EKS_TOKEN_LIFETIME, EksToken, eks_token, sts_host};
pub use ttl_budget::{CaLifetime, Tier, TierBudget, TtlBudget, Verdict, ttl_budget};
