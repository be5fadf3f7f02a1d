//! What a node's answer to `eth_sendRawTransaction` means for the nonce. Pure. The text decides, in lower case, and the code only where
//! the text says nothing, because codes collide between clients. docs/nodes.md has the table for people, `outcome/fixtures/` the
//! answers of each client that the tests go through.

pub mod unrecognised;
mod words;

use alloy_primitives::B256;

use self::words::{FULL, KNOWN, NEVER_VALID, OCCUPIED, PASSING, REFUSED, TOO_CHEAP, TOO_LOW};
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
    /// Nobody knows whether the node has the bytes, or it cannot take them now: held.
    Unknown(String),
    /// The node answered something that is not in the table: held, and somebody should look.
    Unrecognised {
        /// The node's code.
        code: i64,
        /// The node's words.
        message: String,
    },
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
            Self::Unrecognised { .. } => "unrecognised",
            Self::NotSent => "not_sent",
            Self::Refused { .. } => "refused",
        }
    }

    /// Whether it is a refusal that every node gives these bytes for ever, whatever the chain's state and whoever got them before.
    pub fn is_about_the_bytes(&self) -> bool {
        let Self::Refused { message, .. } = self else { return false };
        let text = message.to_ascii_lowercase();
        NEVER_VALID.iter().any(|word| text.contains(word))
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
        Err(CallError::Unavailable | CallError::WrongChain(_) | CallError::Full | CallError::NoStreams) => Outcome::NotSent,
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}

/// Whether a refusal in these words is of the price alone.
pub fn is_too_cheap(message: &str) -> bool {
    let text = message.to_lowercase();
    TOO_CHEAP.iter().any(|word| text.contains(word)) || text == "underpriced"
}

/// Codes of the standard that is being written for all clients (ethereum/execution-apis, error groups).
fn standard(error: &NodeError) -> Option<Outcome> {
    match error.code {
        1 => Some(Outcome::NonceTooLow),
        // The nonce is too high: the one below may be on its way.
        2 => Some(Outcome::Unknown(error.message.clone())),
        // Gas, fees and funds; an invalid sender.
        800..=809 | 1001 => Some(Outcome::Refused { code: error.code, message: error.message.clone() }),
        1000 => Some(Outcome::Known),
        _ => None,
    }
}

fn classify_error(error: &NodeError) -> Outcome {
    let text = error.message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(KNOWN) && !text.contains("unknown transaction") {
        Outcome::Known
    } else if says(TOO_LOW) {
        Outcome::NonceTooLow
    } else if says(OCCUPIED) {
        Outcome::Occupied
    } else if says(FULL) {
        Outcome::PoolFull
    } else if says(PASSING) {
        Outcome::Unknown(error.message.clone())
    } else if says(REFUSED) || text == "underpriced" {
        Outcome::Refused { code: error.code, message: error.message.clone() }
    } else {
        standard(error).unwrap_or_else(|| Outcome::Unrecognised { code: error.code, message: error.message.clone() })
    }
}

#[cfg(test)]
mod tests;
