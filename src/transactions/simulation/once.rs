//! What clients pay once, however often they ask: under an idempotency key, or acknowledged before it has an attempt.

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes};
use serde_json::json;

use super::client::{PRINCIPAL, RECIPIENT, SERVICE, alive, patient, replace, told, unsigned, value};
use super::edges::Edge;
use super::schedule::{Asked, Repeats, Request};
use super::world::{CHAIN, Process, lock, short};
use crate::journal::{Account, IdempotencyKey, Intent, Kind, StoredIdempotencyKey, TransactionId};
use crate::transactions::account::replace::Replacement;
use crate::transactions::chain::Accepted;
use crate::transactions::errors::TransactionError;
use crate::transactions::idempotency::{Claim, Claimed};
use crate::transactions::prepare::TRANSFER_GAS;

/// What such a request comes to.
enum Reply {
    Sent(Accepted),
    Queued(TransactionId),
    /// The same request was acknowledged or committed before.
    Before(StoredIdempotencyKey),
}

/// Asks, notes what was told, and does with the transaction what the client wants with it later.
pub(super) async fn run(process: &Process, request: &Request, from: Address) {
    let Some(reply) = patient(process, request, ask(process, request, from)).await else { return };
    let Some(id) = note(process, request, reply) else { return };
    let Some((what, after)) = request.later else { return };
    let world = &process.life.world;
    tokio::time::sleep(after).await;
    if what == Replacement::Cancel && request.kind == Asked::Queue {
        let ended = alive(process, process.chain.end_queued(id, "cancelled".to_owned()).await).await;
        if matches!(ended, Ok(true)) {
            world.count("cancelled before it was signed");
            return lock(&world.ledger).told_ended(request.number);
        }
    }
    let answer = replace(process, from, what, id).await;
    world.count(format!("{what:?} {}", if answer.is_ok() { "done" } else { "refused" }));
    let _ = told(process, request, true, answer);
}

/// As `eth_sendTransaction` and `sluice_sendTransaction` do.
async fn ask(process: &Process, request: &Request, from: Address) -> Result<Reply, TransactionError> {
    loop {
        let claim = match claim(process, request).await? {
            Claimed::NoKey => None,
            Claimed::Ours(claim) => Some(claim),
            Claimed::Before(stored) => return Ok(alive(process, Reply::Before(stored)).await),
            Claimed::Conflict => {
                lock(&process.life.world.ledger).violation(format!("the key of request {} stands for another one", request.number));
                return Err(TransactionError::Internal);
            }
        };
        let reply = match request.kind {
            Asked::Queue => acknowledge(process, request, from, claim).await.map(Reply::Queued),
            _ => unsigned(process, request, from, Kind::Send, None, claim).await.map(Reply::Sent),
        };
        match reply {
            Err(TransactionError::KeyTaken) => {}
            reply => return reply,
        }
    }
}

async fn claim(process: &Process, request: &Request) -> Result<Claimed, TransactionError> {
    if request.key.is_none() {
        return Ok(Claimed::NoKey);
    }
    let key = IdempotencyKey { key: Arc::from(request.number.to_string()), digest: B256::ZERO };
    process.chain.claim(&Arc::from(SERVICE), &Arc::from(PRINCIPAL), &key, || ()).await
}

async fn acknowledge(process: &Process, request: &Request, from: Address, claim: Option<Claim>) -> Result<TransactionId, TransactionError> {
    let mut object = json!({ "from": from, "to": RECIPIENT, "value": value(request) });
    if request.number.is_multiple_of(2) {
        object["gas"] = format!("{TRANSFER_GAS:#x}").into();
    }
    let text = object.to_string();
    let arguments = serde_json::from_str(&text).unwrap();
    let transaction = TransactionId::new();
    let intent = Intent {
        account: Account { chain_id: CHAIN, address: from },
        transaction,
        service: Arc::from(SERVICE),
        principal: Arc::from(PRINCIPAL),
        request: text.into(),
    };
    let acknowledged = process.chain.acknowledge(intent, arguments, claim).await;
    alive(process, acknowledged.map(|()| transaction)).await
}

/// What was told; answers the transaction, if there is one.
fn note(process: &Process, request: &Request, reply: Result<Reply, TransactionError>) -> Option<TransactionId> {
    let (life, world) = (&process.life, &process.life.world);
    // An error promises nothing of a request that comes again.
    let again = request.key == Some(Repeats::Again);
    let (id, hash) = match reply {
        Ok(Reply::Sent(accepted)) => {
            let (id, hash) = (accepted.id, accepted.hash);
            told(process, request, again, Ok(accepted))?;
            (id, Some(hash))
        }
        Ok(Reply::Before(StoredIdempotencyKey { transaction: id, first, .. })) => {
            world.count("told by its key");
            if let Some(hash) = first {
                told(process, request, false, Ok(Accepted { id, hash, raw: Bytes::new() }))?;
            }
            (id, first)
        }
        Ok(Reply::Queued(id)) => (id, None),
        Err(error) => {
            told(process, request, again, Err(error))?;
            return None;
        }
    };
    match hash {
        Some(hash) if request.key.is_some() => lock(&world.ledger).told_by_key(request.number, hash),
        Some(_) => {}
        None if life.is_over() => return None,
        None => {
            life.look_at_sends();
            world.note(|| format!("told {} queued", request.number));
            world.count("told queued");
            lock(&world.ledger).told_queued(request.number, id);
            life.pass(Edge::ToldHash);
        }
    }
    world.note(|| format!("request {} is {}", request.number, hash.map_or_else(|| "queued".to_owned(), short)));
    Some(id)
}
