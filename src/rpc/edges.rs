//! The edge before an answer that tells what became of a request, and the faults that are seeded at answers, for the crash harness.

use alloy_primitives::{B256, Bytes};

use crate::journal::{Kind, TransactionId};
use crate::telemetry::crash::{self, Told};
use crate::telemetry::faults::SeededFault;
use crate::transactions::chain::Accepted;
use crate::transactions::errors::TransactionError;

/// The answer that is told; the same one, unless a fault is switched on.
pub(super) fn tell(kind: Kind, answer: Result<Accepted, TransactionError>) -> Result<Accepted, TransactionError> {
    if !crash::ON {
        return answer;
    }
    let told = match &answer {
        Ok(_) if kind == Kind::SignOnly => Told::Bytes,
        Ok(_) => Told::Hash,
        Err(_) => Told::Error,
    };
    let answer = match answer {
        // An error, for what is on record.
        Ok(_) if told == Told::Hash && SeededFault::ErrorToldForHash.is_on() => Err(TransactionError::Internal),
        // Other bytes than those on record.
        Ok(accepted) if told == Told::Bytes && SeededFault::OtherBytesTold.is_on() => {
            Ok(Accepted { raw: tampered(&accepted.raw), ..accepted })
        }
        // A hash, for what is on record nowhere.
        Err(_) if SeededFault::HashToldForError.is_on() => {
            Ok(Accepted { id: TransactionId::new(), hash: B256::repeat_byte(0xee), raw: Bytes::new() })
        }
        // Another hash than the one on record.
        Ok(accepted) if told == Told::Hash && SeededFault::OtherHashTold.is_on() => Ok(Accepted { hash: !accepted.hash, ..accepted }),
        answer => answer,
    };
    crash::telling(told);
    answer
}

fn tampered(raw: &Bytes) -> Bytes {
    let mut raw = raw.to_vec();
    raw.iter_mut().rev().take(1).for_each(|byte| *byte ^= 1);
    raw.into()
}
