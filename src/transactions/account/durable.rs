//! The commits of an account, each on its own: a fault of the account's task must not keep a requester from the hash of what became durable.

use alloy_primitives::B256;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::loans::Loan;
use super::submission::Accepted;
use crate::journal::JournalError;

type Committed = Result<Vec<i64>, JournalError>;

/// Who is told at the commit, whatever becomes of the account's task.
#[derive(Default)]
pub(super) struct Told {
    /// Requesters.
    pub(super) accepted: Vec<(watch::Sender<Option<Accepted>>, Accepted)>,
    /// Accounts that lent nonces to the payloads with these hashes.
    pub(super) loans: Vec<(Loan, B256)>,
}

impl Told {
    fn tell(self) {
        for (cell, accepted) in self.accepted {
            cell.send_replace(Some(accepted));
        }
        for (loan, hash) in self.loans {
            loan.taken(hash);
        }
    }
}

/// Ends with what is decided. Where nobody knows what was written it does not end: the process does, and reads it at its next start. Nothing may be
/// told before.
pub(super) fn durable(commit: BoxFuture<'static, Committed>, told: Told) -> BoxFuture<'static, Committed> {
    let task = tokio::spawn(async move {
        let result = commit.await;
        match result {
            Ok(_) => told.tell(),
            Err(JournalError::Closed) => {
                tracing::error!("the journal is closed in the middle of an account's commit");
                std::future::pending::<()>().await;
            }
            Err(_) => {}
        }
        result
    });
    // It ends without a result only with the runtime.
    task.then(|result| async move {
        match result {
            Ok(result) => result,
            Err(_) => std::future::pending().await,
        }
    })
    .boxed()
}
