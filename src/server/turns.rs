//! Turns of those who cost memory before it is known who they are: never more than a fixed number at
//! a time. Where one more comes, the oldest of the address that has most ends, so that nobody drives
//! out others.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::{CancellationToken, DropGuard};

/// Turns that are taken, oldest first.
#[derive(Debug)]
pub(super) struct Turns {
    most: usize,
    taken: Mutex<VecDeque<(IpAddr, CancellationToken)>>,
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

    /// A turn for a call from `address`.
    pub(super) fn take(&self, address: IpAddr) -> Turn {
        let over = CancellationToken::new();
        self.count(address, &over);
        Turn {
            _held: Arc::new(over.clone().drop_guard()),
            over,
        }
    }

    /// Counts something of `address` that ends when `over` is cancelled, and cancels that when it
    /// has ended.
    pub(super) fn count(&self, address: IpAddr, over: &CancellationToken) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|(_, over)| !over.is_cancelled());
        if taken.len() >= self.most
            && let Some(removed) = remove_one(&mut taken)
        {
            removed.cancel();
        }
        taken.push_back((address, over.clone()));
    }
}

impl Turn {
    /// Waits until somebody else needs the turn.
    pub(super) async fn lost(&self) {
        self.over.cancelled().await;
    }
}

/// Takes the oldest of the address that has most.
pub(super) fn remove_one<T>(items: &mut VecDeque<(IpAddr, T)>) -> Option<T> {
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (address, _) in items.iter() {
        *counts.entry(*address).or_default() += 1;
    }
    let (most, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    let oldest = items.iter().position(|(address, _)| *address == most)?;
    items.remove(oldest).map(|(_, item)| item)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn who_has_most_loses_the_oldest() {
        let items = [(1, "old"), (2, "a"), (2, "b"), (3, "new"), (2, "c")];
        let mut items: VecDeque<_> = items.map(|(last, item)| (address(last), item)).into();
        assert_eq!(remove_one(&mut items), Some("a"));
        assert_eq!(remove_one(&mut items), Some("b"));
        assert_eq!(items.len(), 3);
    }

    #[test]
    fn a_turn_is_lost_to_others_only_while_it_is_held() {
        let turns = Turns::new(3);
        let is_lost = |turn: &Turn| turn.lost().now_or_never().is_some();
        let of_one = turns.take(address(1));
        let greedy = [turns.take(address(2)), turns.take(address(2))];
        let late = turns.take(address(3));
        assert!(is_lost(&greedy[0]) && !is_lost(&greedy[1]));
        // A copy holds it.
        let copy = late.clone();
        drop(late);
        drop(greedy);
        let others = [turns.take(address(4)), turns.take(address(4))];
        assert!(is_lost(&others[0]) && !is_lost(&of_one) && !is_lost(&copy));
        drop((others, copy));
        let again = [turns.take(address(2)), turns.take(address(2))];
        assert!(!is_lost(&of_one) && again.iter().all(|turn| !is_lost(turn)));
    }
}
