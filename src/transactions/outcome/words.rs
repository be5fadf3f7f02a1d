//! The words by which answers are told apart, in lower case. The first list that has a part of the text decides, in this order.

/// The node has the bytes.
pub(super) const KNOWN: &[&str] =
    &["already known", "alreadyknown", "known transaction", "already imported", "existing txn with same hash", "already in mempool"];
/// One node's view of one head.
pub(super) const TOO_LOW: &[&str] = &["nonce too low", "oldnonce", "nonce is too low"];
/// Another payload holds the nonce in the pool.
pub(super) const OCCUPIED: &[&str] =
    &["replacement transaction underpriced", "could not replace existing", "replacement underpriced", "ownnoncealreadyused"];
/// The pool, or the account's share of it, has no room.
pub(super) const FULL: &[&str] = &[
    "txpool is full",
    "transaction pool is full",
    "account limit exceeded",
    "sub-pool is full",
    "in-flight transaction limit",
    "too distant from current sender nonce",
    "nonce too far in future",
];
/// Not a verdict on the bytes: the node cannot say now, or says so for a reason that passes.
pub(super) const PASSING: &[&str] = &[
    "syncing",
    "pool not enabled",
    "rate limit",
    "too many requests",
    "timeout",
    "timed out",
    "time-out",
    "internal server error",
    "bad gateway",
    "service unavailable",
    "future transaction tries to replace pending",
    "gapped-nonce",
    "authority already reserved",
    "nonce too high",
    "temporarily",
];
/// Of those that are refused: a higher price helps.
pub(super) const TOO_CHEAP: &[&str] = &[
    "transaction underpriced",
    "gas price below configured minimum",
    "below current base fee",
    "less than block base fee",
    "below minimum required priority fee",
    "fee too low",
];
/// The bytes are wrong, or too cheap, or not paid for: nothing that passes by itself.
pub(super) const REFUSED: &[&str] = &[
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

/// Those of the refusals that are a property of the bytes alone: no balance, fee or head makes them valid.
pub(super) const NEVER_VALID: &[&str] = &[
    "intrinsic gas too low",
    "intrinsicgas",
    "intrinsic gas exceeds gas limit",
    "insufficient gas for floor data gas cost",
    "max priority fee per gas higher than max fee per gas",
    "max priority fee per gas exceeds max fee per gas",
    "invalidmaxpriorityfeepergas",
    "invalid chain id",
    "wrong chainid",
    "invalidtxchainid",
    "invalid sender",
];
