//! A connection as the gRPC server sees it: its stream, and who is at the other end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Timeout, timeout};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::server::caller::Caller;

/// After this time a client is asked to connect anew, so that it sees other replicas and is
/// verified against the bundle of then. What it has begun is finished. As in SPIRE.
pub(super) const MAX_AGE: Duration = Duration::from_mins(3);
/// But for what takes longer than this: a client that reads nothing would stay for good.
pub(super) const GRACE: Duration = Duration::from_mins(2);

/// A connection over the stream `S`.
pub(super) struct Connection<S> {
    stream: S,
    caller: Caller,
    /// Ends when the connection shall: then nothing more is read from it.
    end: Pin<Box<Timeout<WaitForCancellationFutureOwned>>>,
    /// Tells whoever counts connections when this one has ended.
    _ended: DropGuard,
}

impl<S> Connection<S> {
    /// A connection of `caller` that ends when `end` is cancelled, or when it is too old.
    pub(super) fn new(stream: S, caller: Caller, end: CancellationToken) -> Self {
        Self {
            stream,
            caller,
            end: Box::pin(timeout(MAX_AGE + GRACE, end.clone().cancelled_owned())),
            _ended: end.drop_guard(),
        }
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
