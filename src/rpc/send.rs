//! Unsigned transactions on their way in: read, found again by their idempotency key, prepared, and put into their account's queue.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use alloy_primitives::{Address, B256};
use jsonrpsee::Extensions;
use jsonrpsee::types::Params;

use super::arguments::Arguments;
use super::edges;
use super::errors::{RESOURCE_NOT_FOUND, Reason, RpcError};
use super::eth::Answer;
use super::idempotency::{self, conflict};
use super::order::Turn;
use super::refusals::{invalid_argument, refusal};
use super::service::{Service, connection, principal, turn, waited};
use super::sluice::unread;
use super::waiting::refused;
use crate::journal::history::{Life, Name};
use crate::journal::{IdempotencyKey, Kind, StoredIdempotencyKey, TransactionId};
use crate::signing::Key;
use crate::telemetry::waited::Waited;
use crate::transactions::account::loans::Borrowed;
use crate::transactions::authorisations::Authorisations;
use crate::transactions::chain::{Accepted, NewRequest, Payload};
use crate::transactions::errors::TransactionError;
use crate::transactions::idempotency::{Claim, Claimed, digest};
use crate::transactions::prepare::{prepare, prepare_as_given};
use crate::transactions::request::{self, Request};

/// A call that was read. Nothing was awaited: items of a batch take their nonces in array order.
pub(super) struct Call {
    pub(super) from: Address,
    pub(super) given: request::Arguments,
    /// The object as it stands.
    pub(super) text: Arc<str>,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) turn: Option<Turn>,
    request: Request,
    kind: Kind,
    arrived: Instant,
}

/// What a send came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) id: TransactionId,
    /// The hash that is told first; `None` for a transaction that is acknowledged and has no attempt yet.
    pub(super) hash: Option<B256>,
}

impl Call {
    pub(super) fn read(params: &Params<'_>, service: &Service, extensions: &Extensions, kind: Kind) -> Answer<Self> {
        let arguments = Arguments::of(params)?;
        let given: request::Arguments = arguments.required(0)?;
        let turn = given.from.and_then(|from| turn(extensions, from));
        let text: Arc<str> = arguments.raw(0).map_or_else(|| Arc::from("{}"), |object| Arc::from(object.get()));
        let from = given.from.ok_or(TransactionError::UnknownAccount).map_err(refusal)?;
        if kind == Kind::SignOnly && given.idempotency_key.is_some() {
            return Err(invalid_argument(0, "idempotencyKey goes with what is sent"));
        }
        let key = idempotency::key(given.idempotency_key.as_deref(), extensions)?;
        if key.is_none() {
            usable_key(service, from).map_err(refusal)?;
        }
        let chain_id = service.chain.environment().chain_id;
        let request = given.clone().check(chain_id).map_err(refusal)?;
        let key = key.map(|key| IdempotencyKey { key, digest: digest(chain_id, &request) });
        Ok(Self { from, given, text, key, turn, request, kind, arrived: Instant::now() })
    }

    /// Prepares the transaction and waits for its answer.
    async fn submit(
        &mut self,
        service: &Arc<Service>,
        extensions: &Extensions,
        claim: Option<Claim>,
    ) -> Result<Accepted, TransactionError> {
        let chain = &service.chain;
        let chain_id = chain.environment().chain_id;
        let key = usable_key(service, self.from)?;
        let list = self.request.authorizations.as_deref().unwrap_or_default();
        let authorisations = Authorisations::read(list, self.from, chain_id, |address| chain.is_managed(address))?;
        if self.kind == Kind::SignOnly && authorisations != Authorisations::default() {
            let words = "authorisations by accounts of this gateway go with eth_sendTransaction";
            return Err(TransactionError::Unsupported(words.into()));
        }
        let waited = waited(extensions);
        let begun = Instant::now();
        let request = self.request.clone();
        let prepared = chain.unless_draining(async {
            chain.ready().await?;
            match self.kind {
                Kind::SignOnly => prepare_as_given(request, &authorisations, chain_id, service.ceilings),
                _ => prepare(request, &authorisations, chain.environment(), chain.pool(), chain.fees(), service.ceilings).await,
            }
        });
        let prepared = prepared.await;
        waited.since(begun);
        let new = NewRequest {
            from: self.from,
            kind: self.kind,
            service: Arc::clone(&service.name),
            principal: Arc::clone(&principal(extensions).name),
            request: Arc::clone(&self.text),
            payload: Payload::Unsigned { prepared: Box::new(prepared?), key },
            borrowed: Borrowed::default(),
            arrived: self.arrived,
            claim,
            acknowledged: None,
        };
        submit(service, new, authorisations.others, self.turn.take(), &waited).await
    }
}

/// The key of `from`, if this service may use it and it can sign.
pub(super) fn usable_key(service: &Service, from: Address) -> Result<Arc<Key>, TransactionError> {
    let key = service.keys.get(&from).ok_or(TransactionError::UnknownAccount)?;
    key.usable().map_err(TransactionError::Sign)?;
    Ok(key)
}

/// Signs, and sends unless it is only to be signed; every call is one of its own.
pub(super) async fn new(mut call: Call, service: &Arc<Service>, extensions: &Extensions) -> Answer<Accepted> {
    call.submit(service, extensions, None).await.map_err(refusal)
}

/// Sends, once for each key.
pub(super) async fn send(mut call: Call, service: &Arc<Service>, extensions: &Extensions) -> Answer<Sent> {
    loop {
        let claim = match claim(&mut call, service, extensions).await? {
            Claimed::NoKey => None,
            Claimed::Ours(claim) => Some(claim),
            Claimed::Before(stored) => return before(service, extensions, stored).await,
            Claimed::Conflict => return Err(conflict()),
        };
        match call.submit(service, extensions, claim).await {
            Ok(accepted) => return Ok(Sent { id: accepted.id, hash: Some(accepted.hash) }),
            // On record for another request by now: that one's outcome is the answer.
            Err(TransactionError::KeyTaken) => {}
            Err(error) => return Err(refusal(error)),
        }
    }
}

/// Asks for the call's key. Neither KMS nor a node is asked.
pub(super) async fn claim(call: &mut Call, service: &Service, extensions: &Extensions) -> Answer<Claimed> {
    let Some(key) = &call.key else { return Ok(Claimed::NoKey) };
    let (waited, begun) = (waited(extensions), Instant::now());
    // Who works under the key has a place of its own; this call must not hold up what may be before it.
    let claimed = service.chain.claim(&service.name, &principal(extensions).name, key, || call.turn = None).await;
    waited.since(begun);
    claimed.map_err(refusal)
}

/// What was told of the transaction: its first hash, or its refusal.
async fn before(service: &Service, extensions: &Extensions, stored: StoredIdempotencyKey) -> Answer<Sent> {
    on_record(service, extensions, stored).await.map(|life| Sent { id: life.transaction.id, hash: stored.first })
}

/// The transaction of a key, unless it is refused.
pub(super) async fn on_record(service: &Service, extensions: &Extensions, stored: StoredIdempotencyKey) -> Answer<Life> {
    let id = stored.transaction;
    let scope = service.scope(extensions);
    let (waited, begun) = (waited(extensions), Instant::now());
    let life = service.lifecycle.read(connection(extensions), |history| history.life(scope, Name::Id(id))).await;
    waited.since(begun);
    match life.map_err(|error| unread(&error))? {
        Some(life) => match refused(&life) {
            Some(refusal) => Err(refusal.into()),
            None => Ok(life),
        },
        None => {
            let words = format!("transaction {id} of this idempotency key was final and is not on record any more: it may have been mined");
            Err(RpcError::new(RESOURCE_NOT_FOUND, Reason::Forgotten, words).into())
        }
    }
}

/// `others`: nonces of other accounts that the payload authorises with; they are had before it gets a nonce of its own.
pub(super) async fn submit(
    service: &Arc<Service>,
    mut new: NewRequest,
    others: BTreeMap<Address, Range<u64>>,
    turn: Option<Turn>,
    waited: &Waited,
) -> Result<Accepted, TransactionError> {
    let mut turn = turn;
    if let Some(turn) = &mut turn {
        turn.wait().await;
    }
    if !others.is_empty() {
        let borrowed = service.chain.borrow(others, new.arrived);
        new.borrowed = service.chain.unless_draining(borrowed).await?;
    }
    let kind = new.kind;
    let submitted = service.chain.submit(new)?;
    drop(turn);
    let in_account = submitted.waited();
    let answer = submitted.answer().await;
    waited.add(in_account.total());
    edges::tell(kind, answer)
}
