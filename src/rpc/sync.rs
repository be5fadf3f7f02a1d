//! EIP-7966: send, and answer with the receipt.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::B256;
use jsonrpsee::Extensions;
use jsonrpsee::types::{ErrorObjectOwned, Params};

use super::arguments::Arguments;
use super::errors::TIMEOUT;
use super::eth::{Answer, Raw};
use super::send::{self, Call};
use super::send_raw::{SentRaw, send_raw};
use super::service::Service;
use super::waiting::{Missed, Target, Wait, named, reach, receipt, timeout};
use crate::journal::{Kind, TransactionId};

/// `eth_sendTransactionSync`.
pub(super) async fn send_transaction(params: &Params<'_>, service: &Arc<Service>, extensions: &Extensions) -> Answer<Raw> {
    let call = Call::read(params, service, extensions, Kind::Send)?;
    let timeout = timeout(Arguments::of(params)?.raw(1), 1, service.chain.environment())?;
    let sent = send::send(call, service, extensions).await?;
    included(service, extensions, sent.id, sent.hash, timeout).await
}

/// `eth_sendRawTransactionSync`. Needs no such method of the node.
pub(super) async fn send_raw_transaction(params: &Params<'_>, service: &Arc<Service>, extensions: &Extensions) -> Answer<Raw> {
    let timeout = timeout(Arguments::of(params)?.raw(1), 1, service.chain.environment())?;
    match send_raw(params, service, extensions).await? {
        SentRaw::Ours(accepted) => included(service, extensions, accepted.id, Some(accepted.hash), timeout).await,
        SentRaw::Foreign(hash) => {
            let mined = service.receipts.first(&service.chain, hash);
            let mined = service.chain.unless_draining(async { Ok(mined.await) });
            match tokio::time::timeout(timeout, mined).await {
                Ok(Ok(receipt)) => Ok(receipt.json),
                Ok(Err(_)) => Err(late(hash, Wait::Drain)),
                Err(_) => Err(late(hash, Wait::Timeout(timeout))),
            }
        }
    }
}

async fn included(service: &Service, extensions: &Extensions, id: TransactionId, first: Option<B256>, timeout: Duration) -> Answer<Raw> {
    match reach(service, extensions, id, Target::Included, timeout).await {
        Ok(life) => receipt(service, life).await,
        Err(Missed::Refused(error)) => Err(error.into()),
        Err(Missed::Late(life, wait)) => {
            let hash = first.or_else(|| life.as_deref().and_then(named));
            match hash {
                Some(hash) => Err(late(hash, wait)),
                None => Err(Missed::Late(None, wait).told(id, None)),
            }
        }
    }
}

/// The EIP's form, and geth's words: the data is the hash alone.
fn late(hash: B256, wait: Wait) -> ErrorObjectOwned {
    let words = format!("The transaction was added to the transaction pool but wasn't processed {wait}");
    ErrorObjectOwned::owned(TIMEOUT, words, Some(hash))
}
