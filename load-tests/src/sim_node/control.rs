//! The `sim_` methods, by which another process steers a node. They are never subject to faults or delays.

use std::time::Duration;

use alloy_primitives::{Address, Log, U64, U128, U256};
use serde_json::{Value, json};

use super::methods::{optional, param};
use super::node::Node;
use super::words::RpcError;

impl Node {
    pub(super) fn control(&mut self, now: Duration, method: &str, params: &Value) -> Result<Value, RpcError> {
        let milliseconds = |index| param::<u64>(params, index).map(Duration::from_millis);
        match method {
            "sim_mine" => {
                let blocks = optional::<u64>(params, 0)?.unwrap_or(1);
                return Ok((0..blocks).map(|_| json!(self.mine(now))).collect());
            }
            "sim_reorg" => return Ok(json!(self.reorg(now, param(params, 0)?))),
            "sim_impersonate" => {
                let value: U256 = optional(params, 2)?.unwrap_or_default();
                let nonce: Option<U64> = optional(params, 3)?;
                return Ok(json!(self.impersonate(now, param(params, 0)?, param(params, 1)?, value, nonce.map(|nonce| nonce.to()))));
            }
            "sim_emit" => return Ok(json!(self.emit(now, param(params, 0)?, &param::<Vec<Log>>(params, 1)?))),
            "sim_arrivals" => {
                let from = usize::try_from(optional::<u64>(params, 0)?.unwrap_or(0)).unwrap_or(usize::MAX);
                return Ok(self.arrivals().iter().skip(from).map(|arrival| json!(arrival)).collect());
            }
            "sim_mined" => return Ok(self.mined().values().map(|payload| json!(payload)).collect()),
            "sim_payloads" => return Ok(self.payloads().iter().map(|payload| json!(payload)).collect()),
            "sim_pool" => {
                let view = |entry: &super::pool::Entry| json!({ "from": entry.transaction.from, "nonce": entry.transaction.nonce(), "hash": entry.transaction.hash });
                return Ok(self.pool.entries().map(view).collect());
            }
            "sim_setFaults" => self.set_faults(param(params, 0)?),
            "sim_setHeadFaults" => self.set_head_faults(param(params, 0)?),
            "sim_setDelays" => self.set_delays(param(params, 0)?),
            "sim_setBalance" => self.set_balance(param(params, 0)?, param(params, 1)?),
            "sim_setReverting" => self.set_reverting(param::<Address>(params, 0)?, optional(params, 1)?),
            "sim_setBaseFee" => self.set_base_fee(param::<U64>(params, 0)?.to()),
            "sim_setIncludedTip" => self.set_included_tip(param::<U128>(params, 0)?.to()),
            "sim_setBlockTransactions" => self.set_block_transactions(optional(params, 0)?),
            "sim_setAutomine" => self.set_automine(param(params, 0)?),
            "sim_setLocalTracker" => self.set_local_tracker(param(params, 0)?),
            "sim_setMining" => self.set_mining(param(params, 0)?),
            "sim_setAnnouncing" => self.set_announcing(param(params, 0)?),
            "sim_setSyncing" => self.set_syncing(param(params, 0)?),
            "sim_forgetPool" => self.forget_pool(),
            "sim_cut" => self.cut(now),
            "sim_hang" => self.hang(now),
            "sim_stall" => self.stall(now, milliseconds(0)?),
            "sim_down" => self.go_down(now, milliseconds(0)?),
            _ => return Err(RpcError::new(-32601, format!("the method {method} does not exist/is not available"))),
        }
        Ok(json!(true))
    }
}
