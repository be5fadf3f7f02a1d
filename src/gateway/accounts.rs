//! /accounts and the orders of operators: which environment is meant, and how an account is shown.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::build::Foundation;
use crate::journal::{Account, Pauses, StoredAccount};
use crate::node::CallError;
use crate::server::admin::accounts::{Order, OrderError, Wanted};
use crate::transactions::chain::Chain;
use crate::transactions::errors::TransactionError;
use crate::transactions::nonces::SlotState;
use crate::transactions::operators::{AccountState, EndpointNonces, Seen, UnminedSlot};
use crate::transactions::reconcile::Verdict;

/// `{ "accounts": […] }`, in order of environment and address.
pub(super) async fn accounts(foundation: &Foundation) -> Result<Value, OrderError> {
    let mut chains: Vec<&Arc<Chain>> = foundation.chains().collect();
    chains.sort_by(|one, other| one.environment().name.cmp(&other.environment().name));
    let mut accounts = Vec::new();
    for (chain, seen) in chains.iter().zip(join_all(chains.iter().map(|chain| chain.every_account())).await) {
        let seen = seen.map_err(|error| OrderError::Unavailable(error.to_string()))?;
        accounts.extend(seen.iter().map(|seen| show_seen(&chain.environment().name, chain.environment().chain_id, seen)));
    }
    Ok(json!({ "accounts": accounts }))
}

/// Carries an order out.
pub(super) async fn order(foundation: &Foundation, wanted: Wanted) -> Result<Value, OrderError> {
    let Wanted { environment: name, address, order } = wanted;
    let by_id = name.parse::<u64>().ok();
    let mut chains = foundation.chains();
    let chain = chains.find(|chain| chain.environment().name == name || Some(chain.environment().chain_id) == by_id);
    let chain = chain.ok_or_else(|| OrderError::NotFound(format!("no environment has the name or chain id {name}")))?;
    let environment = chain.environment();
    if !chain.has_account(address).await.map_err(|error| OrderError::Unavailable(error.to_string()))? {
        return Err(OrderError::NotFound(format!("{address} is no account of environment {}", environment.name)));
    }
    let account = json!({ "environment": environment.name, "chainId": environment.chain_id, "address": address });
    let answer = match order {
        Order::Pause { reason } => chain.pause(address, reason).await.map(|pauses| json!({ "pauses": show_pauses(&pauses) })),
        Order::Resume => chain.resume(address).await.map(|resumed| {
            let lifted: Vec<&str> = resumed.lifted.iter().map(|by| by.as_str()).collect();
            json!({ "lifted": lifted, "slotTaken": resumed.slot_taken })
        }),
        Order::Resync => chain.resync(address).await.map(|(resynced, endpoints)| {
            let state = &resynced.state;
            json!({
                "nextNonce": state.figures.next_nonce,
                "unmined": state.unmined,
                "slotTaken": { "before": resynced.was_taken, "now": state.slot_taken },
                "pauses": show_pauses(&state.pauses),
                "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            })
        }),
    };
    answer.map(|answer| merged(account, answer)).map_err(|error| OrderError::Unavailable(words(&error)))
}

fn words(error: &TransactionError) -> String {
    match error {
        TransactionError::Call(CallError::Deadline(patience)) => {
            format!(
                "the account gave no answer within {patience:?}: it waits for the journal or for its nodes; whether the order was carried out \
                 is in `sluice account list`"
            )
        }
        TransactionError::Call(error) => {
            format!("the account gave no answer ({error}); whether the order was carried out is in `sluice account list`")
        }
        TransactionError::Journal(_) => {
            "the journal does not write: the order is carried out and written once it does, and a restart before that forgets it".to_owned()
        }
        other => other.to_string(),
    }
}

/// An account of the journal alone, for commands that read it without a gateway.
pub fn show_stored(environment: &str, stored: &StoredAccount) -> Value {
    let Account { chain_id, address } = stored.account;
    show_seen(environment, chain_id, &Seen { address, stored: Some(stored.clone()), state: None })
}

/// Members that only its task knows are null where that could not say.
fn show_seen(environment: &str, chain_id: u64, seen: &Seen) -> Value {
    let account = json!({ "environment": environment, "chainId": chain_id, "address": seen.address });
    let rest = match (&seen.state, &seen.stored) {
        (Some(state), _) => show_state(state),
        (None, stored) => json!({
            "nextNonce": stored.as_ref().map(|stored| stored.next_nonce),
            "queued": null, "signing": null, "unsent": null, "inFlight": null, "window": null,
            "onHold": null, "slotTaken": null, "reconcile": null, "unmined": null, "lowestUnmined": null,
            "pauses": stored.as_ref().map(|stored| show_pauses(&stored.pauses)),
        }),
    };
    merged(account, rest)
}

fn show_state(state: &AccountState) -> Value {
    let figures = &state.figures;
    json!({
        "nextNonce": figures.next_nonce,
        "queued": figures.queued,
        "signing": figures.signing,
        "unsent": figures.unsent,
        "inFlight": figures.in_flight,
        "window": figures.window,
        "onHold": figures.is_on_hold,
        "slotTaken": state.slot_taken,
        "pauses": show_pauses(&state.pauses),
        "reconcile": state.reconcile.map(|(verdict, wanted)| reconcile(verdict, wanted)),
        "unmined": state.unmined,
        "lowestUnmined": state.lowest_unmined.as_ref().map(lowest),
    })
}

fn reconcile(verdict: Verdict, wanted: u64) -> Value {
    let (nonce, blocks) = match verdict {
        Verdict::Differ => (None, 0),
        Verdict::Agree { nonce, blocks } => (Some(nonce), blocks),
        Verdict::Settled(nonce) => (Some(nonce), wanted),
    };
    json!({ "chainNonce": nonce, "blocks": blocks, "wanted": wanted })
}

fn lowest(slot: &UnminedSlot) -> Value {
    let state = match slot.state {
        SlotState::Unsent => "unsent",
        SlotState::Sent => "sent",
        SlotState::Held => "held",
        SlotState::Open => "open",
        SlotState::Reopened => "replaced",
        SlotState::Mined => "mined",
        SlotState::Foreign => "foreign",
        SlotState::Tied => "tied",
        SlotState::Lent => "lent",
    };
    json!({ "nonce": slot.nonce, "state": state, "hash": slot.hash, "ageSeconds": slot.age.map(|age| age.as_secs()) })
}

fn endpoint(endpoint: &EndpointNonces) -> Value {
    let error = endpoint.latest.as_ref().err().or(endpoint.pending.as_ref().err());
    json!({
        "label": endpoint.label,
        "latest": endpoint.latest.as_ref().ok(),
        "pending": endpoint.pending.as_ref().ok(),
        "error": error.map(ToString::to_string),
    })
}

fn show_pauses(pauses: &Pauses) -> Value {
    pauses.iter().map(|(by, reason)| json!({ "by": by.as_str(), "reason": reason })).collect()
}

/// Both objects' members.
fn merged(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}
