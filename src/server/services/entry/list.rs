//! What administrators see of entries: pages in the order of IDs.
//!
//! A page begins after the last ID of the one before, whatever came and went in between.

use prost::Message;
use tonic::Status;

use super::filter::Filter;
use super::{MAX_BYTES, check_size, convert, unavailable};
use crate::registration::{Entry, EntryId};
use crate::server::context::ServerContext;
use crate::server::proto::entry::ListEntriesResponse;
use crate::server::proto::types::EntryMask;

/// Entries that are looked at without letting anybody else in between.
const SLICE: usize = 1000;
/// What page tokens begin with.
const TOKEN: &str = "after:";

/// Which part of the list is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    after: Option<EntryId>,
    /// None: all.
    size: Option<usize>,
}

impl Page {
    /// # Errors
    /// When the token is none that was given.
    pub(super) fn parse(size: i32, token: &str) -> Result<Self, Status> {
        let size = usize::try_from(size).ok().filter(|size| *size > 0);
        let after = match (size, token) {
            (None, _) | (_, "") => None,
            (Some(_), token) => {
                let id = token.strip_prefix(TOKEN).ok_or_else(|| {
                    let token = crate::truncate(token, 100);
                    Status::internal(format!(
                        "failed to list entries: could not parse token '{token}'"
                    ))
                })?;
                Some(EntryId::from_text(id))
            }
        };
        Ok(Self { after, size })
    }

    pub(super) fn is_first(&self) -> bool {
        self.after.is_none()
    }
}

/// How many entries the filter allows.
pub(super) async fn count(context: &ServerContext, filter: &Filter) -> Result<usize, Status> {
    let mut count = 0;
    visit(context, None, |entry| {
        count += usize::from(filter.allows(entry));
        true
    })
    .await?;
    Ok(count)
}

/// A page of the entries that the filter allows. One that would take more bytes than a message may
/// have ends earlier.
pub(super) async fn list(
    context: &ServerContext,
    filter: &Filter,
    page: Page,
    mask: Option<&EntryMask>,
) -> Result<ListEntriesResponse, Status> {
    let mut response = ListEntriesResponse::default();
    let (mut bytes, mut has_more) = (0, false);
    visit(context, page.after, |entry| {
        if !filter.allows(entry) {
            return true;
        }
        let message = convert::for_admin(entry, mask);
        if let Some(size) = page.size {
            bytes += message.encoded_len() + 8;
            let is_full = bytes > MAX_BYTES && !response.entries.is_empty();
            if is_full || response.entries.len() == size {
                has_more = true;
                return false;
            }
        }
        response.entries.push(message);
        true
    })
    .await?;
    if let Some(last) = response.entries.last().filter(|_| has_more) {
        response.next_page_token = format!("{TOKEN}{}", last.id);
    }
    check_size(&response, "ask for pages (page_size)")?;
    Ok(response)
}

/// Visits the entries after `id` until `visit` returns false.
async fn visit(
    context: &ServerContext,
    mut id: Option<EntryId>,
    mut visit: impl FnMut(&Entry) -> bool,
) -> Result<(), Status> {
    let identities = &context.process.identities;
    loop {
        let slice = identities
            .entries_after(&context.object, id.as_ref(), SLICE)
            .map_err(|error| unavailable(&error))?;
        let Some(last) = slice.last() else {
            return Ok(());
        };
        id = Some(last.id.clone());
        if !slice.iter().all(|entry| visit(entry)) {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A token that was given leads to where it says; all others are refused.
        #[test]
        fn any_token_leads_to_its_place_or_is_refused(size in any::<i32>(), token in "(after:)?.{0,20}") {
            let page = Page::parse(size, &token);
            let wanted = usize::try_from(size).ok().filter(|size| *size > 0);
            match (page, token.strip_prefix(TOKEN)) {
                (Ok(page), _) if wanted.is_none() || token.is_empty() => {
                    prop_assert_eq!(page, Page { after: None, size: wanted });
                }
                (Ok(page), Some(id)) => {
                    prop_assert_eq!(page.after, Some(EntryId::from_text(id)));
                    prop_assert_eq!(page.size, wanted);
                }
                (Err(status), None) => prop_assert_eq!(status.code(), tonic::Code::Internal),
                (page, _) => prop_assert!(false, "{page:?}"),
            }
        }
    }

    #[test]
    fn a_page_begins_where_its_token_says() {
        let page = |size, token| Page::parse(size, token).map_err(|status| status.code());
        let all = Page {
            after: None,
            size: None,
        };
        assert_eq!(page(0, ""), Ok(all));
        assert!(
            page(0, "anything").unwrap().is_first(),
            "as in spire-server"
        );
        assert_eq!(page(-1, "").unwrap().size, None);
        let next = Page {
            after: Some(EntryId::from_text("a")),
            size: Some(5),
        };
        assert_eq!(page(5, "after:a"), Ok(next));
        for bad in ["a", "1", "after", &"x".repeat(10_000)] {
            assert_eq!(page(5, bad), Err(tonic::Code::Internal), "{bad}");
        }
    }
}
