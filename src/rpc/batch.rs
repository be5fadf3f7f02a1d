//! Batches: every item like a call of its own, all at once, the answers in the order of the items, within bounds.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use futures_util::stream::{FuturesUnordered, StreamExt};
use jsonrpsee::MethodResponse;
use jsonrpsee::core::middleware::{Batch, BatchEntry, Request};
use jsonrpsee::core::server::BatchResponseBuilder;
use jsonrpsee::types::Id;

use super::errors::{INVALID_REQUEST, Reason, RpcError};
pub use super::order::{BatchOrder, Turn};

/// geth's code for an answer beyond the limit.
pub const RESPONSE_TOO_LARGE: i32 = -32003;

/// An answer of up to so many bytes is given even beyond the limit: the hash of a transaction that was sent must not be withheld,
/// an error would promise that it is not mined. A batch's answer is thus at most this times its items longer than the limit.
const ALWAYS_GIVEN: usize = 1024;

/// geth's error for an answer beyond the limit.
pub(super) fn response_too_large() -> RpcError {
    RpcError::new(RESPONSE_TOO_LARGE, Reason::LimitExceeded, "response too large")
}

/// Answers a batch of at most `max_items`, each item by `call`, with at most `max_bytes` (see [`ALWAYS_GIVEN`]).
///
/// As in geth, the answers fit up to some item, and all later ones are told -32003 `response too large`. Which one that is
/// depends on the order of the items, not on which finishes first.
pub(super) async fn answer<'a, C, F>(batch: Batch<'a>, max_items: usize, max_bytes: usize, call: C) -> MethodResponse
where
    C: Fn(Request<'a>) -> F,
    F: Future<Output = MethodResponse> + Send + 'a,
{
    if batch.is_empty() {
        return MethodResponse::error(Id::Null, RpcError::new(INVALID_REQUEST, Reason::InvalidRequest, "empty batch"));
    }
    if batch.len() > max_items {
        return too_large(&batch);
    }
    let order = BatchOrder::default();
    let mut answers = Answers::new(batch.len(), max_bytes);
    let mut running = FuturesUnordered::new();
    for entry in batch {
        match entry {
            Ok(BatchEntry::Notification(_)) => {}
            Err(invalid) => {
                let (_, id) = invalid.into_parts();
                let error = RpcError::new(INVALID_REQUEST, Reason::InvalidRequest, "invalid request");
                let slot = answers.expect(id.clone().into_owned());
                answers.give(slot, MethodResponse::error(id, error));
            }
            Ok(BatchEntry::Call(mut request)) => {
                request.extensions_mut().insert(order.clone());
                let slot = answers.expect(request.id.clone().into_owned());
                let mut answer: Pin<Box<dyn Future<Output = _> + Send + 'a>> = {
                    let answer = call(request);
                    Box::pin(async move { (slot, answer.await) })
                };
                // The first poll is here and not in the set below, whose order is its own affair: turns are taken in it.
                match poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await {
                    Poll::Ready((slot, response)) => answers.give(slot, response),
                    Poll::Pending => running.push(answer),
                }
            }
        }
    }
    while let Some((slot, response)) = running.next().await {
        answers.give(slot, response);
    }
    answers.finish()
}

/// geth's answer to too many items: one error, in an array, with the id of the first call.
fn too_large(batch: &Batch<'_>) -> MethodResponse {
    let first = batch.iter().find_map(|entry| match entry {
        Ok(BatchEntry::Call(request)) => Some(request.id.clone().into_owned()),
        _ => None,
    });
    let error = RpcError::new(INVALID_REQUEST, Reason::LimitExceeded, "batch too large");
    join([MethodResponse::error(first.unwrap_or(Id::Null), error)])
}

fn join(responses: impl IntoIterator<Item = MethodResponse>) -> MethodResponse {
    let mut builder = BatchResponseBuilder::new_with_limit(usize::MAX);
    for response in responses {
        if let Err(error) = builder.append(response) {
            return error;
        }
    }
    MethodResponse::from_batch(builder.finish())
}

/// The answers given so far. Their bytes never exceed the limit, whatever finishes when.
struct Answers {
    slots: Vec<(Id<'static>, Option<MethodResponse>)>,
    bytes: usize,
    limit: usize,
    /// Large answers from this slot on are refused.
    cut: usize,
    /// No slot from here on holds a large answer.
    scan: usize,
}

impl Answers {
    fn new(items: usize, limit: usize) -> Self {
        Self { slots: Vec::with_capacity(items), bytes: 0, limit, cut: usize::MAX, scan: 0 }
    }

    fn expect(&mut self, id: Id<'static>) -> usize {
        self.slots.push((id, None));
        self.slots.len() - 1
    }

    /// Above the limit the last large answer goes, and with it all that come after it, until the rest fits. What is left in the
    /// end is what fits from the front, since nothing goes while everything up to it fits.
    fn give(&mut self, slot: usize, response: MethodResponse) {
        let bytes = weight(&response);
        if bytes > 0 && slot >= self.cut {
            return self.refuse(slot);
        }
        self.bytes += bytes;
        self.put(slot, response);
        if bytes > 0 {
            self.scan = self.scan.max(slot + 1);
        }
        while self.bytes > self.limit && self.scan > 0 {
            self.scan -= 1;
            let weight = self.slots.get(self.scan).and_then(|(_, given)| given.as_ref()).map_or(0, weight);
            if weight > 0 {
                self.bytes -= weight;
                self.cut = self.scan;
                self.refuse(self.scan);
            }
        }
    }

    fn put(&mut self, slot: usize, response: MethodResponse) {
        if let Some((_, given)) = self.slots.get_mut(slot) {
            *given = Some(response);
        }
    }

    fn refuse(&mut self, slot: usize) {
        if let Some((id, given)) = self.slots.get_mut(slot) {
            *given = Some(MethodResponse::error(id.clone(), response_too_large()));
        }
    }

    fn finish(self) -> MethodResponse {
        if self.slots.is_empty() {
            return MethodResponse::notification();
        }
        join(self.slots.into_iter().filter_map(|(_, given)| given))
    }
}

/// Bytes that count; small answers do not.
fn weight(response: &MethodResponse) -> usize {
    let bytes = response.as_json().get().len();
    if bytes > ALWAYS_GIVEN { bytes } else { 0 }
}

#[cfg(test)]
mod tests {
    use jsonrpsee::ResponsePayload;
    use proptest::prelude::*;

    use super::*;

    fn response(id: u64, bytes: usize) -> MethodResponse {
        MethodResponse::response(Id::Number(id), ResponsePayload::success("x".repeat(bytes)), usize::MAX)
    }

    fn codes(answer: &MethodResponse) -> Vec<(u64, i64)> {
        let list: Vec<serde_json::Value> = serde_json::from_str(answer.as_json().get()).unwrap();
        list.iter().map(|item| (item["id"].as_u64().unwrap(), item["error"]["code"].as_i64().unwrap_or(0))).collect()
    }

    proptest! {
        /// What is refused is what geth refuses: everything large from the first item on that does not fit any more.
        #[test]
        fn the_cut_does_not_depend_on_who_finishes_first(
            items in proptest::collection::vec((prop_oneof![0_usize..100, 2000_usize..9000], any::<u32>()), 1..40),
            limit in 0_usize..60_000,
        ) {
            let mut answers = Answers::new(items.len(), limit);
            for index in 0..items.len() {
                answers.expect(Id::Number(index as u64));
            }
            let mut finishing: Vec<usize> = (0..items.len()).collect();
            finishing.sort_by_key(|index| items[*index].1);
            for index in finishing {
                answers.give(index, response(index as u64, items[index].0));
                prop_assert!(answers.bytes <= limit);
            }
            let mut bytes = 0;
            let expected: Vec<(u64, i64)> = items.iter().enumerate().map(|(index, (size, _))| {
                bytes += weight(&response(index as u64, *size));
                let refused = *size > 1000 && bytes > limit;
                (index as u64, if refused { -32003 } else { 0 })
            }).collect();
            prop_assert_eq!(codes(&answers.finish()), expected);
        }
    }
}
