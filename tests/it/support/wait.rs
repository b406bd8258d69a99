//! Waiting for a condition.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Time enough for anything that happens at once, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Tries `probe` until it gives a value. Its error says what it saw instead.
///
/// # Panics
/// At the deadline, with what was waited for and what was seen last.
pub(crate) async fn wait_until<T, F, Fut>(what: &str, deadline: Duration, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + deadline;
    let mut last = "nothing".to_owned();
    let mut pause = FIRST_PAUSE;
    loop {
        let Ok(outcome) = timeout_at(end, probe()).await else {
            panic!("waited {deadline:?} for {what}, last saw: {last}");
        };
        match outcome {
            Ok(value) => return value,
            Err(seen) => last = seen,
        }
        assert!(
            Instant::now() + pause < end,
            "waited {deadline:?} for {what}, last saw: {last}"
        );
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "for a wonder, last saw: try 3")]
async fn the_deadline_tells_what_was_seen_last() {
    let mut tries = 0;
    wait_until::<(), _, _>("a wonder", Duration::from_millis(100), || {
        tries += 1;
        let seen = format!("try {tries}");
        async { Err(seen) }
    })
    .await;
}
