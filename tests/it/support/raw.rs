//! JSON-RPC as text: what is compared byte for byte is never read into a tree.

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::soon;

/// One answer, its members as they stand.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) id: Box<RawValue>,
    pub(crate) result: Option<Box<RawValue>>,
    pub(crate) error: Option<RawError>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawError {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<Box<RawValue>>,
}

/// `params` of one notification.
#[derive(Debug, Deserialize)]
pub(crate) struct Notified {
    pub(crate) subscription: Box<RawValue>,
    pub(crate) result: Option<Box<RawValue>>,
    pub(crate) error: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Notification {
    params: Notified,
}

/// A WebSocket on which one thing is asked at a time.
#[derive(Debug)]
pub(crate) struct RawSocket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u64,
    notified: std::collections::VecDeque<Notified>,
}

impl RawSocket {
    pub(crate) async fn connect(url: &str) -> Self {
        let limits = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let connecting = Box::pin(tokio_tungstenite::connect_async_with_config(url, Some(limits), true));
        let (socket, _) = soon("a WebSocket", connecting).await.unwrap();
        Self { socket, next_id: 1, notified: Default::default() }
    }

    /// Sends a text and returns the next one that is no notification.
    pub(crate) async fn exchange(&mut self, text: &str) -> String {
        self.socket.send(Message::text(text)).await.unwrap();
        loop {
            let text = self.text().await.expect("an answer");
            match serde_json::from_str::<Notification>(&text) {
                Ok(notification) => self.notified.push_back(notification.params),
                Err(_) => return text,
            }
        }
    }

    /// One call; the parameters as they stand.
    pub(crate) async fn ask(&mut self, method: &str, params: &str) -> Answer {
        let id = self.next_id;
        self.next_id += 1;
        let text = self.exchange(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)).await;
        let answer: Answer = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(answer.id.get(), id.to_string(), "{text}");
        answer
    }

    /// The next notification.
    pub(crate) async fn notification(&mut self) -> Notified {
        if let Some(notified) = self.notified.pop_front() {
            return notified;
        }
        let text = self.text().await.expect("a notification");
        serde_json::from_str::<Notification>(&text).unwrap_or_else(|error| panic!("{error}: {text}")).params
    }

    /// Waits for the end of the connection; whether nothing else came before it.
    pub(crate) async fn ended(&mut self) -> bool {
        self.text().await.is_none() && self.notified.is_empty()
    }

    async fn text(&mut self) -> Option<String> {
        loop {
            match soon("a message", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return None,
            }
        }
    }
}
