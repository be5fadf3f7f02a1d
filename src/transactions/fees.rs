//! What a transaction pays per gas. The node's tip and price are read once per head, ahead of the requests that need them.

use std::time::Duration;

use alloy_primitives::U256;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::errors::TransactionError;
use super::request::{Fees, check_cap};
use crate::node::CallError;
use crate::node::Pool;

/// What the chain asks for at one head, in wei per gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suggestion {
    /// The head's base fee; absent on a chain without EIP-1559.
    pub base_fee: Option<u128>,
    /// The node's tip (`eth_maxPriorityFeePerGas`).
    pub tip: u128,
    /// The node's price (`eth_gasPrice`).
    pub price: u128,
}

/// The decided price of a transaction, in wei per gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Price {
    /// Types 0 and 1.
    Legacy(u128),
    /// Types 2 and 4.
    Dynamic {
        /// maxFeePerGas.
        cap: u128,
        /// maxPriorityFeePerGas.
        tip: u128,
    },
}

impl Price {
    /// The most that one unit of gas can cost.
    pub fn highest(self) -> u128 {
        match self {
            Self::Legacy(price) => price,
            Self::Dynamic { cap, .. } => cap,
        }
    }
}

/// geth's defaults: tip from the node, cap = tip + 2 × base fee; one price where the chain or the client has no other.
pub fn decide(asked: Fees, now: Suggestion) -> Result<Price, TransactionError> {
    let invalid = |words: &str| TransactionError::Invalid(words.into());
    match (asked, now.base_fee) {
        (Fees::Price(0), Some(base)) if base > 0 => Err(invalid("gasPrice must be non-zero after london fork")),
        (Fees::Price(price), _) => Ok(Price::Legacy(price)),
        (Fees::AnyPrice, _) => Ok(Price::Legacy(now.price)),
        (Fees::Dynamic { cap: None, tip: None }, None) => Ok(Price::Legacy(now.price)),
        (Fees::Dynamic { .. }, None) => Err(invalid("maxFeePerGas and maxPriorityFeePerGas are not valid before London is active")),
        (Fees::Dynamic { cap: Some(0), .. }, Some(base)) if base > 0 => Err(invalid("maxFeePerGas must be non-zero")),
        (Fees::Dynamic { cap, tip }, Some(base)) => {
            let tip = tip.unwrap_or(now.tip);
            let cap = cap.unwrap_or_else(|| tip.saturating_add(base.saturating_mul(2)));
            check_cap(cap, tip)?;
            Ok(Price::Dynamic { cap, tip })
        }
    }
}

/// The newest suggestion of an environment.
#[derive(Debug, Clone)]
pub struct Feed {
    newest: watch::Receiver<Option<Suggestion>>,
}

impl Feed {
    /// Follows the heads of the pool until `stop`.
    pub fn start(pool: Pool, stop: CancellationToken) -> Self {
        let (sender, newest) = watch::channel(None);
        tokio::spawn(stop.run_until_cancelled_owned(follow(pool, sender)));
        Self { newest }
    }

    /// The newest suggestion, if there is one yet.
    pub fn now(&self) -> Option<Suggestion> {
        *self.newest.borrow()
    }

    /// The newest suggestion; waits for the first one, no longer than `patience`.
    pub async fn newest(&self, patience: Duration) -> Result<Suggestion, TransactionError> {
        let mut newest = self.newest.clone();
        let first = tokio::time::timeout(patience, newest.wait_for(Option::is_some)).await;
        match first {
            Ok(Ok(value)) => value.ok_or(TransactionError::Call(CallError::Unavailable)),
            _ => Err(TransactionError::Call(CallError::Unavailable)),
        }
    }
}

async fn follow(pool: Pool, sender: watch::Sender<Option<Suggestion>>) {
    let mut heads = pool.heads();
    loop {
        let head = heads.borrow_and_update().clone();
        if let Some(head) = head {
            match read(&pool, head.base_fee).await {
                Ok(suggestion) => {
                    sender.send_replace(Some(suggestion));
                }
                Err(error) => {
                    tracing::debug!(%error, "the node's fees could not be read");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    continue;
                }
            }
        }
        if heads.changed().await.is_err() {
            return;
        }
    }
}

async fn read(pool: &Pool, base_fee: Option<u128>) -> Result<Suggestion, CallError> {
    let none: [(); 0] = [];
    let price = quantity(pool.call::<U256>("eth_gasPrice", none).await?)?;
    let tip = match pool.call::<U256>("eth_maxPriorityFeePerGas", none).await {
        Ok(tip) => quantity(tip)?,
        // Nodes without the method (and chains without base fee): what the price leaves above the base fee.
        Err(CallError::Node(_)) => price.saturating_sub(base_fee.unwrap_or(0)),
        Err(error) => return Err(error),
    };
    Ok(Suggestion { base_fee, tip, price })
}

fn quantity(value: U256) -> Result<u128, CallError> {
    u128::try_from(value).map_err(|_| CallError::Malformed("a fee beyond 128 bits".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONDON: Suggestion = Suggestion { base_fee: Some(100), tip: 7, price: 107 };
    const LEGACY: Suggestion = Suggestion { base_fee: None, tip: 0, price: 50 };
    const FREE: Suggestion = Suggestion { base_fee: Some(0), tip: 0, price: 0 };

    #[test]
    fn defaults_are_the_nodes_tip_and_twice_the_base_fee() {
        assert_eq!(decide(Fees::Dynamic { cap: None, tip: None }, LONDON).unwrap(), Price::Dynamic { cap: 207, tip: 7 });
        assert_eq!(decide(Fees::Dynamic { cap: None, tip: Some(1) }, LONDON).unwrap(), Price::Dynamic { cap: 201, tip: 1 });
        assert_eq!(decide(Fees::Dynamic { cap: Some(9), tip: None }, LONDON).unwrap(), Price::Dynamic { cap: 9, tip: 7 });
    }

    #[test]
    fn a_cap_below_the_nodes_tip_is_geths_error() {
        let error = decide(Fees::Dynamic { cap: Some(3), tip: None }, LONDON).unwrap_err();
        assert_eq!(error.to_string(), "maxFeePerGas (0x3) < maxPriorityFeePerGas (0x7)");
    }

    #[test]
    fn zero_is_only_for_free_chains() {
        assert_eq!(decide(Fees::Price(0), LONDON).unwrap_err().to_string(), "gasPrice must be non-zero after london fork");
        let error = decide(Fees::Dynamic { cap: Some(0), tip: Some(0) }, LONDON).unwrap_err();
        assert_eq!(error.to_string(), "maxFeePerGas must be non-zero");
        assert_eq!(decide(Fees::Price(0), FREE).unwrap(), Price::Legacy(0));
        assert_eq!(decide(Fees::Dynamic { cap: None, tip: None }, FREE).unwrap(), Price::Dynamic { cap: 0, tip: 0 });
    }

    #[test]
    fn a_chain_without_base_fee_has_one_price() {
        assert_eq!(decide(Fees::Dynamic { cap: None, tip: None }, LEGACY).unwrap(), Price::Legacy(50));
        let error = decide(Fees::Dynamic { cap: Some(1), tip: None }, LEGACY).unwrap_err();
        assert_eq!(error.to_string(), "maxFeePerGas and maxPriorityFeePerGas are not valid before London is active");
        assert_eq!(decide(Fees::AnyPrice, LEGACY).unwrap(), Price::Legacy(50));
    }
}
