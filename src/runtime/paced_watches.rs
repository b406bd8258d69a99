//! A limit on how often watches begin.
//!
//! A watch that ends without an error is begun anew at once, and nothing in kube's watcher slows
//! that down. Where something between the operator and the API server ends every watch as soon as it
//! begins, this layer of the client keeps the operator from doing nothing else.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Request;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};
use tower::{Layer, Service};

/// Watches that may begin at once, as at start: some for the cluster and a few for every TrustDomain.
const BURST: u32 = 200;
/// Pause between two that go beyond that.
const PAUSE: Duration = Duration::from_millis(100);

/// The layer.
#[derive(Clone, Debug, Default)]
pub(super) struct PacedWatches {
    /// When the allowance will be whole again.
    whole_at: Arc<Mutex<Option<Instant>>>,
}

impl PacedWatches {
    /// When a watch that is asked for now may begin.
    fn next_begin(&self) -> Instant {
        let now = Instant::now();
        let mut whole_at = self.whole_at.lock().unwrap_or_else(PoisonError::into_inner);
        let before = whole_at.filter(|at| *at > now).unwrap_or(now);
        *whole_at = Some(before + PAUSE);
        let earliest = before.checked_sub(PAUSE * BURST).unwrap_or(now);
        earliest.max(now)
    }
}

impl<S> Layer<S> for PacedWatches {
    type Service = Paced<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Paced {
            inner,
            watches: self.clone(),
        }
    }
}

/// A client's service under the limit.
#[derive(Debug)]
pub(super) struct Paced<S> {
    inner: S,
    watches: PacedWatches,
}

impl<S, B> Service<Request<B>> for Paced<S>
where
    S: Service<Request<B>>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let begin = is_watch(&request).then(|| self.watches.next_begin());
        // Nothing is sent before this is first polled.
        let answer = self.inner.call(request);
        async move {
            if let Some(begin) = begin {
                sleep_until(begin).await;
            }
            answer.await
        }
        .boxed()
    }
}

fn is_watch<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|parameter| parameter == "watch=true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_begins_at_once_and_more_only_as_time_passes() {
        let watches = PacedWatches::default();
        let wait = |watches: &PacedWatches| watches.next_begin() - Instant::now();
        for _ in 0..=BURST {
            assert_eq!(wait(&watches), Duration::ZERO);
        }
        assert_eq!(wait(&watches), PAUSE);
        assert_eq!(wait(&watches), PAUSE * 2);
        tokio::time::advance(PAUSE * 12).await;
        for _ in 0..10 {
            assert_eq!(wait(&watches), Duration::ZERO);
        }
        assert_eq!(wait(&watches), PAUSE);
    }

    #[test]
    fn only_watches_count() {
        for (uri, expected) in [
            ("/api/v1/pods?&watch=true&timeoutSeconds=290", true),
            ("/api/v1/pods?&limit=500", false),
            ("/api/v1/pods", false),
            ("/api/v1/pods?labelSelector=watch%3Dtrue", false),
        ] {
            let request = Request::get(uri).body(()).unwrap();
            assert_eq!(is_watch(&request), expected, "{uri}");
        }
    }
}
