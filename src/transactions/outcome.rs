//! What a node's answer to `eth_sendRawTransaction` means for the nonce. Pure; the table is normalised text first, code
//! second, because codes collide between clients (docs/architecture.md names the sources).

use alloy_primitives::B256;

use crate::node::{CallError, NodeError};

/// One endpoint's answer to one send, from best to worst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The node took the bytes.
    Accepted,
    /// The node had them already.
    Known,
    /// One node's view of one head says that the nonce is used: a question to the receipts, never an answer.
    NonceTooLow,
    /// Another payload holds the nonce in the node's pool.
    Occupied,
    /// The pool, or this account's share of it, is full.
    PoolFull,
    /// Nobody knows whether the node has the bytes: held.
    Unknown(String),
    /// These bytes never left: the endpoint was not reachable.
    NotSent,
    /// The node refused them for good: its code and its words.
    Refused {
        /// The node's code.
        code: i64,
        /// The node's words.
        message: String,
    },
}

impl Outcome {
    /// The label of `sluice_submissions_total`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Known => "known",
            Self::NonceTooLow => "nonce_too_low",
            Self::Occupied => "occupied",
            Self::PoolFull => "pool_full",
            Self::Unknown(_) => "unknown",
            Self::NotSent => "not_sent",
            Self::Refused { .. } => "refused",
        }
    }

    /// Whether the node has the bytes.
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Accepted | Self::Known)
    }
}

/// Reads one endpoint's answer. A hash other than ours is not an acceptance of our bytes.
pub fn classify(answer: &Result<B256, CallError>, ours: B256) -> Outcome {
    match answer {
        Ok(hash) if *hash == ours => Outcome::Accepted,
        Ok(hash) => Outcome::Unknown(format!("the node answered with another hash: {hash}")),
        Err(CallError::Node(error)) => classify_error(error),
        Err(CallError::Unavailable | CallError::WrongChain(_) | CallError::Full) => Outcome::NotSent,
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}

const KNOWN: [&str; 7] = [
    "already known",
    "alreadyknown",
    "known transaction",
    "already imported",
    "existing txn with same hash",
    "ownnoncealreadyused",
    "already in mempool",
];
const TOO_LOW: [&str; 3] = ["nonce too low", "oldnonce", "nonce is too low"];
const OCCUPIED: [&str; 3] = ["replacement transaction underpriced", "could not replace existing", "replacement underpriced"];
const POOL_FULL: [&str; 7] = [
    "txpool is full",
    "transaction pool is full",
    "account limit exceeded",
    "sub-pool is full",
    "in-flight transaction limit",
    "too distant from current sender nonce",
    "nonce too far in future",
];
/// Not a verdict on the bytes: the node cannot say now, or says so for a reason that passes.
const PASSING: [&str; 9] = [
    "syncing",
    "pool not enabled",
    "rate limit",
    "too many requests",
    "timeout",
    "gapped-nonce",
    "authority already reserved",
    "nonce too high",
    "temporarily",
];
const REFUSED: [&str; 38] = [
    "insufficient funds",
    "upfront cost exceeds account balance",
    "insufficientfunds",
    "intrinsic gas too low",
    "intrinsicgas",
    "intrinsic gas exceeds gas limit",
    "intrinsic gas too high",
    "insufficient gas for floor data gas cost",
    "exceeds block gas limit",
    "gas limit reached",
    "transaction gas limit too high",
    "exceeds max transaction gas limit",
    "gas limit cap exceeded",
    "txgaslimitcapexceeded",
    "transaction gas limit is greater than the block gas limit",
    "transaction underpriced",
    "below minimum",
    "gas price below configured minimum",
    "below current base fee",
    "less than block base fee",
    "below minimum required priority fee",
    "fee too low",
    "max priority fee per gas higher than max fee per gas",
    "max priority fee per gas exceeds max fee per gas",
    "invalidmaxpriorityfeepergas",
    "exceeds the configured cap",
    "fee cap exceeded",
    "invalid chain id",
    "wrong chainid",
    "invalidtxchainid",
    "invalid sender",
    "transaction type not supported",
    "max initcode size exceeded",
    "oversized data",
    "address already reserved",
    "only replay-protected",
    "eip-7702",
    "invalid transaction",
];

fn classify_error(error: &NodeError) -> Outcome {
    let text = error.message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&KNOWN) {
        Outcome::Known
    } else if says(&TOO_LOW) {
        Outcome::NonceTooLow
    } else if says(&OCCUPIED) {
        Outcome::Occupied
    } else if says(&POOL_FULL) {
        Outcome::PoolFull
    } else if says(&PASSING) {
        Outcome::Unknown(error.message.clone())
    } else if says(&REFUSED) || text == "underpriced" {
        Outcome::Refused { code: error.code, message: error.message.clone() }
    } else {
        Outcome::Unknown(error.message.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: i64, message: &str) -> Outcome {
        classify(&Err(CallError::Node(NodeError { code, message: message.into(), data: None })), B256::ZERO)
    }

    #[test]
    fn a_hash_counts_only_if_it_is_ours() {
        assert_eq!(classify(&Ok(B256::ZERO), B256::ZERO), Outcome::Accepted);
        assert_eq!(classify(&Ok(B256::repeat_byte(1)), B256::ZERO).label(), "unknown");
    }

    #[test]
    fn what_never_left_is_told_apart_from_what_may_have_arrived() {
        assert_eq!(classify(&Err(CallError::Unavailable), B256::ZERO), Outcome::NotSent);
        assert_eq!(classify(&Err(CallError::Lost), B256::ZERO).label(), "unknown");
        assert_eq!(classify(&Err(CallError::Deadline(std::time::Duration::from_secs(1))), B256::ZERO).label(), "unknown");
    }

    #[test]
    fn the_words_of_every_client_are_read() {
        let table = [
            (-32000, "already known", "known"),
            (-32000, "Known transaction", "known"),
            (-32010, "AlreadyKnown", "known"),
            (-32003, "transaction already imported", "known"),
            (-32000, "existing txn with same hash", "known"),
            (-32000, "nonce too low: next nonce 5, tx nonce 4", "nonce_too_low"),
            (-32001, "Nonce too low", "nonce_too_low"),
            (-32010, "OldNonce, Current nonce: 4, nonce of rejected tx: 3", "nonce_too_low"),
            (-32000, "replacement transaction underpriced", "occupied"),
            (-32000, "could not replace existing tx", "occupied"),
            (-32000, "transaction underpriced: gas tip cap 0, minimum needed 1", "refused"),
            (-32003, "transaction priority fee below minimum required priority fee 1000", "refused"),
            (-32009, "Gas price below configured minimum gas price", "refused"),
            (-32009, "Gas price below current base fee", "refused"),
            (-32003, "max fee per gas less than block base fee", "refused"),
            (-32000, "insufficient funds for gas * price + value: balance 0, tx cost 1, overshot 1", "refused"),
            (-32003, "insufficient funds for gas * price + value: have 0 want 1", "refused"),
            (-32004, "Upfront cost exceeds account balance", "refused"),
            (-32003, "Insufficient funds for gas * price + value", "refused"),
            (-32000, "intrinsic gas too low: gas 1, minimum needed 21000", "refused"),
            (-32003, "Intrinsic gas exceeds gas limit", "refused"),
            (-32000, "exceeds block gas limit", "refused"),
            (-32005, "Transaction gas limit exceeds block gas limit", "refused"),
            (-32000, "transaction gas limit too high (cap: 16777216, tx: 20000000)", "refused"),
            (-32010, "TxGasLimitCapExceeded: Gas limit 20000000 exceeded cap", "refused"),
            (-32000, "tx fee (1.23 ether) exceeds the configured cap (1.00 ether)", "refused"),
            (-32000, "invalid sender: invalid chain id for signer: have 1 want 2", "refused"),
            (-32000, "Wrong chainId", "refused"),
            (-32000, "IntrinsicGas", "refused"),
            (-32000, "underpriced", "refused"),
            (-32000, "fee too low", "refused"),
            (-32000, "insufficient gas for floor data gas cost", "refused"),
            (-32000, "txpool is full", "pool_full"),
            (-32000, "account limit exceeded: pooled 16 txs", "pool_full"),
            (-32000, "pending sub-pool is full", "pool_full"),
            (-32000, "in-flight transaction limit reached for delegated accounts", "pool_full"),
            (-32000, "Transaction nonce is too distant from current sender nonce", "pool_full"),
            (-32002, "Transaction pool not enabled, (Either txpool explicitly disabled, or node not yet in sync).", "unknown"),
            (-32010, "node is syncing", "unknown"),
            (-32000, "authority already reserved", "unknown"),
            (-32000, "gapped-nonce tx from delegated accounts", "unknown"),
            (-32603, "something nobody has seen", "unknown"),
        ];
        for (code, message, expected) in table {
            assert_eq!(answer(code, message).label(), expected, "{message}");
        }
    }
}
