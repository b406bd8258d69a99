//! What administrators change: entries that are made through the API, each in a RegistrationEntry.
//! Entries that follow from other objects are changed there.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, stream};
use tonic::{Code, Status};

use super::convert::{self, Refused};
use super::{unavailable, words};
use crate::api::RegistrationEntrySpec;
use crate::clusters::CallError;
use crate::registration::{Entry, EntryId};
use crate::server::context::ServerContext;
use crate::server::proto::entry::batch_create_entry_response::Result as CreateResult;
use crate::server::proto::entry::batch_delete_entry_response::Result as DeleteResult;
use crate::server::proto::entry::batch_update_entry_response::Result as UpdateResult;
use crate::server::proto::entry::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest,
};
use crate::server::proto::types;
use crate::server::proto::types::EntryMask;
use crate::spiffe::TrustDomainName;
use crate::store::{Created, RegistrationEntryStore, WriteError};

/// Entries of one call that are written at the same time.
const AT_ONCE: usize = 32;

/// Writes the entries of one trust domain.
#[derive(Clone, Copy)]
pub(super) struct Writer<'a> {
    pub(super) context: &'a ServerContext,
    pub(super) store: &'a RegistrationEntryStore,
}

/// Why an item of a call failed: its status, or that of the whole call.
enum Failure {
    Item(types::Status),
    Call(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Call(status)
    }
}

/// An entry that there was already.
struct Existing(Arc<Entry>);

impl Writer<'_> {
    pub(super) async fn create_all(
        self,
        request: BatchCreateEntryRequest,
    ) -> Result<Vec<CreateResult>, Status> {
        let mask = request.output_mask;
        // Those that say the same or have the same ID come one after the other, so that the first
        // counts.
        let (mut seen, mut ids) = (BTreeSet::new(), BTreeSet::new());
        let mut first = Vec::new();
        let mut later = Vec::new();
        for (at, entry) in request.entries.into_iter().enumerate() {
            let has_new_id = entry.id.is_empty() || ids.insert(entry.id.clone());
            let is_first = seen.insert(what_it_says(&entry)) && has_new_id;
            if is_first { &mut first } else { &mut later }.push((at, entry));
        }
        let create = |(at, entry): (usize, types::Entry)| async move {
            let result = match self.create(&entry).await {
                Ok(Ok(entry)) => CreateResult {
                    status: Some(ok()),
                    entry: Some(convert::for_admin(&entry, mask.as_ref())),
                },
                Ok(Err(Existing(entry))) => CreateResult {
                    status: Some(status(Code::AlreadyExists, "similar entry already exists")),
                    entry: Some(convert::for_admin(&entry, mask.as_ref())),
                },
                Err(Failure::Item(status)) => CreateResult {
                    status: Some(status),
                    entry: None,
                },
                Err(Failure::Call(status)) => return Err(status),
            };
            Ok((at, result))
        };
        let first = stream::iter(first).map(create).buffer_unordered(AT_ONCE);
        let mut results: Vec<_> = first.collect().await;
        for item in later {
            results.push(create(item).await);
        }
        let mut results: Vec<_> = results.into_iter().collect::<Result<_, _>>()?;
        results.sort_by_key(|(at, _)| *at);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }

    async fn create(self, message: &types::Entry) -> Result<Result<Arc<Entry>, Existing>, Failure> {
        const WHAT: &str = "failed to create entry";
        let (identities, domain) = (&self.context.process.identities, &self.context.object);
        let trust_domain = &self.context.trust_domain;
        let id = match message.id.as_str() {
            "" => EntryId::random(rand::random()).to_string(),
            id => id.to_owned(),
        };
        let spec = RegistrationEntrySpec {
            entry_id: id,
            ..RegistrationEntrySpec::default()
        };
        let spec = convert::merge(spec, message, &convert::ALL, trust_domain)
            .map_err(|refused| self::refused(WHAT, &refused))?;
        self.check_federates_with(WHAT, &spec.federates_with)
            .await?;
        let wanted = convert::wanted(&spec, trust_domain).map_err(|error| {
            let message = format!("{WHAT}: {}", crate::error_chain(&error));
            Failure::Item(status(Code::InvalidArgument, message))
        })?;
        let same = identities.same_entry(domain, &wanted);
        let same = same.map_err(|error| unavailable(&error))?;
        if let Some(existing) = same
            && self.is_there(WHAT, &existing).await?
        {
            return Ok(Err(Existing(existing)));
        }
        let created = self.store.create(domain, trust_domain, spec).await;
        match created.map_err(|error| failure(WHAT, &error))? {
            Created::New(entry) => {
                tracing::info!(entry.id = %entry.id, spiffe.id = %entry.spiffe_id, "entry created");
                Ok(Ok(entry))
            }
            Created::Exists(existing) => Ok(Err(Existing(existing))),
        }
    }

    /// Whether an entry is there that this replica knows: another one may have deleted or changed it
    /// a moment ago.
    async fn is_there(self, what: &str, known: &Entry) -> Result<bool, Failure> {
        if known.registered.is_none() {
            return Ok(true);
        }
        let found = self.store.get(&self.context.trust_domain, &known.id).await;
        let found = found.map_err(|error| failure(what, &error))?;
        Ok(found.is_some_and(|found| found.key == known.key))
    }

    pub(super) async fn update_all(
        self,
        request: BatchUpdateEntryRequest,
    ) -> Result<Vec<UpdateResult>, Status> {
        let input = request.input_mask.unwrap_or(convert::ALL);
        let output = request.output_mask;
        let update = |entry: types::Entry| async move {
            match self.update(&entry, &input).await {
                Ok(entry) => Ok(UpdateResult {
                    status: Some(ok()),
                    entry: Some(convert::for_admin(&entry, output.as_ref())),
                }),
                Err(Failure::Item(status)) => Ok(UpdateResult {
                    status: Some(status),
                    entry: None,
                }),
                Err(Failure::Call(status)) => Err(status),
            }
        };
        let results = stream::iter(request.entries).map(update).buffered(AT_ONCE);
        let results: Vec<_> = results.collect().await;
        results.into_iter().collect()
    }

    async fn update(self, message: &types::Entry, mask: &EntryMask) -> Result<Arc<Entry>, Failure> {
        const WHAT: &str = "failed to update entry";
        let trust_domain = &self.context.trust_domain;
        let empty = RegistrationEntrySpec::default();
        // What no entry could become is said first, as there.
        let of_message = match convert::merge(empty, message, mask, trust_domain) {
            Err(refused @ Refused::Message(_)) => return Err(self::refused(WHAT, &refused)),
            Err(Refused::Entry(_)) => Vec::new(),
            Ok(spec) => spec.federates_with,
        };
        let id = EntryId::from_text(&message.id);
        self.check_is_ours(WHAT, &id, WHAT)?;
        self.check_federates_with(WHAT, &of_message).await?;
        let merge = |spec| {
            convert::merge(spec, message, mask, trust_domain)
                .map_err(|refused| UpdateFailure::Refused(self::refused(WHAT, &refused)))
        };
        let updated = self.store.update(trust_domain, &id, merge).await;
        let entry = updated.map_err(|error| match error {
            UpdateFailure::Refused(failure) => failure,
            UpdateFailure::Write(error) => failure(WHAT, &error),
        })?;
        tracing::info!(entry.id = %entry.id, spiffe.id = %entry.spiffe_id, "entry updated");
        Ok(entry)
    }

    pub(super) async fn delete_all(
        self,
        request: BatchDeleteEntryRequest,
    ) -> Result<Vec<DeleteResult>, Status> {
        let delete = |id: String| async move {
            let status = match self.delete(&id).await {
                Ok(()) => ok(),
                Err(Failure::Item(status)) => status,
                Err(Failure::Call(status)) => return Err(status),
            };
            let status = Some(status);
            Ok(DeleteResult { status, id })
        };
        let results = stream::iter(request.ids).map(delete).buffered(AT_ONCE);
        let results: Vec<_> = results.collect().await;
        results.into_iter().collect()
    }

    async fn delete(self, id: &str) -> Result<(), Failure> {
        const WHAT: &str = "failed to delete entry";
        if id.is_empty() {
            let missing = status(Code::InvalidArgument, "missing entry ID");
            return Err(Failure::Item(missing));
        }
        let id = EntryId::from_text(id);
        self.check_is_ours(WHAT, &id, "entry not found")?;
        let deleted = self.store.delete(&self.context.trust_domain, &id).await;
        deleted.map_err(|error| match error {
            WriteError::NotFound => Failure::Item(status(Code::NotFound, "entry not found")),
            error => failure(WHAT, &error),
        })?;
        tracing::info!(entry.id = %id, "entry deleted");
        Ok(())
    }

    /// Refuses to change an entry that follows from other objects.
    fn check_is_ours(self, what: &str, id: &EntryId, not_found: &str) -> Result<(), Failure> {
        if !id.is_derived() {
            return Ok(());
        }
        let identities = &self.context.process.identities;
        let found = identities.entry(&self.context.object, id);
        let status = match found.map_err(|error| unavailable(&error))? {
            None => status(Code::NotFound, not_found),
            Some(entry) => status(
                Code::FailedPrecondition,
                format!(
                    "{what}: it follows from {}, which must be changed instead",
                    entry.source
                ),
            ),
        };
        Err(Failure::Item(status))
    }

    /// Refuses entries that federate with trust domains without a known bundle.
    async fn check_federates_with(self, what: &str, names: &[String]) -> Result<(), Failure> {
        let federation = &self.context.stores.federation;
        let identities = &self.context.process.identities;
        let known = identities.foreign_bundles(&self.context.object);
        for name in names {
            let Ok(name) = name.parse::<TrustDomainName>() else {
                continue;
            };
            if name == self.context.trust_domain || known.contains(&name) {
                continue;
            }
            // Another replica may have stored it a moment ago.
            let found = federation.get(&name).await.map_err(|error| {
                let error = crate::error_chain(&error);
                Failure::Item(status(Code::Unavailable, format!("{what}: {error}")))
            })?;
            if found.is_none_or(|known| known.bundle.is_none()) {
                let id = name.id();
                let message = format!("{what}: unable to find federated bundle \"{id}\"");
                return Err(Failure::Item(status(Code::Internal, message)));
            }
            // The entry names it only once that is seen.
            if !self.context.saw_foreign_bundle(&name, true).await {
                let message = format!("{what}: {}", WriteError::NotSeen);
                return Err(Failure::Item(status(Code::Unavailable, message)));
            }
        }
        Ok(())
    }
}

/// Why an update was not made.
enum UpdateFailure {
    Refused(Failure),
    Write(WriteError),
}

impl From<WriteError> for UpdateFailure {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

/// What two messages have in common that must not be written at the same time: SPIFFE ID, parent ID
/// and selectors.
fn what_it_says(entry: &types::Entry) -> (String, String, Vec<String>) {
    let id = |id: Option<&types::Spiffeid>| {
        id.map_or_else(String::new, |id| format!("{}{}", id.trust_domain, id.path))
    };
    let selectors = entry.selectors.iter();
    let selectors: BTreeSet<_> = selectors
        .map(|selector| format!("{}:{}", selector.r#type, selector.value))
        .collect();
    (
        id(entry.spiffe_id.as_ref()),
        id(entry.parent_id.as_ref()),
        selectors.into_iter().collect(),
    )
}

fn refused(what: &str, refused: &Refused) -> Failure {
    let message = match refused {
        Refused::Message(_) => refused.to_string(),
        Refused::Entry(_) => format!("{what}: {refused}"),
    };
    Failure::Item(status(Code::InvalidArgument, message))
}

fn failure(what: &str, error: &WriteError) -> Failure {
    let (code, message) = match error {
        WriteError::NotFound => (Code::NotFound, what.to_owned()),
        WriteError::IdTaken => (Code::AlreadyExists, format!("{what}: {}", words(error))),
        WriteError::Invalid(_) => (Code::InvalidArgument, format!("{what}: {}", words(error))),
        WriteError::Call(call) => (code_of(call), format!("{what}: {}", words(error))),
        WriteError::Conflict | WriteError::NotSeen => {
            (Code::Unavailable, format!("{what}: {}", words(error)))
        }
    };
    Failure::Item(status(code, message))
}

fn code_of(error: &CallError) -> Code {
    if error.is_invalid() {
        return Code::InvalidArgument;
    }
    if error.is_forbidden() {
        return Code::Internal;
    }
    Code::Unavailable
}

fn ok() -> types::Status {
    status(Code::Ok, "OK")
}

fn status(code: Code, message: impl Into<String>) -> types::Status {
    types::Status {
        code: i32::from(code),
        message: message.into(),
    }
}
