//! What jsonrpsee would leave without an answer, found before it sees the request (HTTP only).
//!
//! It takes an object whose `id` it does not understand (negative, a fraction, a list, twice) for a notification and answers
//! nothing. On a WebSocket its reader cannot be reached; there such requests stay unanswered.

use std::fmt;

use jsonrpsee::types::{ErrorObjectOwned, Id};
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::rpc::errors::{INVALID_REQUEST, Reason, RpcError};

/// JSON-RPC: not JSON.
const PARSE_ERROR: i32 = -32700;

/// The body of the answer to a request that must not go further; `None` if it may.
pub(super) fn refuse(body: &[u8]) -> Option<String> {
    let (id, error) = match serde_json::from_slice::<Envelope<'_>>(body) {
        Ok(Envelope::Fine) => return None,
        Ok(Envelope::BadId(id)) => {
            (id, RpcError::new(INVALID_REQUEST, Reason::InvalidRequest, "an id is a string, null or an integer from 0 to 2^64-1, once"))
        }
        Err(_) => (None, RpcError::new(PARSE_ERROR, Reason::InvalidRequest, "parse error")),
    };
    serde_json::to_string(&Answer { jsonrpc: "2.0", id, error: error.into() }).ok()
}

#[derive(Serialize)]
struct Answer<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RawValue>,
    error: ErrorObjectOwned,
}

/// One request or a batch of them, only its ids looked at.
enum Envelope<'a> {
    Fine,
    /// The first one, if it can be told back.
    BadId(Option<&'a RawValue>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Top)
    }
}

struct Top;

impl<'de> Visitor<'de> for Top {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON-RPC request or a batch of requests")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        look(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = Envelope::Fine;
        while let Some(item) = items.next_element::<Item<'de>>()? {
            if let (Envelope::Fine, Item(bad @ Envelope::BadId(_))) = (&found, item) {
                found = bad;
            }
        }
        Ok(found)
    }
}

fn look<'de, A: MapAccess<'de>>(mut map: A) -> Result<Envelope<'de>, A::Error> {
    let mut id: Option<&'de RawValue> = None;
    let mut found = Envelope::Fine;
    while let Some(Key(is_id)) = map.next_key()? {
        if !is_id {
            map.next_value::<IgnoredAny>()?;
            continue;
        }
        let value: &RawValue = map.next_value()?;
        if id.replace(value).is_some() {
            found = Envelope::BadId(None);
        } else if serde_json::from_str::<Id<'_>>(value.get()).is_err() {
            // Told back only where it is short: a number of any length, a list or an object is the client's own riddle.
            const TOLD: usize = 64;
            let number = value.get().starts_with(|first: char| first == '-' || first.is_ascii_digit());
            found = Envelope::BadId((number && value.get().len() <= TOLD).then_some(value));
        }
    }
    Ok(found)
}

/// An item of a batch: what is no object is answered by the batch itself.
struct Item<'a>(Envelope<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Item<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Envelope<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                look(map)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Envelope::Fine)
            }
            fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Envelope::Fine)
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Envelope::Fine)
            }
            fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Envelope::Fine)
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Envelope::Fine)
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Envelope::Fine)
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Envelope::Fine)
            }
        }
        deserializer.deserialize_any(Any).map(Item)
    }
}

/// Whether a member's name is `id`, escapes resolved.
struct Key(bool);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
                Ok(Key(name == "id"))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jsonrpsee_answers_goes_on() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":18446744073709551615,"method":"a"}"#,
            r#" {"jsonrpc":"2.0","id":"x","method":"a","params":[{"id":-1}]}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","method":"a"}"#,
            r#"[]"#,
            r#"[{"id":1},{"id":2},3,-3,1.5,"id",true,null,[{"id":-1}]]"#,
        ] {
            assert_eq!(refuse(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn an_id_that_would_be_ignored_is_refused_and_told_back() {
        for (body, id) in [
            (r#"{"jsonrpc":"2.0","id":-1,"method":"a"}"#, "-1"),
            (r#"{"jsonrpc":"2.0","id":1.50,"method":"a"}"#, "1.50"),
            (r#"{"jsonrpc":"2.0","id":18446744073709551616,"method":"a"}"#, "18446744073709551616"),
            (r#"{"jsonrpc":"2.0","\u0069d":-7,"method":"a"}"#, "-7"),
            (r#"{"jsonrpc":"2.0","id":[1],"method":"a"}"#, "null"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#, "null"),
            (r#"{"jsonrpc":"2.0","id":true,"method":"a"}"#, "null"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a","id":2}"#, "null"),
            (r#"[{"id":1,"method":"a"},{"id":-2,"method":"a"},{"id":-3}]"#, "-2"),
        ] {
            let answer = refuse(body.as_bytes()).unwrap();
            assert!(answer.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32600,"#)), "{body}: {answer}");
            assert!(answer.contains(r#""reason":"invalid_request""#));
        }
    }

    #[test]
    fn what_is_not_json_is_a_parse_error() {
        let deep = "[".repeat(1_000_000);
        let nested = format!(r#"{{"id":1,"params":{}"#, "[".repeat(1_000_000));
        for body in ["", " ", "{", "nonsense", r#"{"id":1,}"#, r#"{"id":1} x"#, "[1,", "7", &deep, &nested] {
            let answer = refuse(body.as_bytes()).unwrap();
            assert!(answer.starts_with(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"#), "{answer}");
        }
        assert!(refuse(b"{\"id\":\"\xff\"}").is_some());
    }
}
