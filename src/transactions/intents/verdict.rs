//! What becomes of an acknowledged transaction after a try. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::signing::SignClass;
use crate::transactions::errors::{ErrorClass, TransactionError};
use crate::transactions::prepare::is_verdict;

/// Rest after the first fault; it doubles with each further one, up to [`LONGEST_REST`].
pub(super) const FIRST_REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// How long a fault that may pass, but need not, is waited out: too small a balance, a key that is gone, a node's own words.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why a try led to no attempt.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// What was told by the preparation, or by the account.
    #[error("{0}")]
    Told(TransactionError),
    /// No service of this name was configured since the start: nobody knows its fee ceilings.
    #[error("the service {0} is not configured, so its fee ceilings are not known")]
    Unconfigured(Arc<str>),
    /// It reverts in an estimate of gas, which may be for want of what goes before it.
    #[error("{0}; what goes before it is not mined yet")]
    Early(TransactionError),
}

impl From<TransactionError> for Fault {
    fn from(error: TransactionError) -> Self {
        Self::Told(error)
    }
}

/// Whether a node judged the call itself: it reverts.
pub(super) fn reverts(error: &TransactionError) -> bool {
    matches!(error, TransactionError::Node(node) if is_verdict(node.code, &node.message))
}

/// How long such a fault is waited out before the transaction is ended: `None` for ever.
fn patience(fault: &Fault) -> Option<Duration> {
    let Fault::Told(error) = fault else { return None };
    match error {
        TransactionError::Sign(SignClass::KeyDown | SignClass::Configuration)
        | TransactionError::UnknownAccount
        | TransactionError::InsufficientFunds { .. } => Some(PATIENCE),
        TransactionError::Node(_) if !reverts(error) => Some(PATIENCE),
        // The chain asks for more than the service may pay, now.
        TransactionError::FeeCeiling { is_given: false, .. } => None,
        other => match other.class() {
            ErrorClass::Retry | ErrorClass::Reconcile => None,
            ErrorClass::Reject => Some(Duration::ZERO),
        },
    }
}

/// The rest after so many faults in a row.
fn rest(faults: u32) -> Duration {
    FIRST_REST.saturating_mul(2_u32.saturating_pow(faults.saturating_sub(1))).min(LONGEST_REST)
}

/// What is to become of a transaction after a try.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing more: it has an attempt or an end on record.
    Over,
    /// Once more, after this rest.
    Again(Duration),
    /// It is ended, for this reason.
    End(String),
}

/// The tries of one transaction so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// How many led to no attempt.
    faults: u32,
    /// Since when each try met a fault that may end the transaction.
    failing_since: Option<Instant>,
}

impl Tries {
    /// What becomes of the transaction after one more try, which ended at `now`.
    pub(super) fn judge(&mut self, answer: Result<(), &Fault>, now: Instant) -> Verdict {
        let fault = match answer {
            // A refusal of its bytes is on record already.
            Ok(()) | Err(Fault::Told(TransactionError::Refused { .. } | TransactionError::NotQueued)) => return Verdict::Over,
            Err(fault) => fault,
        };
        self.faults = self.faults.saturating_add(1);
        match patience(fault) {
            // Another fault in between, and those that may end it begin to count anew.
            None => self.failing_since = None,
            Some(patience) => {
                let since = *self.failing_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= patience {
                    return Verdict::End(fault.to_string());
                }
            }
        }
        Verdict::Again(rest(self.faults))
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::U256;

    use super::*;
    use crate::journal::{JournalError, TransactionId};
    use crate::node::{CallError, NodeError};
    use crate::telemetry::clock;

    fn node(code: i64, message: &str) -> TransactionError {
        TransactionError::Node(NodeError { code, message: message.into(), data: None })
    }

    fn short() -> TransactionError {
        TransactionError::InsufficientFunds { balance: U256::ZERO, cost: U256::ONE, overshot: U256::ONE, queued: U256::ZERO }
    }

    fn above(is_given: bool) -> TransactionError {
        TransactionError::FeeCeiling { words: "above the ceiling".into(), is_given }
    }

    /// The verdicts on one fault that comes at these times, in milliseconds, and on no other.
    fn verdicts(fault: &Fault, times: &[u64]) -> Vec<Verdict> {
        let (begin, mut tries) = (clock::now(), Tries::default());
        times.iter().map(|time| tries.judge(Err(fault), begin + Duration::from_millis(*time))).collect()
    }

    fn is_again(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Again(_))
    }

    const YEAR: u64 = 365 * 86_400_000;

    #[test]
    fn what_can_never_work_ends_a_transaction_at_once() {
        let (invalid, unsupported) = (TransactionError::Invalid("no".into()), TransactionError::Unsupported("no".into()));
        for error in [node(3, "execution reverted"), invalid, unsupported, above(true)] {
            let fault = Fault::Told(error);
            assert_eq!(verdicts(&fault, &[0]), [Verdict::End(fault.to_string())], "{fault:?}");
        }
    }

    #[test]
    fn what_passes_is_waited_out() {
        for error in [
            TransactionError::QueueFull,
            TransactionError::Crowded(Duration::from_secs(5)),
            TransactionError::Paused("why".into()),
            TransactionError::Sign(SignClass::Transient),
            TransactionError::Sign(SignClass::Credentials),
            TransactionError::Call(CallError::Unavailable),
            TransactionError::Journal(JournalError::NotWritten("full".into())),
            TransactionError::ShuttingDown,
            TransactionError::Internal,
        ] {
            let fault = Fault::Told(error);
            assert_eq!(verdicts(&fault, &[0, YEAR]), [1, 2].map(|faults| Verdict::Again(rest(faults))), "{fault:?}");
        }
    }

    #[test]
    fn a_price_of_the_moment_that_is_above_the_ceiling_is_waited_out() {
        assert!(verdicts(&Fault::Told(above(false)), &[0, YEAR]).iter().all(is_again));
    }

    #[test]
    fn a_service_that_is_not_configured_is_waited_for() {
        assert!(verdicts(&Fault::Unconfigured("payments".into()), &[0, YEAR]).iter().all(is_again));
    }

    #[test]
    fn a_revert_is_no_verdict_while_something_is_ahead() {
        let (begin, mut tries) = (clock::now(), Tries::default());
        let later = begin + Duration::from_millis(YEAR);
        for now in [begin, later] {
            assert!(is_again(&tries.judge(Err(&Fault::Early(node(3, "execution reverted"))), now)));
        }
        let alone = tries.judge(Err(&Fault::Told(node(3, "execution reverted"))), later);
        assert_eq!(alone, Verdict::End("execution reverted".into()));
    }

    #[test]
    fn what_may_pass_is_waited_out_for_a_while() {
        let key_down = TransactionError::Sign(SignClass::KeyDown);
        for error in [short(), TransactionError::UnknownAccount, key_down, node(-32005, "limit exceeded")] {
            let fault = Fault::Told(error);
            let patience = PATIENCE.as_millis() as u64;
            let verdicts = verdicts(&fault, &[5, 5 + patience - 1, 5 + patience]);
            assert!(verdicts[..2].iter().all(is_again), "{verdicts:?}");
            assert_eq!(verdicts[2], Verdict::End(fault.to_string()));
        }
    }

    #[test]
    fn only_what_may_end_it_counts_and_any_other_fault_is_a_break() {
        let (begin, mut tries) = (clock::now(), Tries::default());
        let mut judge = |error, seconds| tries.judge(Err(&Fault::Told(error)), begin + Duration::from_secs(seconds));
        // Time on a paused account is no time without a balance.
        assert!(is_again(&judge(TransactionError::Paused("why".into()), 0)));
        assert!(is_again(&judge(short(), 700)));
        assert!(is_again(&judge(TransactionError::UnknownAccount, 1_299)));
        assert!(is_again(&judge(TransactionError::Call(CallError::Unavailable), 1_300)));
        assert!(is_again(&judge(short(), 1_301)));
        assert!(is_again(&judge(short(), 1_900)));
        assert_eq!(judge(short(), 1_901), Verdict::End(short().to_string()));
    }

    #[test]
    fn what_is_on_record_is_over() {
        let hash = alloy_primitives::B256::ZERO;
        let refused = Fault::Told(TransactionError::Refused { code: 1, message: "no".into(), hash, transaction: TransactionId::new() });
        for answer in [Ok(()), Err(&refused), Err(&Fault::Told(TransactionError::NotQueued))] {
            assert_eq!(Tries::default().judge(answer, clock::now()), Verdict::Over, "{answer:?}");
        }
    }

    #[test]
    fn rests_grow_and_are_bounded() {
        assert_eq!([1, 2, 3, 4].map(rest).map(|rest| rest.as_millis()), [250, 500, 1000, 2000]);
        assert_eq!(rest(u32::MAX), LONGEST_REST);
    }
}
