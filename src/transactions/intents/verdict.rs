//! What becomes of an acknowledged transaction after an answer of its account. Pure.

use std::time::Duration;

use crate::signing::SignClass;
use crate::transactions::errors::{ErrorClass, TransactionError};
use crate::transactions::prepare::is_verdict;

/// Rest after the first fault; it doubles with each further one, up to [`LONGEST_REST`].
pub(super) const FIRST_REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// How long a fault that may pass, but need not, is waited out: too small a balance, a key that is gone, a node's own words.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long such a fault is waited out before the transaction is ended: `None` for ever.
fn patience(error: &TransactionError) -> Option<Duration> {
    match error {
        TransactionError::Sign(SignClass::KeyDown | SignClass::Configuration)
        | TransactionError::UnknownAccount
        | TransactionError::InsufficientFunds { .. } => Some(PATIENCE),
        TransactionError::Node(node) if !is_verdict(node.code, &node.message) => Some(PATIENCE),
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

/// What is to become of a transaction after an answer of the account.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing more: it has an attempt or an end on record.
    Over,
    /// Once more, after this rest.
    Again(Duration),
    /// It is ended, for this reason.
    End(String),
}

/// `failing`: how long it has failed without a break; `faults`: how often.
pub(super) fn judge(answer: Result<(), &TransactionError>, failing: Duration, faults: u32) -> Verdict {
    match answer {
        // A refusal of its bytes is on record already.
        Ok(()) | Err(TransactionError::Refused { .. } | TransactionError::NotQueued) => Verdict::Over,
        Err(error) if patience(error).is_some_and(|patience| failing >= patience) => Verdict::End(error.to_string()),
        Err(_) => Verdict::Again(rest(faults)),
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::U256;

    use super::*;
    use crate::journal::{JournalError, TransactionId};
    use crate::node::{CallError, NodeError};

    fn node(code: i64, message: &str) -> TransactionError {
        TransactionError::Node(NodeError { code, message: message.into(), data: None })
    }

    fn short() -> TransactionError {
        TransactionError::InsufficientFunds { balance: U256::ZERO, cost: U256::ONE, overshot: U256::ONE, queued: U256::ZERO }
    }

    #[test]
    fn what_can_never_work_ends_a_transaction_at_once() {
        for error in [node(3, "execution reverted"), TransactionError::Invalid("no".into()), TransactionError::Unsupported("no".into())] {
            assert_eq!(judge(Err(&error), Duration::ZERO, 1), Verdict::End(error.to_string()), "{error:?}");
        }
    }

    #[test]
    fn what_passes_is_waited_out() {
        let year = Duration::from_secs(365 * 86_400);
        for error in [
            TransactionError::QueueFull,
            TransactionError::Paused("why".into()),
            TransactionError::Sign(SignClass::Transient),
            TransactionError::Sign(SignClass::Credentials),
            TransactionError::Call(CallError::Unavailable),
            TransactionError::Journal(JournalError::NotWritten("full".into())),
            TransactionError::ShuttingDown,
            TransactionError::Internal,
        ] {
            assert_eq!(judge(Err(&error), year, 1), Verdict::Again(FIRST_REST), "{error:?}");
        }
    }

    #[test]
    fn what_may_pass_is_waited_out_for_a_while() {
        for error in [short(), TransactionError::UnknownAccount, TransactionError::Sign(SignClass::KeyDown), node(-32005, "limit exceeded")]
        {
            assert_eq!(judge(Err(&error), PATIENCE - Duration::from_millis(1), 1), Verdict::Again(FIRST_REST), "{error:?}");
            assert_eq!(judge(Err(&error), PATIENCE, 1), Verdict::End(error.to_string()), "{error:?}");
        }
    }

    #[test]
    fn what_is_on_record_is_over() {
        let hash = alloy_primitives::B256::ZERO;
        let refused = TransactionError::Refused { code: 1, message: "no".into(), hash, transaction: TransactionId::new() };
        for answer in [Ok(()), Err(&refused), Err(&TransactionError::NotQueued)] {
            assert_eq!(judge(answer, PATIENCE, 9), Verdict::Over, "{answer:?}");
        }
    }

    #[test]
    fn rests_grow_and_are_bounded() {
        assert_eq!([1, 2, 3, 4].map(rest).map(|rest| rest.as_millis()), [250, 500, 1000, 2000]);
        assert_eq!(rest(u32::MAX), LONGEST_REST);
    }
}
