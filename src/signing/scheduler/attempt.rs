//! One Sign: asked, finished and counted in a task of its own.

use std::sync::Arc;

use alloy_primitives::{B256, Signature};
use prometheus::IntGauge;
use tokio::time::Instant;

use super::meters::SignMeter;
use crate::signing::key::Holder;
use crate::signing::signature::{PinnedKey, finish};
use crate::signing::{KeyStoreError, SignClass};

/// Counts a Sign as in flight until it is dropped, however that happens.
struct InFlight(IntGauge);

impl InFlight {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Asks the holder's store once, until `until`, and finishes what it answers.
pub(super) async fn attempt(
    holder: Holder,
    pinned: Arc<PinnedKey>,
    digest: B256,
    until: Instant,
    meter: Arc<SignMeter>,
    in_flight: IntGauge,
) -> Result<Signature, KeyStoreError> {
    let _in_flight = InFlight::new(in_flight);
    let start = Instant::now();
    let answer = tokio::time::timeout_at(until, holder.store.sign_digest(&holder.arn, digest)).await;
    meter.seconds.observe(start.elapsed().as_secs_f64());
    let result = match answer {
        Ok(answer) => answer.and_then(|answer| {
            finish(&answer, digest, &pinned)
                .map_err(|fault| KeyStoreError { class: SignClass::BadSignature, detail: format!("{}: {fault}", holder.arn) })
        }),
        Err(_) => Err(KeyStoreError { class: SignClass::Deadline, detail: format!("{}: no answer in time", holder.arn) }),
    };
    meter.count(&result);
    result
}
