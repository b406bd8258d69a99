//! Exponential backoff with jitter, one state per object.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_mins(1);

/// When each failed object is due again. An object that succeeded is not in here.
///
/// An object that came due is given out once, and not again before it failed again: whoever forgets
/// to say what became of it is not asked again and again.
#[derive(Debug)]
pub struct Backoff<K> {
    failed: BTreeMap<K, Failure>,
}

#[derive(Debug)]
struct Failure {
    attempts: u32,
    /// None while it is being tried again.
    due: Option<Instant>,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self {
            failed: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Backoff<K> {
    /// Notes a failure; the pause doubles up to a minute, each with ±25 % jitter.
    pub fn failed(&mut self, key: K) {
        let failure = self.failed.entry(key).or_insert(Failure {
            attempts: 0,
            due: None,
        });
        let pause = FIRST
            .saturating_mul(1 << failure.attempts.min(10))
            .min(LONGEST);
        failure.attempts = failure.attempts.saturating_add(1);
        failure.due = Some(Instant::now() + pause.mul_f64(rand::rng().random_range(0.75..1.25)));
    }

    /// Forgets an object: it succeeded, changed or is gone.
    pub fn forget(&mut self, key: &K) {
        self.failed.remove(key);
    }

    /// Whether an object failed and is not due again yet.
    #[must_use]
    pub fn waits(&self, key: &K) -> bool {
        let due = self.failed.get(key).and_then(|failure| failure.due);
        due.is_some_and(|due| due > Instant::now())
    }

    /// The objects that are due, each to be tried once now.
    pub fn due(&mut self) -> Vec<K> {
        let now = Instant::now();
        self.failed
            .iter_mut()
            .filter_map(|(key, failure)| {
                failure.due.take_if(|due| *due <= now)?;
                Some(key.clone())
            })
            .collect()
    }

    /// Waits until the next object is due; for ever when none is.
    pub async fn next_due(&self) {
        match self.failed.values().filter_map(|failure| failure.due).min() {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end_with_success() {
        let mut backoff = Backoff::default();
        let mut longest = Duration::ZERO;
        for _ in 0..12 {
            backoff.failed("a");
            assert!(backoff.due().is_empty() && backoff.waits(&"a"));
            let before = Instant::now();
            backoff.next_due().await;
            longest = longest.max(before.elapsed());
            assert!(!backoff.waits(&"a"));
            assert_eq!(backoff.due(), ["a"]);
            assert!(backoff.due().is_empty(), "it is given out once");
        }
        assert!(longest > Duration::from_secs(40) && longest < Duration::from_secs(76));
        backoff.forget(&"a");
        assert!(backoff.due().is_empty());
    }
}
