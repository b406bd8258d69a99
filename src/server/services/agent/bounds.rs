//! Until when an attestation goes on.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::server::authorization::StrangersTurn;
use crate::server::proto::agent::AttestAgentResponse;

/// How long an attestation may take in all, turns that are waited for included; stock agents give up
/// after this time.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Bounds of an attestation: it ends with its client, in time, or when others need its turn.
pub(super) struct Bounds {
    answers: mpsc::Sender<Result<AttestAgentResponse, Status>>,
    turn: StrangersTurn,
    deadline: Instant,
    are_lifted: bool,
}

impl Bounds {
    /// Those of an attestation that begins now and is answered through `answers`.
    pub(super) fn new(
        answers: mpsc::Sender<Result<AttestAgentResponse, Status>>,
        turn: StrangersTurn,
    ) -> Self {
        Self {
            answers,
            turn,
            deadline: Instant::now() + TIMEOUT,
            are_lifted: false,
        }
    }

    /// Whether something was used up for the attestation.
    pub(super) fn are_lifted(&self) -> bool {
        self.are_lifted
    }

    /// Whether the time is over.
    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Does `work`, but for what is out of bounds.
    pub(super) async fn hold<T>(
        &self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        if self.are_lifted {
            return work.await;
        }
        tokio::select! {
            biased;
            () = self.answers.closed() => Err(Status::cancelled("the agent is gone")),
            status = self.turn.lost() => Err(status),
            done = timeout_at(self.deadline, work) => done.unwrap_or_else(|_| {
                Err(Status::deadline_exceeded("attestation took too long"))
            }),
        }
    }

    /// Does `find` within the bounds, and uses up what was found. From there on there are none, as
    /// that must not be lost half-way.
    pub(super) async fn lift<T, U, F: Future<Output = Result<U, Status>>>(
        &mut self,
        find: impl Future<Output = Result<T, Status>>,
        use_up: impl FnOnce(T) -> F,
    ) -> Result<U, Status> {
        let found = self.hold(find).await?;
        self.are_lifted = true;
        use_up(found).await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tonic::Code;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_attestation_ends_with_its_client_unless_a_token_is_used_up() {
        let (answers, stream) = mpsc::channel(1);
        let mut bounds = Bounds::new(answers, StrangersTurn::default());
        bounds.hold(ready(Ok(()))).await.unwrap();
        let late = bounds.hold(pending::<Result<(), Status>>()).await;
        assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
        bounds.deadline = Instant::now() + TIMEOUT;
        // The client leaves while its token is used up.
        let use_up = |()| {
            drop(stream);
            ready(Ok(()))
        };
        bounds.lift(ready(Ok(())), use_up).await.unwrap();
        bounds.hold(ready(Ok(()))).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_attestation_without_a_live_token_keeps_its_bounds() {
        let (answers, stream) = mpsc::channel(1);
        let mut bounds = Bounds::new(answers, StrangersTurn::default());
        let none = |()| -> std::future::Pending<Result<(), Status>> { panic!("nothing was found") };
        let unknown = Err(Status::invalid_argument("no such token"));
        let refused = bounds.lift(ready(unknown), none).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
        assert!(!bounds.are_lifted());
        let late = bounds.lift(pending(), none).await;
        assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
        drop(stream);
        let gone = bounds.lift(pending(), none).await;
        assert_eq!(gone.unwrap_err().code(), Code::Cancelled);
    }
}
