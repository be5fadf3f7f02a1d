//! The listener: TLS, authentication, `Origin`, limits; HTTP/1.1 and WebSocket on one port, one path per service.

pub mod admin;
pub mod ask;
pub mod probe;

mod accept;
mod access;
mod envelope;
mod error;
mod gate;
mod generation;
mod http;
mod idle;
mod io;
mod reply;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use jsonrpsee::server::stop_channel;
use tokio_util::sync::CancellationToken;

use self::accept::Door;
pub use self::access::{Renewal, check_files};
pub use self::error::ServerError;
pub use self::generation::{Generation, Live, Served};
use self::http::RpcHandler;
use crate::policy::Principal;
use crate::telemetry::metrics::ConnectionMeter;

/// An open socket on which nothing is accepted yet.
pub struct Socket(Door);

impl Socket {
    /// Opens it; `meter` counts its connections.
    pub fn open(address: SocketAddr, meter: Option<ConnectionMeter>) -> Result<Self, ServerError> {
        Door::open(address, meter).map(Self)
    }

    /// The address it listens on, with the port that the system chose if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }
}

/// The JSON-RPC listener.
pub struct Listener {
    door: Door,
    handler: RpcHandler,
}

impl Listener {
    /// Serves on this socket what is in force, once it runs.
    pub fn new(socket: Socket, live: Live) -> Self {
        let (stopped, stopping) = stop_channel();
        let served = http::Served { live, principal: Arc::new(Principal::sole()), stopped, stopping };
        Self { door: socket.0, handler: RpcHandler(Arc::new(served)) }
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.door.local_addr()
    }

    /// Serves until `stop`. Then nothing new is accepted or read, what is in flight is finished for `server.drain` at most, and
    /// what is still open is cut (two seconds more at most). Answers whether nothing was cut.
    pub async fn run(self, stop: CancellationToken) -> bool {
        self.door.run(self.handler, stop).await
    }
}
