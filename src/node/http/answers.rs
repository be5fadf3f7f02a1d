//! What the body of an HTTP response says to the requests that were in it. Pure.

use http::StatusCode;

use crate::node::CallError;
use crate::node::command::Answered;
use crate::node::frame::{Incoming, Outcome, parse};

/// What became of the requests.
#[derive(Debug)]
pub(super) enum Answers {
    /// An answer to each, in their order.
    Each(Vec<Answered>),
    /// The node did not take them together: whether it used a part is not known. Of a single request this is never said.
    NotOfThese(String),
    /// There is no answer: a proxy, a rate limit, a fault.
    None(String),
}

/// Reads a response to the requests with these ids, which went as one request or, if they are several, as one JSON-RPC batch. The body
/// decides if it is JSON-RPC, whatever the status: nodes answer errors with 200, 400 and 500.
pub(super) fn read(ids: &[u64], status: StatusCode, body: &[u8]) -> Answers {
    let text = std::str::from_utf8(body).unwrap_or_default();
    match (ids, parse(text)) {
        ([id], Some(Incoming::Answer { id: of, outcome })) if of == *id => Answers::Each(vec![outcome.into_owned()]),
        ([_], Some(Incoming::Unnamed(error))) => Answers::Each(vec![Err(CallError::Node(error))]),
        ([_], _) if status.is_success() => {
            Answers::Each(vec![Err(CallError::Malformed("the response is no answer to the request".into()))])
        }
        ([_], _) => Answers::None(format!("HTTP {status}")),
        (_, Some(Incoming::Batch(items))) => {
            let mut answers: Vec<Option<Answered>> = ids.iter().map(|_| None).collect();
            for item in items {
                if let Some(Incoming::Answer { id, outcome }) = parse(item.get())
                    && let Some(place) = ids.iter().position(|known| *known == id)
                    && let Some(answer) = answers.get_mut(place)
                {
                    *answer = Some(outcome.into_owned());
                }
            }
            let left_out = || Err(CallError::Malformed("the answer to the batch leaves this request out".to_owned()));
            Answers::Each(answers.into_iter().map(|answer| answer.unwrap_or_else(left_out)).collect())
        }
        // A limit, or a fault, says nothing about batches.
        _ if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => Answers::None(format!("HTTP {status}")),
        // Not in its words: they may repeat what was sent.
        (_, Some(Incoming::Unnamed(error) | Incoming::Answer { outcome: Outcome::Error(error), .. })) => {
            Answers::NotOfThese(format!("error {}", error.code))
        }
        _ if status.is_success() || matches!(status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE) => {
            Answers::NotOfThese(format!("HTTP {status}, and no answer to a batch"))
        }
        _ => Answers::None(format!("HTTP {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(ids: &[u64], status: u16, body: &str) -> Vec<Result<String, String>> {
        match read(ids, StatusCode::from_u16(status).unwrap(), body.as_bytes()) {
            Answers::Each(answers) => {
                answers.into_iter().map(|answer| answer.map(|raw| raw.get().to_owned()).map_err(|error| error.to_string())).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_body_decides_if_it_is_json_rpc() {
        for status in [200, 400, 500] {
            assert_eq!(each(&[7], status, r#"{"id":7,"result":"0x1"}"#), [Ok("\"0x1\"".to_owned())]);
            let error = r#"{"id":7,"error":{"code":-32000,"message":"nonce too low"}}"#;
            assert_eq!(each(&[7], status, error), [Err("the node answered -32000: nonce too low".to_owned())]);
        }
        let limit = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"rate limit"}}"#;
        assert_eq!(each(&[7], 429, limit), [Err("the node answered -32005: rate limit".to_owned())]);
    }

    #[test]
    fn another_response_is_no_answer() {
        for (status, body) in [(502, "<html>"), (429, ""), (401, "{}"), (500, r#"{"id":8,"result":1}"#)] {
            assert!(matches!(read(&[7], StatusCode::from_u16(status).unwrap(), body.as_bytes()), Answers::None(_)), "{status}");
        }
        assert!(each(&[7], 200, r#"{"id":8,"result":1}"#)[0].as_ref().is_err_and(|why| why.contains("no answer")));
        assert!(matches!(read(&[7, 8], StatusCode::BAD_GATEWAY, b"<html>"), Answers::None(_)));
    }

    #[test]
    fn the_items_of_a_batch_find_their_requests() {
        let body = r#"[{"id":9,"result":3},{"id":7,"error":{"code":1,"message":"m"}},{"id":99,"result":1}]"#;
        let answers = each(&[7, 8, 9], 200, body);
        assert_eq!((answers[0].clone(), answers[2].clone()), (Err("the node answered 1: m".to_owned()), Ok("3".to_owned())));
        assert!(answers[1].as_ref().is_err_and(|why| why.contains("leaves this request out")));
    }

    #[test]
    fn a_batch_that_was_not_taken_is_told_apart() {
        let unnamed = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"batches are not supported"}}"#;
        for (status, body) in [(200, unnamed), (400, unnamed), (413, ""), (200, "[]"), (200, "hello")] {
            let answers = read(&[7, 8], StatusCode::from_u16(status).unwrap(), body.as_bytes());
            assert!(matches!(answers, Answers::NotOfThese(_)), "{status} {body}");
        }
        for status in [429, 500, 503] {
            let answers = read(&[7, 8], StatusCode::from_u16(status).unwrap(), unnamed.as_bytes());
            assert!(matches!(answers, Answers::None(_)), "{status} says nothing about batches");
        }
    }
}
