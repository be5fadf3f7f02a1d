//! A small backend that pays out: it sends every payout of a file over one WebSocket, and follows each on that same WebSocket until
//! it is confirmed. usage: backend URL FILE. `../README.md` has the file's form and the reasons.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

#[derive(Serialize, Deserialize)]
struct Payout {
    reference: String,
    to: String,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    /// What happened, in order, each event once: committed, broadcast, included, confirmed; orphaned after a reorganisation.
    #[serde(default)]
    history: Vec<String>,
    /// Whether it is in a block and its execution failed: the fee is paid and nothing else.
    #[serde(default)]
    reverted: bool,
    /// Why nothing of it will be mined.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Payout {
    fn is_settled(&self) -> bool {
        self.error.is_some() || self.history.last().is_some_and(|state| state == "confirmed")
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    payouts: Vec<Payout>,
}

/// Why a connection is over before its work is done.
enum Over {
    /// Come back by cursor.
    Lost(String),
    /// Coming back would not help: somebody has to look.
    Refused(String),
}

impl<E: std::error::Error> From<E> for Over {
    fn from(error: E) -> Self {
        Self::Lost(error.to_string())
    }
}

struct Backend {
    file: PathBuf,
    state: State,
}

/// One WebSocket, and which payout each request is for.
struct Connection {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    last: u64,
    asked: HashMap<u64, usize>,
}

impl Connection {
    async fn send(&mut self, method: &str, params: Value) -> Result<u64, Over> {
        self.last += 1;
        let request = json!({ "jsonrpc": "2.0", "id": self.last, "method": method, "params": params });
        self.socket.send(Message::text(request.to_string())).await?;
        Ok(self.last)
    }

    /// The next message. The gateway pings every 20 s: a minute of silence is a dead connection.
    async fn next(&mut self) -> Result<Value, Over> {
        loop {
            match timeout(Duration::from_secs(60), self.socket.next()).await? {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text)?),
                Some(Ok(Message::Close(_))) | None => return Err(Over::Lost("the connection ended".into())),
                Some(message) => drop(message?),
            }
        }
    }
}

impl Backend {
    /// Cursor and payouts are one file, replaced as a whole: whenever this process ends, an event has been worked on once or will be.
    fn save(&self) -> Result<(), Over> {
        let saved = || -> io::Result<()> {
            let copy = self.file.with_extension("new");
            fs::write(&copy, serde_json::to_string_pretty(&self.state)?)?;
            File::open(&copy)?.sync_all()?;
            fs::rename(copy, &self.file)
        };
        saved().map_err(|error| Over::Refused(format!("{}: {error}", self.file.display())))
    }

    fn on_event(&mut self, event: &Value) -> Result<(), Over> {
        let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let nonce = quantity(&event["slot"]["nonce"]);
        if let Some(payout) = self.state.payouts.iter_mut().find(|payout| payout.nonce == nonce) {
            let state = word("state");
            payout.reverted = event["reverted"].as_bool().unwrap_or(payout.reverted);
            println!("{} {state}{}", payout.reference, if payout.reverted { ", but its execution failed" } else { "" });
            if ["refused", "replaced"].contains(&state.as_str()) {
                payout.error = Some(format!("{state} {}", word("detail")));
            }
            payout.hash = Some(word("hash"));
            payout.history.push(state);
        }
        self.state.cursor = Some(word("cursor"));
        self.save()
    }

    /// An event, or the answer for a payout.
    fn on_message(&mut self, connection: &mut Connection, mut message: Value) -> Result<(), Over> {
        if message["method"] == "sluice_subscription" {
            // The last notification of a stream that ends has an error.
            let event = message["params"].get("result").ok_or(Over::Lost("the stream ended".into()))?;
            return self.on_event(event);
        }
        let asked = message["id"].as_u64().and_then(|id| connection.asked.remove(&id));
        let Some(payout) = asked.and_then(|place| self.state.payouts.get_mut(place)) else { return Ok(()) };
        match message["error"].take() {
            Value::Null => payout.hash = message["result"].as_str().map(str::to_owned),
            // Held or used: an earlier request of ours got through, and its event says which.
            error if is_for_later(&error) || ["nonce_held", "nonce_too_low", "internal"].contains(&reason(&error)) => {}
            error => payout.error = Some(error["message"].to_string()),
        }
        self.save()
    }

    /// One call and its answer; what comes in between is worked on.
    async fn call(&mut self, connection: &mut Connection, method: &str, params: Value) -> Result<Value, Over> {
        let id = connection.send(method, params).await?;
        loop {
            let mut message = connection.next().await?;
            if message["id"] != id {
                self.on_message(connection, message)?;
                continue;
            }
            return match message["error"].take() {
                Value::Null => Ok(message["result"].take()),
                error if is_for_later(&error) => Err(Over::Lost(error.to_string())),
                error => Err(Over::Refused(error.to_string())),
            };
        }
    }

    /// Asks for all payouts that are neither answered nor in the stream, all at once. The nonces are ours and on disk, so to ask again is
    /// never a second payment.
    async fn ask(&self, connection: &mut Connection) -> Result<(), Over> {
        for (place, payout) in self.state.payouts.iter().enumerate() {
            let Payout { to, value, nonce: Some(nonce), hash: None, error: None, .. } = payout else { continue };
            let params = json!([{ "from": self.state.from, "to": to, "value": value, "nonce": format!("{nonce:#x}") }]);
            let id = connection.send("eth_sendTransaction", params).await?;
            connection.asked.insert(id, place);
        }
        Ok(())
    }

    /// Follows and sends over one connection until all is settled.
    async fn work(&mut self, connection: &mut Connection) -> Result<(), Over> {
        let from = self.state.from.clone();
        // A cursor from before the first send: nothing of it is missed, however early the connection is lost.
        if self.state.cursor.is_none() {
            let cursor = self.call(connection, "sluice_getCursor", json!([{ "from": from }])).await?;
            self.state.cursor = cursor.as_str().map(str::to_owned);
            self.save()?;
        }
        let stream = json!(["transactions", { "from": from, "after": self.state.cursor }]);
        self.call(connection, "sluice_subscribe", stream).await?;
        let next = self.call(connection, "eth_getTransactionCount", json!([from, "pending"])).await?;
        let taken: HashSet<u64> = self.state.payouts.iter().filter_map(|payout| payout.nonce).collect();
        let mut free = (quantity(&next).unwrap_or_default()..).filter(|nonce| !taken.contains(nonce));
        for payout in &mut self.state.payouts {
            payout.nonce = payout.nonce.or_else(|| free.next());
        }
        self.save()?;
        let mut rounds = interval(Duration::from_secs(10));
        while !self.state.payouts.iter().all(Payout::is_settled) {
            tokio::select! {
                _ = rounds.tick() => self.ask(connection).await?,
                message = connection.next() => self.on_message(connection, message?)?,
            }
            if let Some(Payout { reference, error: Some(error), .. }) = self.state.payouts.iter().find(|payout| payout.error.is_some()) {
                // Higher nonces wait behind it.
                return Err(Over::Refused(format!("{reference}: {error}")));
            }
        }
        Ok(())
    }
}

fn quantity(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

fn reason(error: &Value) -> &str {
    error["data"]["reason"].as_str().unwrap_or_default()
}

/// Whether the gateway says that the same request may work later.
fn is_for_later(error: &Value) -> bool {
    !error["data"]["retryAfterMs"].is_null()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, file] = arguments.as_slice() else { return Err("usage: backend URL FILE".into()) };
    let state = serde_json::from_str(&fs::read_to_string(file)?)?;
    let mut backend = Backend { file: Path::new(file).into(), state };
    let mut wait = Duration::from_millis(100);
    loop {
        match connect_async(url.as_str()).await {
            Ok((socket, _)) => {
                wait = Duration::from_millis(100);
                match backend.work(&mut Connection { socket, last: 0, asked: HashMap::new() }).await {
                    Ok(()) if backend.state.payouts.iter().any(|payout| payout.reverted) => return Err("not everything was paid".into()),
                    Ok(()) => return Ok(()),
                    Err(Over::Refused(why)) => return Err(why.into()),
                    Err(Over::Lost(why)) => eprintln!("{why}"),
                }
            }
            Err(error) => eprintln!("{error}"),
        }
        sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
        wait = (wait * 2).min(Duration::from_secs(10));
    }
}
