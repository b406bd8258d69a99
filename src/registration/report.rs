//! What the registry tells about objects and pods, for statuses, events and people.

use std::sync::Arc;

use super::{
    entry::{Entry, PodRef, Source},
    entry_error::EntryError,
    lifetimes::ExceedingTtl,
    spec::SpecError,
};
use crate::{
    api::{ClusterSpiffeIdStats, FailingPod},
    spiffe::TrustDomainName,
};

/// Something that happened. The sum of [`Change::Set`] and [`Change::Removed`] is the set of
/// entries in force; the others are news only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The entry is in force, in place of any other with its key.
    Set(Arc<Entry>),
    /// The entry is no longer in force, and no other with its key is.
    Removed(Arc<Entry>, RemovalCause),
    /// An object failed for a pod.
    Failed {
        /// The pod.
        pod: PodRef,
        /// The object.
        source: Arc<Source>,
        /// Why.
        error: Arc<EntryError>,
    },
    /// The entry is declared already by another object, which counts.
    Masked {
        /// The entry that does not count.
        entry: Arc<Entry>,
        /// The object that counts.
        by: Arc<Source>,
    },
}

/// The fact that removed an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalCause {
    /// The time until which it was to count is over.
    Expired,
    /// The object that declared it was deleted, or belongs to another class now.
    ObjectGone,
    /// The pod's own data make it fail now; the failure is in the reports.
    Failed,
    /// The pod has run to its end.
    PodFinished,
    /// The pod was deleted.
    PodGone,
    /// The pod or its namespace is not selected any more.
    NotSelected,
    /// It is another entry now.
    Rewritten,
    /// It was a fallback, and another object serves the pod now.
    Superseded,
}

impl RemovalCause {
    /// CamelCase reason for events and logs.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Expired => "Expired",
            Self::ObjectGone => "ObjectGone",
            Self::Failed => "Failed",
            Self::PodFinished => "PodFinished",
            Self::PodGone => "PodGone",
            Self::NotSelected => "NotSelected",
            Self::Rewritten => "Rewritten",
            Self::Superseded => "Superseded",
        }
    }
}

/// Which spec of an object is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InForce {
    /// The one it has.
    Current,
    /// An earlier one, because the one it has is broken; its generation, where known.
    LastGood(Option<i64>),
    /// None: it has never been right.
    Nothing,
}

/// What was made of a ClusterSPIFFEID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpiffeIdReport {
    /// Counts, as the status has them.
    pub stats: ClusterSpiffeIdStats,
    /// The first pods that it failed for, by namespace and name; `stats` has their number.
    pub failing: Vec<FailingPod>,
    /// What is wrong with its spec.
    pub error: Option<SpecError>,
    /// Which of its specs is in force.
    pub in_force: InForce,
    /// Trust domains in `federatesWith` whose bundles are not known; entries do without them.
    pub unknown_federated: Vec<TrustDomainName>,
    /// Lifetimes that may be cut short.
    pub exceeding_ttls: Vec<ExceedingTtl>,
    /// Objects that mask some of its entries, the first few.
    pub masked_by: Vec<Arc<Source>>,
    /// How many pods wait for [`super::Registry::missing_pod_detail`].
    pub waiting_pods: usize,
}

/// What was made of a ClusterStaticEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticEntryReport {
    /// What is wrong with its spec.
    pub error: Option<SpecError>,
    /// Which of its specs is in force.
    pub in_force: InForce,
    /// The object that masks it.
    pub masked_by: Option<Arc<Source>>,
    /// Trust domains in `federatesWith` whose bundles are not known; the entry does without them.
    pub unknown_federated: Vec<TrustDomainName>,
    /// Lifetimes that may be cut short.
    pub exceeding_ttls: Vec<ExceedingTtl>,
}

impl StaticEntryReport {
    /// Whether the spec is right.
    #[must_use]
    pub fn rendered(&self) -> bool {
        self.error.is_none()
    }

    /// Whether its entry is in force.
    #[must_use]
    pub fn set(&self) -> bool {
        self.in_force != InForce::Nothing && self.masked_by.is_none()
    }
}

/// Why a pod has the entries it has, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodReport {
    /// The pod.
    pub pod: PodRef,
    /// What keeps every object from serving it.
    pub obstacle: Option<Obstacle>,
    /// The objects that select it, by name, and what came of each.
    pub matches: Vec<(Arc<Source>, MatchOutcome)>,
}

/// What keeps a pod from having any entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It has run to its end.
    Finished,
    /// The trust domain ignores its namespace.
    NamespaceIgnored,
    /// Its namespace has not been seen, so that no object can select it.
    NamespaceUnseen,
    /// It has no node yet.
    Unscheduled,
}

/// What came of an object for a pod that it selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchOutcome {
    /// It failed.
    Failed(Arc<EntryError>),
    /// Its entry is in force.
    Issued(Arc<Entry>),
    /// Its entry is declared already by another object, which counts.
    Masked {
        /// The entry that does not count.
        entry: Arc<Entry>,
        /// The object that counts.
        by: Arc<Source>,
    },
    /// The pod has run to its end, or has not been scheduled.
    NotRunning,
    /// It is a fallback, and another object serves the pod.
    Superseded,
    /// It reads fields of pods that are not at hand; what it made before stays.
    Waiting(Option<Arc<Entry>>),
}
