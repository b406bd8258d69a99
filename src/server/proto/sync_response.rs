//! `spire.api.server.entry.v1.SyncAuthorizedEntriesResponse`, which can be made of parts that are
//! encoded already. That is all it has beyond the generated form, which it stands for.

use std::sync::Arc;

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, bool, message, skip_field};
use prost::{DecodeError, Message};

use super::entry::EntryRevision;
use super::types::Entry;

/// What an agent is told when it syncs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SyncAuthorizedEntriesResponse {
    /// What entries there are.
    pub entry_revisions: Vec<EntryRevision>,
    /// Entries that were asked for.
    pub entries: Vec<Entry>,
    /// Whether another answer follows.
    pub more: bool,
    /// Encoded messages of this type that are part of this one: of lists in them the items come
    /// before those of this one. None in a message that was received.
    pub encoded: Vec<Arc<[u8]>>,
}

/// Numbers of the fields.
const ENTRY_REVISIONS: u32 = 1;
const ENTRIES: u32 = 2;
const MORE: u32 = 3;

impl Message for SyncAuthorizedEntriesResponse {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        for part in &self.encoded {
            buffer.put_slice(part);
        }
        message::encode_repeated(ENTRY_REVISIONS, &self.entry_revisions, buffer);
        message::encode_repeated(ENTRIES, &self.entries, buffer);
        if self.more {
            bool::encode(MORE, &self.more, buffer);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            ENTRY_REVISIONS => {
                message::merge_repeated(wire_type, &mut self.entry_revisions, buffer, context)
            }
            ENTRIES => message::merge_repeated(wire_type, &mut self.entries, buffer, context),
            MORE => bool::merge(wire_type, &mut self.more, buffer, context),
            _ => skip_field(wire_type, tag, buffer, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let encoded: usize = self.encoded.iter().map(|part| part.len()).sum();
        let more = if self.more {
            bool::encoded_len(MORE, &true)
        } else {
            0
        };
        encoded
            + message::encoded_len_repeated(ENTRY_REVISIONS, &self.entry_revisions)
            + message::encoded_len_repeated(ENTRIES, &self.entries)
            + more
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(id: &str) -> EntryRevision {
        EntryRevision {
            id: id.to_owned(),
            revision_number: i64::MAX,
            created_at: 1,
        }
    }

    #[test]
    fn encoded_parts_are_part_of_the_message() {
        let plain = SyncAuthorizedEntriesResponse {
            entry_revisions: ["a", "b", "c"].map(revision).into(),
            entries: vec![Entry::default()],
            more: true,
            encoded: Vec::new(),
        };
        let part = |id| SyncAuthorizedEntriesResponse {
            entry_revisions: vec![revision(id)],
            ..SyncAuthorizedEntriesResponse::default()
        };
        let made_of_parts = SyncAuthorizedEntriesResponse {
            entry_revisions: vec![revision("c")],
            encoded: ["a", "b"].map(|id| part(id).encode_to_vec().into()).into(),
            ..plain.clone()
        };
        for message in [&plain, &made_of_parts] {
            let bytes = message.encode_to_vec();
            assert_eq!(bytes.len(), message.encoded_len());
            let read = SyncAuthorizedEntriesResponse::decode(&*bytes);
            assert_eq!(read.as_ref(), Ok(&plain));
        }
        let empty = SyncAuthorizedEntriesResponse::default();
        assert!(empty.encode_to_vec().is_empty());
    }

    #[test]
    fn fields_of_later_versions_are_skipped() {
        let later = [0x20, 0x01, 0x18, 0x01];
        let read = SyncAuthorizedEntriesResponse::decode(&later[..]).unwrap();
        assert!(read.more);
        assert!(SyncAuthorizedEntriesResponse::decode(&later[..1]).is_err());
    }
}
