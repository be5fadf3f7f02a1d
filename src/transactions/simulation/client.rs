//! What clients do, each in a task of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_consensus::{TxEip1559, TypedTransaction};
use alloy_primitives::{Address, Bytes, TxKind, U256};
use serde_json::json;
use sluice_load_tests::wallet::Wallet;

use super::edges::Edge;
use super::ledger::BASE;
use super::once;
use super::schedule::{Asked, Held, Request};
use super::world::{CHAIN, Process, lock, short};
use crate::config::FeeCeilings;
use crate::journal::{Kind, TransactionId};
use crate::telemetry::clock;
use crate::transactions::account::loans::Borrowed;
use crate::transactions::account::replace::Replacement;
use crate::transactions::authorisations::Authorisations;
use crate::transactions::chain::{Accepted, NewRequest, Payload, ReplaceWish, SignedBytes};
use crate::transactions::errors::TransactionError;
use crate::transactions::idempotency::Claim;
use crate::transactions::prepare::{TRANSFER_GAS, prepare, prepare_as_given};
use crate::transactions::request::{self, Fees};

/// Wei per gas that signed requests offer.
const CAP: u128 = 20_000_000_000;
const TIP: u128 = 1_000_000_000;
pub(super) const RECIPIENT: Address = Address::repeat_byte(0x55);
/// Whose requests they are.
pub(super) const SERVICE: &str = "payments";
pub(super) const PRINCIPAL: &str = "default";

pub(super) type Answer = Result<Accepted, TransactionError>;

/// Asks, waits for the answer as long as the client's patience lasts, and notes what was told.
pub(super) async fn run(process: Process, request: Request) {
    let world = Arc::clone(&process.life.world);
    let from = world.addresses[request.account];
    world.note(|| format!("asked {request:?}"));
    // In turn: tokio wakes those who wait for one thing in an order of chance.
    while !process.chain.is_open() || process.chain.fees().now().is_none() {
        tokio::time::sleep(Duration::from_millis(10 + request.number)).await;
    }
    let answer = match request.kind {
        Asked::Send | Asked::Queue => return once::run(&process, &request, from).await,
        Asked::SendAt(above) => {
            let asking = async {
                let nonce = process.chain.next_nonce(from).await? + above;
                unsigned(&process, &request, from, Kind::Send, Some(nonce), None).await
            };
            patient(&process, &request, asking).await
        }
        Asked::Sign(..) => {
            let asking = async {
                let nonce = process.chain.next_nonce(from).await?;
                unsigned(&process, &request, from, Kind::SignOnly, Some(nonce), None).await
            };
            patient(&process, &request, asking).await
        }
        Asked::Raw(above, times) => {
            let Ok(nonce) = process.chain.next_nonce(from).await else { return };
            let bytes = sign(world.schedule.seed, &request, nonce + above);
            for time in 1..times {
                let _ = told(&process, &request, true, raw(&process, from, nonce + above, bytes.clone()).await);
                world.count(format!("asked again {time}"));
            }
            patient(&process, &request, raw(&process, from, nonce + above, bytes)).await
        }
    };
    let again = matches!(request.kind, Asked::Raw(_, times) if times > 1);
    if let Some(answer) = answer
        && let Some(accepted) = told(&process, &request, again, answer)
    {
        if let Some((what, after)) = request.later {
            tokio::time::sleep(after).await;
            let answer = replace(&process, from, what, accepted.id).await;
            world.count(format!("{what:?} {}", if answer.is_ok() { "done" } else { "refused" }));
            let _ = told(&process, &request, true, answer);
        }
        if let Asked::Sign(held, after) = request.kind {
            tokio::time::sleep(after).await;
            use_held(&process, &request, held, from, accepted).await;
        }
    }
}

/// A client speeds its transaction up, or cancels it.
pub(super) async fn replace(process: &Process, from: Address, what: Replacement, id: TransactionId) -> Answer {
    let key = process.keys.get(&from).cloned().ok_or(TransactionError::UnknownAccount)?;
    let wish = ReplaceWish { id, what, fees: Fees::Dynamic { cap: None, tip: None }, key, arrived: clock::now() };
    alive(process, process.chain.replace(from, wish)?.1.answer().await).await
}

async fn use_held(process: &Process, request: &Request, held: Held, from: Address, accepted: Accepted) {
    let world = &process.life.world;
    match held {
        Held::Kept => {}
        Held::GivenToTheNode => {
            let params = json!([accepted.raw]);
            let answer = world.node.with(|node, now| node.call(now, "eth_sendRawTransaction", &params));
            world.count(format!("held bytes given to the node: {}", if answer.is_ok() { "taken" } else { "refused" }));
            world.note(|| format!("client gave {} to the node: {answer:?}", short(accepted.hash)));
        }
        Held::GivenBack => {
            let number = lock(&world.ledger).durable.get(&accepted.hash).map(|durable| durable.nonce);
            let Some(nonce) = number else { return };
            let bytes = SignedBytes { raw: accepted.raw, hash: accepted.hash };
            let answer = raw(process, from, nonce, bytes).await;
            let _ = told(process, request, true, answer);
        }
    }
}

/// Notes an answer, unless the process is gone; answers what was accepted.
pub(super) fn told(process: &Process, request: &Request, again: bool, answer: Answer) -> Option<Accepted> {
    let (life, world) = (&process.life, &process.life.world);
    if life.is_over() {
        return None;
    }
    life.look_at_sends();
    world.note(|| match &answer {
        Ok(accepted) => format!("told {} {}", request.number, short(accepted.hash)),
        Err(error) => format!("told {} error: {error}", request.number),
    });
    let what = answer.as_ref().err().map_or_else(|| "hash".to_owned(), name);
    world.count(format!("told {what}"));
    lock(&world.ledger).told(request.number, again, &answer);
    life.pass(if answer.is_ok() { Edge::ToldHash } else { Edge::ToldError });
    answer.ok()
}

fn name(error: &TransactionError) -> String {
    let words = format!("{error:?}");
    words.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

pub(super) async fn patient<T>(process: &Process, request: &Request, asking: impl Future<Output = T>) -> Option<T> {
    match request.patience {
        None => Some(asking.await),
        Some(patience) => {
            let answer = tokio::time::timeout(patience, asking).await;
            if answer.is_err() {
                process.life.world.count("client went away");
                process.life.world.note(|| format!("client of {} went away", request.number));
            }
            answer.ok()
        }
    }
}

pub(super) fn value(request: &Request) -> U256 {
    U256::from(BASE + request.number)
}

pub(super) async fn unsigned(
    process: &Process,
    request: &Request,
    from: Address,
    kind: Kind,
    nonce: Option<u64>,
    claim: Option<Claim>,
) -> Answer {
    let chain = &process.chain;
    let arrived = clock::now();
    let asked = request::Request {
        from,
        to: Some(RECIPIENT),
        gas: (kind == Kind::SignOnly || request.number.is_multiple_of(2)).then_some(TRANSFER_GAS),
        fees: if kind == Kind::SignOnly {
            Fees::Dynamic { cap: Some(CAP), tip: Some(TIP) }
        } else {
            Fees::Dynamic { cap: None, tip: None }
        },
        value: value(request),
        nonce,
        input: Bytes::new(),
        access_list: None,
        authorizations: None,
    };
    chain.ready().await?;
    let none = Authorisations::default();
    let prepared = match kind {
        Kind::SignOnly => prepare_as_given(asked, &none, CHAIN, FeeCeilings::default())?,
        _ => prepare(asked, &none, chain.environment(), chain.pool(), chain.fees(), FeeCeilings::default()).await?,
    };
    let key = process.keys.get(&from).cloned().ok_or(TransactionError::UnknownAccount)?;
    submit(process, from, kind, Payload::Unsigned { prepared: Box::new(prepared), key }, claim, arrived).await
}

async fn raw(process: &Process, from: Address, nonce: u64, bytes: SignedBytes) -> Answer {
    let arrived = clock::now();
    process.chain.ready().await?;
    let cost = U256::from(CAP).saturating_mul(U256::from(TRANSFER_GAS)) + U256::from(BASE);
    submit(process, from, Kind::Raw, Payload::Signed { bytes, nonce, span: 1, cost }, None, arrived).await
}

async fn submit(process: &Process, from: Address, kind: Kind, payload: Payload, claim: Option<Claim>, arrived: Instant) -> Answer {
    let new = NewRequest {
        from,
        kind,
        service: Arc::from(SERVICE),
        principal: Arc::from(PRINCIPAL),
        request: Arc::from("{}"),
        payload,
        borrowed: Borrowed::default(),
        claim,
        acknowledged: None,
        arrived,
    };
    alive(process, process.chain.submit(new)?.answer().await).await
}

/// A dead process answers nobody, whatever became of its channels.
pub(super) async fn alive<T>(process: &Process, answer: T) -> T {
    if process.life.is_over() { std::future::pending().await } else { answer }
}

fn sign(seed: u64, request: &Request, nonce: u64) -> SignedBytes {
    let transaction = TypedTransaction::Eip1559(TxEip1559 {
        chain_id: CHAIN,
        nonce,
        gas_limit: TRANSFER_GAS,
        max_fee_per_gas: CAP,
        max_priority_fee_per_gas: TIP,
        to: TxKind::Call(RECIPIENT),
        value: value(request),
        ..TxEip1559::default()
    });
    let (raw, hash) = Wallet::new(seed, request.account as u64).sign(transaction).unwrap();
    SignedBytes { raw, hash }
}
