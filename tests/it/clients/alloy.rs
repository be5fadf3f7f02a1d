//! The plan with alloy's providers, over HTTP and WebSocket.

use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_provider::network::{ReceiptResponse, TransactionBuilder};
use alloy_provider::transport::{TransportError, TransportResult};
use alloy_provider::{Provider, ProviderBuilder, WsConnect};
use alloy_rpc_client::BatchRequest;
use alloy_rpc_types_eth::{Filter, TransactionReceipt, TransactionRequest};
use futures_util::StreamExt;

use super::report::{Batch, Errors, Failure, Log, Names, Plan, Report, Sent};
use super::stage::{Kind, Stage};
use crate::support::cutter::Cutter;
use crate::support::{eventually, soon};

const NAMES: Names<'_> = ["ErrorResp"; 5];

pub(super) async fn run(test: &str, node: Kind) {
    let Some(stage) = Stage::start(test, node, &[]).await else { return };
    let plan = Plan::read();
    // Without alloy's fillers: they would choose nonce, fees and gas here, and the gateway does.
    let url = stage.gateway.url("http").parse().unwrap();
    let http = ProviderBuilder::new().disable_recommended_fillers().connect_http(url);
    soon("HTTP", report(&http, &plan, false)).await.unwrap().check(&stage, &plan, NAMES).await;
    let url = WsConnect::new(stage.gateway.url("ws"));
    let socket = ProviderBuilder::new().disable_recommended_fillers().connect_ws(url).await.unwrap();
    soon("WebSocket", report(&socket, &plan, true)).await.unwrap().check(&stage, &plan, NAMES).await;
}

fn payment(from: Address, to: Address, value: U256) -> TransactionRequest {
    TransactionRequest::default().with_from(from).with_to(to).with_value(value)
}

async fn mined(provider: &impl Provider, transaction: TransactionRequest) -> TransportResult<TransactionReceipt> {
    let pending = provider.send_transaction(transaction).await?;
    Ok(pending.get_receipt().await.expect("a receipt"))
}

async fn report(provider: &impl Provider, plan: &Plan, streams: bool) -> TransportResult<Report> {
    provider.client().set_poll_interval(Duration::from_millis(100));
    let chain_id = provider.get_chain_id().await?;
    let accounts = provider.get_accounts().await?;
    let account = accounts[0];
    let mut blocks = if streams {
        provider.subscribe_blocks().await?.into_stream().map(|head| head.hash).boxed()
    } else {
        provider.watch_blocks().await?.into_stream().flat_map(futures_util::stream::iter).boxed()
    };

    let first = mined(provider, payment(account, plan.recipient, U256::from(plan.value))).await?;
    let typed = plan.typed_data(chain_id);
    let signature: Bytes = provider.raw_request("eth_signTypedData_v4".into(), (account, typed)).await?;

    let mut batch = BatchRequest::new(provider.client());
    let mut waiters = Vec::new();
    for value in 0..plan.batch {
        let small = payment(account, plan.recipient, U256::from(value)).with_gas_limit(21_000);
        waiters.push(batch.add_call::<_, B256>("eth_sendTransaction", &(small,))?);
    }
    batch.send().await?;
    let mut hashes = Vec::new();
    for waiter in waiters {
        hashes.push(waiter.await?);
    }

    let created = mined(provider, TransactionRequest::default().with_from(account).with_deploy_code(plan.emitter.clone())).await?;
    let contract = created.contract_address().expect("a contract");
    let filter = Filter::new().address(contract).event_signature(plan.topic);
    let mut logs = if streams {
        provider.subscribe_logs(&filter).await?.into_stream().boxed()
    } else {
        provider.watch_logs(&filter).await?.into_stream().flat_map(futures_util::stream::iter).boxed()
    };
    let call = payment(account, contract, U256::ZERO).with_input(plan.amount.to_be_bytes::<32>());
    let called = mined(provider, call).await?;
    let log = logs.next().await.expect("a log");
    let head = blocks.next().await.expect("a head");
    let heads = vec![provider.get_block_by_hash(head).await?.expect("its block").number()];

    let send = async |transaction: TransactionRequest| provider.send_transaction(transaction.with_gas_limit(21_000)).await.map(drop);
    let million = U256::from(1_000_000) * U256::from(10).pow(U256::from(18));
    let malformed = provider.raw_request::<_, ()>(plan.malformed.method.clone().into(), &plan.malformed.params);
    Ok(Report {
        chain_id,
        sent: Sent {
            hash: first.transaction_hash,
            from: first.from,
            to: first.to.expect("a recipient"),
            status: u64::from(first.status()),
            block: first.block_number.expect("a block"),
        },
        typed: Some(signature),
        // Over a WebSocket alloy makes single requests of a batch, one behind another.
        batch: Batch { hashes, ordered: !streams },
        heads,
        log: Log {
            hash: log.transaction_hash.expect("a transaction"),
            called: vec![called.transaction_hash],
            contract,
            address: log.address(),
            topics: log.topics().to_vec(),
            data: log.inner.data.data.clone(),
        },
        errors: Errors {
            unknown_account: failure(send(payment(plan.stranger, plan.recipient, U256::ZERO)).await),
            insufficient_funds: failure(send(payment(account, plan.recipient, million)).await),
            reverted_estimate: failure(provider.estimate_gas(payment(account, contract, U256::ZERO)).await),
            unsupported_method: failure(provider.raw_request::<_, ()>(plan.unsupported.clone().into(), ()).await),
            bad_params: failure(malformed.await),
        },
        accounts,
    })
}

/// What alloy makes of a call that must fail.
fn failure<T: std::fmt::Debug>(outcome: TransportResult<T>) -> Failure {
    let error = outcome.expect_err("it went well");
    let TransportError::ErrorResp(payload) = &error else { panic!("{error}") };
    let data: Option<serde_json::Value> = payload.data.as_ref().and_then(|data| serde_json::from_str(data.get()).ok());
    Failure {
        name: "ErrorResp".into(),
        code: Some(payload.code),
        reason: data.and_then(|data| Some(data.get("reason")?.as_str()?.to_owned())),
        message: payload.message.to_string(),
    }
}

/// What docs/clients.md warns of. If this fails, alloy has learnt better and the page can say so.
#[tokio::test(flavor = "multi_thread")]
async fn alloys_websocket_sends_again_what_had_no_answer_and_a_nonce_makes_that_harmless() {
    let test = "alloys_websocket_sends_again_what_had_no_answer_and_a_nonce_makes_that_harmless";
    for nonce in [None, Some(0)] {
        let Some(stage) = Stage::start(test, Kind::Anvil, &[]).await else { return };
        // The handshake's answer goes through, and then a few bytes of the first answer.
        let cutter = Cutter::start(stage.gateway.listen, &[200]).await;
        let url = WsConnect::new(format!("ws://{}/dev", cutter.address));
        let provider = ProviderBuilder::new().disable_recommended_fillers().connect_ws(url).await.unwrap();
        let mut payment = payment(stage.accounts[0], stage.accounts[0], U256::ONE);
        payment.nonce = nonce;
        let answer = soon("an answer", provider.raw_request::<_, B256>("eth_sendTransaction".into(), (payment,))).await;
        assert_eq!(cutter.cuts(), 1);
        match nonce {
            None => {
                answer.unwrap();
                eventually("two payments", async || (stage.mined().await.len() == 2).then_some(())).await;
            }
            Some(_) => {
                let TransportError::ErrorResp(refused) = answer.expect_err("the nonce is in use") else { panic!("no answer") };
                assert!(refused.message.contains("nonce"), "{refused}");
                assert_eq!(stage.mined().await.len(), 1);
            }
        }
    }
}
