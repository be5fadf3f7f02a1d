//! One Sign: asked, finished and counted in a task of its own.

use std::future::Future;
use std::sync::Arc;

use alloy_primitives::{B256, Signature};
use prometheus::IntGauge;
use tokio::time::Instant;

use super::meters::{Outcome, SignMeter};
use super::routes::Way;
use crate::signing::signature::{PinnedKey, finish};
use crate::signing::{KeyStoreError, SignClass};

/// Counts a Sign as in flight until it is dropped, and what came of it. Dropped before it was answered, that is its outcome.
struct InFlight {
    gauge: IntGauge,
    meter: Arc<SignMeter>,
    start: Instant,
    outcome: Outcome,
}

impl InFlight {
    fn ended(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.gauge.dec();
        self.meter.count(self.outcome, self.start.elapsed());
    }
}

/// Asks the way's store once, until `until`, and finishes what it answers.
pub(super) fn attempt(
    way: &Way,
    pinned: Arc<PinnedKey>,
    digest: B256,
    until: Instant,
    gauge: &IntGauge,
) -> impl Future<Output = Result<Signature, KeyStoreError>> + use<> {
    gauge.inc();
    let (store, arn) = (Arc::clone(&way.holder.store), way.holder.arn.clone());
    let mut in_flight = InFlight { gauge: gauge.clone(), meter: Arc::clone(&way.meter), start: Instant::now(), outcome: Outcome::Dropped };
    async move {
        let answer = tokio::time::timeout_at(until, store.sign_digest(&arn, digest)).await;
        let result = match answer {
            Ok(answer) => answer.and_then(|answer| {
                finish(&answer, digest, &pinned)
                    .map_err(|fault| KeyStoreError { class: SignClass::BadSignature, detail: format!("{arn}: {fault}") })
            }),
            Err(_) => Err(KeyStoreError { class: SignClass::Deadline, detail: format!("{arn}: no answer in time") }),
        };
        in_flight.ended(Outcome::of(&result));
        result
    }
}
