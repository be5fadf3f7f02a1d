//! JSON-RPC on the wire: the bytes of a request, and one incoming text frame read without building a tree.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{CallError, NodeError};

/// The request ids of one pool. An id is unique over all endpoints, so that the same bytes can go to each of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Ids(Arc<AtomicU64>);

impl Ids {
    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The method that sends.
pub(super) const SEND: &str = "eth_sendRawTransaction";

/// A request, ready to be written; clones share the bytes. It has no Debug: the parameters may be signed bytes.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) text: Utf8Bytes,
    /// It carries a transaction: what is written before it must arrive before it.
    pub(super) in_order: bool,
    /// It is written once, whatever becomes of it.
    pub(super) once: bool,
    /// A client asks, not Sluice itself.
    pub(super) of_client: bool,
}

impl Request {
    /// Writes the request; absent parameters are written as `[]`, which every node reads.
    pub(super) fn new(id: u64, method: &str, params: Option<&RawValue>) -> Self {
        let params = params.map_or("[]", RawValue::get);
        let in_order = method == SEND;
        let method = serde_json::Value::from(method);
        Self {
            id,
            text: format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#).into(),
            in_order,
            once: in_order,
            of_client: false,
        }
    }

    /// The same, as a client's.
    pub(super) fn of_client(self) -> Self {
        Self { of_client: true, ..self }
    }

    /// The same, to be written once, whatever becomes of it.
    pub(super) fn once(self) -> Self {
        Self { once: true, ..self }
    }
}

/// A JSON-RPC batch of these requests, as one text.
pub(super) fn batch<'a>(requests: impl Iterator<Item = &'a Request>) -> Utf8Bytes {
    let mut text = String::from("[");
    for request in requests {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(request.text.as_str());
    }
    text.push(']');
    text.into()
}

/// What one text frame says; everything is borrowed from the frame.
#[derive(Debug)]
pub(super) enum Incoming<'a> {
    /// The answer to a batch: each item is a frame of its own.
    Batch(Vec<&'a RawValue>),
    /// An error that names no request: what a node says to a batch that it did not take.
    Unnamed(NodeError),
    /// The answer to the request with this id.
    Answer { id: u64, outcome: Outcome<'a> },
    /// One item of a subscription. The id is its JSON text: nodes use strings, and a few use numbers.
    Notification { subscription: &'a str, item: &'a RawValue },
}

/// `result` or `error` of an answer.
#[derive(Debug)]
pub(super) enum Outcome<'a> {
    Result(&'a RawValue),
    Error(NodeError),
    /// Neither of the two, or an error that is no error object.
    Malformed(&'static str),
}

impl Outcome<'_> {
    /// Copies the result out of the frame.
    pub(super) fn into_owned(self) -> Result<Box<RawValue>, CallError> {
        match self {
            Self::Result(result) => Ok(result.to_owned()),
            Self::Error(error) => Err(CallError::Node(error)),
            Self::Malformed(why) => Err(CallError::Malformed(why.to_owned())),
        }
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    // `null` is a result: a receipt that does not exist yet.
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct WireNotification<'a> {
    #[serde(borrow)]
    subscription: &'a RawValue,
    #[serde(borrow)]
    result: &'a RawValue,
}

#[derive(Deserialize)]
struct WireError<'a> {
    code: i64,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Reads one frame; `None` is a frame that is neither an answer to us nor a notification. Never fatal.
pub(super) fn parse(text: &str) -> Option<Incoming<'_>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).ok().filter(|items: &Vec<_>| !items.is_empty()).map(Incoming::Batch);
    }
    let wire: Wire<'_> = serde_json::from_str(text).ok()?;
    if let Some(id) = wire.id {
        let id = id.get().parse().ok()?;
        return Some(Incoming::Answer { id, outcome: outcome(wire.result, wire.error) });
    }
    if let (None, Some(error)) = (wire.params, wire.error) {
        return match outcome(None, Some(error)) {
            Outcome::Error(error) => Some(Incoming::Unnamed(error)),
            Outcome::Result(_) | Outcome::Malformed(_) => None,
        };
    }
    let notification: WireNotification<'_> = serde_json::from_str(wire.params?.get()).ok()?;
    Some(Incoming::Notification { subscription: notification.subscription.get(), item: notification.result })
}

fn outcome<'a>(result: Option<&'a RawValue>, error: Option<&'a RawValue>) -> Outcome<'a> {
    // Some nodes write `"error": null` beside a result, or `"result": null` beside an error: the error decides if it is one.
    let Some(error) = error else {
        return result.map_or(Outcome::Malformed("neither result nor error"), Outcome::Result);
    };
    match serde_json::from_str::<WireError<'_>>(error.get()) {
        Ok(error) => Outcome::Error(NodeError {
            code: error.code,
            message: error.message.into_owned(),
            data: error.data.map(|data| Arc::from(data.to_owned())),
        }),
        Err(_) => Outcome::Malformed("the error is not a JSON-RPC error object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_borrowed_byte_for_byte() {
        let Some(Incoming::Answer { id: 7, outcome: Outcome::Result(raw) }) =
            parse(r#"{"jsonrpc":"2.0","id":7,"result":{"b": 1,"a":[ ]}}"#)
        else {
            panic!("no answer")
        };
        assert_eq!(raw.get(), r#"{"b": 1,"a":[ ]}"#);
    }

    #[test]
    fn null_is_a_result() {
        for text in [r#"{"id":1,"result":null}"#, r#"{"id":1,"error":null,"result":null}"#] {
            let Some(Incoming::Answer { outcome: Outcome::Result(raw), .. }) = parse(text) else { panic!("{text}") };
            assert_eq!(raw.get(), "null");
        }
    }

    #[test]
    fn an_error_keeps_code_words_and_data() {
        let text = r#"{"id":1,"result":null,"error":{"code":-32000,"message":"nonce \"too\" low","data":{"x" :1},"more":2}}"#;
        let Some(Incoming::Answer { outcome: Outcome::Error(error), .. }) = parse(text) else { panic!("no error") };
        assert_eq!((error.code, error.message.as_str()), (-32000, "nonce \"too\" low"));
        assert_eq!(error.data.as_deref().map(RawValue::get), Some(r#"{"x" :1}"#));
    }

    #[test]
    fn an_answer_without_result_or_with_a_strange_error_is_malformed() {
        for text in [r#"{"id":1}"#, r#"{"id":1,"error":"busy"}"#, r#"{"id":1,"error":{"code":"x"}}"#] {
            assert!(matches!(parse(text), Some(Incoming::Answer { id: 1, outcome: Outcome::Malformed(_) })), "{text}");
        }
    }

    #[test]
    fn a_notification_keeps_the_text_of_its_id() {
        let text = r#"{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"0x1f","result":[1]}}"#;
        let Some(Incoming::Notification { subscription, item }) = parse(text) else { panic!("no notification") };
        assert_eq!((subscription, item.get()), ("\"0x1f\"", "[1]"));
        assert!(matches!(parse(r#"{"params":{"subscription":9,"result":1}}"#), Some(Incoming::Notification { subscription: "9", .. })));
    }

    #[test]
    fn a_batch_is_one_text_and_its_answer_is_read_item_by_item() {
        let requests = [Request::new(1, "a", None), Request::new(2, "b", None)];
        let text = batch(requests.iter());
        assert_eq!(text.as_str(), format!("[{},{}]", requests[0].text, requests[1].text));
        let Some(Incoming::Batch(items)) = parse(r#" [{"id":2,"result":1}, {"id":1,"error":{"code":-1,"message":"m"}}]"#) else {
            panic!("no batch")
        };
        assert!(matches!(parse(items[0].get()), Some(Incoming::Answer { id: 2, outcome: Outcome::Result(_) })));
        assert!(matches!(parse(items[1].get()), Some(Incoming::Answer { id: 1, outcome: Outcome::Error(_) })));
    }

    #[test]
    fn an_error_for_no_request_is_told_apart() {
        for text in [r#"{"id":null,"error":{"code":-32600,"message":"batch too large"}}"#, r#"{"error":{"code":-32600,"message":"x"}}"#] {
            assert!(matches!(parse(text), Some(Incoming::Unnamed(NodeError { code: -32600, .. }))), "{text}");
        }
    }

    #[test]
    fn anything_else_is_tolerated() {
        for text in
            ["", "hello", "[]", "{}", r#"{"id":"x","result":1}"#, r#"{"id":-1,"result":1}"#, r#"{"method":"m","params":[1]}"#, "{\"id\":"]
        {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_request_is_one_json_text() {
        let params = serde_json::value::to_raw_value(&("0x0", false)).unwrap();
        let request = Request::new(3, "eth_getBlockByNumber", Some(&params));
        assert_eq!(request.text.as_str(), r#"{"jsonrpc":"2.0","id":3,"method":"eth_getBlockByNumber","params":["0x0",false]}"#);
        assert_eq!(Request::new(4, "a\"b", None).text.as_str(), r#"{"jsonrpc":"2.0","id":4,"method":"a\"b","params":[]}"#);
    }
}
