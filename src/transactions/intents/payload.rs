//! What is to be signed for an acknowledged transaction: the request as it is on record, with the fees and the gas of the moment.

use std::sync::Arc;

use super::verdict::{Fault, reverts};
use crate::journal::Intent;
use crate::transactions::authorisations::Authorisations;
use crate::transactions::chain::{Chain, Payload};
use crate::transactions::errors::TransactionError;
use crate::transactions::prepare::prepare;
use crate::transactions::request::{Arguments, Request};

/// The payload of the moment.
pub(super) async fn payload(chain: &Arc<Chain>, intent: &Intent) -> Result<Payload, Fault> {
    let arguments: Arguments = serde_json::from_str(&intent.request).map_err(|error| TransactionError::Invalid(error.to_string()))?;
    let request = check(chain, arguments)?;
    let key = (chain.key_of)(intent.account.address).ok_or(TransactionError::UnknownAccount)?;
    let ceilings = chain.ceilings(&intent.service).ok_or_else(|| Fault::Unconfigured(Arc::clone(&intent.service)))?;
    let none = Authorisations::default();
    let prepare = || prepare(request.clone(), &none, &chain.environment, &chain.pool, &chain.fees, ceilings);
    let prepared = chain.draining.run_until_cancelled(async {
        chain.ready().await?;
        key.usable().map_err(TransactionError::Sign)?;
        match prepare().await {
            Err(error) if reverts(&error) => {
                if chain.journal.waits_ahead(intent.account, intent.transaction).await.map_err(TransactionError::Journal)? {
                    return Err(Fault::Early(error));
                }
                // What was ahead may have been mined since that estimate.
                Ok(prepare().await?)
            }
            other => Ok(other?),
        }
    });
    let prepared = prepared.await.unwrap_or(Err(TransactionError::ShuttingDown.into()))?;
    Ok(Payload::Unsigned { prepared: Box::new(prepared), key: Arc::clone(&key) })
}

/// The rules of what may be acknowledged: nonces are Sluice's to choose, since it is to be finished whatever they are by then.
pub(super) fn check(chain: &Chain, arguments: Arguments) -> Result<Request, TransactionError> {
    let chain_id = chain.environment.chain_id;
    let request = arguments.check(chain_id)?;
    if request.nonce.is_some() {
        return Err(TransactionError::Unsupported("a transaction that is acknowledged before it has an attempt takes no nonce".into()));
    }
    let list = request.authorizations.as_deref().unwrap_or_default();
    let authorisations = Authorisations::read(list, request.from, chain_id, |address| chain.is_managed(address))?;
    if authorisations != Authorisations::default() {
        let words = "authorisations by accounts of this gateway do not go with waitFor \"queued\"";
        return Err(TransactionError::Unsupported(words.into()));
    }
    Ok(request)
}
