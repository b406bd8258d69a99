//! Work that keeps a core busy, such as signing: done beside the asynchronous runtime, and by no more
//! threads than there are cores, so that calls which only look something up are answered meanwhile.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tonic::Status;

use crate::spiffe::{KeyKind, PublicKey};

/// How many items one thread does at a time: some milliseconds of work.
const CHUNK: usize = 16;

/// Whoever does such work for one server.
#[derive(Debug)]
pub struct Workers {
    cores: usize,
    /// Given to whoever waits longest.
    turns: Arc<Semaphore>,
}

impl Default for Workers {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            cores,
            turns: Arc::new(Semaphore::new(cores)),
        }
    }
}

impl Workers {
    /// Does `work`.
    ///
    /// # Errors
    /// `Internal` when it was cut off.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let done = spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await
            .map_err(|_| Status::internal("the work was cut off"))
    }

    /// Does `work`, which signs by `key`: at once where handing it to another thread would take longer
    /// than it holds this one up.
    ///
    /// # Errors
    /// `Internal` when it was cut off.
    pub async fn sign<T: Send + 'static>(
        &self,
        key: &PublicKey,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        if signs_quickly(key) {
            return Ok(work());
        }
        self.run(work).await
    }

    /// Does `work` with each of `items`, on all cores, and gives the results in the same order.
    ///
    /// # Errors
    /// `Internal` when it was cut off.
    pub async fn map<I, T>(
        &self,
        mut items: Vec<I>,
        work: impl Fn(I) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, Status>
    where
        I: Send + 'static,
        T: Send + 'static,
    {
        // So that few items are spread over the cores, too.
        let size = items.len().div_ceil(self.cores).clamp(1, CHUNK);
        let mut chunks = Vec::new();
        while !items.is_empty() {
            let rest = items.split_off(size.min(items.len()));
            chunks.push(std::mem::replace(&mut items, rest));
        }
        let chunks = chunks.into_iter().map(|chunk| {
            let work = work.clone();
            self.run(move || chunk.into_iter().map(work).collect::<Vec<T>>())
        });
        let chunks = stream::iter(chunks).buffered(self.cores);
        chunks.try_concat().await
    }
}

/// Whether a signature by this key takes no longer than changing threads.
#[must_use]
pub fn signs_quickly(key: &PublicKey) -> bool {
    !matches!(key.kind(), KeyKind::Rsa { .. })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::api::JwtKeyType;
    use crate::authority::JwtAuthority;

    #[tokio::test]
    async fn slow_signatures_hold_no_thread_of_the_runtime_up() {
        let workers = Workers::default();
        for (key_type, is_here) in [(JwtKeyType::EcP256, true), (JwtKeyType::Rsa2048, false)] {
            let authority = JwtAuthority::generate(key_type, jiff::Timestamp::MAX).unwrap();
            let key = authority.key().public_key();
            let signer = workers.sign(key, || thread::current().id()).await.unwrap();
            assert_eq!(signer == thread::current().id(), is_here, "{key_type:?}");
        }
    }

    #[tokio::test]
    async fn results_have_the_order_of_the_items() {
        let workers = Workers::default();
        for count in [0, 1, 15, 16, 17, 100] {
            let items: Vec<usize> = (0..count).collect();
            let doubled = workers.map(items.clone(), |item| item * 2).await.unwrap();
            let expected: Vec<_> = items.iter().map(|item| item * 2).collect();
            assert_eq!(doubled, expected, "{count}");
        }
    }

    #[tokio::test]
    async fn what_panics_is_told() {
        let workers = Workers::default();
        let cut_off = workers.run(|| panic!("on purpose")).await;
        assert_eq!(cut_off.unwrap_err().code(), tonic::Code::Internal);
        assert_eq!(workers.run(|| 1).await.unwrap(), 1);
    }
}
