//! What goes wrong between Sluice and its nodes, and what the chain does meanwhile.

use std::time::Duration;

use sluice_load_tests::announcements::{HEADS, HeadFault};
use sluice_load_tests::faults::Faults;
use sluice_load_tests::node_proxy::NodeProxy;

use super::stage::Stage;
use crate::support::eventually;

/// The deepest reorg without anything else; [`Kind::Reorg`].
const DEEPEST: u64 = 40;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Both connections are cut, and made again at once.
    Cut,
    /// One endpoint is away.
    Failover,
    /// Both are away.
    Away,
    /// Connections stay and say nothing, not even to pings: one, the other, or both.
    HalfOpen,
    /// Nothing passes for a while, or until the connections are given up; then all of it.
    Stall,
    /// The node tells no heads any more on connections that are well.
    Deaf,
    /// Heads are told twice.
    Doubled,
    /// Heads are told behind their children.
    Reordered,
    /// Heads are left out.
    LeftOut,
    /// One endpoint runs backwards.
    Backwards,
    /// One endpoint tells heads of another history, of which nobody has a block.
    OtherHistory,
    /// The connections are well, and the chain is not: a reorg deeper than those that come with the others.
    Reorg,
}

impl Kind {
    pub(super) const ALL: [Self; 12] = [
        Self::Cut,
        Self::Failover,
        Self::Away,
        Self::HalfOpen,
        Self::Stall,
        Self::Deaf,
        Self::Doubled,
        Self::Reordered,
        Self::LeftOut,
        Self::Backwards,
        Self::OtherHistory,
        Self::Reorg,
    ];

    /// Whether the fault of this number has a reorg while it lasts: every second one.
    pub(super) fn has_reorg(self, number: u64) -> bool {
        self == Self::Reorg || number % 2 == 1
    }
}

impl Stage {
    /// One fault, from its beginning until the first client has seen the newest head. An error is what that client was told instead.
    pub(super) async fn fault(&self, kind: Kind, number: u64) -> Result<(), String> {
        let [one, other] = self.ways.each_ref();
        let (both, either) = (vec![one, other], [one, other][self.below(2) as usize]);
        let some = if self.below(3) == 0 { both.clone() } else { vec![either] };
        self.send();
        match kind {
            Kind::Cut => {
                let made: Vec<u64> = both.iter().map(|way| way.connections().0).collect();
                both.iter().for_each(|way| way.cut());
                self.history(kind, number);
                made_again(&both, &made).await;
            }
            Kind::Failover => self.absence(kind, number, &[either]).await?,
            Kind::Away => self.absence(kind, number, &both).await?,
            Kind::HalfOpen => {
                let made: Vec<u64> = some.iter().map(|way| way.connections().0).collect();
                some.iter().for_each(|way| way.hang());
                self.history(kind, number);
                made_again(&some, &made).await;
            }
            Kind::Stall => {
                some.iter().for_each(|way| way.stall(true));
                self.history(kind, number);
                if self.below(4) == 0 {
                    self.missed(some.len()).await;
                } else {
                    tokio::time::sleep(Duration::from_millis(20 + self.below(180))).await;
                }
                some.iter().for_each(|way| way.stall(false));
            }
            Kind::Deaf => {
                self.node.with(|node, _| node.set_announcing(false));
                self.history(kind, number);
                self.caught_up().await?;
                self.node.with(|node, _| node.set_announcing(true));
            }
            Kind::Doubled => self.misled(kind, number, &some, HeadFault::Twice).await,
            Kind::Reordered => self.misled(kind, number, &some, HeadFault::BehindNext).await,
            Kind::LeftOut => self.misled(kind, number, &some, HeadFault::LeftOut).await,
            Kind::Backwards => {
                let heads = 1 + self.below(12);
                self.misled(kind, number, &[either], HeadFault::Older { heads }).await;
            }
            Kind::OtherHistory => self.misled(kind, number, &[either], HeadFault::OtherHistory).await,
            Kind::Reorg => self.history(kind, number),
        }
        self.send();
        self.mine();
        self.caught_up().await?;
        self.connected().await;
        Ok(())
    }

    /// What the chain does while a fault lasts: one to three blocks, and perhaps a reorg.
    fn history(&self, kind: Kind, number: u64) {
        (0..=self.below(3)).for_each(|_| self.mine());
        match kind {
            Kind::Reorg => self.reorg(5 + self.below(DEEPEST - 4)),
            _ if kind.has_reorg(number) => self.reorg(1 + self.below(4)),
            _ => {}
        }
    }

    /// These endpoints are away for a while.
    async fn absence(&self, kind: Kind, number: u64, ways: &[&NodeProxy]) -> Result<(), String> {
        for way in ways {
            way.refuse(true);
            way.cut();
        }
        self.history(kind, number);
        self.missed(ways.len()).await;
        // A failover ends while the gateway streams by the other endpoint, or before that has told its head.
        if ways.len() == 1 && self.below(2) == 0 {
            self.caught_up().await?;
        }
        ways.iter().for_each(|way| way.refuse(false));
        Ok(())
    }

    /// The next two heads by these ways are told otherwise.
    async fn misled(&self, kind: Kind, number: u64, ways: &[&NodeProxy], fault: HeadFault) {
        let before: Vec<u64> = ways.iter().map(|way| way.misled()).collect();
        ways.iter().for_each(|way| way.set_head_faults(Faults::default().then(HEADS, 2, fault.clone())));
        // Two heads at least.
        self.mine();
        self.history(kind, number);
        // A connection that is new may not have told what was there first.
        eventually("heads that go wrong", || async {
            let is_done = ways.iter().zip(&before).all(|(way, before)| way.misled() >= before + 2);
            if !is_done {
                self.mine();
            }
            is_done.then_some(())
        })
        .await;
    }
}

/// Waits until there were more connections by these ways than before.
async fn made_again(ways: &[&NodeProxy], before: &[u64]) {
    eventually("new connections", || async { ways.iter().zip(before).all(|(way, before)| way.connections().0 > *before).then_some(()) })
        .await;
}
