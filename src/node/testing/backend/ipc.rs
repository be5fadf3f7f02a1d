//! The scripted node on a Unix socket.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::{Asked, Order, State, enter};

/// Accepts connections until it is aborted.
pub(super) async fn accept(path: PathBuf, state: Arc<Mutex<State>>, ask: mpsc::UnboundedSender<Asked>) {
    let _before = std::fs::remove_file(&path);
    let listener = UnixListener::bind(path).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, state.clone(), ask.clone()));
    }
}

/// Serves one connection to its end. What it writes has nothing between the values.
async fn serve(stream: UnixStream, state: Arc<Mutex<State>>, ask: mpsc::UnboundedSender<Asked>) {
    let (reader, mut writer) = stream.into_split();
    let (peer, mut orders) = enter(&state);
    let mut lines = BufReader::new(reader).lines();
    let mut deaf = false;
    loop {
        tokio::select! {
            line = lines.next_line(), if !deaf => {
                let Ok(Some(line)) = line else { return };
                let request: Value = serde_json::from_str(&line).unwrap();
                Asked::read(&request, peer.clone(), 1).settle(&state, &ask);
            }
            order = orders.recv() => match order {
                Some(Order::Write(text)) => if writer.write_all(text.as_bytes()).await.is_err() { return },
                Some(Order::Deafen) => deaf = true,
                Some(Order::Status(_) | Order::Drop) | None => return,
            },
        }
    }
}
