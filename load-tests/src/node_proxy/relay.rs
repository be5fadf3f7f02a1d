//! One connection through the proxy: every frame in order, and what becomes of it on the way.

use std::collections::HashMap;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt, stream};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_async_with_config, client_async_with_config};

use super::{Inner, RawAnswer, Sent, Shared};
use crate::announcements::Announcements;
use crate::lock;

/// A node's answers may be large (receipts of a block, logs): no limit of ours.
fn unlimited() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(None).max_frame_size(None)
}

type Upstream = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(upstream: SocketAddr) -> Option<Upstream> {
    let stream = TcpStream::connect(upstream).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let stream = MaybeTlsStream::Plain(stream);
    client_async_with_config(format!("ws://{upstream}/"), stream, Some(unlimited())).await.ok().map(|(socket, _)| socket)
}

/// What a rewritten answer becomes, by the request's id as JSON text.
type Rewrites = HashMap<String, Option<String>>;

/// Heads on their way to each subscription of a connection.
type Lines = HashMap<String, Announcements>;

pub(super) type Downstream = WebSocketStream<TcpStream>;

/// Leaves the client's connection in `client`, so that it outlives this.
pub(super) async fn relay(stream: TcpStream, client: &mut Option<Downstream>, shared: &Shared, number: u64) {
    let mut stalled = shared.stalled.subscribe();
    if stalled.wait_for(|stalled| !stalled).await.is_err() {
        return;
    }
    let Ok(accepted) = accept_async_with_config(stream, Some(unlimited())).await else { return };
    let client = client.insert(accepted);
    let Some(mut node) = connect(shared.upstream).await else { return };
    let (mut rewrites, mut lines) = (Rewrites::new(), Lines::new());
    // One loop and one place for every frame: the order of arrival is the order on record and the order of passing on.
    loop {
        let is_stalled = *stalled.borrow_and_update();
        let passed = tokio::select! {
            biased;
            _ = stalled.changed() => continue,
            message = client.next(), if !is_stalled => match message {
                Some(Ok(Message::Text(text))) => match request(shared, number, &text, &mut rewrites) {
                    Verdict::Pass => node.send(Message::Text(text)).await,
                    Verdict::Answer(answer) => client.send(Message::Text(answer.into())).await,
                    Verdict::Nothing => Ok(()),
                },
                Some(Ok(message)) => node.send(message).await,
                _ => return,
            },
            message = node.next(), if !is_stalled => match message {
                Some(Ok(Message::Text(text))) => match rewritten(&text, &mut rewrites).or_else(|| announced(shared, &text, &mut lines)) {
                    None => client.send(Message::Text(text)).await,
                    Some(texts) => client.send_all(&mut stream::iter(texts.into_iter().map(|text| Ok(Message::Text(text.into()))))).await,
                },
                Some(Ok(message)) => client.send(message).await,
                _ => return,
            },
        };
        if passed.is_err() {
            return;
        }
    }
}

enum Verdict {
    Pass,
    Answer(String),
    Nothing,
}

/// Records the raw sends of a frame and says what becomes of it.
fn request(shared: &Shared, number: u64, text: &Utf8Bytes, rewrites: &mut Rewrites) -> Verdict {
    if !text.as_str().contains("eth_sendRawTransaction") {
        return Verdict::Pass;
    }
    let Ok(json) = serde_json::from_str::<Value>(text.as_str()) else { return Verdict::Pass };
    let mut inner = lock(&shared.inner);
    if let Value::Array(items) = &json {
        inner.sent.extend(items.iter().filter_map(raw_of).map(|raw| Sent { connection: number, raw, forwarded: true }));
        return Verdict::Pass;
    }
    let Some(raw) = raw_of(&json) else { return Verdict::Pass };
    let answer = inner.faults.front_mut().map(|fault| {
        fault.count = if fault.count == u64::MAX { u64::MAX } else { fault.count.saturating_sub(1) };
        fault.answer.clone()
    });
    inner.faults.retain(|fault| fault.count > 0);
    let id = json.get("id").cloned().unwrap_or_default();
    let (forwarded, verdict) = match answer {
        None => (true, Verdict::Pass),
        Some(RawAnswer::Refuse { code, message }) => (false, Verdict::Answer(error(&id, code, &message))),
        Some(RawAnswer::Lose) => (false, Verdict::Nothing),
        Some(RawAnswer::Swallow) => {
            rewrites.insert(id.to_string(), None);
            (true, Verdict::Pass)
        }
        Some(RawAnswer::Lie { code, message }) => {
            rewrites.insert(id.to_string(), Some(error(&id, code, &message)));
            (true, Verdict::Pass)
        }
    };
    inner.sent.push(Sent { connection: number, raw, forwarded });
    verdict
}

/// `None`: the frame goes on as it is; else these go on instead.
fn rewritten(text: &Utf8Bytes, rewrites: &mut Rewrites) -> Option<Vec<String>> {
    if rewrites.is_empty() {
        return None;
    }
    let json = serde_json::from_str::<Value>(text.as_str()).ok()?;
    Some(rewrites.remove(&json.get("id")?.to_string())?.into_iter().collect())
}

/// The same for a head that the node announces, by plan.
fn announced(shared: &Shared, text: &Utf8Bytes, lines: &mut Lines) -> Option<Vec<String>> {
    if !text.as_str().contains("\"parentHash\"") {
        return None;
    }
    let mut json = serde_json::from_str::<Value>(text.as_str()).ok()?;
    let id = json.pointer("/params/subscription")?.as_str()?.to_owned();
    let head = json.pointer("/params/result").filter(|head| head.get("parentHash").is_some())?.clone();
    let mut inner = lock(&shared.inner);
    let Inner { head_faults, luck, .. } = &mut *inner;
    let told = lines.entry(id).or_default().tell(head.clone(), head_faults, luck);
    if told == [head] {
        return None;
    }
    inner.misled += 1;
    let notification = |head| {
        json["params"]["result"] = head;
        json.to_string()
    };
    Some(told.into_iter().map(notification).collect())
}

fn raw_of(request: &Value) -> Option<String> {
    if request.get("method")?.as_str()? != "eth_sendRawTransaction" {
        return None;
    }
    Some(request.get("params")?.get(0)?.as_str()?.to_owned())
}

fn error(id: &Value, code: i64, message: &str) -> String {
    serde_json::json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string()
}
