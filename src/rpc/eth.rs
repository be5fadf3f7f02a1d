//! The `eth_` and `net_` methods that are answered here: accounts, sends and what has to know of nonces in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use alloy_consensus::transaction::SignerRecoverable as _;
use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_eips::{Decodable2718 as _, Encodable2718 as _};
use alloy_primitives::{Address, Bytes, U64, U256};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, RpcModule};
use serde_json::value::{RawValue, to_raw_value};

use super::arguments::Arguments;
use super::errors::RpcError;
use super::pass_through::call_error;
use super::refusals::refusal;
use super::service::{Service, principal, turn, waited, waited_all};
use crate::config::SignTransactionResult;
use crate::journal::Kind;
use crate::node::CallError;
use crate::signing::Key;
use crate::signing::KeyState;
use crate::telemetry::waited::Waited;
use crate::transactions::account::loans::Borrowed;
use crate::transactions::authorisations::Authorisations;
use crate::transactions::chain::{Accepted, NewRequest, Payload, SignedBytes};
use crate::transactions::errors::TransactionError;
use crate::transactions::prepare::{prepare, prepare_as_given};
use crate::transactions::request;

type Answer<T> = Result<T, ErrorObjectOwned>;
/// A result that is passed on as it is.
type Raw = Arc<RawValue>;

/// Registers the methods.
pub(super) fn register(module: &mut RpcModule<Service>) -> Result<(), jsonrpsee::server::RegisterMethodError> {
    module.register_method("eth_accounts", |params, service, _| {
        Arguments::of(&params)?.at_most(0)?;
        Answer::Ok(service.keys.addresses())
    })?;
    module.register_method("eth_chainId", |params, service, _| {
        Arguments::of(&params)?.at_most(0)?;
        Answer::Ok(U64::from(service.chain.environment().chain_id))
    })?;
    module.register_method("net_version", |params, service, _| {
        Arguments::of(&params)?.at_most(0)?;
        Answer::Ok(service.chain.environment().chain_id.to_string())
    })?;
    module.register_async_method("eth_getTransactionCount", |params, service, extensions| async move {
        let answer = count(&params, &service).await;
        waited_all(&extensions);
        answer
    })?;
    module.register_async_method("eth_sendTransaction", |params, service, extensions| async move {
        let sent = send(&params, &service, &extensions, Kind::Send).await?;
        Answer::Ok(sent.hash)
    })?;
    module.register_async_method("eth_signTransaction", |params, service, extensions| async move {
        let signed = send(&params, &service, &extensions, Kind::SignOnly).await?;
        signed_transaction(&signed.raw, service.sign_transaction_result)
    })?;
    module.register_async_method("eth_sendRawTransaction", |params, service, extensions| async move {
        send_raw(&params, &service, &extensions).await
    })?;
    module.register_async_method("eth_sendRawTransactionSync", |params, service, extensions| async move {
        let answer = send_raw_sync(&params, &service).await;
        waited_all(&extensions);
        answer
    })?;
    Ok(())
}

/// The next nonce of a managed account at `pending` is ours to tell; every other question is the node's.
async fn count(params: &Params<'_>, service: &Arc<Service>) -> Answer<Raw> {
    let pending = Arguments::of(params).ok().and_then(|arguments| {
        let block: String = arguments.optional(1).ok()??;
        let address: Address = arguments.optional(0).ok()??;
        (block == "pending" && service.chain.is_managed(address)).then_some(address)
    });
    if let Some(address) = pending {
        let nonce = service.chain.next_nonce(address).await.map_err(refusal)?;
        return raw(&U64::from(nonce));
    }
    let params = untouched(params)?;
    service.chain.pool().call_raw("eth_getTransactionCount", params.as_deref()).await.map_err(|error| call_error(&error))
}

/// The key of `from`, if this service may use it and it can sign.
pub(super) fn usable_key(service: &Service, from: Address) -> Result<Arc<Key>, TransactionError> {
    let key = service.keys.get(&from).ok_or(TransactionError::UnknownAccount)?;
    match key.state() {
        KeyState::Enabled => Ok(key),
        KeyState::Unusable(_) => Err(TransactionError::Sign(crate::signing::SignClass::KeyDown)),
    }
}

async fn send(params: &Params<'_>, service: &Arc<Service>, extensions: &Extensions, kind: Kind) -> Answer<Accepted> {
    let arguments = Arguments::of(params)?;
    let given: request::Arguments = arguments.required(0)?;
    // Taken before the first await: items of a batch take their nonces in array order.
    let turn = given.from.and_then(|from| turn(extensions, from));
    let text: Arc<str> = arguments.raw(0).map_or_else(|| Arc::from("{}"), |object| Arc::from(object.get()));
    let chain = &service.chain;
    let chain_id = chain.environment().chain_id;
    let from = given.from.ok_or(TransactionError::UnknownAccount).map_err(refusal)?;
    let key = usable_key(service, from).map_err(refusal)?;
    let request = given.check(chain_id).map_err(refusal)?;
    let list = request.authorizations.as_deref().unwrap_or_default();
    let authorisations = Authorisations::read(list, from, chain_id, |address| chain.is_managed(address)).map_err(refusal)?;
    if kind == Kind::SignOnly && authorisations != Authorisations::default() {
        let words = "authorisations by accounts of this gateway go with eth_sendTransaction";
        return Err(refusal(TransactionError::Unsupported(words.into())));
    }
    let waited = waited(extensions);
    let arrived = Instant::now();
    let prepared = chain.unless_draining(async {
        chain.ready().await?;
        match kind {
            Kind::SignOnly => prepare_as_given(request, &authorisations, chain_id),
            _ => prepare(request, &authorisations, chain.environment(), chain.pool(), chain.fees()).await,
        }
    });
    let prepared = prepared.await;
    waited.since(arrived);
    let prepared = prepared.map_err(refusal)?;
    let new = NewRequest {
        from,
        kind,
        service: Arc::clone(&service.name),
        principal: Arc::clone(&principal(extensions).name),
        request: text,
        payload: Payload::Unsigned { prepared: Box::new(prepared), key },
        borrowed: Borrowed::default(),
        arrived,
    };
    submit(service, new, authorisations.others, turn, &waited).await
}

/// `others`: nonces of other accounts that the payload authorises with; they are had before it gets a nonce of its own.
async fn submit(
    service: &Arc<Service>,
    mut new: NewRequest,
    others: BTreeMap<Address, Range<u64>>,
    turn: Option<super::order::Turn>,
    waited: &Waited,
) -> Answer<Accepted> {
    let mut turn = turn;
    if let Some(turn) = &mut turn {
        turn.wait().await;
    }
    if !others.is_empty() {
        let borrowed = service.chain.borrow(others, new.arrived);
        new.borrowed = service.chain.unless_draining(borrowed).await.map_err(refusal)?;
    }
    let submitted = service.chain.submit(new).map_err(refusal)?;
    drop(turn);
    let in_account = submitted.waited();
    let answer = submitted.answer().await;
    waited.add(in_account.total());
    answer.map_err(refusal)
}

/// Bytes of a managed sender enter the same table under the same rules; all others are the node's business.
async fn send_raw(params: &Params<'_>, service: &Arc<Service>, extensions: &Extensions) -> Answer<Raw> {
    let arrived = Instant::now();
    let arguments = Arguments::of(params)?;
    let bytes: Bytes = arguments.required(0)?;
    let ours = TxEnvelope::decode_2718_exact(&bytes)
        .ok()
        .and_then(|envelope| envelope.recover_signer().ok().map(|from| (envelope, from)))
        .filter(|(_, from)| service.chain.is_managed(*from));
    let Some((envelope, from)) = ours else {
        let answer = forward(service, untouched(params)?.unwrap_or_default()).await;
        waited_all(extensions);
        return answer;
    };
    let turn = turn(extensions, from);
    let chain_id = service.chain.environment().chain_id;
    check_raw(&envelope, chain_id).map_err(refusal)?;
    service.chain.ready().await.map_err(refusal)?;
    let waited = waited(extensions);
    waited.since(arrived);
    let list = envelope.authorization_list().unwrap_or_default();
    let authorisations = Authorisations::read(list, from, chain_id, |address| service.chain.is_managed(address)).map_err(refusal)?;
    let (_, span) = authorisations.of_sender(Some(envelope.nonce())).map_err(refusal)?;
    let fees = U256::from(envelope.max_fee_per_gas()).saturating_mul(U256::from(envelope.gas_limit()));
    let payload = Payload::Signed {
        nonce: envelope.nonce(),
        span,
        cost: fees.saturating_add(envelope.value()),
        bytes: SignedBytes { hash: *envelope.tx_hash(), raw: envelope.encoded_2718().into() },
    };
    let new = NewRequest {
        from,
        kind: Kind::Raw,
        service: Arc::clone(&service.name),
        principal: Arc::clone(&principal(extensions).name),
        request: Arc::from("{}"),
        payload,
        borrowed: Borrowed::default(),
        arrived,
    };
    let accepted = submit(service, new, authorisations.others, turn, &waited).await?;
    raw(&accepted.hash)
}

/// Passes through, but not past the table of a managed sender.
async fn send_raw_sync(params: &Params<'_>, service: &Arc<Service>) -> Answer<Raw> {
    let bytes: Option<Bytes> = Arguments::of(params)?.optional(0)?;
    let sender = bytes.and_then(|bytes| TxEnvelope::decode_2718_exact(&bytes).ok()?.recover_signer().ok());
    if sender.is_some_and(|sender| service.chain.is_managed(sender)) {
        let words = "bytes of a managed account are sent by eth_sendRawTransaction";
        return Err(refusal(TransactionError::Unsupported(words.into())));
    }
    let params = untouched(params)?;
    service.chain.pool().call_raw("eth_sendRawTransactionSync", params.as_deref()).await.map_err(|error| call_error(&error))
}

/// Bytes of a sender that is not managed go to every endpoint, once; the best answer is passed on.
async fn forward(service: &Service, params: Box<RawValue>) -> Answer<Raw> {
    let mut worst = CallError::Unavailable;
    let mut answers: FuturesUnordered<_> = service.chain.pool().send_raw(Arc::from(params)).into_iter().collect();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(hash) => return raw(&hash),
            Err(error) if matches!(worst, CallError::Unavailable) || matches!(error, CallError::Lost | CallError::Deadline(_)) => {
                worst = error
            }
            Err(_) => {}
        }
    }
    Err(call_error(&worst))
}

fn check_raw(envelope: &TxEnvelope, chain_id: u64) -> Result<(), TransactionError> {
    match envelope.chain_id() {
        None => Err(TransactionError::Invalid("only replay-protected (EIP-155) transactions allowed over RPC".into())),
        Some(have) if have != chain_id => {
            Err(TransactionError::Invalid(format!("invalid sender: invalid chain id for signer: have {have} want {chain_id}")))
        }
        Some(_) if envelope.is_eip4844() => {
            Err(TransactionError::Unsupported("blob transactions of managed accounts are not supported".into()))
        }
        Some(_) => Ok(()),
    }
}

fn signed_transaction(bytes: &Bytes, shape: SignTransactionResult) -> Answer<Raw> {
    if shape == SignTransactionResult::Raw {
        return raw(bytes);
    }
    #[derive(serde::Serialize)]
    struct Signed<'a> {
        raw: &'a Bytes,
        tx: TxEnvelope,
    }
    let tx = TxEnvelope::decode_2718_exact(bytes).map_err(|_| ErrorObjectOwned::from(RpcError::internal()))?;
    raw(&Signed { raw: bytes, tx })
}

pub(super) fn raw<T: serde::Serialize>(value: &T) -> Answer<Raw> {
    to_raw_value(value).map(Arc::from).map_err(|_| RpcError::internal().into())
}

/// The client's parameters, to be passed on as they are.
fn untouched(params: &Params<'_>) -> Answer<Option<Box<RawValue>>> {
    let text = params.as_str().map(|text| RawValue::from_string(text.to_owned()));
    text.transpose().map_err(|_| RpcError::invalid_params("non-array args").into())
}
