//! How an answer becomes bytes of HTTP: whole, slow, or torn.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::core::Delivery;
use super::errors::KmsError;

/// Ends the connection without an answer, or in the middle of one.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
pub(super) struct CutConnection;

/// The body of an answer.
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, CutConnection>;

/// The answer over HTTP.
pub(super) fn response(answer: Result<Value, KmsError>, delivery: Delivery) -> Result<Response<AnswerBody>, CutConnection> {
    let (status, body) = match answer {
        Ok(body) => (200, body),
        Err(error) => (error.status, json!({ "__type": error.code, "message": error.message })),
    };
    let bytes = Bytes::from(body.to_string());
    let length = bytes.len();
    let body = match delivery {
        Delivery::Whole => Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync(),
        Delivery::Slow(time) => {
            let pause = time / u32::try_from(length.max(1)).unwrap_or(u32::MAX);
            let parts = (0..length).map(move |at| (Ok(bytes.slice(at..=at)), pause)).collect();
            in_parts(parts)
        }
        Delivery::Torn => in_parts(vec![(Ok(bytes.slice(..length / 2)), Duration::ZERO), (Err(CutConnection), Duration::ZERO)]),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).map_err(|_| CutConnection)?;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// A body of these parts, with a pause before each.
fn in_parts(parts: Vec<(Result<Bytes, CutConnection>, Duration)>) -> AnswerBody {
    let parts = stream::unfold(parts.into_iter(), |mut parts| async move {
        let (part, pause) = parts.next()?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Some((part.map(Frame::data), parts))
    });
    BodyExt::boxed_unsync(StreamBody::new(parts))
}
