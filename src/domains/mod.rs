//! Trust domains as this operator serves them: a TrustDomain object parsed into values that need
//! no further checking, the names of what it publishes, and which of two that clash must wait.
//!
//! Pure: no I/O and no clock.

mod agent_path;
mod agent_path_functions;
mod conflicts;
mod names;
mod node_attestors;
mod server;
mod settings;
mod upstream;

pub use agent_path::{AgentPathData, AgentPathError, AgentPathTemplate};
pub use conflicts::{Claim, Conflict, conflicts};
pub use names::{
    CLUSTER_TRUST_BUNDLE_SUFFIX, HINT_ANNOTATION, OPERATOR_DOMAIN, REPLACE_AUTHORITY_ANNOTATION,
    SPIFFE_ID_ANNOTATION, agent_object_name, cluster_trust_bundle_labels,
    cluster_trust_bundle_name, default_signer_name, label_value, name_part, object_name,
    signer_name_error,
};
pub use node_attestors::{
    AttestorSettings, CaBundle, K8sPsatSettings, NoServiceAccount, X509PopSettings, X509PopTrust,
};
pub use server::ServerSettings;
pub use settings::{DomainSettings, SettingsError};
pub use upstream::{UpstreamAddress, UpstreamAttestor, UpstreamIdentity, UpstreamSettings};
