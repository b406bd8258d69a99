//! The Entry service: what administrators register, and what agents may fetch.
//!
//! Parts: [`convert`] (messages), [`filter`] and [`list`] (what administrators see), [`mod@write`] (what
//! they change), [`sync`] (what agents fetch).

mod convert;
mod filter;
mod list;
mod sync;
mod write;

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use prost::Message;
use tonic::{Code, Request, Response, Status, Streaming};

use self::filter::Filter;
use self::list::Page;
use self::sync::Sync;
use self::write::Writer;
use crate::clusters::identities::NotYetSeen;
use crate::registration::{Entry, EntryId, EntrySelector};
use crate::server::authorization::{Authorized, CallingAgent};
use crate::server::context::ServerContext;
use crate::server::proto::entry::entry_server::Entry as EntryApi;
use crate::server::proto::entry::{
    BatchCreateEntryRequest, BatchCreateEntryResponse, BatchDeleteEntryRequest,
    BatchDeleteEntryResponse, BatchUpdateEntryRequest, BatchUpdateEntryResponse,
    CountEntriesRequest, CountEntriesResponse, GetAuthorizedEntriesRequest,
    GetAuthorizedEntriesResponse, GetEntryRequest, ListEntriesRequest, ListEntriesResponse,
    SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
};
use crate::server::proto::types;
use crate::spiffe::SpiffeId;
use crate::store::{CatchUpError, RegistrationEntryStore, WriteError};

/// Most bytes of entries in one message: stock clients take 4 MiB.
const MAX_BYTES: usize = 4 * 1024 * 1024 - 1024;

/// Entries that an agent fetches without letting anybody else in between.
const SLICE: usize = 1000;

/// The Entry service of one trust domain.
pub(super) struct EntryService {
    context: Arc<ServerContext>,
    store: RegistrationEntryStore,
}

impl EntryService {
    pub(super) fn new(context: Arc<ServerContext>) -> Self {
        let process = &context.process;
        let store =
            RegistrationEntryStore::new(process.client.clone(), Arc::clone(&process.identities));
        Self { context, store }
    }

    fn writer(&self) -> Writer<'_> {
        Writer {
            context: &self.context,
            store: &self.store,
        }
    }

    /// Waits until all is known that was written before the call, on whatever replica.
    async fn catch_up(&self) -> Result<(), Status> {
        self.store.catch_up().await.map_err(|error| match &error {
            CatchUpError::Call(_) | CatchUpError::NotSeen => {
                Status::unavailable(crate::error_chain(&error))
            }
        })
    }

    async fn find(&self, id: &EntryId) -> Result<Option<Arc<Entry>>, Status> {
        if !id.is_derived() {
            let stored = self.store.get(&self.context.trust_domain, id).await;
            let stored = stored.map_err(|error| {
                Status::unavailable(format!("failed to fetch entry: {}", words(&error)))
            })?;
            if stored.is_none() {
                return Ok(None);
            }
        }
        // What was stored has been seen by now: it is told as lists and agents are told it.
        let identities = &self.context.process.identities;
        identities
            .entry(&self.context.object, id)
            .map_err(|error| unavailable(&error))
    }
}

#[tonic::async_trait]
impl EntryApi for EntryService {
    async fn count_entries(
        &self,
        request: Request<CountEntriesRequest>,
    ) -> Result<Response<CountEntriesResponse>, Status> {
        let filter = request.into_inner().filter.map(filter::of_count);
        let filter = Filter::of(filter.as_ref(), &self.context.trust_domain)?;
        self.catch_up().await?;
        let count = list::count(&self.context, &filter).await?;
        Ok(Response::new(CountEntriesResponse {
            count: i32::try_from(count).unwrap_or(i32::MAX),
        }))
    }

    async fn list_entries(
        &self,
        request: Request<ListEntriesRequest>,
    ) -> Result<Response<ListEntriesResponse>, Status> {
        let request = request.into_inner();
        let filter = Filter::of(request.filter.as_ref(), &self.context.trust_domain)?;
        let page = Page::parse(request.page_size, &request.page_token)?;
        if page.is_first() {
            self.catch_up().await?;
        }
        let mask = request.output_mask.as_ref();
        let response = list::list(&self.context, &filter, page, mask).await?;
        Ok(Response::new(response))
    }

    async fn get_entry(
        &self,
        request: Request<GetEntryRequest>,
    ) -> Result<Response<types::Entry>, Status> {
        let request = request.into_inner();
        if request.id.is_empty() {
            return Err(Status::invalid_argument("missing ID"));
        }
        let found = self.find(&EntryId::from_text(&request.id)).await?;
        let entry = found.ok_or_else(|| Status::not_found("entry not found"))?;
        let message = convert::for_admin(&entry, request.output_mask.as_ref());
        Ok(Response::new(message))
    }

    async fn batch_create_entry(
        &self,
        request: Request<BatchCreateEntryRequest>,
    ) -> Result<Response<BatchCreateEntryResponse>, Status> {
        let request = request.into_inner();
        let results = self.writer().create_all(request).await?;
        Ok(Response::new(BatchCreateEntryResponse { results }))
    }

    async fn batch_update_entry(
        &self,
        request: Request<BatchUpdateEntryRequest>,
    ) -> Result<Response<BatchUpdateEntryResponse>, Status> {
        let request = request.into_inner();
        let results = self.writer().update_all(request).await?;
        Ok(Response::new(BatchUpdateEntryResponse { results }))
    }

    async fn batch_delete_entry(
        &self,
        request: Request<BatchDeleteEntryRequest>,
    ) -> Result<Response<BatchDeleteEntryResponse>, Status> {
        let request = request.into_inner();
        let results = self.writer().delete_all(request).await?;
        Ok(Response::new(BatchDeleteEntryResponse { results }))
    }

    async fn get_authorized_entries(
        &self,
        request: Request<GetAuthorizedEntriesRequest>,
    ) -> Result<Response<GetAuthorizedEntriesResponse>, Status> {
        let agent = Authorized::agent(&request)?;
        let entries = authorized(&self.context, &agent)?;
        let mask = request.into_inner().output_mask;
        let entries = entries.iter();
        let entries = entries.map(|entry| convert::for_agent(entry, mask.as_ref()));
        let response = GetAuthorizedEntriesResponse {
            entries: entries.collect(),
        };
        check_size(
            &response,
            "agents that use SyncAuthorizedEntries get them in pages",
        )?;
        Ok(Response::new(response))
    }

    type SyncAuthorizedEntriesStream =
        Pin<Box<dyn Stream<Item = Result<SyncAuthorizedEntriesResponse, Status>> + Send>>;

    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<SyncAuthorizedEntriesRequest>>,
    ) -> Result<Response<Self::SyncAuthorizedEntriesStream>, Status> {
        let agent = Authorized::agent(&request)?;
        let exchange = Exchange {
            context: Arc::clone(&self.context),
            node_selectors: node_selectors(&agent),
            agent: agent.id,
            requests: request.into_inner(),
            begun: None,
            answers: VecDeque::new(),
        };
        let answers = stream::try_unfold(exchange, |mut exchange| async move {
            let answer = exchange.next().await?;
            Ok(answer.map(|answer| (answer, exchange)))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// A `SyncAuthorizedEntries` call under way.
struct Exchange {
    context: Arc<ServerContext>,
    agent: SpiffeId,
    node_selectors: BTreeSet<EntrySelector>,
    requests: Streaming<SyncAuthorizedEntriesRequest>,
    /// None before the agent has asked, and so knows nothing.
    begun: Option<Sync>,
    answers: VecDeque<SyncAuthorizedEntriesResponse>,
}

impl Exchange {
    /// The next answer; none once the agent asks no more.
    async fn next(&mut self) -> Result<Option<SyncAuthorizedEntriesResponse>, Status> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(Some(answer));
            }
            let request = match self.requests.message().await {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(None),
                // That is how an agent ends a call that has given it all it needs.
                Err(status) if status.code() == Code::Cancelled => return Ok(None),
                Err(status) => return Err(status),
            };
            self.answers = match self.begun {
                None => {
                    self.begun = Some(Sync::begin(&request)?);
                    sync::revisions(self.blocks()?).into()
                }
                Some(begun) => {
                    let found = self.find(&sync::wanted(request))?;
                    begun.entries(found.into_iter().flatten()).into()
                }
            };
        }
    }

    /// What the agent may fetch, written down.
    fn blocks(&self) -> Result<Vec<Arc<[u8]>>, Status> {
        let identities = &self.context.process.identities;
        identities
            .authorized_blocks(
                &self.context.object,
                &self.agent,
                &self.node_selectors,
                sync::write_revisions,
            )
            .map_err(|error| unavailable(&error))
    }

    /// Those of the entries that the agent may fetch.
    fn find(&self, ids: &[EntryId]) -> Result<Vec<Option<Arc<Entry>>>, Status> {
        let identities = &self.context.process.identities;
        let mut found = Vec::with_capacity(ids.len());
        // Slice by slice, so that others have their turn in between.
        for ids in ids.chunks(SLICE) {
            let (object, selectors) = (&self.context.object, &self.node_selectors);
            let some = identities.authorized_among(object, &self.agent, selectors, ids);
            found.extend(some.map_err(|error| unavailable(&error))?);
        }
        Ok(found)
    }
}

/// The entries that the agent may fetch.
fn authorized(context: &ServerContext, agent: &CallingAgent) -> Result<Vec<Arc<Entry>>, Status> {
    let selectors = node_selectors(agent);
    let identities = &context.process.identities;
    identities
        .authorized_entries(&context.object, &agent.id, &selectors)
        .map_err(|error| unavailable(&error))
}

/// The selectors of an agent's node.
fn node_selectors(agent: &CallingAgent) -> BTreeSet<EntrySelector> {
    let selectors = agent.record.spec.selectors.iter();
    selectors
        .filter_map(|selector| EntrySelector::parse(selector).ok())
        .collect()
}

/// Agents keep what they have, and ask again.
fn unavailable(error: &NotYetSeen) -> Status {
    Status::unavailable(error.to_string())
}

/// Refuses what no stock client would take.
fn check_size(message: &impl Message, remedy: &str) -> Result<(), Status> {
    let bytes = message.encoded_len();
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!(
        "the entries take {bytes} bytes, more than the {MAX_BYTES} of one message; {remedy}"
    )))
}

/// An error with all its causes, in words for the caller.
fn words(error: &WriteError) -> String {
    crate::error_chain(error)
}
