//! How an agent that holds entries already comes to hold those that it should
//! (`SyncAuthorizedEntries`). Pure.
//!
//! It is first told ID and revision of every entry, however few there are, and then asks for those
//! that it lacks. spire-server tells few entries in full each time; agents take either, and this way
//! one that lacks nothing costs almost nothing: what it is told was written down when the entries
//! changed last. Pages are bounded by bytes, below the 4 MiB that a stock agent takes. It takes the
//! length of the first page for how many entries it may ask for at once, so its requests are
//! bounded, too, and the first page is not a short one where there are several.

use std::cmp::Reverse;
use std::sync::Arc;

use prost::Message;
use tonic::Status;

use crate::registration::{Entry, EntryId};
use crate::server::proto::entry::{
    EntryRevision, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
};
use crate::server::proto::types::EntryMask;
use crate::server::services::entry::convert;

/// Most bytes of entries or revisions in one message.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// ID and revision of `entries`, encoded as a part of the answer to the first request, in blocks of
/// at most a page.
pub(super) fn write_revisions(entries: &mut dyn Iterator<Item = &Entry>) -> Vec<Arc<[u8]>> {
    let revisions = entries.map(|entry| SyncAuthorizedEntriesResponse {
        entry_revisions: vec![EntryRevision {
            id: entry.id.to_string(),
            revision_number: entry.revision,
            created_at: entry.source.created,
        }],
        ..SyncAuthorizedEntriesResponse::default()
    });
    let blocks = pages(revisions, Message::encoded_len).into_iter();
    // Messages one behind the other are one that has the lists of all.
    let blocks = blocks.map(|block| block.iter().flat_map(Message::encode_to_vec).collect());
    blocks.collect()
}

/// The answers to the first request, made of [written](write_revisions) blocks.
pub(super) fn revisions(mut blocks: Vec<Arc<[u8]>>) -> Vec<SyncAuthorizedEntriesResponse> {
    blocks.sort_by_key(|block| Reverse(block.len()));
    let pages = pages(blocks.into_iter(), |block| block.len()).into_iter();
    responses(pages.map(|encoded| SyncAuthorizedEntriesResponse {
        encoded,
        ..SyncAuthorizedEntriesResponse::default()
    }))
}

/// What an agent asks for after its first request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sync {
    mask: Option<EntryMask>,
}

impl Sync {
    /// Begins with the agent's first request.
    ///
    /// # Errors
    /// When that asks for what is not offered.
    pub(super) fn begin(request: &SyncAuthorizedEntriesRequest) -> Result<Self, Status> {
        if !request.ids.is_empty() {
            return Err(Status::invalid_argument(
                "specifying IDs on initial request is not supported",
            ));
        }
        let mask = request.output_mask;
        if mask.is_some_and(|mask| !mask.revision_number) {
            return Err(Status::invalid_argument("revision number cannot be masked"));
        }
        Ok(Self { mask })
    }

    /// The answers to a request for entries of which these were found.
    pub(super) fn entries(
        self,
        found: impl Iterator<Item = Arc<Entry>>,
    ) -> Vec<SyncAuthorizedEntriesResponse> {
        let messages = found.map(|entry| convert::for_agent(&entry, self.mask.as_ref()));
        let pages = pages(messages, Message::encoded_len).into_iter();
        responses(pages.map(|page| SyncAuthorizedEntriesResponse {
            entries: page,
            ..SyncAuthorizedEntriesResponse::default()
        }))
    }
}

/// The entries that are asked for, each once.
pub(super) fn wanted(request: SyncAuthorizedEntriesRequest) -> Vec<EntryId> {
    let mut ids = request.ids;
    ids.sort_unstable();
    ids.dedup();
    ids.iter().map(|id| EntryId::from_text(id)).collect()
}

/// Cuts `items` into pages; there is at least one.
fn pages<T>(items: impl Iterator<Item = T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut pages = Vec::new();
    let (mut page, mut bytes) = (Vec::new(), 0);
    for item in items {
        let size = size(&item);
        if bytes + size > PAGE_BYTES && !page.is_empty() {
            pages.push(std::mem::take(&mut page));
            bytes = 0;
        }
        bytes += size;
        page.push(item);
    }
    pages.push(page);
    pages
}

/// Says of all pages but the last that more follow.
fn responses(
    pages: impl ExactSizeIterator<Item = SyncAuthorizedEntriesResponse>,
) -> Vec<SyncAuthorizedEntriesResponse> {
    let last = pages.len().saturating_sub(1);
    let numbered = pages.enumerate();
    numbered
        .map(|(at, page)| SyncAuthorizedEntriesResponse {
            more: at < last,
            ..page
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::api::{RegistrationEntry, RegistrationEntrySpec};
    use crate::registration::{parse_registration_entry, registration_entry_name};

    /// `count` entries, each with about `bytes` bytes.
    fn entries(count: usize, bytes: usize) -> Vec<Arc<Entry>> {
        let one = |number| {
            let id = EntryId::from_text(&format!("entry-{number:06}"));
            let spec = RegistrationEntrySpec {
                entry_id: id.to_string(),
                spiffe_id: "spiffe://e.org/web".into(),
                parent_id: "spiffe://e.org/p".into(),
                selectors: vec![format!("a:{}", "x".repeat(bytes))],
                ..RegistrationEntrySpec::default()
            };
            let name = registration_entry_name(&"e.org".parse().unwrap(), &id);
            Arc::new(parse_registration_entry(&RegistrationEntry::new(&name, spec)).unwrap())
        };
        (0..count).map(one).collect()
    }

    /// A sync of an agent that may fetch these entries.
    struct Served {
        sync: Sync,
        entries: BTreeMap<EntryId, Arc<Entry>>,
    }

    impl Served {
        fn begin(entries: Vec<Arc<Entry>>) -> Self {
            let request = SyncAuthorizedEntriesRequest {
                output_mask: Some(convert::ALL),
                ids: Vec::new(),
            };
            let entries = entries.into_iter().map(|entry| (entry.id.clone(), entry));
            Self {
                sync: Sync::begin(&request).unwrap(),
                entries: entries.collect(),
            }
        }

        /// As it arrives.
        fn revisions(&self) -> Vec<SyncAuthorizedEntriesResponse> {
            let entries: Vec<_> = self.entries.values().map(|entry| &**entry).collect();
            // The entries of one parent after those of another.
            let (few, many) = entries.split_at(entries.len() / 3);
            let blocks = [few, many].into_iter();
            let blocks = blocks.flat_map(|part| write_revisions(&mut part.iter().copied()));
            let pages = revisions(blocks.collect());
            let arrived = pages.iter().map(Message::encode_to_vec);
            arrived
                .map(|page| SyncAuthorizedEntriesResponse::decode(&*page).unwrap())
                .collect()
        }

        fn entries(
            &self,
            request: SyncAuthorizedEntriesRequest,
        ) -> Vec<SyncAuthorizedEntriesResponse> {
            let ids = wanted(request).into_iter();
            self.sync
                .entries(ids.filter_map(|id| self.entries.get(&id).cloned()))
        }
    }

    fn ask(ids: &[String]) -> SyncAuthorizedEntriesRequest {
        SyncAuthorizedEntriesRequest {
            output_mask: None,
            ids: ids.to_vec(),
        }
    }

    /// Does what a stock agent does that holds `held`; what it then holds.
    fn agent(sync: &Served, mut held: BTreeMap<String, i64>) -> BTreeMap<String, i64> {
        let first = sync.revisions();
        let size = first[0].entry_revisions.len();
        assert!(
            first.iter().all(|page| page.entry_revisions.len() <= size),
            "the length of the first is what it asks for at once"
        );
        let mut seen = BTreeSet::new();
        let mut lacking = Vec::new();
        for (at, page) in first.iter().enumerate() {
            assert!(page.entries.is_empty() && page.encoded_len() < 4 * 1024 * 1024);
            assert_eq!(page.more, at + 1 < first.len());
            for revision in &page.entry_revisions {
                seen.insert(revision.id.clone());
                if held.get(&revision.id) != Some(&revision.revision_number) {
                    lacking.push(revision.id.clone());
                }
            }
        }
        held.retain(|id, _| seen.contains(id));
        for ids in lacking.chunks(size.max(1)) {
            let pages = sync.entries(ask(ids));
            for (at, page) in pages.iter().enumerate() {
                assert!(page.entry_revisions.is_empty());
                assert!(page.encoded_len() < 4 * 1024 * 1024);
                assert_eq!(page.more, at + 1 < pages.len());
                for entry in &page.entries {
                    held.insert(entry.id.clone(), entry.revision_number);
                }
            }
        }
        held
    }

    #[test]
    fn an_agent_comes_to_hold_what_it_should() {
        for (count, bytes) in [(0, 0), (1, 10), (700, 10), (60_000, 1), (40, 500_000)] {
            let all = entries(count, bytes);
            let expected: BTreeMap<_, _> = all
                .iter()
                .map(|entry| (entry.id.to_string(), entry.revision))
                .collect();
            let sync = Served::begin(all);
            assert_eq!(agent(&sync, BTreeMap::new()), expected);
            assert_eq!(agent(&sync, expected.clone()), expected);
            let mut stale = expected.clone();
            stale.insert("gone".into(), 1);
            if let Some(revision) = stale.values_mut().next() {
                *revision += 1;
            }
            assert_eq!(agent(&sync, stale), expected);
        }
    }

    #[test]
    fn an_entry_that_is_none_of_the_agents_is_left_out() {
        let sync = Served::begin(entries(2, 1));
        let ids = ["entry-000001", "other", "entry-000001", ""];
        let pages = sync.entries(ask(&ids.map(str::to_owned)));
        assert_eq!(pages.len(), 1);
        assert_eq!(
            pages[0].entries.len(),
            1,
            "and one that is asked for twice comes once"
        );
        assert!(!pages[0].more);
    }

    #[test]
    fn the_first_request_sets_the_mask_and_nothing_else() {
        let status = Sync::begin(&ask(&["a".to_owned()])).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        let request = SyncAuthorizedEntriesRequest {
            output_mask: Some(EntryMask {
                spiffe_id: true,
                ..EntryMask::default()
            }),
            ids: Vec::new(),
        };
        let status = Sync::begin(&request).unwrap_err();
        assert_eq!(status.message(), "revision number cannot be masked");
        let request = SyncAuthorizedEntriesRequest {
            output_mask: Some(EntryMask {
                revision_number: true,
                ..EntryMask::default()
            }),
            ids: Vec::new(),
        };
        let sync = Served {
            sync: Sync::begin(&request).unwrap(),
            ..Served::begin(entries(1, 1))
        };
        let mut later = ask(&["entry-000000".to_owned()]);
        later.output_mask = Some(convert::ALL);
        let page = &sync.entries(later)[0];
        assert_eq!(page.entries[0].spiffe_id, None, "later masks do not count");
        assert!(page.entries[0].revision_number > 0);
    }
}
