//! What a refused transaction is told: each client's own words and codes.

use alloy_primitives::U256;
use serde::{Deserialize, Serialize};

use super::settings::Client;

/// A JSON-RPC error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcError {
    /// Its code.
    pub code: i64,
    /// Its words.
    pub message: String,
    /// What comes with it, such as the data of a revert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

impl RpcError {
    /// One without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }
}

/// Why the pool does not take a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are no signed transaction.
    Undecodable,
    /// Blob transactions, and types that the chain does not have.
    Type,
    /// More than 128 KiB.
    Oversized {
        /// Bytes.
        size: usize,
    },
    /// It has no chain id.
    Unprotected,
    /// It has another one.
    WrongChain {
        /// Its own.
        have: u64,
        /// The node's.
        want: u64,
    },
    /// The pool has it.
    Known,
    /// The node is not in sync.
    Syncing,
    /// Less gas than it takes to begin.
    IntrinsicGas {
        /// Its gas.
        gas: u64,
        /// What it takes.
        needed: u64,
    },
    /// Less gas than its data costs at least (EIP-7623).
    FloorGas {
        /// Its gas.
        gas: u64,
        /// What it takes.
        needed: u64,
    },
    /// More gas than a block has.
    BlockGas {
        /// Its gas.
        gas: u64,
    },
    /// More gas than a transaction may have (EIP-7825).
    GasCap {
        /// Its gas.
        gas: u64,
    },
    /// The tip is higher than the cap.
    TipAboveCap,
    /// It may pay more for gas than the node lets through.
    FeeCap {
        /// What it may pay, in wei.
        fee: U256,
        /// The node's cap, in wei.
        cap: U256,
    },
    /// The pool wants a higher tip (besu: price), in wei.
    BelowMinimum {
        /// Its own.
        tip: u128,
        /// The least.
        minimum: u128,
    },
    /// It pays less than the base fee.
    BelowBaseFee,
    /// Its nonce is used.
    NonceTooLow {
        /// The account's next one.
        next: u64,
        /// Its own.
        given: u64,
    },
    /// A nonce below it is missing and the client keeps no such transactions.
    Gap,
    /// Its nonce is too far ahead.
    TooDistant,
    /// The account cannot pay it, all in wei.
    Funds {
        /// What it has.
        balance: U256,
        /// What the transaction may cost.
        cost: U256,
        /// What its other transactions in the pool may cost, where the client counts them.
        queued: Option<U256>,
    },
    /// Another payload holds the nonce and this one does not pay enough more.
    Replacement,
    /// No room, for the account or at all.
    Full,
    /// Erigon's room for what is behind gaps is full.
    QueueFull,
    /// An account with delegated code has one in flight (EIP-7702).
    DelegatedInFlight,
    /// An account with delegated code may have no gap.
    DelegatedGap,
    /// An authority of the transaction has transactions in the pool.
    AuthorityReserved,
}

/// EIP-7825.
pub(super) const GAS_CAP: u64 = 16_777_216;

impl Refusal {
    /// Whether geth's local tracker answers it with a hash and tries again.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Full | Self::DelegatedInFlight | Self::DelegatedGap | Self::AuthorityReserved)
    }

    /// The error in the client's words. Where a client has none on record for a case, they are geth's with that client's usual code.
    pub fn error(&self, client: Client) -> RpcError {
        use Client::{Anvil, Besu, Erigon, Geth, Nethermind, Reth};
        let usual = match client {
            Geth | Reth | Besu | Erigon => -32000,
            Nethermind => -32010,
            Anvil => -32003,
        };
        let error = |code, words: &str| RpcError::new(code, words);
        let own = |words: &str| error(usual, words);
        match (self, client) {
            (Self::Undecodable, _) => error(-32602, "failed to decode signed transaction"),
            (Self::Type, _) => own("transaction type not supported"),
            (Self::Oversized { size }, _) => own(&format!("oversized data: transaction size {size}, limit 131072")),
            (Self::Unprotected, _) => own("only replay-protected (EIP-155) transactions allowed over RPC"),
            (Self::WrongChain { .. }, Reth) => own("invalid chain ID"),
            (Self::WrongChain { .. }, Besu) => own("Wrong chainId"),
            (Self::WrongChain { have, want }, Nethermind) => own(&format!("InvalidTxChainId: expected {want}, got {have}")),
            (Self::WrongChain { .. }, Anvil) => own("invalid chain id for signer"),
            (Self::WrongChain { have, want }, Geth | Erigon) => {
                own(&format!("invalid sender: invalid chain id for signer: have {have} want {want}"))
            }
            (Self::Known, Besu) => own("Known transaction"),
            (Self::Known, Erigon) => own("existing txn with same hash"),
            (Self::Known, Anvil) => own("transaction already imported"),
            (Self::Known, Geth | Reth | Nethermind) => own("already known"),
            (Self::Syncing, Besu) => {
                error(-32002, "Transaction pool not enabled, (Either txpool explicitly disabled, or node not yet in sync).")
            }
            (Self::Syncing, _) => own("node is syncing"),
            (Self::IntrinsicGas { .. }, Besu) => error(-32003, "Intrinsic gas exceeds gas limit"),
            (Self::IntrinsicGas { .. }, Erigon) => own("IntrinsicGas"),
            (Self::IntrinsicGas { .. }, Anvil) => error(-32000, "intrinsic gas too low"),
            (Self::IntrinsicGas { gas, needed }, Geth | Reth | Nethermind) => {
                own(&format!("intrinsic gas too low: gas {gas}, minimum needed {needed}"))
            }
            (Self::FloorGas { .. }, Besu) => error(-32003, "Intrinsic gas exceeds gas limit"),
            (Self::FloorGas { gas, needed }, _) => {
                own(&format!("insufficient gas for floor data gas cost: gas {gas}, minimum needed {needed}"))
            }
            (Self::BlockGas { .. }, Besu) => error(-32005, "Transaction gas limit exceeds block gas limit"),
            (Self::BlockGas { .. }, Nethermind) => own("gas limit reached"),
            (Self::BlockGas { .. }, Anvil) => error(-32000, "intrinsic gas too high -- tx.gas_limit > env.block.gas_limit"),
            (Self::BlockGas { .. }, Geth | Reth | Erigon) => own("exceeds block gas limit"),
            (Self::GasCap { .. }, Reth) => own("exceeds max transaction gas limit"),
            (Self::GasCap { .. }, Besu) => error(-32005, "Transaction gas limit cap exceeded"),
            (Self::GasCap { gas }, Nethermind) => own(&format!("TxGasLimitCapExceeded: Gas limit {gas} exceeded cap of {GAS_CAP}.")),
            (Self::GasCap { .. }, Anvil) => own("Transaction gas limit is greater than the block gas limit"),
            (Self::GasCap { gas }, Geth | Erigon) => own(&format!("transaction gas limit too high (cap: {GAS_CAP}, tx: {gas})")),
            (Self::TipAboveCap, Reth) => error(-32003, "max priority fee per gas higher than max fee per gas"),
            (Self::TipAboveCap, Besu) => own("Max priority fee per gas exceeds max fee per gas"),
            (Self::TipAboveCap, Nethermind) => own("InvalidMaxPriorityFeePerGas: Cannot be higher than maxFeePerGas."),
            (Self::TipAboveCap, Geth | Erigon | Anvil) => own("max priority fee per gas higher than max fee per gas"),
            (Self::FeeCap { .. }, Besu) => own("Transaction fee cap exceeded"),
            (Self::FeeCap { fee, cap }, Reth) => own(&format!("tx fee ({fee} wei) exceeds the configured cap ({cap} wei)")),
            (Self::FeeCap { fee, cap }, _) => {
                own(&format!("tx fee ({} ether) exceeds the configured cap ({} ether)", ether(*fee), ether(*cap)))
            }
            (Self::BelowMinimum { minimum, .. }, Reth) => {
                error(-32003, &format!("transaction priority fee below minimum required priority fee {minimum}"))
            }
            (Self::BelowMinimum { .. }, Besu) => error(-32009, "Gas price below configured minimum gas price"),
            (Self::BelowMinimum { .. }, Nethermind) => own("transaction underpriced"),
            (Self::BelowMinimum { .. }, Erigon) => own("underpriced"),
            (Self::BelowMinimum { tip, minimum }, Geth | Anvil) => {
                own(&format!("transaction gas price below minimum: gas tip cap {tip}, minimum needed {minimum}"))
            }
            (Self::BelowBaseFee, Besu) => error(-32009, "Gas price below current base fee"),
            (Self::BelowBaseFee, Nethermind) => own("transaction underpriced"),
            (Self::BelowBaseFee, _) => own("max fee per gas less than block base fee"),
            (Self::NonceTooLow { .. }, Besu) => error(-32001, "Nonce too low"),
            (Self::NonceTooLow { next, given }, Geth | Reth) => own(&format!("nonce too low: next nonce {next}, tx nonce {given}")),
            (Self::NonceTooLow { .. }, Nethermind | Erigon | Anvil) => own("nonce too low"),
            (Self::Gap, Besu) => error(-32006, "Nonce too high"),
            (Self::Gap, _) => own("nonce too high"),
            (Self::TooDistant, Besu) => own("Transaction nonce is too distant from current sender nonce"),
            (Self::TooDistant, _) => own("nonce too far in future"),
            (Self::Funds { balance, cost, .. }, Reth) => {
                error(-32003, &format!("insufficient funds for gas * price + value: have {balance} want {cost}"))
            }
            (Self::Funds { .. }, Besu) => error(-32004, "Upfront cost exceeds account balance"),
            (Self::Funds { .. }, Nethermind) => own("insufficient funds for gas * price + value"),
            (Self::Funds { .. }, Erigon) => own("insufficient funds"),
            (Self::Funds { .. }, Anvil) => own("Insufficient funds for gas * price + value"),
            (Self::Funds { balance, cost, queued }, Geth) => {
                let counted = queued.map(|queued| format!("queued cost {queued}, ")).unwrap_or_default();
                let overshot = queued.unwrap_or_default().saturating_add(*cost).saturating_sub(*balance);
                own(&format!("insufficient funds for gas * price + value: balance {balance}, {counted}tx cost {cost}, overshot {overshot}"))
            }
            (Self::Replacement, Besu) => own("Replacement transaction underpriced"),
            (Self::Replacement, Erigon) => own("could not replace existing tx"),
            (Self::Replacement, Geth | Reth | Nethermind | Anvil) => own("replacement transaction underpriced"),
            (Self::Full, Reth) => error(-32003, "txpool is full"),
            (Self::Full, Erigon) => own("pending sub-pool is full"),
            (Self::Full, Geth | Besu | Nethermind | Anvil) => own("txpool is full"),
            (Self::QueueFull, _) => own("queued sub-pool is full"),
            (Self::DelegatedInFlight, _) => own("in-flight transaction limit reached for delegated accounts"),
            (Self::DelegatedGap, _) => own("gapped-nonce tx from delegated accounts"),
            (Self::AuthorityReserved, _) => own("authority already reserved"),
        }
    }
}

/// Wei as geth writes ether here: two decimals, rounded.
fn ether(wei: U256) -> String {
    let hundredth = U256::from(10_000_000_000_000_000_u64);
    let hundredths = wei.saturating_add(hundredth / U256::from(2)) / hundredth;
    format!("{}.{:02}", hundredths / U256::from(100), hundredths % U256::from(100))
}
