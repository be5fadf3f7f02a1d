//! When an account of a restored journal may go on: the chain has settled once every endpoint says the same for so many blocks in a
//! row. Pure.

/// One endpoint's answer about an account at one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// `eth_getTransactionCount` at `latest`.
    pub latest: u64,
    /// The same at `pending`: what the endpoint's pool has is counted as well.
    pub pending: u64,
}

/// What the endpoints' answers mean so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// An endpoint did not answer, or they do not say the same.
    Differ,
    /// All say this nonce, latest and pending alike, for so many blocks.
    Agree {
        /// The chain's nonce.
        nonce: u64,
        /// Blocks so far, the one at which they began to agree counted.
        blocks: u64,
    },
    /// Long enough: the chain's nonce.
    Settled(u64),
}

/// The count of blocks in a row.
#[derive(Debug, Clone)]
pub struct Settling {
    wanted: u64,
    /// The nonce, the block at which all agreed for the first time, and the newest one.
    agreed: Option<(u64, u64, u64)>,
}

impl Settling {
    /// Settled after `wanted` blocks in a row, one at least.
    pub fn new(wanted: u64) -> Self {
        Self { wanted: wanted.max(1), agreed: None }
    }

    /// Blocks in a row that are wanted.
    pub fn wanted(&self) -> u64 {
        self.wanted
    }

    /// What the last answers meant.
    pub fn verdict(&self) -> Verdict {
        match self.agreed {
            None => Verdict::Differ,
            Some((nonce, first, newest)) => match newest - first + 1 {
                blocks if blocks >= self.wanted => Verdict::Settled(nonce),
                blocks => Verdict::Agree { nonce, blocks },
            },
        }
    }

    /// The answers of every endpoint at this head, `None` for one that gave none. The count begins anew when an answer is missing or
    /// differs, when the nonce is another one, and when the head is lower than before: blocks were taken back.
    pub fn observe(&mut self, head: u64, answers: &[Option<Counts>]) -> Verdict {
        self.agreed = agreed(answers).map(|nonce| match self.agreed {
            Some((same, first, newest)) if same == nonce && newest <= head => (nonce, first, head),
            _ => (nonce, head, head),
        });
        self.verdict()
    }

    /// Begins anew: what the answers meant until now holds no more.
    pub fn restart(&mut self) {
        self.agreed = None;
    }
}

/// The nonce that every endpoint says, latest and pending alike.
fn agreed(answers: &[Option<Counts>]) -> Option<u64> {
    let nonce = answers.first().copied().flatten()?.latest;
    answers.iter().all(|answer| *answer == Some(Counts { latest: nonce, pending: nonce })).then_some(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(latest: u64, pending: u64) -> Option<Counts> {
        Some(Counts { latest, pending })
    }

    #[test]
    fn settled_after_so_many_blocks_in_a_row() {
        let mut settling = Settling::new(3);
        assert_eq!(settling.verdict(), Verdict::Differ);
        assert_eq!(settling.observe(10, &[at(5, 5), at(5, 5)]), Verdict::Agree { nonce: 5, blocks: 1 });
        assert_eq!(settling.observe(10, &[at(5, 5), at(5, 5)]), Verdict::Agree { nonce: 5, blocks: 1 }, "the same block counts once");
        assert_eq!(settling.observe(11, &[at(5, 5), at(5, 5)]), Verdict::Agree { nonce: 5, blocks: 2 });
        assert_eq!(settling.observe(12, &[at(5, 5), at(5, 5)]), Verdict::Settled(5));
        assert_eq!(settling.verdict(), Verdict::Settled(5));
        settling.restart();
        assert_eq!(settling.observe(13, &[at(5, 5), at(5, 5)]), Verdict::Agree { nonce: 5, blocks: 1 });
    }

    #[test]
    fn blocks_that_were_not_looked_at_one_by_one_count_too() {
        let mut settling = Settling::new(3);
        settling.observe(10, &[at(5, 5)]);
        assert_eq!(settling.observe(14, &[at(5, 5)]), Verdict::Settled(5));
    }

    #[test]
    fn endpoints_that_differ_have_not_settled() {
        let mut settling = Settling::new(1);
        assert_eq!(settling.observe(10, &[at(5, 5), at(6, 6)]), Verdict::Differ);
        assert_eq!(settling.observe(11, &[at(5, 6), at(5, 6)]), Verdict::Differ, "a pool has something");
        assert_eq!(settling.observe(12, &[at(5, 5), at(5, 6)]), Verdict::Differ);
        assert_eq!(settling.observe(13, &[at(6, 6), at(6, 6)]), Verdict::Settled(6));
    }

    #[test]
    fn an_endpoint_that_does_not_answer_has_not_agreed() {
        let mut settling = Settling::new(2);
        settling.observe(10, &[at(5, 5), at(5, 5)]);
        assert_eq!(settling.observe(11, &[at(5, 5), None]), Verdict::Differ);
        assert_eq!(settling.observe(12, &[None, at(5, 5)]), Verdict::Differ);
        assert_eq!(settling.observe(13, &[at(5, 5), at(5, 5)]), Verdict::Agree { nonce: 5, blocks: 1 }, "the count began anew");
        assert_eq!(settling.observe(14, &[]), Verdict::Differ, "nobody is not everybody");
    }

    #[test]
    fn another_nonce_and_a_lower_head_begin_the_count_anew() {
        let mut settling = Settling::new(2);
        settling.observe(10, &[at(5, 5)]);
        assert_eq!(settling.observe(11, &[at(6, 6)]), Verdict::Agree { nonce: 6, blocks: 1 });
        assert_eq!(settling.observe(10, &[at(6, 6)]), Verdict::Agree { nonce: 6, blocks: 1 });
        assert_eq!(settling.observe(11, &[at(6, 6)]), Verdict::Settled(6));
    }
}
