//! A listener on TCP, and the tasks of its connections.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A listener on TCP; it stops, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct Listener {
    scheme: &'static str,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Listener {
    /// Listens; port 0 is a free one. `enter` sees each connection when it is accepted, in this order; its future serves it to its
    /// end, and without one the connection ends at once. `scheme` is that of its URL.
    pub(crate) async fn start<F>(
        scheme: &'static str,
        address: SocketAddr,
        enter: impl Fn(TcpStream) -> Option<F> + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { scheme, address, task: tokio::spawn(accept(listener, enter)) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept<F: Future<Output = ()> + Send + 'static>(listener: TcpListener, enter: impl Fn(TcpStream) -> Option<F>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    // Without it, Nagle and delayed acknowledgements would add tens of milliseconds to what is measured. It fails
                    // on a connection that has ended.
                    let _ended = stream.set_nodelay(true);
                    if let Some(connection) = enter(stream) {
                        connections.spawn(connection);
                    }
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}
