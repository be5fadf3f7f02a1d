//! Open connections for a burst: the SDK needs one for each call in flight, and a handshake costs a Sign several times its own time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_kms::Client;
use futures_util::future::join_all;

use crate::signing::KeyArn;

/// Between two looks. The SDK closes a connection that was idle for 90 s.
const INTERVAL: Duration = Duration::from_secs(60);

/// How many Signs were in flight at the same time.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    in_flight: AtomicUsize,
    peak: AtomicUsize,
}

/// A Sign in flight, until it is dropped.
pub(super) struct InFlight<'a>(&'a Traffic);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Traffic {
    pub(super) fn enter(&self) -> InFlight<'_> {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
        InFlight(self)
    }

    /// The most since the last look: so many connections are open.
    fn take_peak(&self) -> usize {
        self.peak.swap(self.in_flight.load(Ordering::Relaxed), Ordering::Relaxed)
    }
}

/// Keeps `wanted` connections open for ever. `spread`, in [0, 1), is its place among gateways that began together.
pub(super) async fn keep(client: Client, traffic: Arc<Traffic>, key: KeyArn, wanted: usize, spread: f64) {
    loop {
        look(&client, &traffic, &key, wanted).await;
        tokio::time::sleep(INTERVAL.mul_f64(1.0 - spread / 4.0)).await;
    }
}

/// Opens `wanted` connections, by as many DescribeKey calls at once, unless Signs have used as many since the last look.
pub(super) async fn look(client: &Client, traffic: &Traffic, key: &KeyArn, wanted: usize) {
    if traffic.take_peak() >= wanted {
        return;
    }
    let calls = (0..wanted).map(|_| client.describe_key().key_id(&*key.0).send());
    let failed = join_all(calls).await.iter().filter(|answer| answer.is_err()).count();
    tracing::debug!(%key, wanted, failed, "connections to AWS KMS were warmed");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_that_since_the_last_look() {
        let traffic = Traffic::default();
        let first = traffic.enter();
        drop(traffic.enter());
        assert_eq!(traffic.take_peak(), 2);
        assert_eq!(traffic.take_peak(), 1, "one is still in flight");
        drop(first);
        assert_eq!((traffic.take_peak(), traffic.take_peak()), (1, 0));
    }
}
