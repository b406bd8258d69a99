//! How agents learn of their entries, byte by byte as stock agents ask: all at once, and what they
//! lack only.

use serde_json::json;
use spiffe_operator::server::proto::entry::entry_client::EntryClient;
use spiffe_operator::server::proto::entry::{
    GetAuthorizedEntriesRequest, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
};
use spiffe_operator::server::proto::types::{self, EntryMask, Selector};
use time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::spire_authorization::{record, world_of};
use crate::spire_entries::Entries;
use crate::support::grpc::{channel, svid};
use crate::support::{SOON, World, ca, shared_operator, wait_until};

/// What stock agents ask for.
const AGENT_MASK: EntryMask = EntryMask {
    spiffe_id: true,
    parent_id: false,
    selectors: true,
    x509_svid_ttl: false,
    federates_with: true,
    admin: true,
    downstream: true,
    expires_at: false,
    dns_names: false,
    revision_number: true,
    store_svid: true,
    jwt_svid_ttl: false,
    hint: true,
    created_at: true,
    additional_attributes: true,
};

/// A trust domain with two agents, `a` and `b`, and its entries.
struct Agents {
    _world: World,
    entries: Entries,
    a: EntryClient<Channel>,
    b: EntryClient<Channel>,
}

impl Agents {
    async fn new() -> Self {
        let ca = ca("sync");
        let (world, port) = world_of(&ca, json!({})).await;
        let agent = async |name: &str| {
            let id = format!("spiffe://{}/spire/agent/x509pop/{name}", world.trust_domain);
            let svid = svid(&ca, &id, Duration::hours(1));
            record(&world, &id, &svid, false).await;
            EntryClient::new(channel(port, Some(&svid)).await)
        };
        let (a, b) = (agent("a").await, agent("b").await);
        let socket = shared_operator().await.admin_socket(&world.class);
        let entries = Entries::connect(&world, socket).await;
        Self {
            _world: world,
            entries,
            a,
            b,
        }
    }

    /// An entry of the agent `parent`.
    async fn create(&self, parent: &str, path: &str) -> types::Entry {
        let mut entry = self.entries.entry(path);
        entry.parent_id.as_mut().unwrap().path = format!("/spire/agent/x509pop/{parent}");
        self.entries.create_one(entry).await
    }
}

/// A sync that has begun.
struct Sync {
    requests: mpsc::Sender<SyncAuthorizedEntriesRequest>,
    answers: Streaming<SyncAuthorizedEntriesResponse>,
}

impl Sync {
    async fn begin(client: &EntryClient<Channel>, mask: Option<EntryMask>, ids: &[&str]) -> Self {
        let (requests, receiver) = mpsc::channel(2);
        let mut client = client.clone();
        let answers = client.sync_authorized_entries(ReceiverStream::new(receiver));
        let sync = Self {
            requests,
            answers: answers.await.unwrap().into_inner(),
        };
        sync.ask(mask, ids).await;
        sync
    }

    async fn ask(&self, output_mask: Option<EntryMask>, ids: &[&str]) {
        let ids = ids.iter().map(ToString::to_string).collect();
        let request = SyncAuthorizedEntriesRequest { output_mask, ids };
        self.requests.send(request).await.unwrap();
    }

    async fn next(&mut self) -> Result<SyncAuthorizedEntriesResponse, Status> {
        let answer = self.answers.message().await?;
        Ok(answer.expect("an answer"))
    }

    /// All pages of one answer.
    async fn pages(&mut self) -> Vec<SyncAuthorizedEntriesResponse> {
        let mut pages = vec![self.next().await.unwrap()];
        while pages.last().unwrap().more {
            pages.push(self.next().await.unwrap());
        }
        pages
    }
}

/// ID and revision of each entry of an agent, in the order of IDs.
async fn revisions(client: &EntryClient<Channel>) -> Vec<(String, i64)> {
    let mut sync = Sync::begin(client, Some(AGENT_MASK), &[]).await;
    let pages = sync.pages().await;
    assert!(pages.iter().all(|page| page.entries.is_empty()));
    let revisions = pages.into_iter().flat_map(|page| page.entry_revisions);
    let revisions = revisions.map(|revision| {
        assert!(revision.revision_number > 0 && revision.created_at > 0);
        (revision.id, revision.revision_number)
    });
    revisions.collect()
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn an_agent_asks_for_what_it_lacks_and_gets_nothing_of_others() {
    let agents = Agents::new().await;
    let one = agents.create("a", "/one").await;
    let two = agents.create("a", "/two").await;
    let others = agents.create("b", "/others").await;
    // An entry below an entry of the agent is the agent's, too.
    let mut below = agents.entries.entry("/below");
    below.parent_id.clone_from(&one.spiffe_id);
    let below = agents.entries.create_one(below).await;

    let held = revisions(&agents.a).await;
    let ids: Vec<_> = held.iter().map(|(id, _)| id.clone()).collect();
    let own = [&one.id, &two.id, &below.id].map(Clone::clone);
    assert_eq!(sorted(ids), sorted(own.into()));
    assert_eq!(revisions(&agents.b).await.len(), 1);

    let mut sync = Sync::begin(&agents.a, Some(AGENT_MASK), &[]).await;
    sync.pages().await;
    // Neither what is another's, nor what there is not, nor the same twice; and a later mask does
    // not count.
    let asked = [&*one.id, &*others.id, "no-such-entry", "", &*one.id];
    sync.ask(Some(EntryMask::default()), &asked).await;
    let [page] = &sync.pages().await[..] else {
        panic!("one page")
    };
    let [entry] = &page.entries[..] else {
        panic!("one entry: {page:?}")
    };
    assert_eq!(entry.id, one.id);
    assert_eq!(entry.spiffe_id, one.spiffe_id);
    assert_eq!(entry.selectors, one.selectors);
    assert_eq!(entry.parent_id, None, "is not asked for");
    assert!(page.entry_revisions.is_empty());
    // The same stream answers as often as it is asked.
    sync.ask(None, &[&*others.id]).await;
    assert!(sync.pages().await[0].entries.is_empty());

    // What has changed has another revision, and nothing else has.
    let changed = types::Entry {
        hint: "main".into(),
        ..two.clone()
    };
    let mask = EntryMask {
        hint: true,
        ..EntryMask::default()
    };
    agents.entries.update(changed, mask).await;
    agents.entries.delete(&below.id).await;
    let now = revisions(&agents.a).await;
    let revision = |of: &[(String, i64)], id: &str| {
        let found = of.iter().find(|(found, _)| found == id);
        found.map(|(_, revision)| *revision)
    };
    assert_eq!(revision(&now, &one.id), revision(&held, &one.id));
    assert_ne!(revision(&now, &two.id), revision(&held, &two.id));
    assert_eq!(revision(&now, &below.id), None);
}

#[tokio::test]
async fn all_entries_of_an_agent_come_at_once_if_it_asks_for_that() {
    let mut agents = Agents::new().await;
    let own = agents.create("a", "/own").await;
    agents.create("b", "/others").await;
    let mut ask = async |output_mask| {
        let request = GetAuthorizedEntriesRequest { output_mask };
        let answer = agents.a.get_authorized_entries(request).await;
        answer.unwrap().into_inner().entries
    };
    let [entry] = &ask(None).await[..] else {
        panic!("one entry")
    };
    assert_eq!(
        (
            &entry.id,
            &entry.spiffe_id,
            &entry.parent_id,
            &entry.selectors
        ),
        (&own.id, &own.spiffe_id, &own.parent_id, &own.selectors)
    );
    let [masked] = &ask(Some(EntryMask::default())).await[..] else {
        panic!("one entry")
    };
    let bare = types::Entry {
        id: own.id.clone(),
        ..types::Entry::default()
    };
    assert_eq!(masked, &bare);
}

#[tokio::test]
async fn what_does_not_fit_into_a_message_comes_in_pages() {
    let mut agents = Agents::new().await;
    // Five MiB in all.
    let entry = |number: u32| types::Entry {
        selectors: vec![Selector {
            r#type: "unix".into(),
            value: "x".repeat(100 * 1024),
        }],
        ..agents.entries.entry(&format!("/large/{number}"))
    };
    let mut ids = Vec::new();
    for number in 0..50 {
        ids.push(agents.entries.create_one(entry(number)).await.id);
    }
    let held = wait_until("all entries", SOON, || async {
        let held = revisions(&agents.a).await;
        (held.len() == ids.len())
            .then_some(held)
            .ok_or_else(String::new)
    })
    .await;
    let mut sync = Sync::begin(&agents.a, Some(AGENT_MASK), &[]).await;
    sync.pages().await;
    let asked: Vec<_> = held.iter().map(|(id, _)| &**id).collect();
    sync.ask(None, &asked).await;
    // A page over 4 MiB would be an error of this client, as it is of stock agents.
    let pages = sync.pages().await;
    assert!(pages.len() > 1, "{} pages", pages.len());
    let got = pages.into_iter().flat_map(|page| page.entries);
    let got = got.map(|entry| (entry.id, entry.revision_number));
    assert_eq!(got.collect::<Vec<_>>(), held);

    // In one message they cannot come, which is told.
    let request = GetAuthorizedEntriesRequest { output_mask: None };
    let refused = agents.a.get_authorized_entries(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(
        refused.message().contains("SyncAuthorizedEntries"),
        "{refused:?}"
    );
    // But without what is long they can.
    let request = GetAuthorizedEntriesRequest {
        output_mask: Some(EntryMask::default()),
    };
    let masked = agents.a.get_authorized_entries(request).await.unwrap();
    assert_eq!(masked.into_inner().entries.len(), ids.len());
}

#[tokio::test]
async fn a_sync_that_makes_no_sense_is_refused() {
    let agents = Agents::new().await;
    let without_revision = EntryMask {
        revision_number: false,
        ..AGENT_MASK
    };
    for (mask, ids, problem) in [
        (
            Some(without_revision),
            &[][..],
            "revision number cannot be masked",
        ),
        (
            Some(AGENT_MASK),
            &["a"][..],
            "specifying IDs on initial request is not supported",
        ),
    ] {
        let refused = Sync::begin(&agents.b, mask, ids).await.next().await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert_eq!(refused.message(), problem);
    }
}
