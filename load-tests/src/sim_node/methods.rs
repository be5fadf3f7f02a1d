//! The methods of a node, and the blocks that their parameters name.

use std::sync::Arc;
use std::time::Duration;

use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Address, B256, Bytes, U64, U128, U256, hex};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::chain::Block;
use super::gas;
use super::logs::{self, EMITTER};
use super::node::Node;
use super::send::SEND;
use super::settings::BaseFee;
use super::views;
use super::words::RpcError;

/// A parameter that must be there.
pub(super) fn param<T: DeserializeOwned>(params: &Value, index: usize) -> Result<T, RpcError> {
    let value = params.get(index).ok_or_else(|| RpcError::invalid(format!("missing value for required argument {index}")))?;
    serde_json::from_value(value.clone()).map_err(|error| RpcError::invalid(format!("invalid argument {index}: {error}")))
}

/// A parameter that may be missing or null.
pub(super) fn optional<T: DeserializeOwned>(params: &Value, index: usize) -> Result<Option<T>, RpcError> {
    if params.get(index).is_none_or(Value::is_null) { Ok(None) } else { param(params, index).map(Some) }
}

/// The state that a block parameter names.
struct View {
    block: Arc<Block>,
    is_pending: bool,
}

/// What `eth_call` and `eth_estimateGas` are asked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    from: Option<Address>,
    to: Option<Address>,
    value: Option<U256>,
    input: Option<Bytes>,
    data: Option<Bytes>,
    access_list: Option<AccessList>,
    authorization_list: Option<Vec<Value>>,
}

impl Call {
    fn input(&self) -> &[u8] {
        self.input.as_ref().or(self.data.as_ref()).map_or(&[], |input| input)
    }
}

impl Node {
    /// Runs one method. `blocks_ago`: as the node would have answered so many blocks ago.
    pub(super) fn run(&mut self, now: Duration, connection: u64, method: &str, params: &Value, blocks_ago: u64) -> Result<Value, RpcError> {
        match method {
            SEND => self.send(now, params),
            "eth_subscribe" => self.subscribe(connection, params),
            "eth_unsubscribe" => self.unsubscribe(connection, params),
            _ if method.starts_with("sim_") => self.control(now, method, params),
            _ => self.read(method, params, blocks_ago),
        }
    }

    fn read(&self, method: &str, params: &Value, blocks_ago: u64) -> Result<Value, RpcError> {
        let head = self.head(blocks_ago);
        let of_tag = |index| self.view(params.get(index), &head);
        Ok(match method {
            "eth_chainId" => json!(U64::from(self.settings.chain_id)),
            "net_version" => json!(self.settings.chain_id.to_string()),
            "net_listening" => json!(true),
            "web3_clientVersion" => json!(format!("{}/simulated", self.settings.client.name())),
            "eth_syncing" if self.is_syncing => {
                let number = U64::from(head.number());
                json!({ "startingBlock": "0x0", "currentBlock": number, "highestBlock": number + U64::from(1_000) })
            }
            "eth_syncing" => json!(false),
            "eth_accounts" => json!([]),
            "eth_blockNumber" => json!(U64::from(head.number())),
            "eth_gasPrice" => json!(U128::from(self.settings.tip + u128::from(head.header.base_fee_per_gas.unwrap_or(0)))),
            "eth_maxPriorityFeePerGas" if self.settings.base_fee != BaseFee::Absent => json!(U128::from(self.settings.tip)),
            "eth_feeHistory" if self.settings.base_fee != BaseFee::Absent => self.fee_history(params, &head)?,
            "eth_getBalance" => json!(of_tag(1)?.block.state.balance(param(params, 0)?)),
            "eth_getCode" => json!(of_tag(1)?.block.state.account(param(params, 0)?).code),
            "eth_getStorageAt" => json!(B256::ZERO),
            "eth_getTransactionCount" => {
                let (view, address) = (of_tag(1)?, param(params, 0)?);
                let state = &view.block.state;
                let nonce = if view.is_pending { self.pool.next_nonce(state, address) } else { state.nonce(address) };
                json!(U64::from(nonce))
            }
            "eth_call" => {
                of_tag(1)?;
                self.execute(&param(params, 0)?)?;
                json!("0x")
            }
            "eth_estimateGas" => self.estimate(&param(params, 0)?, &of_tag(1)?.block)?,
            "eth_getBlockByNumber" => {
                let whole = optional(params, 1)?.unwrap_or(false);
                self.named(params.get(0), &head)?.map_or(Value::Null, |view| views::block(&view.block, whole))
            }
            "eth_getBlockByHash" => {
                let whole = optional(params, 1)?.unwrap_or(false);
                self.chain.hash(param(params, 0)?).map_or(Value::Null, |block| views::block(block, whole))
            }
            "eth_getBlockReceipts" => match self.named(params.get(0), &head)? {
                Some(view) => (0..view.block.transactions.len())
                    .map(|index| views::receipt(&super::chain::Place { block: Arc::clone(&view.block), index }))
                    .collect(),
                None => Value::Null,
            },
            "eth_getTransactionByHash" => {
                let hash = param(params, 0)?;
                let mined = self.chain.place(hash).filter(|place| place.block.number() <= head.number());
                let mined = mined.and_then(|place| Some(views::transaction(&place.mined()?.transaction, Some(place))));
                let pooled = || self.pool.get(hash).map(|pooled| views::transaction(pooled, None));
                mined.or_else(pooled).unwrap_or_default()
            }
            "eth_getTransactionReceipt" => {
                let place = self.chain.place(param(params, 0)?).filter(|place| place.block.number() <= head.number());
                place.map_or(Value::Null, views::receipt)
            }
            "eth_getLogs" => self.get_logs(params.get(0).unwrap_or(&Value::Null), &head)?,
            "txpool_status" => {
                let (pending, queued) = self.pool.counts(&head.state);
                json!({ "pending": U64::from(pending), "queued": U64::from(queued) })
            }
            _ => return Err(RpcError::new(-32601, format!("the method {method} does not exist/is not available"))),
        })
    }

    fn head(&self, blocks_ago: u64) -> Arc<Block> {
        let head = self.chain.head();
        let earlier = self.chain.number(head.number().saturating_sub(blocks_ago));
        Arc::clone(earlier.unwrap_or(head))
    }

    /// The block that a parameter names: a number, a tag, or an object of EIP-1898. `None`: there is no such block.
    fn named(&self, parameter: Option<&Value>, head: &Arc<Block>) -> Result<Option<View>, RpcError> {
        let hash = |hash: &Value| hash.as_str().and_then(|hash| hash.parse().ok()).and_then(|hash| self.chain.hash(hash));
        let at = |block: Option<&Arc<Block>>| Ok(block.map(|block| View { block: Arc::clone(block), is_pending: false }));
        let behind = |blocks: Option<u64>, tag: &str| match blocks {
            Some(blocks) => at(self.chain.number(head.number().saturating_sub(blocks))),
            None => Err(RpcError::new(-32000, format!("{tag} block not found"))),
        };
        let name = match parameter {
            None | Some(Value::Null) => "latest",
            Some(Value::Object(object)) => match (object.get("blockHash"), object.get("blockNumber")) {
                (Some(block), _) => return at(hash(block)),
                (None, number) => number.and_then(Value::as_str).unwrap_or_default(),
            },
            Some(other) => other.as_str().unwrap_or_default(),
        };
        match name {
            "latest" => at(Some(head)),
            "pending" => Ok(Some(View { block: Arc::clone(head), is_pending: true })),
            "earliest" => at(self.chain.number(0)),
            "finalized" => behind(self.settings.finality, name),
            "safe" => behind(self.settings.finality.map(|blocks| blocks / 2), name),
            number => {
                let parsed = number.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
                let parsed = parsed.ok_or_else(|| RpcError::invalid(format!("invalid argument: {number} is no block")))?;
                at(self.chain.number(parsed).filter(|block| block.number() <= head.number()))
            }
        }
    }

    /// The number that bounds a range of blocks: one that is said may be beyond the head. None is the head's.
    pub(super) fn bound(&self, parameter: Option<&Value>, head: &Arc<Block>) -> Result<u64, RpcError> {
        match parameter.map(|number| serde_json::from_value::<U64>(number.clone())) {
            Some(Ok(number)) => Ok(number.to()),
            _ => Ok(self.view(parameter, head)?.block.number()),
        }
    }

    fn view(&self, parameter: Option<&Value>, head: &Arc<Block>) -> Result<View, RpcError> {
        self.named(parameter, head)?.ok_or_else(|| RpcError::new(-32000, "header not found"))
    }

    /// Calls return nothing, or revert. Answers the gas of the logs that they emit.
    fn execute(&self, call: &Call) -> Result<u64, RpcError> {
        if let Some(reason) = call.to.and_then(|to| self.settings.reverting.get(&to)) {
            let data = Some(hex::encode_prefixed(revert_data(reason)));
            return Err(RpcError { code: 3, message: format!("execution reverted: {reason}"), data });
        }
        if call.to != Some(EMITTER) {
            return Ok(0);
        }
        let logs =
            logs::emitted(call.input()).ok_or_else(|| RpcError { data: Some("0x".into()), ..RpcError::new(3, "execution reverted") })?;
        Ok(logs::gas(&logs))
    }

    fn estimate(&self, call: &Call, block: &Block) -> Result<Value, RpcError> {
        let of_logs = self.execute(call)?;
        if call.value.is_some_and(|value| value > block.state.balance(call.from.unwrap_or_default())) {
            return Err(RpcError::new(-32000, "insufficient funds for transfer"));
        }
        let input = call.input();
        let authorisations = call.authorization_list.as_ref().map_or(0, Vec::len);
        let gas = gas::intrinsic(input, call.to.is_none(), call.access_list.as_ref(), authorisations) + of_logs;
        let gas = gas.max(gas::floor(input));
        Ok(json!(U64::from(gas)))
    }

    fn fee_history(&self, params: &Value, head: &Arc<Block>) -> Result<Value, RpcError> {
        let count: u64 = match params.get(0) {
            Some(Value::Number(number)) => number.as_u64().unwrap_or(1),
            _ => param::<U64>(params, 0)?.to(),
        };
        let newest = self.view(params.get(1), head)?.block.number();
        let percentiles: Vec<f64> = optional(params, 2)?.unwrap_or_default();
        let oldest = (newest + 1).saturating_sub(count.clamp(1, 1_024));
        let blocks: Vec<_> = (oldest..=newest).filter_map(|number| self.chain.number(number)).collect();
        let base_fees = blocks.iter().map(|block| block.header.base_fee_per_gas);
        let next = self.chain.number(newest + 1).map_or_else(|| self.base_fee(), |block| block.header.base_fee_per_gas);
        let base_fees: Vec<U64> = base_fees.chain([next]).map(|wei| U64::from(wei.unwrap_or(0))).collect();
        let ratios: Vec<f64> = blocks.iter().map(|block| block.header.gas_used as f64 / block.header.gas_limit.max(1) as f64).collect();
        let tips = vec![U128::from(self.settings.tip); percentiles.len()];
        let mut history = json!({ "oldestBlock": U64::from(oldest), "baseFeePerGas": base_fees, "gasUsedRatio": ratios });
        if !percentiles.is_empty() {
            history["reward"] = json!(vec![tips; blocks.len()]);
        }
        Ok(history)
    }
}

/// `Error(string)` of Solidity.
fn revert_data(reason: &str) -> Vec<u8> {
    let mut data = vec![0x08, 0xc3, 0x79, 0xa0];
    data.extend(U256::from(32).to_be_bytes::<32>());
    data.extend(U256::from(reason.len()).to_be_bytes::<32>());
    data.extend(reason.as_bytes());
    data.resize(data.len() + (32 - reason.len() % 32) % 32, 0);
    data
}
