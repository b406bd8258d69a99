//! Entries that are made through the Entry API, one RegistrationEntry each.
//!
//! Any replica writes. A write is over once this replica's registries know of it, so that whoever
//! wrote reads what they wrote; [`RegistrationEntryStore::catch_up`] does the same for what other
//! replicas wrote.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::api::{RegistrationEntry, RegistrationEntrySpec};
use crate::clusters::identities::{Expired, Identities};
use crate::clusters::{CallError, call};
use crate::registration::{
    Entry, EntryId, RegistrationEntryError, parse_registration_entry, registration_entry_name,
};
use crate::spiffe::TrustDomainName;

/// How long the watch may lag behind a write before the caller is told to try again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often an update is tried that others get in the way of.
const ATTEMPTS: usize = 8;
/// Objects in one page of a list.
const PAGE: u32 = 1000;

/// The RegistrationEntries of all trust domains.
pub struct RegistrationEntryStore {
    objects: Api<RegistrationEntry>,
    identities: Arc<Identities>,
    /// How many looks at everything have begun.
    begun: AtomicU64,
    /// The last look that was successful.
    done: Mutex<u64>,
}

/// What became of an entry that was to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was made.
    New(Arc<Entry>),
    /// There is an entry with the same SPIFFE ID, parent ID and selectors.
    Exists(Arc<Entry>),
}

/// Why an entry was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The Kubernetes API refused or did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Others changed it each time.
    #[error("others changed it at the same time; try again")]
    Conflict,
    /// An entry with the same ID says something else.
    #[error("there is another entry with this ID")]
    IdTaken,
    /// What is to be written is no entry.
    #[error(transparent)]
    Invalid(#[from] RegistrationEntryError),
    /// The trust domain has no such entry.
    #[error("there is no such entry")]
    NotFound,
    /// It was written, but this replica's watch does not show it.
    #[error("it was written, but the watch of this replica lags behind; try again")]
    NotSeen,
}

/// Why it is not known whether all was seen that was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatchUpError {
    /// The Kubernetes API refused or did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// This replica's watch lags behind.
    #[error("the watch of this replica lags behind; try again")]
    NotSeen,
}

impl RegistrationEntryStore {
    /// The objects that `client` reaches, as `identities` sees them.
    #[must_use]
    pub fn new(client: Client, identities: Arc<Identities>) -> Self {
        Self {
            objects: Api::all(client),
            identities,
            begun: AtomicU64::new(0),
            done: Mutex::new(0),
        }
    }

    /// Makes an entry in the trust domain of the TrustDomain object `domain`, unless it has one that
    /// says the same.
    ///
    /// # Errors
    /// When it could not be written, or it is not known whether it was.
    pub async fn create(
        &self,
        domain: &str,
        trust_domain: &TrustDomainName,
        spec: RegistrationEntrySpec,
    ) -> Result<Created, WriteError> {
        self.create_owned(domain, trust_domain, spec, None).await
    }

    /// As [`Self::create`]; the entry goes with the `owner` where one is given.
    ///
    /// # Errors
    /// When it could not be written, or it is not known whether it was.
    pub async fn create_owned(
        &self,
        domain: &str,
        trust_domain: &TrustDomainName,
        spec: RegistrationEntrySpec,
        owner: Option<OwnerReference>,
    ) -> Result<Created, WriteError> {
        let id = EntryId::from_text(&spec.entry_id);
        let name = registration_entry_name(trust_domain, &id);
        let mut object = RegistrationEntry::new(&name, spec);
        object.metadata.owner_references = owner.map(|owner| vec![owner]);
        let wanted = parse_registration_entry(&object)?;
        let written = match call(self.objects.create(&PostParams::default(), &object)).await {
            Ok(written) => written,
            Err(error) if error.is_conflict() => {
                let existing = call(self.objects.get_opt(&name)).await?;
                let existing = existing.ok_or(WriteError::Conflict)?;
                self.saw(&existing).await?;
                let existing = parse_registration_entry(&existing)?;
                let is_same = existing.key == wanted.key;
                let existing = is_same.then(|| Arc::new(existing));
                return existing.map(Created::Exists).ok_or(WriteError::IdTaken);
            }
            Err(error) => return Err(error.into()),
        };
        let entry = parse_registration_entry(&written)?;
        self.saw(&written).await?;
        // Two replicas may make the same entry at once. All see them in one order, so that they
        // agree on whose it is.
        if let Some(rival) = self.identities.rival_before(domain, &entry) {
            self.delete(trust_domain, &entry.id).await?;
            return Ok(Created::Exists(rival));
        }
        Ok(Created::New(Arc::new(entry)))
    }

    /// Puts what `change` makes of an entry's spec in its place.
    ///
    /// # Errors
    /// Those of `change`, and when it could not be written, or it is not known whether it was.
    pub async fn update<E: From<WriteError>>(
        &self,
        trust_domain: &TrustDomainName,
        id: &EntryId,
        change: impl Fn(RegistrationEntrySpec) -> Result<RegistrationEntrySpec, E>,
    ) -> Result<Arc<Entry>, E> {
        let name = registration_entry_name(trust_domain, id);
        for _ in 0..ATTEMPTS {
            let found = call(self.objects.get_opt(&name)).await;
            let found = found.map_err(WriteError::from)?;
            let mut object = found.ok_or(WriteError::NotFound)?;
            object.spec = change(object.spec)?;
            parse_registration_entry(&object).map_err(WriteError::from)?;
            let parameters = PostParams::default();
            match call(self.objects.replace(&name, &parameters, &object)).await {
                Ok(written) => {
                    let entry = parse_registration_entry(&written).map_err(WriteError::from)?;
                    self.saw(&written).await?;
                    return Ok(Arc::new(entry));
                }
                Err(error) if error.is_conflict() => {}
                Err(error) if error.is_not_found() => return Err(WriteError::NotFound.into()),
                Err(error) => return Err(WriteError::from(error).into()),
            }
        }
        Err(WriteError::Conflict.into())
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// When there is none, or it could not be deleted.
    pub async fn delete(
        &self,
        trust_domain: &TrustDomainName,
        id: &EntryId,
    ) -> Result<(), WriteError> {
        let name = registration_entry_name(trust_domain, id);
        let deleted = match call(self.objects.delete(&name, &DeleteParams::default())).await {
            Ok(deleted) => deleted,
            Err(error) if error.is_not_found() => return Err(WriteError::NotFound),
            Err(error) => return Err(error.into()),
        };
        let uid = deleted
            .either(
                |object| object.uid(),
                |status| status.details.map(|details| details.uid),
            )
            .unwrap_or_default();
        let seen = self.identities.saw_no_registration_entry(&name, &uid);
        timeout(PATIENCE, seen)
            .await
            .map_err(|_| WriteError::NotSeen)
    }

    /// Deletes a RegistrationEntry whose time is over, unless it was changed since.
    ///
    /// # Errors
    /// When the Kubernetes API does not answer.
    pub async fn delete_expired(&self, expired: &Expired) -> Result<(), CallError> {
        let parameters = DeleteParams::default().preconditions(Preconditions {
            resource_version: Some(expired.version.to_string()),
            uid: Some(expired.uid.to_string()),
        });
        match call(self.objects.delete(&expired.name, &parameters)).await {
            Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// The entry with this ID, as it is now, once this replica's registries know of it.
    ///
    /// # Errors
    /// When the Kubernetes API does not answer, or the watch lags behind.
    pub async fn get(
        &self,
        trust_domain: &TrustDomainName,
        id: &EntryId,
    ) -> Result<Option<Arc<Entry>>, WriteError> {
        let name = registration_entry_name(trust_domain, id);
        let Some(object) = call(self.objects.get_opt(&name)).await? else {
            return Ok(None);
        };
        self.saw(&object).await?;
        Ok(parse_registration_entry(&object).ok().map(Arc::new))
    }

    /// Waits until this replica's registries know of all that was written before the call, by
    /// whomever. Callers at the same time share the work.
    ///
    /// # Errors
    /// When the Kubernetes API does not answer, or the watch lags behind.
    pub async fn catch_up(&self) -> Result<(), CatchUpError> {
        let begun_before = self.begun.load(Ordering::SeqCst);
        let mut done = self.done.lock().await;
        if *done > begun_before {
            return Ok(());
        }
        let this = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        self.look().await?;
        *done = this;
        Ok(())
    }

    async fn look(&self) -> Result<(), CatchUpError> {
        let (mut names, mut highest, mut list) = (BTreeSet::new(), 0, u64::MAX);
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let found = call(self.objects.list_metadata(&page)).await?;
            list = version(found.metadata.resource_version.as_deref()).min(list);
            for object in found.items {
                highest = version(object.metadata.resource_version.as_deref()).max(highest);
                names.extend(object.metadata.name);
            }
            match found.metadata.continue_.filter(|more| !more.is_empty()) {
                Some(more) => page.continue_token = Some(more),
                None => break,
            }
        }
        let seen = self
            .identities
            .saw_registration_entries(&names, highest, list);
        timeout(PATIENCE, seen)
            .await
            .map_err(|_| CatchUpError::NotSeen)
    }

    async fn saw(&self, object: &RegistrationEntry) -> Result<(), WriteError> {
        let version = version(object.metadata.resource_version.as_deref());
        let seen = self.identities.saw_registration_entry(version);
        timeout(PATIENCE, seen)
            .await
            .map_err(|_| WriteError::NotSeen)
    }
}

/// A `resourceVersion` as a number; one that is none is later than all, and so never seen.
fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}
