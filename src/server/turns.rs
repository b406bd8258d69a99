//! Turns of those who cost memory before it is known who they are: never more than a fixed number at
//! a time. Where one more comes, the oldest of the origin that has most ends, so that nobody drives
//! out others; where several have most, the oldest of them all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::origin::Origin;

/// Turns that are taken, oldest first.
#[derive(Debug)]
pub(super) struct Turns {
    most: usize,
    taken: Mutex<VecDeque<(Origin, CancellationToken)>>,
}

/// A turn, over once all copies of it are dropped.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    over: CancellationToken,
    _held: Arc<DropGuard>,
}

impl Turns {
    /// At most `most` turns at a time.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            taken: Mutex::default(),
        }
    }

    /// A turn for a call from `origin`.
    pub(super) fn take(&self, origin: Origin) -> Turn {
        let over = CancellationToken::new();
        self.count(origin, &over);
        Turn {
            _held: Arc::new(over.clone().drop_guard()),
            over,
        }
    }

    /// Counts something of `origin` that ends when `over` is cancelled, and cancels that when it
    /// has ended.
    pub(super) fn count(&self, origin: Origin, over: &CancellationToken) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|(_, over)| !over.is_cancelled());
        if let Some(removed) = add(&mut taken, self.most, origin, over.clone()) {
            removed.cancel();
        }
    }
}

impl Turn {
    /// Waits until somebody else needs the turn.
    pub(super) async fn lost(&self) {
        self.over.cancelled().await;
    }
}

/// Adds something of `origin` to `items`, oldest first, and gives what there are then too many of:
/// the oldest of the origin that has most, or of those that do.
pub(super) fn add<T>(
    items: &mut VecDeque<(Origin, T)>,
    most: usize,
    origin: Origin,
    item: T,
) -> Option<T> {
    items.push_back((origin, item));
    if items.len() <= most {
        return None;
    }
    let mut counts: BTreeMap<Origin, usize> = BTreeMap::new();
    for (origin, _) in items.iter() {
        *counts.entry(*origin).or_default() += 1;
    }
    let greatest = counts.values().max().copied();
    let has_most = |(origin, _): &(Origin, T)| counts.get(origin).copied() == greatest;
    let oldest = items.iter().position(has_most)?;
    items.remove(oldest).map(|(_, item)| item)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures::FutureExt;

    use super::*;

    fn origin(last: u8) -> Origin {
        IpAddr::from([127, 0, 0, last]).into()
    }

    /// What goes, one after the other, where these come and three may stay.
    fn removed<const N: usize>(items: [(u8, &'static str); N]) -> Vec<&'static str> {
        let mut kept = VecDeque::new();
        let items = items.into_iter();
        let removed = items.filter_map(|(last, item)| add(&mut kept, 3, origin(last), item));
        let removed = removed.collect();
        assert!(kept.len() <= 3);
        removed
    }

    #[test]
    fn who_has_most_loses_the_oldest() {
        let items = [(1, "old"), (2, "a"), (2, "b"), (3, "new"), (2, "c")];
        assert_eq!(removed(items), ["a", "b"]);
        // Whoever comes counts.
        assert_eq!(removed([(1, "old"), (2, "a"), (3, "b"), (3, "c")]), ["b"]);
    }

    #[test]
    fn of_those_who_have_as_many_the_oldest_goes_whatever_its_address() {
        for [first, second, third, fourth] in [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3]] {
            let items = [
                (first, "a"),
                (second, "b"),
                (third, "c"),
                (fourth, "d"),
                (first, "e"),
            ];
            assert_eq!(removed(items), ["a", "b"]);
        }
    }

    #[test]
    fn a_subnet_of_ipv6_drives_out_nobody() {
        let mut kept = VecDeque::new();
        add(&mut kept, 3, origin(1), 0);
        for last in 1..=9_u16 {
            let address = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
            add(&mut kept, 3, address.into(), last);
        }
        let kept: Vec<_> = kept.into_iter().map(|(_, item)| item).collect();
        assert_eq!(kept, [0, 8, 9]);
    }

    #[test]
    fn a_turn_is_lost_to_others_only_while_it_is_held() {
        let turns = Turns::new(3);
        let is_lost = |turn: &Turn| turn.lost().now_or_never().is_some();
        let of_one = turns.take(origin(1));
        let greedy = [turns.take(origin(2)), turns.take(origin(2))];
        let late = turns.take(origin(3));
        assert!(is_lost(&greedy[0]) && !is_lost(&greedy[1]));
        // A copy holds it.
        let copy = late.clone();
        drop(late);
        drop(greedy);
        let others = [turns.take(origin(4)), turns.take(origin(4))];
        assert!(is_lost(&others[0]) && !is_lost(&of_one) && !is_lost(&copy));
        drop((others, copy));
        let again = [turns.take(origin(2)), turns.take(origin(2))];
        assert!(!is_lost(&of_one) && again.iter().all(|turn| !is_lost(turn)));
    }
}
