//! A port before another one, through which connections pass or not.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

/// What becomes of connections, those that are open included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// They pass.
    Open,
    /// They are closed at once.
    Closed,
    /// They are taken, and nothing passes.
    Hanging,
}

/// The port. Its task ends with it.
pub(crate) struct Gate {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    passage: watch::Sender<Passage>,
    _task: AbortOnDropHandle<()>,
}

impl Gate {
    /// Opens a port before `target`.
    pub(crate) async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (passage, passages) = watch::channel(Passage::Open);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, target, passages.clone()));
            }
        });
        Self {
            address,
            passage,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// What becomes of connections from now on. Those that are open break off.
    pub(crate) fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }
}

async fn pass(mut client: TcpStream, target: SocketAddr, mut passages: watch::Receiver<Passage>) {
    let passage = *passages.borrow_and_update();
    match passage {
        Passage::Open => {
            let Ok(mut server) = TcpStream::connect(target).await else {
                return;
            };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                _ = passages.changed() => {}
            }
        }
        Passage::Closed => {}
        Passage::Hanging => {
            let _ = passages.changed().await;
        }
    }
}
