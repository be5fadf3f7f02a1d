//! The scripted node over HTTP.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::{Asked, Order, Peer, State, enter};

/// Serves one connection to its end.
pub(super) async fn serve<S>(stream: S, state: Arc<Mutex<State>>, ask: mpsc::UnboundedSender<Asked>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (_peer, mut orders) = enter(&state);
    let service = service_fn(|request| answer(request, state.clone(), ask.clone()));
    let mut serving = std::pin::pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            _ = &mut serving => return,
            order = orders.recv() => match order {
                // Nothing is announced over HTTP.
                Some(Order::Write(_) | Order::Status(_)) => {}
                // It holds the connection, and answers nothing more.
                Some(Order::Deafen) => while !matches!(orders.recv().await, Some(Order::Drop) | None) {},
                Some(Order::Drop) | None => return,
            },
        }
    }
}

/// The answers of all that came together; one without an id is the whole response.
async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    ask: mpsc::UnboundedSender<Asked>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert!(request.method() == "POST" && request.headers()["content-type"] == "application/json");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let json: Value = serde_json::from_slice(&body).unwrap();
    let (items, is_batch) = match json {
        Value::Array(items) => (items, true),
        one => (vec![one], false),
    };
    let (reply, mut replies) = mpsc::unbounded_channel();
    for item in &items {
        Asked::read(item, Peer(reply.clone()), items.len()).settle(&state, &ask);
    }
    let mut answers: Vec<String> = Vec::new();
    while answers.len() < items.len() {
        match replies.recv().await {
            Some(Order::Write(text)) if text.contains("\"id\":null") => return Ok(Response::new(text.into())),
            Some(Order::Write(text)) => answers.push(text),
            Some(Order::Status(code)) => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                return Ok(response);
            }
            Some(Order::Deafen) => {}
            // The connection is not closed by this: the test ends it.
            Some(Order::Drop) | None => std::future::pending().await,
        }
    }
    let text = answers.join(",");
    Ok(Response::new(if is_batch { format!("[{text}]") } else { text }.into()))
}
