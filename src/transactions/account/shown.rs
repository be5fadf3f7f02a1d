//! What operators see of an account: how it is, and where the time of its transactions goes.

use std::time::Instant;

use super::{Chain, Live, Pending, Task};
use crate::telemetry::clock;
use crate::telemetry::metrics::accounts::AccountView;
use crate::transactions::meters::Stage;
use crate::transactions::nonces::figures::Figures;

impl Task {
    /// What the account has in hand.
    pub(super) fn figures(&self) -> Figures {
        let figures = self.nonces.figures();
        Figures { next_nonce: self.next_nonce(), queued: self.queued(), ..figures }
    }

    /// Shows operators how the account is. Once per tick: nobody looks more often, and no transaction pays for it.
    pub(super) fn show(&mut self, now: Instant) {
        let figures = self.figures();
        let view = AccountView {
            active: self.is_active() || self.stopped().is_some(),
            queued: figures.queued,
            signing: figures.signing,
            unsent: figures.unsent,
            in_flight: figures.in_flight,
            window: figures.window,
            paused: self.stopped().is_some(),
            on_hold: figures.is_on_hold,
            next_nonce: figures.next_nonce,
        };
        self.meter.show(&view, now);
    }
}

impl Pending {
    /// A stage that is a wait for others is over.
    pub(super) fn waited(&mut self, stage: Stage, now: Instant, chain: &Chain) {
        let wait = self.laps.end(stage, now, &chain.metrics);
        if let Some(reply) = &self.submission.reply {
            reply.waited.add(wait);
        }
    }
}

impl Live {
    /// A node has the bytes of an attempt that this process committed.
    pub(super) fn taken(&mut self, chain: &Chain) {
        let Some(mut laps) = self.laps.take() else { return };
        let now = clock::now();
        laps.end(Stage::Node, now, &chain.metrics);
        chain.metrics.broadcast(now.saturating_duration_since(laps.arrived));
        self.broadcast_at = Some(now);
    }

    /// A block has it for the first time. What a block has, a node had before, also if its answer comes later.
    pub(super) fn mined(&mut self, chain: &Chain) {
        self.taken(chain);
        if let Some(broadcast) = self.broadcast_at.take() {
            chain.metrics.included(broadcast.elapsed());
        }
    }
}
