//! What a client of the matrix saw, and whether it is true.

use std::collections::BTreeSet;

use alloy_dyn_abi::eip712::TypedData;
use alloy_primitives::{Address, B256, Bytes, Signature, U256};
use serde::Deserialize;
use serde_json::{Value, json};

use super::stage::Stage;
use crate::support::anvil::{parse, quantity};

/// What every client does, and with what: `tests/clients/plan.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Plan {
    pub(super) recipient: Address,
    pub(super) stranger: Address,
    pub(super) value: u64,
    pub(super) batch: u64,
    pub(super) emitter: Bytes,
    pub(super) topic: B256,
    pub(super) amount: U256,
    pub(super) reason: String,
    pub(super) unsupported: String,
    pub(super) malformed: Malformed,
    typed: Value,
}

#[derive(Debug, Deserialize)]
pub(super) struct Malformed {
    pub(super) method: String,
    pub(super) params: Vec<String>,
}

impl Plan {
    pub(super) fn read() -> Self {
        serde_json::from_str(include_str!("../../clients/plan.json")).unwrap()
    }

    /// EIP-712 data for this chain.
    pub(super) fn typed_data(&self, chain_id: u64) -> Value {
        let mut typed = self.typed.clone();
        typed["domain"]["chainId"] = chain_id.into();
        typed
    }
}

/// What a client says that it saw.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Report {
    pub(super) chain_id: u64,
    pub(super) accounts: Vec<Address>,
    pub(super) sent: Sent,
    /// A signature of the plan's typed data by the first account; `None` where the client has no way to ask for it.
    pub(super) typed: Option<Bytes>,
    pub(super) batch: Batch,
    /// Numbers of blocks, in the order in which they were told.
    pub(super) heads: Vec<u64>,
    pub(super) log: Log,
    pub(super) errors: Errors,
}

/// The first transaction, from its receipt.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sent {
    pub(super) hash: B256,
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) status: u64,
    pub(super) block: u64,
}

/// Many sends at once; the value of each is its place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    pub(super) hashes: Vec<B256>,
    /// Whether they were one JSON-RPC batch, so that their nonces go up in order.
    pub(super) ordered: bool,
}

/// A log that a filter by contract and topic brought, and the calls that it may be of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) hash: B256,
    pub(super) called: Vec<B256>,
    pub(super) contract: Address,
    pub(super) address: Address,
    pub(super) topics: Vec<B256>,
    pub(super) data: Bytes,
}

/// Five calls that fail.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Errors {
    pub(super) unknown_account: Failure,
    pub(super) insufficient_funds: Failure,
    pub(super) reverted_estimate: Failure,
    pub(super) unsupported_method: Failure,
    pub(super) bad_params: Failure,
}

/// What the client made of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failure {
    /// The client's own word for it.
    pub(super) name: String,
    /// The JSON-RPC code, if the client keeps it.
    pub(super) code: Option<i64>,
    /// `data.reason`, if the client keeps it.
    pub(super) reason: Option<String>,
    pub(super) message: String,
}

/// The client's words for the failures, in the order of [`Errors`].
pub(super) type Names<'a> = [&'a str; 5];

impl Report {
    /// Compares with what the node and the gateway themselves say.
    pub(super) async fn check(&self, stage: &Stage, plan: &Plan, names: Names<'_>) {
        assert_eq!((self.chain_id, &self.accounts), (stage.chain_id, &stage.accounts));
        self.check_sent(stage, plan).await;
        self.check_typed(stage, plan);
        self.check_batch(stage, plan).await;
        self.check_heads(stage).await;
        self.check_log(stage, plan).await;
        self.check_errors(plan, names);
    }

    async fn check_sent(&self, stage: &Stage, plan: &Plan) {
        let Sent { hash, from, to, status, block } = self.sent;
        assert_eq!((from, to, status), (stage.accounts[0], plan.recipient, 1));
        let receipt = stage.receipt(hash).await;
        assert_eq!((parse::<Address>(&receipt["from"]), parse::<Address>(&receipt["to"])), (from, to));
        assert_eq!((quantity(&receipt["status"]), quantity(&receipt["blockNumber"])), (1, block));
        assert_eq!(quantity(&stage.node("eth_getTransactionByHash", json!([hash])).await["value"]), plan.value);
    }

    fn check_typed(&self, stage: &Stage, plan: &Plan) {
        let Some(signature) = &self.typed else { return };
        let typed: TypedData = serde_json::from_value(plan.typed_data(stage.chain_id)).unwrap();
        let signature = Signature::from_raw(signature).unwrap();
        let signer = signature.recover_address_from_prehash(&typed.eip712_signing_hash().unwrap()).unwrap();
        assert_eq!(signer, stage.accounts[0]);
    }

    async fn check_batch(&self, stage: &Stage, plan: &Plan) {
        let Batch { hashes, ordered } = &self.batch;
        assert_eq!(hashes.len() as u64, plan.batch);
        let mut nonces = Vec::new();
        for (place, hash) in hashes.iter().enumerate() {
            let receipt = stage.receipt(*hash).await;
            assert_eq!((quantity(&receipt["status"]), parse::<Address>(&receipt["from"])), (1, stage.accounts[0]));
            let transaction = stage.node("eth_getTransactionByHash", json!([hash])).await;
            assert_eq!(quantity(&transaction["value"]), place as u64, "the answer of another request");
            nonces.push(quantity(&transaction["nonce"]));
        }
        if !ordered {
            nonces.sort_unstable();
        }
        let first = nonces[0];
        assert_eq!(nonces, (first..first + plan.batch).collect::<Vec<_>>(), "nonces of the batch");
    }

    async fn check_heads(&self, stage: &Stage) {
        let unique: BTreeSet<u64> = self.heads.iter().copied().collect();
        assert!(!unique.is_empty() && unique.iter().copied().eq(self.heads.iter().copied()), "heads {:?}", self.heads);
        let head = quantity(&stage.node("eth_blockNumber", json!([])).await);
        assert!(unique.last().is_some_and(|last| *last <= head) && !unique.contains(&0), "heads {:?} of {head}", self.heads);
    }

    async fn check_log(&self, stage: &Stage, plan: &Plan) {
        let Log { hash, called, contract, address, topics, data } = &self.log;
        assert!(called.contains(hash), "a log of {hash}, which is not a call of {called:?}");
        let word = plan.amount.to_be_bytes::<32>();
        let expected = (*contract, vec![plan.topic, stage.accounts[0].into_word()], Bytes::from(word));
        assert_eq!((*address, topics.clone(), data.clone()), expected);
        let logs = stage.receipt(*hash).await["logs"].take();
        assert_eq!(logs.as_array().map(Vec::len), Some(1));
        let on_chain: Vec<B256> = logs[0]["topics"].as_array().unwrap().iter().map(parse).collect();
        assert_eq!((parse(&logs[0]["address"]), on_chain, parse(&logs[0]["data"])), expected);
    }

    fn check_errors(&self, plan: &Plan, names: Names<'_>) {
        let Errors { unknown_account, insufficient_funds, reverted_estimate, unsupported_method, bad_params } = &self.errors;
        let expected = [
            (unknown_account, -32_000, Some("unknown_account"), "unknown account"),
            (insufficient_funds, -32_000, Some("insufficient_funds"), ""),
            (reverted_estimate, 3, None, plan.reason.as_str()),
            (unsupported_method, -32_601, Some("method_not_found"), plan.unsupported.as_str()),
            (bad_params, -32_602, Some("invalid_params"), "missing value for required argument 1"),
        ];
        for ((failure, code, reason, words), name) in expected.into_iter().zip(names) {
            assert_eq!(failure.name, name, "{failure:?}");
            // A client may keep neither; what it keeps is right.
            assert!(failure.code.is_none_or(|kept| kept == code), "{failure:?}");
            assert_eq!(failure.reason.as_deref(), reason, "{failure:?}");
            assert!(failure.message.contains(words), "{failure:?}");
        }
    }
}
