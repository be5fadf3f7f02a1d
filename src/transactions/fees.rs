//! What a transaction pays per gas. What the chain asks for is read once per head, ahead of the requests that need it: from the fees
//! of the newest blocks, or from the node's own suggestions where it has no history of them.

use std::time::Duration;

use alloy_primitives::{U64, U256};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::errors::TransactionError;
use super::request::{Fees, check_cap};
use crate::config::FeeMode;
use crate::node::CallError;
use crate::node::Pool;

/// What the chain asks for at one head, in wei per gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suggestion {
    /// The base fee of the next block; absent on a chain without EIP-1559.
    pub base_fee: Option<u128>,
    /// What the newest blocks' transactions tipped, or the node's own suggestion (`eth_maxPriorityFeePerGas`).
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

/// geth's defaults: a tip, cap = tip + 2 × base fee; one price where the chain, the client or the environment has no other. On a free
/// chain the default is 0, and what is given is taken as it is.
pub fn decide(asked: Fees, now: Suggestion, mode: FeeMode) -> Result<Price, TransactionError> {
    let invalid = |words: &str| TransactionError::Invalid(words.into());
    match (mode, asked) {
        (FeeMode::Legacy, Fees::Dynamic { cap: None, tip: None }) => return Ok(Price::Legacy(now.price)),
        (FeeMode::Legacy, Fees::Dynamic { .. }) => {
            return Err(invalid("this environment has one price (fees = \"legacy\"): gasPrice, not maxFeePerGas and maxPriorityFeePerGas"));
        }
        (FeeMode::Free, Fees::Price(price)) => return Ok(Price::Legacy(price)),
        (FeeMode::Free, Fees::AnyPrice) => return Ok(Price::Legacy(0)),
        (FeeMode::Free, Fees::Dynamic { cap: None, tip: None }) if now.base_fee.is_none() => return Ok(Price::Legacy(0)),
        (FeeMode::Free, Fees::Dynamic { cap, tip }) if now.base_fee.is_some() => {
            let (cap, tip) = (cap.or(tip).unwrap_or(0), tip.unwrap_or(0));
            check_cap(cap, tip)?;
            return Ok(Price::Dynamic { cap, tip });
        }
        _ => {}
    }
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

/// Blocks of the history that is read.
const BLOCKS: U64 = U64::from_limbs([5]);
/// Of each block, the tip that half of its gas paid no more than.
const PERCENTILE: [f64; 1] = [50.0];

/// What `eth_feeHistory` tells of the newest blocks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct History {
    /// Of each block, and of the next one.
    #[serde(default)]
    base_fee_per_gas: Vec<U256>,
    #[serde(default)]
    gas_used_ratio: Vec<f64>,
    #[serde(default)]
    reward: Option<Vec<Vec<U256>>>,
}

impl History {
    /// The base fee of the next block, if the chain has one.
    fn next_base_fee(&self) -> Option<u128> {
        self.base_fee_per_gas.last().and_then(|fee| quantity(*fee).ok())
    }

    /// The median of what the blocks with transactions tipped; none if all are empty.
    fn tip(&self) -> Option<u128> {
        let blocks = self.gas_used_ratio.iter().zip(self.reward.iter().flatten());
        let tips = blocks.filter(|(used, _)| **used > 0.0).filter_map(|(_, rewards)| quantity(*rewards.first()?).ok());
        let mut tips: Vec<u128> = tips.collect();
        tips.sort_unstable();
        tips.get(tips.len() / 2).copied()
    }
}

async fn read(pool: &Pool, base_fee: Option<u128>) -> Result<Suggestion, CallError> {
    let none: [(); 0] = [];
    let history = match base_fee {
        None => None,
        Some(_) => match pool.call::<History>("eth_feeHistory", (BLOCKS, "latest", PERCENTILE)).await {
            Ok(history) => Some(history),
            // Nodes without the method.
            Err(CallError::Node(_) | CallError::Malformed(_)) => None,
            Err(error) => return Err(error),
        },
    };
    let base_fee = base_fee.map(|head| history.as_ref().and_then(History::next_base_fee).unwrap_or(head));
    let price = quantity(pool.call::<U256>("eth_gasPrice", none).await?)?;
    if let Some(tip) = history.as_ref().and_then(History::tip) {
        return Ok(Suggestion { base_fee, tip, price });
    }
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

    fn decide(asked: Fees, now: Suggestion) -> Result<Price, TransactionError> {
        super::decide(asked, now, FeeMode::Eip1559)
    }

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

    #[test]
    fn a_legacy_environment_has_one_price() {
        let decide = |asked| super::decide(asked, LONDON, FeeMode::Legacy).map_err(|error| error.to_string());
        assert_eq!(decide(Fees::Dynamic { cap: None, tip: None }), Ok(Price::Legacy(107)));
        assert_eq!(decide(Fees::AnyPrice), Ok(Price::Legacy(107)));
        assert_eq!(decide(Fees::Price(3)), Ok(Price::Legacy(3)));
        assert!(decide(Fees::Dynamic { cap: Some(300), tip: None }).unwrap_err().contains("gasPrice, not maxFeePerGas"));
    }

    #[test]
    fn a_free_environment_pays_what_is_given_and_otherwise_nothing() {
        let decide = |asked, now| super::decide(asked, now, FeeMode::Free).map_err(|error| error.to_string());
        assert_eq!(decide(Fees::Dynamic { cap: None, tip: None }, LONDON), Ok(Price::Dynamic { cap: 0, tip: 0 }));
        assert_eq!(decide(Fees::Dynamic { cap: None, tip: None }, LEGACY), Ok(Price::Legacy(0)));
        assert_eq!(decide(Fees::AnyPrice, LONDON), Ok(Price::Legacy(0)));
        assert_eq!(decide(Fees::Price(0), LONDON), Ok(Price::Legacy(0)));
        assert_eq!(decide(Fees::Price(9), LONDON), Ok(Price::Legacy(9)));
        assert_eq!(decide(Fees::Dynamic { cap: Some(9), tip: None }, LONDON), Ok(Price::Dynamic { cap: 9, tip: 0 }));
        assert_eq!(decide(Fees::Dynamic { cap: None, tip: Some(2) }, LONDON), Ok(Price::Dynamic { cap: 2, tip: 2 }));
        assert!(decide(Fees::Dynamic { cap: Some(1), tip: Some(2) }, LONDON).is_err());
    }

    #[test]
    fn a_history_tells_the_next_base_fee_and_the_median_tip_of_blocks_that_are_not_empty() {
        let read = |text: &str| serde_json::from_str::<History>(text).unwrap();
        let history = read(
            r#"{"oldestBlock":"0x1","baseFeePerGas":["0x64","0x63","0x62","0x61"],"gasUsedRatio":[0.5,0,0.25],
                "reward":[["0x9"],["0x0"],["0x7"]]}"#,
        );
        assert_eq!((history.next_base_fee(), history.tip()), (Some(0x61), Some(9)));
        let empty = read(r#"{"oldestBlock":"0x1","baseFeePerGas":["0x64","0x63"],"gasUsedRatio":[0],"reward":[["0x0"]]}"#);
        assert_eq!((empty.next_base_fee(), empty.tip()), (Some(0x63), None));
        let bare = read(r#"{"oldestBlock":"0x1","gasUsedRatio":[0.5],"reward":null}"#);
        assert_eq!((bare.next_base_fee(), bare.tip()), (None, None));
    }
}
