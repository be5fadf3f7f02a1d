//! A TCP relay that cuts connections in the middle of what the server says, wherever that falls: in a frame, in an answer.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A running relay; it stops, with all its connections, when this is dropped.
#[derive(Debug)]
pub(crate) struct Cutter {
    pub(crate) address: SocketAddr,
    cuts: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Cutter {
    /// Before the server at `upstream`. The first connection is cut after so many bytes of the server as the first of `budgets` says, the
    /// second after the second, and so on; later ones are not cut.
    pub(crate) async fn start(upstream: SocketAddr, budgets: &'static [u64]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(accept(listener, upstream, budgets, Arc::clone(&cuts)));
        Self { address, cuts, task }
    }

    /// How many connections have been cut so far.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, budgets: &[u64], cuts: Arc<AtomicUsize>) {
    let mut budgets = budgets.iter().copied();
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let budget = budgets.next();
        let cuts = Arc::clone(&cuts);
        connections.spawn(async move {
            if let Ok(sent) = relay(client, upstream, budget.unwrap_or(u64::MAX)).await
                && Some(sent) == budget
            {
                cuts.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// The bytes of the server that went through.
async fn relay(mut client: TcpStream, upstream: SocketAddr, budget: u64) -> io::Result<u64> {
    let mut server = TcpStream::connect(upstream).await?;
    let (mut from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let mut limited = from_server.take(budget);
    tokio::select! {
        sent = copy(&mut limited, &mut to_client) => sent,
        ended = copy(&mut from_client, &mut to_server) => ended.map(|_| 0),
    }
}
